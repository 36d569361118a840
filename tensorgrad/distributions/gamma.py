"""The gamma distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..tensor import Tensor
from . import constraints
from .exp_family import ExponentialFamily
from .utils import batch_of, broadcast_all, tiny_of

__all__ = ["Gamma"]


class Gamma(ExponentialFamily):
    """Gamma with shape ``concentration`` and ``rate``; samples are differentiable in both."""

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    _mean_carrier_measure = 0.0

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self.concentration, self.rate = broadcast_all(concentration, rate)
        batch = batch_of(concentration, rate, like=self.concentration)
        super().__init__(batch, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.pow(2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        value = tg._standard_gamma(self.concentration.expand(shape)) / self.rate.expand(shape)
        return _at_least(value, tiny_of(value))  # zero is outside of the density's logarithm

    def log_prob(self, value: Tensor) -> Tensor:
        value = tg.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device)
        if self._validate_args:
            self._validate_sample(value)
        return (
            tg.xlogy(self.concentration, self.rate)
            + tg.xlogy(self.concentration - 1, value)
            - self.rate * value
            - tg.lgamma(self.concentration)
        )

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - tg.log(self.rate) + tg.lgamma(a) + (1.0 - a) * tg.digamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return tg.special.gammainc(self.concentration, self.rate * value)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return self.concentration - 1, -self.rate

    def _log_normalizer(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return tg.lgamma(x + 1) + (x + 1) * tg.log(-y.reciprocal())


def _at_least(value: Tensor, low: float) -> Tensor:
    """``value`` with smaller elements replaced by ``low``, whose gradient is that of the value."""
    return value + (value.detach().clamp(min=low) - value.detach())
