"""Matrix products with something behind them, by cuBLASLt through ctypes: a bias, ReLU, GELU, their gradients.

An epilogue works on what a product has in registers, so that its result is read and written once. What cuBLASLt is told
of a product is kept by shape, layout, epilogue and alignment, with the algorithm that its heuristics chose; a call sets
the pointers and starts it, on the current stream, in a workspace that it is given. So it can be captured.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import cuda as permissions
from .cublas import TYPES, WORKSPACE, Cublas, Gemm, check, ended, load_functions
from .names import NAMES

__all__ = ["PROTOTYPES", "CublasLt", "Epilogue", "Heuristic", "load"]

_V, _I, _U, _L, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int64, ctypes.c_size_t
_Made = ctypes.POINTER(_V)
_Function = Callable[..., int]


class Heuristic(ctypes.Structure):
    """``cublasLtMatmulHeuristicResult_t``."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8), ("workspace", _S), ("state", _I), ("waves", ctypes.c_float),
        ("reserved", _I * 4),
    )  # fmt: skip


_SET = ctypes.CFUNCTYPE(_I, _V, _I, _V, _S)  # what, which attribute, where its value is, how many bytes that has
PROTOTYPES: dict[str, Any] = {
    "cublasLtCreate": ctypes.CFUNCTYPE(_I, _Made),
    "cublasLtDestroy": ctypes.CFUNCTYPE(_I, _V),
    "cublasLtMatmulDescCreate": ctypes.CFUNCTYPE(_I, _Made, _I, _I),
    "cublasLtMatmulDescDestroy": ctypes.CFUNCTYPE(_I, _V),
    "cublasLtMatmulDescSetAttribute": _SET,
    "cublasLtMatrixLayoutCreate": ctypes.CFUNCTYPE(_I, _Made, _I, _U, _U, _L),
    "cublasLtMatrixLayoutDestroy": ctypes.CFUNCTYPE(_I, _V),
    "cublasLtMatrixLayoutSetAttribute": _SET,
    "cublasLtMatmulPreferenceCreate": ctypes.CFUNCTYPE(_I, _Made),
    "cublasLtMatmulPreferenceDestroy": ctypes.CFUNCTYPE(_I, _V),
    "cublasLtMatmulPreferenceSetAttribute": _SET,
    "cublasLtMatmulAlgoGetHeuristic": ctypes.CFUNCTYPE(
        _I, _V, _V, _V, _V, _V, _V, _V, _I, ctypes.POINTER(Heuristic), ctypes.POINTER(_I)
    ),
    "cublasLtMatmul": ctypes.CFUNCTYPE(_I, _V, _V, _V, _V, _V, _V, _V, _V, _V, _V, _V, _V, _V, _V, _S, _V),
}
"""The functions that are used, as cublasLt.h declares them."""

# attributes, and the types of their values
_TRANS_A, _TRANS_B, _EPILOGUE, _BIAS, _AUX, _AUX_LD, _AUX_STRIDE = 3, 4, 7, 8, 11, 12, 13
_BATCH, _STRIDE = 5, 6
_MOST_WORKSPACE, _REDUCTIONS, _ALIGNMENTS = 1, 3, (5, 6, 7, 8)  # of A, B, C and D
_NOT_SUPPORTED = 15
_MOST_ALIGNMENT = 256
_ALIGNED: tuple[int, ...] = (_MOST_ALIGNMENT,) * 3
_MOST_PLANS = 4096
_POINTER = ctypes.sizeof(_V)
# how parts of sums may be joined: not at all; in what they are computed in; as the result is stored, in place or not
_NO_PARTS, _WIDE_PARTS, _ANY_PARTS = 0, 2, 7


