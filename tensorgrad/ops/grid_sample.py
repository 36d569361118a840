"""Reading an image or volume at the places of a grid, and the grid of an affine map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations
from typing import Any

import numpy as np

from ..dispatch import recorded
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from .calls import calls
from .checks import (
    is_float,
    np_dtype,
    product,
    require_float,
    require_same_dtype,
    require_tensors,
    reshaped,
    statistic_dtype,
)
from .matmul import matmul_op
from .norm import fitted
from .record import Spec, op
from .samples import Arg, Sample

__all__: list[str] = []  # users know them as functions of nn.functional

_INT64 = np.dtype(np.int64)
_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def _infer(x: Any, grid: Any, *, mode: str, padding: str, align_corners: bool) -> Spec:
    require_float("grid_sample", x)
    require_same_dtype("grid_sample", x, grid=grid)
    dims = x.ndim - 2
    if dims not in (2, 3) or grid.ndim != x.ndim:
        raise ShapeError(
            f"grid_sample: expected 4-D or 5-D input and grid of equal dimensions, got {tuple(x.shape)} and "
            f"{tuple(grid.shape)}."
        )
    if grid.shape[0] != x.shape[0] or grid.shape[-1] != dims:
        raise ShapeError(
            f"grid_sample: an input of {tuple(x.shape)} needs a grid of ({x.shape[0]}, ..., {dims}), got "
            f"{tuple(grid.shape)}."
        )
    if min(x.shape[2:]) < 1:
        raise ShapeError(f"grid_sample: the input's spatial sizes may not be zero, got {tuple(x.shape)}.")
    if mode == "bicubic" and dims != 2:
        raise ShapeError(f"grid_sample: mode 'bicubic' needs a 4-D input, got {tuple(x.shape)}.")
    return Spec((*x.shape[:2], *grid.shape[1:-1]), x.dtype)


Slope = Any
"""How a coordinate in pixels changes with the one it was made from; None for 1."""


def _times(F: Any, a: Slope, b: Slope) -> Slope:
    return b if a is None else a if b is None else F.mul(a, b)


def _clipped(F: Any, at: Any, size: int, slope: Slope) -> tuple[Any, Slope]:
    """Limited to the input; no gradient at the limits or beyond."""
    above = F.gt(at, 0.0)
    raised = F.where(above, at, 0.0)
    below = F.lt(raised, float(size - 1))
    within = F.where(F.logical_and(above, below), F.full_as(at, value=1.0), 0.0)
    return F.where(below, raised, float(size - 1)), _times(F, slope, within)


def _reflected(F: Any, at: Any, size: int, align_corners: bool) -> tuple[Any, Slope]:
    """Folded back at the ends: the centres of the outer elements, or their outer edges."""
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    if low == high:
        none = F.mul(at, 0.0)
        return none, none
    span = high - low
    away = F.sub(at, low)
    back = F.lt(away, 0.0)
    away = F.where(back, F.neg(away), away)
    extra = F.fmod(away, span)
    odd = F.gt(F.remainder(F.floor(F.div(away, span)), 2.0), 0.5)
    one = F.full_as(at, value=1.0)
    turned = F.where(F.logical_xor(back, odd), F.neg(one), one)
    return F.add(F.where(odd, F.sub(span, extra), extra), low), turned


def _padded(F: Any, at: Any, size: int, padding: str, align_corners: bool) -> tuple[Any, Slope]:
    if padding == "zeros":
        return at, None
    slope = None
    if padding == "reflection":
        at, slope = _reflected(F, at, size, align_corners)
    return _clipped(F, at, size, slope)


def _cubic_weights(F: Any, part: Any) -> list[tuple[Any, Any]]:
    """The weights of the elements 1 before to 2 behind, for a place ``part`` of the way to the next one, and their
    slopes."""
    a = -0.75

    def far(d: Any, sign: float) -> tuple[Any, Any]:
        weight = F.sub(F.mul(F.add(F.mul(F.sub(F.mul(d, a), 5 * a), d), 8 * a), d), 4 * a)
        return weight, F.mul(F.add(F.mul(F.sub(F.mul(d, 3 * a), 10 * a), d), 8 * a), sign)

    def near(d: Any, sign: float) -> tuple[Any, Any]:
        weight = F.add(F.mul(F.mul(F.sub(F.mul(d, a + 2), a + 3), d), d), 1.0)
        return weight, F.mul(F.mul(F.sub(F.mul(d, 3 * (a + 2)), 2 * (a + 3)), d), sign)

    rest = F.sub(1.0, part)
    return [far(F.add(part, 1.0), 1.0), near(part, 1.0), near(rest, -1.0), far(F.add(rest, 1.0), -1.0)]


def _taps(F: Any, at: Any, size: int, mode: str, padding: str, align_corners: bool) -> list[tuple[Any, Any, Any]]:
    """(place, weight, slope of the weight) of the elements that are read along one axis; None for a weight of one, and
    for a slope of zero."""
    if mode == "bicubic":
        low = F.floor(at)
        weights = _cubic_weights(F, F.sub(at, low))
        shifted = [F.add(low, float(i - 1)) for i in range(4)]
        return [
            (_padded(F, place, size, padding, align_corners)[0], *w) for place, w in zip(shifted, weights, strict=True)
        ]
    at, slope = _padded(F, at, size, padding, align_corners)
    if mode == "nearest":
        return [(F.round(at), None, None)]
    low = F.floor(at)
    part = F.sub(at, low)
    slope = F.full_as(part, value=1.0) if slope is None else slope
    return [(low, F.sub(1.0, part), F.neg(slope)), (F.add(low, 1.0), part, slope)]


def _axes(F: Any, x: Any, grid: Any, mode: str, padding: str, align_corners: bool) -> list[Any]:
    """The taps of each axis of ``x``; the grid names the last axis first."""
    sizes = tuple(x.shape[2:])
    axes = []
    for axis, size in enumerate(sizes):
        place = F.slice(grid, key=(*(slice(None),) * (grid.ndim - 1), len(sizes) - 1 - axis))
        at = (
            F.mul(F.add(place, 1.0), (size - 1) / 2)
            if align_corners
            else (F.div(F.sub(F.mul(F.add(place, 1.0), float(size)), 1.0), 2.0))
        )
        axes.append(_taps(F, at, size, mode, padding, align_corners))
    return axes


def _corner(F: Any, corner: Any, x: Any, count: int) -> tuple[Any, Any]:
    """(whether a corner lies inside, where it lies in a flattened plane), (n, 1, count) and (n, c, count)."""
    n, c = x.shape[0], x.shape[1]
    inside: Any = None
    index: Any = None
    for (place, _, _), size in zip(corner, x.shape[2:], strict=True):
        here = F.logical_and(F.ge(place, 0.0), F.le(place, float(size - 1)))  # False for NaN
        inside = here if inside is None else F.logical_and(inside, here)
        step = F.cast(F.where(here, place, 0.0), dtype=_INT64)
        index = step if index is None else F.add(F.mul(index, size), step)
    where = F.expand(reshaped(F, index, (n, 1, count)), shape=(n, c, count))
    return reshaped(F, inside, (n, 1, count)), where


def _weight(F: Any, corner: Any, sloped: int | None = None) -> Any:
    """The product of a corner's weights, of one axis its slope; None for 1, and where a slope is zero."""
    total: Any = None
    for axis, (_, part, slope) in enumerate(corner):
        if axis == sloped and slope is None:
            return None
        total = _times(F, total, slope if axis == sloped else part)
    return total


