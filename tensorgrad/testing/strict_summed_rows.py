"""What the kernels of ``summed_rows.cu`` compute, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["SUMMED_ROWS"]


def _groups(
    count: int, groups: int, keys: Any, order: Any, source: Any, rows: Any, ends: Any, positions: Any
) -> None:  # fmt: skip
    rows[...] = source[order] if isinstance(source, np.ndarray) else order
    ends[...] = np.searchsorted(keys, np.arange(groups + 1))
    if isinstance(positions, np.ndarray):
        positions[...] = order


def _shares(shares: Any, tiles: int, inner: int) -> Any:
    return shares.view(np.float64).reshape(2, tiles, inner)


def _add(out: Any, group: int, total: Any) -> None:
    with np.errstate(all="ignore"):
        out[group] = (out[group].astype(np.float64) + total).astype(out.dtype)


def _tiles(
    length: int, inner: int, groups: int, tile: int, ends: Any, table: int, heads: int, rows: Any, positions: Any,
    x: Any, weights: Any, out: Any, shares: Any,
) -> None:  # fmt: skip
    there = (rows >= 0) & (rows < table)
    with np.errstate(all="ignore"):
        values = x.reshape(table, inner)[rows[there]]
        if isinstance(weights, np.ndarray):
            values = values * weights.reshape(length, heads)[positions[there]].repeat(inner // heads, axis=1)
        whole = np.zeros((1, length, inner))
        whole[0, there] = values
        sums, kept = out.reshape(groups, inner), _shares(shares, -(-length // tile), inner)
        for group in range(groups):
            begin, end = int(ends[group]), int(ends[group + 1])
            for t in range(begin // tile, -(-end // tile)):
                first, last = max(begin, t * tile), min(end, (t + 1) * tile)
                if first >= last:
                    continue
                total = np.add.reduce(whole[:, first:last], axis=1)[0]
                if begin < t * tile:
                    kept[0, t] = total
                elif end > (t + 1) * tile:
                    kept[1, t] = total
                else:
                    _add(sums, group, total)


def _runs(
    length: int, inner: int, groups: int, tile: int, ends: Any, lanes: int, out: Any, shares: Any
) -> None:  # fmt: skip
    sums, kept = out.reshape(groups, inner), _shares(shares, -(-length // tile), inner)
    for group in range(groups):
        first, last = int(ends[group]) // tile, (int(ends[group + 1]) - 1) // tile
        if first < last:
            with np.errstate(all="ignore"):
                _add(sums, group, kept[1, first] + np.add.reduce(kept[0, first + 1 : last + 1], axis=0))


SUMMED_ROWS: dict[str, Callable[..., None]] = {"rowgroups": _groups, "rowtiles": _tiles, "rowruns": _runs}
