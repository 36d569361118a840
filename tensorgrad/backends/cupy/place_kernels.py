"""What indices name, as rows of an array; and arrays that are read and written where they lie."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..generic.index import IndexKernels, Indices
from .kernels import Kernels
from .launch import merged

__all__ = ["INDICES", "STRIDED", "CupyPlaces", "Groups", "Lying", "cut", "grouped", "line_of", "lying"]

_UNITS = (16, 8, 4, 2, 1)  # bytes that a thread moves
_AXES = 4  # as many as the kernels' structs hold
_AT_ONCE = 4  # indices of one launch

_GROUP = np.dtype([("axes", "i8"), ("sizes", "i8", _AXES), ("strides", "i8", _AXES)])
STRIDED = np.dtype([("outer", _GROUP), ("rows", _GROUP), ("inner", _GROUP)])
"""``Strided`` of strided.cuh."""
INDICES = np.dtype(
    [
        ("indices", "i8"), ("axes", "i8"), ("sizes", "i8", _AXES), ("size", "i8", _AT_ONCE), ("steps", "i8", _AT_ONCE),
        ("strides", "i8", (_AT_ONCE, _AXES)),
    ]
)  # fmt: skip
"""``Indices`` of index.cu."""

Groups = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The dimensions of an array as those of ``outer``, ``rows`` and ``inner``."""


def grouped(ndim: int, dims: tuple[int, ...]) -> Groups:
    """The dimensions before those that are indexed, these, and the others, in the order of what indexing makes: those
    that are indexed come first unless they are neighbours."""
    first, after = dims[0], dims[-1] + 1
    if dims == tuple(range(first, after)):
        return tuple(range(first)), dims, tuple(range(after, ndim))
    return (), dims, tuple([d for d in range(ndim) if d not in dims])


@dataclass(frozen=True, eq=False)
class Lying:
    """How an array lies, as (outer, rows, inner): what kernels find its elements by, in units of ``unit`` bytes."""

    layout: Any
    outer: int
    rows: int
    inner: int
    unit: int


