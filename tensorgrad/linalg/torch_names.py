"""The older names, beside those of ``linalg``: ``tensorgrad.svd``, ``tensorgrad.lu``, ``tensorgrad.qr``."""

from __future__ import annotations

from typing import Any

from ..dispatch import recorded
from ..dtypes import BY_NAME
from ..errors import DTypeError, ShapeError
from ..ops import pointwise as pw
from ..ops.checks import everywhere, integer, require_optional, require_tensors
from ..ops.create import empty, zeros
from ..ops.inplace import deliver, deliver_same
from ..ops.ranges import eye
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from . import determinants, exponential, positive
from .algebra import batch_of, mH, require_matrix, require_same, require_square, result_tuple, write_all
from .determinants import logdet
from .lu_factors import lu_factor_op, require_full, require_pivoting, unpacked
from .lu_factors import lu_solve as _lu_solve
from .norms import vector_norm
from .orthogonal import geqrf, householder_product, ormqr, qr_op
from .products import cross_of, multi_dot
from .singular import pinv, real_name, svd_op, svdvals_op
from .solving import WELL, WELL_COMPLEX, inv, triangular_op

__all__ = [
    "chain_matmul", "cholesky", "cholesky_inverse", "cholesky_solve", "cross", "det", "dist", "geqrf", "inverse",
    "logdet", "lu", "lu_solve", "lu_unpack", "matrix_exp", "matrix_power", "orgqr", "ormqr", "pca_lowrank", "pinverse",
    "qr", "slogdet", "svd", "svd_lowrank", "triangular_solve",
]  # fmt: skip

cross = cross_of
_SVD = result_tuple("svd", "U", "S", "V")
_QR = result_tuple("qr", "Q", "R")
_Unpacked = result_tuple("lu_unpack", "P", "L", "U")
_Solved = result_tuple("triangular_solve", "solution", "cloned_coefficient")


def det(input: Tensor) -> Tensor:
    """``linalg.det``."""
    return determinants.det(input)


def slogdet(input: Tensor, *, out: Any = None) -> Any:
    """``linalg.slogdet``."""
    return determinants.slogdet(input, out=out)


