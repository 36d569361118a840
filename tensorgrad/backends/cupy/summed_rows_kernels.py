"""Rows brought together by where they go, and added up where they lie: what ``tg.compile`` makes of messages along the
edges of graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .accumulate_kernels import CupyAccumulation, tile_of
from .names import NAMES

__all__ = ["CupySummedRows"]

_FLOATS = ("float32", "float64")  # of others the compiler makes none
_WARP = 32
_SHARE_BYTES = 8  # of an element's sum
_MOST = 1 << 31  # rows, and groups: they are counted in 32 bits


class CupySummedRows(CupyAccumulation):
    _defined: Callable[..., Any]  # of CupyReductions

    def grouped_rows(
        self, target: Any, source: Any, *, groups: int, negative: bool, name: str, keeps: bool
    ) -> tuple[Any, Any, Any]:
        if max(target.size, groups) >= _MOST:
            return super().grouped_rows(target, source, groups=groups, negative=negative, name=name, keeps=keeps)
        xp, count = self.xp, target.size
        if negative:
            target = self.row_numbers(target, rows=groups, negative=True, name=name)
        else:
            self.check_index(name, target, groups, 0)
        place = self._dense_index(target)
        keys, order = self._in_order(place, groups)
        rows, ends = xp.empty((count,), dtype=np.int64), xp.empty((groups + 1,), dtype=np.int64)
        positions = xp.empty((count,), dtype=np.int64) if keeps else None
        self._kernels.launch(
            "rowgroups", max(count, groups + 1), count, groups, keys, order,
            0 if source is None else self._dense_index(source), rows, ends, positions if keeps else 0,
        )  # fmt: skip
        return rows, ends, positions

    def summed_rows(self, x: Any, rows: Any, ends: Any, weights: Any, positions: Any, base: Any) -> Any:
        groups = ends.size - 1
        if NAMES[x.dtype] not in _FLOATS or max(rows.size, groups) >= _MOST:
            return self._defined("summed_rows", x, rows, ends, weights, positions, base)
        xp, launch = self.xp, self._kernels.launch
        made = xp.zeros((groups, *x.shape[1:]), dtype=x.dtype)
        if base is not None:
            made[...] = base
        if not rows.size or not made.size:
            return made
        inner, heads = math.prod(x.shape[1:]), 1
        if weights is None:
            weights = positions = 0
        else:
            heads = math.prod(weights.shape[1:])
            weights, positions = xp.ascontiguousarray(weights), xp.ascontiguousarray(positions)
        tile = tile_of(rows.size, inner)  # as where rows that were picked are added: so the bits are the same
        tiles = -(-rows.size // tile)
        shares = xp.empty((2 * tiles * inner * _SHARE_BYTES,), dtype=np.uint8)
        where = (rows.size, inner, groups, tile, xp.ascontiguousarray(ends))
        given = (x.shape[0], heads, xp.ascontiguousarray(rows), positions, xp.ascontiguousarray(x), weights)
        launch(f"rowtiles_{NAMES[x.dtype]}", tiles * inner, *where, *given, made, shares)
        if tiles > 1:
            lanes = 1 if inner >= _WARP else _WARP
            launch(f"rowruns_{NAMES[x.dtype]}", tiles * inner * lanes, *where, lanes, made, shares)
        return made
