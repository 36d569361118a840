"""Initial values of weights, written in place: ``nn.init.kaiming_normal_(layer.weight)``.

Every function returns its tensor; none is recorded. ``generator`` gives the random numbers, the default one if None.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..errors import ShapeError
from ..limits import finfo
from ..ops.checks import integer, number, real, require_float, require_tensors
from ..ops.create import empty_like, from_numpy
from ..ops.pointwise import where
from ..ops.random import randn, randperm
from ..random import Generator
from ..tensor import Tensor

__all__ = [
    "calculate_gain", "constant", "constant_", "dirac", "dirac_", "eye", "eye_", "kaiming_normal", "kaiming_normal_",
    "kaiming_uniform", "kaiming_uniform_", "normal", "normal_", "ones_", "orthogonal", "orthogonal_", "sparse",
    "sparse_", "trunc_normal_", "uniform", "uniform_", "xavier_normal", "xavier_normal_", "xavier_uniform",
    "xavier_uniform_", "zeros_",
]  # fmt: skip


_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid",
)  # fmt: skip


def calculate_gain(nonlinearity: str, param: Any = None) -> float:
    """The factor on a layer's standard deviation that keeps the variance through this nonlinearity.

    Args:
        nonlinearity: "linear", "conv1d" to "conv3d", "conv_transpose1d" to "conv_transpose3d", "sigmoid", "tanh",
            "relu", "leaky_relu" or "selu".
        param: the negative slope of "leaky_relu"; 0.01 if None.
    Raises: ValueError for another name.
    """
    if not isinstance(nonlinearity, str):
        raise TypeError(f"calculate_gain: nonlinearity must be a name, got {nonlinearity!r}.")
    if nonlinearity in _LINEAR:
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
            raise ValueError(f"negative_slope {param} not a valid number")
        slope = 0.01 if param is None else real("calculate_gain", "negative_slope", param)
        return math.sqrt(2.0 / (1 + slope * slope))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(
        f"Unsupported nonlinearity {nonlinearity}; known are {', '.join(_LINEAR)}, tanh, relu, leaky_relu, selu."
    )


def fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs, outputs) of one unit of a weight (out, in, *kernel). Raises ShapeError below two dimensions."""
    require_tensors("nn.init", tensor=tensor)
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ShapeError(
            f"Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, got shape {shape}."
        )
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _fan(tensor: Tensor, mode: str) -> int:
    if not isinstance(mode, str):
        raise TypeError(f"Mode must be fan_in or fan_out, got {mode!r}.")
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of fan_in, fan_out.")
    return fans(tensor)[mode == "fan_out"]


# under the names that scripts take from PyTorch's file
_calculate_fan_in_and_fan_out, _calculate_correct_fan = fans, _fan


