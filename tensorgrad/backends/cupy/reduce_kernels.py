"""Reductions by one kernel, or two where few results are made of many elements: dense arrays as rows or columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...dispatch import OPS
from ..generic.reduce import ReduceKernels, elements_in, reduced_shape, wide
from .kernels import REDUCERS, Kernels
from .names import NAMES

__all__ = ["CupyReductions"]

_BLOCK = 256
_WARP = 32
_PARTS = 2048  # blocks that keep any device busy; sets are parted until there are so many
_OF_A_PART = 4096  # elements, at least: a part must be worth its state's way through memory
_OF_A_WARP = 2048  # elements of a part; beyond, a block has more loads under way
_STATE_BYTES = 16  # of the largest state of `reducers.cuh`
_AT_A_TIME = 4  # rows of a column that a thread loads at a time

# how `Integers` and `Truths` read elements: the logarithm of the size, 4 more as their comments say
_INTEGERS = {"bool": 4, "uint8": 4, "int8": 0, "int16": 1, "int32": 2, "int64": 3}
_TRUTHS = {
    "bool": 0, "uint8": 0, "int8": 0, "int16": 1, "int32": 2, "int64": 3,
    "float16": 5, "bfloat16": 5, "float32": 6, "float64": 7, "complex64": 14, "complex128": 15,
}  # fmt: skip
_SIZES = {"complex64": "sizes64", "complex128": "sizes128"}  # complex numbers have no other extremes


@dataclass(frozen=True)
class Walk:
    """How a dense array is gone over: the kernel's leading numbers, and those of the launch that merges parts."""

    kind: str  # rows or columns
    numbers: tuple[int, ...]
    threads: int
    states: int  # 0: there is one part
    merging: tuple[int, ...]
    merging_threads: int


