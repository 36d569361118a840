"""The p-norm of a tensor's elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends.generic.reduce import reduced_shape
from ..dtypes import numpy_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import flag, number
from .getitem import copy_
from .inplace import deliver_same
from .record import Spec, op
from .reduce import (
    Dims,
    in_float32,
    is_complex,
    prepared,
    real_dtype,
    reduction_samples,
    require_float,
    require_tensor,
    with_dims,
)
from .samples import Sample
from .shape_core import cast, contiguous_copy, dims_of, one_dim

__all__ = ["norm", "renorm"]


def _norm_infer(x: Any, *, ord: float, dim: tuple[int, ...], keepdim: bool) -> Spec:
    require_float("norm", x.dtype)
    if (ord < 0 or math.isinf(ord)) and 0 in [x.shape[d] for d in dim]:
        raise ShapeError(f"norm: cannot compute the {ord:g} norm on an empty dimension of shape {tuple(x.shape)}.")
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), real_dtype(x.dtype))


def order_of(p: float, dtype: Any) -> float:
    """``p`` as a number of the dtype that norms compute in: beyond its largest, it is infinity."""
    p = number("norm", "the order p", p)
    limit = float(np.finfo(np.float64 if dtype.name in ("float64", "complex128") else np.float32).max)
    return math.copysign(math.inf, p) if abs(p) > limit else float(p)


def _norm_define(F: Any, x: Any, **how: Any) -> Any:
    return in_float32(F, x, lambda x: _norm_in(F, x, **how))


def _norm_in(F: Any, x: Any, *, ord: float, dim: tuple[int, ...], keepdim: bool) -> Any:
    size = F.abs(x)
    if ord == float("inf"):
        return F.amax(size, dim=dim, keepdim=keepdim)
    if ord == -float("inf"):
        return F.amin(size, dim=dim, keepdim=keepdim)
    if ord == 0:
        return F.sum(F.where(F.ne(size, 0), F.full_as(size, value=1.0), 0.0), dim=dim, keepdim=keepdim)
    if ord == 1:
        return F.sum(size, dim=dim, keepdim=keepdim)
    if ord == 2:
        return F.sqrt(F.sum(F.square(size), dim=dim, keepdim=keepdim))
    return F.pow(F.sum(F.pow(size, ord), dim=dim, keepdim=keepdim), 1.0 / ord)


def _norm_rule(
    F: Any, g: Any, x: Any, *, y: Any, needs: Any, ord: float, dim: tuple[int, ...], keepdim: bool
) -> tuple[Any, ...]:
    """``g * x |x|^(p-2) / y^(p-1)``, and 0 where that is 0/0; the second derivative there is NaN. Both as PyTorch."""
    if ord == 0:
        return (None,)
    g, y = with_dims(F, g, x, dim, keepdim), with_dims(F, y, x, dim, keepdim)
    none = F.eq(y, 0)
    if ord == 2:
        return (F.mul(g, F.where(none, 0.0, F.div(x, y))),)
    size = F.abs(x)
    if is_complex(x):
        still = F.eq(size, 0)
        direction = F.where(still, 0.0, F.div(x, F.where(still, 1.0, size)))
    else:
        direction = F.sign(x)
    if ord == 1:
        return (F.mul(g, direction),)
    if ord in (float("inf"), -float("inf")):
        hit = F.logical_or(F.eq(size, y), F.isnan(size))
        return (F.mul(direction, F.mul(F.div(g, F.sum(hit, dim=dim, keepdim=True)), hit)),)
    if ord < 1:
        power = F.where(F.eq(size, 0), 0.0, F.pow(size, ord - 1))
        return (F.mul(F.mul(direction, power), F.mul(g, F.pow(y, 1 - ord))),)
    if ord < 2:
        scale = F.where(none, 0.0, F.div(g, F.pow(y, ord - 1)))
        return (F.mul(F.mul(direction, F.pow(size, ord - 1)), scale),)
    share = F.pow(F.div(size, F.where(none, 1.0, y)), ord - 2)  # a power of y alone would overflow
    return (F.mul(F.mul(x, share), F.where(none, 0.0, F.div(g, y))),)


def _norm_samples() -> list[Sample]:
    samples = []
    for ord in (2.0, 1.0, 3.0, 0.5, float("inf"), -float("inf"), 0.0):
        for sample in reduction_samples(0.3, 2.0, empty=False, smooth=ord != 0, ord=ord)():
            if ord >= 1 or sample.name != "long":  # 1000 square roots, squared, are too large for float16
                samples.append(Sample(sample.inputs, sample.attrs, sample.smooth, f"p{ord:g}-{sample.name}"))
    return samples


vector_norm_op = op(
    "vector_norm",
    infer=_norm_infer,
    define=_norm_define,
    rule=_norm_rule,
    keeps=("x", "y"),
    checked=True,
    samples=_norm_samples,
    doc="``sum(|x|^ord)^(1/ord)`` over ``dim``; the largest or smallest size for infinite ``ord``, a count for 0.",
)


@calls(vector_norm_op, "x real:ord=2.0 dims flag")
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False, out: Any = None,
    dtype: Any = None,
) -> Tensor:  # fmt: skip
    """The p-norm of the elements over all dimensions or those in ``dim``: ``sum(|x|^p)^(1/p)``.

    ``p`` may be any number, inf, -inf, 0 (counts what is not zero), ``"fro"`` (2), or ``"nuc"``, the sum of the
    singular values of the matrices in the two dimensions. Where the norm is 0, nothing flows back.

    Raises: DTypeError for integers; ShapeError (a ValueError) for another ``p``, and for no elements where ``p`` is
        negative or infinite; DimError for a bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> tg.tensor([3.0, 4.0]).norm().item()
        5.0
    """
    x = prepared("norm", input, dtype)
    if p == "nuc":
        from ..linalg import matrix_norm

        result = matrix_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim)  # type: ignore[arg-type]
        return result if out is None else deliver_same("norm", result, out)
    if p is None or p == "fro":
        p = 2.0
    if p == "nuc":
        from ..linalg import matrix_norm

        both = tuple(range(x._data.ndim)) if dim is None else dims_of("norm", dim, x._data.ndim)
        nuclear: Tensor = matrix_norm(x, "nuc", both, keepdim)
        return nuclear if out is None else deliver_same("norm", nuclear, out)
    if isinstance(p, str):
        raise ShapeError(f"norm: p must be a number, 'fro' or 'nuc', got {p!r}.")
    dims, keepdim = dims_of("norm", dim, x._data.ndim), flag("norm", "keepdim", keepdim)
    result = vector_norm_op(x, ord=order_of(p, x._data.dtype), dim=dims, keepdim=keepdim)
    return result if out is None else deliver_same("norm", result, out)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float, *, out: Any = None) -> Tensor:
    """``input`` with each slice along ``dim`` whose p-norm exceeds ``maxnorm`` scaled down to it.

    Raises: ShapeError for fewer than two dimensions; ArgumentError unless ``p`` is positive and ``maxnorm`` not
        negative; DTypeError for integers and a complex ``p``.
    """
    array = require_tensor("renorm", input)
    require_float("renorm", array.dtype)
    if isinstance(p, complex) or isinstance(maxnorm, complex):
        raise DTypeError("renorm: p and maxnorm must be real-valued.")
    p, maxnorm = number("renorm", "p", p), number("renorm", "maxnorm", maxnorm)
    if not p > 0:
        raise ArgumentError(f"renorm: non-positive-norm not supported, got p = {p}.")
    if not maxnorm >= 0:
        raise ArgumentError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}.")
    if array.ndim < 2:
        raise ShapeError(f"renorm: input needs at least 2 dimensions, got {array.ndim} dimensions.")
    at = one_dim("renorm", dim, array.ndim)
    others = tuple([d for d in range(array.ndim) if d != at])
    # squares of float32 numbers, and the factor's slope, leave float32's range
    wide = cast(input, dtype=numpy_dtype("complex128" if array.dtype.kind == "c" else "float64"))
    size = vector_norm_op(wide, ord=float(p), dim=others, keepdim=True)
    factor = pw.where(pw.gt(size, maxnorm), pw.div(maxnorm, pw.add(size, 1e-7)), 1.0)
    result = pw.mul(input, cast(factor, dtype=real_dtype(array.dtype)))
    return result if out is None else deliver_same("renorm", result, out)


def renorm_(self: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """In-place form of ``renorm``."""
    return copy_(self, renorm(contiguous_copy(self), p, dim, maxnorm))


install(norm)
install(renorm)
install(renorm_)
