"""The cuBLASLt binding: rows and columns, epilogues, what is kept and what is asked again."""

from __future__ import annotations

import ctypes
import gc
import threading
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends import cuda as permissions
from tensorgrad.backends.cupy import cublaslt, dense_kernels
from tensorgrad.backends.cupy.cublaslt import CublasLt, Epilogue
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import BackendError
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cublas import StrictCublas
from tensorgrad.testing.strict_cublaslt import StrictCublasLt, emulated_lt
from tensorgrad.testing.strict_namespace import xp


def operands(dtype: str, batch: tuple[int, ...] = ()) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    kind = numpy_dtype(dtype)
    a, b = rng.normal(size=(*batch, 6, 5)).astype(kind), rng.normal(size=(11, 5)).astype(kind).T
    return a, b, rng.normal(size=11).astype(kind)


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_the_heuristics_are_told_how_parts_of_sums_may_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = emulated_lt()
    told: list[int] = []
    put = functions["cublasLtMatmulPreferenceSetAttribute"]

    def watched(preference: Any, attribute: int, value: int, size: int) -> int:
        if attribute == 3:
            told.append(ctypes.c_uint32.from_address(value).value)
        return put(preference, attribute, value, size)

    functions["cublasLtMatmulPreferenceSetAttribute"] = watched
    lt = StrictCublasLt(StrictCublas(xp), functions)
    for dtype, switch in (("float16", "fp16"), ("bfloat16", "bf16"), ("float32", "bf16")):
        told.clear()
        a, b, bias = operands(dtype)
        for allowed in (True, False, (False, False), (True, False), False, True):
            monkeypatch.setattr(permissions.matmul, f"allow_{switch}_reduced_precision_reduction", allowed)
            assert lt.matmul(StrictArray(a), StrictArray(b), Epilogue.BIAS, bias=StrictArray(bias)) is not None
        assert told == ([] if dtype == "float32" else [2, 0]), "in float32; not at all; and plans are kept"


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_epilogues(dtype: str, batch: tuple[int, ...]) -> None:
    lt = StrictCublasLt(StrictCublas(xp))
    a, b, bias = operands(dtype, batch)
    digits = {"float32": 1e-5, "float64": 1e-8, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    sums = np.matmul(a.astype(float), b.astype(float)) + bias.astype(float)
    for epilogue, want in (
        (Epilogue.BIAS, sums), (Epilogue.RELU_BIAS, np.maximum(sums, 0)), (Epilogue.GELU_BIAS, gelu(sums)),
        (Epilogue.RELU_AUX_BIAS, np.maximum(sums, 0)), (Epilogue.GELU_AUX_BIAS, gelu(sums)),
    ):  # fmt: skip
        aux = lt.aux(epilogue, want.shape, a.dtype) if epilogue.has_aux else None
        got = lt.matmul(StrictArray(a), StrictArray(b), epilogue, bias=StrictArray(bias), aux=aux)
        assert got is not None and got.shape == want.shape
        assert np.allclose(got.get().astype(float), want, rtol=digits, atol=digits), epilogue
        if aux is None:
            continue
        back = {Epilogue.RELU_AUX_BIAS: Epilogue.DRELU, Epilogue.GELU_AUX_BIAS: Epilogue.DGELU}[epilogue]
        got = lt.matmul(StrictArray(a), StrictArray(b), back, aux=aux)
        step = 1e-5
        slope = (sums > 0) if back is Epilogue.DRELU else (gelu(sums + step) - gelu(sums - step)) / (2 * step)
        want = (sums - bias.astype(float)) * slope
        assert got is not None
        assert np.allclose(got.get().astype(float), want, rtol=digits, atol=2 * digits), back


def test_gradients_of_biases_lie_beside_the_factor_they_belong_to() -> None:
    lt = StrictCublasLt(StrictCublas(xp))
    a, b, _ = operands("float64")
    for epilogue, want in ((Epilogue.BGRAD_LEFT, a.sum(axis=1)), (Epilogue.BGRAD_RIGHT, b.sum(axis=0))):
        sums = xp.empty(want.shape, dtype=a.dtype)
        got = lt.matmul(StrictArray(a), StrictArray(b), epilogue, bias=sums)
        assert got is not None
        assert np.allclose(got.get(), a @ b) and np.allclose(sums.get(), want)


def test_the_heuristics_are_asked_once_for_each_kind_of_product() -> None:
    asked: list[int] = []
    functions = emulated_lt()
    whole = functions["cublasLtMatmulAlgoGetHeuristic"]

    def watched(*arguments: Any) -> int:
        asked.append(1)
        return whole(*arguments)

    lt = CublasLt(StrictCublas(xp), {**functions, "cublasLtMatmulAlgoGetHeuristic": watched})
    a, b, bias = (StrictArray(x) for x in operands("float32"))
    for _ in range(3):
        lt.matmul(a, b, Epilogue.BIAS, bias=StrictArray(bias.get()))
    assert len(asked) == 1
    lt.matmul(a, b, Epilogue.RELU_BIAS, bias=bias)
    lt.matmul(a[:3], b, Epilogue.BIAS, bias=bias)
    assert len(asked) == 3


def test_batches() -> None:
    lt = StrictCublasLt(StrictCublas(xp))
    rng = np.random.default_rng(0)
    a, b, bias = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(3, 5, 11)), rng.normal(size=11)
    got = lt.matmul(StrictArray(a[0]), StrictArray(b), Epilogue.BIAS, bias=StrictArray(bias))
    assert got is not None and np.allclose(got.get(), a[0] @ b + bias)
    # the second factor is the same for each of the outer batch, so that a call is made for each
    left, right = StrictArray(a), StrictArray(np.broadcast_to(b, (2, 3, 5, 11)))
    got = lt.matmul(left, right, Epilogue.RELU_BIAS, bias=StrictArray(bias))
    assert got is not None and np.allclose(got.get(), np.maximum(a @ b + bias, 0))
    aux = lt.aux(Epilogue.GELU_AUX_BIAS, (2, 3, 6, 11), a.dtype)
    assert lt.matmul(left, right, Epilogue.GELU_AUX_BIAS, bias=StrictArray(bias), aux=aux) is None
    assert lt.matmul(left, right, Epilogue.BGRAD_RIGHT, bias=StrictArray(bias)) is None


