"""Reading and writing at integer positions, over ``xp``.

The ``_into`` kernels write over their first argument after every index has been checked; the out-of-place ops copy and
then write. What meets at one place is added in the order of the indices, so the same bits come out in every run.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...errors import IndexOutOfRange, ShapeError
from .checks import Checks
from .reduce import wide

Indices = tuple[Any, ...]


class IndexKernels(Checks):
    xp: Any
    at_in_order = False
    """Whether ``xp.add.at`` and its kin take their values one after another, in order."""
    raises_out_of_range = False
    """Whether indexing by arrays raises IndexError, before anything is written, for an index out of range."""

    def check_index(self, name: str, index: Any, size: int, dim: int, negative: bool = False) -> None:
        """Raises IndexOutOfRange unless all of ``index`` lies in a dimension of this size."""
        if index.size == 0:
            return
        low, high = int(index.min()), int(index.max())
        least = -size if negative else 0
        if low < least or high >= size:
            raise IndexOutOfRange(
                f"{name}: index {high if high >= size else low} is out of bounds for dimension {dim} with size {size}; "
                f"it must be from {least} to {size - 1}."
                if size
                else f"{name}: dimension {dim} has size 0, there is nothing to index."
            )

    def _check_indices(self, name: str, x: Any, indices: Indices, spec: tuple[int, ...]) -> None:
        for index, dim in zip(indices, spec, strict=True):
            self.check_index(name, index, x.shape[dim], dim, negative=True)

    # --- reading

    def gather(self, x: Any, index: Any, *, dim: int) -> Any:
        self.check_index("gather", index, x.shape[dim], dim)
        part = tuple([slice(None) if d == dim else slice(0, size) for d, size in enumerate(index.shape)])
        return self.xp.take_along_axis(x[part], index, dim)

    def index_select(self, x: Any, index: Any, *, dim: int) -> Any:
        self.check_index("index_select", index, x.shape[dim], dim)
        return self.xp.take(x, index, axis=dim)

    def index(self, x: Any, *indices: Any, spec: tuple[int, ...]) -> Any:
        if not self.raises_out_of_range:
            self._check_indices("index", x, indices, spec)
        try:
            return self.xp.asarray(x[_key(indices, spec, x.ndim)])
        except IndexError:
            self._check_indices("index", x, indices, spec)
            raise

    def nonzero(self, x: Any) -> Any:
        """(n, ndim) positions of what is not zero, in row-major order."""
        xp = self.xp
        if x.ndim == 0:
            return xp.zeros((int(bool(x != 0)), 0), dtype=np.int64)
        return xp.stack(xp.nonzero(wide(x) != 0), axis=1).astype(np.int64, copy=False)

    def positions(self, x: Any, *, count: int) -> Any:
        found = self.nonzero(x)
        if found.shape[0] != count:
            raise ShapeError(f"positions: {count} elements are expected not to be zero, {found.shape[0]} are not.")
        return found

    # --- writing

    def scatter_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        self.check_index("scatter", index, target.shape[dim], dim)
        target[self._along(index, dim)] = src
        return target

    def scatter_add_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        self.check_index("scatter_add", index, target.shape[dim], dim)
        return self._combine(self.xp.add, target, tuple(range(target.ndim)), self._along(index, dim), src)

    def scatter_reduce_into(self, target: Any, index: Any, src: Any, *, dim: int, reduce: str) -> Any:
        self.check_index("scatter_reduce", index, target.shape[dim], dim)
        xp = self.xp
        combine = {"prod": xp.multiply, "amax": xp.maximum, "amin": xp.minimum}[reduce]
        return self._combine(combine, target, tuple(range(target.ndim)), self._along(index, dim), src)

    def index_add_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        self.check_index("index_add", index, target.shape[dim], dim)
        return self._combine(self.xp.add, target, (dim,), (index,), src)

    def index_put_into(self, target: Any, value: Any, *indices: Any, spec: tuple[int, ...], accumulate: bool) -> Any:
        if accumulate or not self.raises_out_of_range:
            self._check_indices("index_put", target, indices, spec)
        if not accumulate:
            try:
                target[_key(indices, spec, target.ndim)] = value
            except IndexError:
                self._check_indices("index_put", target, indices, spec)
                raise
            return target
        sizes = [target.shape[dim] for dim in spec]
        ready = tuple([self.xp.where(i < 0, i + size, i) for i, size in zip(indices, sizes, strict=True)])
        return self._combine(self.xp.add, target, spec, ready, value)

    def _along(self, index: Any, dim: int) -> Indices:
        """Index arrays for every dimension of which only ``dim`` is given by ``index``."""
        shape = index.shape
        parts = []
        for d, size in enumerate(shape):
            ramp = (1,) * d + (size,) + (1,) * (len(shape) - d - 1)
            parts.append(index if d == dim else self.xp.arange(size).reshape(ramp))
        return tuple(parts)

    def _combine(self, how: Any, target: Any, dims: tuple[int, ...], indices: Indices, values: Any) -> Any:
        """``target[indices] = how(target[indices], values)``, also where places are named more than once."""
        xp = self.xp
        shape = np.broadcast_shapes(*(i.shape for i in indices))
        others = tuple([d for d in range(target.ndim) if d not in dims])
        rows = target.transpose((*dims, *others))
        rest = tuple([target.shape[d] for d in others])
        first = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0
        spread = xp.broadcast_to(values, (*rest[:first], *shape, *rest[first:]))
        named = tuple(range(first, first + len(shape)))
        kept = tuple([d for d in range(spread.ndim) if d not in named])
        count = int(np.prod(shape, dtype=np.int64))
        spread = wide(spread).transpose((*named, *kept)).reshape(count, *rest)
        flat = tuple([xp.broadcast_to(i, shape).reshape(-1) for i in indices])
        if not self.at_in_order:
            self._combine_sorted(how, rows, flat, spread)
        elif rows.dtype == spread.dtype:
            how.at(rows, flat, spread)
        else:
            total = wide(rows)
            how.at(total, flat, spread)
            rows[...] = total.astype(rows.dtype)
        return target

    def _combine_sorted(self, how: Any, rows: Any, flat: Indices, values: Any) -> None:
        """Equal places are brought together by a stable sort and combined in a tree; every place is written once."""
        xp = self.xp
        count = values.shape[0]
        if count == 0:
            return
        place = xp.zeros((count,), dtype=np.int64)
        for index, size in zip(flat, rows.shape, strict=False):
            place = place * size + index
        order = xp.argsort(place, kind="stable")
        place, values = place[order], values[order]
        column = (slice(None), *(None,) * (values.ndim - 1))
        offset = 1
        while offset < count:
            same = place[offset:] == place[:-offset]
            if not bool(same.any()):
                break
            later = values[offset:]
            values = xp.concatenate(
                (values[:offset], xp.where(same[column], how(values[:-offset], later), later)), axis=0
            )
            offset *= 2
        last = xp.concatenate((place[1:] != place[:-1], xp.ones((1,), dtype=bool)))
        ends = xp.nonzero(last)[0]
        at = tuple([index[order][ends] for index in flat])
        rows[at] = how(wide(rows[at]), values[ends]).astype(rows.dtype, copy=False)

    # --- rows by groups

    def row_numbers(self, index: Any, *, rows: int, negative: bool, name: str) -> Any:
        self.check_index(name, index, rows, 0, negative)
        return self.xp.where(index < 0, index + rows, index)

    def grouped_rows(
        self, target: Any, source: Any, *, groups: int, negative: bool, name: str, keeps: bool
    ) -> tuple[Any, Any, Any]:
        xp = self.xp
        numbers = self.row_numbers(target, rows=groups, negative=negative, name=name)
        positions = xp.argsort(numbers, kind="stable")
        ends = xp.searchsorted(numbers[positions], xp.arange(groups + 1)).astype(np.int64, copy=False)
        rows = positions.copy() if source is None else source[positions]
        return rows, ends, positions if keeps else None

    # --- tables of integers

    def bincount(self, x: Any, weights: Any, *, minlength: int) -> Any:
        if x.size and int(x.min()) < 0:
            raise IndexOutOfRange(f"bincount: the input has a negative element, {int(x.min())}.")
        size = max(minlength, int(x.max()) + 1 if x.size else 0)
        out = self.xp.zeros((size,), dtype=np.int64 if weights is None else weights.dtype)
        ones = self.xp.ones((1,), dtype=np.int64) if weights is None else weights
        return self._combine(self.xp.add, out, (0,), (x,), ones)

    def histc(self, x: Any, *, bins: int, low: float, high: float) -> Any:
        if bins <= 0 or not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"histc: there are no {bins} bins from {low} to {high}")
        xp = self.xp
        w = wide(x).reshape(-1)
        if low == high:
            low, high = float(w.min()), float(w.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError("histc: the range is not finite")
            low, high = (low - 1.0, high + 1.0) if low == high else (low, high)
        inside = (w >= low) & (w <= high)
        places = ((xp.where(inside, w, low) - low) * bins / (high - low)).astype(np.int64)
        places = xp.where(inside, xp.minimum(places, bins - 1), bins)
        counts = xp.zeros((bins + 1,), dtype=np.int64)  # as many as there are, without asking the device
        return self._combine(xp.add, counts, (0,), (places,), xp.ones((1,), dtype=np.int64))[:bins].astype(x.dtype)

    def one_hot(self, x: Any, *, classes: int) -> Any:
        xp = self.xp
        if x.size:
            self._refuse_if(((x < 0) | (x >= classes)).any(), partial(self._refuse_classes, x, classes))
        return (x[..., None] == xp.arange(classes, dtype=np.int64)).astype(np.int64)

    def _refuse_classes(self, x: Any, classes: int) -> None:
        low = int(x.min())
        if low < 0:
            raise IndexOutOfRange(f"one_hot: class values must be non-negative, got {low}.")
        high = int(x.max())
        raise IndexOutOfRange(f"one_hot: class values must be below num_classes = {classes}, got {high}.")

    def searchsorted(self, boundaries: Any, values: Any, *, right: bool) -> Any:
        """Halving, all values at once: the first place (or the one after the last equal) that keeps the order.

        ``boundaries`` (n,) or (..., n) with the leading shape of ``values``.
        """
        xp = self.xp
        size = boundaries.shape[-1]
        low = xp.zeros(values.shape, dtype=np.int64)
        high = xp.full(values.shape, size, dtype=np.int64)
        table, wanted = wide(boundaries), wide(values)
        for _ in range(size.bit_length()):
            middle = (low + high) // 2
            at = xp.minimum(middle, size - 1)
            seen = table[at] if table.ndim == 1 else xp.take_along_axis(table, at, -1)
            # NaN counts as larger than every number
            goes_up = ~(seen > wanted) if right else ~(seen >= wanted)
            goes_up &= low < high
            low = xp.where(goes_up, middle + 1, low)
            high = xp.where(goes_up, high, xp.where(low < high, middle, high))
        return low


def _key(indices: Indices, spec: tuple[int, ...], ndim: int) -> tuple[Any, ...]:
    key: list[Any] = [slice(None)] * ndim
    for index, dim in zip(indices, spec, strict=True):
        key[dim] = index
    return tuple(key)