def _define(F: Any, x: Any, grid: Any, *, mode: str, padding: str, align_corners: bool) -> Any:
    dtype = np_dtype(x)
    x, grid = fitted(F, x, statistic_dtype(dtype)), fitted(F, grid, statistic_dtype(dtype))
    n, c, out = x.shape[0], x.shape[1], tuple(grid.shape[1:-1])
    count = product(out)
    flat = reshaped(F, x, (n, c, product(x.shape[2:])))
    total: Any = None
    for corner in combinations(*_axes(F, x, grid, mode, padding, align_corners)):
        inside, where = _corner(F, corner, x, count)
        value = F.where(inside, F.gather(flat, where, dim=2), 0.0)
        weight = _weight(F, corner)
        if weight is not None:  # after the zeros: a place that is no number gives none
            value = F.mul(value, reshaped(F, weight, (n, 1, count)))
        total = value if total is None else F.add(total, value)
    return fitted(F, reshaped(F, total, (n, c, *out)), dtype)


def _define_backward(
    F: Any, g: Any, x: Any, grid: Any, *, mode: str, padding: str, align_corners: bool, needs: tuple[bool, bool]
) -> tuple[Any, Any]:
    """To ``x``: what each corner read is added where it was. To the grid: the weights' slopes times what they weigh."""
    dtype = np_dtype(x)
    g, x, grid = (fitted(F, part, statistic_dtype(dtype)) for part in (g, x, grid))
    n, c, out = x.shape[0], x.shape[1], tuple(grid.shape[1:-1])
    count, sizes = product(out), tuple(x.shape[2:])
    flat, g = reshaped(F, x, (n, c, product(sizes))), reshaped(F, g, (n, c, count))
    to_x: Any = F.zeros_as(g, shape=tuple(flat.shape)) if needs[0] else None
    to_axes: list[Any] = [None] * len(sizes)
    for corner in combinations(*_axes(F, x, grid, mode, padding, align_corners)):
        inside, where = _corner(F, corner, x, count)
        if needs[0]:
            weight = _weight(F, corner)
            share = g if weight is None else F.mul(g, reshaped(F, weight, (n, 1, count)))
            to_x = F.scatter_add(to_x, where, F.where(inside, share, 0.0), dim=2)
        slopes = [_weight(F, corner, axis) for axis in range(len(sizes))] if needs[1] else []
        if any(slope is not None for slope in slopes):
            value = F.where(inside, F.gather(flat, where, dim=2), 0.0)
            weighed = reshaped(F, F.sum(F.mul(g, value), dim=(1,), keepdim=False), (n, *out))
            for axis, slope in enumerate(slopes):
                part = F.mul(weighed, slope)
                to_axes[axis] = part if to_axes[axis] is None else F.add(to_axes[axis], part)
    to_grid: Any = None
    if needs[1] and to_axes[0] is None:
        to_grid = F.zeros_as(grid, shape=tuple(grid.shape))
    elif needs[1]:
        scaled = [
            F.mul(part, (size - 1) / 2 if align_corners else size / 2)
            for part, size in zip(to_axes, sizes, strict=True)
        ]
        to_grid = F.stack(*reversed(scaled), dim=grid.ndim - 1)
    return (
        fitted(F, reshaped(F, to_x, tuple(x.shape)), dtype) if needs[0] else None,
        fitted(F, to_grid, dtype) if needs[1] else None,
    )


