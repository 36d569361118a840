"""Attention with dropout of the weights as one op, for backends with kernels that keep neither scores nor masks.

The mask is that of ``dropout`` on the weights. What is kept for backward is where in the generator's stream it was
drawn: whoever has the place draws it again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .attention import (
    _backward_infer,
    _below,
    _beside,
    _grouped,
    _infer,
    _mixed,
    _qkv,
    _scores,
    _through_sums,
    _to_inputs,
    _weights,
)
from .checks import np_dtype, swapped
from .dropout import _check_p
from .norm import fitted
from .record import Spec, op
from .samples import Arg, Sample, int_arg

__all__: list[str] = []

_PLACE = Spec((2,), np.dtype(np.int64))


def _place_infer(*, count: int, generator: Any) -> Spec:
    return _PLACE


# an array and not two numbers, so that a program's graph can put others there before each launch
random_place = op(
    "random_place",
    infer=_place_infer,
    doc="Seed and offset of a draw of ``count`` elements, which the generator has made thereby.",
)


def _mask_infer(place: Any, *, shape: tuple[int, ...], p: float) -> Spec:
    _check_p("dropout_mask", p)
    return Spec(shape, np.dtype(np.bool_))


dropout_mask = op(
    "dropout_mask",
    infer=_mask_infer,
    samples=lambda: [
        Sample((int_arg((2,), 7, -3),), {"shape": (3, 5), "p": 0.4}, smooth=False, name="plain"),
        Sample((int_arg((2,), 7, 3),), {"shape": (0, 5), "p": 0.4}, smooth=False, name="empty"),
        Sample((int_arg((2,), 7, 3),), {"shape": (), "p": 1.0}, smooth=False, name="all dropped"),
    ],
    doc="The mask that ``dropout`` drew at a place of a generator's stream: True where an element was kept.",
)


def _count(q: Any, k: Any) -> int:
    return math.prod(q.shape[:-1]) * int(k.shape[-2])


def _forward_infer(
    q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float, p: float, generator: Any
) -> tuple[Spec, Spec, Spec]:
    _check_p("attention_dropout", p)
    return (*_infer(q, k, v, mask, causal=causal, scale=scale), _PLACE)


def _kept(F: Any, x: Any, place: Any, p: float) -> Any:
    """``x``, of the scores' shape, where dropout keeps it, scaled; zero elsewhere."""
    stays = F.dropout_mask(place, shape=tuple(x.shape), p=p)
    return F.masked_scale(x, stays, 1.0 / (1.0 - p) if p < 1 else 0.0)


def _define(
    F: Any, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float, p: float, generator: Any
) -> tuple[Any, Any, Any]:
    scores = _scores(F, q, k, mask, causal, scale)
    lse = F.logsumexp(scores, dim=(scores.ndim - 1,), keepdim=False)
    place = F.random_place(count=_count(q, k), generator=generator)
    out = _mixed(F, _kept(F, _weights(F, scores, lse), place, p), v)
    return fitted(F, out, np_dtype(q)), lse, place


def _rule(
    F: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, *, out: Any, lse: Any, place: Any, needs: Any, causal: bool,
    scale: float, p: float, generator: Any,
) -> tuple[Any, ...]:  # fmt: skip
    to_out, to_lse, _ = g
    grads: tuple[Any, ...] = (None, None, None, None)
    if to_out is not None:
        grads = F.attention_dropout_backward(
            to_out, q, k, v, mask, out, lse, place, causal=causal, scale=scale, p=p, needs=needs
        )
    return _through_sums(F, grads, to_lse, q, k, mask, lse, causal, scale, needs)


attention_dropout = op(
    "attention_dropout",
    infer=_forward_infer,
    define=_define,
    rule=_rule,
    keeps=("q", "k", "v", "mask", "out", "lse", "place"),
    outputs=("out", "lse", "place"),
    nondiff=("place",),
    doc="``attention`` with ``dropout`` of the weights, and the place in the generator's stream of the mask.",
)


def _slopes_infer(
    g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, place: Any, *, causal: bool, scale: float, p: float,
    needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    return _backward_infer(g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)


def _slopes_define(
    F: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, place: Any, *, causal: bool, scale: float,
    p: float, needs: tuple[bool, ...],
) -> tuple[Any, ...]:  # fmt: skip
    weights = _weights(F, _scores(F, q, k, mask, causal, scale), lse)
    kept = np_dtype(weights)
    g, values = fitted(F, g, kept), fitted(F, v, kept)
    to_v = None
    if needs[2]:
        mixed = swapped(F, _below(F, _kept(F, weights, place, p), v))
        to_v = fitted(F, F.matmul(mixed, _below(F, g, v)), np_dtype(v))
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, to_v, None
    along = F.sum(F.mul(g, fitted(F, out, kept)), dim=(g.ndim - 1,), keepdim=True)
    products = _beside(F, F.matmul(_below(F, g, v), swapped(F, values)), g)
    slope = F.mul(weights, F.sub(_kept(F, products, place, p), along))
    to_q, to_k, _, to_mask = _to_inputs(F, slope, q, k, mask, scale, needs)
    return to_q, to_k, to_v, to_mask


def _slopes_samples() -> list[Sample]:
    how = {"causal": False, "scale": 0.5, "p": 0.3, "needs": (True, True, True, False)}
    place, lse = int_arg((2,), 5, 11), Arg((2, 3), 2.0, 3.0, kind="s")
    inputs = (Arg((2, 3, 3)), *_qkv((2,), 3, 5))
    rows, sums = Arg((2, 4, 3, 3)), Arg((2, 4, 3), 2.0, 3.0, kind="s")
    return [
        Sample((*inputs, None, Arg((2, 3, 3)), lse, place), how, name="plain"),
        Sample((*inputs, None, Arg((2, 3, 3)), lse, place), how | {"p": 1.0}, name="all dropped"),
        Sample(
            (*inputs, Arg((2, 1, 5)), Arg((2, 3, 3)), lse, place), how | {"needs": (True, False, False, True)},
            name="of the mask",
        ),
        Sample((rows, *_grouped(), None, rows, sums, place), how | {"causal": True}, name="shared heads"),
    ]  # fmt: skip


attention_dropout_backward = op(
    "attention_dropout_backward",
    infer=_slopes_infer,
    define=_slopes_define,
    outputs=("gq", "gk", "gv", "gmask"),
    samples=_slopes_samples,
    doc="The gradients of ``attention_dropout``'s inputs that are needed.",
)
