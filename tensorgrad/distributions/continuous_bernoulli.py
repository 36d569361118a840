"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..tensor import Size, Tensor
from . import constraints
from .bernoulli import ByProbsOrLogits
from .exp_family import ExponentialFamily
from .utils import batch_of, broadcast_all, clamp_probs

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(ByProbsOrLogits, ExponentialFamily):
    """On [0, 1], with density proportional to ``probs^x (1 - probs)^(1 - x)``.

    Args:
        lims: between these the formulas, which cancel at 1/2, are replaced by their Taylor series there.
    Source: Loaiza-Ganem and Cunningham 2019.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0.0

    def __init__(
        self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ):  # fmt: skip
        given = self._take(probs, logits)
        (value,) = broadcast_all(given)
        self._lims = lims
        self.__dict__[self._form] = clamp_probs(value) if self._form == "probs" else value
        super().__init__(batch_of(given, like=value), validate_args=validate_args)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    def _outside(self) -> Tensor:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _cut(self) -> Tensor:
        """Probabilities with those at which formulas cancel replaced by one nearby."""
        return tg.where(self._outside(), self.probs, self._lims[0])

    def _cont_bern_log_norm(self) -> Tensor:
        """``log(2 artanh(1 - 2 p) / (1 - 2 p))``."""
        cut = self._cut()
        low, high = tg.where(cut <= 0.5, cut, 0.0), tg.where(cut >= 0.5, cut, 1.0)
        exact = tg.log(tg.abs(tg.log1p(-cut) - tg.log(cut))) - tg.where(
            cut <= 0.5, tg.log1p(-2.0 * low), tg.log(2.0 * high - 1.0)
        )
        x = tg.pow(self.probs - 0.5, 2)
        return tg.where(self._outside(), exact, math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x)

    @property
    def mean(self) -> Tensor:
        cut = self._cut()
        exact = cut / (2.0 * cut - 1.0) + 1.0 / (tg.log1p(-cut) - tg.log(cut))
        x = self.probs - 0.5
        return tg.where(self._outside(), exact, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * tg.pow(x, 2)) * x)

    @property
    def variance(self) -> Tensor:
        cut = self._cut()
        exact = cut * (cut - 1.0) / tg.pow(1.0 - 2.0 * cut, 2) + 1.0 / tg.pow(tg.log1p(-cut) - tg.log(cut), 2)
        x = tg.pow(self.probs - 0.5, 2)
        return tg.where(self._outside(), exact, 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = tg.rand(self._extended_shape(sample_shape), dtype=self.probs.dtype, device=self.probs.device)
        return self.icdf(u)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        cross = tg.nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -cross + self._cont_bern_log_norm()

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        cut = self._cut()
        exact = (tg.pow(cut, value) * tg.pow(1.0 - cut, 1.0 - value) + cut - 1.0) / (2.0 * cut - 1.0)
        bounded = tg.where(self._outside(), exact, value)
        return tg.where(value <= 0.0, 0.0, tg.where(value >= 1.0, 1.0, bounded))

    def icdf(self, value: Tensor) -> Tensor:
        cut = self._cut()
        exact = (tg.log1p(-cut + value * (2.0 * cut - 1.0)) - tg.log1p(-cut)) / (tg.log(cut) - tg.log1p(-cut))
        return tg.where(self._outside(), exact, value)

    def entropy(self) -> Tensor:
        rest, own = tg.log1p(-self.probs), tg.log(self.probs)
        return self.mean * (rest - own) - self._cont_bern_log_norm() - rest

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """``log((e^x - 1) / x)``, by its series about 0."""
        low = math.log(self._lims[0] / (1 - self._lims[0]))
        outside = x.abs() > abs(low)
        cut = tg.where(outside, x, 1.0)
        exact = tg.log(tg.abs(tg.expm1(cut))) - tg.log(tg.abs(cut))
        return tg.where(outside, exact, 0.5 * x + x.pow(2) / 24.0 - x.pow(4) / 2880.0)