def _rule(
    F: Any, g: Any, x: Any, grid: Any, *, needs: Any, mode: str, padding: str, align_corners: bool
) -> tuple[Any, Any]:
    found: tuple[Any, Any] = F.grid_sample_backward(
        g, x, grid, mode=mode, padding=padding, align_corners=align_corners, needs=tuple(needs[:2])
    )
    return found


def _how(**changed: Any) -> dict[str, Any]:
    return {"mode": "bilinear", "padding": "zeros", "align_corners": False} | changed


def _backward_samples() -> list[Sample]:
    """``_samples`` with a gradient of each result."""
    made = []
    for sample in _samples():
        x, grid = sample.inputs
        g = Arg((*x.shape[:2], *grid.shape[1:-1]))
        made.append(Sample((g, x, grid), {**sample.attrs, "needs": (True, True)}, name=sample.name))
    return made


def _samples() -> list[Sample]:
    # between the elements' centres: there the derivatives do not jump
    image, volume = Arg((2, 3, 4, 4)), Arg((1, 2, 2, 2, 4))
    grid = Arg((2, 2, 2, 2), values=(-1.1, 0.9, -0.4, 0.1, 0.35, -0.6, 1.15, -1.6, 0.4, 0.85, -0.9, -0.1, 0.1, 0.6, 1.6,
                                     0.15))  # fmt: skip
    points = Arg((1, 1, 2, 2, 3), values=(-0.4, 0.2, 0.1, 0.35, -0.3, -1.2, 0.9, 0.3, 0.2, 1.1, 0.1, -0.2))
    return [
        Sample((image, grid), _how(), name="bilinear"),
        Sample((image, grid), _how(padding="border", align_corners=True), name="border"),
        Sample((image, grid), _how(padding="reflection"), name="reflection"),
        Sample((image, grid), _how(mode="nearest"), name="nearest"),
        Sample((image, grid), _how(mode="bicubic"), name="bicubic"),
        Sample((image, grid), _how(mode="bicubic", padding="reflection", align_corners=True), name="bicubic folded"),
        Sample((volume, points), _how(), name="volume"),
    ]


