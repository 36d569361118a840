"""Softmax and its gradients by one kernel: a row is a warp's or a block's, wherever the dimension lies."""

from __future__ import annotations

import math
from typing import Any

from ..generic.softmax import SoftmaxKernels
from .kernels import Kernels
from .names import NAMES

__all__ = ["CupySoftmax", "laid", "team_for"]

_WARP, _BLOCK = 32, 256  # threads of a row
_FOR_A_WARP = 1024  # elements of a row; beyond, a block has more loads under way
_PACK_BYTES = 16


def team_for(length: int) -> tuple[bool, int]:
    """Whether a row of so many elements is a block's (else a warp's), and how many threads that are."""
    return (False, _WARP) if length <= _FOR_A_WARP else (True, _BLOCK)


def laid(xp: Any, array: Any) -> Any:
    """``array`` as kernels over teams read it: dense, from a multiple of 16 bytes on; the null pointer for None."""
    if array is None:
        return 0
    dense = xp.ascontiguousarray(array)
    return dense.copy() if dense.data.ptr % _PACK_BYTES else dense


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
        block, threads = team_for(length)
        group = "block" if block else "warp"
        self._kernels.launch(f"{kind}_{group}_{NAMES[made.dtype]}", rows * threads, rows, length, *arrays, made)
        return xp.ascontiguousarray(xp.moveaxis(made, -1, dim))
