"""What the pool holds, its limits, and a device that is full: an error says what helps, and the process goes on."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.backends.cupy.cublas import Cublas
from tensorgrad.backends.cupy.cublaslt import CublasLt
from tensorgrad.testing.strict_backend import StrictCupyBackend, _EvaluatingLauncher, _ReferenceKernels, strict_cuda
from tensorgrad.testing.strict_memory import MemoryPool, OutOfMemoryError
from tensorgrad.testing.strict_namespace import xp
from tensorgrad.testing.strict_stream import Graph, Stream

MIB = 1 << 20


@pytest.fixture
def cuda() -> Iterator[StrictCupyBackend]:
    with registry.backend("numpy"), strict_cuda(devices=2, memory=8 * MIB) as backend:
        yield backend


def mebibytes(count: float, device: str = "cuda:0") -> tg.Tensor:
    return tg.zeros(int(count * MIB) // 4, device=device)


def test_the_figures_follow_what_tensors_hold(cuda: StrictCupyBackend) -> None:
    assert tg.cuda.memory_allocated() == 0
    x = mebibytes(2)
    y = mebibytes(1)
    assert tg.cuda.memory_allocated() == 3 * MIB == tg.cuda.memory_allocated(0) and tg.cuda.memory_allocated(1) == 0
    del y
    assert tg.cuda.memory_allocated() == 2 * MIB and tg.cuda.memory_reserved() == 3 * MIB
    assert tg.cuda.max_memory_allocated() == tg.cuda.max_memory_reserved() == 3 * MIB
    tg.cuda.reset_peak_memory_stats()
    assert tg.cuda.max_memory_allocated() == 2 * MIB
    free, total = tg.cuda.mem_get_info()
    assert (free, total) == (5 * MIB, 8 * MIB)
    tg.cuda.empty_cache()
    assert tg.cuda.memory_reserved() == 2 * MIB and tg.cuda.mem_get_info()[0] == 6 * MIB
    stats = tg.cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == 2 * MIB and stats["reserved_bytes.all.peak"] == 3 * MIB
    assert "2,097,152 bytes" in tg.cuda.memory_summary() and "peak" not in tg.cuda.memory_summary(abbreviated=True)
    del x
    assert tg.cuda.memory_allocated() == 0


def test_peaks_are_those_of_all_threads(cuda: StrictCupyBackend) -> None:
    assert tg.cuda.max_memory_allocated() == 0

    def work() -> None:
        with cuda.on(1):
            x = cuda.xp.zeros((MIB,), dtype=np.uint8)
            del x

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert tg.cuda.max_memory_allocated(1) == tg.cuda.max_memory_reserved(1) == MIB
    assert tg.cuda.memory_allocated(1) == 0 == tg.cuda.max_memory_allocated(0)


def test_the_cache_of_every_device_is_emptied(cuda: StrictCupyBackend) -> None:
    x = mebibytes(1, "cuda:1")
    del x
    assert tg.cuda.memory_reserved(1) == MIB
    tg.cuda.empty_cache()
    assert tg.cuda.memory_reserved(1) == 0 and tg.cuda.current_device() == 0


def test_a_full_device_raises_an_error_that_helps_and_the_process_goes_on(cuda: StrictCupyBackend) -> None:
    x = mebibytes(5)
    with pytest.raises(tg.cuda.OutOfMemoryError) as caught:
        x * 2
    said = str(caught.value)
    assert said.startswith(
        "cuda:0 is out of memory: 5.00 MiB were asked for; tensors hold 5.00 MiB, 0 bytes belong to "
    )
    assert "3.00 MiB of 8.00 MiB are free" in said and "Make the batch smaller" in said and "limit" not in said
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, OutOfMemoryError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is tg.cuda.OutOfMemoryError and str(again) == said
    del caught
    assert x.sum().item() == 0
    del x
    assert (mebibytes(3) + 1).mean().item() == 1
    with pytest.raises(tg.cuda.OutOfMemoryError, match=r"cuda:1 is out of memory: 16.00 MiB .* tensors hold 0 bytes"):
        mebibytes(16, "cuda:1")
    with pytest.raises(tg.cuda.OutOfMemoryError):
        tg.zeros(4 * MIB).to("cuda")


def test_what_nobody_has_is_given_back_before_anybody_is_refused(cuda: StrictCupyBackend) -> None:
    tg.cuda.set_per_process_memory_fraction(0.5)
    x = mebibytes(3)
    del x
    assert tg.cuda.memory_reserved() == 3 * MIB, "kept for a tensor of that size"
    y = mebibytes(2)  # CuPy alone would refuse: with what is kept it is over the limit
    assert tg.cuda.memory_reserved() == 2 * MIB
    cycle: list[object] = [mebibytes(2)]
    cycle.append(cycle)
    del cycle
    gc.disable()  # so that the cycle is there when memory is wanted
    try:
        z = mebibytes(1.5)
    finally:
        gc.enable()
    assert (y[0] + z[0]).item() == 0


def test_a_limit_is_told_and_lifted(cuda: StrictCupyBackend) -> None:
    assert tg.cuda.get_per_process_memory_fraction() == 1.0
    tg.cuda.set_per_process_memory_fraction(0.25, 0)
    assert tg.cuda.get_per_process_memory_fraction(0) == 0.25 and tg.cuda.get_per_process_memory_fraction(1) == 1.0
    with pytest.raises(
        tg.cuda.OutOfMemoryError, match=r"tensors may hold 2.00 MiB \(set_per_process_memory_fraction\)"
    ):
        mebibytes(3)
    assert mebibytes(3, "cuda:1").sum().item() == 0
    tg.cuda.set_per_process_memory_fraction(1.0)
    assert mebibytes(3).sum().item() == 0
    for wrong, error in ((2.0, ValueError), (-0.5, ValueError), (1, TypeError)):
        with pytest.raises(error, match="fraction must"):
            tg.cuda.set_per_process_memory_fraction(wrong)  # type: ignore[arg-type]


def test_an_allocator_that_the_program_chose_stays(cuda: StrictCupyBackend) -> None:
    own = MemoryPool()
    xp.cuda.set_allocator(own.malloc)
    StrictCupyBackend()
    assert xp.cuda.get_allocator() == own.malloc
    xp.cuda.set_allocator()
    StrictCupyBackend()
    assert xp.cuda.get_allocator() != own.malloc


def test_sizes_are_shown_in_units_that_can_be_read() -> None:
    from tensorgrad.backends.cupy.memory import _shown

    assert [_shown(n) for n in (5, 2048, 3 << 20, 5 << 30)] == ["5 bytes", "2.00 KiB", "3.00 MiB", "5.00 GiB"]


def test_cupy_calls_the_allocator_that_is_put_in_its_place() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'tensorgrad[cuda]'")
    assert cupy.cuda.get_allocator() == cupy.get_default_memory_pool().malloc
    asked: list[int] = []
    with cupy.cuda.using_allocator(lambda size: asked.append(size) or cupy.cuda.MemoryPointer(  # type: ignore[func-returns-value]
            cupy.cuda.UnownedMemory(1 << 20, size, None, 0), 0)):  # fmt: skip
        assert cupy.cuda.alloc(512).ptr == 1 << 20
    assert asked == [512]
    for name in ("free_all_blocks", "used_bytes", "total_bytes", "set_limit", "get_limit", "malloc"):
        assert hasattr(cupy.cuda.MemoryPool, name)
    for name in ("done", "priority", "wait_event", "record"):
        assert hasattr(cupy.cuda.Stream, name)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert np.dtype("float32").itemsize == 4 and hasattr(cupy.cuda.MemoryPointer, "copy_from_device_async")


# --- graphs work in memory of their own

WORKSPACE = 32 * MIB  # of cuBLAS on the stream that is captured


@pytest.fixture
def roomy() -> Iterator[StrictCupyBackend]:
    with registry.backend("numpy"), strict_cuda(memory=8 * MIB + WORKSPACE) as backend:
        yield backend


def doubled(x: tg.Tensor) -> tg.Tensor:
    return (x * 2).relu()


def told(compiled: Any) -> str:
    return "\n".join(compiled.programs[0].runners[0].told())


@pytest.mark.parametrize("free", [1.5, 2.5], ids=["none for a call alone", "none for the graph"])
def test_graphs_are_given_what_the_cache_keeps(roomy: StrictCupyBackend, free: float) -> None:
    f = tg.compile(doubled)
    x = mebibytes(1)
    f(x)
    tg.cuda.empty_cache()
    assert tg.cuda.mem_get_info()[0] == 7 * MIB + WORKSPACE
    y = mebibytes(7 - free)  # cached from here on; the workspace fits in beside it
    del y
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(3):
            x.fill_(float(i))
            assert f(x).max().item() == 2.0 * i
    assert "CUDA graphs: 1, of 1 calls" in told(f) and "0 calls run between them" in told(f)
    assert tg.cuda.memory_reserved() < WORKSPACE + (8 - free) * MIB, "the cache was emptied"


def test_an_error_does_not_take_graphs_for_others(roomy: StrictCupyBackend) -> None:
    f = tg.compile(doubled)
    x = mebibytes(1)
    for _ in range(3):
        f(x)
    tg.cuda.empty_cache()
    held = f.programs[0].runners[0].pieces.room.nbytes
    assert held >= MIB
    with pytest.raises(tg.cuda.OutOfMemoryError) as caught:
        mebibytes(64)
    assert f"CUDA graphs of compiled functions {held / MIB:.2f} MiB, 0 bytes belong to others" in str(caught.value)
    del caught, f
    gc.collect()
    with pytest.raises(tg.cuda.OutOfMemoryError) as caught:
        mebibytes(64)
    assert "compiled functions" not in str(caught.value) and "0 bytes belong to others" in str(caught.value)


def test_the_figures_have_the_memory_of_graphs(roomy: StrictCupyBackend) -> None:
    f = tg.compile(doubled)
    x = mebibytes(1)
    f(x)
    before = tg.cuda.memory_allocated()
    tg.cuda.reset_peak_memory_stats()
    f(x)
    held = f.programs[0].runners[0].pieces.room.nbytes
    assert held >= MIB and tg.cuda.memory_allocated() == before + WORKSPACE + held
    free, total = tg.cuda.mem_get_info()
    assert tg.cuda.memory_reserved() == total - free
    assert tg.cuda.max_memory_allocated() >= before + WORKSPACE + held
    tg.cuda.reset_peak_memory_stats()
    y = mebibytes(0.5)
    assert tg.cuda.max_memory_allocated() == before + WORKSPACE + held + MIB // 2 == tg.cuda.memory_allocated()
    del y, f
    gc.collect()
    assert tg.cuda.memory_allocated() == before + WORKSPACE


def test_graphs_that_find_no_memory_are_left_to_python(roomy: StrictCupyBackend) -> None:
    f = tg.compile(doubled)
    x, held = mebibytes(1), mebibytes(5)
    f(x)
    tg.cuda.empty_cache()
    with pytest.warns(RuntimeWarning, match="a CUDA graph could not be made: OutOfMemoryError: Out of memory"):
        assert f(x).max().item() == 0.0
    tg.cuda.empty_cache()
    assert tg.cuda.mem_get_info()[0] == 2 * MIB, "what the attempts took is given back"
    x.fill_(3.0)
    assert f(x).max().item() == 6.0 and held.sum().item() == 0.0
    assert "replayed in Python, call by call: capturing it failed (OutOfMemoryError: Out of memory" in told(f)


def test_without_memory_for_products_programs_are_left_to_python(cuda: StrictCupyBackend) -> None:
    f = tg.compile(doubled)
    x = mebibytes(1)
    f(x)
    with pytest.warns(RuntimeWarning, match="a CUDA graph could not be made: OutOfMemoryError: cuda:0 is out of mem"):
        assert f(x).max().item() == 0.0
    x.fill_(3.0)
    assert f(x).max().item() == 6.0 and "replayed in Python" in told(f)


# compiled: the recorded call, the first replay and a later one; as graphs, and in Python where these have no room
@pytest.mark.parametrize("optimizer", ("adamw", "sgd"))
@pytest.mark.parametrize(
    ("compiled", "steps", "memory"),
    ((False, 0, 64), (False, 2, 64), (True, 1, 256), (True, 2, 256), (True, 3, 256), (True, 3, 64)),
)
@pytest.mark.filterwarnings("ignore:compile. a CUDA graph could not be made:RuntimeWarning")
def test_a_step_that_finds_no_memory_at_any_place_is_no_step(
    compiled: bool, steps: int, memory: int, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever memory runs out, the error is ours, and the next steps are those of a run in which it did not. What a
    program can do without, it does without."""
    left: list[int | None] = [None]  # allocations until there is no memory
    given = [0]
    malloc = MemoryPool.malloc

    def full(self: MemoryPool, size: int) -> Any:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise OutOfMemoryError(size, 0)
        given[0] += 1
        return malloc(self, size)

    monkeypatch.setattr(MemoryPool, "malloc", full)

    def run(fails: int | None) -> tuple[list[Any], list[float], list[float], int, bool]:
        with registry.backend("numpy"), strict_cuda(memory=memory * MIB):
            tg.manual_seed(0)
            model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.LayerNorm(4)).to("cuda")
            chosen = (
                tg.optim.AdamW(model.parameters(), lr=0.1)
                if optimizer == "adamw"
                else tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            )
            x, weights = tg.ones(2, 3, device="cuda") / 3, tg.arange(4.0, device="cuda")

            def stepped() -> tg.Tensor:
                chosen.zero_grad()
                loss = (model(x) * weights).sum()
                loss.backward()
                chosen.step()
                return loss.detach()

            step = tg.compile(stepped) if compiled else stepped
            for _ in range(steps):
                step()
            given[0], left[0] = 0, fails
            failed = False
            try:
                step()
            except tg.cuda.OutOfMemoryError as error:
                assert "is out of memory" in str(error)
                failed = True
            left[0] = None
            if failed:
                step()
            count = given[0]
            losses = [step().item() for _ in range(2)]
            numbers = [state["step"].item() for state in chosen.state.values() if "step" in state]
            return [p.tolist() for p in model.parameters()], numbers, losses, count, failed

    *undisturbed, count, _ = run(None)
    failures = 0
    for fails in range(count):
        *found, _, failed = run(fails)
        failures += failed
        assert found == undisturbed, fails
    assert failures == count or (compiled and failures)