grid_sample_op = op(
    "grid_sample",
    infer=_infer,
    define=_define,
    rule=_rule,
    keeps=("x", "grid"),
    checked=True,
    samples=_samples,
    doc="``x`` interpolated at the places of a grid, whose last dimension names the last axis first, in [-1, 1].",
)


grid_sample_backward = op(
    "grid_sample_backward",
    infer=lambda g, x, grid, *, mode, padding, align_corners, needs: (
        Spec(tuple(x.shape), x.dtype),
        Spec(tuple(grid.shape), grid.dtype),
    ),
    define=_define_backward,
    outputs=("to_x", "to_grid"),
    samples=_backward_samples,
    doc="The gradients of ``grid_sample``; None where not needed.",
)


@calls(grid_sample_op, "x x -:mode=bilinear -:padding=zeros flag=False")
def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """The input read at the places that a grid names.

    Args:
        input: (n, c, h, w) or (n, c, d, h, w).
        grid: (n, oh, ow, 2) of (x, y), or (n, od, oh, ow, 3) of (x, y, z): -1 and 1 are the ends of the axes.
        mode: "bilinear" (of 4 or 8 neighbours), "nearest" or, for 4 dimensions, "bicubic".
        padding_mode: what lies beyond the ends: "zeros", the "border" repeated, or the input's "reflection".
        align_corners: -1 and 1 are the centres of the outer elements; otherwise (the default) their outer edges.
    Returns: (n, c, oh, ow) or (n, c, od, oh, ow).
    Raises: ValueError for another mode; ShapeError, DTypeError.
    Source: Jaderberg, Simonyan, Zisserman, Kavukcuoglu 2015.
    """
    require_tensors("grid_sample", input=input, grid=grid)
    if mode not in _MODES:
        raise ValueError(f"grid_sample: mode must be one of {', '.join(_MODES)}; got {mode!r}.")
    if padding_mode not in _PADDINGS:
        raise ValueError(f"grid_sample: padding_mode must be one of {', '.join(_PADDINGS)}; got {padding_mode!r}.")
    return grid_sample_op(input, grid, mode=mode, padding=padding_mode, align_corners=bool(align_corners))


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for ``grid_sample`` that an affine map makes of the output's places.

    Args:
        theta: (n, 2, 3) for images, (n, 3, 4) for volumes.
        size: of the output: (n, c, h, w) or (n, c, d, h, w).
        align_corners: as for ``grid_sample``.
    Returns: (n, h, w, 2) or (n, d, h, w, 3).
    Raises: NotImplementedError for a size of a wrong length; ArgumentError for a size that is not positive, or a theta
        that does not fit or is not floating.
    """
    from .create import ones
    from .ranges import linspace

    require_tensors("affine_grid", theta=theta)
    if not is_float(theta._data.dtype):
        raise ArgumentError(f"affine_grid: expected theta to have a floating point type, got {theta.dtype}.")
    sizes = tuple(int(s) for s in size)
    dims = len(sizes) - 2
    if dims not in (2, 3):
        raise NotImplementedError(f"affine_grid: size must name 4 or 5 sizes, got {sizes}.")
    if min(sizes) <= 0:
        raise ArgumentError(f"affine_grid: expected a non-zero, positive output size, got {sizes}.")
    if theta._data.shape != (sizes[0], dims, dims + 1):
        raise ArgumentError(
            f"affine_grid: expected a batch of affine matrices of shape {(sizes[0], dims, dims + 1)} for size {sizes}, "
            f"got {tuple(theta.shape)}."
        )
    like: dict[str, Any] = {"dtype": theta.dtype, "device": theta.device}
    columns = []
    for axis in reversed(range(dims)):
        count = sizes[2 + axis]
        line: Any = linspace(-1.0, 1.0, count, **like) if count > 1 else ones(1, **like) * 0.0
        if not align_corners:
            line = line * ((count - 1) / count)
        columns.append(line.reshape((-1, *(1,) * (dims - 1 - axis))).expand(sizes[2:]).reshape(-1))
    columns.append(ones(product(sizes[2:]), **like))
    base = recorded.cat(*[column.reshape(-1, 1) for column in columns], dim=1)
    placed: Any = matmul_op(base.expand(sizes[0], *base.shape), theta.transpose(1, 2).contiguous())
    return placed.reshape(sizes[0], *sizes[2:], dims)
