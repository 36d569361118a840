"""The stand-in's streams, pools and graphs do what makes mistakes show, and have CuPy's signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad.testing import strict_stream
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_memory import POISON, Memory, room_at
from tensorgrad.testing.strict_namespace import xp
from tensorgrad.testing.strict_stream import MemoryPool, Stream, using_allocator


def captured(work: Callable[[], Any], pool: Any = None) -> tuple[Any, Any]:
    stream = Stream(non_blocking=True)
    with stream, using_allocator((pool or MemoryPool()).malloc):
        stream.begin_capture()
        try:
            result = work()
        finally:
            graph = stream.end_capture()
    return graph, result


def test_a_graph_computes_what_lies_there_when_it_is_launched() -> None:
    x, y = xp.arange(4.0), xp.zeros(4)
    at = xp.asarray(np.array([3, 0]))

    def work() -> Any:
        a = (x * 2 + 1).reshape(2, 2).T
        b = xp.where(a > 3, a, xp.zeros((), dtype=a.dtype)).astype(np.float32)
        y[1:3] = x[at]
        xp.add(y, 1, out=y)
        c = a.sum(axis=0)
        c *= 3
        return a, b, c

    pool = MemoryPool()
    graph, results = captured(work, pool)
    assert y.tolist() == [0.0] * 4 and all(np.isnan(r.get()).all() for r in results), "nothing has run yet"
    for start in (0.0, 5.0):
        x[...] = xp.arange(start, start + 4)
        y.fill(0)
        graph.launch()
        a = (x.get() * 2 + 1).reshape(2, 2).T
        assert [r.tolist() for r in results] == [a.tolist(), np.where(a > 3, a, 0).tolist(), (a.sum(0) * 3).tolist()]
        assert y.tolist() == [1.0, start + 4, start + 1, 1.0]


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: float(x.sum()), lambda x: bool((x > 0).all()), lambda x: x.get(), lambda x: xp.asnumpy(x),
        lambda x: xp.asarray(np.ones(3)), lambda x: xp.array([1.0, 2.0]), lambda x: x.set(np.ones(3)),
        lambda x: x[x > 0], lambda x: x[[0, 1]], lambda x: xp.nonzero(x), lambda x: xp.sort(x), lambda x: x.argsort(),
        lambda x: xp.stack([x] * 9), lambda x: x @ x, lambda x: xp.dot(x, x), lambda x: xp.linalg.norm(x[None] @ x),
        lambda x: xp.linalg.inv(xp.zeros((2, 2))), lambda x: strict_stream.current().synchronize(),
        lambda x: strict_stream.Event().synchronize(), lambda x: xp.cuda.Device().synchronize(),
        lambda x: strict_stream.Graph().launch(), lambda x: strict_stream.current().begin_capture(),
    ],
)  # fmt: skip
def test_what_a_captured_stream_refuses(refused: Any) -> None:
    x = xp.arange(3.0)
    with pytest.raises((RuntimeError, NotImplementedError), match="captur"):
        captured(lambda: refused(x))
    assert strict_stream.capturing() is None


def test_the_null_stream_is_not_captured() -> None:
    with pytest.raises(RuntimeError, match="cannot capture"):
        Stream.null.begin_capture()
    with pytest.raises(RuntimeError, match="not captured"):
        Stream(non_blocking=True).end_capture()


def test_freed_memory_is_overwritten_and_given_out_again() -> None:
    pool = MemoryPool()
    with using_allocator(pool.malloc):
        x = xp.ones(3)
        stale, place = x._host.view(), x.data.ptr
        # a view keeps the memory
        view = x[1:]
        del x, stale
        assert view.tolist() == [1.0, 1.0]
        del view
        y = xp.zeros(4)
        assert y.data.ptr == place and y.data.ptr % 256 == 0


@pytest.mark.parametrize("size", [100, (3 << 20) + 5])
def test_raw_memory_is_poison_before_it_is_written_and_when_it_is_freed(size: int) -> None:
    memory, other = Memory(size), Memory(size)
    room = memory.room
    assert memory.ptr % 256 == 0 and memory.ptr + size <= room.ctypes.data + room.nbytes
    assert (room == POISON).all()
    room_at(memory.ptr, size)[:] = 7
    assert np.count_nonzero(room == 7) == size and (other.room == POISON).all()
    del memory
    assert (room == POISON).all() and (Memory(size).room == POISON).all()


def test_a_stale_read_within_a_graph_shows() -> None:
    x = xp.ones(3)
    pool = MemoryPool()
    result: list[Any] = []

    def work() -> None:
        early = x * 2
        result.append(strict_stream.capturing().by_address(early._host))  # type: ignore[union-attr]
        del early  # its place is another's from here on

    graph, _ = captured(work, pool)
    graph.launch()
    assert np.isnan(result[0]).all()


def test_a_graph_whose_memory_was_freed_is_not_launched() -> None:
    def pooled() -> Any:
        pool = MemoryPool()
        x = xp.ones(3)
        graph, result = captured(lambda: x * 2, pool)
        return graph, result, pool, x

    graph, result, pool, x = pooled()
    graph.launch()
    assert result.tolist() == [2.0] * 3
    del result
    graph.launch()  # the pool still has the memory
    del pool
    with pytest.raises(AssertionError, match="memory that was freed"):
        graph.launch()
    graph, *_kept, x = pooled()
    graph.launch()
    del x  # an operand
    with pytest.raises(AssertionError, match="memory that was freed"):
        graph.launch()


def test_views_know_whose_memory_they_show() -> None:
    x = xp.arange(6.0).reshape(2, 3)
    whole = x if x.base is None else x.base
    for view in (x[0], x.T, x.reshape(3, 2), x[:, ::2].T[0], xp.broadcast_to(x, (4, 2, 3)), xp.swapaxes(x, 0, 1)):
        assert view.base is whole
    for copy in (x + 1, x.copy(), x[xp.asarray(np.array([0]))], x.astype(np.float32), x.sum()):
        assert copy.base is None
    assert type(xp.zeros(2, dtype=np.complex64).real.base) is StrictArray


def parameters(text: str) -> list[str]:
    """The names in a signature that Cython has written into a docstring."""
    found = re.search(r"\(([^)]*)\)", text)
    assert found, text
    names = [part.split("=")[0].split()[-1] for part in found.group(1).split(",") if part.strip()]
    return [name for name in names if name != "self"]


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Stream", ("__init__", "__enter__", "__exit__", "use", "begin_capture", "end_capture", "is_capturing",
                    "record", "synchronize", "wait_event")),
        ("Event", ("__init__", "record", "synchronize")), ("Graph", ("launch", "upload")),
        ("MemoryPool", ("malloc",)), ("MemoryPointer", ("__add__",)), ("Memory", ()),
        ("", ("alloc", "using_allocator", "get_current_stream")),
    ],
)  # fmt: skip
def test_signatures_are_those_of_cupy(owner: str, names: tuple[str, ...]) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: its signatures are unknown")
    real, ours = (getattr(space, owner) if owner else space for space in (cupy.cuda, xp.cuda))
    for name in names:
        theirs = getattr(real, name)
        if name in ("__enter__", "__exit__", "__add__"):
            continue
        own = [p for p in inspect.signature(getattr(ours, name)).parameters if p != "self"]
        try:
            expected = [p for p in inspect.signature(theirs).parameters if p != "self"]
        except ValueError:
            expected = parameters(theirs.__doc__)
        assert own == expected, (owner, name)
    if owner in ("MemoryPool", "Memory", "MemoryPointer"):
        assert list(inspect.signature(ours).parameters) == parameters(real.__doc__)
    for name in ("ptr", "size") if owner == "Memory" else ("ptr", "mem") if owner == "MemoryPointer" else ():
        assert hasattr(real, name)
    assert callable(cupy.cuda.runtime.getDevice) and callable(cupy.lib.stride_tricks.as_strided)
