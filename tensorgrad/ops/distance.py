"""Similarities and distances of vectors, and the losses made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import legacy_reduction, number, real, require_float, require_tensors
from .loss import reduce_losses
from .normalize import vector_norm
from .precision import in_float32
from .shape_core import expand, one_dim
from .vector_norm import order_of

__all__ = ["cosine_similarity", "pairwise_distance", "pdist"]


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 . x2 / (max(|x1|, eps) * max(|x2|, eps))`` along ``dim``; the inputs broadcast."""
    require_tensors("cosine_similarity", x1=x1, x2=x2)
    eps = number("cosine_similarity", "eps", eps)
    if not eps >= 0:
        raise ArgumentError(f"cosine_similarity: eps must be non-negative, got: {eps}")
    from .elementwise import broadcast_shape

    shape = broadcast_shape("cosine_similarity", x1._data.shape, x2._data.shape)
    axis = one_dim("cosine_similarity", dim, len(shape))
    a: Any = expand(x1, shape=shape)
    b: Any = expand(x2, shape=shape)
    # each by its own length first: the products would be infinite where the lengths are not
    directions = [pw.div(x, pw.clamp_min(vector_norm(x, 2.0, axis, True), eps)) for x in (a, b)]
    return pw.mul(*directions).sum(axis)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dimension."""
    require_tensors("pairwise_distance", x1=x1, x2=x2)
    return vector_norm(pw.add(pw.sub(x1, x2), eps), p, -1, keepdim)


_FEW_ROWS = 512  # of which places are kept: a megabyte


@lru_cache(maxsize=8)
def _above_diagonal(n: int) -> Any:
    """The places above the diagonal of an (n, n) array that is seen as a vector."""
    return np.flatnonzero(~np.tri(n, dtype=bool))


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows: (n, m) gives the n (n - 1) / 2 above the diagonal, row by row.

    Raises: ShapeError unless there are 2 dimensions; ArgumentError for a negative ``p``; DTypeError for integers.
    """
    from .create import from_numpy

    require_tensors("pdist", input=input)
    require_float("pdist", input._data)
    if input._data.ndim != 2:
        raise ShapeError(f"pdist: expected 2 dimensions (n, m), got shape {tuple(input.shape)}.")
    p = number("pdist", "p", p)
    if not p >= 0:
        raise ArgumentError(f"pdist: p must not be negative, got {p}.")
    n = input.shape[0]
    if input.device.type == "cpu" and input.dtype.name in ("float32", "float64"):
        from ..linalg.distances import cdist_op

        # of all pairs, whose distances cost less than copies of their rows
        every = cdist_op(input, input, p=order_of(p, input._data.dtype), product=False)
        above = _above_diagonal(n) if n <= _FEW_ROWS else _above_diagonal.__wrapped__(n)
        return every.reshape(-1).gather(0, from_numpy(above))
    first, second = (from_numpy(at).to(input.device) for at in np.triu_indices(n, 1))
    return vector_norm(pw.sub(input[first], input[second]), float(p), -1, False)


@in_float32
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``1 - cos(input1, input2)`` where the target is 1, ``max(0, cos - margin)`` where it is -1.

    Args:
        input1, input2: (n, d) or (d,).
        target: (n,) or ().
    """
    require_tensors("cosine_embedding_loss", input1=input1, input2=input2, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if target._data.ndim + 1 != input1._data.ndim or not input1._data.ndim == input2._data.ndim <= 2:
        raise ShapeError(
            f"cosine_embedding_loss: inputs (n, d) need targets (n,), inputs (d,) a 0-d target; got "
            f"{tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}."
        )
    margin = real("cosine_embedding_loss", "margin", margin)
    a, b = input1, input2
    tiny = 1e-12  # added to the squared lengths, not a floor under the lengths: as PyTorch's
    dots = pw.mul(a, b).sum(-1)
    squares = pw.mul(pw.add(pw.square(a).sum(-1), tiny), pw.add(pw.square(b).sum(-1), tiny))
    cosine = pw.div(dots, pw.sqrt(squares))
    near = pw.where(pw.eq(target, 1), pw.sub(1.0, cosine), 0.0)
    far = pw.where(pw.eq(target, -1), pw.clamp_min(pw.sub(cosine, margin), 0), 0.0)
    return reduce_losses("cosine_embedding_loss", pw.add(near, far), reduction)


@in_float32
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` with p-norm distances.

    Args:
        swap: measure the negative from the positive where that is nearer. Source: Balntas et al. 2016.
    """
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=lambda a, b: pairwise_distance(a, b, p, eps), margin=margin,
        swap=swap, reduction=legacy_reduction(reduction, size_average, reduce),
    )  # fmt: skip


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``triplet_margin_loss`` with a distance of your own."""
    require_tensors("triplet_margin_loss", anchor=anchor, positive=positive, negative=negative)
    margin = number("triplet_margin_loss", "margin", margin)
    if distance_function is not None and not callable(distance_function):
        raise TypeError(f"triplet_margin_loss: distance_function must be callable, got {distance_function!r}.")
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be positive, got {margin}.")
    if not anchor._data.ndim == positive._data.ndim == negative._data.ndim:
        raise ShapeError(
            f"triplet_margin_loss: expected as many dimensions everywhere, got anchor {tuple(anchor.shape)}, positive "
            f"{tuple(positive.shape)} and negative {tuple(negative.shape)}."
        )
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = pw.minimum(far, distance(positive, negative))
    return reduce_losses("triplet_margin_loss", pw.clamp_min(pw.add(pw.sub(near, far), margin), 0), reduction)
