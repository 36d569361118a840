"""What the kernels of ``pool.cu`` compute, on NumPy arrays: window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["pooling"]

Cell = tuple[int, ...]


def _taps(axis: Cell, o: int) -> Any:
    """Positions within the axis that window ``o`` reads."""
    size, outputs, kernel, stride, padding, dilation = axis
    if not kernel:
        return np.arange(o * size // outputs, -(-(o + 1) * size // outputs))
    at = o * stride - padding + np.arange(kernel) * dilation
    return at[(at >= 0) & (at < size)]


def _counted(axis: Cell, o: int, padded: int) -> int:
    size, _, kernel, stride, padding, _ = axis
    if not kernel or not padded:
        return len(_taps(axis, o))
    start = o * stride - padding
    return min(start + kernel, size + padding) - start


def _windows(numbers: Cell) -> Iterator[tuple[Cell, Any, list[Cell]]]:
    """(its place among the results, flat places in the plane, axes) of each window."""
    axes = [numbers[k : k + 6] for k in (0, 6, 12)]
    flat = np.arange(np.prod([axis[0] for axis in axes])).reshape([axis[0] for axis in axes])
    for cell in np.ndindex(*[axis[1] for axis in axes]):
        yield cell, flat[np.ix_(*[_taps(axis, o) for axis, o in zip(axes, cell, strict=True)])].reshape(-1), axes


def _wide(x: Any) -> Any:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _max_pool(planes: int, *arguments: Any) -> None:
    numbers, (x, y, places) = arguments[:18], arguments[18:]
    source, out = _wide(x).reshape(planes, -1), y.reshape(planes, -1)
    for o, (_, within, axes) in enumerate(_windows(numbers)):
        window = source[:, within]
        if not within.size:
            best, value = np.full(planes, -1), np.full(planes, -np.inf)
        else:
            best = window.argmax(axis=1)
            unknown = np.isnan(window)
            if axes[2][2]:  # the last NaN counts
                last = within.size - 1 - unknown[:, ::-1].argmax(axis=1)
                best = np.where(unknown.any(axis=1), last, best)
            value, best = np.take_along_axis(window, best[:, None], axis=1)[:, 0], within[best]
        out[:, o] = value.astype(y.dtype)
        if isinstance(places, np.ndarray):
            places.reshape(planes, -1)[:, o] = best


def _divisor(cell: Cell, axes: list[Cell], padded: int, divisor: int) -> int:
    return divisor or int(np.prod([_counted(axis, o, padded) for axis, o in zip(axes, cell, strict=True)]))


def _avg_pool(planes: int, *arguments: Any) -> None:
    numbers, (padded, divisor, x, y) = arguments[:18], arguments[18:]
    source, out = _wide(x).reshape(planes, -1), y.reshape(planes, -1)
    for o, (cell, within, axes) in enumerate(_windows(numbers)):
        count = source.dtype.type(_divisor(cell, axes, padded, divisor))
        out[:, o] = (source[:, within].sum(axis=1) / count).astype(y.dtype)


def _avg_pool_backward(planes: int, *arguments: Any) -> None:
    numbers, (padded, divisor, g, gx) = arguments[:18], arguments[18:]
    source = _wide(g).reshape(planes, -1)
    total = np.zeros((planes, gx.size // max(planes, 1)), source.dtype)
    for o, (cell, within, axes) in enumerate(_windows(numbers)):
        total[:, within] += source[:, o, None] / source.dtype.type(_divisor(cell, axes, padded, divisor))
    gx[...] = total.reshape(gx.shape).astype(gx.dtype)


def _max_pool_backward(planes: int, *arguments: Any) -> None:
    numbers, (g, places, gx) = arguments[:18], arguments[18:]
    source, where = _wide(g).reshape(planes, -1), places.reshape(planes, -1)
    total = np.zeros((planes, gx.size // planes), source.dtype)
    for o, (_, within, _axes) in enumerate(_windows(numbers)):
        plane = np.flatnonzero(np.isin(where[:, o], within))
        total[plane, where[plane, o]] += source[plane, o]
    gx[...] = total.reshape(gx.shape).astype(gx.dtype)


_KINDS: dict[str, Callable[..., None]] = {
    "maxpool": _max_pool, "avgpool": _avg_pool, "avgpoolback": _avg_pool_backward, "maxpoolback": _max_pool_backward,
}  # fmt: skip


def pooling(name: str) -> Callable[..., None]:
    return _KINDS[name.partition("_")[0]]
