"""Losses of samples that belong to several classes at once."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, DimError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import check_reduction, legacy_reduction, require_float, require_tensors
from .loss import reduce_losses
from .precision import in_float32
from .selection import where

__all__: list[str] = []  # users know them as functions of nn.functional


@in_float32
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """By how much classes that are none of a sample's come within 1 of one that is: summed, and divided by c.

    Args:
        input: (n, c) or (c,) scores.
        target: int64 of the same shape: a sample's classes in front, then -1, then anything.
        reduction: "mean", "sum" or "none" over the samples.
    Raises: ShapeError, DTypeError; ArgumentError for a target that is no class.
    """
    require_tensors("multilabel_margin_loss", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    check_reduction("multilabel_margin_loss", reduction)
    require_float("multilabel_margin_loss", input._data)
    if tuple(input.shape) != tuple(target.shape) or input._data.ndim > 2:
        raise ShapeError(
            f"multilabel_margin_loss: expected input and target (n, c) or (c,), got {tuple(input.shape)} and "
            f"{tuple(target.shape)}."
        )
    if target.dtype.name != "int64":
        raise DTypeError(f"multilabel_margin_loss: the target must be int64, got {target.dtype}.")
    classes = int(input.shape[-1]) if input._data.ndim else 1
    if not classes:
        raise ShapeError(f"multilabel_margin_loss: there are no classes in shape {tuple(input.shape)}.")
    single = input._data.ndim < 2
    x: Any = input.reshape(-1, classes)
    labels: Any = target.reshape(-1, classes)
    if labels._data.size and (int(labels.min()) < -1 or int(labels.max()) >= classes):
        raise ArgumentError(f"multilabel_margin_loss: a target is out of range for {classes} classes.")
    named = (labels >= 0).long().cumprod(1) > 0
    place = where(named, labels, 0)
    held = x.detach().long() * 0
    held = held.scatter_add(1, place, named.long()) > 0
    apart = pw.relu(1.0 - (x.gather(1, place).unsqueeze(2) - x.unsqueeze(1)))
    counted = named.unsqueeze(2) & ~held.unsqueeze(1)
    losses = where(counted, apart, 0.0).sum((1, 2)) / classes
    if single and reduction == "none":
        losses = losses.reshape(())
    return reduce_losses("multilabel_margin_loss", losses, reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over the classes of ``-(t log sigmoid(x) + (1 - t) log sigmoid(-x))``.

    Args:
        input, target: (..., c); targets 0 or 1.
        weight: (c,) factors of the classes.
    """
    require_tensors("multilabel_soft_margin_loss", input=input, target=target)
    if not input._data.ndim:
        raise DimError("multilabel_soft_margin_loss: an input of no dimensions has none for classes.")
    reduction = legacy_reduction(reduction, size_average, reduce)
    x: Any = input
    losses = pw.neg(pw.add(pw.mul(target, pw.logsigmoid(x)), pw.mul(pw.sub(1, target), pw.logsigmoid(pw.neg(x)))))
    if weight is not None:
        losses = pw.mul(losses, weight)
    return reduce_losses(
        "multilabel_soft_margin_loss", losses.sum(input._data.ndim - 1) / int(input.shape[-1]), reduction
    )
