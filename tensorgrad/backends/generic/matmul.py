"""Matrix products over ``xp``; half precision is multiplied and summed in float32."""

from __future__ import annotations

import math
from typing import Any

from .products import Products
from .reduce import wide


def conjugated(x: Any) -> Any:
    return x.conj() if x.dtype.kind == "c" else x


class MatmulKernels(Products):
    def matmul(self, a: Any, b: Any) -> Any:
        left, right = wide(a), wide(b)
        if right.ndim == 2 and left.ndim > 2:
            # one product of tall matrices instead of one for each of the batch
            rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])
            y = self._product(rows, right).reshape(*a.shape[:-1], b.shape[-1])
        else:
            y = self._product(left, right)
        return y.astype(a.dtype, copy=False)

    def linear(self, x: Any, w: Any, b: Any) -> Any:
        y = self._product(wide(x).reshape(math.prod(x.shape[:-1]), x.shape[-1]), wide(w).T)
        if b is not None:
            y += wide(b)
        return y.reshape(*x.shape[:-1], w.shape[0]).astype(x.dtype, copy=False)

    def linear_backward(self, g: Any, x: Any, w: Any, *, needs: tuple[bool, bool, bool]) -> Any:
        (n, k), rows = w.shape, math.prod(x.shape[:-1])
        flat = wide(g).reshape(rows, n)
        to_x = to_w = to_b = None
        if needs[0]:
            to_x = self._product(flat, wide(conjugated(w))).reshape(x.shape).astype(x.dtype, copy=False)
        if needs[1]:
            to_w = self._product(flat.T, wide(conjugated(x)).reshape(rows, k)).astype(w.dtype, copy=False)
        if needs[2]:
            to_b = self.xp.asarray(flat.sum(axis=0)).astype(w.dtype, copy=False)
        return to_x, to_w, to_b
