"""The multinomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..tensor import Size, Tensor
from . import constraints
from .binomial import Binomial
from .categorical import Categorical
from .distribution import Distribution
from .utils import as_size, broadcast_all

__all__ = ["Multinomial"]


class Multinomial(Distribution):
    """How often each of n events happens in ``total_count`` independent trials (one number for the whole batch)."""

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs=probs, logits=logits)
        self._binomial = Binomial(total_count=total_count, probs=self.probs)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._like(_instance)
        new._batch_shape = as_size(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        new._binomial = Binomial(total_count=self.total_count, probs=new._categorical.probs, validate_args=False)
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @property
    def logits(self) -> Tensor:
        return self._categorical.logits

    @property
    def probs(self) -> Tensor:
        return self._categorical.probs

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def param_shape(self) -> Size:
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = as_size(sample_shape)
            trials = self._categorical.sample((self.total_count, *shape))
            trials = trials.movedim(0, -1)  # the trials of each sample beside each other
            counts = self._param.new_zeros(self._extended_shape(shape))
            return counts.scatter_add(-1, trials, tg.ones_like(trials, dtype=counts.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        logits = tg.where((value == 0) & (logits == -float("inf")), 0.0, logits)
        ways = tg.lgamma(value.sum(-1) + 1) - tg.lgamma(value + 1).sum(-1)
        return ways + (logits * value).sum(-1)

    def entropy(self) -> Tensor:
        n = tg.tensor(float(self.total_count), dtype=self.probs.dtype, device=self.probs.device)
        each = self._categorical.entropy()
        support = self._binomial.enumerate_support(expand=False)[1:]
        log_prob = tg.exp(self._binomial.log_prob(support))
        weights = (log_prob * tg.lgamma(support + 1)).sum((0, -1))
        return n * each - tg.lgamma(n + 1) + weights
