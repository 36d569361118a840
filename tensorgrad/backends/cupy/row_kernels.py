"""Softmax and its gradients by one kernel: a row is a warp's or a block's, wherever the dimension lies."""

from __future__ import annotations

import math
from typing import Any

from ..generic.softmax import SoftmaxKernels
from .kernels import Kernels

__all__ = ["CupySoftmax"]

_WARP, _BLOCK = 32, 256  # threads of a row
_FOR_A_WARP = 1024  # elements of a row; beyond, a block has more loads under way


class CupySoftmax(SoftmaxKernels):
    _kernels: Kernels

    def softmax(self, x: Any, *, dim: int) -> Any:
        return self._by_rows("softmax", dim, x) if x.size and x.ndim else super().softmax(x, dim=dim)

    def log_softmax(self, x: Any, *, dim: int) -> Any:
        return self._by_rows("logsoftmax", dim, x) if x.size and x.ndim else super().log_softmax(x, dim=dim)

    def softmax_backward(self, g: Any, y: Any, *, dim: int) -> Any:
        if not y.size or not y.ndim or g.dtype != y.dtype:
            return super().softmax_backward(g, y, dim=dim)
        return self._by_rows("softmaxgrad", dim, g, y)

    def log_softmax_backward(self, g: Any, y: Any, *, dim: int) -> Any:
        if not y.size or not y.ndim or g.dtype != y.dtype:
            return super().log_softmax_backward(g, y, dim=dim)
        return self._by_rows("logsoftmaxgrad", dim, g, y)

    def _by_rows(self, kind: str, dim: int, *operands: Any) -> Any:
        """The kernel over rows along ``dim``, which copies put side by side where they lie otherwise."""
        xp = self.xp
        arrays = [xp.ascontiguousarray(xp.moveaxis(x, dim, -1)) for x in operands]
        made = xp.empty(arrays[0].shape, dtype=arrays[0].dtype)
        length = made.shape[-1]
        rows = math.prod(made.shape[:-1])
        group, threads = ("warp", _WARP) if length <= _FOR_A_WARP else ("block", _BLOCK)
        self._kernels.launch(f"{kind}_{group}_{made.dtype.name}", rows * threads, rows, length, *arrays, made)
        return xp.ascontiguousarray(xp.moveaxis(made, -1, dim))
