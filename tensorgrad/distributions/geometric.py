"""The geometric distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import everywhere
from ..tensor import Tensor
from . import constraints
from .bernoulli import ByProbsOrLogits
from .utils import batch_of, broadcast_all, tiny_of

__all__ = ["Geometric"]


class Geometric(ByProbsOrLogits):
    """The number of failures before the first success of trials with probability ``probs``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        given = self._take(probs, logits)
        (self.__dict__[self._form],) = broadcast_all(given)
        super().__init__(batch_of(given, like=self._param), validate_args=validate_args)
        if self._validate_args and probs is not None and not everywhere(self.probs > 0):
            raise ValueError(
                f"Expected parameter probs ({type(self.probs).__name__} of shape {tuple(self.probs.shape)}) of "
                f"distribution {self!r} to be positive but found invalid values:\n{self.probs}"
            )

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return tg.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = self._extended_shape(sample_shape)
            u = tg.rand(shape, dtype=self.probs.dtype, device=self.probs.device).clamp(min=tiny_of(self.probs))
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        certain = (probs == 1) & (value == 0)
        return value * (-tg.where(certain, 0.0, probs)).log1p() + self.probs.log()

    def entropy(self) -> Tensor:
        per_trial = tg.nn.functional.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")
        return per_trial / self.probs
