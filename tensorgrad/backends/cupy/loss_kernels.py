"""Cross-entropy of class indices and its gradient, from the logits in one pass each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..generic.loss import LossKernels
from .kernels import Kernels
from .names import NAMES
from .row_kernels import laid, team_for

__all__ = ["CupyLosses"]

_WARP, _BLOCK = 32, 256
_PART = 4096  # rows whose losses a warp adds up


class CupyLosses(LossKernels):
    _kernels: Kernels

    def cross_entropy(
        self, x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str, label_smoothing: float
    ) -> tuple[Any, Any]:
        if x.ndim == 3 or not x.size:
            return super().cross_entropy(
                x, target, w, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
            )
        xp, (rows, classes) = self.xp, x.shape
        source, chosen, weight = laid(xp, x), laid(xp, target), laid(xp, w)
        lse = xp.empty(rows, dtype=np.float32 if x.dtype.itemsize == 2 else x.dtype)
        losses = xp.empty(rows, dtype=lse.dtype)
        rounded = xp.empty(rows, dtype=x.dtype) if reduction == "none" and x.dtype != lse.dtype else None
        block, threads = team_for(classes)
        self._kernels.launch(
            f"crossentropy_{NAMES[x.dtype]}", rows * threads, block, rows, classes, ignore_index,
            lse.dtype.type(label_smoothing), source, chosen, weight, 0 if rounded is None else rounded, losses, lse,
        )  # fmt: skip
        loss = None if reduction == "none" else xp.empty((), dtype=x.dtype)
        _, wrong = self._loss_sums(x, chosen, weight, losses, loss, lse.dtype, ignore_index, reduction)

        def complain() -> None:
            self._classes("cross_entropy", target, classes, ignore_index)

        self._refuse_if(wrong, complain)
        return losses if loss is None and rounded is None else rounded if loss is None else loss, lse

    def cross_entropy_backward(
        self, g: Any, x: Any, target: Any, w: Any, lse: Any, *, ignore_index: int, reduction: str,
        label_smoothing: float,
    ) -> Any:  # fmt: skip
        if x.ndim == 3 or not x.size or g.dtype != x.dtype:
            return super().cross_entropy_backward(
                g, x, target, w, lse, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
            )
        xp, (rows, classes) = self.xp, x.shape
        source, chosen, weight = laid(xp, x), laid(xp, target), laid(xp, w)
        # that every class is there, forward has found out, and has waited for it
        divisor, _ = self._loss_sums(x, chosen, weight, 0, None, lse.dtype, ignore_index, reduction)
        to_x = xp.empty(x.shape, dtype=x.dtype)
        block, threads = team_for(classes)
        self._kernels.launch(
            f"crossentropygrad_{NAMES[x.dtype]}", rows * threads, block, rows, classes, ignore_index,
            lse.dtype.type(label_smoothing), g.ndim > 0, laid(xp, g), source, chosen, weight, laid(xp, lse), divisor,
            to_x,
        )  # fmt: skip
        return to_x

    def _loss_sums(
        self, x: Any, chosen: Any, weight: Any, losses: Any, loss: Any, dtype: Any, ignore_index: int, reduction: str
    ) -> tuple[Any, Any]:
        """Writes the sum or mean of ``losses`` (null for none) into ``loss`` (0-d, or None); returns what a mean is
        divided by, and whether there is a class that is not there, both on the device."""
        xp, name = self.xp, NAMES[x.dtype]
        rows, classes = x.shape
        parts = -(-rows // _PART)
        totals, weights = xp.empty(parts, dtype=dtype), xp.empty(parts, dtype=dtype)
        wrong = xp.empty(parts, dtype=np.int64)
        self._kernels.launch(
            f"lossparts_{name}", parts * _WARP, rows, classes, ignore_index, parts, _PART, chosen, weight, losses,
            totals, weights, wrong,
        )  # fmt: skip
        divisor, any_wrong = xp.empty((), dtype=dtype), xp.empty((), dtype=np.bool_)
        self._kernels.launch(
            f"losstotal_{name}", _BLOCK, parts, reduction == "mean", totals, weights, wrong,
            0 if loss is None else loss, divisor, any_wrong,
        )  # fmt: skip
        return divisor, any_wrong
