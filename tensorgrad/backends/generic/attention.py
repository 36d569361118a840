"""Attention over ``xp``, written out: the scores of all queries and keys are made at once, in float32 at least.

Heads of queries that share a head of keys are more rows of one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .products import Products
from .reduce import wide


class AttentionKernels(Products):
    sum_to: Callable[..., Any]  # of ShapeKernels

    def attention(self, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Any, Any]:
        scores = self._scores(q, k, mask, causal, scale)
        lse = self._log_sum(scores)
        out = self._mixed(self._weights(scores, lse), v)
        return out.astype(q.dtype, copy=False), lse

    def attention_backward(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
        needs: tuple[bool, ...],
    ) -> Any:  # fmt: skip
        weights = self._weights(self._scores(q, k, mask, causal, scale), lse)
        g = wide(g)
        to_q = to_k = to_v = to_mask = None
        if needs[2]:
            to_v = self._product(_below(weights, v).swapaxes(-1, -2), _below(g, v)).astype(q.dtype, copy=False)
        if needs[0] or needs[1] or needs[3]:
            slope = self._product(_below(g, v), wide(v).swapaxes(-1, -2)).reshape(weights.shape)
            slope -= (g * wide(out)).sum(axis=-1, keepdims=True)
            slope *= weights
            if needs[3]:
                to_mask = self.sum_to(slope, shape=mask.shape).astype(mask.dtype, copy=False)
            slope = slope * slope.dtype.type(scale)  # not in place: to_mask may be slope itself
            if needs[0]:
                to_q = self._mixed(slope, k).astype(q.dtype, copy=False)
            if needs[1]:
                below = _below(slope, k).swapaxes(-1, -2)
                to_k = self._product(below, _below(wide(q), k)).astype(q.dtype, copy=False)
        return to_q, to_k, to_v, to_mask

    def _scores(self, q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
        """(..., queries, keys): ``q k^T * scale`` plus the mask; -inf where a query must not look."""
        xp = self.xp
        q = wide(q)
        scores = self._product(_below(q * q.dtype.type(scale), k), wide(k).swapaxes(-1, -2))
        scores = scores.reshape(*q.shape[:-1], k.shape[-2])
        never = xp.full((), -math.inf, dtype=scores.dtype)
        if causal:
            rows, columns = xp.arange(scores.shape[-2])[:, None], xp.arange(scores.shape[-1])
            scores = xp.where(columns <= rows, scores, never)
        if mask is None:
            return scores
        return xp.where(mask, scores, never) if mask.dtype.kind == "b" else scores + wide(mask)

    def _mixed(self, weights: Any, v: Any) -> Any:
        return self._product(_below(weights, v), wide(v)).reshape(*weights.shape[:-1], v.shape[-1])

    def _log_sum(self, scores: Any) -> Any:
        """logsumexp of each row; -inf for a row that looks nowhere."""
        xp = self.xp
        if not scores.shape[-1]:
            return xp.full(scores.shape[:-1], -math.inf, dtype=scores.dtype)
        top = scores.max(axis=-1, keepdims=True)
        top = xp.where(xp.isinf(top), xp.zeros((), dtype=top.dtype), top)
        with np.errstate(divide="ignore"):
            return xp.log(xp.exp(scores - top).sum(axis=-1)) + top[..., 0]

    def _weights(self, scores: Any, lse: Any) -> Any:
        """softmax of the scores; zeros in a row that looks nowhere, NaN in one with an infinite score."""
        xp = self.xp
        safe = xp.where(lse == -math.inf, xp.zeros((), dtype=lse.dtype), lse)
        with np.errstate(invalid="ignore"):
            return xp.exp(scores - safe[..., None])


def _below(x: Any, k: Any) -> Any:
    """``x`` (..., heads, n, w) of queries, the rows of all heads that share one of ``k`` below each other."""
    if x.shape[:-2] == k.shape[:-2]:
        return x
    return x.reshape(*k.shape[:-2], x.shape[-3] * x.shape[-2] // k.shape[-3], x.shape[-1])
