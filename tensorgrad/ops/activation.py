"""Activations with PyTorch's signatures; the formulas are in ``pointwise``."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import number, real, require_float, require_one_dtype, require_tensors, shaped
from .elementwise import Elementwise
from .inplace import write_into
from .shape_core import one_dim, slice_
from .storable import check_factor, stored_number

__all__ = ["celu", "celu_", "elu_", "hardshrink", "prelu", "relu", "relu_", "rrelu", "selu", "selu_", "threshold"]


def _apply(record: Elementwise, input: Tensor, inplace: bool, *numbers: Any) -> Tensor:
    if inplace:
        return write_into(record, input, (input, *numbers), {})
    return record(input, *numbers)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``; its derivative at 0 is taken as 0. Raises DTypeError for truth values."""
    if isinstance(input, Tensor) and input._data.dtype.kind == "b":
        raise DTypeError("relu: Boolean inputs not supported for relu.")
    return _apply(pw.relu, input, True) if inplace else pw.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(x, 0), 6)``."""
    low, high = _bounds("relu6", input, 0.0, 6.0)
    return _apply(pw.hardtanh, input, inplace, low, high)


def _scale(name: str, label: str, given: Any, input: Tensor) -> float:
    """A factor as a float, which the dtype that the input computes in holds."""
    require_tensors(name, input=input)
    value = real(name, label, given)
    check_factor(f"{name}: {label}", value, input.dtype)
    return value


def _bounds(name: str, input: Tensor, low: float, high: float) -> tuple[float, float]:
    """The bounds in the kind of the input: those of integers are cut to integers."""
    require_tensors(name, input=input)
    if input.dtype.category == 0 or (low < 0 and input.dtype.name == "uint8"):
        raise DTypeError(f"{name}: a tensor of {input.dtype} can't be limited to [{low}, {high}].")
    return stored_number(name, low, input.dtype), stored_number(name, high, input.dtype)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``. Source: Maas, Hannun, Ng 2013."""
    return _apply(pw.leaky_relu, input, inplace, _scale("leaky_relu", "negative_slope", negative_slope, input))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``. Source: Clevert, Unterthiner, Hochreiter 2015."""
    return _apply(pw.elu, input, inplace, _scale("elu", "alpha", alpha, input), 1.0, 1.0)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """ELU scaled so that mean 0 and variance 1 are a fixed point. Source: Klambauer et al. 2017."""
    return _apply(pw.elu, input, inplace, 1.6732632423543772, 1.0507009873554805, 1.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)``. Source: Barron 2017."""
    if alpha == 0:
        raise ArgumentError("celu: alpha must not be zero.")
    alpha = _scale("celu", "alpha", alpha, input)
    return _apply(pw.elu, input, inplace, alpha, 1.0, 1.0 / alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` with the normal distribution function; ``approximate="tanh"`` gives its tanh approximation.

    Source: Hendrycks and Gimpel 2016.
    """
    if approximate == "none":
        return pw.gelu(input)
    if approximate == "tanh":
        return pw.gelu_tanh(input)
    raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}.")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``, also called swish."""
    return _apply(pw.silu, input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))``. Source: Misra 2019."""
    return _apply(pw.mish, input, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``; ``x`` itself where ``beta * x > threshold``."""
    numbers = (_scale("softplus", label, x, input) for label, x in (("beta", beta), ("threshold", threshold)))
    return pw.softplus(input, *numbers)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` limited to [min_val, max_val]; the derivative at the bounds is 0."""
    min_val, max_val = number("hardtanh", "min_val", min_val), number("hardtanh", "max_val", max_val)
    if min_val > max_val:
        raise ArgumentError(f"hardtanh: min_val {min_val} is larger than max_val {max_val}.")
    low, high = _bounds("hardtanh", input, min_val, max_val)
    return _apply(pw.hardtanh, input, inplace, low, high)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6``. Source: Howard et al. 2019."""
    return _apply(pw.hardswish, input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return _apply(pw.hardsigmoid, input, inplace)


def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))`` without overflow."""
    return pw.logsigmoid(input)


def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    return pw.softsign(input)


def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``."""
    return pw.sub(input, pw.tanh(input))