def _power(n: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << max(n - 1, 0).bit_length()


def _groups(shape: tuple[int, ...], dim: tuple[int, ...]) -> list[tuple[bool, int]]:
    """(whether it is reduced, size) of axes, neighbours of one kind as one; axes of size 1 left out."""
    found: list[tuple[bool, int]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if found and found[-1][0] == (axis in dim):
            found[-1] = found[-1][0], found[-1][1] * size
        else:
            found.append((axis in dim, size))
    return found


@lru_cache(maxsize=4096)
def walk_over(shape: tuple[int, ...], dim: tuple[int, ...]) -> Walk | None:
    """The walk over a dense array, which the shape alone decides; None where kept and reduced axes alternate too often
    for the kernels, or there are too many of both."""
    groups = _groups(shape, dim)
    if not groups or groups[-1][0] or not any(reduced for reduced, _ in groups):
        sizes = [size for _, size in groups]
        if not groups or not groups[-1][0]:  # sets of one element
            sizes += [1]
        if len(sizes) > 4:
            return None
        walk = _rows(*[1] * (4 - len(sizes)), *sizes)
    elif len(groups) > 3:
        return None
    else:
        sizes = [size for _, size in groups]
        walk = _columns(*[1] * (3 - len(sizes)), *sizes)
    small = walk.kind == "columns" or walk.numbers[1] == 1 or walk.numbers[1] * walk.numbers[3] < 1 << 31
    return walk if small and max(walk.threads, walk.merging_threads) < 1 << 31 else None


def _parts(length: int, sets: int, least: int, multiple: int) -> tuple[int, int]:
    """(elements of a part, parts) for sets of ``length``, as many parts as keep a device busy."""
    wanted = max(1, min(length // least, -(-_PARTS // sets)))
    chunk = -(-length // (wanted * multiple)) * multiple
    return chunk, -(-length // chunk)


def _merging(outer: int, parts: int, inner: int) -> tuple[tuple[int, ...], int]:
    """The numbers and threads of the launch that merges states (outer, parts, inner)."""
    width = min(_power(parts), _WARP) if parts <= 2 * _WARP else _BLOCK
    return (outer, 0, inner, 0, 0, parts, width), outer * inner * width


def _rows(outer: int, runs: int, middle: int, run: int) -> Walk:
    sets, length = outer * middle, runs * run
    chunk, parts = _parts(length, sets, _OF_A_PART, 1024)
    each = min(chunk, length)
    width = _BLOCK if each > _OF_A_WARP else min(_power(-(-each // 8)), _WARP)
    numbers = (outer, runs, middle, run, chunk, parts, width)
    merging, threads = _merging(sets, parts, 1)
    return Walk("rows", numbers, sets * parts * width, sets * parts if parts > 1 else 0, merging, threads)


def _columns(outer: int, length: int, inner: int) -> Walk:
    across = min(_power(-(-inner // 4)), _WARP)
    tiles = -(-inner // (4 * across))
    lanes = max(1, min(_BLOCK // across, _power(length // _AT_A_TIME)))
    chunk, parts = _parts(length, outer * tiles, 4 * _AT_A_TIME * lanes, _AT_A_TIME * lanes)
    tiles = -(-inner // across)  # at most: where neighbours can't be moved together
    merging, merging_threads = _merging(outer, parts, inner)
    states = outer * parts * inner if parts > 1 else 0
    return Walk(
        "columns", (outer, length, inner, chunk, parts, across, lanes), outer * parts * tiles * across * lanes, states,
        merging, merging_threads,
    )  # fmt: skip


class CupyReductions(ReduceKernels):
    _kernels: Kernels
    raw: Any

    def sum(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        counts = x.dtype.kind in "bui"
        made = self._reduced("sum", x, dim, keepdim, np.dtype(np.int64) if counts else x.dtype, mode=int(counts))
        return super().sum(x, dim=dim, keepdim=keepdim) if made is None else made

    def mean(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = None  # sums of integers are not divided by the kernel
        if x.dtype.kind not in "bui":
            made = self._reduced("sum", x, dim, keepdim, x.dtype, number=elements_in(x.shape, dim))
        return super().mean(x, dim=dim, keepdim=keepdim) if made is None else made

    def prod(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        counts = x.dtype.kind in "bui"
        w = wide(x)
        made = self._reduced("product", w, dim, keepdim, np.dtype(np.int64) if counts else w.dtype)
        return (
            super().prod(x, dim=dim, keepdim=keepdim)
            if made is None
            else made.astype(made.dtype if counts else x.dtype, copy=False)
        )

    def var(self, x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        made = self._distances(x, dim, correction, keepdim, 0)
        return super().var(x, dim=dim, correction=correction, keepdim=keepdim) if made is None else made

    def std(self, x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
        made = self._distances(x, dim, correction, keepdim, 1)
        if made is None:
            return self._defined("std", x, dim=dim, correction=correction, keepdim=keepdim)
        return made

    def _distances(self, x: Any, dim: tuple[int, ...], correction: float, keepdim: bool, mode: int) -> Any:
        """The sum of squared distances from the mean, divided; two passes, so that nothing cancels."""
        count = elements_in(x.shape, dim)
        mean = self._reduced("sum", x, dim, False, _computed_in(x.dtype), number=count, mode=1)
        if mean is None:
            return None
        left = max(count - correction, 0)
        return self._reduced("squares", x, dim, keepdim, _real(x.dtype), number=left, mode=mode, centers=mean)

    def vector_norm(self, x: Any, *, ord: float, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = None
        if ord in (1, 2):
            made = self._reduced("squares", x, dim, keepdim, _real(x.dtype), mode=1 if ord == 2 else 2)
        elif abs(ord) == math.inf:
            made = self._reduced("extreme", x, dim, keepdim, _real(x.dtype), mode=2 if ord > 0 else 3)
        if made is None:
            return self._defined("vector_norm", x, ord=ord, dim=dim, keepdim=keepdim)
        return made

    def _defined(self, name: str, *operands: Any, **how: Any) -> Any:
        define = OPS[name].define
        assert define is not None
        return define(self.raw, *operands, **how)

    def amax(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("extreme", x, dim, keepdim, x.dtype)
        return super().amax(x, dim=dim, keepdim=keepdim) if made is None else made

    def amin(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("extreme", x, dim, keepdim, x.dtype, mode=1)
        return super().amin(x, dim=dim, keepdim=keepdim) if made is None else made

    def count_nonzero(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("count", x, dim, keepdim, np.dtype(np.int64))
        return super().count_nonzero(x, dim=dim, keepdim=keepdim) if made is None else made

    def any(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("count", x, dim, keepdim, _truth_of(x.dtype), mode=1)
        return super().any(x, dim=dim, keepdim=keepdim) if made is None else made

    def all(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("count", x, dim, keepdim, _truth_of(x.dtype), number=elements_in(x.shape, dim), mode=2)
        return super().all(x, dim=dim, keepdim=keepdim) if made is None else made

    def logsumexp(self, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
        made = self._reduced("logsumexp", x, dim, keepdim, x.dtype)
        return super().logsumexp(x, dim=dim, keepdim=keepdim) if made is None else made

    def argmax(self, x: Any, *, dim: int | None, keepdim: bool) -> Any:
        found = self._placed(x, dim, keepdim, 0)
        return super().argmax(x, dim=dim, keepdim=keepdim) if found is None else found[1]

    def argmin(self, x: Any, *, dim: int | None, keepdim: bool) -> Any:
        found = self._placed(x, dim, keepdim, 1)
        return super().argmin(x, dim=dim, keepdim=keepdim) if found is None else found[1]

    def max_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        found = self._placed(x, dim, keepdim, 0)
        return super().max_dim(x, dim=dim, keepdim=keepdim) if found is None else found

    def min_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        found = self._placed(x, dim, keepdim, 1)
        return super().min_dim(x, dim=dim, keepdim=keepdim) if found is None else found

    def _placed(self, x: Any, dim: int | None, keepdim: bool, mode: int) -> tuple[Any, Any] | None:
        dims = tuple(range(x.ndim)) if dim is None else (dim,)
        places = self.xp.empty(reduced_shape(x.shape, dims, keepdim), dtype=np.int64)
        made = self._reduced("place", x, dims, keepdim, x.dtype, mode=mode, places=places)
        return None if made is None else (made, places)

    def _reduced(
        self, kind: str, x: Any, dim: tuple[int, ...], keepdim: bool, dtype: Any, *, number: float = 1, mode: int = 0,
        centers: Any = 0, places: Any = 0,
    ) -> Any:  # fmt: skip
        """The reducer ``kind`` over ``dim``; None where there is no kernel for such elements, or nothing to reduce."""
        reader = _reader(kind, NAMES[x.dtype])
        if reader is None or not x.size or not dim:
            return None
        name, code = reader
        array, at = self._dense(x, dim, kind == "place")
        walk = walk_over(array.shape, at)
        if walk is None and array.size < 1 << 31:
            kept = [axis for axis in range(array.ndim) if axis not in at]
            array = self.xp.ascontiguousarray(array.transpose((*kept, *at)))
            walk = walk_over(array.shape, tuple(range(len(kept), array.ndim)))
        if walk is None:
            return None
        xp, launch = self.xp, self._kernels.launch
        made = xp.empty(reduced_shape(x.shape, dim, keepdim), dtype=dtype)
        how = (mode | code << 4, np.float64(number), centers)
        states = xp.empty((walk.states * _STATE_BYTES,), dtype=np.uint8) if walk.states else 0
        launch(f"{kind}_{walk.kind}_{name}", walk.threads, *walk.numbers, *how, array, states, made, places)
        if walk.states:
            launch(f"{kind}_rows_{name}", walk.merging_threads, *walk.merging, *how, array, states, made, places)
        return made

    def _dense(self, x: Any, dim: tuple[int, ...], in_order: bool) -> tuple[Any, tuple[int, ...]]:
        """``x`` as a dense array, its axes in the order in which they lie if the results' order stays, and ``dim``."""
        if x.flags.c_contiguous:
            return x, dim
        order = sorted(range(x.ndim), key=x.strides.__getitem__, reverse=True)
        kept = [axis for axis in order if axis not in dim]
        if kept == sorted(kept) and not (in_order and len(dim) > 1):
            moved = x.transpose(order)
            if moved.flags.c_contiguous:
                return moved, tuple(sorted(order.index(d) for d in dim))
        return self.xp.ascontiguousarray(x), dim


def _reader(kind: str, dtype: str) -> tuple[str, int] | None:
    """How the kernel's name calls elements of this dtype, and the code that tells it more; None if it takes none."""
    if kind == "count":
        return ("truth", _TRUTHS[dtype]) if dtype in _TRUTHS else None
    taken = REDUCERS[kind][1]
    if kind == "extreme":
        dtype = _SIZES.get(dtype, dtype)
    if dtype in _INTEGERS:
        return ("integer", _INTEGERS[dtype]) if "integer" in taken else None
    return (dtype, 0) if dtype in taken else None


def _computed_in(dtype: Any) -> Any:
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _real(dtype: Any) -> Any:
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def _truth_of(dtype: Any) -> Any:
    return dtype if dtype == np.uint8 else np.dtype(np.bool_)
