"""Reading and writing at integer positions by kernels that move bytes; rows of tables, and their gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..generic.embedding import EmbeddingKernels
from .accumulate_kernels import CupyAccumulation
from .place_kernels import Groups, cut, grouped, line_of

__all__ = ["CupyIndexing"]

_MOST = 1 << 31  # positions to write to: the last one is found by 32-bit numbers


class CupyIndexing(CupyAccumulation, EmbeddingKernels):
    """Positions that repeat are written to as if one after another: the last one stays, in every run."""

    # --- reading

    def gather(self, x: Any, index: Any, *, dim: int) -> Any:
        x, groups = cut(x, index, dim), grouped(x.ndim, (dim,))
        line = line_of(index, dim)
        self.check_index("gather", index if line is None else line, x.shape[dim], dim)
        if line is not None:
            return self._taken(x, groups, self._dense_index(line), line.shape)
        made, index = self.xp.empty(index.shape, dtype=x.dtype), self._dense_index(index)
        x, lying = self._where_it_lies(x, groups, by_element=True)
        where = (lying.outer, lying.rows, index.shape[dim], lying.inner, lying.layout)
        self._kernels.launch(f"gather_{lying.unit}", made.size, *where, index, x, made)
        return made

    def index_select(self, x: Any, index: Any, *, dim: int) -> Any:
        self.check_index("index_select", index, x.shape[dim], dim)
        return self._taken(x, grouped(x.ndim, (dim,)), self._dense_index(index), index.shape)

    def embedding(self, weight: Any, index: Any) -> Any:
        self.check_index("embedding", index, weight.shape[0], 0)
        return self._taken(weight, grouped(weight.ndim, (0,)), self._dense_index(index), index.shape)

    def index(self, x: Any, *indices: Any, spec: tuple[int, ...]) -> Any:
        shape = np.broadcast_shapes(*(i.shape for i in indices))
        return self._taken(x, grouped(x.ndim, spec), self._rows_at(x, indices, spec, "index"), shape)

    def _taken(self, x: Any, groups: Groups, place: Any, shape: tuple[int, ...]) -> Any:
        """The rows ``place`` of ``x``, whose dimensions become ``shape``."""
        outer, _, inner = groups
        made = self.xp.empty((*[x.shape[d] for d in outer], *shape, *[x.shape[d] for d in inner]), dtype=x.dtype)
        x, lying = self._where_it_lies(x, groups, made)
        threads, where = lying.outer * place.size * lying.inner, (lying.outer, lying.rows, place.size, lying.inner)
        self._kernels.launch(f"take_{lying.unit}", threads, *where, lying.layout, place, x, made)
        return made

    # --- writing

    def scatter_into(self, target: Any, index: Any, src: Any, *, dim: int) -> Any:
        if index.size >= _MOST:
            return super().scatter_into(target, index, src, dim=dim)
        self._written(*self._along_dim("scatter", target, index, dim), self.xp.broadcast_to(src, index.shape))
        return target

    def index_put_into(self, target: Any, value: Any, *indices: Any, spec: tuple[int, ...], accumulate: bool) -> Any:
        shape = np.broadcast_shapes(*(i.shape for i in indices))
        rows = math.prod([target.shape[d] for d in spec])
        if max(math.prod(shape), rows if accumulate else 0) >= _MOST:
            return super().index_put_into(target, value, *indices, spec=spec, accumulate=accumulate)
        place = self._rows_at(target, indices, spec, "index_put")
        if accumulate:
            return self._summed(target, spec, place, shape, value)
        groups = grouped(target.ndim, spec)
        self._written(target, groups, place, self._spread(target, groups, shape, value))
        return target

    def _written(self, target: Any, groups: Groups, place: Any, values: Any) -> None:
        """``values`` (outer, places, inner) over the rows ``place`` of ``target``."""
        count = place.size
        if not count or not target.size:
            return
        xp, launch = self.xp, self._kernels.launch
        one = not any(values.strides)  # for all: it does not matter which is the last
        if one:
            values = values[(0,) * values.ndim]
        values = xp.ascontiguousarray(values.astype(target.dtype, copy=False))
        out, lying = self._where_it_lies(target, groups, values, by_element=one)
        last = 0
        if not one:
            last = xp.empty((lying.rows,), dtype=np.int32)
            launch("forget", count, lying.rows, count, place, last)
            launch("remember", count, lying.rows, count, place, last)
        threads, where = lying.outer * count * lying.inner, (lying.outer, lying.rows, count, lying.inner)
        launch(f"write_{lying.unit}", threads, *where, int(one), lying.layout, place, last, values, out)
        self._put_back(target, out, groups)

    # --- tables

    def embedding_backward(self, g: Any, index: Any, *, num_embeddings: int, padding_idx: int | None) -> Any:
        if not g.size or max(index.size, num_embeddings) >= _MOST:
            return super().embedding_backward(g, index, num_embeddings=num_embeddings, padding_idx=padding_idx)
        xp, width = self.xp, g.shape[-1]
        # forward has looked at the indices, and waited for that; what is no row is added nowhere
        place = self._dense_index(index).reshape(index.size)
        if padding_idx is not None:
            place = xp.where(place == padding_idx, -1, place)  # is no row: nothing is added
        made = xp.zeros((num_embeddings, width), dtype=g.dtype)
        return self._joined("sum", made, made, ((), (0,), (1,)), place, g)
