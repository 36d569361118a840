"""Losses over classes: cross-entropy (indices or probabilities), negative log-likelihood, multi-class margins."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..dispatch import known, recorded
from ..errors import ArgumentError, DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import (
    check_reduction,
    integer,
    legacy_reduction,
    np_dtype,
    number,
    require_float,
    require_one_dtype,
    require_optional,
    require_same_dtype,
    require_tensors,
    require_vector,
    reshaped,
    shaped,
    statistic_dtype,
    swapped,
)
from .loss import reduce_losses
from .norm import fitted, plus
from .precision import in_float32
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import permute
from .softmax import log_softmax_op

_INT64 = np.dtype(np.int64)


def _infer(
    x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str, label_smoothing: float
) -> tuple[Spec, Spec]:
    if x.dtype.kind != "f":
        require_float("cross_entropy", x)
    if x.ndim not in (2, 3) or tuple(target.shape) != (x.shape[0], *x.shape[2:]):
        raise ShapeError(
            f"cross_entropy: logits of shape {tuple(x.shape)} and targets of {tuple(target.shape)} do not fit; "
            "expected (n, classes) and (n,), or (n, classes, inner) and (n, inner)."
        )
    if target.dtype != _INT64:
        raise DTypeError(f"cross_entropy: targets are class indices in int64, got {target.dtype.name}.")
    if w is not None:
        require_same_dtype("cross_entropy", x, weight=w)
        if w.shape != x.shape[1:2]:
            raise ShapeError(f"cross_entropy: weight has shape {tuple(w.shape)}, expected ({x.shape[1]},).")
    rows = target.shape
    return Spec(rows if reduction == "none" else (), x.dtype), Spec(rows, statistic_dtype(x.dtype))


def _valid(F: Any, target: Any, ignore_index: int, dtype: Any) -> tuple[Any, Any]:
    """(1 where a row counts and 0 elsewhere, its class and 0 elsewhere)."""
    counts = F.ne(target, ignore_index)
    return F.cast(counts, dtype=dtype), F.where(counts, target, 0)


def _weight_of_rows(F: Any, w: Any, index: Any, valid: Any) -> Any:
    return valid if w is None else F.mul(F.index_select(w, index, dim=0), valid)


def _by_row(F: Any, x: Any) -> Any:
    """(n, classes, inner) as (n * inner, classes); (n, inner) and (n,) as (n * inner,)."""
    if x.ndim < 3:
        return reshaped(F, x, (math.prod(x.shape),))
    n, classes, inner = x.shape
    return reshaped(F, swapped(F, x), (n * inner, classes))


def _from_rows(F: Any, x: Any, shape: tuple[int, int, int]) -> Any:
    """(n * inner, classes) as (n, classes, inner)."""
    n, classes, inner = shape
    return F.contiguous(swapped(F, reshaped(F, x, (n, inner, classes))))


def _define(
    F: Any, x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str, label_smoothing: float
) -> tuple[Any, Any]:
    if x.ndim == 3:
        how: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
        loss, lse = _define(F, _by_row(F, x), _by_row(F, target), w, **how)
        shape = tuple(target.shape)
        return reshaped(F, loss, shape) if reduction == "none" else loss, reshaped(F, lse, shape)
    n, classes = x.shape
    dtype = np_dtype(x)
    x = fitted(F, x, statistic_dtype(dtype))
    lse = F.logsumexp(x, dim=(1,), keepdim=False)
    valid, index = _valid(F, target, ignore_index, np_dtype(x))
    chosen = reshaped(F, F.gather(x, reshaped(F, index, (n, 1)), dim=1), (n,))
    row_weight = _weight_of_rows(F, w, index, valid)
    losses = F.mul(F.sub(lse, chosen), row_weight)
    if label_smoothing:
        far = F.sub(reshaped(F, lse, (n, 1)), x)
        spread = F.mul(F.sum(far if w is None else F.mul(far, w), dim=(1,), keepdim=False), valid)
        losses = F.add(F.mul(losses, 1 - label_smoothing), F.mul(spread, label_smoothing / classes))
    if reduction == "none":
        return fitted(F, losses, dtype), lse
    total = F.sum(losses, dim=(0,), keepdim=False)
    if reduction == "mean":
        total = F.div(total, F.sum(row_weight, dim=(0,), keepdim=False))
    return fitted(F, total, dtype), lse


def _rule(F: Any, g: Any, x: Any, target: Any, w: Any, *, lse: Any, needs: Any, **how: Any) -> tuple[Any, ...]:
    to_loss, to_lse = g
    to_x = None
    if needs[2]:
        raise DTypeError("cross_entropy: the class weights can't require grad; detach() them.")
    if to_loss is not None:
        to_x = F.cross_entropy_backward(to_loss, x, target, w, lse, **how)
    if to_lse is not None:
        rows = (x.shape[0], 1, *x.shape[2:])
        share = F.mul(F.exp(F.sub(x, reshaped(F, lse, rows))), reshaped(F, to_lse, rows))
        to_x = plus(F, to_x, fitted(F, share, np_dtype(x)))
    return to_x, None, None


def _i(*values: int) -> Arg:
    return Arg((len(values),), kind="i", values=values)


_MAP, _PLACES = Arg((2, 4, 3)), Arg((2, 3), kind="i", values=(1, 0, 3, -100, 2, 2))


def _how(**changed: Any) -> dict[str, Any]:
    return {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0} | changed


def _samples() -> list[Sample]:
    return [
        Sample((Arg((3, 4)), _i(1, 0, 3), None), _how(), name="mean"),
        Sample((Arg((3, 4), -60.0, 60.0), _i(1, 0, 3), None), _how(reduction="sum"), name="wide range"),
        Sample((Arg((3, 4), layout="T"), _i(1, -100, 3), None), _how(reduction="none"), name="ignored"),
        Sample((Arg((3, 4)), _i(1, 2, 3), None), _how(ignore_index=2, label_smoothing=0.1), name="smoothed"),
        Sample((Arg((3, 4)), _i(1, 0, 3), Arg((4,), 0.5, 2.0)), _how(label_smoothing=0.2), False, "weighted"),
        Sample((_MAP, _PLACES, None), _how(), name="map"),
        Sample((_MAP, _PLACES, Arg((4,), 0.5, 2.0)), _how(reduction="none", label_smoothing=0.2), False, "places"),
    ]


cross_entropy_op = op(
    "cross_entropy",
    raises=True,
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("x", "target", "w", "lse"),
    outputs=("loss", "lse"),
    samples=_samples,
    doc="``logsumexp(x) - x[target]`` of each row or place, weighted and reduced; and the logsumexp of each.",
)


def _backward_infer(
    g: Any, x: Any, target: Any, w: Any, lse: Any, *, ignore_index: int, reduction: str, label_smoothing: float
) -> Spec:
    return Spec(tuple(x.shape), x.dtype)


def _backward_define(
    F: Any, g: Any, x: Any, target: Any, w: Any, lse: Any, *, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    if x.ndim == 3:
        how: Any = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
        g = _by_row(F, g) if reduction == "none" else g
        out = _backward_define(F, g, _by_row(F, x), _by_row(F, target), w, _by_row(F, lse), **how)
        return _from_rows(F, out, x.shape)
    n, classes = x.shape
    dtype = np_dtype(x)
    x, g = fitted(F, x, np_dtype(lse)), fitted(F, g, np_dtype(lse))
    valid, index = _valid(F, target, ignore_index, np_dtype(lse))
    row_weight = _weight_of_rows(F, w, index, valid)
    if reduction == "mean":
        g = F.where(F.eq(valid, 0), 0.0, F.div(g, F.sum(row_weight, dim=(0,), keepdim=False)))  # of no rows 0 / 0
    hard = F.mul(F.mul(row_weight, g), 1 - label_smoothing)
    column = reshaped(F, hard, (n, 1))
    share = F.exp(F.sub(x, reshaped(F, lse, (n, 1))))
    if label_smoothing:
        soft = reshaped(F, F.mul(F.mul(valid, g), label_smoothing / classes), (n, 1))
        total = float(classes) if w is None else F.sum(w, dim=(0,), keepdim=False)
        out = F.mul(share, F.add(column, F.mul(soft, total)))
        out = F.sub(out, soft if w is None else F.mul(soft, w))
    else:
        out = F.mul(share, column)
    at = F.scatter_add(F.zeros_as(x, shape=(n, classes)), reshaped(F, index, (n, 1)), column, dim=1)
    return fitted(F, F.sub(out, at), dtype)


def _backward_samples() -> list[Sample]:
    # log-probabilities, so that zeros are their logsumexp: backends may count on that, so lse can't vary by itself
    rows = (0.1, 0.2, 0.3, 0.4, 0.7, 0.1, 0.1, 0.1, 0.25, 0.25, 0.4, 0.1)
    x = Arg((3, 4), values=tuple(math.log(p) for p in rows))
    turned = Arg((1, 4, 3), values=tuple(x.values[4 * r + c] for c in range(4) for r in range(3)))
    lse = Arg((3,), values=(0.0, 0.0, 0.0), kind="s")
    soft = _how(reduction="none", label_smoothing=0.1)
    return [
        Sample((Arg(()), x, _i(1, 0, 3), None, lse), _how(), False, "mean"),
        Sample((Arg((3,)), x, _i(1, -100, 3), None, lse), soft, False, "none"),
        Sample((Arg((3,)), x, _i(1, -100, 3), Arg((4,), 0.5, 2.0), lse), soft, False, "weighted"),
        Sample(
            (Arg((1, 3)), turned, Arg((1, 3), kind="i", values=(1, -100, 3)), None, replace(lse, shape=(1, 3))),
            soft,
            False,
            "places",
        ),
    ]


cross_entropy_backward = op(
    "cross_entropy_backward",
    raises=True,
    infer=_backward_infer,
    define=_backward_define,
    samples=_backward_samples,
    doc="The gradient of ``cross_entropy`` in the logits.",
)


# --- of log-probabilities


def _nll_infer(x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str) -> Spec:
    if x.dtype.kind != "f":
        require_float("nll_loss", x)
    if x.ndim not in (2, 3) or tuple(target.shape) != (x.shape[0], *x.shape[2:]):
        raise ShapeError(
            f"nll_loss: log-probabilities of shape {tuple(x.shape)} and targets of {tuple(target.shape)} do not fit; "
            "expected (n, classes) and (n,), or (n, classes, inner) and (n, inner)."
        )
    if target.dtype != _INT64:
        raise DTypeError(f"nll_loss: targets are class indices in int64, got {target.dtype.name}.")
    if w is not None:
        require_same_dtype("nll_loss", x, weight=w)
        if w.shape != x.shape[1:2]:
            raise ShapeError(f"nll_loss: weight has shape {tuple(w.shape)}, expected ({x.shape[1]},).")
    return Spec(target.shape if reduction == "none" else (), x.dtype)


def _nll_define(F: Any, x: Any, target: Any, w: Any, *, ignore_index: int, reduction: str) -> Any:
    if x.ndim == 3:
        how: Any = {"ignore_index": ignore_index, "reduction": reduction}
        loss = _nll_define(F, _by_row(F, x), _by_row(F, target), w, **how)
        return reshaped(F, loss, tuple(target.shape)) if reduction == "none" else loss
    rows, dtype = (x.shape[0],), np_dtype(x)
    kept = statistic_dtype(dtype)
    valid, index = _valid(F, target, ignore_index, kept)
    chosen = fitted(F, reshaped(F, F.gather(x, reshaped(F, index, (*rows, 1)), dim=1), rows), kept)
    row_weight = _weight_of_rows(F, None if w is None else fitted(F, w, kept), index, valid)
    # chosen, not multiplied: an ignored row may hold an infinity
    losses = F.where(F.ne(target, ignore_index), F.neg(F.mul(chosen, row_weight)), 0.0)
    if reduction == "none":
        return fitted(F, losses, dtype)
    total = F.sum(losses, dim=(0,), keepdim=False)
    if reduction == "mean":
        total = F.div(total, F.sum(row_weight, dim=(0,), keepdim=False))
    return fitted(F, total, dtype)


def _nll_rule(F: Any, g: Any, x: Any, target: Any, w: Any, *, needs: Any, **how: Any) -> tuple[Any, ...]:
    if needs[2]:
        raise DTypeError("nll_loss: the class weights can't require grad; detach() them.")
    return known(F).nll_loss_backward(g, target, w, classes=x.shape[1], **how), None, None


def _nll_samples() -> list[Sample]:
    def how(**changed: Any) -> dict[str, Any]:
        return {"ignore_index": -100, "reduction": "mean"} | changed

    return [
        Sample((Arg((3, 4)), _i(1, 0, 3), None), how(), name="mean"),
        Sample((Arg((3, 4), layout="T"), _i(1, -100, 3), None), how(reduction="none"), name="ignored"),
        Sample((Arg((3, 4)), _i(1, 2, 3), None), how(ignore_index=2, reduction="sum"), name="sum"),
        Sample((Arg((3, 4)), _i(1, 0, 3), Arg((4,), 0.5, 2.0)), how(), False, "weighted"),
        Sample((_MAP, _PLACES, None), how(), name="map"),
        Sample((_MAP, _PLACES, None), how(reduction="none"), name="places"),
    ]


nll_loss_op = op(
    "nll_loss",
    raises=True,
    infer=_nll_infer,
    define=_nll_define,
    rule=_nll_rule,
    keeps=("target", "w"),
    samples=_nll_samples,
    doc="``-x[target]`` of each row or place, weighted and reduced.",
)


def _nll_backward_infer(g: Any, target: Any, w: Any, *, classes: int, ignore_index: int, reduction: str) -> Spec:
    return Spec((target.shape[0], classes, *target.shape[1:]), g.dtype)


def _nll_backward_define(
    F: Any, g: Any, target: Any, w: Any, *, classes: int, ignore_index: int, reduction: str
) -> Any:
    if target.ndim == 2:
        how: Any = {"classes": classes, "ignore_index": ignore_index, "reduction": reduction}
        g = _by_row(F, g) if reduction == "none" else g
        out = _nll_backward_define(F, g, _by_row(F, target), w, **how)
        return _from_rows(F, out, (target.shape[0], classes, target.shape[1]))
    rows, dtype = target.shape[0], np_dtype(g)
    kept = statistic_dtype(dtype)
    g = fitted(F, g, kept)
    valid, index = _valid(F, target, ignore_index, kept)
    row_weight = _weight_of_rows(F, None if w is None else fitted(F, w, kept), index, valid)
    if reduction == "mean":
        g = F.div(g, F.sum(row_weight, dim=(0,), keepdim=False))
    put = reshaped(F, F.where(F.ne(target, ignore_index), F.neg(F.mul(row_weight, g)), 0.0), (rows, 1))
    zeros = F.zeros_as(put, shape=(rows, classes))
    return fitted(F, F.scatter_add(zeros, reshaped(F, index, (rows, 1)), put, dim=1), dtype)


nll_loss_backward = op(
    "nll_loss_backward",
    raises=True,
    infer=_nll_backward_infer,
    define=_nll_backward_define,
    samples=lambda: [
        Sample((g, target, w), {"classes": 4, "ignore_index": -100, "reduction": reduction}, w is None, name)
        for g, target, w, reduction, name in (
            (Arg(()), _i(1, -100, 3), None, "mean", "mean"),
            (Arg((3,)), _i(1, -100, 3), None, "none", "none"),
            (Arg(()), _i(1, -100, 3), Arg((4,), 0.5, 2.0), "sum", "sum"),
            (Arg(()), _PLACES, None, "mean", "map"),
            (Arg((2, 3)), _PLACES, None, "none", "places"),
        )
    ],
    doc="The gradient of ``nll_loss`` in the log-probabilities: the gradient of each loss at the place of its class.",
)


# --- the public functions


def _as_rows(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """((rows, classes), (rows,), the shape of unreduced losses) of inputs (c,), (n, c) or (n, c, d1, ...)."""
    shape = input._data.shape
    if len(shape) == 2 and target._data.shape == shape[:1]:
        return input, target, shape[:1]
    if not shape:
        raise ShapeError(f"{name}: the input needs a dimension of classes, got a 0-d tensor.")
    expected = shape[:0] if len(shape) == 1 else (shape[0], *shape[2:])
    if tuple(target.shape) != expected and not (len(shape) == 1 and target.shape == (1,)):
        raise ShapeError(
            f"{name}: an input of shape {shape} needs class indices of shape {expected}, got {tuple(target.shape)}."
        )
    if len(shape) == 1:
        return shaped(input, (1, shape[0])), shaped(target, (1,)), ()
    moved = permute(input, dims=(0, *range(2, len(shape)), 1))
    count = target._data.size
    return shaped(moved, (count, shape[1])), shaped(target, (count,)), expected


def _as_map(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """What the ops take: the same, but (n, classes, inner) and (n, inner) where classes lie apart in memory."""
    shape = input._data.shape
    if len(shape) > 2 and tuple(target.shape) == (shape[0], *shape[2:]) and input._data.flags.c_contiguous:
        inner = math.prod(shape[2:])
        return shaped(input, (*shape[:2], inner)), shaped(target, (shape[0], inner)), target._data.shape
    return _as_rows(name, input, target)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """``-log softmax(input)`` of the target's class.

    Args:
        input: logits (c,), (n, c) or (n, c, d1, ...).
        target: class indices int64 (), (n,) or (n, d1, ...); or probabilities in the shape and kind of the input.
        weight: (c,) factors of the classes; the mean is divided by the sum of the targets' weights.
        ignore_index: targets of this value count neither in the sum nor in the mean's divisor.
        reduction: "mean", "sum" or "none".
        label_smoothing: the part of each target that is spread evenly over all classes.
    Raises: ShapeError, DTypeError; IndexOutOfRange for a class that is not there; ValueError for another reduction or
        for smoothing outside of [0, 1].
    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.nn import functional as F
        >>> round(F.cross_entropy(tg.tensor([[0.0, 0.0]]), tg.tensor([1])).item(), 4)
        0.6931
    """
    require_tensors("cross_entropy", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    check_reduction("cross_entropy", reduction)
    ignore_index = integer("cross_entropy", "ignore_index", ignore_index)
    label_smoothing = number("cross_entropy", "label_smoothing", label_smoothing)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing must be between 0 and 1, got {label_smoothing}.")
    if target.dtype.category > 1:
        if ignore_index >= 0:
            raise ArgumentError(
                "cross_entropy: ignore_index is not supported for floating point targets, which are probabilities."
            )
        return _soft_targets(input, target, weight, reduction, float(label_smoothing))
    target = _wide_classes("cross_entropy", target)
    x, classes, shape = _as_map("cross_entropy", input, target)
    loss = cross_entropy_op(
        x, classes, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=float(label_smoothing)
    )[0]
    return shaped(loss, shape) if reduction == "none" else loss


def _wide_classes(name: str, target: Tensor) -> Tensor:
    """Classes as int64; bytes may be classes too. Raises DTypeError for anything else."""
    if target._data.dtype == _INT64:
        return target
    if target.dtype.name != "uint8":
        raise DTypeError(f"{name}: class indices must be int64, got {target.dtype}. Use target.long().")
    wide: Tensor = recorded.cast(target, dtype=_INT64)
    return wide


def _soft_targets(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    if tuple(target.shape) != tuple(input.shape):
        raise ShapeError(
            f"cross_entropy: class probabilities of shape {tuple(target.shape)} for an input of {tuple(input.shape)}."
        )
    axis = 0 if input._data.ndim == 1 else 1
    classes = input.shape[axis]
    if smoothing:
        target = pw.add(pw.mul(target, 1 - smoothing), smoothing / max(classes, 1))
    logs = log_softmax_op(input, dim=axis)
    product = pw.mul(logs, target)
    if weight is not None:
        require_vector("cross_entropy", "weight", weight, classes)
        product = pw.mul(product, shaped(weight, (classes, *(1,) * (input._data.ndim - axis - 1))))
    losses: Any = pw.neg(recorded.sum(product, dim=(axis,), keepdim=False))
    if reduction == "none":
        return losses
    total = losses.sum()
    return pw.div(total, float(losses._data.size)) if reduction == "mean" else total


@in_float32
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-input`` at the target's class: the loss of log-probabilities. See ``cross_entropy`` for the arguments."""
    require_tensors("nll_loss", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    check_reduction("nll_loss", reduction)
    require_optional("nll_loss", weight=weight)
    ignored = integer("nll_loss", "ignore_index", ignore_index)
    target = _wide_classes("nll_loss", target)
    x, classes, shape = _as_map("nll_loss", input, target)
    loss = nll_loss_op(x, classes, weight, ignore_index=ignored, reduction=reduction)
    return shaped(loss, shape) if reduction == "none" else loss


def _check_classes(name: str, index: Any, classes: int) -> None:
    if index._data.size and bool(((index < 0) | (index >= classes)).any()):
        raise IndexOutOfRange(f"{name}: a target is out of bounds for {classes} classes (0 to {classes - 1}).")


@in_float32
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``sum over the other classes of max(0, margin - x[target] + x[class]) ** p``, divided by the number of classes.

    Args:
        input: (n, c) or (c,).
        target: int64 (n,) or ().
        p: 1 or 2.
        weight: (c,) factors of the targets' classes.
    """
    require_tensors("multi_margin_loss", input=input, target=target)
    require_optional("multi_margin_loss", weight=weight)
    require_one_dtype("multi_margin_loss", input._data, weight=None if weight is None else weight._data)
    reduction = legacy_reduction(reduction, size_average, reduce)
    check_reduction("multi_margin_loss", reduction)
    if weight is not None and weight._data.ndim != 1:
        raise ValueError(f"multi_margin_loss: weight must be one-dimensional, got shape {tuple(weight.shape)}.")
    if p not in (1, 2):
        raise ArgumentError(f"multi_margin_loss: p must be 1 or 2, got {p}.")
    if target.dtype.name != "int64":
        raise DTypeError(f"multi_margin_loss: class indices must be int64, got {target.dtype}. Use target.long().")
    if input._data.ndim < 2 and target._data.size == 1:  # one sample, and its class with or without a dimension
        shape = tuple(target.shape)
        x, classes = shaped(input, (1, input._data.size)), shaped(target, (1,))
    else:
        x, classes, shape = _as_rows("multi_margin_loss", input, target)
    rows, count = x.shape
    _check_classes("multi_margin_loss", classes, count)
    places = shaped(classes, (rows, 1))
    apart: Any = pw.relu(pw.add(pw.sub(x, recorded.gather(x, places, dim=1)), margin))
    if p == 2:
        apart = pw.square(apart)
    if weight is not None:
        if weight._data.size != count:
            raise ShapeError(f"multi_margin_loss: weight has {weight._data.size} numbers for {count} classes.")
        apart = pw.mul(apart, shaped(recorded.index_select(weight, classes, dim=0), (rows, 1)))
    from .ranges import arange

    others = pw.ne(arange(count, device=x.device), places)
    losses = pw.where(others, apart, 0.0).sum(1) / count
    return shaped(reduce_losses("multi_margin_loss", losses, reduction), shape if reduction == "none" else ())
