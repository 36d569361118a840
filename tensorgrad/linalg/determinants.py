"""Determinants and their logarithms."""

from __future__ import annotations

from typing import Any

from ..backends.generic import linalg as kernels
from ..ops import pointwise as pw
from ..ops.checks import conjugate, np_dtype
from ..ops.inplace import deliver_same
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample
from ..tensor import Tensor
from .algebra import column, diagonal, mH, mm, real_spec, require_square, result_tuple, total, write_all
from .solving import WELL, WELL_COMPLEX, square_samples

__all__ = ["det", "slogdet"]

Slogdet = result_tuple("linalg_slogdet", "sign", "logabsdet")
SINGULAR = ((1.0, 2.0, 3.0), (2.0, 4.0, 6.0), (0.5, -1.0, 0.3))


def _pair(F: Any, g: Any) -> Any:
    return column(F, column(F, g))


def _det_samples(thrice: bool = True) -> list[Sample]:
    """``thrice``: singular matrices have the derivatives that are checked; a third one is not computed there."""
    singular = Sample((Arg((3, 3), kind="s", values=SINGULAR),), {}, thrice, name="singular")
    twice = Sample((Arg((2, 2), kind="s", values=((0.0, 0.0), (0.0, 0.0))),), {}, thrice, name="zero")
    return [*square_samples(), singular, twice]


def _cofactors(F: Any, a: Any) -> Any:
    """Of three rows the vector products of two at a time, which need no inverse: each is what follows it in the circle
    of rows and columns."""
    if tuple(a.shape[-2:]) != (3, 3):
        return F.linalg_cofactors(a)

    def after(rows: int, columns: int) -> Any:
        return F.roll(a, shifts=(-rows, -columns), dims=(a.ndim - 2, a.ndim - 1))

    return conjugate(F, F.sub(F.mul(after(1, 1), after(2, 2)), F.mul(after(1, 2), after(2, 1))))


det_op = op(
    "linalg_det",
    infer=lambda a: Spec(tuple(a.shape[:-2]), a.dtype),
    rule=lambda F, g, a, *, needs: (F.mul(_pair(F, g), _cofactors(F, a)),),
    keeps=("a",),
    kernel=kernels.det,
    samples=_det_samples,
    doc="The determinants of square matrices.",
)
cofactors_op = op(
    "linalg_cofactors",
    infer=lambda a: Spec(tuple(a.shape), a.dtype),
    rule=lambda F, g, a, *, needs: (F.linalg_cofactors_backward(g, a),),
    keeps=("a",),
    kernel=kernels.cofactors,
    samples=lambda: _det_samples(False),
    doc="``conj(det a) a^-H``, finite for singular matrices too: the gradient of the determinant.",
)


def _cofactors_backward_define(F: Any, g: Any, a: Any) -> Any:
    """``conj(det) (tr(G^H A^-H) A^-H - A^-H G^H A^-H)``, for matrices that have an inverse."""
    h = mH(F, F.linalg_inv(a)[0])
    det = F.linalg_det(a)
    gh = mH(F, g)
    trace = F.sum(diagonal(F, F.matmul(gh, h)), dim=(a.ndim - 2,), keepdim=False)
    inner = F.sub(F.mul(_pair(F, trace), h), mm(F, h, gh, h))
    return F.mul(_pair(F, conjugate(F, det)), inner)


cofactors_backward_op = op(
    "linalg_cofactors_backward",
    infer=lambda g, a: Spec(tuple(a.shape), a.dtype),
    define=_cofactors_backward_define,
    kernel=kernels.cofactors_backward,
    samples=lambda: [
        Sample((Arg((3, 3), kind="s"), Arg((3, 3), kind="s", values=WELL)), name="matrix"),
        Sample((Arg((3, 3), kind="c"), Arg((3, 3), kind="c", values=WELL_COMPLEX)), name="complex"),
        Sample((Arg((3, 3), kind="s"), Arg((3, 3), kind="s", values=SINGULAR)), {}, False, name="singular"),
    ],
    doc="The adjoint derivative of the cofactors.",
)


def det(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The determinants of (..., n, n); 1 for n = 0. The derivative exists for singular matrices too.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.det(tg.tensor([[2.0, 0.0], [0.0, 4.0]])).item()
        8.0
    """
    require_square("linalg.det", A)
    return deliver_same("linalg.det", det_op(A), out)


def _slogdet_rule(F: Any, g: Any, a: Any, *, sign: Any, needs: Any) -> tuple[Any, ...]:
    """``A^-H (g_log + i Im(g_sign conj(sign)))``; the sign of a real determinant does not move."""
    to_sign, to_log = g
    scale = to_log
    if np_dtype(a).kind == "c" and to_sign is not None:
        turn = F.imag(F.mul(to_sign, F.conj(sign)))
        scale = total(F, to_log, F.mul(turn, 1j))
    if scale is None:
        return (None,)
    return (F.mul(_pair(F, scale), mH(F, F.linalg_inv(a)[0])),)


slogdet_op = op(
    "linalg_slogdet",
    infer=lambda a: (Spec(tuple(a.shape[:-2]), a.dtype), real_spec(tuple(a.shape[:-2]), a.dtype)),
    rule=_slogdet_rule,
    keeps=("a", "sign"),
    outputs=("sign", "size"),
    kernel=kernels.slogdet,
    samples=square_samples,
    doc="The determinants' signs (phases) and the logarithms of their sizes.",
)


def slogdet(A: Tensor, *, out: Any = None) -> Any:
    """``(sign, logabsdet)`` of (..., n, n): ``det = sign * exp(logabsdet)``; 0 and -inf for singular matrices.

    Raises: ShapeError for matrices that are not square; DTypeError for integers and half precision.
    """
    require_square("linalg.slogdet", A)
    return write_all("linalg.slogdet", Slogdet(*slogdet_op(A)), out)


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinants of (..., n, n): NaN where negative, -inf where 0."""
    require_square("logdet", input)
    sign, size = slogdet_op(input)
    return pw.add(size, pw.log(sign))
