"""Whether tensors agree: one answer, or one for each element."""

from __future__ import annotations

from typing import Any

from ..dtypes import get_default_dtype
from ..errors import ArgumentError, DTypeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .checks import real
from .reduce import all_op, require_tensor

__all__ = ["allclose", "equal", "isclose"]


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether the two have the same shape and the same elements; NaN equals nothing."""
    a, b = require_tensor("equal", input), require_tensor("equal", other)
    if a.shape != b.shape:
        return False
    return _all(pw.eq(input, other))


def _all(holds: Any) -> bool:
    return bool(all_op(holds, dim=tuple(range(holds._data.ndim)), keepdim=False))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Elementwise ``|input - other| <= atol + rtol * |other|``; equal infinities are close, NaN only if ``equal_nan``.

    Raises: DTypeError for tensors of different dtypes; ArgumentError for negative tolerances.
    """
    a, b = require_tensor("isclose", input), require_tensor("isclose", other)
    if a.dtype != b.dtype:
        raise DTypeError(f"isclose: the tensors have different dtypes, {input.dtype} and {other.dtype}.")
    rtol, atol = real("isclose", "rtol", rtol), real("isclose", "atol", atol)
    if not (rtol >= 0 and atol >= 0):
        raise ArgumentError(f"isclose: tolerances must not be negative, got rtol={rtol}, atol={atol}.")
    close = pw.eq(input, other)
    if equal_nan and a.dtype.kind not in "bui":
        close = pw.logical_or(close, pw.logical_and(pw.isnan(input), pw.isnan(other)))
    if rtol == atol == 0:
        return close
    if a.dtype.kind in "bui":  # differences of integers wrap
        input, other = input.to(get_default_dtype()), other.to(get_default_dtype())
    away = pw.abs(pw.sub(input, other))
    limit = pw.add(pw.mul(pw.abs(other), rtol), atol)
    near = pw.logical_and(pw.le(away, limit), pw.isfinite(away))
    return pw.logical_or(close, near)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close in the sense of ``isclose``."""
    return _all(isclose(input, other, rtol, atol, equal_nan))


for _function in (allclose, equal, isclose):
    install(_function)
