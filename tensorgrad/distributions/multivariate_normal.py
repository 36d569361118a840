"""The multivariate normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..ops.checks import require_tensors
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import as_size, lazy_property

__all__ = ["MultivariateNormal"]


def mahalanobis(factor: Tensor, x: Tensor) -> Tensor:
    """``|L^-1 x|^2`` of vectors x (..., n) and lower triangular factors L (..., n, n), broadcast."""
    solved = tg.linalg.solve_triangular(factor, x.unsqueeze(-1), upper=False)
    return solved.squeeze(-1).pow(2).sum(-1)


def factor_of_precision(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of the inverse of P: with P read backwards as M M^T, it is M^-T read backwards."""
    backwards = tg.linalg.cholesky(precision.flip((-2, -1)))
    transposed = backwards.flip((-2, -1)).mT
    one = tg.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return tg.linalg.solve_triangular(transposed, one.expand(transposed.shape), upper=False)


class MultivariateNormal(Distribution):
    """Normal vectors with mean ``loc`` (..., n), and one of: ``covariance_matrix``, ``precision_matrix`` (its inverse),
    or ``scale_tril``, its lower Cholesky factor.

    Example:
        >>> import tensorgrad as tg
        >>> d = tg.distributions.MultivariateNormal(tg.zeros(2), tg.eye(2))
        >>> d.log_prob(tg.zeros(2)).item()
        -1.8378770351409912
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, covariance_matrix: Any = None, precision_matrix: Any = None, scale_tril: Any = None,
        validate_args: bool | None = None,
    ):  # fmt: skip
        require_tensors("MultivariateNormal", loc=loc)
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "scale_tril": scale_tril, "precision_matrix": precision_matrix}
        present = {name: matrix for name, matrix in given.items() if matrix is not None}
        if len(present) != 1:
            raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        require_tensors("MultivariateNormal", **present)
        ((self._form, matrix),) = present.items()
        if matrix.dim() < 2:
            raise ValueError(f"{self._form} must be at least two-dimensional, with optional leading batch dimensions")
        from ..ops.elementwise import broadcast_shape

        batch = broadcast_shape("MultivariateNormal", tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        self.__dict__[self._form] = matrix.expand((*batch, -1, -1))
        self.loc = loc.expand((*batch, -1))
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)
        if self._form == "scale_tril":
            self._unbroadcasted_scale_tril = matrix
        elif self._form == "covariance_matrix":
            self._unbroadcasted_scale_tril = tg.linalg.cholesky(matrix)
        else:
            self._unbroadcasted_scale_tril = factor_of_precision(matrix)

    def _given(self) -> tuple[str, ...]:
        return (self._form,)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._like(_instance)
        shape = as_size(batch_shape)
        new._batch_shape = shape
        new.loc = self.loc.expand((*shape, *self.event_shape))
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in new.__dict__:
                new.__dict__[name] = new.__dict__[name].expand((*shape, *self.event_shape, *self.event_shape))
        return new

    def _full(self, matrix: Tensor) -> Tensor:
        return matrix.expand((*self._batch_shape, *self._event_shape, *self._event_shape))

    @lazy_property
    def scale_tril(self) -> Tensor:
        return self._full(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        factor = self._unbroadcasted_scale_tril
        return self._full(factor @ factor.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        return self._full(tg.cholesky_inverse(self._unbroadcasted_scale_tril))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._unbroadcasted_scale_tril.pow(2).sum(-1).expand((*self._batch_shape, *self._event_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise = tg.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self._unbroadcasted_scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def _half_log_det(self) -> Tensor:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        distance = mahalanobis(self._unbroadcasted_scale_tril, value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - self._half_log_det()

    def entropy(self) -> Tensor:
        entropy = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._half_log_det()
        return entropy.expand(self._batch_shape)
