"""Sums, products and extremes at repeated places: a sort of the places, and one pass over what goes to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..generic.index import IndexKernels, Indices
from .kernels import JOINS, Kernels

__all__ = ["CupyAccumulation"]

_BLOCK = 256
_RANKED = 2048  # keys that are faster compared with each other than sorted by digits
_CHUNK = 2048  # keys of a block, at least
_CHUNKS = 128
_DIGIT_BITS = 8
_THREADS = 1 << 18  # that keep any device busy: there are so many tiles, if that leaves enough for each
_TILE = 16, 256  # the fewest and the most keys of a tile
_WARP = 32
_SHARE_BYTES = 16  # of the largest share
_MOST = 1 << 31  # keys, and rows: they are counted in 32 bits


def tile_of(length: int, columns: int) -> int:
    """Keys of a tile, which the shape alone decides."""
    wanted = length * columns // _THREADS
    return min(max(_TILE[0], 1 << max(wanted - 1, 0).bit_length()), _TILE[1])


class CupyAccumulation(IndexKernels):
    """No atomics: the same bits in every run. Nothing waits for the device, so a CUDA graph can hold it."""

    _kernels: Kernels

    def scatter_add_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        self.check_index("scatter_add", index, target.shape[dim], dim)
        if max(target.size, index.size) >= _MOST:
            return super().scatter_add_into(target, index, src, dim=dim)
        return self._scattered("sum", target, index, src, dim)

    def scatter_reduce_into(self, target: Any, index: Any, src: Any, *, dim: int, reduce: str) -> Any:
        ordered = target.dtype.kind != "c" or JOINS[reduce][1]
        if not ordered or max(target.size, index.size) >= _MOST:
            return super().scatter_reduce_into(target, index, src, dim=dim, reduce=reduce)
        self.check_index("scatter_reduce", index, target.shape[dim], dim)
        return self._scattered(reduce, target, index, src, dim)

    def _scattered(self, how: str, target: Any, index: Any, src: Any, dim: int) -> Any:
        if not index.size:
            return target
        return self._joined(how, target, self._places_along(target, index, dim), 1, target.size, 1, src)

    def _places_along(self, target: Any, index: Any, dim: int) -> Any:
        """Flat positions in ``target`` of what ``index`` names along ``dim``; -1 for what is out of range."""
        xp = self.xp
        index = xp.ascontiguousarray(index.astype(np.int64, copy=False))
        if target.shape[:dim] + target.shape[dim + 1 :] != index.shape[:dim] + index.shape[dim + 1 :]:
            step = 1
            place = xp.where((index < 0) | (index >= target.shape[dim]), -target.size, index * 0)
            for axis, along in reversed(list(enumerate(self._along(index, dim)))):
                place += along * step
                step *= target.shape[axis]
            return place.reshape(-1)
        outer, inner = math.prod(index.shape[:dim]), math.prod(index.shape[dim + 1 :])
        place = xp.empty((index.size,), dtype=np.int64)
        self._kernels.launch("places", index.size, outer, target.shape[dim], index.shape[dim], inner, index, place)
        return place

    def _combine(self, how: Any, target: Any, dims: tuple[int, ...], indices: Indices, values: Any) -> Any:
        shape = np.broadcast_shapes(*(index.shape for index in indices))
        length, rows = math.prod(shape), math.prod([target.shape[d] for d in dims])
        if how is not self.xp.add or max(length, rows) >= _MOST:
            return super()._combine(how, target, dims, indices, values)
        if not length or not target.size:
            return target
        xp, first, after = self.xp, dims[0], dims[-1] + 1
        if dims != tuple(range(first, after)):  # side by side, and back
            order = (*dims, *(d for d in range(target.ndim) if d not in dims))
            moved = xp.ascontiguousarray(target.transpose(order))
            self._combine(how, moved, tuple(range(len(dims))), indices, values)
            target[...] = moved.transpose([order.index(d) for d in range(target.ndim)])
            return target
        place = self._places(indices, target.shape[first:after])
        outer, inner = math.prod(target.shape[:first]), math.prod(target.shape[after:])
        spread = xp.broadcast_to(values, (*target.shape[:first], *shape, *target.shape[after:]))
        return self._joined("sum", target, place, outer, rows, inner, spread)

    def _places(self, indices: Indices, sizes: tuple[int, ...]) -> Any:
        """Flat positions in dimensions of these sizes of what the indices name together, none of them negative."""
        place = indices[0]
        for index, size in zip(indices[1:], sizes[1:], strict=True):
            place = place * size + index
        return self.xp.ascontiguousarray(place.astype(np.int64, copy=False)).reshape(-1)

    def _joined(self, how: str, target: Any, place: Any, outer: int, rows: int, inner: int, values: Any) -> Any:
        """``values`` (outer, places, inner) joined with ``target`` (outer, rows, inner), where ``place`` says."""
        xp = self.xp
        values = xp.ascontiguousarray(values.astype(target.dtype, copy=False))
        out = xp.ascontiguousarray(target)
        keys, order = self._in_order(place, rows)
        tile = tile_of(place.size, outer * inner)
        threads = outer * -(-place.size // tile) * inner
        lanes = 1 if inner >= _WARP else _WARP
        shares = xp.empty((2 * threads * _SHARE_BYTES,), dtype=np.uint8)
        where = (outer, place.size, inner, rows, tile, keys)
        name = target.dtype.name
        if name == "bool":  # whether any holds is their sum, as NumPy's
            how, name = "amax" if how == "sum" else how, "uint8"
        self._kernels.launch(f"{how}tiles_{name}", threads, *where, order, values, out, shares)
        if place.size > tile:
            self._kernels.launch(f"{how}runs_{name}", threads * lanes, *where, lanes, out, shares)
        if out is not target:
            target[...] = out.reshape(target.shape)
        return target

    def _in_order(self, place: Any, rows: int) -> tuple[Any, Any]:
        """``place`` in ascending order, what is no row at the end as ``rows``, and where each was."""
        count, launch = place.size, self._kernels.launch
        keys, order = self._words(count), self._words(count)
        if count <= _RANKED:
            launch("rankedkeys", count, count, rows, place, keys, order)
            return keys, order
        launch("rowkeys", count, count, rows, place, keys, order)
        chunk = max(_CHUNK, 1 << (-(-count // _CHUNKS) - 1).bit_length())
        chunks = -(-count // chunk)
        counts = self._words(chunks << _DIGIT_BITS)
        for shift in range(0, rows.bit_length(), _DIGIT_BITS):
            launch("digitcounts", chunks * _BLOCK, count, chunk, chunks, shift, keys, counts)
            launch("digitstarts", _BLOCK, chunks, counts)
            found = self._words(count), self._words(count)
            launch("digitplaces", chunks * _BLOCK, count, chunk, chunks, shift, counts, keys, order, *found)
            keys, order = found
        return keys, order

    def _words(self, count: int) -> Any:
        return self.xp.empty((count,), dtype=np.uint32)
