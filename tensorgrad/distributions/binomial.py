"""The binomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import everywhere
from ..tensor import Size, Tensor
from . import constraints
from .bernoulli import ByProbsOrLogits
from .utils import broadcast_all

__all__ = ["Binomial"]


class Binomial(ByProbsOrLogits):
    """The number of successes in ``total_count`` trials with probability ``probs``, or log odds ``logits``."""

    arg_constraints: ClassVar[dict[str, Any]] = {
        "total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval, "logits": constraints.real,
    }  # fmt: skip
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = self._take(probs, logits)
        self.total_count, self.__dict__[self._form] = broadcast_all(total_count, given)
        self.total_count = self.total_count.type_as(self._param)
        super().__init__(self._param.size(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = self._extended_shape(sample_shape)
            return tg.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n = self.total_count
        ways = tg.lgamma(n + 1) - tg.lgamma(value + 1) - tg.lgamma(n - value + 1)
        return value * self.logits + ways - n * tg.nn.functional.softplus(self.logits)

    def entropy(self) -> Tensor:
        """The sum over all outcomes, for one common ``total_count``."""
        n = int(self.total_count.max())
        if not everywhere(self.total_count == n):
            raise NotImplementedError("Inhomogeneous total count not supported by `entropy`.")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(tg.exp(log_prob) * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = int(self.total_count.max())
        if not everywhere(self.total_count == n):
            raise NotImplementedError("Inhomogeneous total count not supported by `enumerate_support`.")
        values = tg.arange(1 + n, dtype=self._param.dtype, device=self._param.device)
        values = values.view((-1, *(1,) * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values
