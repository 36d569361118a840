"""Reductions over ``xp``; half precision is reduced in float32."""

from __future__ import annotations

from typing import Any

import numpy as np


def wide(x: Any) -> Any:
    """Half precision as float32: what reductions accumulate in."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


class ReduceKernels:
    xp: Any

    def sum(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        if x.dtype.kind in "bui":
            return self.xp.asarray(self.xp.sum(x, axis=dim, keepdims=keepdim, dtype=np.int64))
        return self.xp.asarray(self.xp.sum(wide(x), axis=dim, keepdims=keepdim)).astype(x.dtype, copy=False)
