"""cuBLASLt of the stand-in: descriptors with attributes as large as cublasLt.h has them, and products over addresses.

An algorithm is good for the product that the heuristics were asked about, and no other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.cupy.cublas import WORKSPACE, Cublas, Gemm
from ..backends.cupy.cublaslt import PROTOTYPES, CublasLt, Epilogue
from ..dtypes import numpy_dtype
from .strict_cublas import COMPUTES, LONG, TYPES, matrices
from .strict_devices import state
from .strict_stream import capturing, current, room_at, touch

__all__ = ["StrictCublasLt", "emulated_lt"]

_INVALID_VALUE, _EXECUTION_FAILED, _NOT_SUPPORTED = 7, 13, 15
_SIZES = {
    "MatmulDesc": {3: 4, 4: 4, 7: 4, 8: 8, 11: 8, 12: 8, 13: 8},
    "MatrixLayout": {5: 4, 6: 8},
    "MatmulPreference": {1: 8, 3: 4, 5: 4, 6: 4, 7: 4, 8: 4},
}
_SUMS = 16 | 256 | 512  # epilogues that write a bias's gradient


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def _gelu_slope(x: Any) -> Any:
    inner = np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
    return 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)


def _multiply(
    attributes: dict[int, int], dtype: Any, layouts: tuple[Any, ...], addresses: tuple[int, int, int], parts: int
) -> None:
    epilogue = Epilogue(attributes[7])
    left, right, made = (
        matrices(at, dtype, rows, columns, ld, more.get(6, 0), more.get(5, 1))
        for at, (_, rows, columns, ld, more) in zip(addresses, layouts, strict=True)
    )
    batch, rows, columns = made.shape
    left, right = (x.astype(np.float64) for x in (left, right))
    left = left.swapaxes(1, 2) if attributes.get(3) else left
    right = right.swapaxes(1, 2) if attributes.get(4) else right
    long = left.shape[2]
    if parts & 5 and dtype.itemsize == 2 and long >= LONG:  # made in two parts, whose results are rounded
        two = [np.matmul(left[..., s], right[:, s]).astype(dtype) for s in (slice(long // 2), slice(long // 2, long))]
        x = two[0].astype(np.float64) + two[1].astype(np.float64)
    else:
        x = np.matmul(left, right)
    if epilogue & 4:
        x += room_at(attributes[8], rows * dtype.itemsize).view(dtype).astype(np.float64)[:, None]
    if epilogue.has_aux:
        ld, over = attributes[12], attributes[13]
        if epilogue.has_relu_mask:
            bits = room_at(attributes[11], batch * over // 8).reshape(batch, columns, ld // 8)
            if epilogue & 8:
                x = x * np.unpackbits(bits, axis=2, bitorder="little")[..., :rows].swapaxes(1, 2)
            else:
                bits[...] = 0
                packed = np.packbits(x.swapaxes(1, 2) > 0, axis=2, bitorder="little")
                bits[..., : packed.shape[2]] = packed
        else:
            aux = matrices(attributes[11], dtype, rows, columns, ld, over, batch)
            if epilogue & 64:
                x = x * _gelu_slope(aux.astype(np.float64))
            else:
                aux[...] = x.astype(dtype)
    if epilogue & 2 and not epilogue & 8:
        x = np.maximum(x, 0)
    if epilogue & 32:
        x = _gelu(x)
    made[...] = x.astype(dtype)
    if epilogue & _SUMS:
        sums = left.sum(axis=(0, 2)) if epilogue & 256 else right.sum(axis=(0, 1)) if epilogue & 512 else x.sum((0, 2))
        room_at(attributes[8], sums.size * dtype.itemsize).view(dtype)[...] = sums.astype(dtype)


def emulated_lt(unsupported: Callable[[Epilogue], bool] | None = None) -> dict[str, Callable[..., int]]:
    """The functions of a cuBLASLt. ``unsupported``: epilogues that it has no algorithm for."""
    things: dict[int, Any] = {}
    asked: list[Any] = []

    def make(target: Any, thing: Any) -> int:
        number = max(things, default=0x1000) + 0x10
        things[number] = thing
        target[0] = number
        return 0

    def destroy(thing: int) -> int:
        return 0 if things.pop(thing, None) is not None else _INVALID_VALUE

    def setter(what: str) -> Callable[..., int]:
        def put(thing: int, attribute: int, buffer: int, size: int) -> int:
            if not buffer or _SIZES[what].get(attribute) != size:
                return _INVALID_VALUE
            things[thing][-1][attribute] = int.from_bytes(ctypes.string_at(buffer, size), "little")
            return 0

        return put

    def problem(descriptor: int, *layouts: int) -> Any:
        """What is multiplied, without pointers; a status if nothing can be."""
        compute, scale, given = things[descriptor]
        shapes = [things[layout] for layout in layouts]
        if any(ld < rows or batch.get(5, 1) < 1 for _, rows, _, ld, batch in shapes):
            return _INVALID_VALUE
        kind = shapes[0][0]
        name = TYPES.get(kind)
        if name is None or any(shape[0] != kind for shape in shapes) or compute not in COMPUTES.get(name, (68,)):
            return _NOT_SUPPORTED
        (m, k), (other, n) = ((s[1:3][::-1] if given.get(t) else s[1:3]) for s, t in zip(shapes, (3, 4), strict=False))
        epilogue = Epilogue(given.get(7, 1))
        beside = epilogue & (4 | _SUMS), epilogue.has_aux
        if k != other or shapes[2][1:3] != (m, n) or scale != (1 if kind == 1 else 0):
            return _INVALID_VALUE
        step = 128 if epilogue.has_relu_mask else 8
        if any(needed and not given.get(at) for needed, at in zip(beside, (8, 11), strict=True)):
            return _INVALID_VALUE
        if epilogue.has_aux and (given.get(12, 0) < m or given[12] % step or given.get(13, 0) % step):
            return _INVALID_VALUE
        facts = tuple(sorted((at, value) for at, value in given.items() if at not in (8, 11)))
        return compute, facts, tuple((*s[:4], tuple(sorted(s[4].items()))) for s in shapes)

    def heuristic(
        handle: int, descriptor: int, a: int, b: int, c: int, d: int, preference: int, many: int, found: Any, count: Any
    ) -> int:
        what = problem(descriptor, a, b, d)
        if handle not in things or many < 1 or c != d:
            return _INVALID_VALUE
        if isinstance(what, int):
            return what
        wanted = things[preference][-1]
        if any(wanted.get(at, 0) not in (1, 2, 4, 8, 16, 32, 64, 128, 256) for at in (5, 6, 7, 8)):
            return _INVALID_VALUE
        if unsupported is not None and unsupported(Epilogue(things[descriptor][-1].get(7, 1))):
            return _NOT_SUPPORTED
        if wanted.get(3, 7) not in range(8):
            return _INVALID_VALUE
        asked.append((what, [wanted[at] for at in (5, 6, 8)], wanted.get(3, 7)))
        found[0].algorithm[0], found[0].workspace, found[0].state = len(asked) - 1, min(1024, wanted.get(1, 0)), 0
        count[0] = 1
        return 0

    def matmul(
        handle: int, descriptor: int, alpha: int, a: int, layout_a: int, b: int, layout_b: int, beta: int, c: int,
        layout_c: int, d: int, layout_d: int, algorithm: int, workspace: int, size: int, stream: int | None,
    ) -> int:  # fmt: skip
        what = problem(descriptor, layout_a, layout_b, layout_d)
        if handle not in things or isinstance(what, int) or c != d or layout_c != layout_d:
            return _INVALID_VALUE
        known, alignments, parts = asked[ctypes.c_uint64.from_address(algorithm).value]
        if known != what or not workspace or workspace % 256 or size != WORKSPACE:
            return _INVALID_VALUE
        if (stream or 0) != current().ptr or any(at % by for at, by in zip((a, b, d), alignments, strict=True)):
            return _EXECUTION_FAILED
        if things[handle][0] != state.device:
            return _EXECUTION_FAILED
        dtype = numpy_dtype(TYPES[things[layout_a][0]])
        scale = np.dtype(np.float64 if things[descriptor][1] else np.float32)
        if [room_at(at, scale.itemsize).view(scale)[0] for at in (alpha, beta)] != [1, 0]:
            return _INVALID_VALUE
        given = (
            dict(things[descriptor][-1]),
            dtype,
            tuple(things[x] for x in (layout_a, layout_b, layout_d)),
            (a, b, d),
            parts,
        )
        graph = capturing()
        if graph is not None:
            graph.add(_multiply, given, {})
        else:
            _multiply(*given)
        return 0

    python: dict[str, Callable[..., int]] = {
        "cublasLtCreate": lambda made: make(made, (state.device, {})),
        "cublasLtDestroy": destroy,
        "cublasLtMatmulDescCreate": lambda made, compute, scale: make(made, (compute, scale, {})),
        "cublasLtMatmulDescDestroy": destroy,
        "cublasLtMatmulDescSetAttribute": setter("MatmulDesc"),
        "cublasLtMatrixLayoutCreate": lambda made, *facts: make(made, (*facts, {})),
        "cublasLtMatrixLayoutDestroy": destroy,
        "cublasLtMatrixLayoutSetAttribute": setter("MatrixLayout"),
        "cublasLtMatmulPreferenceCreate": lambda made: make(made, ({},)),
        "cublasLtMatmulPreferenceDestroy": destroy,
        "cublasLtMatmulPreferenceSetAttribute": setter("MatmulPreference"),
        "cublasLtMatmulAlgoGetHeuristic": heuristic,
        "cublasLtMatmul": matmul,
    }
    # through ctypes, so that what is passed must have the types that the real functions take
    return {name: prototype(python[name]) for name, prototype in PROTOTYPES.items()}


class StrictCublasLt(CublasLt):
    """The binding, on the emulation; graphs are told of the memory behind the addresses."""

    def __init__(self, cublas: Cublas, functions: Any = None):
        super().__init__(cublas, emulated_lt() if functions is None else functions)

    def launch(self, form: Gemm, a: Any, b: Any, out: Any, epilogue: Epilogue, bias: Any, aux: Any) -> bool:
        touch(*[x._host for x in (a, b, out, bias, aux) if x is not None])
        return super().launch(form, a, b, out, epilogue, bias, aux)
