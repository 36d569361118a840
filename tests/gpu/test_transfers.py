"""Asynchronous copies, and the streams and events that order them: the stand-in puts copies off as long as it may."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backends import registry
from tensorgrad.backends.cupy.transfers import Held
from tensorgrad.errors import BackendError, DTypeError
from tensorgrad.testing.strict_array import no_traffic
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_memory import alloc_pinned_memory


@pytest.fixture
def cuda() -> Iterator[StrictCupyBackend]:
    with registry.backend("numpy"), strict_cuda(memory=1 << 30) as backend:
        yield backend


def pinned(*numbers: float) -> tg.Tensor:
    return tg.tensor(numbers).pin_memory()


def lies(x: tg.Tensor) -> list[float]:
    """What is there now, without waiting."""
    return x._data._host.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "send",
    [
        lambda x: x.to("cuda", non_blocking=True), lambda x: x.cuda(non_blocking=True),
        lambda x: x.to("cuda", tg.float32, True), lambda x: tg.zeros(2, device="cuda").copy_(x, non_blocking=True),
        lambda x: nn.ParameterList([nn.Parameter(x)]).to("cuda", non_blocking=True)[0].detach(),
        lambda x: x.type("torch.cuda.FloatTensor", non_blocking=True),
    ],
)  # fmt: skip
def test_a_copy_from_pinned_memory_is_work_of_the_stream(send: Any, cuda: StrictCupyBackend) -> None:
    stream = tg.cuda.Stream()
    x = pinned(1.0, 2.0)
    with no_traffic(), tg.cuda.stream(stream):
        y = send(x)
    assert stream.query() or np.isnan(lies(y)).all()
    stream.synchronize()
    assert stream.query() and lies(y) == [1.0, 2.0]


def test_pinned_memory_lives_until_it_has_been_copied(cuda: StrictCupyBackend) -> None:
    x = pinned(1.0, 2.0)
    y = x.to("cuda", non_blocking=True)
    assert np.isnan(lies(y)).all()
    del x
    gc.collect()
    other = pinned(3.0, 4.0)  # the pool would give it the same memory
    assert y.tolist() == [1.0, 2.0] and other.tolist() == [3.0, 4.0]
    tg.cuda.synchronize()
    assert len(cuda._held) == 0
    del other
    assert pinned(5.0, 6.0).is_pinned()


def test_copies_that_wait_do_not_mind_what_happens_to_the_source(cuda: StrictCupyBackend) -> None:
    x = pinned(1.0, 2.0)
    y = x.to("cuda")
    x.fill_(0)
    assert lies(y) == [1.0, 2.0]
    pageable = tg.tensor([1.0, 2.0])
    strided = tg.arange(4.0).pin_memory()[::2]
    for source in (pageable, strided):
        want = source.tolist()
        z = source.to("cuda", non_blocking=True)
        source.fill_(7)
        assert lies(z) == want, "memory that is not pinned, or not dense, is copied at once"
    assert tg.zeros(0).pin_memory().to("cuda", non_blocking=True).shape == (0,)


def test_a_copy_to_the_host_lands_in_pinned_memory(cuda: StrictCupyBackend) -> None:
    x = tg.tensor([1.0, 2.0], device="cuda")
    event = tg.cuda.Event()
    with no_traffic():
        host = x.to("cpu", non_blocking=True)
        event.record()
    assert host.is_pinned() and host.tolist() != [1.0, 2.0] and not event.query()
    event.synchronize()
    assert event.query() and host.tolist() == [1.0, 2.0]
    into = pinned(0.0, 0.0)
    with no_traffic():
        into.copy_(x, non_blocking=True)
    assert into.tolist() == [0.0, 0.0]
    tg.cuda.synchronize()
    assert into.tolist() == [1.0, 2.0]
    # what has to be read on the host afterwards, or lands in other memory, waits
    assert x.to("cpu", tg.float64, non_blocking=True).dtype == tg.float64
    assert tg.zeros(2).copy_(x, non_blocking=True).tolist() == [1.0, 2.0]
    assert tg.zeros(2, dtype=tg.int64).pin_memory().copy_(x, non_blocking=True).tolist() == [1, 2]
    assert tg.zeros(2, 2).pin_memory()[:, 0].copy_(x, non_blocking=True).tolist() == [1.0, 2.0], "not dense"
    assert tg.zeros(3, 2).pin_memory().copy_(x, non_blocking=True).tolist() == [[1.0, 2.0]] * 3
    assert x[:0].to("cpu", non_blocking=True).shape == (0,)
    grid = tg.arange(8.0, device="cuda").reshape(1, 2, 2, 2)
    assert grid.to("cpu", non_blocking=True, memory_format=tg.channels_last).tolist() == grid.tolist()
    wide = tg.arange(4.0, device="cuda").reshape(2, 2).T.to("cpu", non_blocking=True)
    tg.cuda.synchronize()
    assert wide.tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_the_gradient_crosses_back_and_is_there_when_it_is_read(cuda: StrictCupyBackend) -> None:
    x = pinned(1.0, 2.0).requires_grad_()
    (x.to("cuda", non_blocking=True) ** 2).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
    kept = pinned(0.0, 0.0)
    y = tg.tensor([3.0], device="cuda", requires_grad=True)
    out = kept.clone().copy_((y * tg.ones(2, device="cuda")), non_blocking=True)
    out.sum().backward()
    assert y.grad.tolist() == [2.0]


def test_who_does_not_wait_for_the_copy_reads_what_was_there(cuda: StrictCupyBackend) -> None:
    copies, work = tg.cuda.Stream(), tg.cuda.Stream(priority=-1)
    with tg.cuda.stream(copies):
        x = pinned(1.0, 2.0).to("cuda", non_blocking=True)
    with tg.cuda.stream(work):
        early = x * 2
        work.wait_stream(copies)
        late = x * 2
    assert np.isnan(lies(early)).all() and lies(late) == [2.0, 4.0]
    with tg.cuda.stream(copies):
        y = pinned(5.0).to("cuda", non_blocking=True)
        ready = copies.record_event()
    with tg.cuda.stream(work):
        ready.wait()
        assert (y + 1).tolist() == [6.0]


def test_record_stream_keeps_memory_from_others_until_the_work_is_done(cuda: StrictCupyBackend) -> None:
    side = tg.cuda.Stream()
    x = tg.tensor([1.0, 2.0], device="cuda")
    place = x._data.data.ptr
    view = x[1:]
    side.wait_stream(tg.cuda.current_stream())
    with tg.cuda.stream(side):
        pending = pinned(0.0).to("cuda", non_blocking=True)  # the stream is busy
    view.record_stream(side)
    del x, view
    gc.collect()
    assert len(cuda._held) >= 1
    fresh = tg.tensor([9.0, 9.0], device="cuda")
    assert fresh._data.data.ptr != place, "the side stream may still read it"
    side.synchronize()
    tg.cuda.empty_cache()
    assert len(cuda._held) == 0 and pending.tolist() == [0.0]
    a = tg.tensor([1.0, 2.0], device="cuda")
    del a
    b = tg.tensor([3.0, 3.0], device="cuda")
    assert b.tolist() == [3.0, 3.0]
    with pytest.raises(BackendError, match="no streams"):
        tg.ones(1).record_stream(side)


def test_what_is_let_go_may_come_back_to_be_held_for_another_stream(cuda: StrictCupyBackend) -> None:
    side = tg.cuda.Stream()
    x = tg.tensor([1.0, 2.0], device="cuda")
    side.wait_stream(tg.cuda.current_stream())
    x.record_stream(side)
    host = x.to("cpu", non_blocking=True)  # holds x until it is copied
    with tg.cuda.stream(side):
        pending = pinned(0.0).to("cuda", non_blocking=True)  # the stream is busy
    del x
    gc.collect()
    tg.cuda.current_stream().synchronize()
    cuda._held.release()  # the copy is done: x ends here, and its memory is held for the other stream
    assert host.tolist() == [1.0, 2.0] and len(cuda._held) >= 1 and not side.query()
    tg.cuda.synchronize()
    assert len(cuda._held) == 0 and pending.tolist() == [0.0]


def test_a_stream_is_recorded_once_however_often_it_is_told(cuda: StrictCupyBackend) -> None:
    side, other = tg.cuda.Stream(), tg.cuda.Stream()
    x = tg.tensor([1.0, 2.0], device="cuda")
    counts = set()
    for _ in range(3):
        x.record_stream(side)
        x[1:].record_stream(other)
        counts.add(weakref.getweakrefcount(x._data))
    assert len(counts) == 1 and len(cuda._held.recorded) == 2
    del x
    gc.collect()
    assert not cuda._held.recorded
    tg.cuda.synchronize()
    assert len(cuda._held) == 0


def test_what_is_held_stays_when_a_stream_cannot_be_asked() -> None:
    class Event:
        failing = True

        @property
        def done(self) -> bool:
            if self.failing:
                raise RuntimeError("operation not permitted when stream is capturing")
            return True

    held, event = Held(), Event()
    held.until(event, np.ones(2))
    with pytest.raises(RuntimeError, match="not permitted"):
        held.release()
    assert len(held) == 1
    event.failing = False
    held.release()
    assert len(held) == 0


def test_several_threads_let_go_at_once() -> None:
    held = Held()

    class Event:
        @property
        def done(self) -> bool:
            held.waiting.clear()  # as if others had them
            return True

    held.waiting.extend([(Event(), 1), (Event(), 2)])
    held.release()
    assert len(held) == 0


def test_events_measure_order_and_know_their_stream(cuda: StrictCupyBackend) -> None:
    start, end = (tg.cuda.Event(enable_timing=True) for _ in range(2))
    assert start.query() and start.device is None
    start.synchronize()
    start.wait()
    with pytest.raises(ValueError, match="must be recorded"):
        start.elapsed_time(end)
    start.record()
    end.record(tg.cuda.default_stream())
    assert start.elapsed_time(end) >= 0 and str(end.device) == "cuda:0"
    with pytest.raises(ValueError, match="enable_timing=True"):
        start.elapsed_time(tg.cuda.Event())
    with pytest.raises(ValueError, match="interprocess"):
        tg.cuda.Event(interprocess=True)


def test_streams_are_entered_and_left(cuda: StrictCupyBackend) -> None:
    default, own = tg.cuda.default_stream(), tg.cuda.Stream(priority=-1)
    assert tg.cuda.current_stream() == default != own and own.priority == -1 and str(own.device) == "cuda:0"
    with own:
        assert tg.cuda.current_stream() == own
        with tg.cuda.stream(None), tg.cuda.stream(default):
            assert tg.cuda.current_stream() == default
        with own:
            assert tg.cuda.current_stream() == own
        assert tg.cuda.current_stream() == own
    assert tg.cuda.current_stream() == default
    tg.cuda.set_stream(own)
    assert tg.cuda.current_stream() == own
    tg.cuda.set_stream(default)
    other = tg.cuda.ExternalStream(0x5000)
    assert other == tg.cuda.get_stream_from_external(0x5000) and other.cuda_stream == 0x5000 and len({own, other}) == 2
    with tg.cuda.stream(other):
        assert tg.cuda.current_stream() == other
    assert "cuda_stream=0x5000" in repr(other)


def test_pinning_is_known_and_refused_where_it_makes_no_sense(cuda: StrictCupyBackend) -> None:
    x = pinned(1.0, 2.0)
    assert x.is_pinned() and x[1:].is_pinned() and not tg.ones(2).is_pinned() and not x.cuda().is_pinned()
    assert cuda.is_pinned(memoryview(alloc_pinned_memory(4))) and not cuda.is_pinned(np.ones(2))
    with pytest.raises(DTypeError, match="only CPU tensors"):
        x.cuda().pin_memory()
    with pytest.raises(BackendError, match="no pinning"):
        registry.get("numpy").pinned(np.ones(1))


def test_what_is_held_is_let_go_in_any_order() -> None:
    class Event:
        done = False

    held, events = Held(), [Event(), Event()]
    for event in events:
        held.until(event, np.ones(2))
    events[1].done = True
    held.release()
    assert len(held) == 1
    events[0].done = True
    held.until(Event(), 1)
    assert len(held) == 1
