"""Matrix products by cuBLAS itself, through ctypes.

CuPy's own wrapper refuses to run while a stream is captured, copies batches that are not dense, has no batched product
of half precision, and so on; ``cublasGemmStridedBatchedEx`` has none of these limits. How its arguments follow from
shapes and strides is a pure function, ``plan``.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import BackendError
from .. import cuda as permissions
from .names import NAMES

__all__ = [
    "PROTOTYPES", "TYPES", "WORKSPACE", "Cublas", "Gemm", "check", "ended", "joined_axes", "load", "load_functions",
    "plan",
]  # fmt: skip

WORKSPACE = 32 << 20  # bytes: what NVIDIA advises for Hopper; kernels that need more are not chosen
_MOST_INT = 2**31 - 1
_MOST_FORMS = 4096
_MOST_STARTS = 64  # of a form that is kept: others take more time than planning does

_V, _I, _L, _Q = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_longlong
_Function = Callable[..., int]


def _gemm_prototype(number: Any) -> Any:
    operand = (_V, _I, number, _Q)  # where, its type, leading dimension, elements from one of the batch to the next
    return ctypes.CFUNCTYPE(
        _I, _V, _I, _I, number, number, number, _V, *operand, *operand, _V, *operand, number, _I, _I
    )


PROTOTYPES: dict[str, Any] = {
    "cublasCreate_v2": ctypes.CFUNCTYPE(_I, ctypes.POINTER(_V)),
    "cublasDestroy_v2": ctypes.CFUNCTYPE(_I, _V),
    "cublasSetStream_v2": ctypes.CFUNCTYPE(_I, _V, _V),
    "cublasSetWorkspace_v2": ctypes.CFUNCTYPE(_I, _V, _V, ctypes.c_size_t),
    "cublasSetMathMode": ctypes.CFUNCTYPE(_I, _V, _I),
    "cublasGemmStridedBatchedEx": _gemm_prototype(_I),
    "cublasGemmStridedBatchedEx_64": _gemm_prototype(_L),  # since CUDA 12
}
"""The functions that are used, as cublas_v2.h declares them."""

_STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip
_DEFAULT_ALGORITHM = -1
_DEFAULT_MATH, _WIDE_REDUCTIONS = 0, 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION


class _Type(NamedTuple):
    """A dtype as cuBLAS knows it: cudaDataType, what it is computed in, and that with TF32, one and zero."""

    number: int
    compute: int
    fast: int
    one: Any
    zero: Any


_32F, _32F_FAST_TF32, _64F = 68, 77, 70
_SINGLE = ctypes.c_float(1), ctypes.c_float(0)
_DOUBLE = ctypes.c_double(1), ctypes.c_double(0)
TYPES = {
    "float32": _Type(0, _32F, _32F_FAST_TF32, *_SINGLE),
    "float64": _Type(1, _64F, _64F, *_DOUBLE),
    "float16": _Type(2, _32F, _32F, *_SINGLE),
    "bfloat16": _Type(14, _32F, _32F, *_SINGLE),
    "complex64": _Type(4, _32F, _32F_FAST_TF32, (ctypes.c_float * 2)(1, 0), (ctypes.c_float * 2)(0, 0)),
    "complex128": _Type(5, _64F, _64F, (ctypes.c_double * 2)(1, 0), (ctypes.c_double * 2)(0, 0)),
}


# --- the arguments


class Gemm(NamedTuple):
    """``C[m, n] = A[m, k] B[k, n]`` for each of a batch, all in C's order, as calls of cuBLAS, which thinks in columns:
    they compute ``C^T = B^T A^T``. Everything counts elements.

    ``trans``: of A and B, whether cuBLAS is to transpose what it finds. ``ld``: of A, B and C, from one column to the
    next. ``stride``: of A, B and C, from one of the batch to the next. ``starts``: by call, where A, B and C begin.
    """

    m: int
    n: int
    k: int
    trans: tuple[bool, bool]
    ld: tuple[int, int, int]
    stride: tuple[int, int, int]
    batch: int
    starts: tuple[tuple[int, int, int], ...]


def _found_as(rows: int, columns: int, step: tuple[int, ...]) -> tuple[bool, int] | None:
    """Whether a matrix lies transposed, and its leading dimension; None where it has none."""
    down, right = step
    if columns == 1 or right == 1:
        ld = down if rows > 1 else max(1, columns)
        if ld >= max(1, columns):
            return False, ld
    if rows == 1 or down == 1:
        ld = right if columns > 1 else max(1, rows)
        if ld >= max(1, rows):
            return True, ld
    return None


def plan(
    a_shape: tuple[int, ...], a_steps: tuple[int, ...], b_shape: tuple[int, ...], b_steps: tuple[int, ...]
) -> tuple[Gemm | None, bool, bool]:
    """How to multiply (..., m, k) and (..., k, n), whose batches broadcast, into a dense result.

    Args:
        a_shape, b_shape: of at least two dimensions; every size is positive.
        a_steps, b_steps: by axis, elements from one to the next; 0 along axes that were expanded.
    Returns: the calls, or None with whether a and b have to be copied first, since their matrices have no leading
        dimension.
    """
    (m, k), n = a_shape[-2:], b_shape[-1]
    a_step, b_step = a_steps[-2:], b_steps[-2:]
    a_form, b_form = _found_as(m, k, a_step), _found_as(k, n, b_step)
    backwards_a, backwards_b = min(a_steps[:-2], default=0) < 0, min(b_steps[:-2], default=0) < 0
    if a_form is None or b_form is None or backwards_a or backwards_b:
        return None, a_form is None or backwards_a, b_form is None or backwards_b
    rank = max(len(a_shape), len(b_shape))
    lacking_a, lacking_b = (0,) * (rank - len(a_shape)), (0,) * (rank - len(b_shape))
    over_a, over_b = lacking_a + a_steps, lacking_b + b_steps
    many_a, many_b = (1,) * len(lacking_a) + a_shape, (1,) * len(lacking_b) + b_shape
    # the batch's axes, from the last on: size, steps of a, b and c
    axes: list[tuple[int, ...]] = []
    c_step = m * n
    for axis in reversed(range(rank - 2)):
        size = max(many_a[axis], many_b[axis])
        if size != 1:
            axes.append(
                (size, over_a[axis] if many_a[axis] > 1 else 0, over_b[axis] if many_b[axis] > 1 else 0, c_step)
            )
        c_step *= size
    axes = joined_axes(axes)
    # a batch of one and the same matrix on the right: its products are one of a taller matrix
    while axes and axes[0][2] == 0:
        size, over, _, _ = axes[0]
        step = (a_step[0] if m > 1 else over, a_step[1])
        taller = _found_as(m * size, k, step)
        if taller is None or over != m * step[0]:
            break
        a_step, a_form = step, taller
        m *= size
        del axes[0]
    batch, *stride = axes.pop(max(range(len(axes)), key=lambda i: axes[i][0])) if axes else (1, 0, 0, 0)
    starts = [(0, 0, 0)]
    for size, *steps in axes:  # no one step leads from each of the batch to the next: a call for each of the others
        starts = [_moved(start, steps, at) for start in starts for at in range(size)]
    lead = a_form[1], b_form[1], n
    return Gemm(m, n, k, (a_form[0], b_form[0]), lead, _moved((0, 0, 0), stride, 1), batch, tuple(starts)), False, False


def _moved(start: tuple[int, int, int], steps: list[int], times: int) -> tuple[int, int, int]:
    return start[0] + times * steps[0], start[1] + times * steps[1], start[2] + times * steps[2]


def joined_axes(axes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The same walk over fewer axes, each given as its size and the steps of all operands, from the last axis on:
    neighbours joined where everything steps evenly."""
    found: list[tuple[int, ...]] = []
    for axis in axes:
        if found and all(over == step * found[-1][0] for over, step in zip(axis[1:], found[-1][1:], strict=True)):
            found[-1] = (found[-1][0] * axis[0], *found[-1][1:])
        else:
            found.append(axis)
    return found


