"""Integrals and slopes of sampled functions, along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dtypes import get_default_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from . import shape_core as core
from .checks import integer, number, real
from .join import cat
from .reduce import require_tensor
from .reduce import sum as total
from .scan import cumsum
from .shape_core import one_dim

__all__ = ["cumulative_trapezoid", "gradient", "trapezoid", "trapz"]


def _part(x: Tensor, dim: int, start: int, end: int) -> Tensor:
    return core.slice_(x, key=(*(slice(None),) * dim, slice(start, max(start, end), 1)))


def _areas(name: str, y: Any, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas of the trapezoids between neighbouring points, and the dimension they lie along."""
    array = require_tensor(name, y)
    if x is not None and dx is not None:
        raise TypeError(f"{name}: give x or dx, not both.")
    if array.dtype.kind == "b":
        raise DTypeError(f"{name}: received a bool input for `y`, but bool is not supported.")
    at = one_dim(name, dim, array.ndim)
    size = array.shape[at] if array.ndim else 1
    if isinstance(x, Tensor):
        width: Any = _widths(name, x, array, at, size)
    else:
        width = 1.0 if dx is None else dx
        if isinstance(width, bool):
            raise DTypeError(f"{name}: currently, we only support dx as a real number, got a bool.")
    if array.ndim == 0:
        return y, 0
    both = pw.add(_part(y, at, 0, size - 1), _part(y, at, min(1, size), size))
    if isinstance(width, Tensor):
        return pw.div(pw.mul(both, width), 2.0), at
    return pw.mul(both, number(name, "dx", width) / 2.0), at


def _widths(name: str, x: Tensor, y: Any, at: int, size: int) -> Tensor:
    array = require_tensor(name, x)
    if array.dtype.kind == "b":
        raise DTypeError(f"{name}: received a bool input for `x`, but bool is not supported.")
    if array.ndim == 0:
        raise ShapeError(f"{name}: `x` must have at least one dimension.")
    if array.ndim == 1:
        if array.shape[0] != size:
            raise ShapeError(
                f"{name}: There must be one `x` value for each sample point, got {array.shape[0]} of {size}."
            )
        x = core.reshape(x, shape=(array.shape[0],) + (1,) * (y.ndim - at - 1))
        along = 0
    else:
        if array.ndim < y.ndim:
            x = core.reshape(x, shape=(1,) * (y.ndim - array.ndim) + tuple(array.shape))
        along = at
    count = x._data.shape[along]
    return pw.sub(_part(x, along, min(1, count), count), _part(x, along, 0, count - 1))


def trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along ``dim`` by the trapezoidal rule: ``sum((y_i + y_(i+1)) / 2 * (x_(i+1) - x_i))``.

    Args:
        x: where the samples are, a vector or a tensor that broadcasts; or
        dx: how far apart they are, 1 by default.
    Raises: DTypeError for bool tensors; ShapeError where ``x`` does not fit.
    """
    areas, at = _areas("trapezoid", y, x, dx, dim)
    if y._data.ndim == 0:
        raise ShapeError("trapezoid: a 0-d tensor has no dimension to integrate along.")
    return total(areas, at)


def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """``trapezoid`` up to each point but the first: one element fewer along ``dim``."""
    areas, at = _areas("cumulative_trapezoid", y, x, dx, dim)
    if y._data.ndim == 0:
        raise ShapeError("cumulative_trapezoid: a 0-d tensor has no dimension to integrate along.")
    return cumsum(areas, at)


def gradient(
    input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Estimates of the slope along each dimension (or those in ``dim``), from neighbours on both sides.

    Inside, the second-order estimate for uneven distances ``h`` (to the left) and ``k`` (to the right):
    ``(f(x+k) h^2 - f(x-h) k^2 + f(x) (k^2 - h^2)) / (h k (h + k))``; at the ends, estimates of order ``edge_order``.

    Args:
        spacing: the distance of samples: a number, one for each dimension, or tensors of coordinates.
        edge_order: 1 or 2.
    Raises: ArgumentError for another ``edge_order`` or number of spacings; ShapeError for too few samples.
    Source: Fornberg 1988, "Generation of finite difference formulas on arbitrarily spaced grids".
    """
    array = require_tensor("gradient", input)
    edge_order = integer("gradient", "edge_order", edge_order)
    if edge_order not in (1, 2):
        raise ArgumentError(f"gradient: torch.gradient only supports edge_order=1 and edge_order=2, got {edge_order}.")
    dims = _gradient_dims(array, dim)
    spacings = _spacings(array, dims, spacing)
    for at in dims:
        if array.shape[at] < edge_order + 1:
            raise ShapeError(
                f"gradient: torch.gradient expected each dimension size to be at least edge_order+1, got "
                f"{array.shape[at]} in dimension {at}."
            )
    x = input if array.dtype.kind in "fcV" else input.to(get_default_dtype())
    return tuple([_slope(x, at, step, edge_order) for at, step in zip(dims, spacings, strict=True)])


