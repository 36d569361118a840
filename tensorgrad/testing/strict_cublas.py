"""cuBLAS of the stand-in: C functions that see addresses, leading dimensions and strides, as the real ones do.

Products are NumPy's, of arrays that lie at these addresses. What cuBLAS refuses gives its status; it is as strict about
the order of calls as the binding has to be: a stream, then a workspace, and both before every product. Long sums of
half precision are made in two parts, whose results are rounded unless that is forbidden.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backends.cupy.cublas import PROTOTYPES, WORKSPACE, Cublas, Gemm
from ..dtypes import numpy_dtype
from .strict_array import unwrapped
from .strict_devices import state
from .strict_memory import room_at
from .strict_stream import capturing, current, touch

__all__ = ["COMPUTES", "LONG", "TYPES", "StrictCublas", "emulated", "matrices"]

_NOT_INITIALIZED, _INVALID_VALUE, _EXECUTION_FAILED, _NOT_SUPPORTED = 1, 7, 13, 15
TYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16", 4: "complex64", 5: "complex128"}
COMPUTES = {"float64": (70,), "complex128": (70,), "float32": (68, 77), "complex64": (68, 77)}  # 68 for the others
LONG = 2048  # a sum that is made in parts
_MATH_MODES = (0, 16)


class _Handle:
    def __init__(self) -> None:
        self.stream: int | None = None
        self.workspace = 0
        self.math = 0
        self.device = state.device


def matrices(address: int, dtype: Any, rows: int, columns: int, ld: int, stride: int, batch: int) -> Any:
    """(batch, rows, columns) of matrices in columns' order."""
    if not rows * columns * batch:
        return np.zeros((batch, rows, columns), dtype)
    extent = (batch - 1) * stride + (columns - 1) * ld + rows
    flat = room_at(address, extent * dtype.itemsize).view(dtype)
    item = dtype.itemsize
    return as_strided(flat, (batch, rows, columns), (stride * item, item, ld * item))


def _gemm(
    trans_a: int, trans_b: int, m: int, n: int, k: int, alpha: int, a: int, lda: int, over_a: int, b: int, ldb: int,
    over_b: int, beta: int, c: int, ldc: int, over_c: int, batch: int, dtype: Any, rounded: bool,
) -> None:  # fmt: skip
    scale = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    one, zero = (room_at(at, scale.itemsize).view(scale)[0] for at in (alpha, beta))
    left = matrices(a, dtype, *((k, m) if trans_a else (m, k)), lda, over_a, batch).astype(scale)
    right = matrices(b, dtype, *((n, k) if trans_b else (k, n)), ldb, over_b, batch).astype(scale)
    target = matrices(c, dtype, m, n, ldc, over_c, batch)
    with np.errstate(all="ignore"):
        left, right = left.swapaxes(1, 2) if trans_a else left, right.swapaxes(1, 2) if trans_b else right
        if rounded:
            upper, lower = (np.matmul(left[..., s], right[:, s]) for s in (slice(k // 2), slice(k // 2, k)))
            product = upper.astype(dtype).astype(scale) + lower.astype(dtype).astype(scale)
        else:
            product = np.matmul(left, right)
        target[...] = (one * product + (zero * target.astype(scale) if zero else 0)).astype(dtype)


def emulated() -> dict[str, Callable[..., int]]:
    """The functions of a cuBLAS, as ``cublas.load`` gives those of the real one."""
    handles: dict[int, _Handle] = {}

    def create(handle: Any) -> int:
        number = max(handles, default=0x100) + 0x10
        handles[number] = _Handle()
        handle[0] = number
        return 0

    def destroy(handle: int) -> int:
        return 0 if handles.pop(handle, None) is not None else _NOT_INITIALIZED

    def set_stream(handle: int, stream: int | None) -> int:
        if handle not in handles:
            return _NOT_INITIALIZED
        handles[handle].stream = stream or 0
        handles[handle].workspace = 0
        return 0

    def set_workspace(handle: int, workspace: int, size: int) -> int:
        if handle not in handles:
            return _NOT_INITIALIZED
        if not workspace or workspace % 256 or size != WORKSPACE:
            return _INVALID_VALUE
        handles[handle].workspace = workspace
        return 0

    def set_math(handle: int, mode: int) -> int:
        if handle not in handles or mode not in _MATH_MODES:
            return _INVALID_VALUE
        handles[handle].math = mode
        return 0

    def gemm(
        handle: int, trans_a: int, trans_b: int, m: int, n: int, k: int, alpha: int, a: int, type_a: int, lda: int,
        over_a: int, b: int, type_b: int, ldb: int, over_b: int, beta: int, c: int, type_c: int, ldc: int, over_c: int,
        batch: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        found = handles.get(handle)
        if found is None:
            return _NOT_INITIALIZED
        if found.stream != current().ptr or not found.workspace or found.device != state.device:
            return _EXECUTION_FAILED  # by nothing that cuBLAS does: it would run elsewhere, or allocate for itself
        rows_a, rows_b = k if trans_a else m, n if trans_b else k
        if min(m, n, k, batch) < 0 or trans_a not in (0, 1) or trans_b not in (0, 1) or over_c < 0:
            return _INVALID_VALUE
        if lda < max(1, rows_a) or ldb < max(1, rows_b) or ldc < max(1, m) or not (a and b and c and alpha and beta):
            return _INVALID_VALUE
        name = TYPES.get(type_a)
        if name is None or type_b != type_a or type_c != type_a or compute not in COMPUTES.get(name, (68,)):
            return _NOT_SUPPORTED
        dtype = numpy_dtype(name)
        if any(address % dtype.itemsize for address in (a, b, c)):
            return _EXECUTION_FAILED  # misaligned
        rounded = dtype.itemsize == 2 and k >= LONG and not found.math
        given = (
            trans_a, trans_b, m, n, k, alpha, a, lda, over_a, b, ldb, over_b, beta, c, ldc, over_c, batch, dtype,
            rounded,
        )  # fmt: skip
        graph = capturing()
        if graph is not None:
            graph.add(_gemm, given, {})
        else:
            _gemm(*given)
        return 0

    python = {
        "cublasCreate_v2": create, "cublasDestroy_v2": destroy, "cublasSetStream_v2": set_stream,
        "cublasSetWorkspace_v2": set_workspace, "cublasSetMathMode": set_math, "cublasGemmStridedBatchedEx": gemm,
        "cublasGemmStridedBatchedEx_64": gemm,
    }  # fmt: skip
    # through ctypes, so that what is passed must have the types that the real functions take
    return {name: prototype(python[name]) for name, prototype in PROTOTYPES.items()}


class StrictCublas(Cublas):
    """The binding, on the emulation; graphs are told of the memory behind the addresses."""

    def __init__(self, xp: Any):
        super().__init__(xp, emulated())

    def launch(self, form: Gemm, a: Any, b: Any, out: Any) -> None:
        touch(*map(unwrapped, (a, b, out)))
        current().finish()
        super().launch(form, a, b, out)
