"""The cuBLAS binding: its arguments for every layout, checked by products over addresses; errors; who is asked when."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import cuda as permissions
from tensorgrad.backends.cupy import cublas as cublas_module
from tensorgrad.backends.cupy import dense_kernels
from tensorgrad.backends.cupy.cublas import PROTOTYPES, WORKSPACE, Cublas, load, plan
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import BackendError
from tensorgrad.testing.strict_array import StrictArray
from tensorgrad.testing.strict_backend import StrictCupyBackend, strict_cuda
from tensorgrad.testing.strict_cublas import LONG, StrictCublas, emulated
from tensorgrad.testing.strict_namespace import xp
from tensorgrad.testing.strict_stream import Stream

DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")


def numbers(shape: tuple[int, ...], dtype: Any, rng: Any) -> np.ndarray[Any, Any]:
    values = rng.integers(-3, 4, shape).astype(np.float32)  # whole: sums are exact in every order
    return (values + 1j * rng.integers(-3, 4, shape) if dtype.kind == "c" else values).astype(dtype)


def laid_out(shape: tuple[int, ...], dtype: Any, rng: Any) -> np.ndarray[Any, Any]:
    """An array of this shape that lies in some way: axes permuted, with gaps, from an offset, backwards, expanded."""
    rank = len(shape)
    order = rng.permutation(rank)
    gaps = [int(rng.choice((1, 1, 1, 2, 3))) for _ in shape]
    expanded = [(axis < rank - 2 and rng.random() < 0.2) or rng.random() < 0.03 for axis in range(rank)]
    room = [1 if expanded[axis] else shape[axis] * gaps[axis] + int(rng.integers(0, 2)) for axis in order]
    whole = numbers(tuple(room), dtype, rng).transpose(np.argsort(order))
    cut = whole[
        tuple(slice(0, 1) if e else slice(0, n * gap, gap) for n, gap, e in zip(shape, gaps, expanded, strict=True))
    ]
    if rng.random() < 0.1:
        cut = cut[tuple(slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in shape)]
    found = np.broadcast_to(cut, shape)
    assert found.shape == shape
    return found


def shapes(rng: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = int(rng.integers(0, 4))
    batch = [int(rng.choice((1, 1, 2, 3, 4, 5))) for _ in range(rank)]
    m, n, k = (int(rng.choice((0, 1, 1, 2, 3, 5, 7, 8))) if rng.random() < 0.9 else 1 for _ in range(3))
    if rank and rng.random() < 0.05:
        batch[0] = 0
    left, right = list(batch), list(batch)
    for sizes in (left, right):
        for axis in range(rank):
            if rng.random() < 0.25:
                sizes[axis] = 1
    if rng.random() < 0.3:
        right = right[int(rng.integers(0, rank + 1)) :]
    elif rng.random() < 0.3:
        left = left[int(rng.integers(0, rank + 1)) :]
    return (*left, m, k), (*right, k, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_every_layout(dtype: str) -> None:
    rng = np.random.default_rng(DTYPES.index(dtype))
    cublas = StrictCublas(xp)
    kind = numpy_dtype(dtype)
    wide = np.complex128 if kind.kind == "c" else np.float64
    for _ in range(400):
        a, b = (laid_out(shape, kind, rng) for shape in shapes(rng))
        before = a.copy(), b.copy()
        got = cublas.matmul(StrictArray(a), StrictArray(b))
        want = np.matmul(a.astype(wide), b.astype(wide)).astype(kind)
        assert got.dtype == kind and got.flags.c_contiguous
        assert got.shape == want.shape, (a.shape, a.strides, b.shape, b.strides)
        assert np.array_equal(got.get(), want), (a.shape, a.strides, b.shape, b.strides)
        assert np.array_equal(a, before[0]) and np.array_equal(b, before[1])


def copied(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[bool, bool]:
    steps = [
        tuple(step // x.itemsize if n > 1 else 0 for n, step in zip(x.shape, x.strides, strict=True)) for x in (a, b)
    ]
    form, copy_a, copy_b = plan(a.shape, steps[0], b.shape, steps[1])
    assert (form is None) == (copy_a or copy_b)
    return copy_a, copy_b


def test_only_what_has_no_leading_dimension_is_copied() -> None:
    x = np.zeros((6, 4, 8, 10))
    square = np.zeros((6, 4, 10, 8))
    for left, right in (
        (x, square), (x, x.swapaxes(-1, -2)), (square.swapaxes(-1, -2), square), (x[::2], square[:3]),
        (x[..., ::2, :], square), (x[..., :5], square[..., :5, :]), (x[:, :1], square), (x[0, 0], square),
        (np.broadcast_to(x[:1, :1], x.shape), square), (x.swapaxes(0, 1), square.swapaxes(0, 1)),
        (x[..., :1], square[..., ::10, :]), (x[..., :1, ::2], square[..., :5, :]),
    ):  # fmt: skip
        assert copied(left, right) == (False, False)
    assert copied(x[..., ::2], square[..., :5, :]) == (True, False)
    assert copied(x, square[..., ::2]) == (False, True)
    assert copied(x[..., ::-1], square[..., ::-1, :]) == (True, True)


def calls(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[int, int]:
    steps = [
        tuple(step // x.itemsize if n > 1 else 0 for n, step in zip(x.shape, x.strides, strict=True)) for x in (a, b)
    ]
    form, _, _ = plan(a.shape, steps[0], b.shape, steps[1])
    assert form is not None
    return len(form.starts), form.batch


def test_few_calls() -> None:
    x, w = np.zeros((6, 4, 8, 10)), np.zeros((10, 3))
    assert calls(x, w) == (1, 1), "a batch times one matrix is one product"
    assert calls(x, np.zeros((6, 4, 10, 3))) == (1, 24)
    assert calls(x, np.zeros((4, 10, 3))) == (4, 6), "the longest axis is the batch"
    heads = np.zeros((6, 8, 4, 10)).swapaxes(
        1, 2
    )  # (batch, heads, positions, width) of (batch, positions, heads * width)
    assert calls(heads, heads.swapaxes(-1, -2)) == (4, 6)
    assert calls(np.zeros((5, 1, 10)), w) == (1, 1)


def test_float32_stays_float32_unless_somebody_permits_less(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    functions = emulated()
    whole = functions["cublasGemmStridedBatchedEx"]

    def watched(*args: Any) -> int:
        seen.append(args[-2])
        return whole(*args)

    cublas = Cublas(xp, {**functions, "cublasGemmStridedBatchedEx": watched})
    for dtype in DTYPES:
        cublas.matmul(*[StrictArray(np.ones((2, 2), numpy_dtype(dtype)))] * 2)
    assert seen == [68, 70, 68, 68, 68, 70]
    x = StrictArray(np.ones((2, 2), np.float32))
    monkeypatch.setattr(permissions.matmul, "allow_tf32", True)
    cublas.matmul(x, x)
    monkeypatch.undo()
    tg.set_float32_matmul_precision("high")
    try:
        cublas.matmul(x, x)
    finally:
        tg.set_float32_matmul_precision("highest")
    cublas.matmul(x, x)
    assert seen[6:] == [77, 77, 68]


def long_sum(dtype: str) -> tuple[Any, Any, float]:
    """Two factors whose product is a power of two, if parts of its sum are added up in float32, and that power; what is
    rounded is one less."""
    whole = {"bfloat16": 256.0, "float16": 2048.0}[dtype]
    a, b = np.ones((1, LONG), numpy_dtype(dtype)), np.zeros((LONG, 1), numpy_dtype(dtype))
    b[[0, 1, -1], 0] = whole, 1, -1
    return StrictArray(a), StrictArray(b), whole


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parts_of_long_sums_are_rounded_unless_that_is_forbidden(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with strict_cuda() as backend:
        a, b, whole = long_sum(dtype)
        modes: list[int] = []
        assert backend._cublas is not None
        functions = dict(backend._cublas.functions)
        set_math = functions["cublasSetMathMode"]

        def noting(handle: Any, mode: int) -> Any:
            modes.append(mode)
            return set_math(handle, mode)

        functions["cublasSetMathMode"] = noting
        backend._cublas.functions = functions
        nothing = StrictArray(np.zeros(1, numpy_dtype(dtype)))

        def found() -> set[float]:
            made = backend.matmul(a, b), backend.linear(a, b.T, nothing)
            return {float(x.get()[0, 0]) for x in made}

        assert found() == {whole - 1} and not modes
        kind = {"bfloat16": "bf16", "float16": "fp16"}[dtype]
        switch = f"allow_{kind}_reduced_precision_reduction"
        for forbidden in (False, (False, True), (False, False)):
            monkeypatch.setattr(permissions.matmul, switch, forbidden)
            assert found() == {whole} and found() == {whole}
        assert modes == [16], "told once"
        assert backend.matmul(a.astype(np.float32), b.astype(np.float32)).get() == whole and modes == [16]
        other, _, _ = long_sum({"bfloat16": "float16", "float16": "bfloat16"}[dtype])
        backend.matmul(other, b.astype(other.dtype))
        monkeypatch.setattr(permissions.matmul, switch, True)
        assert found() == {whole - 1} and modes == [16, 0]


def test_errors_have_the_name_of_their_status() -> None:
    x = StrictArray(np.ones((2, 2), np.float32))
    for name, status, said in (
        ("cublasCreate_v2", 1, r"cublasCreate failed: CUBLAS_STATUS_NOT_INITIALIZED \(1\)"),
        ("cublasSetStream_v2", 1, "cublasSetStream failed: CUBLAS_STATUS_NOT_INITIALIZED"),
        ("cublasSetWorkspace_v2", 7, "cublasSetWorkspace failed: CUBLAS_STATUS_INVALID_VALUE"),
        ("cublasGemmStridedBatchedEx", 13, "cublasGemmStridedBatchedEx failed: CUBLAS_STATUS_EXECUTION_FAILED"),
        ("cublasGemmStridedBatchedEx", 99, r"CUBLAS_STATUS_UNKNOWN_STATUS \(99\)"),
    ):
        failing = {**emulated(), name: lambda *args, status=status: status}
        with pytest.raises(BackendError, match=said):
            Cublas(xp, failing).matmul(x, x)


def test_sizes_beyond_32_bits_go_to_the_function_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas_module, "_MOST_INT", 4)
    x, called = StrictArray(np.ones((2, 5))), []
    functions = emulated()
    narrow, wide = functions["cublasGemmStridedBatchedEx"], functions["cublasGemmStridedBatchedEx_64"]
    functions["cublasGemmStridedBatchedEx"] = lambda *args: called.append(32) or narrow(*args)
    functions["cublasGemmStridedBatchedEx_64"] = lambda *args: called.append(64) or wide(*args)
    assert (Cublas(xp, functions).matmul(x, x.T).get() == 5).all()
    assert (Cublas(xp, functions).matmul(x[:, :2], xp.ascontiguousarray(x[:, :2])).get() == 2).all()
    assert called == [64, 64], "the second for its leading dimension"
    del functions["cublasGemmStridedBatchedEx_64"]
    with pytest.raises(BackendError, match="need the cuBLAS of CUDA 12 or later"):
        Cublas(xp, functions).matmul(x, x.T)


def test_the_emulation_refuses_what_the_binding_must_not_do() -> None:
    functions = emulated()
    handle = ctypes.c_void_p()
    assert functions["cublasCreate_v2"](ctypes.byref(handle)) == 0
    room = np.ones(64)
    one, zero = np.ones(1), np.zeros(1)
    gemm = functions["cublasGemmStridedBatchedEx"]

    def product(m: int = 2, lda: int = 2, compute: int = 70, kind: int = 1, at: int = 0) -> int:
        address = room.ctypes.data + at
        return gemm(handle, 0, 0, m, 2, 2, one.ctypes.data, address, kind, lda, 4, address, 1, 2, 4, zero.ctypes.data,
                    address + 256, 1, m if m > 0 else 1, 4, 1, compute, -1)  # fmt: skip

    assert product() == 13, "no stream, no workspace"
    assert functions["cublasSetStream_v2"](handle, None) == 0
    assert product() == 13, "no workspace"
    workspace = StrictCublas(xp).workspace(0)
    assert functions["cublasSetWorkspace_v2"](handle, workspace.ptr, WORKSPACE // 2) == 7
    assert functions["cublasSetWorkspace_v2"](handle, workspace.ptr, WORKSPACE) == 0
    assert product() == 0
    assert product(lda=1) == product(m=-1) == 7
    assert product(compute=68) == product(kind=0) == 15
    assert product(at=4) == 13
    with Stream(non_blocking=True):
        assert product() == 13, "another stream is the current one"
    assert functions["cublasDestroy_v2"](handle) == 0
    assert product() == 1
    assert set(functions) == set(PROTOTYPES)


def test_a_handle_for_each_thread_and_a_workspace_for_each_stream() -> None:
    made: list[int] = []
    functions = emulated()

    def create(handle: Any) -> int:
        made.append(threading.get_ident())
        return functions["cublasCreate_v2"](handle)

    cublas = Cublas(xp, {**functions, "cublasCreate_v2": create})
    x = StrictArray(np.eye(2))

    def work() -> None:
        for _ in range(2):
            assert cublas.matmul(x, x).tolist() == [[1, 0], [0, 1]]

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(made) == len(set(made)) == 2
    stream = Stream(non_blocking=True)
    assert cublas.workspace(0) is cublas.workspace(0) is not cublas.workspace(stream.ptr)


def test_a_product_is_planned_once_for_each_way_that_its_operands_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []
    monkeypatch.setattr(cublas_module, "plan", lambda *sizes: planned.append(sizes) or plan(*sizes))
    monkeypatch.setattr(cublas_module, "_MOST_FORMS", 2)
    cublas, rng = StrictCublas(xp), np.random.default_rng(0)
    for times in range(2):
        for dtype in ("float32", "complex64"):
            a, b = numbers((3, 4), numpy_dtype(dtype), rng), numbers((4, 2), numpy_dtype(dtype), rng)
            assert np.array_equal(cublas.matmul(StrictArray(a), StrictArray(b)).get(), a @ b)
            assert len(planned) == 2 or not times
    for rows in (5, 6, 3, 5):  # there is no room for them all
        a, b = (numbers(shape, np.dtype(np.float32), rng) for shape in ((rows, 4), (4, 2)))
        assert np.array_equal(cublas.matmul(StrictArray(a), StrictArray(b)).get(), a @ b)
        assert 1 <= len(cublas.forms) <= 2
    assert len(planned) == 6


def test_steps_in_bytes_mean_something_else_for_another_dtype() -> None:
    cublas, rng = StrictCublas(xp), np.random.default_rng(0)
    for dtype, room in ((np.float64, 8), (np.float32, 16)):
        a = numbers((4, room), np.dtype(dtype), rng)[:, : room // 2 : room // 8]
        assert a.shape == (4, 4) and a.strides == (64, 8)
        assert np.array_equal(cublas.matmul(StrictArray(a), StrictArray(a)).get(), a @ a)


def test_operands_that_are_copied_are_copied_each_time() -> None:
    cublas, rng = StrictCublas(xp), np.random.default_rng(0)
    whole, b = np.zeros((4, 3, 8)), numbers((4, 2), np.dtype(np.float64), rng)
    a = whole[:, :, ::2]
    given = StrictArray(whole)[:, :, ::2]
    for _ in range(2):
        whole[...] = numbers(whole.shape, whole.dtype, rng)
        assert np.array_equal(cublas.matmul(given, StrictArray(b)).get(), a @ b)
    assert not cublas.forms
    empty = StrictArray(np.zeros((3, 0)))
    for _ in range(2):
        zeros = cublas.matmul(empty, empty.T)
        assert zeros.shape == (3, 3) and not zeros.get().any()
        zeros.fill(1)  # and the next are others


def test_products_of_many_calls_are_planned_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they would be kept as grows with the batch."""
    monkeypatch.setattr(cublas_module, "_MOST_STARTS", 2)
    cublas, rng = StrictCublas(xp), np.random.default_rng(0)
    for calls, kept in ((2, 1), (3, 1)):
        a, b = (numbers(shape, np.dtype(np.float64), rng) for shape in ((5, calls, 6, 4), (calls, 4, 2)))
        for _ in range(2):
            assert np.array_equal(cublas.matmul(StrictArray(a), StrictArray(b)).get(), a @ b)
        assert len(cublas.forms) == kept


