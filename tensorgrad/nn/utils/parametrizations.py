"""Ready parametrizations: weight norm, spectral norm, orthogonal matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.grad_mode import no_grad
from ...errors import DimError
from ...tensor import Tensor
from ..conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from ..functional import normalize
from ..module import Module
from .parametrize import register_parametrization
from .weight_norm import norm_except_dim, scaled

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def _tensor_of(module: Module, name: str) -> Tensor:
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return found


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return scaled(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Let ``module.<name>`` be ``g * v / |v|``, with the norm taken per slice along ``dim``, or of all with None.

    ``parametrizations.<name>.original0`` is g, ``original1`` is v. State dicts of ``nn.utils.weight_norm`` load.
    Returns: the module. Source: Salimans and Kingma 2016.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module._register_load_state_dict_pre_hook(_OldNames(name))
    return module


class _OldNames:
    """Renames weight_g and weight_v, as ``nn.utils.weight_norm`` saves them."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        old = [f"{prefix}{self.name}_{letter}" for letter in "gv"]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{self.name}.original{i}"] = state_dict.pop(key)


def as_matrix(weight: Any, dim: int) -> Any:
    """``weight`` with dimension ``dim`` as rows and all others as columns."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.ndim) if d != dim))
    return weight.reshape(weight.shape[0], -1)


class _SpectralNorm(Module):
    def __init__(self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise DimError(
                f"Dimension out of range (expected to be in range of [-{weight.ndim}, {weight.ndim - 1}] but got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.detach(), self.dim)
            for label, size in zip(("_u", "_v"), matrix.shape, strict=True):
                start = matrix.new_empty(size).normal_(0, 1)
                self.register_buffer(label, normalize(start, dim=0, eps=eps))
            self._power_method(matrix, 15)

    def _power_method(self, matrix: Any, times: int) -> None:
        with no_grad():
            for _ in range(times):
                self._u.copy_(normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(normalize(matrix.conj().T @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._power_method(matrix.detach(), self.n_power_iterations)
        # copies: the buffers change in place before this result is differentiated
        u, v = self._u.clone(), self._v.clone()
        return weight / (u.conj() * (matrix @ v)).sum()

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide ``module.<name>`` by its largest singular value, followed by power iteration.

    Args:
        n_power_iterations: steps every time the tensor is read in training.
        eps: keeps norms from zero.
        dim: the dimension that counts outputs: 0, but 1 for transposed convolutions, if None.
    Returns: the module. Source: Miyato et al. 2018.
    """
    weight = _tensor_of(module, name)
    if dim is None:
        dim = 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


def _is_orthogonal(q: Any, eps: float | None = None) -> bool:
    from ...ops.ranges import eye

    q = q.mT if q.shape[-2] < q.shape[-1] else q
    k = q.shape[-1]
    eps = 10.0 * k * float(np.finfo(q.dtype.np).eps) if eps is None else eps
    return bool(((q.mH @ q - eye(k, dtype=q.dtype, device=q.device)).abs() <= eps).all())


def _make_orthogonal(a: Any) -> Any:
    """The Q of ``a = QR`` for which the diagonal of R is not negative."""
    from ... import linalg

    q, r = linalg.qr(a)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    size = diagonal.abs()
    return q * (diagonal / (size + (size == 0))).unsqueeze(-2)


class _Orthogonal(Module):
    """An orthogonal (unitary) matrix from any: by the exponential or Cayley map of a skew matrix, or reflectors."""

    def __init__(self, weight: Tensor, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.dtype.is_complex and orthogonal_map == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        from ... import linalg
        from ...ops.join import cat
        from ...ops.ranges import eye

        transposed = X.shape[-2] < X.shape[-1]
        X = X.mT if transposed else X
        n, k = X.shape[-2:]
        if self.orthogonal_map == "householder":
            A = X.tril(diagonal=-1)
            tau = 2.0 / (1.0 + (A * A).sum(dim=-2))
            Q = linalg.householder_product(A, tau)
            # the sign of each column, which is not trained: +1 or -1 on the diagonal
            Q = Q * X.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)
        else:
            X = X.tril()
            if n != k:
                X = cat([X, X.new_zeros(n, n - k).expand(*X.shape[:-2], n, n - k)], dim=-1)
            A = X - X.mH
            if self.orthogonal_map == "matrix_exp":
                Q = linalg.matrix_exp(A)
            else:
                one = eye(n, dtype=A.dtype, device=A.device)
                Q = linalg.solve(one - 0.5 * A, one + 0.5 * A)
            if n != k:
                Q = Q[..., :k]
        if hasattr(self, "base"):
            Q = self.base @ Q
        return Q.mT if transposed else Q

    def right_inverse(self, Q: Any) -> Any:
        if tuple(Q.shape) != tuple(self.shape):
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        with no_grad():
            return self._started(Q) if hasattr(self, "base") else self._reflectors(Q)

    def _started(self, given: Any) -> Any:
        """Keep the matrix as base, and start from the parameter that stands for the identity."""
        from ...ops.create import zeros_like
        from ...ops.join import cat
        from ...ops.random import randn

        Q = given.mT if given.shape[-2] < given.shape[-1] else given
        n, k = Q.shape[-2:]
        if n == k:
            Q = Q.clone() if _is_orthogonal(Q) else _make_orthogonal(Q)
        else:
            rest = randn(*Q.shape[:-2], n, n - k, dtype=Q.dtype, device=Q.device)
            Q = _make_orthogonal(cat([Q, rest], dim=-1))
        self.base = Q
        start: Any = zeros_like(given)
        start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
        return start

    def _reflectors(self, given: Any) -> Any:
        """The parameter from which reflectors give this matrix."""
        from ... import geqrf

        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                "use_trivialization=False."
            )
        transposed = given.shape[-2] < given.shape[-1]
        A, tau = geqrf(given.mT if transposed else given)
        diagonal = A.diagonal(dim1=-2, dim2=-1)
        # a reflector with tau = 0 is the identity, and its column keeps its sign
        diagonal.copy_(diagonal.sign() * (1 - 2 * (tau == 0.0).to(diagonal.dtype)))
        return A.mT if transposed else A


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keep ``module.<name>`` orthogonal (unitary if complex): orthonormal columns, or rows if there are fewer.

    Args:
        orthogonal_map: "matrix_exp", "cayley" or "householder"; by default the first for square or complex matrices
            and the last for others.
        use_trivialization: multiply with a fixed orthogonal matrix, ``parametrizations.<name>[0].base``, so that the
            training starts at the given tensor.
    Returns: the module.
    Raises: ValueError if there is no such tensor, it has fewer than 2 dimensions, or the map is unknown.
    Source: Lezcano-Casado 2019.
    """
    weight = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.dtype.is_complex else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
