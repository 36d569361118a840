"""Several devices: work goes to the device of its arrays, and nothing lands on another one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backends import registry
from tensorgrad.backends.cupy.cublas import Cublas
from tensorgrad.backends.cupy.cublaslt import CublasLt
from tensorgrad.errors import CompileError, DeviceError
from tensorgrad.testing import conformance
from tensorgrad.testing.draw import inputs_of
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cublas import emulated
from tensorgrad.testing.strict_cublaslt import emulated_lt
from tensorgrad.testing.strict_cudnn import Frontend
from tensorgrad.testing.strict_namespace import xp

GIB = 1 << 30


@pytest.fixture
def two() -> Iterator[StrictCupyBackend]:
    with registry.backend("numpy"), strict_cuda(devices=2, memory=GIB) as backend:
        backend.device_memory(0)  # peaks are counted from here on
        yield backend


def peak(device: int) -> int:
    return tg.cuda.max_memory_allocated(device)


def test_work_on_another_device_than_the_current_one_is_refused(two: StrictCupyBackend) -> None:
    with xp.cuda.Device(1):
        x = xp.arange(4.0)
    assert x.device.id == 1 and x[1:].device.id == 1 and x.reshape(2, 2).T.device.id == 1
    work: list[Callable[[], Any]] = [
        lambda: x + 1, lambda: xp.sum(x), lambda: x.sum(), lambda: x.astype(np.float32), lambda: x.fill(0),
        lambda: x.__setitem__(0, 1.0), lambda: x[xp.zeros(1, dtype=np.int64)], lambda: xp.add.at(x, 0, 1.0),
        lambda: x[:3].reshape(3, 1).T.reshape(3, 1)[::-1].reshape(1, 3) @ x[:3], lambda: xp.where(x > 0, x, x),
        lambda: two._kernels.launch("words", 1, 4, 0, 0, x), lambda: xp.concatenate([x, x]), lambda: x.set(np.ones(4)),
    ]  # fmt: skip
    for one in work:
        with pytest.raises(AssertionError, match="device 1 while device 0 is the current one"):
            one()
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0], "fetching is done where the array lies"
    here = x.copy()
    assert here.device.id == 0 and here.tolist() == x.tolist()


def test_streams_and_events_belong_to_a_device(two: StrictCupyBackend) -> None:
    with xp.cuda.Device(1):
        stream, event = xp.cuda.Stream(non_blocking=True), xp.cuda.Event()
    with pytest.raises(RuntimeError, match="does not match with the current device"), stream:
        pass
    with pytest.raises(RuntimeError, match="different devices"):
        event.record(xp.cuda.Stream.null)
    with tg.cuda.stream(tg.cuda.Stream("cuda:1")) as _:
        assert tg.cuda.current_device() == 1
        assert tg.zeros(1, device="cuda").device == tg.device("cuda:1")
    assert tg.cuda.current_device() == 0 and peak(0) == 0


def test_a_handle_is_destroyed_on_its_own_device(two: StrictCupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[tuple[str, int]] = []

    def noting(name: str, destroy: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def noted(handle: Any) -> Any:
            destroyed.append((name, xp.cuda.runtime.getDevice()))
            return destroy(handle)

        return noted

    names = ("cublasDestroy_v2", "cublasLtDestroy")
    base, lt = emulated(), emulated_lt()
    base[names[0]], lt[names[1]] = noting(names[0], base[names[0]]), noting(names[1], lt[names[1]])
    two._cublas = Cublas(xp, base)
    two._cublaslt = CublasLt(two._cublas, lt)
    gc.collect()  # handles of other tests
    monkeypatch.setattr(Frontend, "destroy_handle", staticmethod(noting("cudnn", Frontend.destroy_handle)))

    def work() -> None:
        for device in (0, 1):
            x, w = tg.ones(2, 3, 4, device=f"cuda:{device}"), tg.ones(3, 3, 2, device=f"cuda:{device}")
            nn.functional.conv1d(x, w)
            nn.functional.linear(x, w.reshape(6, 3)[:4].t(), tg.ones(3, device=x.device))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert sorted(destroyed) == [(name, device) for name in (*names, "cudnn") for device in (0, 1)]
    assert xp.cuda.runtime.getDevice() == 0


CASES = {}  # one case an op: the arithmetic is the same on every device
for _case in conformance.cases():
    CASES.setdefault(_case.op.name, _case)


@pytest.mark.parametrize("part", range(4))
def test_every_op_runs_where_its_inputs_lie(part: int, two: StrictCupyBackend) -> None:
    ran = 0
    for case in list(CASES.values())[part::4]:
        host = inputs_of(case.op.name, case.sample, "float32")
        given = [two.from_host(x, 1) if isinstance(x, np.ndarray) else x for x in host]
        if not any(isinstance(x, StrictArray) for x in given):
            continue
        results = getattr(two.raw, case.op.name)(*given, **case.sample.attrs)
        results = results if isinstance(results, (tuple, list)) else (results,)
        assert all(x.device.id == 1 for x in results if isinstance(x, StrictArray)), case
        assert peak(0) == 0, case
        ran += 1
    assert ran > 50


def test_tensors_are_made_where_they_are_asked_for(two: StrictCupyBackend) -> None:
    x = tg.ones(2, 3, device="cuda:1")
    made = [
        tg.zeros(2, device="cuda:1"), tg.full((2,), 3.0, device="cuda:1"), tg.arange(3, device="cuda:1"),
        tg.tensor([1.0, 2.0], device="cuda:1"), tg.rand(2, device="cuda:1"), tg.randn(2, device="cuda:1"),
        tg.randint(3, (2,), device="cuda:1"), tg.randperm(3, device="cuda:1"), tg.eye(2, device="cuda:1"),
        tg.linspace(0, 1, 3, device="cuda:1"), tg.empty(2, device="cuda:1"), tg.zeros_like(x), tg.ones_like(x),
        tg.rand_like(x), tg.empty_like(x), tg.full_like(x, 2.0), x.new_zeros(2), x.new_tensor([1.0]), x.clone(),
        x.to(tg.float64), x[x > 0], x[tg.tensor([0])], x.sum(), x * 2, tg.cat([x, x]), x.argmax(1), x.cuda(1),
        tg.nn.functional.dropout(x, 0.5), tg.nn.functional.one_hot(tg.tensor([0, 1], device="cuda:1")),
    ]  # fmt: skip
    with tg.cuda.device(1):
        made.append(tg.zeros(2, device="cuda"))
    with tg.cuda.device_of(x):
        made.append(tg.zeros(2, device="cuda"))
    with tg.device("cuda:1"):
        made.append(tg.zeros(2))
    assert {str(y.device) for y in made} == {"cuda:1"}
    assert peak(0) == 0 and peak(1) > 0
    assert tg.zeros(1, device="cuda").device == tg.device("cuda:0")


def test_devices_are_not_mixed(two: StrictCupyBackend) -> None:
    a, b = tg.ones(2, device="cuda:0"), tg.ones(2, device="cuda:1")
    mixed: list[Callable[[], Any]] = [
        lambda: a + b, lambda: a @ b, lambda: tg.cat([a, b]), lambda: tg.where(a > 0, a, b), lambda: a.add_(b),
        lambda: tg.stack([b, a]), lambda: nn.functional.linear(a, b.reshape(1, 2)),
    ]  # fmt: skip
    for one in mixed:
        with pytest.raises(DeviceError, match=r"one input lives on cuda:\d, another on cuda:\d. Move one"):
            one()
    raw = two.from_host(np.ones(2), 0), two.from_host(np.ones(2), 1)
    with pytest.raises(DeviceError, match="mul: one input lives on cuda:0, another on cuda:1"):
        two.raw.mul(*raw)
    with pytest.raises(DeviceError, match="'cuda:2' does not exist; there are 2"):
        a.to("cuda:2")


def test_moves_between_devices_go_directly_and_carry_the_gradient(two: StrictCupyBackend) -> None:
    x = tg.arange(6.0, device="cuda:0").reshape(2, 3).T.requires_grad_()
    y = x.to("cuda:1")
    assert str(y.device) == "cuda:1" and y.tolist() == x.tolist()
    (y * y).sum().backward()
    assert str(x.grad.device) == "cuda:0" and x.grad.tolist() == (2 * x).tolist()
    target = tg.zeros(3, 2, device="cuda:1")
    assert target.copy_(x.detach()).tolist() == x.tolist() and str(target.device) == "cuda:1"
    empty = tg.zeros(0, 3, device="cuda:1").to("cuda:0")
    assert empty.shape == (0, 3) and str(empty.device) == "cuda:0"


def test_a_move_waits_for_both_streams(two: StrictCupyBackend) -> None:
    pinned = tg.arange(4.0).pin_memory()
    source, target = tg.cuda.Stream("cuda:0"), tg.cuda.Stream("cuda:1")
    with tg.cuda.stream(source), tg.cuda.stream(target), tg.cuda.device(0):
        x = pinned.to("cuda:0", non_blocking=True)  # still on its way
        y = x.to("cuda:1")
        assert target._native.done and y._data._host.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert str(y.device) == "cuda:1"


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adadelta": optim.Adadelta,
    "lbfgs": lambda p: optim.LBFGS(p, max_iter=3),
}


def network() -> nn.Module:
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.25), nn.Linear(64, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3),
    )  # fmt: skip


def trained(device: str, make: Any) -> list[list[float]]:
    model = network().to(device)
    optimizer = make(model.parameters())
    rng = np.random.default_rng(0)
    x = tg.tensor(rng.normal(size=(6, 1, 8, 8)).astype(np.float32), device=device)
    target = tg.tensor(rng.integers(0, 3, 6), device=device)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return loss

    for _ in range(2):
        optimizer.step(closure)
    where = {str(y.device) for y in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()))}
    where |= {
        str(v.device) for s in optimizer.state.values() for v in s.values() if isinstance(v, tg.Tensor) and v.ndim
    }
    assert where == {str(x.device)}
    return [p.flatten().tolist() for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_is_trained_on_the_second_device(name: str, two: StrictCupyBackend) -> None:
    got = trained("cuda:1", OPTIMIZERS[name])
    assert peak(0) == 0 and peak(1) > 0
    want = trained("cpu", OPTIMIZERS[name])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def test_recurrent_attention_and_a_compiled_step_on_the_second_device(two: StrictCupyBackend) -> None:
    tg.manual_seed(0)
    lstm = nn.LSTM(4, 8, batch_first=True).to("cuda:1")
    attention = nn.MultiheadAttention(8, 2, batch_first=True).to("cuda:1")
    out, _ = attention(*[lstm(tg.randn(2, 5, 4, device="cuda:1"))[0]] * 3, is_causal=True, attn_mask=tg.zeros(
        5, 5, dtype=tg.bool, device="cuda:1"))  # fmt: skip
    out.sum().backward()
    assert str(lstm.weight_ih_l0.grad.device) == "cuda:1"
    linear = nn.Linear(4, 4).to("cuda:1")
    optimizer = optim.SGD(linear.parameters(), lr=0.1)

    @tg.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = linear(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x = tg.randn(8, 4, device="cuda:1")
    losses = [step(x) for _ in range(4)]
    assert {str(loss.device) for loss in losses} == {"cuda:1"}
    assert [float(loss) for loss in losses] == sorted((float(loss) for loss in losses), reverse=True)
    assert peak(0) == 0


def test_a_program_belongs_to_a_device(two: StrictCupyBackend) -> None:
    f = tg.compile(lambda x: x * 2 + tg.rand(3, device=x.device))
    for device in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        for _ in range(3):
            assert str(f(tg.ones(3, device=device)).device) == device
    assert f.stats()["captures"] == 2, "and each captures its graphs once"
    assert {runner.device for program in f.programs for runner in program.runners} == {0, 1}
    # what no graph holds is made where the arguments lie too
    g = tg.compile(lambda x: tg.cat([x, *(tg.rand(1, device=x.device) for _ in range(8))]).sort()[0])
    for _ in range(3):
        assert str(g(tg.ones(1, device="cuda:1")).device) == "cuda:1"
    h = tg.compile(lambda x: (x, tg.rand(1 << 21, device=x.device)))
    for _ in range(3):
        assert {str(y.device) for y in h(tg.ones(1 << 21, device="cuda:1"))} == {"cuda:1"}
    assert "replayed in Python" in h.programs[0].runners[0].told()[0]


def test_a_program_of_nothing_makes_tensors_on_the_current_device(two: StrictCupyBackend) -> None:
    f = tg.compile(lambda: tg.rand(3, device="cuda"))
    g = tg.compile(lambda: tg.rand(3, device="cuda:0"))
    for device in (0, 0, 0, 1, 1, 1):
        with tg.cuda.device(device):
            assert str(f().device) == f"cuda:{device}"
            if device == 0:
                assert str(g().device) == "cuda:0"
    with tg.cuda.device(1), pytest.raises(CompileError, match="made on cuda:0, which is not the current device"):
        g()
    eager = tg.compile(lambda: tg.rand(3, device="cuda:1"), fallback=True)
    for _ in range(3):
        assert str(eager().device) == "cuda:1"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (x * 2, y * 3),
        lambda x, y: (x * 2, tg.rand(3, device="cuda:1")),
        lambda x, y: (x * 2, tg.tensor([1.0, 2.0], device="cuda:1") * 3),
    ],
    ids=["arguments", "made of nothing", "a constant"],
)
def test_a_program_computes_on_one_device(function: Any, two: StrictCupyBackend) -> None:
    def given(i: float) -> tuple[tg.Tensor, tg.Tensor]:
        return tg.full((3,), i, device="cuda:0"), tg.full((3,), i, device="cuda:1")

    with pytest.raises(CompileError, match=r"tensors on cuda:0 and on cuda:1 are used.* computes on one device"):
        tg.compile(function)(*given(1.0))
    f = tg.compile(function, fallback=True)
    for i in range(4):
        a, b = f(*given(float(i)))
        assert a.tolist() == [2.0 * i] * 3 and (str(a.device), str(b.device)) == ("cuda:0", "cuda:1")


def test_state_on_two_devices_is_no_program(two: StrictCupyBackend) -> None:
    state = tg.ones(3, device="cuda:0"), tg.ones(3, device="cuda:1")
    with pytest.raises(CompileError, match="tensors on cuda:0 and on cuda:1 are used"):
        tg.compile(lambda: (state[0] * 2, state[1] * 3))()


def test_the_current_device_is_a_threads_own_and_is_given_back(two: StrictCupyBackend) -> None:
    assert tg.cuda.device_count() == 2 and tg.cuda.is_available()
    with tg.cuda.device(1):
        with tg.cuda.device(0), tg.cuda.device(-1):
            assert tg.cuda.current_device() == 0
        assert tg.cuda.current_device() == 1
        with pytest.raises(RuntimeError, match="broken"), tg.cuda.device(0):
            raise RuntimeError("broken")
        assert tg.cuda.current_device() == 1
    tg.cuda.set_device(1)
    try:
        assert str(tg.ones(1).cuda().device) == "cuda:1"
    finally:
        tg.cuda.set_device(0)
    assert tg.cuda.can_device_access_peer(0, 1)
    with pytest.raises(DeviceError, match="does not exist"):
        tg.cuda.set_device(2)
    assert tg.cuda.get_device_name(1) == "strict stand-in"
    tg.cuda.synchronize(1)


def test_a_tensor_of_no_dimensions_on_the_cpu_is_a_number_among_others(two: StrictCupyBackend) -> None:
    s, x = tg.tensor(2.5, requires_grad=True), tg.ones(3, device="cuda:1", requires_grad=True)
    y = tg.lerp(x * s + s, s * 2, 0.5) + (x.detach() * 1).mul_(s) / s.double()
    assert str(y.device) == "cuda:1" and y.dtype == tg.float32 and y.tolist() == [6.0] * 3
    assert tg.where(x > s, x, s).tolist() == [2.5] * 3
    (x * s).sum().backward()
    assert s.grad.item() == 3.0 and str(s.grad.device) == "cpu" and x.grad.tolist() == [2.5] * 3
    for refused in (
        lambda: x * tg.ones(1), lambda: tg.tensor(1.0).add_(x.detach()[0]), lambda: tg.cat([x, tg.ones(1)]),
        lambda: x * tg.tensor(1.0, device="cuda:0"),
    ):  # fmt: skip
        with pytest.raises(DeviceError, match="one input lives on"):
            refused()
    f = tg.compile(lambda a, b: a * b)
    with pytest.raises(CompileError, match="is moved to cuda:1"):  # a program would hold the first number for ever
        f(x.detach(), tg.tensor(2.0))


def test_priorities_of_streams(two: StrictCupyBackend) -> None:
    least, greatest = tg.cuda.Stream.priority_range()
    assert (least, greatest) == (0, -5)
    assert [tg.cuda.Stream(priority=n).priority for n in (-100, -1, 3)] == [greatest, -1, least]


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cpu", "cuda:1"), ("cuda:1", "cpu")])
@pytest.mark.parametrize("order", [2.0, 0.5, float("inf")])
def test_gradients_of_several_devices_are_clipped_by_their_norm_together(
    devices: tuple[str, ...], order: float, two: StrictCupyBackend
) -> None:
    def clipped(places: tuple[str, ...]) -> tuple[float, list[list[float]]]:
        parameters = [tg.zeros(2, device=place, requires_grad=True) for place in places]
        for i, p in enumerate(parameters):
            p.grad = tg.tensor([3.0, 4.0 + i], device=p.device)
        total = nn.utils.clip_grad_norm_(parameters, 0.5, order)
        assert total.device == parameters[0].device
        grads: list[Any] = [p.grad for p in parameters]
        return float(total), [grad.tolist() for grad in grads]

    total, grads = clipped(devices)
    same_total, same = clipped(("cpu", "cpu"))
    assert np.isclose(total, same_total, rtol=1e-6)
    np.testing.assert_allclose(grads, same, rtol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "SGD"])
@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cpu", "cuda:1"), ("cuda:1", "cpu")])
def test_a_step_over_several_devices_clips(name: str, devices: tuple[str, ...], two: StrictCupyBackend) -> None:
    def stepped(places: tuple[str, ...]) -> list[list[float]]:
        parameters = [tg.ones(2, device=place, requires_grad=True) for place in places]
        optimizer = getattr(optim, name)(parameters, lr=0.1, max_grad_norm=0.5)
        for step in range(2):
            for i, p in enumerate(parameters):
                p.grad = tg.tensor([3.0, 4.0 + i * step], device=p.device)
            optimizer.step()
        return [p.tolist() for p in parameters]

    np.testing.assert_allclose(stepped(devices), stepped(("cpu", "cpu")), rtol=1e-5)


def test_writes_that_overlap_what_is_read_are_refused(two: StrictCupyBackend) -> None:
    x = tg.arange(9.0, device="cuda:1").reshape(3, 3)
    writes: list[Callable[[], Any]] = [
        lambda: x.add_(x.T), lambda: x[1:].add_(x[:-1]), lambda: x[:, 1:].mul_(x[:, :-1]), lambda: x.add_(x[0]),
    ]  # fmt: skip
    for write in writes:
        with pytest.raises(RuntimeError, match="shares part of its memory"):
            write()
    assert x.flatten().tolist() == list(range(9))
    x[:, ::2].add_(x[:, 1:2])  # between each other, not the same
    x.add_(x)
    x[1:].add_(x[:1])
    assert x.tolist() == [[2.0, 2.0, 6.0], [16.0, 10.0, 24.0], [28.0, 16.0, 36.0]]