# a kernel that does not compile fails where it is launched first
@pytest.mark.parametrize(
    "places",
    (
        ((_ReferenceKernels, "launch"),), ((_EvaluatingLauncher, "evaluate"),),
        ((Cublas, "launch"), (CublasLt, "launch")), ((Graph, "launch"),),
        ((Stream, "begin_capture"),),
    ),
    ids=("kernels", "formulas", "products", "graphs", "capture"),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:compile. a CUDA graph could not be made:RuntimeWarning")
def test_a_step_of_which_a_call_fails_is_no_step(
    places: tuple[tuple[type, str], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call of the device fails, once, the next steps of a compiled function are those of a run in which none
    did: in the recorded call, in the first replay, which finds out what can be captured, and in a later one."""
    left: list[int | None] = [None]
    made = [0]

    def failing(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            made[0] += 1
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    left[0] = None
                    raise RuntimeError("the device has failed")
            return original(*args, **kwargs)

        return call

    for owner, name in places:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))

    def run(steps: int, fails: int | None) -> tuple[list[Any], list[float], list[float], int]:
        with registry.backend("numpy"), strict_cuda(memory=256 * MIB):
            tg.manual_seed(0)
            model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.LayerNorm(4), tg.nn.GELU()).to("cuda")
            optimizer = tg.optim.AdamW(model.parameters(), lr=0.1)
            x = tg.ones(2, 3, device="cuda") / 3

            @tg.compile
            def step() -> tg.Tensor:
                optimizer.zero_grad()
                loss = (model(x).tanh() ** 2).mean()
                loss.backward()
                optimizer.step()
                return loss.detach()

            for _ in range(steps):
                step()
            made[0], left[0] = 0, fails
            try:
                step()
            except RuntimeError as error:
                assert "the device has failed" in str(error)
                step()
            left[0] = None
            count = made[0]
            losses = [step().item() for _ in range(2)]
            numbers = [state["step"].item() for state in optimizer.state.values()]
            return [p.tolist() for p in model.parameters()], numbers, losses, count

    counts = 0
    for steps in (1, 2, 3):
        *undisturbed, count = run(steps, None)
        counts += count
        for fails in range(count):
            assert list(run(steps, fails)[:3]) == undisturbed, (steps, fails)
    assert counts