def test_plans_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublaslt, "_MOST_PLANS", 2)
    lt = StrictCublasLt(StrictCublas(xp))
    a, b, bias = operands("float64")
    for rows in (6, 5, 4, 3, 6):
        got = lt.matmul(StrictArray(a[:rows]), StrictArray(b), Epilogue.BIAS, bias=StrictArray(bias))
        assert got is not None and np.allclose(got.get(), a[:rows] @ b + bias)
        assert len(lt._device().plans) <= 2


def watched(seen: list[Any]) -> dict[str, Any]:
    """The functions of a cuBLASLt, whose products tell in what they are computed."""
    functions, computes = emulated_lt(), {}
    create, matmul = functions["cublasLtMatmulDescCreate"], functions["cublasLtMatmul"]

    def describe(made: Any, compute: int, scale: int) -> int:
        status = create(made, compute, scale)
        computes[made[0]] = compute
        return status

    def multiply(*arguments: Any) -> int:
        seen.append((arguments[1].value, computes[arguments[1].value]))
        return matmul(*arguments)

    return {
        **functions,
        "cublasLtMatmulDescCreate": cublaslt.PROTOTYPES["cublasLtMatmulDescCreate"](describe),
        "cublasLtMatmul": multiply,
    }


def test_each_call_asks_whether_tf32_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    lt = CublasLt(StrictCublas(xp), watched(seen))
    for dtype, fast in (("float32", 77), ("float64", 70), ("bfloat16", 68)):
        a, b, bias = (StrictArray(x) for x in operands(dtype))
        for allowed in (False, True, True, False):
            monkeypatch.setattr(permissions.matmul, "allow_tf32", allowed)
            assert lt.matmul(a, b, Epilogue.BIAS, bias=bias) is not None
        first, second = (70 if dtype == "float64" else 68), fast
        assert [compute for _, compute in seen[-4:]] == [first, second, second, first]
    assert len(set(seen)) == 4, "a plan for each, which serves again"


def test_a_plan_serves_wherever_operands_begin_that_are_aligned_alike() -> None:
    seen: list[Any] = []
    lt = CublasLt(StrictCublas(xp), watched(seen))
    a, b, bias = operands("float32")
    with strict_cuda(memory=1 << 30):
        room, right, beside = xp.zeros(2048, dtype=np.float32), xp.asarray(b), xp.asarray(bias)
        for at in (0, 64, 1, 2, 3):
            lying = room[at : at + a.size].reshape(a.shape)
            lying.set(a)
            got = lt.matmul(lying, right, Epilogue.BIAS, bias=beside)
            assert got is not None and np.allclose(got.get(), a @ b + bias, atol=1e-5)
    plans = [plan for plan, _ in seen]
    assert plans[0] == plans[1] and plans[2] == plans[4] and len(set(plans)) == 3


