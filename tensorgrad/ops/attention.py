"""Scaled dot-product attention and its fused backward."""

from __future__ import annotations

import math
from typing import Any

from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..random import Generator
from ..tensor import Tensor
from . import pointwise as pw
from .checks import (
    np_dtype,
    require_float,
    require_same_dtype,
    require_tensors,
    reshaped,
    shaped,
    statistic_dtype,
    swapped,
)
from .elementwise import broadcast_shape
from .matmul import matmul_op
from .norm import fitted, plus
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import expand
from .softmax import softmax_op


def _infer(q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Spec, Spec]:
    require_float("attention", q)
    require_same_dtype("attention", q, key=k, value=v)
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[:-2] != k.shape[:-2] or q.shape[:-2] != v.shape[:-2]:
        raise ShapeError(
            f"attention: query {tuple(q.shape)}, key {tuple(k.shape)} and value {tuple(v.shape)} need the same batch "
            "dimensions before (length, width)."
        )
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"attention: query {tuple(q.shape)} and key {tuple(k.shape)} need the same width, key and value "
            f"{tuple(v.shape)} the same length."
        )
    scores = (*q.shape[:-1], k.shape[-2])
    if mask is not None:
        if mask.dtype.kind != "b" and mask.dtype != q.dtype:
            raise DTypeError(f"attention: the mask must be bool or {q.dtype.name} as the query, got {mask.dtype.name}.")
        if broadcast_shape("attention mask", scores, mask.shape) != scores:
            raise ShapeError(f"attention: a mask of shape {tuple(mask.shape)} does not broadcast to {scores}.")
    return Spec((*q.shape[:-1], v.shape[-1]), q.dtype), Spec(tuple(q.shape[:-1]), statistic_dtype(q.dtype))


