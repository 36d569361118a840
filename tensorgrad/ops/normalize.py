"""The normalizations as users call them (``nn.functional``); the records are in ``norm`` and ``channel_norm``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..dispatch import recorded
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from . import channel_norm as channels
from . import norm as rows
from . import pointwise as pw
from .checks import (
    integer,
    integers_of,
    number,
    product,
    real,
    require_float,
    require_optional,
    require_tensors,
    require_vector,
    shaped,
)
from .elementwise import elementwise
from .inplace import deliver, move_buffer
from .norm import check_affine
from .samples import binary
from .shape_core import as_index, slice_
from .vector_norm import norm

moved_average = elementwise(
    lambda running, batch, momentum, factor: (1 - momentum) * running + momentum * (factor * batch),
    name="moved_average",
    samples=binary(count=4),
    doc="A running statistic after a batch whose own value is ``factor * batch``.",
)


def _last_dims(name: str, x: Tensor, normalized_shape: Any) -> int:
    """How many dimensions to normalize. Raises ShapeError unless x ends in ``normalized_shape``."""
    require_tensors(name, input=x)
    shape = normalized_shape
    if type(shape) is not tuple:
        one = as_index(shape)
        shape = integers_of(name, shape) if one is None else (one,)
        if shape is None:
            raise TypeError(f"{name}: normalized_shape must be made of integers, got {normalized_shape!r}.")
    count = len(shape)
    if not count or x._data.shape[x._data.ndim - count :] != shape or count > x._data.ndim:
        raise ShapeError(f"{name}: an input of shape {tuple(x.shape)} does not end in normalized_shape {shape}.")
    return count


def layer_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """The last dimensions brought to mean 0 and variance 1 together, then scaled and shifted per element.

    Args:
        input: (..., *normalized_shape).
        weight, bias: of shape ``normalized_shape``, or None.
        eps: added to the (biased) variance.
    Raises: ShapeError if the shapes do not end alike; DTypeError for integers.
    Source: Ba, Kiros, Hinton 2016.
    """
    count = _last_dims("layer_norm", input, normalized_shape)
    require_optional("layer_norm", weight=weight, bias=bias)
    return rows.layer_norm(input, weight, bias, ndim=count, eps=real("layer_norm", "eps", eps))[0]


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """The last dimensions divided by the root of their mean square, then scaled per element.

    Args:
        eps: added to the mean square; the dtype's machine epsilon if None.
    Source: Zhang and Sennrich 2019.
    """
    count = _last_dims("rms_norm", input, normalized_shape)
    require_float("rms_norm", input._data, complex=True)
    eps = None if eps is None else real("rms_norm", "eps", eps)
    if eps is None:
        eps = 2.0**-7 if input.dtype.name == "bfloat16" else float(np.finfo(input._data.dtype).eps)
    if input.dtype.is_complex:  # as PyTorch: the square, not the absolute square
        require_optional("rms_norm", weight=weight)
        check_affine(
            "rms_norm", input._data, input._data.shape[-count:], weight=None if weight is None else weight._data
        )
        last = tuple(range(-count, 0))
        scaled = input * ((input * input).mean(last, keepdim=True) + float(eps)).rsqrt()
        return scaled if weight is None else scaled * weight
    return rows.rms_norm(input, weight, ndim=count, eps=float(eps))[0]


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel brought to mean 0 and variance 1, then scaled and shifted.

    In training, by the statistics of the batch, towards which the running ones move by ``momentum`` (in place; the
    variance unbiased). Otherwise by the running statistics.

    Args:
        input: (n, c, ...).
        running_mean, running_var: (c,), or None in training.
        weight, bias: (c,) or None.
    Raises: ShapeError in training if there is only one value per channel; ValueError without running statistics
        outside of training.
    Source: Ioffe and Szegedy 2015.
    """
    return channel_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, channels.batch_norm)