def _limit(name: str, lambd: Any, input: Tensor) -> Any:
    """A bound as a number of the input's dtype, which is floating point."""
    require_tensors(name, input=input)
    require_float(name, input._data)
    return stored_number(f"{name}: lambd", lambd, input.dtype)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` where ``|x| > lambd``, else 0."""
    return pw.hardshrink(input, _limit("hardshrink", lambd, input))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` moved towards 0 by ``lambd``, and 0 within it."""
    lambd = _limit("softshrink", lambd, input)
    if not 0 <= lambd < math.inf:
        raise ArgumentError(f"softshrink: lambd must be finite and not negative, got {lambd}.")
    return pw.softshrink(input, lambd)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``value`` where ``x <= threshold``, else ``x``; NaN stays. For integers both are cut off to integers.

    Raises DTypeError for bool tensors, and for numbers that the dtype can't hold.
    """
    require_tensors("threshold", input=input)
    if not input.dtype.category:
        raise DTypeError("threshold: not defined for bool tensors; convert to an integer dtype first.")
    if input.dtype.category == 1:
        threshold = stored_number("threshold", threshold, input.dtype)
    else:
        threshold = _scale("threshold", "threshold", threshold, input)
    value = stored_number("threshold: value", value, input.dtype)
    return _apply(pw.threshold, input, inplace, threshold, value)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``x`` where positive, else ``weight * x``, with one weight or one per channel (dimension 1).

    Raises ShapeError if the weights are neither one nor as many as channels. Source: He, Zhang, Ren, Sun 2015.
    """
    require_tensors("prelu", input=input, weight=weight)
    if weight.dtype is not input.dtype:
        require_one_dtype("prelu", input._data, weight=weight._data)
    if weight._data.ndim > 1:
        raise ShapeError(f"prelu: weight must be a number or a vector, got shape {tuple(weight.shape)}.")
    count = weight._data.size
    if count != 1:
        channels = input.shape[1] if input._data.ndim > 1 else 1
        if weight._data.ndim != 1 or count != channels:
            raise ShapeError(f"prelu: {tuple(weight.shape)} weights for {channels} channels of {tuple(input.shape)}.")
        weight = shaped(weight, (count, *(1,) * (input._data.ndim - 2)))
    elif weight._data.ndim:
        weight = shaped(weight, (1,) * input._data.ndim)
    return pw.prelu(input, weight)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False,
    *, generator: Any = None,
) -> Tensor:  # fmt: skip
    """Leaky ReLU whose slope is drawn from [lower, upper] for each element in training, and its mean otherwise.

    Source: Xu, Wang, Chen, Li 2015.
    """
    lower, upper = number("rrelu", "lower", lower), number("rrelu", "upper", upper)
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise ArgumentError(f"rrelu: the bounds must be finite, got {lower} and {upper}.")
    if lower > upper:
        raise ArgumentError(f"rrelu: lower {lower} is larger than upper {upper}.")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    from .random import rand_like

    slope = pw.add(pw.mul(rand_like(input, generator=generator), upper - lower), lower)
    return _apply(pw.prelu, input, inplace, slope)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` of the two halves of ``input`` along ``dim``. Source: Dauphin, Fan, Auli, Grangier 2016."""
    require_tensors("glu", input=input)
    axis = one_dim("glu", dim, input._data.ndim)
    if input._data.ndim == 0 or input.shape[axis] % 2:
        raise ShapeError(f"glu: dim {dim} of shape {tuple(input.shape)} can't be halved.")
    half = input.shape[axis] // 2
    lead = (slice(None),) * axis
    first = slice_(input, key=(*lead, slice(0, half)))
    return gated(first, slice_(input, key=(*lead, slice(half, 2 * half))))


def gated(value: Tensor, gate: Tensor) -> Tensor:
    return pw.mul(value, pw.sigmoid(gate))


def _in_place(function: Any) -> Any:
    def form(input: Tensor, *numbers: Any, **named: Any) -> Tensor:
        return function(input, *numbers, **named, inplace=True)

    form.__name__ = form.__qualname__ = f"{function.__name__}_"
    form.__doc__ = f"In-place form of ``{function.__name__}``."
    return form


relu_, elu_, selu_, celu_ = (_in_place(f) for f in (relu, elu, selu, celu))
relu_ = calls(pw.relu, "x", alike=True, into=True, like=lambda input: None)(relu_)
leaky_relu_, hardtanh_, threshold_, rrelu_ = (_in_place(f) for f in (leaky_relu, hardtanh, threshold, rrelu))
for _function in (relu, relu_, prelu, hardshrink):
    install(_function)
