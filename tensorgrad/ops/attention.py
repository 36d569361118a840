"""Scaled dot-product attention and its fused backward."""

from __future__ import annotations

import math
from typing import Any

from ..dispatch import local, recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..random import Generator, chosen
from ..tensor import Tensor
from . import pointwise as pw
from .checks import (
    np_dtype,
    number,
    require_float,
    require_optional,
    require_same_dtype,
    require_tensors,
    reshaped,
    statistic_dtype,
    swapped,
)
from .elementwise import broadcast_shape
from .norm import fitted, plus
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import expand
from .softmax import softmax_op


def _infer(q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Spec, Spec]:
    require_float("attention", q)
    require_same_dtype("attention", q, key=k, value=v)
    if min(q.ndim, k.ndim, v.ndim) < 2 or k.shape[:-2] != v.shape[:-2] or not _shares(q.shape, k.shape):
        raise ShapeError(
            f"attention: query {tuple(q.shape)}, key {tuple(k.shape)} and value {tuple(v.shape)} need the same batch "
            "dimensions before (length, width); the query may have a multiple of the others' heads (dimension -3)."
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


def _shares(q: tuple[int, ...], k: tuple[int, ...]) -> bool:
    """Whether each head of keys has a whole number of query heads."""
    if q[:-2] == k[:-2]:
        return True
    return len(q) == len(k) > 2 and q[:-3] == k[:-3] and 0 < k[-3] < q[-3] and q[-3] % k[-3] == 0


def _below(F: Any, x: Any, k: Any) -> Any:
    """``x`` (..., heads, n, w) of queries, the rows of all heads that share one of ``k`` below each other."""
    if x.shape[:-2] == k.shape[:-2]:
        return x
    return reshaped(F, x, (*k.shape[:-2], x.shape[-3] * x.shape[-2] // k.shape[-3], x.shape[-1]))


def _beside(F: Any, x: Any, q: Any) -> Any:
    """What ``_below`` put below each other as the heads of ``q`` again."""
    return x if x.shape[:-2] == q.shape[:-2] else reshaped(F, x, (*q.shape[:-1], x.shape[-1]))


def _scores(F: Any, q: Any, k: Any, mask: Any, causal: bool, scale: float) -> Any:
    kept = statistic_dtype(np_dtype(q))
    products = F.matmul(_below(F, fitted(F, q, kept), k), swapped(F, fitted(F, k, kept)))
    scores = F.mul(_beside(F, products, q), scale)
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
    out = _mixed(F, _weights(F, scores, lse), v)
    return fitted(F, out, np_dtype(q)), lse


def _mixed(F: Any, weights: Any, v: Any) -> Any:
    """The values, each query's by its weights."""
    return _beside(F, F.matmul(_below(F, weights, v), fitted(F, v, np_dtype(weights))), weights)


def _rule(
    F: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, *, out: Any, lse: Any, needs: Any, causal: bool, scale: float
) -> tuple[Any, ...]:
    to_out, to_lse = g
    grads: tuple[Any, ...] = (None, None, None, None)
    if to_out is not None:
        grads = F.attention_backward(to_out, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)
    return _through_sums(F, grads, to_lse, q, k, mask, lse, causal, scale, needs)


def _through_sums(
    F: Any, grads: tuple[Any, ...], to_lse: Any, q: Any, k: Any, mask: Any, lse: Any, causal: bool, scale: float,
    needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    """``grads`` and what reaches the inputs through the logsumexps."""
    if to_lse is None or not (needs[0] or needs[1] or needs[3]):
        return grads
    # d lse / d scores is the softmax
    weights = _weights(F, _scores(F, q, k, mask, causal, scale), lse)
    slope = F.mul(weights, reshaped(F, to_lse, (*lse.shape, 1)))
    extra = _to_inputs(F, slope, q, k, mask, scale, needs)
    return tuple(plus(F, a, b) for a, b in zip(grads, extra, strict=True))


def _to_inputs(F: Any, slope: Any, q: Any, k: Any, mask: Any, scale: float, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The gradients in query, key and mask when ``slope`` reaches the scores."""
    dtype, kept = np_dtype(q), np_dtype(slope)
    to_q = to_k = to_mask = None
    if needs[3]:
        to_mask = fitted(F, F.sum_to(slope, shape=tuple(mask.shape)), np_dtype(mask))
    slope = F.mul(slope, scale)
    if needs[0]:
        to_q = fitted(F, _mixed(F, slope, k), dtype)
    if needs[1]:
        to_k = fitted(F, F.matmul(swapped(F, _below(F, slope, k)), _below(F, fitted(F, q, kept), k)), dtype)
    return to_q, to_k, None, to_mask


def _how(**changed: Any) -> dict[str, Any]:
    return {"causal": False, "scale": 0.5} | changed


def _qkv(batch: tuple[int, ...], queries: int, keys: int, layout: str = "C") -> tuple[Arg, ...]:
    return (
        Arg((*batch, queries, 4), layout=layout), Arg((*batch, keys, 4), layout=layout), Arg((*batch, keys, 3)),
    )  # fmt: skip


def _grouped() -> tuple[Arg, ...]:
    """Four heads of queries, two of keys and values."""
    return Arg((2, 4, 3, 4), layout="T"), Arg((2, 2, 5, 4)), Arg((2, 2, 5, 3))


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
        Sample((*_grouped(), None), _how(causal=True), name="shared heads"),
        Sample((*_grouped(), Arg((4, 1, 5))), _how(), name="shared heads, a mask for each"),
    ]


attention_op = op(
    "attention",
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("q", "k", "v", "mask", "out", "lse"),
    outputs=("out", "lse"),
    samples=_samples,
    doc="``softmax(q k^T * scale + mask) v`` and the logsumexp of each query's scores. ``q`` may have a multiple of "
    "the heads (dimension -3) of ``k`` and ``v``, which neighbours share.",
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
    to_v = None
    if needs[2]:
        to_v = fitted(F, F.matmul(swapped(F, _below(F, weights, v)), _below(F, g, v)), np_dtype(v))
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, to_v, None
    along = F.sum(F.mul(g, fitted(F, out, kept)), dim=(g.ndim - 1,), keepdim=True)
    products = _beside(F, F.matmul(_below(F, g, v), swapped(F, values)), g)
    slope = F.mul(weights, F.sub(products, along))
    to_q, to_k, _, to_mask = _to_inputs(F, slope, q, k, mask, scale, needs)
    return to_q, to_k, to_v, to_mask


def _backward_samples() -> list[Sample]:
    lse = Arg((2, 3), 2.0, 3.0, kind="s")
    inputs = (Arg((2, 3, 3)), *_qkv((2,), 3, 5), None, Arg((2, 3, 3)), lse)
    rows, sums = Arg((2, 4, 3, 3)), Arg((2, 4, 3), 2.0, 3.0, kind="s")
    return [
        Sample(inputs, _how(needs=(True, True, True, False)), name="plain"),
        Sample((rows, *_grouped(), None, rows, sums), _how(needs=(True, True, True, False)), name="shared heads"),
    ]


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
        enable_gqa: query may have a multiple of the heads (dimension -3) of key and value, which neighbours share
            without copies.
    Returns: (..., l, d).
    Raises: ShapeError if the shapes do not fit; DTypeError for unequal dtypes; ValueError for both a mask and
        ``is_causal``.
    Source: Vaswani et al. 2017; without storing the scores: Dao et al. 2022.
    """
    require_tensors("scaled_dot_product_attention", query=query, key=key, value=value)
    if attn_mask is not None and is_causal:
        raise ArgumentError("scaled_dot_product_attention: give attn_mask or is_causal=True, not both.")
    require_optional("scaled_dot_product_attention", attn_mask=attn_mask)
    dropout_p = number("scaled_dot_product_attention", "dropout_p", dropout_p)
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"scaled_dot_product_attention: dropout_p must be between 0 and 1, got {dropout_p}.")
    q, k, v = _same_batch(query, key, value, own=3 if enable_gqa else 2)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    scale = number("scaled_dot_product_attention", "scale", scale)
    if dropout_p == 0.0:
        return attention_op(q, k, v, attn_mask, causal=bool(is_causal), scale=float(scale))[0]
    # within a ``vmap`` draws are made for each sample or shared: what it is told of is dropout itself
    if not local.frames and local.doors[type(q._data)].backend.attends_with_dropout(q._data, k._data, v._data):
        from .attention_dropout import attention_dropout

        how = {"causal": bool(is_causal), "scale": float(scale), "p": float(dropout_p)}
        out: Tensor = attention_dropout(q, k, v, attn_mask, **how, generator=chosen(generator))[0]
        return out
    return _with_dropout(q, k, v, attn_mask, dropout_p, bool(is_causal), float(scale), generator)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, causal: bool, scale: float,
    generator: Generator | None,
) -> Tensor:  # fmt: skip
    from .dropout import dropout

    given = None if mask is None else mask._data
    spec = attention_op.infer(q._data, k._data, v._data, given, causal=causal, scale=scale)
    scores = _scores(recorded, q, k, mask, causal, scale)
    last = scores.ndim - 1
    if mask is None or not scores._data.size:
        weights = softmax_op(scores, dim=last)
    else:  # rows that look nowhere give zeros, those with NaN stay NaN
        nowhere = pw.eq(recorded.amax(scores.detach(), dim=(last,), keepdim=True), -math.inf)
        weights = pw.where(nowhere, 0.0, softmax_op(pw.where(nowhere, 0.0, scores), dim=last))
    return fitted(recorded, _mixed(recorded, dropout(weights, p, generator=generator), v), spec[0].dtype)


def _same_batch(*tensors: Tensor, own: int) -> list[Tensor]:
    """The tensors with their dimensions before the last ``own`` broadcast to each other."""
    lead = tensors[0]._data.shape[:-own]
    if all(x._data.ndim > own and x._data.shape[:-own] == lead for x in tensors):
        return [*tensors]
    for x in tensors:
        if x._data.ndim < own:
            names = "(heads, length, width)" if own == 3 else "(length, width)"
            raise ShapeError(
                f"scaled_dot_product_attention: expected at least {own} dimensions {names}, got {tuple(x.shape)}."
            )
    batch = broadcast_shape("scaled_dot_product_attention", *(x._data.shape[:-own] for x in tensors))
    return [x if x._data.shape[:-own] == batch else expand(x, shape=(*batch, *x._data.shape[-own:])) for x in tensors]