class Epilogue(enum.IntEnum):
    """What is done to a product ``C``. ``aux``: what forward writes for backward, see ``CublasLt.aux``."""

    NONE = 1
    RELU = 2
    BIAS = 4
    RELU_BIAS = 6
    GELU = 32  # the tanh form
    GELU_BIAS = 36
    RELU_AUX = 130
    RELU_AUX_BIAS = 134
    DRELU = 136
    DRELU_BGRAD = 152
    GELU_AUX = 160
    GELU_AUX_BIAS = 164
    DGELU = 192
    DGELU_BGRAD = 208
    BGRAD_RIGHT = 256  # BGRADA: the sum of the right factor over its rows
    BGRAD_LEFT = 512  # BGRADB: the sum of the left factor over its columns

    @property
    def has_aux(self) -> bool:
        return bool(self & 128)

    @property
    def has_relu_mask(self) -> bool:
        return self.has_aux and bool(self & (2 | 8))


class _Plan(NamedTuple):
    descriptor: ctypes.c_void_p
    layouts: tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]  # of cuBLASLt's A, B and D
    algorithm: Heuristic
    at: int  # where that lies


class _Device:
    """A handle of this thread and device, and its plans; None for what the library has no algorithm for."""

    def __init__(self, runtime: Any, functions: Mapping[str, _Function]):
        self.runtime = runtime
        self.device = runtime.getDevice()
        self.functions = functions
        self.handle = _V()
        self.plans: dict[Any, _Plan | None] = {}
        check("cublasLtCreate", functions["cublasLtCreate"](ctypes.byref(self.handle)))

    def forget(self) -> None:
        for plan in self.plans.values():
            if plan is not None:
                self.functions["cublasLtMatmulDescDestroy"](plan.descriptor)
                for layout in plan.layouts:
                    self.functions["cublasLtMatrixLayoutDestroy"](layout)
        self.plans.clear()

    def __del__(self) -> None:
        # at the end of the process the driver may be gone before this is
        if self.handle and not sys.is_finalizing():
            self.forget()
            ended(self.runtime, self.device, lambda: self.functions["cublasLtDestroy"](self.handle))


def load() -> Mapping[str, _Function]:
    """cuBLASLt's functions by name. Raises BackendError, in one line, where the library is not to be found."""
    return load_functions("cublasLt", "cuBLASLt", PROTOTYPES)


