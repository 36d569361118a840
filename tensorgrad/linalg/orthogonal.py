"""QR factors, and products of Householder reflectors."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..dispatch import recorded
from ..errors import AutogradError, ShapeError
from ..ops.inplace import deliver, deliver_same
from ..ops.ranges import eye
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import (
    column,
    diagonal,
    mH,
    on_diagonal,
    part,
    real,
    require_matrix,
    require_same,
    result_tuple,
    total,
    write_all,
)
from .solving import WELL, WELL_COMPLEX

__all__ = ["geqrf", "householder_product", "ormqr", "qr"]

QR = result_tuple("linalg_qr", "Q", "R")


def _infer(a: Any, *, mode: str) -> tuple[Spec, Spec]:
    m, n = a.shape[-2:]
    rows = m if mode == "complete" else min(m, n)
    q = (0,) if mode == "r" else (*a.shape[:-2], m, rows)
    return Spec(q, a.dtype), Spec((*a.shape[:-2], rows, n), a.dtype)


def _rule(F: Any, g: Any, a: Any, *, q: Any, r: Any, needs: Any, mode: str) -> tuple[Any, ...]:
    """With ``X = gR R^H - Q^H gQ``: ``(gQ + Q sym(triu X)) R^-H``; columns beyond a square are ``Q^H`` times theirs.
    Sources: Walter and Lehmann 2018; Roberts and Roberts 2020."""
    m, n = a.shape[-2:]
    if mode == "r":
        raise AutogradError("linalg.qr: the derivative needs Q, which mode='r' does not compute. Use mode='reduced'.")
    if mode == "complete" and m > n:
        raise AutogradError(
            "linalg.qr: the derivative is not defined for mode='complete' with more rows than columns: the rest of Q "
            "is arbitrary. Use mode='reduced'."
        )
    to_q, to_r = g
    square = r
    if n > m:
        square = part(F, r, slice(None), slice(0, m))
        if to_r is not None:
            beside, over = part(F, r, slice(None), slice(m, n)), part(F, to_r, slice(None), slice(m, n))
            to_q = total(F, to_q, F.matmul(q, F.matmul(beside, mH(F, over))))
            to_r = part(F, to_r, slice(None), slice(0, m))
    x = total(
        F,
        None if to_r is None else F.matmul(to_r, mH(F, square)),
        None if to_q is None else F.neg(F.matmul(mH(F, q), to_q)),
    )
    above = F.triu(x, diagonal=1)
    sym = total(F, above, mH(F, above), on_diagonal(F, real(F, diagonal(F, x))))
    inner = total(F, F.matmul(q, sym), to_q)
    left = mH(F, F.linalg_solve_triangular(square, mH(F, inner), upper=True, unit=False))
    if n > m:
        rest = F.matmul(q, over) if g[1] is not None else F.zeros_as(left, shape=(*a.shape[:-1], n - m))
        left = F.cat(left, rest, dim=left.ndim - 1)
    return (left,)


qr_op = op(
    "linalg_qr",
    infer=_infer,
    rule=_rule,
    keeps=("q", "r"),
    outputs=("q", "r"),
    kernel=kernels.qr,
    samples=lambda: [
        Sample((Arg((3, 3), kind="s", values=WELL),), {"mode": "reduced"}, name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), {"mode": "reduced"}, name="complex"),
        Sample((Arg((3, 2), kind="c", values=tuple(r[:2] for r in WELL_COMPLEX)),), {"mode": "reduced"}, name="tall"),
        Sample((Arg((2, 3), kind="c", values=WELL_COMPLEX[:2]),), {"mode": "complete"}, name="wide"),
        Sample((Arg((2, 3, 2), kind="s"),), {"mode": "complete"}, False, name="complete"),
        Sample((Arg((3, 2), kind="s"),), {"mode": "r"}, False, name="r"),
        Sample((Arg((0, 2), kind="s"),), {"mode": "reduced"}, False, name="empty"),
    ],
    doc="Q with orthonormal columns and upper triangular R; mode as in ``linalg.qr``.",
)


def qr(A: Tensor, mode: str = "reduced", *, out: Any = None) -> Any:
    """``(Q, R)`` with ``A = Q R`` for (..., m, n): orthonormal columns, and an upper triangle.

    Args:
        mode: ``"reduced"``: Q is (m, k), k = min(m, n); ``"complete"``: (m, m); ``"r"``: Q is empty.
    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision; ShapeError for another
        mode. The derivative needs Q, and no more columns of it than ``"reduced"`` has.
    """
    require_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise ShapeError(f"linalg.qr: mode must be 'reduced', 'complete' or 'r', got {mode!r}.")
    return write_all("linalg.qr", QR(*qr_op(A, mode=mode)), out)


geqrf_op = op(
    "linalg_geqrf",
    infer=lambda a: (Spec(tuple(a.shape), a.dtype), Spec((*a.shape[:-2], min(a.shape[-2:])), a.dtype)),
    rule=lambda F, g, a, *, needs: _no_geqrf_rule(),
    outputs=("a", "tau"),
    kernel=kernels.geqrf,
    samples=lambda: [
        Sample((Arg((2, 3, 3), kind="s", values=(WELL, WELL[::-1])),), {}, False, "batched"),
        Sample((Arg((3, 2), kind="c", values=tuple(r[:2] for r in WELL_COMPLEX)),), {}, False, "tall"),
    ],
    doc="R over the reflectors that make it, and their factors.",
)


def _no_geqrf_rule() -> Any:
    raise AutogradError("geqrf has no derivative; use linalg.qr.")


# --- reflectors


def _wy(F: Any, v: Any, tau: Any) -> tuple[Any, Any]:
    """``V, W`` with ``H_1 H_2 ... H_k = I - V W`` for ``H_i = I - tau_i v_i v_i^H``, ``v_i`` 0 above i and 1 there.

    ``W = (I + D U)^-1 D V^H`` with ``D = diag(tau)`` and ``U`` the part of ``V^H V`` above its diagonal. Source:
    Schreiber and Van Loan 1989, with the recurrence of the triangle solved.
    """
    m, n = v.shape[-2:]
    k = tau.shape[-1]
    if k < n:
        v = part(F, v, slice(None), slice(0, k))
    below = F.tril(v, diagonal=-1)
    square = F.full_as(tau, value=1.0)
    ones = on_diagonal(F, square)
    if m > k:
        ones = F.pad(ones, pads=(*((0, 0),) * (v.ndim - 2), (0, m - k), (0, 0)), mode="constant", value=0.0)
    v = F.add(below, ones)
    h = mH(F, v)
    scaled = F.mul(column(F, tau), h)
    upper = F.mul(column(F, tau), F.triu(F.matmul(h, v), diagonal=1))
    return v, F.linalg_solve_triangular(upper, scaled, upper=True, unit=True)


def _check_reflectors(name: str, input: Any, tau: Any) -> None:
    require_matrix(name, input, label="input")
    require_same(name, input, tau, label="tau")
    m, n = input.shape[-2:]
    if m < n:
        raise ShapeError(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1], got {m} and {n}.")
    if tau._data.ndim != input._data.ndim - 1:
        raise ShapeError(
            f"{name}: Expected tau to have one dimension less than input, got tau.ndim equal to {tau._data.ndim} and "
            f"input.ndim is equal to {input._data.ndim}."
        )
    if tuple(tau.shape[:-1]) != tuple(input.shape[:-2]):
        raise ShapeError(f"{name}: Expected batch dimensions of tau to be equal to input.shape[:-2].")
    if tau.shape[-1] > n:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1].")


def householder_product(A: Tensor, tau: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The first n columns of ``H_1 H_2 ... H_k``, ``H_i = I - tau_i v_i v_i^H`` with ``v_i`` below A's diagonal.

    Args:
        A: (..., m, n), m >= n; ``v_i`` is 1 at i, zero above, and what A holds below.
        tau: (..., k), k <= n.
    Raises: ShapeError if the sizes do not fit; DTypeError for integers, half precision and differing dtypes.
    """
    _check_reflectors("linalg.householder_product", A, tau)
    m, n = A.shape[-2:]
    first = eye(m, n, dtype=A.dtype, device=A.device)
    v, w = _wy(recorded, A, tau)
    result = first - v @ w[..., :, :n]
    return deliver("linalg.householder_product", result, out)


