"""The Wishart distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..ops.checks import everywhere, real, require_tensors
from ..tensor import Size, Tensor
from . import constraints
from .exp_family import ExponentialFamily
from .multivariate_normal import factor_of_precision
from .utils import as_size, lazy_property

__all__ = ["Wishart"]


class Wishart(ExponentialFamily):
    """Sums of ``df`` outer products of normal vectors: positive definite (n, n) matrices of mean ``df * covariance``.

    Args:
        df: greater than n - 1.
        covariance_matrix, precision_matrix, scale_tril: one of them, as for ``MultivariateNormal``.
    Source: Bartlett 1933, for the samples.
    """

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0.0
    arg_constraints: ClassVar[dict[str, Any]] = {
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
        "df": constraints.greater_than(0),
    }

    def __init__(
        self, df: Any, covariance_matrix: Any = None, precision_matrix: Any = None, scale_tril: Any = None,
        validate_args: bool | None = None,
    ):  # fmt: skip
        given = {"covariance_matrix": covariance_matrix, "scale_tril": scale_tril, "precision_matrix": precision_matrix}
        present = {name: matrix for name, matrix in given.items() if matrix is not None}
        if len(present) != 1:
            raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        require_tensors("Wishart", **present)
        ((self._form, matrix),) = present.items()
        if matrix.dim() < 2:
            raise ValueError("scale_tril must be at least two-dimensional, with optional leading batch dimensions")
        df = (
            df
            if isinstance(df, Tensor)
            else tg.tensor(real("Wishart", "df", df), dtype=matrix.dtype, device=matrix.device)
        )
        batch = tg.broadcast_shapes(matrix.shape[:-2], df.shape)
        n = int(matrix.shape[-1])
        self.__dict__[self._form] = matrix.expand((*batch, n, n))
        self.df = df.expand(batch)
        if not everywhere(tg.gt(self.df, n - 1)):
            raise ValueError(f"Value of df={self.df} expected to be greater than ndim - 1 = {n - 1}.")
        super().__init__(batch, Size((n, n)), validate_args=validate_args)
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
        new.df = self.df.expand(shape)
        for name in ("covariance_matrix", "scale_tril", "precision_matrix"):
            if name in new.__dict__:
                new.__dict__[name] = new.__dict__[name].expand((*shape, *self.event_shape))
        return new

    def _full(self, matrix: Tensor) -> Tensor:
        return matrix.expand((*self._batch_shape, *self._event_shape))

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
        return self.df.reshape((*self._batch_shape, 1, 1)) * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self.df - self._event_shape[-1] - 1
        factor = tg.where(factor > 0, factor, math.nan)
        return factor.reshape((*self._batch_shape, 1, 1)) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        matrix = self.covariance_matrix
        own = matrix.diagonal(dim1=-2, dim2=-1)
        return self.df.reshape((*self._batch_shape, 1, 1)) * (matrix.pow(2) + own.unsqueeze(-1) * own.unsqueeze(-2))

    def rsample(self, sample_shape: Any = (), max_try_correction: Any = None) -> Tensor:
        """Bartlett's decomposition: ``L A A^T L^T`` with chi numbers on the diagonal of A and normal ones below.

        ``max_try_correction`` bounds how often a sample that rounding made singular is drawn anew in PyTorch; here the
        diagonal is never zero, and it must be None.
        """
        if max_try_correction is not None:
            raise ValueError("Wishart.rsample: max_try_correction is not supported; samples are not drawn again.")
        n = self._event_shape[-1]
        shape = self._extended_shape(sample_shape)
        like: dict[str, Any] = {"dtype": self.df.dtype, "device": self.df.device}
        degrees = self.df.unsqueeze(-1) - tg.arange(n, **like)
        chi = (2 * tg._standard_gamma((degrees / 2).expand(shape[:-1]))).sqrt()
        below = tg.randn(shape, **like).tril(-1)
        root = self._unbroadcasted_scale_tril @ (below + chi.diag_embed())
        return root @ root.mT

    def _half_log_det(self) -> Tensor:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n, df = self._event_shape[-1], self.df
        solved = tg.cholesky_solve(value, self._full(self._unbroadcasted_scale_tril).expand(value.shape))
        trace = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        normalizer = 0.5 * df * n * math.log(2) + df * self._half_log_det() + tg.special.multigammaln(df / 2, n)
        return -normalizer + 0.5 * (df - n - 1) * tg.linalg.slogdet(value).logabsdet - 0.5 * trace

    def _mean_log_det(self) -> Tensor:
        n = self._event_shape[-1]
        halves = (self.df.unsqueeze(-1) - tg.arange(n, dtype=self.df.dtype, device=self.df.device)) / 2
        return tg.digamma(halves).sum(-1) + n * math.log(2) + 2 * self._half_log_det()

    def entropy(self) -> Tensor:
        n, df = self._event_shape[-1], self.df
        normalizer = 0.5 * df * n * math.log(2) + df * self._half_log_det() + tg.special.multigammaln(df / 2, n)
        return normalizer - 0.5 * (df - n - 1) * self._mean_log_det() + 0.5 * df * n

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        return -0.5 * self.precision_matrix, 0.5 * (self.df - self._event_shape[-1] - 1)

    def _log_normalizer(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        n = self._event_shape[-1]
        half = y + 0.5 * (n + 1)
        return half * (-tg.linalg.slogdet(-2 * x).logabsdet + math.log(2) * n) + tg.special.multigammaln(half, n)
