"""LU factors with row exchanges."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..dispatch import recorded
from ..dtypes import numpy_dtype
from ..errors import ArgumentError, BackendError, DTypeError, ShapeError
from ..ops.diagonals import tril, triu
from ..ops.inplace import deliver_same
from ..ops.ranges import eye
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import (
    batch_of,
    diagonal,
    info_spec,
    mH,
    on_diagonal,
    part,
    require_info,
    require_matrix,
    require_same,
    require_square,
    result_tuple,
    write_all,
)
from .solving import WELL, WELL_COMPLEX, triangular_op

__all__ = ["lu", "lu_factor", "lu_factor_ex", "lu_solve"]

LUFactor = result_tuple("linalg_lu_factor", "LU", "pivots")
LUFactorEx = result_tuple("linalg_lu_factor_ex", "LU", "pivots", "info")
LU = result_tuple("linalg_lu", "P", "L", "U")


def _infer(a: Any) -> tuple[Spec, Spec, Spec]:
    k = min(a.shape[-2:])
    return Spec(tuple(a.shape), a.dtype), Spec((*a.shape[:-2], k), numpy_dtype("int32")), info_spec(a)


def _rule(F: Any, g: Any, a: Any, *, lu: Any, pivots: Any, needs: Any) -> tuple[Any, ...]:
    """With ``P`` the exchanges and ``k = min(m, n)``: the square part as in Murray 2016, the rest by substitution."""
    grad = g[0]
    m, n = a.shape[-2:]
    k = min(m, n)
    top, all_ = slice(0, k), slice(None)
    square = part(F, lu, top, top)
    below = F.tril(part(F, grad, all_, top), diagonal=-1)
    right = F.triu(part(F, grad, top, all_), diagonal=0)
    lower_h = mH(F, square)
    g_lower, g_upper = part(F, below, top, top), part(F, right, top, top)
    unit_lower = _unit_lower(F, square)
    upper = F.triu(square, diagonal=0)
    to_l = F.matmul(mH(F, unit_lower), g_lower)
    to_u = F.matmul(g_upper, mH(F, upper))
    if n > k:  # the columns right of the square part are L^-1 of theirs
        over, its = part(F, right, top, slice(k, n)), part(F, lu, top, slice(k, n))
        to_l = F.sub(to_l, F.matmul(over, mH(F, its)))
    if m > k:
        under, its = part(F, below, slice(k, m), top), part(F, lu, slice(k, m), top)
        to_u = F.sub(to_u, F.matmul(mH(F, its), under))
    inner = F.add(F.tril(to_l, diagonal=-1), F.triu(to_u, diagonal=0))
    left = F.linalg_solve_triangular(lower_h, inner, upper=True, unit=True)
    if m > k:
        left = F.cat(left, under, dim=left.ndim - 2)
    # X with X U^H = left
    whole = mH(F, F.linalg_solve_triangular(upper, mH(F, left), upper=True, unit=False))
    if n > k:
        whole = F.cat(whole, F.linalg_solve_triangular(lower_h, over, upper=True, unit=True), dim=whole.ndim - 1)
    order = F.linalg_pivots_to_rows(pivots, rows=m)
    back = F.linalg_order_rows(whole, order)
    return (back,)


def _unit_lower(F: Any, square: Any) -> Any:
    below = F.tril(square, diagonal=-1)
    return F.add(below, on_diagonal(F, F.full_as(diagonal(F, square), value=1.0)))


lu_factor_op = op(
    "linalg_lu_factor",
    infer=_infer,
    rule=_rule,
    keeps=("lu", "pivots"),
    outputs=("lu", "pivots", "info"),
    nondiff=("pivots", "info"),
    kernel=kernels.lu_factor,
    samples=lambda: [
        Sample((Arg((3, 3), kind="s", values=WELL),), name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), name="complex"),
        Sample((Arg((2, 3, 3), kind="s", layout="T", values=(WELL, WELL[::-1])),), name="exchanges"),
        Sample((Arg((3, 2), kind="s", values=tuple(row[:2] for row in WELL)),), name="tall"),
        Sample((Arg((2, 3), kind="s", values=WELL[:2]),), name="wide"),
        Sample((Arg((0, 3), kind="s"),), name="empty"),
    ],
    doc="L (below the diagonal, which is 1) and U in one matrix, LAPACK's 1-based pivots, and where a pivot was 0.",
)
pivots_to_rows_op = op(
    "linalg_pivots_to_rows",
    raises=True,
    infer=lambda pivots, *, rows: Spec((*pivots.shape[:-1], rows), numpy_dtype("int64")),
    nondiff=("y",),
    kernel=kernels.pivots_to_rows,
    samples=lambda: [Sample((Arg((2, 2), kind="i", values=((3, 3), (1, 2))),), {"rows": 3}, False, "two")],
    doc="The order of the rows after the exchanges that LAPACK's pivots name.",
)
order_rows_op = op(
    "linalg_order_rows",
    infer=lambda x, order: Spec(tuple(x.shape), x.dtype),
    rule=lambda F, g, x, order, *, needs: (F.linalg_take_rows(g, order), None),
    keeps=("order",),
    kernel=lambda xp, x, order: _place_rows(xp, x, order),
    samples=lambda: [Sample((Arg((2, 3, 2), kind="s"), Arg((2, 3), kind="i", values=((2, 0, 1), (0, 2, 1)))))],
    doc="Row i of each matrix of ``x`` put at ``order[i]``.",
)
take_rows_op = op(
    "linalg_take_rows",
    raises=True,
    infer=lambda x, order: Spec(tuple(x.shape), x.dtype),
    rule=lambda F, g, x, order, *, needs: (F.linalg_order_rows(g, order), None),
    keeps=("order",),
    kernel=lambda xp, x, order: xp.take_along_axis(x, order.reshape(*order.shape, 1), -2),
    samples=lambda: [Sample((Arg((2, 3, 2), kind="s"), Arg((2, 3), kind="i", values=((2, 0, 1), (0, 2, 1)))))],
    doc="Row ``order[i]`` of each matrix of ``x`` at i.",
)


def _place_rows(xp: Any, x: Any, order: Any) -> Any:
    return xp.take_along_axis(x, xp.argsort(order, axis=-1).reshape(*order.shape, 1), -2)


def require_pivoting(name: str, pivot: bool) -> None:
    if not pivot:
        raise BackendError(f"{name}: LU without pivoting is not implemented; leave pivot=True.")


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False, out: Any = None) -> Any:
    """``(LU, pivots, info)``: ``lu_factor``, and for each matrix the order of a pivot that is 0, or 0."""
    require_matrix("linalg.lu_factor", A)
    require_pivoting("linalg.lu_factor", pivot)
    result = LUFactorEx(*lu_factor_op(A))
    if check_errors:
        require_full(result.info)
    return write_all("linalg.lu_factor_ex", result, out)


def lu_factor(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """``(LU, pivots)`` of (..., m, n): both factors in one matrix, and the row exchanges, 1-based as LAPACK's.

    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision; LinAlgError for a
        zero pivot; BackendError for ``pivot=False``.
    """
    require_matrix("linalg.lu_factor", A)
    require_pivoting("linalg.lu_factor", pivot)
    factors, pivots, info = lu_factor_op(A)
    require_full(info)
    return write_all("linalg.lu_factor", LUFactor(factors, pivots), out)


def require_full(info: Tensor) -> None:
    require_info(
        "linalg.lu_factor", info,
        "U[{order},{order}] is zero and using it on lu_solve would result in a division by zero.",
    )  # fmt: skip


def lu(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """``(P, L, U)`` with ``A = P L U`` for (..., m, n): a permutation, a unit lower and an upper triangle.

    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision; BackendError for
        ``pivot=False``.
    Example:
        >>> import tensorgrad as tg
        >>> P, L, U = tg.linalg.lu(tg.tensor([[1.0, 2.0], [2.0, 2.0]]))
        >>> U.tolist()
        [[2.0, 2.0], [0.0, 1.0]]
    """
    require_matrix("linalg.lu", A)
    require_pivoting("linalg.lu", pivot)
    factors, pivots, _ = lu_factor_op(A)
    return write_all("linalg.lu", LU(*unpacked(factors, pivots)), out)


def unpacked(factors: Tensor, pivots: Tensor | None, data: bool = True) -> tuple[Any, Any, Any]:
    """(P, L, U); P is None without pivots, L and U without ``data``."""
    m, n = factors.shape[-2:]
    k = min(m, n)
    lower = upper = permutation = None
    if data:
        lower = tril(factors[..., :, :k], -1) + eye(m, k, dtype=factors.dtype, device=factors.device)
        upper = triu(factors[..., :k, :])
    if pivots is not None:
        order = recorded.linalg_pivots_to_rows(pivots, rows=m)
        ones = eye(m, dtype=factors.dtype, device=factors.device).expand(*factors.shape[:-2], m, m)
        permutation = recorded.linalg_order_rows(ones, order)
    return permutation, lower, upper


def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False, out: Tensor | None = None
) -> Tensor:
    """``X`` with ``A X = B`` (``X A = B`` for ``left=False``, ``A^H`` for ``adjoint``) from ``lu_factor(A)``.

    Args:
        LU, pivots: (..., n, n) and (..., n), int32.
        B: (..., n, k); (..., k, n) for ``left=False``. Batches broadcast.
    Raises: ShapeError if the sizes do not fit; DTypeError for other dtypes.
    """
    name = "linalg.lu_solve"
    require_square(name, LU, label="LU")
    require_same(name, LU, B)
    require_matrix(name, B, label="B")
    if not isinstance(pivots, Tensor) or pivots.dtype.name != "int32":
        raise DTypeError(f"{name}: pivots should be a Tensor of scalar type torch.int32, as lu_factor gives them.")
    if tuple(pivots.shape) != tuple(LU.shape[:-1]):
        raise ShapeError(
            f"{name}: Number of pivots per batch should be same as the dimension of the matrix: LU of shape "
            f"{tuple(LU.shape)} takes {tuple(LU.shape[:-1])}, got {tuple(pivots.shape)}."
        )
    if pivots._data.size and not 1 <= int(pivots.min()) <= int(pivots.max()) <= LU.shape[-1]:
        raise ArgumentError(f"{name}: pivots are rows from 1 to {LU.shape[-1]}, as lu_factor gives them.")
    if B.shape[-2 if left else -1] != LU.shape[-1]:
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'}: "
            f"{tuple(LU.shape)} and {tuple(B.shape)}."
        )
    if not left:  # X A = B is A^H X^H = B^H
        return deliver_same(name, mH(recorded, lu_solve(LU, pivots, mH(recorded, B), adjoint=not adjoint)), out)
    a, b = batch_of(name, LU, B)
    order = recorded.linalg_pivots_to_rows(pivots, rows=int(LU.shape[-1])).expand(*a.shape[:-1])
    if adjoint:
        h = mH(recorded, a)
        y = triangular_op(h, b, upper=False, unit=False)
        y = triangular_op(h, y, upper=True, unit=True)
        x = recorded.linalg_order_rows(y, order)
    else:
        y = triangular_op(a, recorded.linalg_take_rows(b, order), upper=False, unit=True)
        x = triangular_op(a, y, upper=True, unit=False)
    return deliver_same(name, x, out)