def ormqr(
    input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False, *, out: Any = None
) -> Tensor:
    """``Q other``, ``Q^H other`` for ``transpose``, or ``other Q``, ``other Q^H`` for ``left=False``.

    ``Q`` is the square product of the reflectors in ``input`` and ``tau``, as ``geqrf`` gives them.

    Raises: ShapeError if the sizes do not fit; DTypeError for integers, half precision and differing dtypes.
    """
    name = "ormqr"
    require_matrix(name, input, label="input")
    require_same(name, input, tau, label="tau")
    if not tau._data.ndim:
        raise ShapeError(f"{name}: tau must be a vector or a batch of them, got a 0-d tensor.")
    require_matrix(name, other, label="other")
    require_same(name, input, other, label="other")
    m, k = input.shape[-2], tau.shape[-1]
    if other.shape[-2 if left else -1] != m:
        side = "other.shape[-2]" if left else "other.shape[-1]"
        raise ShapeError(
            f"{name}: {side} must be equal to input.shape[-2], got {tuple(other.shape)} and {tuple(input.shape)}."
        )
    if k > min(m, input.shape[-1]):
        raise ShapeError(f"{name}: {side_of(left)} must be greater than or equal to tau.shape[-1], got {k} factors.")
    if tau._data.ndim != input._data.ndim - 1 or other._data.ndim != input._data.ndim:
        raise ShapeError(
            f"{name}: Expected other to have as many dimensions as input and tau one less, got {tuple(input.shape)}, "
            f"{tuple(tau.shape)} and {tuple(other.shape)}."
        )
    if tuple(tau.shape[:-1]) != tuple(input.shape[:-2]) or tuple(other.shape[:-2]) != tuple(input.shape[:-2]):
        raise ShapeError(f"{name}: Expected batch dimensions of tau and other to be equal to input.shape[:-2].")
    v, w = _wy(recorded, input, tau)
    if transpose:
        v, w = mH(recorded, w), mH(recorded, v)
    result = other - (v @ (w @ other) if left else (other @ v) @ w)
    return deliver_same(name, result, out)


def side_of(left: bool) -> str:
    return "other.shape[-2]" if left else "other.shape[-1]"


def geqrf(input: Tensor, *, out: Any = None) -> Any:
    """``(a, tau)``: R on and above the diagonal of ``a``, the reflectors below it, and their factors.

    ``linalg.householder_product(a, tau)`` is Q. There is no derivative; use ``linalg.qr``.

    Raises: ShapeError for fewer than two dimensions; DTypeError for integers and half precision.
    """
    require_matrix("geqrf", input, label="input")
    return write_all("geqrf", _Geqrf(*geqrf_op(input)), out, casts=True)


_Geqrf = result_tuple("geqrf", "a", "tau")