@lru_cache(maxsize=4096)
def lying(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, groups: Groups, widest: int) -> Lying | None:
    """Units are as wide as how the elements lie allows, and at most ``widest``. None: it takes more axes than kernels
    have."""
    sizes: list[list[int]] = []
    steps: list[list[int]] = []
    for dims, last in zip(groups, ((), (), (itemsize,)), strict=True):
        of_group, (moves,) = merged(
            (*[shape[d] for d in dims], *last), [[*[strides[d] for d in dims], *[1 for _ in last]]]
        )
        sizes.append(of_group)
        steps.append(moves)
    if not steps[2] or steps[2][-1] != 1:  # single bytes apart from each other
        sizes[2].append(1)
        steps[2].append(1)
    run = sizes[2].pop()
    steps[2].pop()
    unit = next(u for u in _UNITS if u <= widest and not any(n % u for n in (run, *steps[0], *steps[1], *steps[2])))
    if run != unit:  # of no elements none is made one
        sizes[2].append(run // unit)
        steps[2].append(unit)
    layout = np.zeros((), STRIDED)
    for name, of_group, moves in zip(("outer", "rows", "inner"), sizes, steps, strict=True):
        count = len(of_group)
        if count > _AXES:
            return None
        layout[name]["axes"] = count
        layout[name]["sizes"][:count] = of_group
        layout[name]["strides"][:count] = [n // unit for n in moves]
    outer, rows, inner = [math.prod(of_group) for of_group in sizes]
    return Lying(layout, outer, rows, inner, unit)


@lru_cache(maxsize=4096)
def _together(
    shape: tuple[int, ...], strides: tuple[tuple[int, ...], ...], size: tuple[int, ...], steps: tuple[int, ...]
) -> Any:
    """The struct of indices that broadcast to ``shape``, with strides in elements; None: they have too many axes."""
    sizes, moves = merged(shape, [list(of_one) for of_one in strides])
    if len(sizes) > _AXES:
        return None
    made = np.zeros((), INDICES)
    made["indices"], made["axes"] = len(size), len(sizes)
    made["sizes"][: len(sizes)] = sizes
    made["size"][: len(size)], made["steps"][: len(size)] = size, steps
    for k, of_one in enumerate(moves):
        made["strides"][k][: len(of_one)] = of_one
    return made


class _Trusted(threading.local):
    now = False


_trusted = _Trusted()


class _Trusting:
    """Kernels that look at no indices: what is out of range they read as zero, and write nowhere."""

    def __init__(self, raw: Any):
        self.raw = raw

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raw = self.raw

        def trusting(*inputs: Any, **attrs: Any) -> Any:
            before, _trusted.now = _trusted.now, True
            try:
                return getattr(raw, name)(*inputs, **attrs)
            finally:
                _trusted.now = before

        self.__dict__[name] = trusting
        return trusting


class CupyPlaces(IndexKernels):
    _kernels: Kernels

    def trusting(self, raw: Any) -> Any:
        return _Trusting(raw)

    def _address(self, x: Any) -> int:
        return int(x.data.ptr)

    # --- arrays where they lie

    def _where_it_lies(self, x: Any, groups: Groups, *beside: Any, by_element: bool = False) -> tuple[Any, Lying]:
        """``x``, or a dense copy of it where it has too many axes, and how it lies. ``beside``: dense arrays that are
        moved by the same units."""
        widest = x.dtype.itemsize
        if not by_element:
            widest = next(u for u in _UNITS if not any(self._address(a) % u for a in (x, *beside)))
        found = lying(x.shape, x.strides, x.dtype.itemsize, groups, widest)
        if found is None:
            x = self.xp.ascontiguousarray(x.transpose([d for dims in groups for d in dims]))
            found = lying(x.shape, x.strides, x.dtype.itemsize, _in_turn(groups), widest)
            assert found is not None  # dense groups have an axis each
        return x, found

    def _put_back(self, target: Any, written: Any, groups: Groups) -> Any:
        """``target``, after what was written to a copy of it, if it is one, has been copied to it."""
        if written is not target:
            target.transpose([d for dims in groups for d in dims])[...] = written
        return target

    # --- what indices name

    def check_index(self, name: str, index: Any, size: int, dim: int, negative: bool = False) -> None:
        # CuPy wraps what is out of range without a word. One answer is fetched, the numbers only for the message.
        if index.size and not _trusted.now:
            wrong = self.xp.zeros((), dtype=np.bool_)
            least = -size if negative else 0
            self._kernels.launch("outside", index.size, index.size, least, size, self._dense_index(index), wrong)
            self._refuse_if(wrong, partial(super().check_index, name, index, size, dim, negative))

    def _rows_at(self, target: Any, indices: Indices, dims: tuple[int, ...], name: str = "") -> Any:
        """The rows, in dimensions ``dims`` of ``target``, that the indices name together, -1 for what is out of range;
        below zero they count from the end. With a name, what is out of range is refused."""
        xp = self.xp
        shape = np.broadcast_shapes(*(index.shape for index in indices))
        count, sizes = math.prod(shape), tuple([target.shape[d] for d in dims])
        steps = tuple([math.prod(sizes[k + 1 :]) for k in range(len(sizes))])
        place, wrong = xp.empty((count,), dtype=np.int64), xp.zeros((), dtype=np.bool_)
        for first in range(0, len(indices), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            some = [index.astype(np.int64, copy=False) for index in indices[part]]
            how = _together(shape, tuple(_strides(some, len(shape))), sizes[part], steps[part])
            if how is None:
                some = [xp.ascontiguousarray(xp.broadcast_to(index, shape)).reshape(count) for index in some]
                how = _together((count,), tuple(_strides(some, 1)), sizes[part], steps[part])
            given = (*some, *[0] * (_AT_ONCE - len(some)))
            self._kernels.launch("rowsat", count, count, int(first > 0), how, *given, place, wrong)
        if name and count and not _trusted.now:
            self._refuse_if(wrong, partial(self._refuse_outside, name, sizes, indices, dims))
        return place

    def _refuse_outside(self, name: str, sizes: tuple[int, ...], indices: Indices, dims: tuple[int, ...]) -> None:
        for index, size, dim in zip(indices, sizes, dims, strict=True):
            self.check_index(name, index, size, dim, negative=True)

    def _along_dim(self, name: str, target: Any, index: Any, dim: int) -> tuple[Any, Groups, Any]:
        """(part of ``target``, its dimensions, rows of it) that ``index`` names along ``dim``, one for each element or,
        where it is the same everywhere, one for each slice. What is out of range is refused."""
        shape, target, line = index.shape, cut(target, index, dim), line_of(index, dim)
        self.check_index(name, index if line is None else line, target.shape[dim], dim)
        if line is not None:
            return target, grouped(target.ndim, (dim,)), self._dense_index(line)
        place = self.xp.empty((index.size,), dtype=np.int64)
        outer, inner = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
        index = self._dense_index(index)
        self._kernels.launch("places", index.size, outer, target.shape[dim], shape[dim], inner, index, place)
        return target, ((), tuple(range(target.ndim)), ()), place

    def _dense_index(self, index: Any) -> Any:
        return self.xp.ascontiguousarray(index.astype(np.int64, copy=False))


def _in_turn(groups: Groups) -> Groups:
    """The dimensions of an array that has those of these groups in this order."""
    outer, rows, inner = [len(dims) for dims in groups]
    return tuple(range(outer)), tuple(range(outer, outer + rows)), tuple(range(outer + rows, outer + rows + inner))


def _strides(indices: list[Any], ndim: int) -> Iterator[tuple[int, ...]]:
    """Of each index its strides, in elements, in ``ndim`` dimensions that it broadcasts to."""
    for index in indices:
        steps = [0 if size == 1 else step // 8 for size, step in zip(index.shape, index.strides, strict=True)]
        yield (*[0] * (ndim - index.ndim), *steps)


def cut(x: Any, index: Any, dim: int) -> Any:
    """The part of ``x`` that an index along ``dim`` can name."""
    if x.shape[:dim] + x.shape[dim + 1 :] == index.shape[:dim] + index.shape[dim + 1 :]:
        return x
    return x[tuple([slice(None) if d == dim else slice(0, size) for d, size in enumerate(index.shape)])]


def line_of(index: Any, dim: int) -> Any:
    """The index along ``dim``, if it is the same in all other dimensions: one that was expanded, or has no others."""
    others = [d for d in range(index.ndim) if d != dim]
    if not index.size or any(index.shape[d] != 1 and index.strides[d] for d in others):
        return None
    return index[tuple([slice(None) if d == dim else 0 for d in range(index.ndim)])]
