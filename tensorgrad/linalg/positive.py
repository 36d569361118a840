"""Cholesky factors of positive definite matrices."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..ops.inplace import deliver_same
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import info_spec, mH, require_info, require_square, result_tuple, write_all

__all__ = ["cholesky", "cholesky_ex"]

CholeskyEx = result_tuple("linalg_cholesky_ex", "L", "info")
POSITIVE = ((2.0, 0.4, -0.3), (0.4, 1.8, 0.2), (-0.3, 0.2, 2.2))
POSITIVE_COMPLEX = ((2.0, 0.4 - 0.2j, -0.3j), (0.4 + 0.2j, 1.8, 0.2), (0.3j, 0.2, 2.2))


def _rule(F: Any, g: Any, a: Any, *, y: Any, needs: Any, upper: bool) -> tuple[Any, ...]:
    """``L^-H phi(L^H g) L^-1`` with ``phi`` half the sum of the lower triangle and its adjoint. Source: Murray 2016."""
    grad = mH(F, g[0]) if upper else g[0]
    lower = mH(F, y) if upper else y
    inner = F.matmul(mH(F, lower), grad)
    phi = F.mul(F.add(F.tril(inner, diagonal=0), mH(F, F.tril(inner, diagonal=-1))), 0.5)
    half = F.linalg_solve_triangular(mH(F, lower), phi, upper=True, unit=False)
    return (mH(F, F.linalg_solve_triangular(mH(F, lower), mH(F, half), upper=True, unit=False)),)


def _samples() -> list[Sample]:
    samples = []
    for upper in (False, True):
        attrs = {"upper": upper}
        samples += [
            Sample((Arg((3, 3), kind="s", values=POSITIVE),), attrs, False, name=f"matrix-{upper}"),
            Sample((Arg((3, 3), kind="c", values=POSITIVE_COMPLEX),), attrs, False, name=f"complex-{upper}"),
        ]
    attrs = {"upper": False}
    return [
        *samples,
        Sample((Arg((2, 1, 1), 0.5, 2.0, kind="s"),), attrs, name="batched"),
        Sample((Arg((0, 0), kind="s"),), attrs, name="empty"),
    ]


cholesky_op = op(
    "linalg_cholesky",
    infer=lambda a, *, upper: (Spec(tuple(a.shape), a.dtype), info_spec(a)),
    rule=_rule,
    keeps=("y",),
    outputs=("y", "info"),
    nondiff=("info",),
    kernel=kernels.cholesky,
    samples=_samples,
    doc="Lower (or upper) triangular factors of positive definite matrices, and which minor is at fault.",
)


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False, out: Any = None) -> Any:
    """``(L, info)``: Cholesky factors, and for each matrix the order of the leading minor at fault, or 0.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision; LinAlgError if
        ``check_errors`` and a matrix is not positive definite.
    """
    require_square("linalg.cholesky", A)
    result = CholeskyEx(*cholesky_op(A, upper=bool(upper)))
    if check_errors:
        _require_positive(result.info)
    return write_all("linalg.cholesky_ex", result, out)


def cholesky(A: Tensor, *, upper: bool = False, out: Tensor | None = None) -> Tensor:
    """The lower triangular ``L`` with ``A = L L^H``, or the upper ``U`` with ``A = U^H U``, of (..., n, n).

    ``A`` is taken as Hermitian; only the triangle that is returned is read.

    Raises: LinAlgError for a matrix that is not positive definite; otherwise as ``cholesky_ex``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.cholesky(tg.tensor([[4.0, 2.0], [2.0, 2.0]])).tolist()
        [[2.0, 0.0], [1.0, 1.0]]
    """
    require_square("linalg.cholesky", A)
    y, info = cholesky_op(A, upper=bool(upper))
    _require_positive(info)
    return deliver_same("linalg.cholesky", y, out)


def _require_positive(info: Tensor) -> None:
    require_info(
        "linalg.cholesky", info,
        "The factorization could not be completed because the input is not positive-definite (the leading minor of "
        "order {order} is not positive-definite).",
    )  # fmt: skip
