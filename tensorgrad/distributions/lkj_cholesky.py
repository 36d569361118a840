"""Cholesky factors of random correlation matrices."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..autograd.grad_mode import no_grad
from ..ops.checks import integer
from ..tensor import Size, Tensor
from . import constraints
from .beta import Beta
from .distribution import Distribution
from .utils import as_size, batch_of, broadcast_all, tiny_of

__all__ = ["LKJCholesky"]


class LKJCholesky(Distribution):
    """Lower Cholesky factors of ``dim`` x ``dim`` correlation matrices M of density proportional to
    ``det(M) ^ (concentration - 1)``; uniform over correlation matrices at 1.

    Source: Lewandowski, Kurowicka, Joe 2009 (the onion method).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None):
        dim = integer("LKJCholesky", "dim", dim)
        if dim < 2:
            raise ValueError(f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}.")
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        batch = batch_of(concentration, like=self.concentration)
        self._beta = self._row_lengths()
        super().__init__(batch, Size((dim, dim)), validate_args=validate_args)

    def _row_lengths(self) -> Beta:
        """The squared length of each row before its diagonal, from the second row on."""
        like: dict[str, Any] = {"dtype": self.concentration.dtype, "device": self.concentration.device}
        before = tg.arange(self.dim - 1, **like)
        one = (before + 1) / 2
        margin = self.concentration + 0.5 * (self.dim - 2)
        return Beta(one, margin.unsqueeze(-1) - 0.5 * before, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance)
        new._batch_shape = as_size(batch_shape)
        new._beta = new._row_lengths()
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            y = self._beta.sample(sample_shape).unsqueeze(-1)
            shape = self._extended_shape(sample_shape)
            like: dict[str, Any] = {"dtype": self.concentration.dtype, "device": self.concentration.device}
            direction = tg.randn(shape, **like).tril(-1)[..., 1:, :]
            direction = direction / direction.norm(dim=-1, keepdim=True)
            rows = tg.nn.functional.pad(y.sqrt() * direction, [0, 0, 1, 0])
            left = (1 - (rows**2).sum(-1)).clamp(min=tiny_of(rows))
            return rows + left.sqrt().diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        diagonal = value.diagonal(dim1=-1, dim2=-2)[..., 1:]
        order = tg.arange(2, self.dim + 1, device=self.concentration.device)
        order = 2 * (self.concentration - 1).unsqueeze(-1) + self.dim - order
        unnormalized = (order * diagonal.log()).sum(-1)
        n = self.dim - 1
        alpha = self.concentration + 0.5 * n
        denominator = tg.lgamma(alpha) * n
        numerator = tg.special.multigammaln(alpha - 0.5, n)
        return unnormalized - (0.5 * n * math.log(math.pi) + numerator - denominator)
