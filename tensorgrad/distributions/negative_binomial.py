"""The negative binomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..tensor import Size, Tensor
from . import constraints
from .bernoulli import ByProbsOrLogits
from .utils import broadcast_all

__all__ = ["NegativeBinomial"]


class NegativeBinomial(ByProbsOrLogits):
    """The number of successes, of probability ``probs`` each, before ``total_count`` failures."""

    arg_constraints: ClassVar[dict[str, Any]] = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = self._take(probs, logits)
        self.total_count, self.__dict__[self._form] = broadcast_all(total_count, given)
        self.total_count = self.total_count.type_as(self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        return self.total_count * tg.exp(self.logits)

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / tg.sigmoid(-self.logits)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Poisson numbers whose rates are gamma distributed."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            rate = tg._standard_gamma(self.total_count.expand(shape)) * tg.exp(self.logits)
            return tg.poisson(rate)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n, logsigmoid = self.total_count, tg.nn.functional.logsigmoid
        unnormalized = n * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        normalizer = tg.lgamma(1.0 + value) + tg.lgamma(n) - tg.lgamma(n + value)
        # no failures to wait for: zero for certain
        return unnormalized - normalizer.masked_fill(n + value == 0.0, 0.0)