def inverse(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``linalg.inv``."""
    return inv(input, out=out)


def matrix_exp(input: Tensor) -> Tensor:
    """``linalg.matrix_exp``."""
    return exponential.matrix_exp(input)


def matrix_power(input: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """``linalg.matrix_power``."""
    return exponential.matrix_power(input, n, out=out)


def orgqr(input: Tensor, tau: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``linalg.householder_product``."""
    return householder_product(input, tau, out=out)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse; ``linalg.pinv`` with ``rtol=rcond``."""
    return pinv(input, rtol=rcond)


def chain_matmul(*matrices: Any, out: Tensor | None = None) -> Tensor:
    """The product of matrices; see ``linalg.multi_dot``, which also takes vectors at the ends."""
    parts = list(matrices[0]) if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else list(matrices)
    for x in parts:
        if not isinstance(x, Tensor) or x._data.ndim != 2:
            raise ShapeError("chain_matmul: every argument must be a 2D tensor.")
    if len(parts) == 1:
        return deliver_same("chain_matmul", parts[0], out)
    return multi_dot(parts, out=out)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``, 0-d; the inputs broadcast."""
    difference = pw.sub(input, other)
    return vector_norm(difference, p)


# --- Cholesky


def cholesky(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """``linalg.cholesky``."""
    return positive.cholesky(input, upper=upper, out=out)


def _cholesky_solve_define(F: Any, b: Any, factor: Any, *, upper: bool) -> Any:
    h = mH(F, factor)
    first, second = (h, factor) if upper else (factor, h)
    y = F.linalg_solve_triangular(first, b, upper=False, unit=False)
    return F.linalg_solve_triangular(second, y, upper=True, unit=False)


def _cholesky_solve_rule(F: Any, g: Any, b: Any, factor: Any, *, x: Any, needs: Any, upper: bool) -> tuple[Any, ...]:
    """The factor's gradient is that of any matrix in its place, not of a triangle: as PyTorch's."""
    to_b = F.cholesky_solve(g, factor, upper=upper)
    if not needs[1]:
        return to_b, None
    both = F.matmul(to_b, mH(F, x))
    both = F.add(both, mH(F, both))
    return to_b, F.neg(F.matmul(factor, both) if upper else F.matmul(both, factor))


cholesky_solve_op = op(
    "cholesky_solve",
    infer=lambda b, factor, *, upper: Spec(tuple(b.shape), b.dtype),
    rule=_cholesky_solve_rule,
    keeps=("factor", "x"),
    outputs=("x",),
    define=_cholesky_solve_define,
    # the derivative is not the triangle's alone: tests/parity
    samples=lambda: [
        Sample((Arg((3, 2), kind="s"), Arg((3, 3), kind="s", values=WELL)), {"upper": True}, False, "upper"),
        Sample((Arg((3, 2), kind="c"), Arg((3, 3), kind="c", values=WELL_COMPLEX)), {"upper": False}, False, "lower"),
    ],
    doc="``x`` with ``L L^H x = b`` (``L^H L`` for ``upper``), of one batch.",
)


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """``X`` with ``A X = input`` for ``A = L L^H`` (``L^H L`` for ``upper``), from the factor.

    Raises: ShapeError if the sizes do not fit; DTypeError for integers, half precision and differing dtypes.
    """
    name = "cholesky_solve"
    require_matrix(name, input, label="input")
    require_square(name, L, label="L")
    require_same(name, L, input, label="input")
    if input.shape[-2] != L.shape[-1]:
        raise ShapeError(f"{name}: Incompatible matrix sizes: L {tuple(L.shape)} and input {tuple(input.shape)}.")
    factor, b = batch_of(name, L, input)
    return deliver(name, cholesky_solve_op(b, factor, upper=bool(upper)), out)


def cholesky_inverse(L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """The inverse of ``L L^H`` (``L^H L`` for ``upper``), from the factor.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision.
    """
    require_square("cholesky_inverse", L, label="L")
    one = eye(int(L.shape[-1]), dtype=L.dtype, device=L.device).expand(*L.shape)
    return deliver("cholesky_inverse", cholesky_solve(one, L, upper), out)


# --- triangles and LU


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False, *, out: Any = None
) -> Any:
    """``(solution, cloned_coefficient)`` with ``A solution = b`` for triangular ``A``, ``A^T`` for ``transpose``.

    See ``linalg.solve_triangular``, which has the arguments the other way round.
    """
    name = "triangular_solve"
    require_square(name, A)
    require_matrix(name, b, label="b")
    require_same(name, A, b, label="b")
    if b.shape[-2] != A.shape[-1]:
        raise ShapeError(f"{name}: Incompatible matrix sizes: each A is {tuple(A.shape)}, each b {tuple(b.shape)}.")
    coefficient, right = batch_of(name, A, b)
    a = coefficient.mT if transpose else coefficient
    x = triangular_op(a, right, upper=bool(upper) != bool(transpose), unit=bool(unitriangular))
    return write_all(name, _Solved(x, coefficient.clone()), out)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """``(LU, pivots)``, and ``info`` for ``get_infos``; see ``linalg.lu_factor``."""
    require_matrix("lu", A)
    require_pivoting("lu", pivot)
    factors, pivots, info = lu_factor_op(A)
    if not get_infos:
        require_full(info)
    result = (factors, pivots, info) if get_infos else (factors, pivots)
    return write_all("lu", result, out)


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``X`` with ``A X = b`` from ``lu(A)``; see ``linalg.lu_solve``."""
    return _lu_solve(LU_data, LU_pivots, b, out=out)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True, *, out: Any = None
) -> Any:
    """``(P, L, U)`` from ``lu_factor``; what is not asked for is empty.

    Raises: ShapeError or DTypeError if the pivots are not int32 of shape ``(..., min(m, n))``.
    """
    require_matrix("lu_unpack", LU_data, label="LU_data")
    if unpack_pivots:
        require_tensors("lu_unpack", LU_pivots=LU_pivots)
    if unpack_pivots and LU_pivots.dtype.name != "int32":
        raise DTypeError("lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype.")
    if unpack_pivots:
        want = (*LU_data.shape[:-2], min(LU_data.shape[-2:]))
        if tuple(LU_pivots.shape) != want:
            raise ShapeError(f"lu_unpack: LU_pivots has shape {tuple(LU_pivots.shape)}, expected {want}.")
        if not everywhere(pw.bitwise_and(pw.ge(LU_pivots, 1), pw.le(LU_pivots, int(LU_data.shape[-2])))):
            raise ShapeError(f"lu_unpack: LU_pivots must be from 1 to {LU_data.shape[-2]}, as lu_factor gives them.")
    parts = unpacked(LU_data, LU_pivots if unpack_pivots else None, unpack_data)
    none = [empty((0,), dtype=LU_data.dtype, device=LU_data.device) if x is None else x for x in parts]
    return write_all("lu_unpack", _Unpacked(*none), out)


# --- QR and SVD


def qr(input: Tensor, some: bool = True, *, out: Any = None) -> Any:
    """``(Q, R)``; ``linalg.qr`` with mode ``"reduced"``, or ``"complete"`` for ``some=False``."""
    require_matrix("qr", input, label="input")
    return write_all("qr", _QR(*qr_op(input, mode="reduced" if some else "complete")), out)


def svd(input: Tensor, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """``(U, S, V)`` with ``input = U diag(S) V^H``; see ``linalg.svd``, which gives ``V^H``.

    Without ``compute_uv``, U and V are zeros.
    """
    require_matrix("svd", input, label="input")
    m, n = input.shape[-2:]
    if compute_uv:
        u, s, vh = svd_op(input, full=not some)
        return write_all("svd", _SVD(u, s, mH(recorded, vh)), out)
    batch = tuple(input.shape[:-2])
    u, v = (zeros((*batch, size, size), dtype=input.dtype, device=input.device) for size in (m, n))
    return write_all("svd", _SVD(u, svdvals_op(input), v), out)


def _range_of(A: Tensor, q: int, niter: int, M: Tensor | None) -> Tensor:
    """Orthonormal columns near the range of ``A - M``. Source: Halko, Martinsson, Tropp 2011, algorithm 4.4."""
    from ..ops.random import randn

    dtype = BY_NAME[real_name(A)]
    R = randn(A.shape[-1], q, dtype=dtype, device=A.device)
    if A.dtype.is_complex:
        R = pw.complex_(R, randn(A.shape[-1], q, dtype=dtype, device=A.device))

    def times(x: Tensor, adjoint: bool) -> Tensor:
        y = (mH(recorded, A) if adjoint else A) @ x
        if M is not None:
            y = y - (mH(recorded, M) if adjoint else M) @ x
        return y

    Q = qr(times(R, False)).Q
    for _ in range(niter):
        Q = qr(times(Q, True)).Q
        Q = qr(times(Q, False)).Q
    return Q


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> Any:
    """``(U, S, V)`` of rank ``q`` near ``A - M``, from random projections; draws from the default generator.

    Args:
        A: (..., m, n).
        q: a little more than the rank looked for; min(m, n) where that is smaller.
        niter: passes that sharpen the range.
    Source: Halko, Martinsson, Tropp 2011, algorithm 5.1.
    """
    require_matrix("svd_lowrank", A)
    require_optional("svd_lowrank", M=M)
    q = integer("svd_lowrank", "q", 6 if q is None else q)
    niter = integer("svd_lowrank", "niter", 2 if niter is None else niter)
    m, n = A.shape[-2:]
    if q < 0:
        raise ValueError(f"svd_lowrank: q={q} must not be negative.")
    q = min(q, m, n)
    if M is not None:
        M = M.expand(A.shape)
    if m < n:  # the projection is of the longer side
        u, s, v = svd_lowrank(mH(recorded, A), q, niter, None if M is None else mH(recorded, M))
        return _SVD(v, s, u)
    Q = _range_of(A, q, niter, M)
    B = mH(recorded, Q) @ (A if M is None else A - M)
    u, s, vh = svd_op(B, full=False)
    return _SVD(Q @ u, s, mH(recorded, vh))


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """``(U, S, V)``: the ``q`` (6 by default) leading principal components of (..., m, n), columns centered first."""
    require_matrix("pca_lowrank", A)
    m, n = A.shape[-2:]
    q = min(6, m, n) if q is None else integer("pca_lowrank", "q", q)
    niter = integer("pca_lowrank", "niter", niter)
    if not 0 <= q <= min(m, n):
        raise ValueError(f"pca_lowrank: q={q} must be from 0 to {min(m, n)}, the smaller size of {tuple(A.shape)}.")
    if niter < 0:
        raise ValueError(f"pca_lowrank: niter={niter} must be a non-negative integer.")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)
