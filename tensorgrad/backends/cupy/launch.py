"""Runs printed kernels: chooses the layout, compiles at first use, launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...dtypes import BY_NAME, numpy_dtype
from ...expr import Program
from ..numpy.evaluate import fitting
from .printer import DENSE, SINGLE, STRIDED, Layout, array_inputs, kernel, most_packed, numbers, storage_of, unit

__all__ = ["Launcher", "Prepared", "Walk", "dense_layout", "merged", "walk"]

_BLOCK = 256
_MOST_BLOCKS = 1 << 16  # beyond that the kernels' loop goes round: enough to fill any device many times over
_PACK_BYTES = 16  # the widest load and store of one thread
_INT32_ELEMENTS = 1 << 31
_MOST_WALKS = 4096  # remembered per program; a program of ever new shapes starts over


def _single(value: Any) -> Any:
    with np.errstate(over="ignore"):  # 1e60 is inf in float32, as it is in the other evaluators
        return np.float32(value.real)


def _complex_single(value: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.complex64(value)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "bool": np.bool_,
    "i64": lambda value: np.int64(fitting(value)),
    "f32": _single,
    "f64": lambda value: np.float64(value.real),
    "c64": _complex_single,
    "c128": np.complex128,
}


class Walk:
    """A layout with the numbers that go with it: the kernel's leading arguments."""

    __slots__ = ("arguments", "count", "layout")

    def __init__(self, layout: Layout, count: int, arguments: tuple[Any, ...]):
        self.layout = layout
        self.count = count
        self.arguments = arguments


def merged(shape: tuple[int, ...], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """The same walk over fewer axes: axes of length 1 dropped, neighbours joined where every operand steps evenly."""
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis in axes:
        size = shape[axis]
        if sizes and all(step[-1] == own[axis] * size for step, own in zip(steps, strides, strict=True)):
            sizes[-1] *= size
            for step, own in zip(steps, strides, strict=True):
                step[-1] = own[axis]
        else:
            sizes.append(size)
            for step, own in zip(steps, strides, strict=True):
                step.append(own[axis])
    return sizes, steps


def walk(shape: tuple[int, ...], operands: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...], most: int) -> Walk:
    """How to visit every element of ``shape``.

    Args:
        shape: the broadcast shape; not empty of elements.
        operands: (shape, strides in bytes, itemsize) of the input arrays and then the outputs.
        most: how many elements may be moved at once; 1 unless every pointer is a multiple of 16 bytes.
    """
    count = math.prod(shape)
    strides: list[list[int]] = []
    reach = count
    for own_shape, own_strides, itemsize in operands:
        missing = len(shape) - len(own_shape)
        step = [0] * missing + [
            0 if size == 1 else stride // itemsize for size, stride in zip(own_shape, own_strides, strict=True)
        ]
        strides.append(step)
        reach = max(reach, 1 + sum(abs(s) * (n - 1) for s, n in zip(step, shape, strict=True)))
    wide = reach >= _INT32_ELEMENTS
    sizes, steps = merged(shape, strides)
    dense = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    kinds = tuple(SINGLE if not any(step) else DENSE if step == dense else STRIDED for step in steps)
    if STRIDED not in kinds:
        widest = max(itemsize for _, _, itemsize in operands)
        # outputs are never "single" but when there is one element, where packs gain nothing
        vector = min(most, max(1, _PACK_BYTES // widest)) if count > 1 else 1
        elements = np.int64(count) if wide else np.uint32(count)
        return Walk(Layout(kinds, 0, vector, wide), count, (elements,))
    scalar = np.int64 if wide else np.int32
    arguments = [scalar(count), *map(scalar, sizes[1:])]
    for step, kind in zip(steps, kinds, strict=True):
        if kind == STRIDED:
            arguments += map(scalar, step)
    return Walk(Layout(kinds, len(sizes), 1, wide), count, tuple(arguments))


def dense_layout(program: Program) -> Layout:
    """The layout for dense arrays, as CuPy makes them, of more than one element."""
    names = [*(storage_of(program, k) for k in array_inputs(program)), *(name for _, name in program.outputs)]
    operands = tuple(((1024,), (BY_NAME[n].itemsize,), BY_NAME[n].itemsize) for n in names)
    return walk((1024,), operands, most_packed(program)).layout


class Prepared:
    """A program with what launching it needs at hand, and its kernels by layout."""

    __slots__ = ("arrays", "dtypes", "kernels", "most_packed", "numbers", "program", "walks")

    def __init__(self, program: Program):
        self.program = program
        self.arrays = array_inputs(program)
        self.dtypes = tuple([numpy_dtype(name) for _, name in program.outputs])
        self.numbers = tuple((k, _SCALARS[kind]) for k, kind in numbers(program))
        self.most_packed = most_packed(program)
        self.kernels: dict[Layout, Any] = {}
        self.walks: dict[tuple[Any, ...], tuple[Walk, Any]] = {}


class Launcher:
    """Evaluates programs on a device's arrays: the only place that compiles and launches what the printer prints."""

    def __init__(self, xp: Any):
        self.xp = xp

    def compile(self, source: str, name: str) -> Callable[[tuple[int], tuple[int], tuple[Any, ...]], None]:
        """A callable ``k(grid, block, arguments)`` for the function ``name``."""
        return self.xp.RawKernel(source, name)

    def pointer(self, array: Any) -> int:
        return array.data.ptr

    def evaluate(self, prepared: Prepared, args: Sequence[Any], outputs: Sequence[Any], shape: tuple[int, ...]) -> None:
        """Write the results for ``args`` (arrays and Python numbers) into ``outputs``, which all have ``shape``."""
        arrays = [*[args[k] for k in prepared.arrays], *outputs]
        place: list[Any] = [prepared.most_packed]
        for array in arrays:
            place += (array.shape, array.strides)
            if self.pointer(array) % _PACK_BYTES:
                place[0] = 1
        found = prepared.walks.get(tuple(place))
        if found is None:
            found = self.plan(prepared, arrays, shape, place)
        plan, run = found
        blocks = -(-plan.count // (_BLOCK * plan.layout.vector))
        values = [scalar(args[k]) for k, scalar in prepared.numbers]
        run((min(blocks, _MOST_BLOCKS),), (_BLOCK,), (*plan.arguments, *arrays, *values))

    def plan(
        self, prepared: Prepared, arrays: list[Any], shape: tuple[int, ...], place: list[Any]
    ) -> tuple[Walk, Callable[..., Any]]:
        """The walk over arrays that lie like this, and the compiled kernel for it."""
        plan = walk(shape, tuple([(a.shape, a.strides, a.dtype.itemsize) for a in arrays]), place[0])
        run = prepared.kernels.get(plan.layout)
        if run is None:
            text = unit([prepared.program], [kernel(prepared.program, plan.layout, "formula")])
            run = prepared.kernels[plan.layout] = self.compile(text, "formula")
        if len(prepared.walks) >= _MOST_WALKS:
            prepared.walks.clear()
        prepared.walks[tuple(place)] = plan, run
        return plan, run
