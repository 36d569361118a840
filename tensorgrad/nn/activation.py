"""Activation layers: a function of ``nn.functional`` and the settings it is called with."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from ..errors import ShapeError
from ..ops.checks import number, real
from ..ops.create import full
from ..tensor import Tensor
from . import functional as F
from .module import Module
from .parameter import Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]  # fmt: skip


class _Activation(Module):
    """A function without weights. Its settings are the parameters of ``__init__``, kept under the same names, and
    passed to the function by name."""

    function: Any
    settings: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__init__")
        if own is not None:
            names = tuple(inspect.signature(own).parameters)[1:]
            cls.settings = tuple(name for name in names if name not in ("min_value", "max_value"))

    def _keep(self, **settings: Any) -> None:
        super().__init__()
        self.__dict__.update(settings)

    def forward(self, input: Tensor) -> Tensor:
        own = self.__dict__
        return type(self).function(input, **{name: own[name] for name in self.settings})

    def extra_repr(self) -> str:
        own = self.__dict__
        return ", ".join(f"{name}={own[name]!r}" for name in self.settings if name != "inplace" or own[name])


class _Plain(_Activation):
    """A function without settings."""

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input)


class _InPlace(_Activation):
    """A function that may overwrite its input."""

    def __init__(self, inplace: bool = False) -> None:
        self._keep(inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """``max(x, 0)``."""

    function = F.relu


class ReLU6(_InPlace):
    """``min(max(x, 0), 6)``."""

    function = F.relu6


class SELU(_InPlace):
    """Scaled ELU. Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017."""

    function = F.selu


class SiLU(_InPlace):
    """``x * sigmoid(x)``."""

    function = F.silu


class Mish(_InPlace):
    """``x * tanh(softplus(x))``. Source: Misra 2019."""

    function = F.mish


class Hardswish(_InPlace):
    """``x * relu6(x + 3) / 6``. Source: Howard et al. 2019."""

    function = F.hardswish


class Hardsigmoid(_InPlace):
    """``relu6(x + 3) / 6``."""

    function = F.hardsigmoid


class Sigmoid(_Plain):
    """``1 / (1 + exp(-x))``."""

    function = F.sigmoid


class Tanh(_Plain):
    """The hyperbolic tangent."""

    function = F.tanh


class LogSigmoid(_Plain):
    """``log(sigmoid(x))``."""

    function = F.logsigmoid


class Softsign(_Plain):
    """``x / (1 + |x|)``."""

    function = F.softsign


class Tanhshrink(_Plain):
    """``x - tanh(x)``."""

    function = F.tanhshrink


class LeakyReLU(_Activation):
    """``x`` where positive, ``negative_slope * x`` elsewhere."""

    function = F.leaky_relu

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self._keep(negative_slope=negative_slope, inplace=inplace)


class ELU(_Activation):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere. Source: Clevert, Unterthiner, Hochreiter 2015."""

    function = F.elu

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self._keep(alpha=alpha, inplace=inplace)


class CELU(_Activation):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``. Source: Barron 2017."""

    function = F.celu

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self._keep(alpha=alpha, inplace=inplace)


class GELU(_Activation):
    """``x`` times the normal distribution function at ``x``, or its "tanh" approximation."""

    function = F.gelu

    def __init__(self, approximate: str = "none") -> None:
        self._keep(approximate=approximate)


class GLU(_Activation):
    """The first half along ``dim`` times the sigmoid of the second half."""

    function = F.glu

    def __init__(self, dim: int = -1) -> None:
        self._keep(dim=dim)


class Hardtanh(_Activation):
    """``x`` limited to [min_val, max_val]."""

    function = F.hardtanh

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:  # fmt: skip
        if min_value is not None or max_value is not None:
            warnings.warn(
                "Hardtanh: min_value and max_value are deprecated; write min_val and max_val.",
                FutureWarning,
                stacklevel=2,
            )
            min_val = min_val if min_value is None else min_value
            max_val = max_val if max_value is None else max_value
        if not number("Hardtanh", "min_val", min_val) < number("Hardtanh", "max_val", max_val):
            raise ValueError(f"Hardtanh: min_val {min_val} must be smaller than max_val {max_val}.")
        self._keep(min_val=min_val, max_val=max_val, inplace=inplace)


class _Lambda(_Activation):
    def __init__(self, lambd: float = 0.5) -> None:
        self._keep(lambd=lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Lambda):
    """``x`` where ``|x| > lambd``, 0 elsewhere."""

    function = F.hardshrink


class Softshrink(_Lambda):
    """``x`` moved towards 0 by ``lambd``, 0 where it would cross."""

    function = F.softshrink


class Softplus(_Activation):
    """``log(1 + exp(beta * x)) / beta``; ``x`` itself where ``beta * x`` is above ``threshold``."""

    function = F.softplus

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self._keep(beta=beta, threshold=threshold)


class Threshold(_Activation):
    """``x`` where above ``threshold``, ``value`` elsewhere."""

    function = F.threshold

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self._keep(threshold=threshold, value=value, inplace=inplace)


class RReLU(_Activation):
    """Leaky ReLU whose slope is drawn per element in training, and the middle of its range in evaluation."""

    function = F.rrelu

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        self._keep(lower=lower, upper=upper, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class _AlongDim(_Activation):
    def __init__(self, dim: int | None = None) -> None:
        if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int)):
            raise TypeError(f"dim must be an int or None, got {type(dim)}")
        self._keep(dim=dim)


class Softmax(_AlongDim):
    """Exponentials along ``dim`` scaled to sum to one."""

    function = F.softmax


class LogSoftmax(_AlongDim):
    """The logarithm of softmax along ``dim``."""

    function = F.log_softmax


class Softmin(_AlongDim):
    """Softmax of the negated input along ``dim``."""

    function = F.softmin


class Softmax2d(_Plain):
    """Softmax over the channels of (n, c, h, w) or (c, h, w)."""

    @staticmethod
    def function(input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)


class PReLU(Module):
    """Leaky ReLU with a learned slope, one for all or one per channel. Source: He, Zhang, Ren, Sun 2015."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), real("PReLU", "init", init), dtype=dtype, device=device))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
