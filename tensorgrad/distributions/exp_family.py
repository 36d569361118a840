"""Exponential families: ``p(x) = h(x) exp(<t(x), theta> - F(theta))``."""

from __future__ import annotations

from typing import Any

import tensorgrad as tg

from ..autograd.grad_mode import enable_grad
from ..autograd.grad_mode import state as grad_state
from ..tensor import Tensor
from .distribution import Distribution
from .utils import sum_rightmost

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """A distribution that knows its natural parameters and log normalizer, from which entropy and divergence follow."""

    _mean_carrier_measure: Any = 0.0  # the mean of log h(x)

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not give its natural parameters")

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not give its log normalizer")

    def _slopes(self) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        """Natural parameters, the log normalizer, and its gradient in them: the mean of t(x)."""
        create = grad_state.recording
        with enable_grad():
            given = self._natural_params
            params = tuple([p.view_as(p) if create and p.requires_grad else p.detach().requires_grad_() for p in given])
            normalizer = self._log_normalizer(*params)
            slopes: Any = tg.autograd.grad(normalizer.sum(), params, create_graph=create)
        return params, normalizer, slopes

    def entropy(self) -> Tensor:
        """``F - <grad F, theta> - mean of log h`` (a Bregman divergence of the log normalizer)."""
        params, normalizer, slopes = self._slopes()
        result = normalizer - self._mean_carrier_measure
        for theta, slope in zip(params, slopes, strict=True):
            rank = theta.dim() - normalizer.dim()
            result = result - sum_rightmost(theta * slope, rank)
        return result if grad_state.recording else result.detach()
