"""Reductions over ``xp``; half precision is reduced in float32."""

from __future__ import annotations

from typing import Any

import numpy as np


def wide(x: Any) -> Any:
    """Half precision as float32: what reductions accumulate in."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def reduced_shape(shape: tuple[int, ...], dim: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape after reducing over ``dim``."""
    if len(dim) == len(shape) and not keepdim:
        return ()
    if keepdim:
        return tuple([1 if i in dim else size for i, size in enumerate(shape)])
    return tuple([size for i, size in enumerate(shape) if i not in dim])


def elements_in(shape: tuple[int, ...], dim: tuple[int, ...]) -> int:
    """How many elements one result of a reduction over ``dim`` is made of."""
    count = 1
    for d in dim:
        count *= shape[d]
    return count


def _real_of(dtype: Any) -> Any:
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


class ReduceKernels:
    xp: Any

    def sum(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        if x.dtype.kind in "bui":
            return self.xp.asarray(self.xp.sum(x, axis=dim, keepdims=keepdim, dtype=np.int64))
        return self.xp.asarray(self.xp.sum(wide(x), axis=dim, keepdims=keepdim)).astype(x.dtype, copy=False)

    def prod(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        if x.dtype.kind in "bui":
            return self.xp.asarray(self.xp.prod(x, axis=dim, keepdims=keepdim, dtype=np.int64))
        with np.errstate(all="ignore"):
            return self.xp.asarray(self.xp.prod(wide(x), axis=dim, keepdims=keepdim)).astype(x.dtype, copy=False)

    def mean(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        count = elements_in(x.shape, dim)
        with np.errstate(all="ignore"):
            total = self.xp.asarray(self.xp.sum(wide(x), axis=dim, keepdims=keepdim))
            return self.xp.asarray(total / total.dtype.type(count)).astype(x.dtype, copy=False)

    def var(self, x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        with np.errstate(all="ignore"):
            return self._variance(x, dim, correction, keepdim).astype(_real_of(x.dtype), copy=False)

    def std(self, x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        with np.errstate(all="ignore"):
            root = self.xp.asarray(self.xp.sqrt(self._variance(x, dim, correction, keepdim)))
            return root.astype(_real_of(x.dtype), copy=False)

    def _variance(self, x: Any, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        """In two passes: the sum of squared distances from the mean does not cancel. In float64, where the squares of
        float32 and their sum have room, so that a deviation near the ends of its range is one."""
        xp = self.xp
        count = elements_in(x.shape, dim)
        w = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
        w -= xp.sum(w, axis=dim, keepdims=True) / np.float64(count)
        squares = w.real**2 + w.imag**2 if w.dtype.kind == "c" else xp.square(w, out=w)
        total = xp.asarray(xp.sum(squares, axis=dim, keepdims=keepdim))
        return xp.asarray(total / np.float64(max(count - correction, 0)))

    def amax(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        return self.xp.asarray(self.xp.max(wide(x), axis=dim, keepdims=keepdim)).astype(x.dtype, copy=False)

    def amin(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        return self.xp.asarray(self.xp.min(wide(x), axis=dim, keepdims=keepdim)).astype(x.dtype, copy=False)

    def any(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        return self._truth(x, self.xp.any, dim, keepdim)

    def all(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        return self._truth(x, self.xp.all, dim, keepdim)

    def _truth(self, x: Any, reduce: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
        holds = x if x.dtype.kind == "b" else wide(x) != 0
        out = self.xp.asarray(reduce(holds, axis=dim, keepdims=keepdim))
        return out.astype(x.dtype if x.dtype == np.uint8 else bool, copy=False)

    def count_nonzero(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        return self.xp.asarray(self.xp.sum(wide(x) != 0, axis=dim, keepdims=keepdim, dtype=np.int64))

    def logsumexp(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        xp = self.xp
        w = wide(x)
        with np.errstate(all="ignore"):
            if elements_in(x.shape, dim) == 0:
                return xp.full(reduced_shape(x.shape, dim, keepdim), -np.inf, dtype=x.dtype)
            top = xp.asarray(xp.max(w.real if w.dtype.kind == "c" else w, axis=dim, keepdims=True))
            top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
            out = xp.log(xp.sum(xp.exp(w - top), axis=dim, keepdims=True)) + top
        return xp.asarray(out).reshape(reduced_shape(x.shape, dim, keepdim)).astype(x.dtype, copy=False)

    def argmax(self, x: Any, *, dim: int | None, keepdim: bool) -> Any:
        return self._arg(x, self.xp.argmax, dim, keepdim)

    def argmin(self, x: Any, *, dim: int | None, keepdim: bool) -> Any:
        return self._arg(x, self.xp.argmin, dim, keepdim)

    def _arg(self, x: Any, find: Any, dim: int | None, keepdim: bool) -> Any:
        found = self.xp.asarray(find(wide(x), axis=dim)).astype(np.int64, copy=False)
        dims = tuple(range(x.ndim)) if dim is None else (dim,)
        return found.reshape(reduced_shape(x.shape, dims, keepdim))

    def max_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        return self._with_values(x, self.xp.argmax, dim, keepdim)

    def min_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        return self._with_values(x, self.xp.argmin, dim, keepdim)

    def _with_values(self, x: Any, find: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
        indices = self._arg(x, find, dim, True)
        values = self.xp.take_along_axis(x, indices, dim)
        if keepdim:
            return values, indices
        shape = reduced_shape(x.shape, (dim,), False)
        return values.reshape(shape), indices.reshape(shape)