def batch_norm_relu(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> Tensor:  # fmt: skip
    """``relu(batch_norm(...))``, in training as one kernel."""
    y = channel_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, channels.batch_norm_relu)
    if training and input._data.size:
        return y
    return pw.relu(y) if y._tracked else pw.relu.into(y, y)


def require_both(name: str, running_mean: Tensor | None, running_var: Tensor | None) -> None:
    """Raises ValueError for one running statistic without the other."""
    if (running_mean is None) is not (running_var is None):
        raise ValueError(f"{name}: running_mean and running_var must either both be None or neither be None.")


def channel_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    training: bool, momentum: float, eps: float, by_batch: Any,
) -> Tensor:  # fmt: skip
    """``batch_norm`` by ``by_batch``, the record that normalizes by the batch's statistics in training."""
    require_tensors("batch_norm", input=input)
    require_optional("batch_norm", running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    require_both("batch_norm", running_mean, running_var)
    eps = real("batch_norm", "eps", eps)
    if eps < 0 or (training and eps == 0):
        raise ArgumentError(f"batch_norm: eps must be {'positive' if training else 'non-negative'}, got {eps}.")
    if input._data.ndim < 2 and not input._data.size:
        return _empty_batch(input, weight, bias)
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm: running_mean and running_var are needed outside of training.")
        return channels.batch_norm_eval(input, weight, bias, running_mean, running_var, eps=eps)
    if not input._data.size:  # no element, no statistic: the running ones stay as they are
        return _empty_batch(input, weight, bias)
    count = input._data.size // max(1, input._data.shape[1]) if input._data.ndim > 1 else input._data.size
    if count <= 1:
        raise ShapeError(
            f"batch_norm: expected more than 1 value per channel when training, got input size {tuple(input.shape)}."
        )
    for label, running in (("running_mean", running_mean), ("running_var", running_var)):
        require_vector("batch_norm", label, running, input._data.shape[1] if input._data.ndim > 1 else 1)
    y, mean, _, variance, *_ = by_batch(input, weight, bias, eps=eps)
    share = momentum if isinstance(momentum, Tensor) else real("batch_norm", "momentum", momentum)
    if running_mean is not None:
        move_buffer(moved_average, running_mean, mean, share, 1.0)
    if running_var is not None:
        move_buffer(moved_average, running_var, variance, share, count / max(count - 1, 1))
    return y


def _empty_batch(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """An input without elements under a norm: itself, with zero gradients for weight and bias."""
    y: Tensor = recorded.contiguous_copy(input)
    shape = (-1, *(1,) * (input._data.ndim - 2)) if input._data.ndim > 1 else (-1,)
    for at, other in ((pw.mul, weight), (pw.add, bias)):
        if other is not None:
            y = at(y, other.reshape(shape))
    return y


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel of each sample brought to mean 0 and variance 1, then scaled and shifted per channel.

    Args:
        running_mean, running_var: (c,) moved towards the mean of the samples' statistics, or None.
        use_input_stats: normalize by the samples' statistics; by the running ones otherwise.
    Raises: ShapeError if there is only one value per channel of a sample.
    Source: Ulyanov, Vedaldi, Lempitsky 2016.
    """
    require_tensors("instance_norm", input=input)
    require_optional("instance_norm", running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    require_both("instance_norm", running_mean, running_var)
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input._data.ndim < 3:
        raise ShapeError(f"instance_norm: expected at least 3 dimensions (n, c, ...), got {tuple(input.shape)}.")
    c, count = input.shape[1], product(input.shape[2:])
    if count == 1:
        raise ShapeError(
            f"instance_norm: expected more than 1 spatial element when training, got input size {tuple(input.shape)}."
        )
    for label, running in (("running_mean", running_mean), ("running_var", running_var)):
        require_vector("instance_norm", label, running, c)
    share = momentum if isinstance(momentum, Tensor) else real("instance_norm", "momentum", momentum)
    eps = real("instance_norm", "eps", eps)
    # every channel of every sample is a group of its own
    y, mean, rstd = channels.group_norm(input, weight, bias, groups=c, eps=eps)
    if running_mean is not None or running_var is not None:
        with no_grad():
            if running_mean is not None:
                average = recorded.mean(mean, dim=(0,), keepdim=False)
                move_buffer(moved_average, running_mean, average, share, 1.0)
            if running_var is not None:
                variance = pw.sub(pw.reciprocal(pw.square(rstd)), eps)
                average = recorded.mean(variance, dim=(0,), keepdim=False)
                move_buffer(moved_average, running_var, average, share, count / max(count - 1, 1))
    return y


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The channels of each of ``num_groups`` groups of each sample brought to mean 0 and variance 1 together.

    Args:
        input: (n, c, ...), c a multiple of ``num_groups``.
        weight, bias: (c,) or None.
    Source: Wu and He 2018.
    """
    require_tensors("group_norm", input=input)
    require_optional("group_norm", weight=weight, bias=bias)
    how = {"groups": integer("group_norm", "num_groups", num_groups), "eps": real("group_norm", "eps", eps)}
    if input._data.ndim > 1 and how["groups"] > 0:
        n, c, *rest = input._data.shape
        if n * c // how["groups"] * product(rest) == 1:
            raise ShapeError(
                f"group_norm: expected more than 1 value per channel when training, got input size "
                f"{tuple(input.shape)} in {num_groups} groups."
            )
    if input._data.ndim > 1 and not product(input.shape[1:]):  # no group has elements, so there are no statistics
        channels.group_norm.infer(*[None if x is None else x._data for x in (input, weight, bias)], **how)
        column = (-1, *(1,) * (input._data.ndim - 2))
        y = input.clone() if weight is None else pw.mul(input, weight.reshape(column))
        return y if bias is None else pw.add(y, bias.reshape(column))
    return channels.group_norm(input, weight, bias, **how)[0]


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha * mean of x**2 over size neighbouring channels) ** beta``.

    Args:
        input: (n, c, ...) with at least 3 dimensions; channels beyond the ends count as zeros.
    Source: Krizhevsky, Sutskever, Hinton 2012.
    """
    require_tensors("local_response_norm", input=input)
    if input._data.ndim < 3:
        raise ShapeError(f"local_response_norm: expected at least 3 dimensions, got shape {tuple(input.shape)}.")
    size = integer("local_response_norm", "size", size)
    if size < 1:
        raise ValueError(f"local_response_norm: size must be positive, got {size}.")
    alpha, beta, k = (
        number("local_response_norm", label, x) for label, x in (("alpha", alpha), ("beta", beta), ("k", k))
    )
    if not input._data.size:
        return input
    n, c = input.shape[:2]
    flat = shaped(pw.square(input), (n, c, math.prod(input.shape[2:])))
    pads = ((0, 0), (size // 2, (size - 1) // 2), (0, 0))
    padded = recorded.pad(flat, pads=pads, mode="constant", value=0.0)
    total: Any = None
    for shift in range(size):
        part = slice_(padded, key=(slice(None), slice(shift, shift + c)))
        total = part if total is None else pw.add(total, part)
    if input.dtype.category < 2:  # the mean of integers is one
        total, alpha = pw.trunc_divide(total, size), alpha * size
    scale = shaped(pw.pow(pw.add(pw.mul(total, alpha / size), k), beta), tuple(input.shape))
    return pw.div(input, scale)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """``input`` divided by its p-norm along ``dim``, or by ``eps`` where the norm is smaller."""
    require_tensors("normalize", input=input)
    result = pw.div(input, pw.clamp_min(vector_norm(input, p, dim, True), eps))
    return result if out is None else deliver("normalize", result, out)


def vector_norm(x: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """The p-norm along ``dim``; its derivative where all elements are zero is zero."""
    return norm(x, p, dim=dim, keepdim=keepdim)
