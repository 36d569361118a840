"""Reading and writing at integer positions by kernels that move bytes; rows of tables, and their gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..generic.embedding import EmbeddingKernels
from ..generic.index import Indices
from .accumulate_kernels import CupyAccumulation

__all__ = ["CupyIndexing"]

_UNITS = (16, 8, 4, 2, 1)  # bytes that a thread moves
_MOST = 1 << 31  # positions to write to: the last one is found by 32-bit numbers


class CupyIndexing(CupyAccumulation, EmbeddingKernels):
    """Positions that repeat are written to as if one after another: the last one stays, in every run."""

    # --- reading

    def gather(self, x: Any, index: Any, *, dim: int) -> Any:
        self.check_index("gather", index, x.shape[dim], dim)
        part = tuple([slice(None) if d == dim else slice(0, size) for d, size in enumerate(index.shape)])
        xp, x = self.xp, self.xp.ascontiguousarray(x[part])
        made = xp.empty(index.shape, dtype=x.dtype)
        size, count, outer, inner = x.shape[dim], index.shape[dim], *_around(index.shape, dim, dim + 1)
        index = xp.ascontiguousarray(index.astype(np.int64, copy=False))
        self._kernels.launch(f"gather_{x.dtype.itemsize}", made.size, outer, size, count, inner, index, x, made)
        return made

    def index_select(self, x: Any, index: Any, *, dim: int) -> Any:
        self.check_index("index_select", index, x.shape[dim], dim)
        return self._taken(x, index, dim, dim + 1, index.shape, 0)

    def embedding(self, weight: Any, index: Any) -> Any:
        self.check_index("embedding", index, weight.shape[0], 0)
        return self._taken(weight, index, 0, 1, index.shape, 0)

    def index(self, x: Any, *indices: Any, spec: tuple[int, ...]) -> Any:
        first, after = spec[0], spec[-1] + 1
        if not x.flags.c_contiguous or spec != tuple(range(first, after)):
            return super().index(x, *indices, spec=spec)
        self._check_indices("index", x, indices, spec)
        shape = np.broadcast_shapes(*(i.shape for i in indices))
        if len(indices) == 1:
            return self._taken(x, indices[0], first, after, shape, 1)
        place = self._places(self._from_front(indices, x.shape[first:after]), x.shape[first:after])
        return self._taken(x, place, first, after, shape, 0)

    def _taken(self, x: Any, place: Any, first: int, after: int, shape: tuple[int, ...], wraps: int) -> Any:
        """Parts of dense ``x`` at ``place`` in the dimensions from ``first`` to ``after``, which become ``shape``."""
        xp = self.xp
        x = xp.ascontiguousarray(x)
        place = xp.ascontiguousarray(place.astype(np.int64, copy=False))
        made = xp.empty((*x.shape[:first], *shape, *x.shape[after:]), dtype=x.dtype)
        outer, inner = _around(x.shape, first, after)
        unit, units = self._unit(inner, x, made)
        rows = math.prod(x.shape[first:after])
        threads = outer * place.size * units
        self._kernels.launch(f"take_{unit}", threads, outer, rows, place.size, units, wraps, place, x, made)
        return made

    def _from_front(self, indices: Indices, sizes: tuple[int, ...]) -> Indices:
        """Indices counted from the front, where those below zero count from the end."""
        return tuple([self.xp.where(i < 0, i + size, i) for i, size in zip(indices, sizes, strict=True)])

    def _unit(self, inner: int, *arrays: Any) -> tuple[int, int]:
        """(bytes moved at once, how many times) for ``inner`` neighbours."""
        size = inner * arrays[0].dtype.itemsize
        unit = next(u for u in _UNITS if size % u == 0 and not any(self._address(x) % u for x in arrays))
        return unit, size // unit

    def _address(self, x: Any) -> int:
        return int(x.data.ptr)

    # --- writing

    def scatter_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        self.check_index("scatter", index, target.shape[dim], dim)
        if not index.size or index.size >= _MOST:
            return super().scatter_into(target, index, src, dim=dim)
        place = self._places_along(target, index, dim)
        return self._written(target, place, 1, target.size, 1, self.xp.broadcast_to(src, index.shape))

    def index_put_into(self, target: Any, value: Any, *indices: Any, spec: tuple[int, ...], accumulate: bool) -> Any:
        shape = np.broadcast_shapes(*(i.shape for i in indices))
        if accumulate or not math.prod(shape) or not target.size or math.prod(shape) >= _MOST:
            return super().index_put_into(target, value, *indices, spec=spec, accumulate=accumulate)
        self._check_indices("index_put", target, indices, spec)
        xp, first, after = self.xp, spec[0], spec[-1] + 1
        sizes = tuple([target.shape[d] for d in spec])
        ready = self._from_front(indices, sizes)
        if spec == tuple(range(first, after)):
            moved, order = target, None
        else:
            order = (*spec, *(d for d in range(target.ndim) if d not in spec))
            moved, first, after = xp.ascontiguousarray(target.transpose(order)), 0, len(spec)
        spread = xp.broadcast_to(value, (*moved.shape[:first], *shape, *moved.shape[after:]))
        outer, inner = _around(moved.shape, first, after)
        self._written(
            moved, self._places(ready, sizes), outer, math.prod(sizes), inner, value if value.size == 1 else spread
        )
        if order is not None:
            target[...] = moved.transpose([order.index(d) for d in range(target.ndim)])
        return target

    def _written(self, target: Any, place: Any, outer: int, rows: int, inner: int, values: Any) -> Any:
        """``values`` (outer, places, inner), or one for all, over ``target`` (outer, rows, inner), at ``place``."""
        xp, launch, count = self.xp, self._kernels.launch, place.size
        values = xp.ascontiguousarray(values.astype(target.dtype, copy=False))
        out = xp.ascontiguousarray(target)
        one = values.size == 1
        last = 0
        if not one:
            last = xp.empty((rows,), dtype=np.int32)
            launch("forget", count, rows, count, place, last)
            launch("remember", count, rows, count, place, last)
        unit, units = (target.dtype.itemsize, inner) if one else self._unit(inner, values, out)
        launch(f"write_{unit}", outer * count * units, outer, rows, count, units, int(one), place, last, values, out)
        if out is not target:
            target[...] = out.reshape(target.shape)
        return target

    # --- tables

    def embedding_backward(self, g: Any, index: Any, *, num_embeddings: int, padding_idx: int | None) -> Any:
        if not g.size or max(index.size, num_embeddings) >= _MOST:
            return super().embedding_backward(g, index, num_embeddings=num_embeddings, padding_idx=padding_idx)
        xp, width = self.xp, g.shape[-1]
        place = xp.ascontiguousarray(index.astype(np.int64, copy=False)).reshape(index.size)
        self.check_index("index_add", place, num_embeddings, 0)
        if padding_idx is not None:
            place = xp.where(place == padding_idx, -1, place)  # is no row: nothing is added
        made = xp.zeros((num_embeddings, width), dtype=g.dtype)
        return self._joined("sum", made, place, 1, num_embeddings, width, g)


def _around(shape: tuple[int, ...], first: int, after: int) -> tuple[int, int]:
    """How many elements the dimensions before ``first``, and from ``after`` on, have."""
    return math.prod(shape[:first]), math.prod(shape[after:])
