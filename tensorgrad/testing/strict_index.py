"""What the kernels of ``sort.cu``, ``accumulate.cu`` and ``index.cu`` compute, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

__all__ = ["accumulation", "moving", "sorting"]


# --- sorts


def _keys(rows: int, place: Any) -> Any:
    return np.where((place < 0) | (place >= rows), rows, place).astype(np.uint32)


def _ranked_keys(count: int, rows: int, place: Any, keys: Any, order: Any) -> None:
    found = _keys(rows, place)
    order[...] = found.argsort(kind="stable")
    keys[...] = found[order]


def _row_keys(count: int, rows: int, place: Any, keys: Any, order: Any) -> None:
    keys[...] = _keys(rows, place)
    order[...] = np.arange(count)


def _digit_counts(count: int, chunk: int, chunks: int, shift: int, keys: Any, counts: Any) -> None:
    for part in range(chunks):
        digits = keys[part * chunk : (part + 1) * chunk] >> np.uint32(shift) & np.uint32(255)
        counts.reshape(256, chunks)[:, part] = np.bincount(digits, minlength=256)


def _digit_starts(chunks: int, counts: Any) -> None:
    counts[...] = np.cumsum(counts) - counts


def _digit_places(
    count: int, chunk: int, chunks: int, shift: int, starts: Any, keys: Any, order: Any, sorted_keys: Any,
    sorted_order: Any,
) -> None:  # fmt: skip
    for part in range(chunks):
        own = keys[part * chunk : (part + 1) * chunk]
        digits = own >> np.uint32(shift) & np.uint32(255)
        for digit in np.unique(digits):
            found = np.flatnonzero(digits == digit)
            to = starts.reshape(256, chunks)[digit, part] + np.arange(found.size)
            sorted_keys[to] = own[found]
            sorted_order[to] = order[part * chunk + found]


_SORTING: dict[str, Callable[..., None]] = {
    "rankedkeys": _ranked_keys, "rowkeys": _row_keys, "digitcounts": _digit_counts, "digitstarts": _digit_starts,
    "digitplaces": _digit_places,
}  # fmt: skip


def sorting(name: str) -> Callable[..., None]:
    return _SORTING[name]


# --- sums, products and extremes at sorted places


def _wide(dtype: Any) -> Any:
    """What shares are kept in, in 16 bytes."""
    return np.dtype(np.complex128 if dtype.kind == "c" else np.int64 if dtype.kind in "iu" else np.float64)


def _shares(shares: Any, dtype: Any, outer: int, tiles: int, inner: int) -> Any:
    wide = _wide(dtype)
    return shares.view(wide).reshape(2, outer, tiles, inner, 16 // wide.itemsize)[..., 0]


_JOINS = {"sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


def _joined(how: str, out: Any, key: int, total: Any) -> None:
    with np.errstate(all="ignore"):
        out[:, key] = _JOINS[how](out[:, key].astype(total.dtype), total).astype(out.dtype)


def _join_tiles(
    how: str, outer: int, length: int, inner: int, rows: int, tile: int, keys: Any, to: Any, order: Any, values: Any,
    memory: Any, shares: Any,
) -> None:  # fmt: skip
    values, lying = values.reshape(outer, length, inner), _elements(memory, to)
    out = lying.reshape(outer, rows, inner)
    kept = _shares(shares, out.dtype, outer, -(-length // tile), inner)
    for t, begin in enumerate(range(0, length, tile)):
        end = min(begin + tile, length)
        for key in np.unique(keys[begin:end][keys[begin:end] < rows]):
            run = begin + np.flatnonzero(keys[begin:end] == key)
            with np.errstate(all="ignore"):
                total = _JOINS[how].reduce(values[:, order[run]].astype(_wide(out.dtype)), axis=1)
            if begin > 0 and keys[begin - 1] == key:
                kept[0, :, t] = total
            elif end < length and keys[end] == key:
                kept[1, :, t] = total
            else:
                _joined(how, out, key, total)
    lying[...] = out.reshape(lying.shape)


def _join_runs(
    how: str, outer: int, length: int, inner: int, rows: int, tile: int, keys: Any, to: Any, lanes: int, memory: Any,
    shares: Any,
) -> None:  # fmt: skip
    lying = _elements(memory, to)
    out = lying.reshape(outer, rows, inner)
    kept = _shares(shares, out.dtype, outer, -(-length // tile), inner)
    for t, end in enumerate(range(tile, length, tile)):
        key = keys[end]
        if keys[end - 1] != key or key >= rows or (t > 0 and keys[end - tile - 1] == key):
            continue
        others = t + 1 + np.flatnonzero(keys[end::tile] == key)
        with np.errstate(all="ignore"):
            total = _JOINS[how](kept[1, :, t], _JOINS[how].reduce(kept[0][:, others], axis=1))
        _joined(how, out, key, total)
    lying[...] = out.reshape(lying.shape)


def accumulation(name: str) -> Callable[..., None]:
    kind = name.partition("_")[0]
    how = next(how for how in _JOINS if kind.startswith(how))
    return partial(_join_tiles if kind == f"{how}tiles" else _join_runs, how)


# --- elements moved


def _bytes(x: Any, *shape: int) -> Any:
    return x.reshape(-1).view(np.uint8).reshape(shape)


def _units(unit: int, memory: Any, lying: Any) -> Any:
    """The bytes of an array that lies like this: (*outer, *rows, *inner, unit)."""
    first = as_strided(memory, (1,), (memory.itemsize,)).view(np.uint8)
    axes = [axis for group in ("outer", "rows", "inner") for axis in _axes(lying[group])]
    return as_strided(first, (*[n for n, _ in axes], unit), (*[step * unit for _, step in axes], 1))


def _elements(memory: Any, lying: Any) -> Any:
    return _units(memory.itemsize, memory, lying).view(memory.dtype)[..., 0]


def _axes(group: Any) -> list[tuple[int, int]]:
    count = int(group["axes"])
    return list(zip(group["sizes"][:count].tolist(), group["strides"][:count].tolist(), strict=True))


def _take(
    unit: int, outer: int, rows: int, count: int, inner: int, lying: Any, place: Any, x: Any, out: Any
) -> None:  # fmt: skip
    place = place.reshape(-1)
    inside = (place >= 0) & (place < rows)
    found = _units(unit, x, lying).reshape(outer, rows, inner * unit)[:, np.where(inside, place, 0)]
    _bytes(out, outer, count, inner * unit)[...] = np.where(inside[:, None], found, 0)


def _gather(
    unit: int, outer: int, rows: int, count: int, inner: int, lying: Any, index: Any, x: Any, out: Any
) -> None:  # fmt: skip
    place = index.reshape(outer, count, inner)
    inside = (place >= 0) & (place < rows)
    at = np.where(inside, place, 0)[..., None]
    found = np.take_along_axis(_units(unit, x, lying).reshape(outer, rows, inner, unit), at, axis=1)
    _bytes(out, outer, count, inner, unit)[...] = np.where(inside[..., None], found, 0)


def _write(
    unit: int, outer: int, rows: int, count: int, inner: int, one: int, lying: Any, place: Any, last: Any, values: Any,
    out: Any,
) -> None:  # fmt: skip
    to = np.flatnonzero((place >= 0) & (place < rows))
    if isinstance(last, np.ndarray):
        to = to[last[place[to]] == to]
    there = _units(unit, out, lying)
    target = there.reshape(outer, rows, inner, unit)
    if one:
        target[:, place[to]] = _bytes(values, unit)
    else:
        target[:, place[to]] = _bytes(values, outer, count, inner, unit)[:, to]
    there[...] = target.reshape(there.shape)


def _rows_at(
    count: int, goes_on: int, how: Any, a: Any, b: Any, c: Any, d: Any, place: Any, wrong: Any
) -> None:  # fmt: skip
    axes = int(how["axes"])
    shape = how["sizes"][:axes].tolist()
    row = place.copy() if goes_on else np.zeros(count, np.int64)
    outside = row < 0
    for k, index in enumerate((a, b, c, d)[: int(how["indices"])]):
        seen = as_strided(index, shape, [8 * n for n in how["strides"][k][:axes].tolist()]).reshape(-1)
        at = np.where(seen < 0, seen + how["size"][k], seen)
        outside |= (at < 0) | (at >= how["size"][k])
        row += at * how["steps"][k]
    place[...] = np.where(outside, -1, row)
    wrong |= outside.any()


def _outside(count: int, least: int, size: int, index: Any, wrong: Any) -> None:
    wrong |= ((index < least) | (index >= size)).any()


def _places(outer: int, size: int, count: int, inner: int, index: Any, place: Any) -> None:
    at = index.reshape(outer, count, inner)
    o, c = np.arange(outer)[:, None, None], np.arange(inner)
    place[...] = np.where((at < 0) | (at >= size), -1, (o * size + at) * inner + c).reshape(-1)


def _forget(rows: int, count: int, place: Any, last: Any) -> None:
    last[place[(place >= 0) & (place < rows)]] = -1


def _remember(rows: int, count: int, place: Any, last: Any) -> None:
    found = np.flatnonzero((place >= 0) & (place < rows))
    np.maximum.at(last, place[found], found.astype(np.int32))


_WHOLE: dict[str, Callable[..., None]] = {
    "rowsat": _rows_at, "outside": _outside, "places": _places, "forget": _forget, "remember": _remember,
}  # fmt: skip
_MOVING: dict[str, Callable[..., None]] = {"take": _take, "gather": _gather, "write": _write}


def moving(name: str) -> Callable[..., None]:
    kind, _, unit = name.partition("_")
    return partial(_MOVING[kind], int(unit)) if unit else _WHOLE[kind]
