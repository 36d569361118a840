"""Sums, products and extremes at repeated places: a sort of the places, and one pass over what goes to them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..generic.index import Indices
from .kernels import JOINS
from .names import NAMES
from .place_kernels import CupyPlaces, Groups, grouped

__all__ = ["CupyAccumulation", "sharing_order"]

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


class _Shared(threading.local):
    order: list[Any] | None = None


_shared = _Shared()


@contextmanager
def sharing_order(order: list[Any] | None) -> Iterator[None]:
    """Within the block, in this thread, the places that are added to come in this order, once one call has put it into
    the list."""
    before, _shared.order = _shared.order, order
    try:
        yield
    finally:
        _shared.order = before


class CupyAccumulation(CupyPlaces):
    """No atomics: the same bits in every run. Nothing waits for the device, so a CUDA graph can hold it."""

    def scatter_add_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        if max(target.size, index.size) >= _MOST:
            return super().scatter_add_into(target, index, src, dim=dim)
        return self._joined("sum", target, *self._along_dim("scatter_add", target, index, dim), src)

    def scatter_reduce_into(self, target: Any, index: Any, src: Any, *, dim: int, reduce: str) -> Any:
        ordered = target.dtype.kind != "c" or JOINS[reduce][1]
        if not ordered or max(target.size, index.size) >= _MOST:
            return super().scatter_reduce_into(target, index, src, dim=dim, reduce=reduce)
        return self._joined(reduce, target, *self._along_dim("scatter_reduce", target, index, dim), src)

    def index_add_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        if max(target.shape[dim], index.size) >= _MOST:
            return super().index_add_into(target, index, src, dim=dim)
        self.check_index("index_add", index, target.shape[dim], dim)
        return self._joined("sum", target, target, grouped(target.ndim, (dim,)), self._dense_index(index), src)

    def _combine(self, how: Any, target: Any, dims: tuple[int, ...], indices: Indices, values: Any) -> Any:
        shape = np.broadcast_shapes(*(index.shape for index in indices))
        rows = math.prod([target.shape[d] for d in dims])
        if how is not self.xp.add or max(math.prod(shape), rows) >= _MOST:
            return super()._combine(how, target, dims, indices, values)
        return self._summed(target, dims, self._rows_at(target, indices, dims), shape, values)

    def _summed(self, target: Any, dims: tuple[int, ...], place: Any, shape: tuple[int, ...], values: Any) -> Any:
        """``values`` (broadcast) added to what the rows ``place`` of ``dims``, which indexing makes ``shape``, are."""
        groups = grouped(target.ndim, dims)
        return self._joined("sum", target, target, groups, place, self._spread(target, groups, shape, values))

    def _spread(self, target: Any, groups: Groups, shape: tuple[int, ...], values: Any) -> Any:
        outer, _, inner = groups
        sizes = target.shape
        return self.xp.broadcast_to(values, (*[sizes[d] for d in outer], *shape, *[sizes[d] for d in inner]))

    def _joined(self, how: str, target: Any, part: Any, groups: Groups, place: Any, values: Any) -> Any:
        """``target``, ``values`` (outer, places, inner) having been joined with the rows ``place`` of a part of it."""
        if not values.size or not part.size:
            return target
        xp = self.xp
        values = xp.ascontiguousarray(values.astype(part.dtype, copy=False))
        out, lying = self._where_it_lies(part, groups, by_element=True)
        outer, rows, inner = lying.outer, lying.rows, lying.inner
        keys, order = self._in_order(place, rows)
        tile = tile_of(place.size, outer * inner)
        threads = outer * -(-place.size // tile) * inner
        lanes = 1 if inner >= _WARP else _WARP
        shares = xp.empty((2 * threads * _SHARE_BYTES,), dtype=np.uint8)
        where = (outer, place.size, inner, rows, tile, keys, lying.layout)
        name = NAMES[part.dtype]
        if name == "bool":  # whether any holds is their sum, as NumPy's
            how, name = "amax" if how == "sum" else how, "uint8"
        self._kernels.launch(f"{how}tiles_{name}", threads, *where, order, values, out, shares)
        if place.size > tile:
            self._kernels.launch(f"{how}runs_{name}", threads * lanes, *where, lanes, out, shares)
        self._put_back(part, out, groups)
        return target

    def _in_order(self, place: Any, rows: int) -> tuple[Any, Any]:
        """``place`` in ascending order, what is no row at the end as ``rows``, and where each was."""
        shared = _shared.order
        if shared is None:
            return self._order_of(place, rows)
        if not shared:
            shared += self._order_of(place, rows)
        return shared[0], shared[1]

    def _order_of(self, place: Any, rows: int) -> tuple[Any, Any]:
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
