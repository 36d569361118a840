"""The Bernoulli distribution, and what distributions given by probabilities or logits share."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..tensor import Size, Tensor
from . import constraints
from .distribution import Distribution
from .exp_family import ExponentialFamily
from .utils import batch_of, broadcast_all, lazy_property, logits_to_probs, probs_to_logits

__all__ = ["Bernoulli"]


class ByProbsOrLogits(Distribution):
    """A distribution with a parameter in two forms, of which exactly one is given; the other is computed when asked
    for."""

    _is_binary = True

    def _take(self, probs: Any, logits: Any) -> Any:
        """Keep the form that was given. Raises ValueError for both or neither."""
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        self._form = "logits" if probs is None else "probs"
        return logits if probs is None else probs

    def _given(self) -> tuple[str, ...]:
        return (self._form,)

    @property
    def _param(self) -> Tensor:
        return self.__dict__[self._form]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        other = "probs" if self._form == "logits" else "logits"
        new.__dict__.pop(other, None)
        return new

    @lazy_property
    def logits(self) -> Tensor:
        return probs_to_logits(self.probs, is_binary=self._is_binary)

    @lazy_property
    def probs(self) -> Tensor:
        return logits_to_probs(self.logits, is_binary=self._is_binary)


class Bernoulli(ByProbsOrLogits, ExponentialFamily):
    """One with probability ``probs``, else zero; ``logits`` are the log odds.

    Example:
        >>> import tensorgrad as tg
        >>> tg.distributions.Bernoulli(tg.tensor([0.25, 0.75])).log_prob(tg.tensor(1.0)).exp()
        tensor([0.2500, 0.7500])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _mean_carrier_measure = 0.0

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = self._take(probs, logits)
        (self.__dict__[self._form],) = broadcast_all(given)
        super().__init__(batch_of(given, like=self._param), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        mode = (self.probs >= 0.5).to(self.probs)
        return tg.where(self.probs == 0.5, float("nan"), mode)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return tg.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -tg.nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return tg.nn.functional.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = tg.arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view((-1, *(1,) * len(self._batch_shape)))
        return values.expand((-1, *self._batch_shape)) if expand else values

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (tg.logit(self.probs),)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return tg.log1p(tg.exp(x))