def test_devices_and_threads_share_what_is_planned_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas_module, "_MOST_FORMS", 2)
    cublas, wrong = StrictCublas(xp), []
    ready = threading.Barrier(2)

    def work(device: int) -> None:
        ready.wait()
        for rows in (3, 4, 5, 3, 4, 5) * 20:
            with xp.cuda.Device(device):
                x = xp.ones((rows, 2))
                product = cublas.matmul(x, x.T)
                if product.device.id != device or product.shape != (rows, rows) or (product.get() != 2).any():
                    wrong.append((device, rows))
            device = 1 - device
        with xp.cuda.Device(device):
            if cublas.workspace(0).device_id != device:
                wrong.append(device)

    with strict_cuda(devices=2, memory=1 << 30):
        threads = [threading.Thread(target=work, args=(device,)) for device in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong and len(cublas.forms) <= 2


def test_a_captured_product_is_computed_by_the_launch() -> None:
    cublas = StrictCublas(xp)
    a, b = StrictArray(np.ones((2, 2))), StrictArray(np.eye(2))
    stream = Stream(non_blocking=True)
    with stream:
        cublas.workspace(stream.ptr)
        stream.begin_capture()
        c = cublas.matmul(a, b)
        with pytest.raises(NotImplementedError, match="stream capture"):
            xp.matmul(a, b)
        graph = stream.end_capture()
    assert np.isnan(c.get()).all()
    for factor in (1.0, 5.0):
        a.fill(factor)
        graph.launch()
        assert (c.get() == factor).all()


def test_without_the_library_cupy_multiplies_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def missing() -> Any:
        raise BackendError("cuBLAS was not found (No such file); install nvidia-cublas.")

    monkeypatch.setattr(dense_kernels, "load", missing)
    backend = StrictCupyBackend()
    del backend._cublas
    with pytest.warns(UserWarning, match=r"cuBLAS was not found.*CuPy's own products"):
        product = backend.raw.matmul(*[StrictArray(np.ones((3, 2, 2), np.float16))] * 2)
    assert (product.get() == 2).all()
    for dtype in ("float32", "bfloat16"):  # no further warning: it would be an error
        x, w = StrictArray(np.ones((3, 2, 2), numpy_dtype(dtype))), StrictArray(np.ones((2, 2), numpy_dtype(dtype)))
        assert (backend.raw.matmul(x, w).get() == 2).all()
        assert (backend.raw.linear(x, w, None).get() == 2).all()
    del backend._cublaslt
    assert backend._cublaslt is None, "which lays out what it is given by cuBLAS's binding"


def test_where_the_library_is_looked_for() -> None:
    found: Callable[[], Any] = load
    try:
        functions = found()
    except BackendError as error:
        assert "cuBLAS was not found" in str(error) and "\n" not in str(error)
    else:
        assert "cublasGemmStridedBatchedEx" in functions
