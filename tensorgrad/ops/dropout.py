"""Dropout: zero elements at random and scale the rest, so that the expectation stays."""

from __future__ import annotations

from typing import Any

from ..dispatch import local
from ..errors import ShapeError
from ..expr import functions as fn
from ..random import Generator, chosen
from ..tensor import Tensor, wrap
from . import pointwise as pw
from .checks import real, require_float, require_tensors
from .elementwise import elementwise
from .inplace import assign, write_into
from .record import Spec, op
from .samples import binary

__all__ = ["alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout"]

masked_scale = elementwise(
    lambda input, mask, scale: input * fn.where(mask, scale, 0),  # NaN stays
    name="masked_scale",
    samples=binary(count=3, mask_second=True),
    vjp=lambda g, y, x, mask, scale: (g * fn.where(mask, scale, 0), None, fn.where(mask, g * x, 0)),
    doc="``input * scale`` where the mask holds, zero elsewhere; NaN and infinity times zero are NaN.",
)


def _infer(x: Any, *, p: float, generator: Any) -> tuple[Spec, Spec]:
    import numpy as np

    require_float("dropout", x, complex=True)
    shape = tuple(x.shape)
    return Spec(shape, x.dtype), Spec(shape, np.dtype(np.bool_))


def _rule(F: Any, g: Any, x: Any, *, needs: Any, mask: Any, p: float, generator: Any) -> tuple[Any, ...]:
    return (F.masked_scale(g[0], mask, 1.0 / (1.0 - p) if p < 1 else 0.0),)


# the generator, not its state, is the attribute: a replayed program draws anew
dropout_op = op(
    "dropout",
    infer=_infer,
    rule=_rule,
    keeps=("mask",),
    outputs=("y", "mask"),
    nondiff=("mask",),
    doc="Each element is kept with probability 1 - p and divided by it: where its uniform number is at least p.",
)


def _check_p(name: str, p: float) -> float:
    value = real(name, "p", p)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: the probability must be between 0 and 1, got {p}.")
    return value


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Zero each element with probability ``p`` and divide the others by ``1 - p``; nothing unless ``training``.

    Args:
        generator: where the numbers come from; the default generator if None.
    Raises: ValueError for ``p`` outside of [0, 1]; DTypeError for integers.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014.
    """
    p = _check_p("dropout", p)
    require_tensors("dropout", input=input)
    if not training or p == 0:  # no numbers are drawn, as in PyTorch
        return input
    y: Tensor = dropout_op(input, p=p, generator=chosen(generator))[0]
    return write_into(assign, input, (input, y), {}) if inplace else y


def _keep_mask(name: str, x: Tensor, shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    """A bool tensor, True with probability ``1 - p``, as ``dropout`` draws it."""
    require_float(name, x._data)
    door = local.doors[type(x._data)]
    ones = door.full_as(door.expand(door.zeros_as(x._data, shape=()), shape=shape), value=1)
    return wrap(door.dropout(ones, p=p, generator=chosen(generator))[1])


def feature_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Zero whole channels (dimension 1) of each sample with probability ``p``; the others are divided by ``1 - p``.

    Source: Tompson, Goroshin, Jain, LeCun, Bregler 2015.
    """
    p = _check_p("feature_dropout", p)
    require_tensors("feature_dropout", input=input)
    if not training:
        return input
    if input._data.ndim < 2:
        raise ShapeError(f"feature_dropout: expected at least 2 dimensions, got shape {tuple(input.shape)}.")
    shape = (*input.shape[:2], *(1,) * (input._data.ndim - 2))
    mask = _keep_mask("feature_dropout", input, shape, p, generator)
    y: Tensor = masked_scale(input, mask, 1.0 / (1.0 - p) if p < 1 else 0.0)
    return write_into(assign, input, (input, y), {}) if inplace else y


def _alpha(name: str, x: Tensor, shape: tuple[int, ...], p: float, generator: Generator | None) -> Tensor:
    """SELU's limit value where dropped, then an affine map that restores mean 0 and variance 1."""
    low = -1.7580993408473766  # -alpha * scale of SELU
    mask = _keep_mask(name, x, shape, p, generator)
    if p == 1:
        return pw.mul(x, 0.0)
    a = ((1 - p) * (1 + p * low * low)) ** -0.5
    return pw.add(pw.mul(pw.where(mask, x, low), a), -a * p * low)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Dropout that keeps the mean and variance of SELU activations. Source: Klambauer et al. 2017."""
    p = _check_p("alpha_dropout", p)
    require_tensors("alpha_dropout", input=input)
    if not training:
        return input
    y = _alpha("alpha_dropout", input, tuple(input.shape), p, generator)
    return write_into(assign, input, (input, y), {}) if inplace else y


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """``alpha_dropout`` of whole channels (dimension 1) of each sample."""
    p = _check_p("feature_alpha_dropout", p)
    require_tensors("feature_alpha_dropout", input=input)
    if not training:
        return input
    shape = (*input.shape[:2], *(1,) * (input._data.ndim - 2))
    y = _alpha("feature_alpha_dropout", input, shape, p, generator)
    return write_into(assign, input, (input, y), {}) if inplace else y