def test_how_many_calls_a_product_takes_is_no_part_of_its_plan() -> None:
    lt = StrictCublasLt(StrictCublas(xp))
    rng = np.random.default_rng(0)
    b, bias = rng.normal(size=(5, 16, 16)), rng.normal(size=16)
    with strict_cuda(memory=1 << 30):
        right, beside = xp.asarray(b), xp.asarray(bias)
        for calls in (2, 3):
            a = rng.normal(size=(calls, 5, 16, 16))
            got = lt.matmul(xp.asarray(a), right, Epilogue.BIAS, bias=beside)
            assert got is not None and np.allclose(got.get(), a @ b + bias)
    assert len(lt._device().plans) == 1


def test_each_device_and_each_thread_has_plans_of_its_own() -> None:
    """A plan has the pointers of the product that is being started."""
    seen: list[Any] = []
    lt = CublasLt(StrictCublas(xp), watched(seen))
    a, b, bias = operands("float64")
    found: list[Any] = []

    def work() -> None:
        for device in (0, 1, 0, 1):
            with xp.cuda.Device(device):
                got = lt.matmul(*[xp.asarray(x) for x in (a, b)], Epilogue.BIAS, bias=xp.asarray(bias))
                found.append(got is not None and got.device.id == device and np.allclose(got.get(), a @ b + bias))

    with strict_cuda(devices=2, memory=1 << 30):
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [True] * 8
    plans = [plan for plan, _ in seen]
    assert plans[:2] == plans[2:4] and plans[4:6] == plans[6:] and len(set(plans)) == 4


def test_a_failing_library_says_which_call_failed() -> None:
    a, b, bias = (StrictArray(x) for x in operands("float32"))
    destroyed: list[Any] = []
    for name, status, said in (
        ("cublasLtCreate", 1, r"cublasLtCreate failed: CUBLAS_STATUS_NOT_INITIALIZED \(1\)"),
        ("cublasLtMatmulAlgoGetHeuristic", 7, "cublasLtMatmulAlgoGetHeuristic failed: CUBLAS_STATUS_INVALID_VALUE"),
        ("cublasLtMatmul", 13, "cublasLtMatmul failed: CUBLAS_STATUS_EXECUTION_FAILED"),
    ):
        failing = {**emulated_lt(), name: lambda *args, status=status: status, "cublasLtDestroy": destroyed.append}
        with pytest.raises(BackendError, match=said):
            CublasLt(StrictCublas(xp), failing).matmul(a, b, Epilogue.BIAS, bias=bias)
        gc.collect()
        assert bool(destroyed) == (name != "cublasLtCreate"), "there was no handle to destroy"


def test_what_has_no_algorithm_and_what_has_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise BackendError("cuBLASLt was not found (No such file); install nvidia-cublas.")

    x, w, b = StrictArray(np.ones((4, 2))), StrictArray(np.ones((3, 2))), StrictArray(np.ones(3))
    backend = StrictCupyBackend()
    backend._cublaslt = StrictCublasLt(backend._cublas, emulated_lt(lambda epilogue: epilogue > 1))
    assert backend._cublaslt.matmul(x, w.T, Epilogue.BIAS, bias=b) is None
    assert (backend.raw.linear(x, w, b).get() == 3).all()
    g = StrictArray(np.ones((4, 3)))
    to_x, to_w, to_b = backend.raw.linear_backward(g, x, w, needs=(True, True, True))
    assert (to_x.get() == 3).all() and (to_w.get() == 4).all() and (to_b.get() == 4).all()
    monkeypatch.setattr(cublaslt, "load", missing)
    del backend._cublaslt
    with pytest.warns(UserWarning, match=r"cuBLASLt was not found.*kernels of their own"):
        assert (backend.raw.linear(x, w, b).get() == 3).all()
    assert (backend.raw.linear_backward(g, x, w, needs=(True, True, True))[2].get() == 4).all()
    assert dense_kernels.cublaslt is cublaslt
