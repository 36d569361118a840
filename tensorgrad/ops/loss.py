"""Losses that compare element by element. Cross-entropy and the losses over classes are in ``cross_entropy``."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..expr import functions as fn
from ..tensor import Tensor
from . import pointwise as pw
from .checks import (
    check_reduction,
    everywhere,
    flag,
    legacy_reduction,
    number,
    real,
    require_float,
    require_optional,
    require_tensors,
    require_within,
    shaped,
)
from .elementwise import Elementwise, broadcast_shape, elementwise
from .formula_loss import ReducedFormula, reduced
from .precision import in_float32
from .samples import Arg, Sample, binary, unary
from .shape_core import expand


def _pairs(*extra: Any, low: float = -2.0, high: float = 2.0, target: tuple[float, float] = (-2.0, 2.0)) -> Any:
    """Samples of a loss of an input and a target."""

    def make() -> list[Sample]:
        shapes = [("matrix", (3, 4), "C"), ("scalar", (), "C"), ("transposed", (3, 5), "T")]
        return [
            Sample((Arg(shape, low, high, layout=layout), Arg(shape, *target), *extra), {"reduction": how}, name=name)
            for (name, shape, layout), how in zip(shapes, ("mean", "mean", "sum"), strict=True)
        ]

    return make


def _pointwise(*extra: Any, input: tuple[float, float] = (-2.0, 2.0), target: tuple[float, float] = (-2.0, 2.0)) -> Any:
    """Samples of a loss of elements, with its further inputs."""

    def make() -> list[Sample]:
        return [
            Sample((Arg((3, 4), *input, layout=layout), Arg((3, 4), *target), *extra), name=name)
            for name, layout in (("matrix", "C"), ("transposed", "T"), ("strided", "step"))
        ]

    return make


def _loss(formula: Elementwise, name: str, samples: Any = None, **reads: tuple[str, ...]) -> ReducedFormula:
    return ReducedFormula(name, formula, samples, reads)


def _checked(name: str, input: Any, target: Any) -> None:
    """Raises TypeError unless both are Tensors; warns where their shapes differ and will broadcast."""
    if not (isinstance(input, Tensor) and isinstance(target, Tensor)):
        require_tensors(name, input=input, target=target)
    if input._data.shape != target._data.shape:
        warnings.warn(
            f"{name}: using a target size {tuple(target.shape)} that is different to the input size "
            f"{tuple(input.shape)}. This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=3,
        )


# --- distances

squared_difference = elementwise(
    lambda input, target: (input - target) * (input - target), name="squared_difference", samples=binary()
)
absolute_difference = elementwise(
    lambda input, target: fn.abs(input - target),
    name="absolute_difference",
    vjp=lambda g, y, a, b: (g * fn.sign(a - b), -(g * fn.sign(a - b))),
    samples=binary(input=(2.5, 4.0)),
)


def _near_square(d: Any, end: Any) -> Any:
    """``d * d / 2`` up to ``end``, its tangent beyond: without a choice, which would compute both."""
    near = fn.minimum(d, end)
    return near * (d - 0.5 * near)


smooth_l1 = elementwise(
    lambda input, target, beta: _near_square(fn.abs(input - target), beta) / beta,
    name="smooth_l1",
    vjp=lambda g, y, a, b, beta: (_smooth_slope(g, a, b, beta), -_smooth_slope(g, a, b, beta), None),
    samples=_pointwise(1.0, input=(0.1, 0.9), target=(0.1, 0.9)),
)
huber = elementwise(
    lambda input, target, delta: _near_square(fn.abs(input - target), delta),
    name="huber",
    vjp=lambda g, y, a, b, delta: (_huber_slope(g, a, b, delta), -_huber_slope(g, a, b, delta), None),
    samples=_pointwise(1.0, input=(3.5, 5.0)),
)


def _smooth_slope(g: Any, a: Any, b: Any, beta: Any) -> Any:
    return g * fn.maximum(fn.minimum((a - b) / beta, 1.0), -1.0)


def _huber_slope(g: Any, a: Any, b: Any, delta: Any) -> Any:
    return g * fn.maximum(fn.minimum(a - b, delta), -delta)


mse_mean = _loss(squared_difference, "mse_loss", _pairs())
l1_mean = _loss(absolute_difference, "l1_loss", _pairs(low=2.5, high=4.0))
smooth_l1_mean = _loss(smooth_l1, "smooth_l1_loss", _pairs(1.0, low=3.5, high=5.0))
huber_mean = _loss(huber, "huber_loss", _pairs(1.0, low=3.5, high=5.0))


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean of ``(input - target) ** 2``.

    Args:
        size_average, reduce: what older programs say instead of ``reduction``.
        reduction: "mean", "sum", or "none" for the losses of the elements.
        weight: multiplied with each element's loss; the mean is then divided by the sum of the weights.
    """
    _checked("mse_loss", input, target)
    _not_whole("mse_loss", input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if weight is not None:
        return _weighted("mse_loss", squared_difference(input, target), weight, reduction)
    return reduced(squared_difference, mse_mean, reduction, input, target)


def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean of ``|input - target|``; see ``mse_loss`` for the arguments."""
    _checked("l1_loss", input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if reduction == "mean":
        _not_whole("l1_loss", input, target)
    if weight is not None:
        return _weighted("l1_loss", absolute_difference(input, target), weight, reduction)
    return reduced(absolute_difference, l1_mean, reduction, input, target)


def _not_whole(name: str, input: Tensor, target: Tensor) -> None:
    """Raises DTypeError for two tensors of integers, in which squares wrap and means are none."""
    if input._data.dtype.kind in "bui" and target._data.dtype.kind in "bui":
        require_float(name, input._data)


def _weighted(name: str, losses: Tensor, weight: Tensor, reduction: str) -> Tensor:
    check_reduction(name, reduction)
    total: Any = pw.mul(losses, weight)
    if reduction == "none":
        return total
    if reduction == "sum":
        return _sum(total)
    return pw.div(_sum(total), _sum(expand(weight, shape=tuple(total.shape))))


def _require_real(name: str, *given: Tensor) -> None:
    if any(x.dtype.category == 3 for x in given):
        raise DTypeError(f"{name}: complex numbers have no such loss; use l1_loss or mse_loss.")


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """Squared below ``beta`` (halved and divided by it), absolute (minus ``beta / 2``) above. Source: Girshick 2015."""
    _checked("smooth_l1_loss", input, target)
    _require_real("smooth_l1_loss", input, target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    beta = real("smooth_l1_loss", "beta", beta)
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: beta must not be negative, got {beta}.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return reduced(smooth_l1, smooth_l1_mean, reduction, input, target, beta)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the square up to ``delta``, and its tangent beyond. Source: Huber 1964."""
    _checked("huber_loss", input, target)
    _require_real("huber_loss", input, target)
    if isinstance(delta, bool):
        raise TypeError("huber_loss: delta must be a float or int, got bool.")
    delta = real("huber_loss", "delta", delta)
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta must be positive, got {delta}.")
    if weight is not None:
        return _weighted("huber_loss", huber(input, target, delta), weight, reduction)
    return reduced(huber, huber_mean, reduction, input, target, delta)


# --- probabilities of two classes

binary_entropy = elementwise(
    # the logarithms are cut at -100, so that a wrong certainty costs much but not infinitely
    lambda input, target, weight: (
        weight * -(target * fn.maximum(fn.log(input), -100.0) + (1 - target) * fn.maximum(fn.log(1 - input), -100.0))
    ),
    name="binary_entropy",
    vjp=lambda g, y, x, t, w: (
        g * w * (x - t) / fn.maximum((1 - x) * x, 1e-12),
        g * w * (fn.maximum(fn.log(1 - x), -100.0) - fn.maximum(fn.log(x), -100.0)),
        g * -(t * fn.maximum(fn.log(x), -100.0) + (1 - t) * fn.maximum(fn.log(1 - x), -100.0)),
    ),
    samples=_pointwise(Arg((4,), 0.5, 2.0), input=(0.1, 0.9), target=(0.1, 0.9)),
)


def _soft(x: Any) -> Any:
    """log(1 + exp(-x))."""
    return fn.softplus(-x)


logit_entropy = elementwise(
    lambda input, target, weight, pos_weight: (
        weight * ((1 - target) * input + (1 + (pos_weight - 1) * target) * _soft(input))
    ),
    name="logit_entropy",
    vjp=lambda g, y, x, t, w, p: (
        g * w * ((1 - t) - (1 + (p - 1) * t) * fn.sigmoid(-x)),
        g * w * ((p - 1) * _soft(x) - x),
        g * ((1 - t) * x + (1 + (p - 1) * t) * _soft(x)),
        g * w * t * _soft(x),
    ),
    samples=_pointwise(Arg((4,), 0.5, 2.0), Arg((4,), 0.5, 2.0), target=(0.1, 0.9)),
)
bce_mean = _loss(
    binary_entropy, "binary_cross_entropy", _pairs(1.0, low=0.1, high=0.9, target=(0.1, 0.9)),
    target=("input", "weight"), weight=("input", "target"),
)  # fmt: skip
bce_logits_mean = _loss(
    logit_entropy, "binary_cross_entropy_with_logits", _pairs(0.5, 2.0, target=(0.1, 0.9)),
    target=("input", "weight", "pos_weight"), weight=("input", "target", "pos_weight"),
    pos_weight=("input", "target", "weight"),
)  # fmt: skip


def _probable(*given: Tensor) -> Any:
    """Where all of these, of one shape, are from 0 to 1."""
    found: Any = None
    for x in given:
        within = pw.bitwise_and(pw.ge(x.detach(), 0), pw.le(x.detach(), 1))
        found = within if found is None else pw.bitwise_and(found, within)
    return found


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-(t log p + (1 - t) log(1 - p))``, logarithms cut at -100.

    Args:
        input: probabilities in [0, 1].
        target: of the same shape.
        weight: multiplied with each element's loss; broadcasts.
    Raises: ValueError if the shapes differ, or a probability is outside of [0, 1].
    """
    require_tensors("binary_cross_entropy", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if input._data.shape != target._data.shape:
        raise ValueError(
            f"binary_cross_entropy: target has shape {tuple(target.shape)}, input {tuple(input.shape)}; they must be "
            "equal."
        )
    require_optional("binary_cross_entropy", weight=weight)
    require_within("binary_cross_entropy", input, weight=weight)
    given = {"input": input, "target": target} if target.dtype.category else {"input": input}
    if not everywhere(_probable(*given.values())):  # both at once: a device is waited for once
        wrong = next((label for label, x in given.items() if not everywhere(_probable(x))), "input")
        raise ArgumentError(
            f"binary_cross_entropy: all elements of {wrong} should be between 0 and 1; for logits use "
            "binary_cross_entropy_with_logits."
        )
    return reduced(binary_entropy, bce_mean, reduction, input, target, 1.0 if weight is None else weight)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of ``sigmoid(input)``, right for logits of any size.

    Args:
        weight: multiplied with each element's loss; broadcasts.
        pos_weight: multiplied with the loss of positive targets; broadcasts, e.g. one per class.
    """
    require_tensors("binary_cross_entropy_with_logits", input=input, target=target)
    require_optional("binary_cross_entropy_with_logits", weight=weight, pos_weight=pos_weight)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if input._data.shape != target._data.shape:
        raise ValueError(
            f"binary_cross_entropy_with_logits: target has shape {tuple(target.shape)}, input {tuple(input.shape)}; "
            "they must be equal."
        )
    require_within("binary_cross_entropy_with_logits", input, weight=weight, pos_weight=pos_weight)
    return reduced(
        logit_entropy, bce_logits_mean, reduction, input, target, 1.0 if weight is None else weight,
        1.0 if pos_weight is None else pos_weight,
    )  # fmt: skip


# --- distributions

kl_pointwise = elementwise(
    lambda input, target: fn.where(fn.eq(target, 0), 0.0, target * fn.log(target)) - target * input,
    name="kl_pointwise",
    vjp=lambda g, y, x, t: (-(g * t), g * (fn.where(fn.eq(t, 0), 0.0, fn.log(t) + 1) - x)),
    samples=_pointwise(target=(0.1, 0.9)),
)
kl_log_pointwise = elementwise(
    lambda input, target: fn.exp(target) * (target - input), name="kl_log_pointwise", samples=_pointwise()
)
kl_mean = _loss(kl_pointwise, "kl_div", _pairs(target=(0.1, 0.9)), input=("target",))
kl_log_mean = _loss(kl_log_pointwise, "kl_div_log", _pairs(), input=("target",))
poisson_log = elementwise(
    lambda input, target: fn.exp(input) - target * input, name="poisson_log", samples=_pointwise(target=(0.5, 3.0))
)
poisson_rate = elementwise(
    lambda input, target, eps: input - target * fn.log(input + eps),
    name="poisson_rate",
    samples=_pointwise(1e-8, input=(0.5, 3.0), target=(0.5, 3.0)),
)
stirling = elementwise(
    lambda target: fn.where(target > 1, target * fn.log(target) - target + 0.5 * fn.log(2 * math.pi * target), 0.0),
    name="stirling",
    samples=unary(1.2, 4.0),
    doc="Stirling's approximation of ``log(target!)`` above 1, else 0.",
)
poisson_log_mean = _loss(poisson_log, "poisson_nll_log", _pairs(target=(0.5, 3.0)), target=("input",))
poisson_rate_mean = _loss(
    poisson_rate, "poisson_nll", _pairs(1e-8, low=0.5, high=3.0, target=(0.5, 3.0)), target=("input", "eps")
)
raised_variance = elementwise(
    lambda var, eps: fn.maximum(var, eps),
    name="raised_variance",
    vjp=lambda g, y, v, eps: (g, None),
    samples=unary(0.5, 2.0, extra=(1e-6,)),
    doc="The variance, at least eps. Its gradient passes the cut: a variance too small can grow again.",
)
gaussian_pointwise = elementwise(
    lambda input, target, var: 0.5 * (fn.log(var) + (input - target) * (input - target) / var),
    name="gaussian_pointwise",
    vjp=lambda g, y, x, t, v: (
        g * (x - t) / v,
        -(g * (x - t) / v),
        g * 0.5 * (1 - (x - t) * (x - t) / v) / v,
    ),
    samples=_pointwise(Arg((3, 1), 0.5, 2.0)),
)


def _gaussian_samples() -> list[Sample]:
    pair = (Arg((3, 4)), Arg((3, 4)))
    return [
        Sample((*pair, Arg((3, 1), 0.5, 2.0)), {"reduction": "mean"}, name="per row"),
        Sample((*pair, Arg((3, 4), 0.5, 2.0)), {"reduction": "sum"}, name="per element"),
    ]


gaussian_mean = _loss(gaussian_pointwise, "gaussian_nll", _gaussian_samples)


def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """``target * (log target - input)``, the pointwise Kullback-Leibler divergence.

    Args:
        input: log-probabilities.
        target: probabilities, or their logarithms with ``log_target``.
        reduction: also "batchmean", the sum divided by the size of dimension 0: the divergence as defined.
    """
    require_tensors("kl_div", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    formula, whole = (kl_log_pointwise, kl_log_mean) if log_target else (kl_pointwise, kl_mean)
    if reduction == "batchmean":
        total = reduced(formula, whole, "sum", input, target)
        return pw.div(total, float(input.shape[0])) if input._data.ndim else total
    return reduced(formula, whole, reduction, input, target)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: bool | None = None,
    eps: float = 1e-8, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The negative log-likelihood of counts under a Poisson distribution.

    Args:
        input: the rate, or its logarithm with ``log_input``.
        full: add Stirling's approximation of ``log(target!)`` for targets above 1.
        eps: added to the rate before its logarithm is taken.
    """
    require_tensors("poisson_nll_loss", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    eps, full = real("poisson_nll_loss", "eps", eps), flag("poisson_nll_loss", "full", full)
    log_input = flag("poisson_nll_loss", "log_input", log_input)
    if full:
        losses = poisson_log(input, target) if log_input else poisson_rate(input, target, eps)
        return reduce_losses("poisson_nll_loss", pw.add(losses, stirling(target)), reduction)
    if log_input:
        return reduced(poisson_log, poisson_log_mean, reduction, input, target)
    return reduced(poisson_rate, poisson_rate_mean, reduction, input, target, eps)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """The negative log-likelihood under normal distributions of mean ``input`` and variance ``var``.

    Args:
        var: of the input's shape, or of size 1 in one dimension, or with the last dimension left out, or a number.
        full: add the constant ``log(2 pi) / 2``.
        eps: the variance is taken to be at least this.
    Raises: ValueError for a negative variance, or one of another shape.
    """
    require_tensors("gaussian_nll_loss", input=input, target=target)
    if isinstance(var, Tensor):
        if tuple(var.shape) == tuple(input.shape)[:-1] and tuple(var.shape) != tuple(input.shape):
            var = shaped(var, (*var.shape, 1))
        elif tuple(var.shape) != tuple(input.shape) and (
            var._data.ndim != input._data.ndim
            or sum(v for v, n in zip(var.shape, input.shape, strict=True) if v != n) != 1
        ):
            raise ValueError(f"gaussian_nll_loss: var has shape {tuple(var.shape)}, input {tuple(input.shape)}.")
        if not everywhere(pw.ge(var.detach(), 0)):
            raise ValueError("gaussian_nll_loss: var has negative entries.")
    elif number("gaussian_nll_loss", "var", var) < 0:
        raise ValueError(f"gaussian_nll_loss: var must not be negative, got {var}.")
    floor = raised_variance(var, float(eps)) if isinstance(var, Tensor) else max(float(var), float(eps))
    losses = reduced(gaussian_pointwise, gaussian_mean, reduction, input, target, floor)
    if not full:
        return losses
    shapes = [x._data.shape for x in (input, target, floor) if isinstance(x, Tensor)]
    count = math.prod(broadcast_shape("gaussian_nll_loss", *shapes)) if reduction == "sum" else 1
    return pw.add(losses, 0.5 * math.log(2 * math.pi) * count)


def reduce_losses(name: str, losses: Tensor, reduction: str) -> Tensor:
    """Losses of elements under a reduction. Raises ValueError for an unknown one."""
    check_reduction(name, reduction)
    if reduction == "none":
        return losses
    return _sum(losses) if reduction == "sum" else recorded.mean(losses, dim=tuple(range(losses.ndim)), keepdim=False)


def _sum(x: Tensor) -> Tensor:
    return recorded.sum(x, dim=tuple(range(x.ndim)), keepdim=False)


@in_float32
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:  # fmt: skip
    """``log(1 + exp(-target * input))`` for targets of 1 and -1."""
    require_tensors("soft_margin_loss", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    require_within("soft_margin_loss", input, target=target)
    return reduce_losses("soft_margin_loss", pw.softplus(pw.neg(pw.mul(input, target)), 1.0, 100.0), reduction)


@in_float32
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``input`` where the target is 1, ``max(0, margin - input)`` where it is -1."""
    require_tensors("hinge_embedding_loss", input=input, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    if target.dtype.category > 1 and input.dtype != target.dtype:
        raise DTypeError(f"hinge_embedding_loss: target is {target.dtype}, input {input.dtype}.")
    margin = real("hinge_embedding_loss", "margin", margin)
    far = pw.where(pw.ne(target, 1), pw.clamp_min(pw.sub(margin, input), 0), 0.0)
    near = pw.where(pw.ne(target, -1), input, 0.0)
    return reduce_losses("hinge_embedding_loss", pw.add(far, near), reduction)


@in_float32
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, -target * (input1 - input2) + margin)``: the first should rank higher where the target is 1."""
    require_tensors("margin_ranking_loss", input1=input1, input2=input2, target=target)
    reduction = legacy_reduction(reduction, size_average, reduce)
    margin = real("margin_ranking_loss", "margin", margin)
    if not input1._data.ndim == input2._data.ndim == target._data.ndim:
        raise ShapeError(
            f"margin_ranking_loss: expected as many dimensions everywhere, got input1 {tuple(input1.shape)}, input2 "
            f"{tuple(input2.shape)} and target {tuple(target.shape)}."
        )
    apart = pw.add(pw.mul(pw.neg(target), pw.sub(input1, input2)), margin)
    return reduce_losses("margin_ranking_loss", pw.clamp_min(apart, 0), reduction)