# --- the library


def load() -> Mapping[str, _Function]:
    """cuBLAS's functions by name. Raises BackendError, in one line, where the library is not to be found."""
    return load_functions("cublas", "cuBLAS", PROTOTYPES)


def load_functions(library: str, spoken: str, prototypes: Mapping[str, Any]) -> Mapping[str, _Function]:
    """The functions of a library by name; those for 64-bit sizes only where it has them."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        path = load_nvidia_dynamic_lib(library).abs_path
        loaded = ctypes.CDLL(path)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"{spoken} was not found ({reason}); install nvidia-cublas (pip install 'tensorgrad[cuda]' brings it)."
        ) from error
    functions: dict[str, _Function] = {}
    for name, prototype in prototypes.items():
        if hasattr(loaded, name):
            functions[name] = prototype((name, loaded))
        elif not name.endswith("_64"):
            raise BackendError(f"the {spoken} at {path} has no function {name}; install one of CUDA 12 or later.")
    return functions


class _Handle:
    """A handle of this thread and device, and the workspace of each stream that it has worked on."""

    def __init__(self, runtime: Any, functions: Mapping[str, _Function]):
        self.runtime = runtime
        self.device = runtime.getDevice()
        self.functions = functions
        self.value = _V()
        self.workspaces: dict[int, Any] = {}
        self.math = _DEFAULT_MATH
        check("cublasCreate", functions["cublasCreate_v2"](ctypes.byref(self.value)))

    def __del__(self) -> None:
        # at the end of the process the driver may be gone before this is
        if self.value and not sys.is_finalizing():
            ended(self.runtime, self.device, lambda: self.functions["cublasDestroy_v2"](self.value))


def ended(runtime: Any, device: int, destroy: Callable[[], Any]) -> None:
    """Destroy a handle on the device that it was made on: its end may come while another is the current one."""
    current = runtime.getDevice()
    if current == device:
        destroy()
        return
    runtime.setDevice(device)
    try:
        destroy()
    finally:
        runtime.setDevice(current)


def check(what: str, status: int) -> None:
    """Raise BackendError for a status that is not success."""
    if status:
        name = _STATUS.get(status, "UNKNOWN_STATUS")
        raise BackendError(f"{what} failed: CUBLAS_STATUS_{name} ({status}).")


class Cublas:
    """Products of device arrays, asynchronously on the current stream.

    Args:
        xp: CuPy.
        functions: what ``load`` gives.
    """

    def __init__(self, xp: Any, functions: Mapping[str, _Function]):
        self.xp = xp
        self.functions = functions
        self.local = threading.local()
        self.forms: dict[Any, tuple[tuple[int, ...], Gemm | None]] = {}  # of operands that are read where they lie

    def takes(self, dtype: Any) -> bool:
        return NAMES[dtype] in TYPES

    def workspace(self, stream: int) -> Any:
        """The memory that products on a stream, given by its address, work in. It is made at the first question, which
        must not be asked while the stream is captured: the graph's pool would own it."""
        handle = self._handle()
        found = handle.workspaces.get(stream)
        if found is None:
            found = handle.workspaces[stream] = self.xp.cuda.alloc(WORKSPACE)
        return found

    def _handle(self) -> _Handle:
        handles: dict[int, _Handle] | None = getattr(self.local, "handles", None)
        if handles is None:
            handles = self.local.handles = {}
        device = self.xp.cuda.runtime.getDevice()
        found = handles.get(device)
        if found is None:
            found = handles[device] = _Handle(self.xp.cuda.runtime, self.functions)
        return found

    def matmul(self, a: Any, b: Any) -> Any:
        """``a @ b`` of two arrays of one dtype that ``takes`` accepts, in C's order. Matrices are read where they lie,
        transposed, in batches with gaps or expanded; copied are those whose rows and columns both have gaps."""
        form, a, b, out = self.laid_out(a, b)
        if form is not None:
            self.launch(form, a, b, out)
        return out

    def laid_out(self, a: Any, b: Any) -> tuple[Gemm | None, Any, Any, Any]:
        """The calls for a product, its operands as they are to be passed, and room for its result: zeros, and no calls,
        where some size is 0."""
        key = (a.shape, a.strides, b.shape, b.strides, a.dtype)
        found = self.forms.get(key)
        if found is None:
            shape, form, a, b = _formed(self, a, b)
            kept = form is not None and len(form.starts) <= _MOST_STARTS
            if kept and key == (a.shape, a.strides, b.shape, b.strides, a.dtype):
                if len(self.forms) >= _MOST_FORMS:
                    self.forms.clear()
                self.forms[key] = shape, form
        else:
            shape, form = found
        room = self.xp.zeros if form is None else self.xp.empty
        return form, a, b, room(shape, dtype=a.dtype)

    def _dense(self, x: Any) -> Any:
        """A copy with dense matrices; what a batch was expanded from is copied once."""
        once = tuple([slice(0, 1) if step == 0 else slice(None) for step in x.strides[:-2]])
        return self.xp.broadcast_to(self.xp.ascontiguousarray(x[once]), x.shape)

    def _choose_math(self, handle: _Handle, dtype: str) -> None:
        """Whether parts of sums of half precision may be added up rounded."""
        rounded, _ = permissions.half_parts(dtype)
        wanted = _DEFAULT_MATH if rounded else _WIDE_REDUCTIONS
        if handle.math != wanted:
            check("cublasSetMathMode", self.functions["cublasSetMathMode"](handle.value, wanted))
            handle.math = wanted

    def launch(self, form: Gemm, a: Any, b: Any, out: Any) -> None:
        """Make the calls of a plan."""
        kind = TYPES[NAMES[a.dtype]]
        functions, handle = self.functions, self._handle()
        stream = self.xp.cuda.get_current_stream().ptr
        workspace = handle.workspaces.get(stream) or self.workspace(stream)
        check("cublasSetStream", functions["cublasSetStream_v2"](handle.value, stream))
        # choosing a stream forgets the workspace
        status = functions["cublasSetWorkspace_v2"](handle.value, workspace.ptr, WORKSPACE)
        check("cublasSetWorkspace", status)
        item = a.dtype.itemsize
        if item == 2:
            self._choose_math(handle, NAMES[a.dtype])
        m, n, k, (trans_a, trans_b), (ld_a, ld_b, ld_c), (over_a, over_b, over_c), batch, starts = form
        name = "cublasGemmStridedBatchedEx"
        if max(m, n, k, ld_a, ld_b, ld_c, batch) > _MOST_INT:
            name += "_64"
            if name not in functions:
                raise BackendError("matmul: more than 2^31 - 1 rows or columns need the cuBLAS of CUDA 12 or later.")
        gemm = functions[name]
        compute = kind.fast if kind.fast != kind.compute and permissions.tf32_allowed() else kind.compute
        at_a, at_b, at_c = a.data.ptr, b.data.ptr, out.data.ptr
        one, zero = ctypes.addressof(kind.one), ctypes.addressof(kind.zero)
        for start_a, start_b, start_c in starts:
            status = gemm(
                handle.value, int(trans_b), int(trans_a), n, m, k, one,
                at_b + start_b * item, kind.number, ld_b, over_b,
                at_a + start_a * item, kind.number, ld_a, over_a, zero,
                at_c + start_c * item, kind.number, ld_c, over_c,
                batch, compute, _DEFAULT_ALGORITHM,
            )  # fmt: skip
            check(name, status)


def _formed(cublas: Cublas, a: Any, b: Any) -> tuple[tuple[int, ...], Gemm | None, Any, Any]:
    """The result's shape, the calls (none where some size is 0), and the operands: copies, where they lie too oddly."""
    shape = (*_broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    if 0 in (*shape, a.shape[-1], *a.shape[:-2], *b.shape[:-2]):
        return shape, None, a, b
    a, b = (x if all(step % x.itemsize == 0 for step in x.strides) else cublas._dense(x) for x in (a, b))
    form, copy_a, copy_b = plan(a.shape, _steps(a), b.shape, _steps(b))
    if form is None:
        a, b = cublas._dense(a) if copy_a else a, cublas._dense(b) if copy_b else b
        form, _, _ = plan(a.shape, _steps(a), b.shape, _steps(b))
        assert form is not None
    return shape, form, a, b


def _steps(x: Any) -> tuple[int, ...]:
    item = x.itemsize
    return tuple([0 if size == 1 else step // item for size, step in zip(x.shape, x.strides, strict=True)])


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple([y if x == 1 else x for x, y in zip(left, right, strict=True)])