class CublasLt:
    """Products of device arrays with an epilogue, asynchronously on the current stream.

    Args:
        cublas: lays out operands, and has the workspaces.
        functions: what ``load`` gives.
    """

    def __init__(self, cublas: Cublas, functions: Mapping[str, _Function]):
        self.cublas = cublas
        self.functions = functions
        self.local = threading.local()

    def takes(self, dtype: Any) -> bool:
        return dtype.kind != "c" and self.cublas.takes(dtype)

    def aux(self, epilogue: Epilogue, shape: tuple[int, ...], dtype: Any) -> Any:
        """Room for what ``RELU_AUX`` (a bit for each element, packed) and ``GELU_AUX`` (what GELU is taken of) write
        beside a product of that shape. Rows are filled up, as cuBLASLt wants them."""
        xp = self.cublas.xp
        if epilogue.has_relu_mask:
            return xp.empty((*shape[:-1], -(-shape[-1] // 128) * 16), dtype="uint8")
        return xp.empty((*shape[:-1], -(-shape[-1] // 8) * 8), dtype=dtype)

    def matmul(self, a: Any, b: Any, epilogue: Epilogue, *, bias: Any = None, aux: Any = None) -> Any | None:
        """``a @ b`` with an epilogue, in C's order; None if the library has no algorithm for it.

        Args:
            a, b: (..., m, k) and (..., k, n) of one dtype that ``takes`` accepts; no size is 0.
            bias: dense. (n,), which is read, or, by the epilogues with BGRAD, written: the gradient of a bias, the sum
                of the result over its rows; for ``BGRAD_LEFT`` (m,), for ``BGRAD_RIGHT`` (n,).
            aux: what the method ``aux`` made.
        """
        form, a, b, out = self.cublas.laid_out(a, b)
        return out if form is not None and self.launch(form, a, b, out, epilogue, bias, aux) else None

    def launch(self, form: Gemm, a: Any, b: Any, out: Any, epilogue: Epilogue, bias: Any, aux: Any) -> bool:
        """Make the calls of a plan; False if there is no algorithm, in which case nothing was done."""
        if len(form.starts) > 1 and (aux is not None or epilogue & (16 | 256 | 512)):
            return False  # each call would write over what the last one wrote beside its product
        device, dtype = self._device(), a.dtype
        kind = TYPES[NAMES[dtype]]
        fast = kind.fast != kind.compute and permissions.tf32_allowed()
        parts = _parts_of(NAMES[dtype])
        at_a, at_b, at_c = a.data.ptr, b.data.ptr, out.data.ptr
        if len(form.starts) == 1:
            places: tuple[tuple[int, int, int], ...] = ((at_b, at_a, at_c),)
            aligned = (at_a | at_b | at_c) % _MOST_ALIGNMENT == 0
            alignments = _ALIGNED if aligned else tuple(map(_alignment, places[0]))
        else:
            item = dtype.itemsize
            places = tuple([(at_b + y * item, at_a + x * item, at_c + z * item) for x, y, z in form.starts])
            alignments = tuple([min(map(_alignment, each)) for each in zip(*places, strict=True)])
        beside = (0 if bias is None else _alignment(bias.data.ptr), 0 if aux is None else _alignment(aux.data.ptr))
        key = (dtype, fast, parts, form[:-1], epilogue, alignments, beside)  # its starts are no part of a plan
        pointers = (None if bias is None else bias.data.ptr, None if aux is None else aux.data.ptr)
        if key in device.plans:
            plan = device.plans[key]
            if plan is not None:
                self._point(plan.descriptor, *pointers)
        else:
            if len(device.plans) >= _MOST_PLANS:
                device.forget()
            compute = kind.fast if fast else kind.compute
            plan = device.plans[key] = self._plan(device, form, kind, compute, parts, epilogue, alignments, pointers)
        if plan is None:
            return False
        stream = self.cublas.xp.cuda.get_current_stream().ptr
        workspace = self.cublas.workspace(stream)
        layout_a, layout_b, layout_d = plan.layouts
        one, zero = ctypes.addressof(kind.one), ctypes.addressof(kind.zero)
        matmul = self.functions["cublasLtMatmul"]
        for at_a, at_b, at_d in places:
            status = matmul(
                device.handle, plan.descriptor, one, at_a, layout_a, at_b, layout_b, zero, at_d, layout_d, at_d,
                layout_d, plan.at, workspace.ptr, WORKSPACE, stream,
            )  # fmt: skip
            if status:
                check("cublasLtMatmul", status)
        return True

    def _device(self) -> _Device:
        devices: dict[int, _Device] | None = getattr(self.local, "devices", None)
        if devices is None:
            devices = self.local.devices = {}
        number = self.cublas.xp.cuda.runtime.getDevice()
        found = devices.get(number)
        if found is None:
            found = devices[number] = _Device(self.cublas.xp.cuda.runtime, self.functions)
        return found

    def _plan(
        self, device: _Device, form: Gemm, kind: Any, compute: int, parts: int, epilogue: Epilogue,
        alignments: tuple[int, ...], pointers: tuple[int | None, int | None],
    ) -> _Plan | None:  # fmt: skip
        """What cuBLASLt, which thinks in columns, is to do: ``C^T = B^T A^T``, so that its A is b. A bias runs along
        its columns, which are C's rows."""
        m, n, k, (trans_a, trans_b), (ld_a, ld_b, ld_c), (over_a, over_b, over_c), batch, _ = form
        descriptor = self._made("cublasLtMatmulDescCreate", compute, _scale_type(kind))
        self._set("MatmulDesc", descriptor, _TRANS_A, ctypes.c_int32(trans_b))
        self._set("MatmulDesc", descriptor, _TRANS_B, ctypes.c_int32(trans_a))
        self._set("MatmulDesc", descriptor, _EPILOGUE, ctypes.c_uint32(epilogue))
        if epilogue.has_aux:
            ld = -(-n // 128) * 128 if epilogue.has_relu_mask else -(-n // 8) * 8
            self._set("MatmulDesc", descriptor, _AUX_LD, ctypes.c_int64(ld))
            self._set("MatmulDesc", descriptor, _AUX_STRIDE, ctypes.c_int64(ld * m))
        self._point(descriptor, *pointers)
        layouts = (
            self._layout(kind, (k, n) if trans_b else (n, k), ld_b, batch, over_b),
            self._layout(kind, (m, k) if trans_a else (k, m), ld_a, batch, over_a),
            self._layout(kind, (n, m), ld_c, batch, over_c),
        )
        preference = self._made("cublasLtMatmulPreferenceCreate")
        self._set("MatmulPreference", preference, _MOST_WORKSPACE, ctypes.c_uint64(WORKSPACE))
        if parts != _ANY_PARTS:
            self._set("MatmulPreference", preference, _REDUCTIONS, ctypes.c_uint32(parts))
        for attribute, alignment in zip(_ALIGNMENTS, (*alignments, alignments[-1]), strict=True):
            self._set("MatmulPreference", preference, attribute, ctypes.c_uint32(alignment))
        found, count = Heuristic(), _I(0)
        status = self.functions["cublasLtMatmulAlgoGetHeuristic"](
            device.handle, descriptor, *layouts, layouts[-1], preference, 1, ctypes.byref(found), ctypes.byref(count)
        )
        self.functions["cublasLtMatmulPreferenceDestroy"](preference)
        if status not in (0, _NOT_SUPPORTED):
            check("cublasLtMatmulAlgoGetHeuristic", status)
        if status or not count.value or found.state:
            self.functions["cublasLtMatmulDescDestroy"](descriptor)
            for layout in layouts:
                self.functions["cublasLtMatrixLayoutDestroy"](layout)
            return None
        return _Plan(descriptor, layouts, found, ctypes.addressof(found))

    def _layout(self, kind: Any, shape: tuple[int, int], ld: int, batch: int, stride: int) -> ctypes.c_void_p:
        layout = self._made("cublasLtMatrixLayoutCreate", kind.number, *shape, max(ld, shape[0]))
        if batch > 1:
            self._set("MatrixLayout", layout, _BATCH, ctypes.c_int32(batch))
            self._set("MatrixLayout", layout, _STRIDE, ctypes.c_int64(stride))
        return layout

    def _made(self, create: str, *arguments: Any) -> ctypes.c_void_p:
        made = _V()
        check(create, self.functions[create](ctypes.byref(made), *arguments))
        return made

    def _point(self, descriptor: ctypes.c_void_p, bias: int | None, aux: int | None) -> None:
        point = self.functions["cublasLtMatmulDescSetAttribute"]
        for attribute, pointer in ((_BIAS, bias), (_AUX, aux)):
            if pointer is not None:
                value = _V(pointer)
                check("cublasLtMatmulDescSetAttribute", point(descriptor, attribute, ctypes.addressof(value), _POINTER))

    def _set(self, what: str, of: ctypes.c_void_p, attribute: int, value: Any) -> None:
        name = f"cublasLt{what}SetAttribute"
        check(name, self.functions[name](of, attribute, ctypes.addressof(value), ctypes.sizeof(value)))


def _parts_of(dtype: str) -> int:
    """In which ways parts of sums may be joined."""
    if dtype not in ("float16", "bfloat16"):
        return _ANY_PARTS
    rounded, parted = permissions.half_parts(dtype)
    return _NO_PARTS if not parted else _ANY_PARTS if rounded else _WIDE_PARTS


def _scale_type(kind: Any) -> int:
    """Of alpha and beta: that of the sums."""
    return 1 if kind.number == 1 else 0


def _alignment(address: int) -> int:
    return min(_MOST_ALIGNMENT, address & -address) if address else _MOST_ALIGNMENT
