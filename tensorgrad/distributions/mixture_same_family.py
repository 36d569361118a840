"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..tensor import Size, Tensor
from . import constraints
from .categorical import Categorical
from .distribution import Distribution
from .utils import as_size

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """The mixture of the components along the last batch dimension of ``component_distribution``.

    Args:
        mixture_distribution: a Categorical over the components.
    Raises: ValueError if the two do not go together.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution, validate_args: bool | None = None
    ):
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(" The Mixture distribution needs to be an  instance of torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution need to be an instance of torch.distributions.Distribution")
        mixed, parts = mixture_distribution.batch_shape, component_distribution.batch_shape[:-1]
        for a, b in zip(reversed(mixed), reversed(parts), strict=False):
            if a != 1 and b != 1 and a != b:
                raise ValueError(
                    f"`mixture_distribution.batch_shape` ({mixed}) is not compatible with "
                    f"`component_distribution.batch_shape`({parts})"
                )
        have, want = mixture_distribution.logits.shape[-1], component_distribution.batch_shape[-1]
        if have != want:
            raise ValueError(
                f"`mixture_distribution component` ({have}) does not equal `component_distribution.batch_shape[-1]` "
                f"({want})"
            )
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        self._num_component = want
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(parts, component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._like(_instance)
        shape = as_size(batch_shape)
        new._component_distribution = self._component_distribution.expand(Size((*shape, self._num_component)))
        new._mixture_distribution = self._mixture_distribution.expand(shape)
        new._batch_shape = shape
        return new

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    @property
    def mixture_distribution(self) -> Categorical:
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        return self._component_distribution

    def _event_like(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape, *(1,) * self._event_ndims)

    def _pad(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1 - self._event_ndims)

    @property
    def mean(self) -> Tensor:
        weights = self._event_like(self.mixture_distribution.probs)
        return (weights * self.component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        """Within the components, and of their means."""
        weights, dim = self._event_like(self.mixture_distribution.probs), -1 - self._event_ndims
        within = (weights * self.component_distribution.variance).sum(dim)
        away = self.component_distribution.mean - self._pad(self.mean)
        return within + (weights * away.pow(2.0)).sum(dim)

    def cdf(self, x: Tensor) -> Tensor:
        x = self._pad(x)
        return (self.component_distribution.cdf(x) * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(x)
        each = self.component_distribution.log_prob(self._pad(x))
        return tg.logsumexp(each + tg.log_softmax(self.mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = as_size(sample_shape)
            chosen = self.mixture_distribution.sample(shape)
            parts = self.component_distribution.sample(shape)
            dim = len(shape) + len(self.batch_shape)
            index = chosen.expand((*shape, *self.batch_shape)).unsqueeze(-1)
            index = self._event_like(index).expand((*shape, *self.batch_shape, 1, *self.event_shape))
            return tg.gather(parts, dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"
