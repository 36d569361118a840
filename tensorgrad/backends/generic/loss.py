"""Cross-entropy of class indices over ``xp``; half precision is computed in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dispatch import OPS
from ...errors import IndexOutOfRange
from .checks import Checks
from .reduce import wide


def _by_row(x: Any) -> Any:
    """(n, classes, inner) as (n * inner, classes)."""
    n, classes, inner = x.shape
    return x.swapaxes(1, 2).reshape(n * inner, classes)


class LossKernels(Checks):
    xp: Any
    raw: Any

    def cross_entropy(
        self, x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str, label_smoothing: float
    ) -> tuple[Any, Any]:
        if x.ndim == 3:  # (n, classes, inner)
            how: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
            loss, lse = self.cross_entropy(_by_row(x), target.reshape(-1), w, **how)
            return loss.reshape(target.shape) if reduction == "none" else loss, lse.reshape(target.shape)
        xp = self.xp
        valid, index = self._classes("cross_entropy", target, x.shape[1], ignore_index)
        source = wide(x)
        rows = xp.arange(x.shape[0])
        with np.errstate(all="ignore"):
            top = source.max(axis=1, keepdims=True) if x.shape[1] else source[:, :0].sum(axis=1, keepdims=True)
            below = source - top
            log_sum = xp.log(xp.exp(below).sum(axis=1, keepdims=True))
            lse = (log_sum + top)[:, 0]
            losses = log_sum[:, 0] - below[rows, index]  # lse itself has no room for the sum beside large logits
        weights = None if w is None else wide(w)
        if weights is not None:
            losses = losses * weights[index]
        if label_smoothing:
            far = log_sum - below
            spread = far.sum(axis=1) if weights is None else (far * weights).sum(axis=1)
            share = label_smoothing / x.shape[1]
            losses = losses * (1 - label_smoothing) + spread * share
        losses = xp.where(valid, losses, xp.zeros((), dtype=losses.dtype))
        if reduction == "none":
            return losses.astype(x.dtype, copy=False), lse
        total = losses.sum()
        if reduction == "mean":
            with np.errstate(all="ignore"):
                total = total / self._weight_sum(valid, index, weights, losses.dtype)
        return xp.asarray(total, dtype=x.dtype), lse

    def cross_entropy_backward(
        self, g: Any, x: Any, target: Any, w: Any, lse: Any, *, ignore_index: int, reduction: str,
        label_smoothing: float,
    ) -> Any:  # fmt: skip
        xp = self.xp
        if x.ndim == 3:
            how: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
            n, classes, inner = x.shape
            out = self.cross_entropy_backward(
                g.reshape(-1) if reduction == "none" else g, _by_row(x), target.reshape(-1), w, lse.reshape(-1), **how
            )
            return xp.ascontiguousarray(out.reshape(n, inner, classes).swapaxes(1, 2))
        valid, index = self._classes("cross_entropy", target, x.shape[1], ignore_index)
        source = wide(x)
        rows = xp.arange(x.shape[0])
        weights = None if w is None else wide(w)
        scale = wide(g)
        if reduction == "mean":
            with np.errstate(all="ignore"):
                scale = scale / self._weight_sum(valid, index, weights, source.dtype)
        scale = xp.where(valid, scale, xp.zeros((), dtype=source.dtype))  # (n,), whatever the reduction
        hard = scale * (1 - label_smoothing)
        if weights is not None:
            hard = hard * weights[index]
        with np.errstate(all="ignore"):
            out = xp.exp(source - lse[:, None])
            out /= out.sum(axis=1, keepdims=True)  # the stored lse is rounded, which shifts the whole row
        if label_smoothing:
            share = label_smoothing / x.shape[1]
            total = x.shape[1] if weights is None else weights.sum()
            out *= (hard + scale * share * total)[:, None]
            out -= (scale * share)[:, None] * (1 if weights is None else weights)
        else:
            out *= hard[:, None]
        out[rows, index] -= hard
        return out.astype(x.dtype, copy=False)

    def nll_loss(self, x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str) -> Any:
        """The op's definition, whose ``gather`` does not know what it looks for."""
        define = OPS["nll_loss"].define
        assert define is not None
        try:
            return define(self.raw, x, target, w, ignore_index=ignore_index, reduction=reduction)
        except IndexOutOfRange:
            self._classes("nll_loss", target, x.shape[1], ignore_index)
            raise

    def _classes(self, name: str, target: Any, classes: int, ignore_index: int) -> tuple[Any, Any]:
        """(which rows count, their class, 0 for the others). Raises IndexOutOfRange for a class that is not there."""
        valid = target != ignore_index
        wrong = valid & ((target < 0) | (target >= classes))

        def complain() -> None:
            first = int(target[wrong][0])
            raise IndexOutOfRange(
                f"{name}: target {first} is out of bounds for {classes} classes (0 to {classes - 1}; "
                f"ignore_index is {ignore_index})."
            )

        self._refuse_if(wrong.any(), complain)
        return valid, self.xp.where(valid, target, self.xp.zeros((), dtype=target.dtype))

    def _weight_sum(self, valid: Any, index: Any, weights: Any, dtype: Any) -> Any:
        """What the mean divides by: the weights of the rows that count."""
        if weights is None:
            return valid.sum().astype(dtype)
        return self.xp.where(valid, weights[index], self.xp.zeros((), dtype=weights.dtype)).sum()