def _is_empty(tensor: Tensor) -> bool:
    """Whether there is nothing to fill, and no fan to divide by; said, as it is seldom meant."""
    require_tensors("nn.init", tensor=tensor)
    if 0 not in tensor.shape:
        return False
    warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
    return True


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in [a, b)."""
    require_tensors("uniform_", tensor=tensor)
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with this mean and standard deviation."""
    require_tensors("normal_", tensor=tensor)
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """The same value everywhere."""
    require_tensors("constant_", tensor=tensor)
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def _put(tensor: Tensor, values: np.ndarray[Any, Any]) -> Tensor:
    with no_grad():
        value: Any = from_numpy(np.ascontiguousarray(values))
        return tensor.copy_(value.to(tensor.device))


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix; raises ShapeError unless 2-dimensional."""
    require_tensors("eye_", tensor=tensor)
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: Only tensors with 2 dimensions are supported, got shape {tuple(tensor.shape)}.")
    return _put(tensor, np.eye(*tensor.shape, dtype=np.float32))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight (3 to 5 dimensions) that passes its input channels on unchanged, in each group."""
    require_tensors("dirac_", tensor=tensor)
    groups = integer("dirac_", "groups", groups)
    if groups < 1:
        raise ShapeError(f"dirac_: groups must be positive, got {groups}.")
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_: expected 3, 4 or 5 dimensions, got shape {tuple(tensor.shape)}.")
    if tensor.shape[0] % groups:
        raise ShapeError(f"dirac_: {tensor.shape[0]} output channels are not divisible by {groups} groups.")
    values = np.zeros(tuple(tensor.shape), dtype=np.float32)
    per_group = tensor.shape[0] // groups
    middle = tuple(size // 2 for size in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + channel, channel, *middle)] = 1
    return _put(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with variance ``gain**2 * 2 / (fan_in + fan_out)``. Source: Glorot and Bengio 2010."""
    bound = number("xavier_uniform_", "gain", gain) * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with variance ``gain**2 * 2 / (fan_in + fan_out)``. Source: Glorot and Bengio 2010."""
    gain = number("xavier_normal_", "gain", gain)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform with variance ``gain**2 / fan``, which keeps the variance of activations (fan_in) or gradients (fan_out).

    Args:
        a: the negative slope, with "leaky_relu".
    Source: He, Zhang, Ren, Sun 2015.
    """
    if _is_empty(tensor):
        return tensor
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal with variance ``gain**2 / fan``; see ``kaiming_uniform_``."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal with values outside of [a, b] drawn again.

    By the inverse of the distribution function where [a, b] holds much of the distribution, else by rejection.
    Raises ValueError for an empty interval. Warns if ``mean`` is more than 2 ``std`` away from it.
    """
    require_tensors("trunc_normal_", tensor=tensor)
    mean, std, a, b = (real("trunc_normal_", *pair) for pair in (("mean", mean), ("std", std), ("a", a), ("b", b)))
    if not a <= b:
        raise ValueError(f"trunc_normal_: the interval from {a} to {b} is empty.")
    if not std > 0 or mean != mean:
        raise ValueError(f"trunc_normal_: std must be positive and mean a number, got {std} and {mean}.")
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be "
            "incorrect.",
            stacklevel=2,
        )
    low, high = (0.5 * (1 + math.erf((bound - mean) / (std * math.sqrt(2)))) for bound in (a, b))
    x: Any = tensor
    with no_grad():
        if high - low > 0.3:
            x.uniform_(2 * low - 1, 2 * high - 1, generator=generator)
            largest = finfo(x.dtype).max
            x.erfinv_().mul_(std * math.sqrt(2)).add_(mean)
            return x.clamp_(max(a, -largest), min(b, largest))
        nearest = (max(a, min(mean, b)) - mean) / std
        peak = -0.5 * nearest * nearest  # of the density within the interval, its logarithm
        x.uniform_(a, b, generator=generator)
        rejected = _rejected(x, mean, std, peak, generator)
        while bool(rejected.any()):
            x.copy_(where(rejected, empty_like(x).uniform_(a, b, generator=generator), x))
            rejected = rejected & _rejected(x, mean, std, peak, generator)
        return x


def _rejected(x: Any, mean: float, std: float, peak: float, generator: Generator | None) -> Any:
    """Which values are to be drawn again, so that those that stay are as frequent as the normal density says."""
    return empty_like(x).uniform_(generator=generator).log() > ((x - mean) / std).square() * -0.5 - peak


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Rows (or columns, whichever are fewer) that are orthogonal; dimensions after the first are flattened.

    Raises ShapeError below two dimensions. Source: Saxe, McClelland, Ganguli 2013.
    """
    require_tensors("orthogonal_", tensor=tensor)
    require_float("orthogonal_", tensor._data, complex=True)
    gain = number("orthogonal_", "gain", gain)
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected at least 2 dimensions, got shape {tuple(tensor.shape)}.")
    if 0 in tensor.shape:
        return tensor
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    noise = randn(max(rows, columns), min(rows, columns), dtype="float64", generator=generator)
    q, r = np.linalg.qr(noise.numpy())
    q = q * np.sign(np.diag(r))  # makes the draw uniform among orthogonal matrices
    return _put(tensor, (gain * (q.T if rows < columns else q)).reshape(tuple(tensor.shape)))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal with a fraction ``sparsity`` of each column set to zero. Source: Martens 2010."""
    require_tensors("sparse_", tensor=tensor)
    if not 0 <= number("sparse_", "sparsity", sparsity) <= 1:
        raise ValueError(f"sparse_: sparsity must be from 0 to 1, got {sparsity}.")
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_: only tensors with 2 dimensions are supported, got shape {tuple(tensor.shape)}.")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    cleared = np.zeros((rows, columns), dtype=np.bool_)
    for column in range(columns):
        cleared[randperm(rows, generator=generator).numpy()[:zeros], column] = True
    normal_(tensor, 0.0, std, generator)
    with no_grad():
        return tensor.masked_fill_(from_numpy(cleared).to(tensor.device), 0)


def _older(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under its name without the underscore, which warns."""
    name = function.__name__

    def old(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"`nn.init.{name[:-1]}` is now deprecated in favor of `nn.init.{name}`.", FutureWarning, stacklevel=2
        )
        return function(*args, **kwargs)

    old.__name__ = old.__qualname__ = name[:-1]
    old.__doc__ = f"The older name of ``{name}``."
    return old


uniform, normal, constant = _older(uniform_), _older(normal_), _older(constant_)
eye, dirac = _older(eye_), _older(dirac_)
xavier_uniform, xavier_normal = _older(xavier_uniform_), _older(xavier_normal_)
kaiming_uniform, kaiming_normal = _older(kaiming_uniform_), _older(kaiming_normal_)
orthogonal, sparse = _older(orthogonal_), _older(sparse_)
