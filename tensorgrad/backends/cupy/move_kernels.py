"""Copies and conversions of arrays, dense or not: as many bytes at once as lie together, and tiles where neighbours of
one array are not the other's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np

from ...errors import ShapeError
from ...expr import Program, lower, symbol
from ...expr import functions as fn
from ..generic.shape import ShapeKernels
from ..generic.shape_more import MoreShapeKernels
from .formula import CupyFormula
from .kernels import Kernels
from .launch import Launcher, merged
from .names import NAMES

__all__ = ["WAY", "CupyMoves", "Move", "cast_program", "casts", "move"]

_AXES = 8
_UNITS = (16, 8, 4, 2, 1)
_BLOCK = 256
_LEAST = 16  # rows and columns of what is turned by tiles
_EXACT = frozenset(("float16", "bfloat16", "float32", "bool", "int8", "uint8"))  # float32 holds each of their values
_REAL = _EXACT | {"int16", "int32", "int64", "float64"}

WAY = np.dtype([("axes", "i8"), ("sizes", "i8", _AXES), ("from", "i8", _AXES), ("to", "i8", _AXES)])
"""``Way`` of move.cu."""


@dataclass(frozen=True, eq=False)
class Move:
    """A kernel and its numbers: ``move`` counts units, ``turn`` matrices, which have ``sides``: rows, columns, units
    from row to row of what is read, and from column to column of what is written."""

    name: str
    count: int
    way: Any
    sides: tuple[int, ...]
    threads: int


@lru_cache(maxsize=4096)
def move(
    shape: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], item: int, together: int
) -> Move | None:
    """How to copy between arrays of a shape with these strides in bytes, neither of which has no elements.

    Args:
        item: bytes of an element.
        together: the most bytes at once that the addresses of both allow.
    Returns: None where it takes more axes than the kernels have, or strides are no multiples of elements.
    """
    if item not in _UNITS or any(step % item for step in (*source, *target)):
        return None
    # the order of the walk is that of the target's memory, so that writes follow each other
    order = sorted(range(len(shape)), key=lambda axis: -abs(target[axis]))
    sizes, (over, into) = merged(
        tuple([shape[axis] for axis in order]), [[steps[axis] // item for axis in order] for steps in (source, target)]
    )
    if len(sizes) > _AXES:
        return None
    if sizes and into[-1] == 1 and over[-1] != 1 and 1 in over:
        across = over.index(1)
        rows, columns = sizes[-1], sizes[across]
        if min(rows, columns) >= _LEAST and over[-1]:
            rest = [axis for axis in range(len(sizes) - 1) if axis != across]
            way = _way([sizes[axis] for axis in rest], [over[axis] for axis in rest], [into[axis] for axis in rest])
            count, side = math.prod(sizes[axis] for axis in rest), 64 if item < 4 else 32
            blocks = count * -(-rows // side) * -(-columns // side)
            return Move(f"turn_{item}", count, way, (rows, columns, over[-1], into[across]), blocks * _BLOCK)
    units = 1
    if sizes and over[-1] == into[-1] == 1:
        many = math.gcd(sizes[-1], *over[:-1], *into[:-1])
        units = next(unit for unit in _UNITS if unit <= max(together, item) and many * item % unit == 0) // item
        sizes[-1] //= units
        over[:-1], into[:-1] = [step // units for step in over[:-1]], [step // units for step in into[:-1]]
    count = math.prod(sizes)
    return Move(f"move_{item * units}", count, _way(sizes, over, into), (), count)


def _way(sizes: list[int], over: list[int], into: list[int]) -> Any:
    made = np.zeros((), WAY)
    count = made["axes"] = len(sizes)
    made["sizes"][:count], made["from"][:count], made["to"][:count] = sizes, over, into
    return made


def casts(source: str, target: str) -> bool:
    """Whether a formula converts one dtype to the other as NumPy does; CuPy where float32 would round what is rounded
    once more, and to integers, where what does not fit becomes what it becomes."""
    if target in ("float16", "bfloat16"):
        return source in _EXACT
    return target in ("float32", "float64") and source in _REAL


def cast_program(name: str, keys: tuple[str, ...]) -> Program:
    """The formula that converts an array to the dtype ``name``."""
    return lower([fn.cast(symbol(0), name)], keys, name="cast")


class CupyMoves(ShapeKernels, MoreShapeKernels):
    _kernels: Kernels
    _launcher: Launcher
    _address: Callable[[Any], int]  # of CupyPlaces

    @cached_property
    def _casts(self) -> dict[str, CupyFormula]:
        return {}

    def converted(self, x: Any, dtype: Any) -> Any:
        source, name = NAMES[x.dtype], NAMES[np.dtype(dtype)]
        if source == name or not casts(source, name):
            return super().converted(x, dtype)
        formula = self._casts.get(name)
        if formula is None:
            formula = self._casts[name] = CupyFormula("cast", partial(cast_program, name), self._launcher)
        if x.flags.c_contiguous:
            return formula(x)
        # laid out as x is, as far as that has no gaps
        order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
        return formula(x.transpose(order)).transpose(np.argsort(order).tolist())

    def as_complex(self, x: Any) -> Any:
        if x.itemsize > 2 and x.size and self._address(x) % (2 * x.itemsize):
            raise ShapeError("view_as_complex: Tensor must have a storage_offset divisible by 2.")
        return super().as_complex(x)

    def contiguous_copy(self, x: Any) -> Any:
        if x.flags.c_contiguous:
            return super().contiguous_copy(x)
        out = self.xp.empty(x.shape, dtype=x.dtype)
        return out if self._moved(out, x) else super().contiguous_copy(x)

    def copy_into(self, target: Any, source: Any) -> Any:
        dense = source.flags.c_contiguous and target.flags.c_contiguous and source.shape == target.shape
        if dense or source.dtype != target.dtype or self.xp.may_share_memory(target, source):
            return super().copy_into(target, source)
        if not self._moved(target, self.xp.broadcast_to(source, target.shape)):
            return super().copy_into(target, source)
        return target

    def _moved(self, target: Any, source: Any) -> bool:
        """Whether the elements of ``source``, of the same shape and dtype, have been written over ``target``, which
        shares no memory with it."""
        if not target.size:
            return True
        places = self._address(source) | self._address(target)
        together = next(unit for unit in _UNITS if not places % unit)
        found = move(source.shape, source.strides, target.strides, source.itemsize, together)
        if found is None:
            return False
        self._kernels.launch(found.name, found.threads, found.count, found.way, *found.sides, source, target)
        return True
