"""Where CuPy needs another way than the generic kernels: matrix products."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

from ...dispatch import OPS
from ...errors import BackendError
from ..generic.matmul import MatmulKernels
from ..generic.reduce import wide
from . import cublaslt
from .cublas import Cublas, load
from .cublaslt import CublasLt, Epilogue
from .names import NAMES

__all__ = ["CupyProducts"]


_FUSED = frozenset(("float32", "float16", "bfloat16"))  # dtypes whose activations are cuBLASLt's epilogues
_EPILOGUES = {  # by activation, and whether what it is taken of is kept
    ("relu", False): Epilogue.RELU_BIAS,
    ("gelu_tanh", False): Epilogue.GELU_BIAS,
    ("gelu_tanh", True): Epilogue.GELU_AUX_BIAS,
}
_FILLED = 8  # elements that a row of cuBLASLt's GELU_AUX has a multiple of


def _is_half(x: Any) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind in "fV"


class CupyProducts(MatmulKernels):
    """cuBLAS multiplies whatever lies wherever, and sums half precision in float32 by itself: nothing is widened for
    it. Where the library is not found CuPy multiplies."""

    raw: Any

    @cached_property
    def _cublas(self) -> Cublas | None:
        try:
            return Cublas(self.xp, load())
        except BackendError as error:
            warnings.warn(f"{error} CuPy's own products are used, which no CUDA graph can hold.", stacklevel=2)
            return None

    @cached_property
    def _cublaslt(self) -> CublasLt | None:
        if self._cublas is None:
            return None
        try:
            return CublasLt(self._cublas, cublaslt.load())
        except BackendError as error:
            warnings.warn(f"{error} Biases are added by kernels of their own.", stacklevel=2)
            return None

    def _product(self, a: Any, b: Any) -> Any:
        cublas = self._cublas
        if cublas is not None and cublas.takes(a.dtype):
            return cublas.matmul(a, b)
        if not _is_half(a) or (a.ndim == 2 and b.ndim == 2):
            return self.xp.matmul(a, b)
        # CuPy has no batched product in bfloat16, and makes its own float32 copies for float16
        return self.xp.matmul(wide(a), wide(b)).astype(a.dtype)

    def matmul(self, a: Any, b: Any) -> Any:
        if self._cublas is not None and self._cublas.takes(a.dtype):
            return self._cublas.matmul(a, b)
        if not _is_half(a):
            return super().matmul(a, b)
        if b.ndim == 2 and a.ndim > 2:
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
            return self._product(rows, b).reshape(*a.shape[:-1], b.shape[-1])
        return self._product(a, b)

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        lt = self._cublaslt
        if lt is not None and b is not None and lt.takes(x.dtype) and x.size and w.size:
            rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
            made = lt.matmul(rows, w.T, Epilogue.BIAS, bias=self.xp.ascontiguousarray(b))
            if made is not None:
                return made.reshape(*x.shape[:-1], w.shape[0])
        if not _is_half(x):
            return super().linear(x, w, b)
        y = self._product(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), w.T)
        if b is not None:
            y += b
        return y.reshape(*x.shape[:-1], w.shape[0])

    def fuses_activation(self, activation: str, dtype: str, features: int, *, keeps: bool) -> bool:
        if self._cublaslt is None or dtype not in _FUSED:
            return False
        # cuBLASLt would fill up the rows of what is kept, which is to be an array like any other
        return (activation, keeps) in _EPILOGUES and not (keeps and features % _FILLED)

    def linear_activation(self, x: Any, w: Any, b: Any, *, activation: str, keeps: bool) -> Any:
        lt, n = self._cublaslt, w.shape[0]
        fuses = self.fuses_activation(activation, NAMES[x.dtype], n, keeps=keeps)
        if lt is not None and fuses and b is not None and x.size and w.size:
            epilogue = _EPILOGUES[activation, keeps]
            rows, shape = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), (*x.shape[:-1], n)
            aux = lt.aux(epilogue, (rows.shape[0], n), x.dtype) if keeps else None
            made = lt.matmul(rows, w.T, epilogue, bias=self.xp.ascontiguousarray(b), aux=aux)
            if made is not None:
                return made.reshape(shape), None if aux is None else aux.reshape(shape)
        define: Any = OPS["linear_activation"].define
        return define(self.raw, x, w, b, activation=activation, keeps=keeps)

    def linear_activation_backward(
        self, g: Any, x: Any, w: Any, before: Any, *, activation: str, needs: tuple[bool, bool, bool]
    ) -> Any:
        lt, k = self._cublaslt, w.shape[1]
        fuses = needs[0] and self.fuses_activation(activation, NAMES[x.dtype], k, keeps=True)
        if lt is not None and fuses and g.size and x.size:
            rows = math.prod(x.shape[:-1])
            aux = self.xp.ascontiguousarray(before).reshape(rows, k)
            made = lt.matmul(g.reshape(rows, w.shape[0]), w, Epilogue.DGELU, aux=aux)
            if made is not None:
                return made.reshape(x.shape), *self.linear_backward(g, x, w, needs=(False, *needs[1:]))[1:]
        define: Any = OPS["linear_activation_backward"].define
        return define(self.raw, g, x, w, before, activation=activation, needs=needs)

    def linear_backward(self, g: Any, x: Any, w: Any, *, needs: tuple[bool, bool, bool]) -> Any:
        lt = self._cublaslt
        if lt is not None and needs[1] and needs[2] and lt.takes(x.dtype) and x.size and g.size:
            rows = math.prod(x.shape[:-1])
            left, to_b = g.reshape(rows, w.shape[0]).T, self.xp.empty((w.shape[0],), dtype=w.dtype)
            to_w = lt.matmul(left, x.reshape(rows, x.shape[-1]), Epilogue.BGRAD_LEFT, bias=to_b)
            if to_w is not None:
                to_x, _, _ = self.linear_backward(g, x, w, needs=(needs[0], False, False))
                return to_x, to_w, to_b
        if not _is_half(x):
            return super().linear_backward(g, x, w, needs=needs)
        (n, k), rows = w.shape, math.prod(x.shape[:-1])
        flat = g.reshape(rows, n)
        to_x = self._product(flat, w).reshape(x.shape) if needs[0] else None
        to_w = self._product(flat.T, x.reshape(rows, k)) if needs[1] else None
        to_b = self.xp.asarray(wide(flat).sum(axis=0)).astype(w.dtype) if needs[2] else None
        return to_x, to_w, to_b