def _scores(F: Any, q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
    kept = statistic_dtype(np_dtype(q))
    scores = F.mul(F.matmul(fitted(F, q, kept), swapped(F, fitted(F, k, kept))), scale)
    if causal:
        below = F.tril(F.full_as(scores, value=1.0), diagonal=0)
        scores = F.where(F.ne(below, 0.0), scores, -math.inf)
    if mask is None:
        return scores
    return F.where(mask, scores, -math.inf) if np_dtype(mask).kind == "b" else F.add(scores, mask)


def _weights(F: Any, scores: Any, lse: Any) -> Any:
    safe = F.where(F.eq(lse, -math.inf), 0.0, lse)
    return F.exp(F.sub(scores, reshaped(F, safe, (*lse.shape, 1))))


def _define(F: Any, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Any, Any]:
    scores = _scores(F, q, k, mask, causal, scale)
    lse = F.logsumexp(scores, dim=(scores.ndim - 1,), keepdim=False)
    out = F.matmul(_weights(F, scores, lse), fitted(F, v, np_dtype(scores)))
    return fitted(F, out, np_dtype(q)), lse


def _rule(
    F: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, *, out: Any, lse: Any, needs: Any, causal: bool, scale: float
) -> tuple[Any, ...]:
    to_out, to_lse = g
    grads: tuple[Any, ...] = (None, None, None, None)
    if to_out is not None:
        grads = F.attention_backward(to_out, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)
    if to_lse is not None and (needs[0] or needs[1] or needs[3]):
        # d lse / d scores is the softmax
        weights = _weights(F, _scores(F, q, k, mask, causal, scale), lse)
        slope = F.mul(weights, reshaped(F, to_lse, (*lse.shape, 1)))
        extra = _to_inputs(F, slope, q, k, mask, scale, needs)
        grads = tuple(plus(F, a, b) for a, b in zip(grads, extra, strict=True))
    return grads


def _to_inputs(F: Any, slope: Any, q: Any, k: Any, mask: Any, scale: float, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The gradients in query, key and mask when ``slope`` reaches the scores."""
    dtype, kept = np_dtype(q), np_dtype(slope)
    to_q = to_k = to_mask = None
    if needs[3]:
        to_mask = fitted(F, F.sum_to(slope, shape=tuple(mask.shape)), np_dtype(mask))
    slope = F.mul(slope, scale)
    if needs[0]:
        to_q = fitted(F, F.matmul(slope, fitted(F, k, kept)), dtype)
    if needs[1]:
        to_k = fitted(F, F.matmul(swapped(F, slope), fitted(F, q, kept)), dtype)
    return to_q, to_k, None, to_mask


def _how(**changed: Any) -> dict[str, Any]:
    return {"causal": False, "scale": 0.5} | changed


def _qkv(batch: tuple[int, ...], queries: int, keys: int, layout: str = "C") -> tuple[Arg, ...]:
    return (
        Arg((*batch, queries, 4), layout=layout), Arg((*batch, keys, 4), layout=layout), Arg((*batch, keys, 3)),
    )  # fmt: skip


def _samples() -> list[Sample]:
    half = Arg((3, 5), kind="b")
    return [
        Sample((*_qkv((2,), 3, 5), None), _how(), name="plain"),
        Sample((*_qkv((2, 2), 4, 4, "T"), None), _how(causal=True), name="causal"),
        Sample((*_qkv((2,), 3, 5), Arg((3, 5))), _how(), name="added mask"),
        Sample((*_qkv((2,), 3, 5), Arg((2, 1, 5))), _how(causal=True), name="broadcast mask"),
        Sample((*_qkv((2,), 3, 5), half), _how(), name="bool mask"),
        Sample((*_qkv((), 3, 5), None), _how(), name="no batch"),
        Sample((*_qkv((0,), 3, 5), None), _how(), name="empty batch"),
    ]


attention_op = op(
    "attention",
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("q", "k", "v", "mask", "out", "lse"),
    outputs=("out", "lse"),
    samples=_samples,
    doc="``softmax(q k^T * scale + mask) v`` and the logsumexp of each query's scores.",
)


def _backward_infer(
    g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
    needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    return tuple(
        Spec(tuple(x.shape), x.dtype) if needed else None for x, needed in zip((q, k, v, mask), needs, strict=True)
    )


def _backward_define(
    F: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
    needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    weights = _weights(F, _scores(F, q, k, mask, causal, scale), lse)
    kept = np_dtype(weights)
    g, values = fitted(F, g, kept), fitted(F, v, kept)
    to_v = fitted(F, F.matmul(swapped(F, weights), g), np_dtype(v)) if needs[2] else None
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, to_v, None
    along = F.sum(F.mul(g, fitted(F, out, kept)), dim=(g.ndim - 1,), keepdim=True)
    slope = F.mul(weights, F.sub(F.matmul(g, swapped(F, values)), along))
    to_q, to_k, _, to_mask = _to_inputs(F, slope, q, k, mask, scale, needs)
    return to_q, to_k, to_v, to_mask


def _backward_samples() -> list[Sample]:
    lse = Arg((2, 3), 2.0, 3.0, kind="s")
    inputs = (Arg((2, 3, 3)), *_qkv((2,), 3, 5), None, Arg((2, 3, 3)), lse)
    return [Sample(inputs, _how(needs=(True, True, True, False)), name="plain")]


attention_backward = op(
    "attention_backward",
    infer=_backward_infer,
    define=_backward_define,
    outputs=("gq", "gk", "gv", "gmask"),
    samples=_backward_samples,
    doc="The gradients of ``attention``'s inputs that are needed.",
)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """``softmax(query key^T * scale + mask) value``.

    Args:
        query: (..., l, e).
        key: (..., s, e).
        value: (..., s, d); the batch dimensions of the three broadcast.
        attn_mask: broadcasts to (..., l, s): bool, True where a query may look; or added to the scores. A query that
            may look nowhere gives zeros.
        dropout_p: the probability that a weight is dropped; drawn from ``generator``.
        is_causal: query i looks at keys 0 to i.
        scale: ``1 / sqrt(e)`` if None.
        enable_gqa: query may have a multiple of the heads (dimension -3) of key and value, which are shared.
    Returns: (..., l, d).
    Raises: ShapeError if the shapes do not fit; DTypeError for unequal dtypes; ValueError for both a mask and
        ``is_causal``.
    Source: Vaswani et al. 2017; without storing the scores: Dao et al. 2022.
    """
    require_tensors("scaled_dot_product_attention", query=query, key=key, value=value)
    if attn_mask is not None and is_causal:
        raise ArgumentError("scaled_dot_product_attention: give attn_mask or is_causal=True, not both.")
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"scaled_dot_product_attention: dropout_p must be between 0 and 1, got {dropout_p}.")
    if enable_gqa:
        key, value = _shared(query, key), _shared(query, value)
    q, k, v = _same_batch(query, key, value)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    if dropout_p == 0.0:
        return attention_op(q, k, v, attn_mask, causal=bool(is_causal), scale=float(scale))[0]
    return _with_dropout(q, k, v, attn_mask, dropout_p, bool(is_causal), float(scale), generator)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, causal: bool, scale: float,
    generator: Generator | None,
) -> Tensor:  # fmt: skip
    from .dropout import dropout

    given = None if mask is None else mask._data
    spec = attention_op.infer(q._data, k._data, v._data, given, causal=causal, scale=scale)
    scores = _scores(recorded, q, k, mask, causal, scale)
    weights = softmax_op(scores, dim=scores.ndim - 1)
    if mask is not None:
        weights = pw.where(pw.isnan(weights), 0.0, weights)  # rows that look nowhere
    out = matmul_op(dropout(weights, p, generator=generator), fitted(recorded, v, scores._data.dtype))
    return fitted(recorded, out, spec[0].dtype)


def _shared(query: Tensor, x: Tensor) -> Tensor:
    """Each head of ``x`` repeated for the query heads that share it."""
    if query._data.ndim < 3 or x._data.ndim < 3 or not x.shape[-3] or query.shape[-3] % x.shape[-3]:
        raise ShapeError(
            f"scaled_dot_product_attention: {tuple(query.shape)} can't share the heads (dimension -3) of "
            f"{tuple(x.shape)}."
        )
    times = query.shape[-3] // x.shape[-3]
    if times == 1:
        return x
    lead, (heads, length, width) = tuple(x.shape[:-3]), x.shape[-3:]
    wide = expand(shaped(x, (*lead, heads, 1, length, width)), shape=(*lead, heads, times, length, width))
    return shaped(wide, (*lead, heads * times, length, width))


def _same_batch(*tensors: Tensor) -> list[Tensor]:
    lead = tensors[0]._data.shape[:-2]
    if {x._data.shape[:-2] for x in tensors} == {lead} and lead:
        return [*tensors]
    for x in tensors:
        if x._data.ndim < 2:
            raise ShapeError(
                f"scaled_dot_product_attention: expected at least 2 dimensions (length, width), got {tuple(x.shape)}."
            )
    batch = broadcast_shape("scaled_dot_product_attention", *(x._data.shape[:-2] for x in tensors))
    return [x if x._data.shape[:-2] == batch else expand(x, shape=(*batch, *x._data.shape[-2:])) for x in tensors]
