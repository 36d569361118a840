"""Resizing over ``xp``: along each axis, every output is a weighted sum of a few inputs.

Which inputs, and with what weights, is a small table made on the host; its transpose is the table of the gradient. A
kernel loops over the taps of a table and works on whole arrays. Half precision is summed in float32.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import ArgumentError
from .reduce import wide

Table = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""(index, weight), both (taps, outputs)."""


def _step(size: int, outputs: int, scale: float | None, align_corners: bool, number: Any) -> Any:
    """How far two neighbouring outputs lie apart in the input."""
    if align_corners:
        return number((size - 1) / (outputs - 1)) if outputs > 1 else number(0)
    return number(1 / scale) if scale is not None and scale > 0 else number(size) / number(outputs)


def _cubic(distance: Any, a: float) -> Any:
    """Keys's cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _antialiased(mode: str, size: int, outputs: int, step: float) -> Table:
    """A kernel as wide as the step, so that every input counts."""
    reach = (1.0 if mode == "linear" else 2.0) * max(step, 1.0)
    center = step * (np.arange(outputs) + 0.5)
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((center + reach + 0.5).astype(np.int64), size) - first
    taps = np.arange(int(count.max()))[:, None]
    distance = (taps + first - center + 0.5) / max(step, 1.0)
    weight = np.maximum(1 - np.abs(distance), 0.0) if mode == "linear" else _cubic(distance, -0.5)
    weight = np.where(taps < count, weight, 0.0)
    return np.minimum(first + taps, size - 1), weight / weight.sum(axis=0)


@lru_cache(maxsize=256)
def axis_table(
    mode: str, size: int, outputs: int, scale: float | None, align_corners: bool, antialias: bool, single: bool
) -> Table:
    """The table of one axis of ``size`` inputs. ``single``: places are found in single precision, as float32's are."""
    number: Any = np.float32 if single else np.float64
    out: Any = np.arange(outputs, dtype=number)
    step = _step(size, outputs, scale, align_corners, number)
    if mode in ("nearest", "nearest-exact"):
        at = np.floor(out * step if mode == "nearest" else (out + number(0.5)) * step)
        return np.minimum(at.astype(np.int64), size - 1)[None], np.ones((1, outputs))
    if antialias:
        return _antialiased(mode, size, outputs, float(step))
    at = out * step if align_corners else step * (out + number(0.5)) - number(0.5)
    if mode == "linear":
        if size == outputs:
            at = out
        at = np.maximum(at, 0)
        low = np.minimum(at.astype(np.int64), size - 1)
        part = np.clip(at - low, 0, 1).astype(np.float64)
        return np.stack((low, np.minimum(low + 1, size - 1))), np.stack((1 - part, part))
    low = np.floor(at).astype(np.int64)
    part = (at - low).astype(np.float64)
    shifts = np.arange(-1, 3)[:, None]
    return np.clip(low + shifts, 0, size - 1), _cubic(part - shifts, -0.75)


@lru_cache(maxsize=256)
def transposed_table(
    mode: str, size: int, outputs: int, scale: float | None, align_corners: bool, antialias: bool, single: bool
) -> Table:
    """For each input, the outputs that it counts in, with its weights there."""
    index, weight = axis_table(mode, size, outputs, scale, align_corners, antialias, single)
    order = np.argsort(index.ravel(), kind="stable")
    source = index.ravel()[order]
    rank = np.arange(source.size) - np.searchsorted(source, source)
    taps = int(rank.max()) + 1
    places, weights = np.zeros((taps, size), dtype=np.int64), np.zeros((taps, size))
    places[rank, source] = np.broadcast_to(np.arange(outputs), index.shape).ravel()[order]
    weights[rank, source] = weight.ravel()[order]
    # where fewer count, the first one is read again, at weight zero: another's NaN would not stay away
    places = np.where(np.arange(taps)[:, None] < np.bincount(source, minlength=size), places, places[0])
    return places, weights


class ResizeKernels:
    xp: Any

    def resize(self, x: Any, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool) -> Any:
        single = x.dtype != np.float64
        if x.dtype.kind in "iu":
            return self._resize_bytes(x, sizes, mode, scales, align_corners, antialias)
        y = wide(x)
        for axis, (outputs, scale) in enumerate(zip(sizes, scales, strict=True), 2):
            y = self._blend_along(
                y, axis, axis_table(mode, x.shape[axis], outputs, scale, align_corners, antialias, single)
            )
        return y.astype(x.dtype, copy=False)

    def _resize_bytes(self, x: Any, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool) -> Any:
        """Whole numbers: fixed-point weights of 15 bits, the last axis first, rounded to bytes after each axis."""
        xp = self.xp
        y = x
        for axis in reversed(range(2, x.ndim)):
            how = (mode, x.shape[axis], sizes[axis - 2], scales[axis - 2], align_corners, antialias, True)
            index, weight = axis_table(*how)
            if len(index) == 1:
                y = xp.take(y, xp.asarray(index[0]), axis=axis)
                continue
            weight = weight.copy()
            for tap in range(1, len(index)):  # the edge, where it is read more than once, has one weight
                again = index[tap] == index[tap - 1]
                weight[tap] += np.where(again, weight[tap - 1], 0)
                weight[tap - 1][again] = 0
            bits = 0
            while bits < 22 and int(0.5 + weight.max() * (1 << (bits + 1))) < 1 << 15:
                bits += 1
            whole = np.trunc(weight * (1 << bits) + np.copysign(0.5, weight)).astype(np.int64)
            total = self._blend_along(y.astype(np.int64), axis, (index, whole))
            y = xp.clip((total + (1 << bits >> 1)) >> bits, 0, 255).astype(x.dtype)
        return y

    def resize_backward(
        self, g: Any, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool
    ) -> Any:
        single = g.dtype != np.float64
        out = wide(g)
        for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), 2):
            table = transposed_table(mode, size, g.shape[axis], scale, align_corners, antialias, single)
            out = self._blend_along(out, axis, table)
        return out.astype(g.dtype, copy=False)

    def _blend_along(self, x: Any, axis: int, table: Table) -> Any:
        xp = self.xp
        column = (-1, *(1,) * (x.ndim - axis - 1))
        total: Any = None
        for index, weight in zip(*table, strict=True):
            part = xp.take(x, xp.asarray(index), axis=axis)
            if not (weight == 1).all():
                part = part * xp.asarray(weight.astype(x.dtype)).reshape(column)
            total = part if total is None else total + part
        return total


def scaled_size(size: int, scale: float) -> int:
    """How many outputs an axis has when it is scaled."""
    scaled = size * scale
    if not abs(scaled) < 2.0**62:
        raise ArgumentError(f"interpolate: scale_factor {scale} makes no size of {size}.")
    return math.floor(scaled)
