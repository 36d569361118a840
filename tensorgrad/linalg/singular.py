"""Singular values, and what is made of them: pseudo-inverse, rank, condition, least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.generic import linalg as kernels
from ..dtypes import BY_NAME, int64
from ..errors import DTypeError, ShapeError
from ..ops import pointwise as pw
from ..ops.checks import real
from ..ops.create import empty, full, zeros
from ..ops.inplace import deliver, deliver_same
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import (
    REAL,
    batch_of,
    check_phase,
    column,
    diagonal,
    mH,
    mm,
    on_diagonal,
    part,
    real_spec,
    require_lapack,
    require_matrix,
    require_same,
    require_square,
    result_tuple,
    row,
    total,
    write_all,
)
from .positive import POSITIVE, POSITIVE_COMPLEX
from .solving import WELL, WELL_COMPLEX

__all__ = ["lstsq", "matrix_rank", "pinv", "svd", "svdvals"]

SVD = result_tuple("linalg_svd", "U", "S", "Vh")
Lstsq = result_tuple("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
EPS = {"float32": 1.1920928955078125e-07, "float64": 2.220446049250313e-16}


def _infer(a: Any, *, full: bool) -> tuple[Spec, Spec, Spec]:
    m, n = a.shape[-2:]
    k, batch = min(m, n), tuple(a.shape[:-2])
    return (
        Spec((*batch, m, m if full else k), a.dtype),
        real_spec((*batch, k), a.dtype),
        Spec((*batch, n if full else k, n), a.dtype),
    )


def _skew(F: Any, x: Any) -> Any:
    return F.sub(x, mH(F, x))


def _rule(F: Any, g: Any, a: Any, *, u: Any, s: Any, vh: Any, needs: Any, full: bool) -> tuple[Any, ...]:
    """Sources: Giles 2008; Townsend 2016; for the phases of complex vectors Wan and Zhang 2019."""
    to_u, to_s, to_vh = g
    m, n = a.shape[-2:]
    k = s.shape[-1]
    all_, first = slice(None), slice(0, k)
    if full:
        u, vh = part(F, u, all_, first), part(F, vh, first, all_)
        to_u = None if to_u is None else part(F, to_u, all_, first)
        to_vh = None if to_vh is None else part(F, to_vh, first, all_)
    if to_u is None and to_vh is None:
        return (F.matmul(F.mul(u, row(F, to_s)), vh),)
    left = None if to_u is None else F.matmul(mH(F, u), to_u)
    right = None if to_vh is None else F.matmul(vh, mH(F, to_vh))
    squares = F.square(s)
    apart = F.sub(row(F, squares), column(F, squares))
    apart = F.add(apart, on_diagonal(F, F.full_as(s, value=1.0)))
    inner = None
    if left is not None:
        inner = F.mul(F.div(_skew(F, left), apart), row(F, s))
    if right is not None:
        inner = total(F, inner, F.mul(column(F, s), F.div(_skew(F, right), apart)))
    if a.dtype.kind == "c":
        flows = [F.imag(diagonal(F, x)) for x in (left, right) if x is not None]
        check_phase("linalg.svd", total(F, *flows))
        inner = F.sub(inner, on_diagonal(F, diagonal(F, inner)))
        if left is not None:
            turn = F.div(F.sub(diagonal(F, left), F.conj(diagonal(F, left))), F.mul(s, 2.0))
            inner = total(F, inner, on_diagonal(F, turn))
    inner = total(F, inner, None if to_s is None else on_diagonal(F, to_s))
    if m > k and to_u is not None:
        outside = F.div(F.sub(to_u, F.matmul(u, left)), row(F, s))
        result = F.matmul(total(F, F.matmul(u, inner), outside), vh)
    else:
        result = mm(F, u, inner, vh)
    if n > k and to_vh is not None:
        outside = F.div(F.sub(to_vh, F.matmul(F.matmul(to_vh, mH(F, vh)), vh)), column(F, s))
        result = total(F, result, F.matmul(u, outside))
    return (result,)


def _svd_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 3), kind="s", values=WELL),), {"full": False}, name="matrix"),
        Sample((Arg((3, 2), kind="s", values=tuple(r[:2] for r in WELL)),), {"full": False}, name="tall"),
        Sample((Arg((2, 3), kind="s", values=WELL[:2]),), {"full": False}, name="wide"),
        Sample((Arg((2, 3), kind="c", values=WELL_COMPLEX[:2]),), {"full": False}, False, name="complex"),
        Sample((Arg((2, 3, 2), kind="s"),), {"full": True}, False, name="full"),
        Sample((Arg((0, 2), kind="s"),), {"full": False}, name="empty"),
    ]


svd_op = op(
    "linalg_svd",
    raises=True,
    infer=_infer,
    rule=_rule,
    keeps=("u", "s", "vh"),
    outputs=("u", "s", "vh"),
    kernel=kernels.svd,
    samples=_svd_samples,
    doc="Singular values, descending, and vectors: ``a = u diag(s) vh``; square u and vh if ``full``.",
)
svdvals_op = op(
    "linalg_svdvals",
    raises=True,
    infer=lambda a: real_spec((*a.shape[:-2], min(a.shape[-2:])), a.dtype),
    define=lambda F, a: F.linalg_svd(a, full=False)[1],
    kernel=kernels.svdvals,
    samples=lambda: [
        Sample((Arg((3, 2), kind="s", values=tuple(r[:2] for r in WELL)),), name="tall"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), name="complex"),
        Sample((Arg((2, 0), kind="s"),), name="empty"),
    ],
    doc="Singular values, descending.",
)


def _check_driver(name: str, driver: str | None, device: str) -> None:
    if driver is None:
        return
    if device != "cuda":
        raise ShapeError(f"{name}: keyword argument `driver=` is only supported on CUDA inputs.")
    if driver not in ("gesvd", "gesvdj", "gesvda"):
        raise ShapeError(f"{name}: driver must be None, 'gesvd', 'gesvdj' or 'gesvda', got {driver!r}.")
    raise ShapeError(f"{name}: the backend chooses the algorithm; leave driver=None.")


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None, out: Any = None) -> Any:
    """``(U, S, Vh)`` with ``A = U diag(S) Vh`` for (..., m, n): S real and descending, k = min(m, n) values.

    Vectors are specified up to a phase (a sign); a loss that depends on it has no gradient, and equal or zero singular
    values give an infinite one if vectors are used.

    Args:
        full_matrices: U is (m, m) and Vh (n, n); else (m, k) and (k, n).
        driver: None; PyTorch's choice of CUDA algorithms is not offered.
    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision; LinAlgError if the
        iteration fails, as on NaN; AutogradError in backward for a loss of complex phases.
    """
    require_matrix("linalg.svd", A)
    _check_driver("linalg.svd", driver, A.device.type)
    return write_all("linalg.svd", SVD(*svd_op(A, full=bool(full_matrices))), out)


def svdvals(A: Tensor, *, driver: str | None = None, out: Tensor | None = None) -> Tensor:
    """The singular values of (..., m, n), descending: (..., min(m, n)); otherwise as ``svd``."""
    require_matrix("linalg.svdvals", A)
    _check_driver("linalg.svdvals", driver, A.device.type)
    return deliver_same("linalg.svdvals", svdvals_op(A), out)


# --- pseudo-inverse


def _pinv_infer(a: Any, atol: Any, rtol: Any, *, hermitian: bool) -> Spec:
    np.broadcast_shapes(atol.shape, rtol.shape, tuple(a.shape[:-2]))
    return Spec((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)


def _pinv_rule(F: Any, g: Any, a: Any, atol: Any, rtol: Any, *, y: Any, needs: Any, hermitian: bool) -> tuple[Any, ...]:
    """The derivative where the rank does not change. Source: Golub and Pereyra 1973."""
    m, n = a.shape[-2:]
    yh, gh = mH(F, y), mH(F, g)
    if m <= n:
        k = F.matmul(gh, y)
        ky = F.matmul(k, yh)
        terms = (
            F.neg(mH(F, F.matmul(y, k))),
            ky,
            F.neg(F.matmul(F.matmul(a, y), ky)),
            F.matmul(F.matmul(yh, y), F.sub(gh, F.matmul(k, a))),
        )
    else:
        k = F.matmul(y, gh)
        yk = F.matmul(yh, k)
        terms = (
            F.neg(mH(F, F.matmul(k, y))),
            F.matmul(F.matmul(F.sub(gh, F.matmul(a, k)), y), yh),
            yk,
            F.neg(F.matmul(F.matmul(yk, y), a)),
        )
    return total(F, *terms), None, None


def _tolerances(shape: tuple[int, ...] = (), rtol: float = 1e-6) -> tuple[Arg, Arg]:
    return Arg(shape, kind="s", values=0.0), Arg(shape, kind="s", values=rtol)


def _pinv_samples() -> list[Sample]:
    attrs = {"hermitian": False}
    tall = tuple(r[:2] for r in WELL_COMPLEX)
    return [
        Sample((Arg((3, 3), kind="s", values=WELL), *_tolerances()), attrs, name="matrix"),
        Sample((Arg((3, 2), kind="c", values=tall), *_tolerances()), attrs, name="tall"),
        Sample((Arg((2, 3), kind="s", values=WELL[:2]), *_tolerances()), attrs, name="wide"),
        Sample((Arg((3, 3), kind="s", values=POSITIVE), *_tolerances()), {"hermitian": True}, False, "hermitian"),
        Sample((Arg((3, 3), kind="c", values=POSITIVE_COMPLEX), *_tolerances()), {"hermitian": True}, False, "h-c"),
        Sample((Arg((0, 2), kind="s"), *_tolerances()), attrs, name="empty"),
    ]


pinv_op = op(
    "linalg_pinv",
    raises=True,
    infer=_pinv_infer,
    rule=_pinv_rule,
    keeps=("a", "y"),
    kernel=kernels.pinv,
    samples=_pinv_samples,
    doc="The Moore-Penrose inverse, with singular values up to ``max(atol, rtol * largest)`` taken as zero.",
)


def _as_tolerance(name: str, label: str, value: Any, A: Tensor) -> Tensor:
    dtype = BY_NAME[real_name(A)]
    if isinstance(value, Tensor):
        if value.dtype.is_complex:
            raise DTypeError(f"{name}: {label} tensor of complex type is not supported.")
        return value.detach().to(dtype)
    return full((), real(name, label, value), dtype=dtype, device=A.device)


def _both_tolerances(name: str, A: Tensor, atol: Any, rtol: Any) -> tuple[Tensor, Tensor]:
    """(atol, rtol) as tensors that broadcast to the batch; rtol is ``max(m, n) eps`` unless either is given.

    Where both are absent, or atol is a tensor, which may hold zeros, rtol counts there only if atol is 0.
    """
    m, n = A.shape[-2:]
    default = EPS[real_name(A)] * max(m, n)
    absolute = _as_tolerance(name, "atol", 0.0 if atol is None else atol, A)
    if rtol is not None:
        relative = _as_tolerance(name, "rtol", rtol, A)
    elif atol is None:
        relative = _as_tolerance(name, "rtol", default, A)
    else:
        relative = pw.where(pw.gt(absolute, 0.0), 0.0, _as_tolerance(name, "rtol", default, A))
    batch = tuple(A.shape[:-2])
    for label, x in (("atol", absolute), ("rtol", relative)):
        shape = tuple(x.shape)
        if shape and len(shape) > len(batch):
            raise ShapeError(f"{name}: {label} of shape {shape} does not broadcast to the batch {batch}.")
    return absolute.expand(*batch), relative.expand(*batch)


def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None, out: Any = None
) -> Tensor:
    """The Moore-Penrose inverse of (..., m, n), (..., n, m).

    Args:
        rcond: the older name of ``rtol``.
        hermitian: take ``A`` as Hermitian, reading its lower triangle.
        atol, rtol: singular values up to ``max(atol, rtol * largest)`` are taken as zero; numbers, or tensors of the
            batch. By default ``rtol`` is ``max(m, n)`` times the dtype's epsilon where atol is 0 or absent.
    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision.
    """
    if rcond is not None and rtol is None:
        rtol = rcond
    (require_square if hermitian else require_matrix)("linalg.pinv", A)
    absolute, relative = _both_tolerances("linalg.pinv", A, atol, rtol)
    return deliver("linalg.pinv", pinv_op(A, absolute, relative, hermitian=bool(hermitian)), out)


def matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None, out: Any = None
) -> Tensor:
    """How many singular values of (..., m, n) exceed ``max(atol, rtol * largest)``, in int64; see ``pinv``.

    ``tol`` is the older name of ``atol`` (with ``rtol`` 0).
    """
    (require_square if hermitian else require_matrix)("linalg.matrix_rank", A)
    if tol is not None:
        atol, rtol = tol, 0.0
    absolute, relative = _both_tolerances("linalg.matrix_rank", A.detach(), atol, rtol)
    if 0 in A.shape[-2:]:
        result = zeros(tuple(A.shape[:-2]), dtype=int64, device=A.device)
        return deliver("linalg.matrix_rank", result, out)
    if hermitian:
        from .eigen import eigvalsh

        values: Tensor = pw.abs(eigvalsh(A.detach()))
    else:
        values = svdvals(A.detach())
    limit = pw.maximum(absolute, pw.mul(relative, values.amax(-1)))
    result = pw.gt(values, limit.unsqueeze(-1)).sum(-1)
    return deliver("linalg.matrix_rank", result, out)


# --- least squares


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """``(solution, residuals, rank, singular_values)``: the X that minimizes ``|A X - B|``, the shortest of several.

    Args:
        A: (..., m, n).
        B: (..., m, k), or vectors (..., m) with the batch of ``A``; batches broadcast.
        rcond: singular values up to this part of the largest count as zero; by default ``max(m, n)`` times epsilon.
        driver: ``"gelsy"`` (default), ``"gelsd"``, ``"gelss"``, ``"gels"``: which of LAPACK's drivers to report like.
            All are computed from the singular values. ``rank`` is empty for ``"gels"``, ``singular_values`` for it and
            ``"gelsy"``, ``residuals`` (squared, per column) unless m > n and all matrices have full rank.
    Raises: ShapeError if the sizes do not fit; DTypeError for differing dtypes, integers, half precision; ValueError
        for another driver.
    """
    name = "linalg.lstsq"
    require_matrix(name, A)
    if not isinstance(B, Tensor):
        raise TypeError(f"{name}: B must be a Tensor, got {type(B).__name__}.")
    if B._data.ndim < 1:
        raise ShapeError(f"{name}: The input tensor B must have at least 1 dimension.")
    require_same(name, A, B)
    require_lapack(name, B, label="B")
    if driver is None:
        driver = "gelsy"
    if driver not in ("gelsy", "gelsd", "gelss", "gels"):
        raise ShapeError(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver!r}.")
    if A.device.type == "cuda" and driver not in ("gels", "gelsy"):
        raise ShapeError(f"{name}: `driver` other than `gels` is not supported on CUDA, got {driver!r}.")
    difference = A._data.ndim - B._data.ndim
    if difference > 1:
        raise ShapeError(f"{name}: A of {A._data.ndim} dimensions takes B of at least {A._data.ndim - 1}.")
    vector = difference == 1 and tuple(A.shape[:-1]) == tuple(B.shape)
    if difference == 1 and not vector:
        raise ShapeError(
            f"{name}: input.shape[:-1] should match other.shape for a batch of vectors, got {tuple(A.shape)} and "
            f"{tuple(B.shape)}."
        )
    b = B.unsqueeze(-1) if vector else B
    if A.shape[-2] != b.shape[-2]:
        raise ShapeError(
            f"{name}: A of shape {tuple(A.shape)} takes right-hand sides with {A.shape[-2]} rows, got {tuple(B.shape)}."
        )
    a, b = batch_of(name, A, b)
    m, n = a.shape[-2:]
    relative = EPS[real_name(A)] * max(m, n) if rcond is None or rcond < 0 else rcond
    solution = pinv(a, rtol=relative) @ b
    values = svdvals(a.detach()) if driver != "gels" or m > n else None
    rank = None
    if values is not None:
        rank = _count_above(values, relative)
    if m > n and driver != "gelsy" and rank is not None and bool((rank == n).all()):
        residuals = (a @ solution - b).abs().square().sum(-2)
    else:
        residuals = solution.reshape(-1)[:0].abs()
    none = empty((0,), dtype=int64, device=A.device)
    return Lstsq(
        solution.squeeze(-1) if vector else solution,
        residuals,
        none if driver == "gels" or rank is None else rank,
        values
        if driver in ("gelsd", "gelss") and values is not None
        else empty((0,), dtype=real_name(A), device=A.device),
    )


def real_name(A: Tensor) -> str:
    return REAL.get(A.dtype.name, A.dtype.name)


def _count_above(values: Tensor, relative: float) -> Tensor:
    if values.shape[-1] == 0:
        return pw.gt(values, 0.0).sum(-1)
    return pw.gt(values, pw.mul(values.amax(-1, keepdim=True), relative)).sum(-1)