def _gradient_dims(array: Any, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(array.ndim))
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    dims = tuple(one_dim("gradient", d, array.ndim) for d in given)
    if len(set(dims)) != len(dims):
        raise ArgumentError(f"gradient: dim {given} appears multiple times in the list of dims.")
    return dims


def _spacings(array: Any, dims: tuple[int, ...], spacing: Any) -> list[Any]:
    spacing = 1 if spacing is None else spacing
    if isinstance(spacing, (tuple, list)):
        if len(spacing) != len(dims):
            raise ArgumentError(
                f"gradient: torch.gradient expected spacing to be unspecified, a scalar, or a list of length "
                f"{len(dims)}, but got a list of {len(spacing)}."
            )
        given = list(spacing)
    else:
        given = [spacing] * len(dims)
    for at, step in zip(dims, given, strict=True):
        if isinstance(step, Tensor) and (step._data.ndim != 1 or step._data.shape[0] != array.shape[at]):
            raise ArgumentError(
                f"gradient: torch.gradient expected each element of spacing to have one coordinate per sample, got "
                f"{tuple(step.shape)} for {array.shape[at]} samples."
            )
    return given


def _slope(x: Tensor, at: int, step: Any, edge_order: int) -> Tensor:
    size = x._data.shape[at]

    def part(start: int, end: int) -> Any:
        return _part(x, at, start, end)

    if isinstance(step, Tensor):
        gaps = pw.sub(_part(step, 0, 1, size), _part(step, 0, 0, size - 1))
        column = core.reshape(gaps, shape=(size - 1,) + (1,) * (x._data.ndim - at - 1))

        def gap(start: int, end: int) -> Any:
            return _part(column, 0, start, end)
    else:
        step = real("gradient", "spacing", step)
        if step == 0:
            raise ArgumentError("gradient: spacing must not be zero.")

        def gap(start: int, end: int) -> Any:
            return step

    def edge(first: int, sign: int) -> Any:
        """The slope at an end; ``first`` is the end's position, ``sign`` the way inwards."""
        at_gap = first if sign > 0 else first - 1
        h = gap(at_gap, at_gap + 1)
        f0, f1 = part(first, first + 1), part(first + sign, first + sign + 1)
        if edge_order == 1:
            return (f1 - f0) / h * sign
        f2 = part(first + 2 * sign, first + 2 * sign + 1)
        k = gap(at_gap + sign, at_gap + sign + 1)
        # the derivative at x0 of the parabola through three points h and k apart
        return (f1 * ((h + k) / (h * k)) - f0 * ((2 * h + k) / (h * (h + k))) - f2 * (h / (k * (h + k)))) * sign

    h, k = gap(0, size - 2), gap(1, size - 1)
    before, here, after = part(0, size - 2), part(1, size - 1), part(2, size)
    inside = (after * (h * h) - before * (k * k) + here * (k * k - h * h)) / (h * k * (h + k))
    return cat([edge(0, 1), inside, edge(size - 1, -1)], at)


trapz = trapezoid
