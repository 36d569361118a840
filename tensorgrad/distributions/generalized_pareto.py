"""The generalized Pareto distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import batch_of, broadcast_all

__all__ = ["GeneralizedPareto"]

_EXPONENTIAL = 1e-8  # concentrations closer to zero are taken for it: the formulas' limit is an exponential tail


class GeneralizedPareto(Distribution):
    """What lies above a threshold ``loc``: tails of index ``1 / concentration``, exponential ones at zero, and bounded
    by ``loc - scale / concentration`` below.

    Source: Pickands 1975.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real,
    }  # fmt: skip
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(batch_of(loc, scale, concentration, like=self.loc), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        below = self.concentration < 0
        end = self.loc - self.scale / tg.where(below, self.concentration, -1.0)
        return constraints.interval(self.loc, tg.where(below, end, math.inf))

    def _split(self) -> tuple[Tensor, Tensor]:
        """(whether the tail is exponential, the concentration made safe to divide by)."""
        flat = self.concentration.abs() < _EXPONENTIAL
        return flat, tg.where(flat, 1.0, self.concentration)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.icdf(tg.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def log_survival_function(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of what is above ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        flat, c = self._split()
        z = (value - self.loc) / self.scale
        return tg.where(flat, -z, -tg.log1p(c * z) / c)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        flat, c = self._split()
        z = (value - self.loc) / self.scale
        return tg.where(flat, -z, -(1 + 1 / c) * tg.log1p(c * z)) - self.scale.log()

    def log_cdf(self, value: Tensor) -> Tensor:
        """The logarithm of ``cdf``."""
        return tg.log1p(-tg.exp(self.log_survival_function(value)))

    def cdf(self, value: Tensor) -> Tensor:
        return -tg.expm1(self.log_survival_function(value))

    def icdf(self, value: Tensor) -> Tensor:
        flat, c = self._split()
        log_rest = tg.log1p(-value)
        return self.loc + self.scale * tg.where(flat, -log_rest, tg.expm1(-c * log_rest) / c)

    @property
    def mean(self) -> Tensor:
        c = self.concentration
        return tg.where(c < 1, self.loc + self.scale / tg.where(c < 1, 1 - c, 1.0), math.nan)

    @property
    def variance(self) -> Tensor:
        held = self.concentration < 0.5
        c = tg.where(held, self.concentration, 0.0)
        return tg.where(held, self.scale.pow(2) / ((1 - c).pow(2) * (1 - 2 * c)), math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    def entropy(self) -> Tensor:
        return self.scale.log() + self.concentration + 1
