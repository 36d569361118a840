"""The exponential of matrices, and their powers."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..errors import ShapeError
from ..ops import pointwise as pw
from ..ops.checks import integer
from ..ops.inplace import deliver_same
from ..ops.matmul import matmul
from ..ops.ranges import eye
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import mH, part, require_square
from .solving import WELL, WELL_COMPLEX, inv

__all__ = ["matrix_exp", "matrix_power"]


def _exp_rule(F: Any, g: Any, a: Any, *, needs: Any) -> tuple[Any, ...]:
    """The upper right block of ``exp [[A^H, g], [0, A^H]]``. Source: Mathias 1996."""
    h = mH(F, a)
    n, axis = a.shape[-1], a.ndim
    top = F.cat(h, g, dim=axis - 1)
    bottom = F.cat(F.zeros_as(h, shape=tuple(a.shape)), h, dim=axis - 1)
    whole = F.linalg_matrix_exp(F.cat(top, bottom, dim=axis - 2))
    return (part(F, whole, slice(0, n), slice(n, 2 * n)),)


matrix_exp_op = op(
    "linalg_matrix_exp",
    infer=lambda a: Spec(tuple(a.shape), a.dtype),
    rule=_exp_rule,
    keeps=("a",),
    kernel=kernels.matrix_exp,
    samples=lambda: [
        Sample((Arg((3, 3), -0.5, 0.5, kind="s"),), name="small"),
        Sample((Arg((3, 3), kind="s", values=WELL),), name="matrix"),
        Sample((Arg((3, 3), kind="c", values=WELL_COMPLEX),), name="complex"),
        Sample((Arg((2, 2, 2), -4.0, 4.0, kind="s"),), name="large"),
        Sample((Arg((2, 1, 1), kind="s"),), name="numbers"),
        Sample((Arg((0, 0), kind="s"),), name="empty"),
    ],
    doc="The exponential of square matrices.",
)


def matrix_exp(A: Tensor) -> Tensor:
    """``I + A + A A / 2! + ...`` of (..., n, n), by scaling and squaring; half precision in float32.

    Raises: ShapeError for matrices that are not square; DTypeError for integers. Source: Higham 2005.
    """
    if isinstance(A, Tensor) and A.dtype.name in ("float16", "bfloat16"):
        return matrix_exp(A.float()).to(A.dtype)
    require_square("linalg.matrix_exp", A)
    return matrix_exp_op(A)


def matrix_power(A: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """``A`` times itself n times, of (..., m, m): the identity for 0, powers of the inverse for negative n.

    Raises: ShapeError for matrices that are not square; LinAlgError for a singular one and negative n.
    """
    name = "linalg.matrix_power"
    if not isinstance(A, Tensor):
        raise TypeError(f"{name}: A must be a Tensor, got {type(A).__name__}.")
    if A._data.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"{name}: A must be batches of square matrices, got shape {tuple(A.shape)}.")
    n = integer(name, "n", n)
    if n == 0:
        one = eye(int(A.shape[-1]), dtype=A.dtype, device=A.device)
        one = pw.where(pw.eq(A, A) | True, one, A)  # a result of A's, though nothing of it is read
        return deliver_same(name, one, out)
    base = inv(A) if n < 0 else A
    return deliver_same(name, _power(base, abs(n)), out)


def _power(base: Tensor, n: int) -> Tensor:
    """Repeated squaring, from the lowest bit."""
    if n == 1:
        return base.clone()
    result: Tensor | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    assert result is not None
    return result
