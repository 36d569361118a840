"""The Dirichlet distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorgrad as tg

from ..ops.checks import require_tensors
from ..tensor import Tensor
from . import constraints
from .exp_family import ExponentialFamily
from .utils import tiny_of

__all__ = ["Dirichlet"]


class Dirichlet(ExponentialFamily):
    """Dirichlet over the simplex, with the positive vector ``concentration``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        require_tensors("Dirichlet", concentration=concentration)
        if concentration.dim() < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Normalized gamma numbers, in float64 so that small concentrations keep digits; their derivatives are the
        gamma numbers' implicit ones."""
        wide = self.concentration.double().expand(self._extended_shape(sample_shape))
        parts = tg._standard_gamma(wide)
        share = (parts / parts.sum(-1, keepdim=True)).to(self.concentration.dtype)
        low = tiny_of(share)
        return share + (share.detach().clamp(min=low, max=1 - 2.0**-24) - share.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return tg.xlogy(a - 1.0, value).sum(-1) + tg.lgamma(a.sum(-1)) - tg.lgamma(a).sum(-1)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        above = (self.concentration - 1).clamp(min=0.0)
        mode = above / above.sum(-1, True)
        flat = (self.concentration < 1).all(-1, keepdim=True)  # then it is at the corner of the largest
        corner = tg.nn.functional.one_hot(mode.nan_to_num().argmax(-1), above.shape[-1]).to(mode.dtype)
        return tg.where(flat, corner, mode)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def entropy(self) -> Tensor:
        a = self.concentration
        k, total = a.shape[-1], a.sum(-1)
        return (
            tg.lgamma(a).sum(-1)
            - tg.lgamma(total)
            - (k - total) * tg.digamma(total)
            - ((a - 1.0) * tg.digamma(a)).sum(-1)
        )

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return (self.concentration,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.lgamma().sum(-1) - tg.lgamma(x.sum(-1))
