"""Eigenvalues and eigenvectors."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..errors import ShapeError
from ..ops.inplace import deliver_same
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import (
    check_phase,
    column,
    complex_spec,
    diagonal,
    mH,
    mm,
    on_diagonal,
    real,
    real_spec,
    require_square,
    result_tuple,
    row,
    total,
    write_all,
)
from .positive import POSITIVE, POSITIVE_COMPLEX
from .solving import WELL, WELL_COMPLEX

__all__ = ["eig", "eigh", "eigvals", "eigvalsh"]

Eigh = result_tuple("linalg_eigh", "eigenvalues", "eigenvectors")
Eig = result_tuple("linalg_eig", "eigenvalues", "eigenvectors")


def _apart(F: Any, values: Any) -> Any:
    """``values[j] - values[i]``, and 1 where i is j."""
    away = F.sub(row(F, values), column(F, values))
    return F.add(away, on_diagonal(F, F.full_as(values, value=1.0)))


def _without_diagonal(F: Any, x: Any) -> Any:
    return F.sub(x, on_diagonal(F, diagonal(F, x)))


def _eigh_rule(F: Any, g: Any, a: Any, *, w: Any, v: Any, needs: Any, upper: bool) -> tuple[Any, ...]:
    """``V (diag(gw) + skew(V^H gV) / (w_j - w_i)) V^H``, which is Hermitian. Source: Giles 2008."""
    to_w, to_v = g
    h = mH(F, v)
    if to_v is None:
        return (F.matmul(F.mul(v, row(F, to_w)), h),)
    inner = F.matmul(h, to_v)
    if a.dtype.kind == "c":
        check_phase("linalg.eigh", F.imag(diagonal(F, inner)))
    inner = F.div(F.mul(F.sub(inner, mH(F, inner)), 0.5), _apart(F, w))
    if a.dtype.kind == "c":
        inner = _without_diagonal(F, inner)
    return (mm(F, v, total(F, inner, None if to_w is None else on_diagonal(F, to_w)), h),)


def _symmetric_samples(**attrs: Any) -> list[Sample]:
    # the derivative is that of a Hermitian matrix: tests/ops/test_linalg.py
    return [
        Sample((Arg((3, 3), kind="s", values=POSITIVE),), {"upper": False, **attrs}, False, name="matrix"),
        Sample((Arg((3, 3), kind="c", values=POSITIVE_COMPLEX),), {"upper": True, **attrs}, False, name="complex"),
        Sample((Arg((2, 1, 1), kind="s"),), {"upper": True, **attrs}, name="batched"),
        Sample((Arg((0, 0), kind="s"),), {"upper": False, **attrs}, name="empty"),
    ]


eigh_op = op(
    "linalg_eigh",
    raises=True,
    infer=lambda a, *, upper: (real_spec(tuple(a.shape[:-1]), a.dtype), Spec(tuple(a.shape), a.dtype)),
    rule=_eigh_rule,
    keeps=("w", "v"),
    outputs=("w", "v"),
    kernel=kernels.eigh,
    samples=_symmetric_samples,
    doc="Ascending eigenvalues and orthonormal eigenvectors (columns) of Hermitian matrices.",
)
eigvalsh_op = op(
    "linalg_eigvalsh",
    raises=True,
    infer=lambda a, *, upper: real_spec(tuple(a.shape[:-1]), a.dtype),
    define=lambda F, a, *, upper: F.linalg_eigh(a, upper=upper)[0],
    kernel=kernels.eigvalsh,
    samples=_symmetric_samples,
    doc="Ascending eigenvalues of Hermitian matrices.",
)


def _upper(name: str, UPLO: Any) -> bool:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise ShapeError(f"{name}: Expected UPLO argument to be 'L' or 'U', but got {UPLO!r}.")
    return UPLO.upper() == "U"


def eigh(A: Tensor, UPLO: str = "L", *, out: Any = None) -> Any:
    """``(eigenvalues, eigenvectors)`` of Hermitian (..., n, n): ascending real values, orthonormal columns.

    ``UPLO`` names the triangle that is read. Eigenvectors are specified up to a phase (a sign); a loss that depends on
    it has no gradient, and equal eigenvalues give an infinite one if vectors are used.

    Raises: ShapeError for matrices that are not square, or another UPLO; DTypeError for integers and half precision;
        LinAlgError if the iteration fails, as on NaN; AutogradError in backward for a loss of complex phases.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.eigh(tg.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
        [1.0, 2.0]
    """
    require_square("linalg.eigh", A)
    return write_all("linalg.eigh", Eigh(*eigh_op(A, upper=_upper("linalg.eigh", UPLO))), out)


def eigvalsh(A: Tensor, UPLO: str = "L", *, out: Tensor | None = None) -> Tensor:
    """The ascending eigenvalues of Hermitian (..., n, n); otherwise as ``eigh``."""
    require_square("linalg.eigvalsh", A)
    return deliver_same("linalg.eigvalsh", eigvalsh_op(A, upper=_upper("linalg.eigvalsh", UPLO)), out)


# --- general matrices


def _eig_rule(F: Any, g: Any, a: Any, *, w: Any, v: Any, needs: Any) -> tuple[Any, ...]:
    """``V^-H (diag(gw) + (V^H gV - V^H V Re diag(V^H gV)) / conj(w_j - w_i)) V^H``. Source: Boeddeker et al. 2017."""
    to_w, to_v = g
    h = mH(F, v)
    inner = None
    if to_v is not None:
        inner = F.matmul(h, to_v)
        flow = diagonal(F, inner)
        check_phase("linalg.eig", F.imag(flow))
        inner = F.sub(inner, F.mul(F.matmul(h, v), row(F, F.real(flow))))
        inner = _without_diagonal(F, F.div(inner, F.conj(_apart(F, w))))
    inner = total(F, inner, None if to_w is None else on_diagonal(F, to_w))
    grad = F.linalg_solve(h, F.matmul(inner, h))[0]
    return (grad if a.dtype.kind == "c" else real(F, grad),)


def _general_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 3), kind="s", values=WELL),), {}, False, name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), {}, False, name="complex"),
        Sample((Arg((0, 0), kind="s"),), {}, False, name="empty"),
    ]


eig_op = op(
    "linalg_eig",
    raises=True,
    infer=lambda a: (complex_spec(tuple(a.shape[:-1]), a.dtype), complex_spec(tuple(a.shape), a.dtype)),
    rule=_eig_rule,
    keeps=("w", "v"),
    outputs=("w", "v"),
    kernel=kernels.eig,
    samples=_general_samples,
    doc="Eigenvalues and eigenvectors of norm 1 (columns) of square matrices, complex.",
)
eigvals_op = op(
    "linalg_eigvals",
    raises=True,
    infer=lambda a: complex_spec(tuple(a.shape[:-1]), a.dtype),
    define=lambda F, a: F.linalg_eig(a)[0],
    kernel=kernels.eigvals,
    samples=_general_samples,
    doc="Eigenvalues of square matrices, complex.",
)


def eig(A: Tensor, *, out: Any = None) -> Any:
    """``(eigenvalues, eigenvectors)`` of (..., n, n), complex, in no particular order; columns have norm 1.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision; LinAlgError if the
        iteration fails, as on NaN; AutogradError in backward for a loss that depends on the vectors' phases.
    """
    require_square("linalg.eig", A)
    return write_all("linalg.eig", Eig(*eig_op(A)), out)


def eigvals(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The eigenvalues of (..., n, n), complex; otherwise as ``eig``."""
    require_square("linalg.eigvals", A)
    return deliver_same("linalg.eigvals", eigvals_op(A), out)
