"""A program for the C++ backend: its kernels' calls written into a ``Sequence``, its memory planned to the byte.

The calls are written twice. The first time shows what is allocated, and between which calls each array is needed; then
places are found in one block, and the calls are written again with these addresses. Nothing is computed meanwhile: what a
kernel allocates has an address, and no memory the first time.

A kernel that is Python (a generic one, or one that looks at its inputs' elements) is called as it is, between two
stretches of the sequence, and its results are copied to their places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.cpp.backend import CppBackend
from ..dispatch import local
from .program import Action, Call, Program, Value
from .writable import writable

__all__ = ["Linked", "link"]

_ALIGN = 64


class Linked:
    """A program that is ready to run: call it with arrays for the program's arguments.

    ``nbytes``: of the block that holds all it makes.
    """

    def __init__(self, program: Program, sequence: Any, pieces: list[Any], arguments: list[Any], outputs: list[Any],
                 written: list[bool], nbytes: int):  # fmt: skip
        self.program = program
        self.sequence = sequence
        self.pieces = pieces
        self.arguments = arguments
        self.outputs = outputs
        self.written = written
        self.nbytes = nbytes

    def __call__(self, given: list[Any]) -> list[Any]:
        for place, array in zip(self.arguments, given, strict=True):
            place[...] = array
        for piece in self.pieces:
            if type(piece) is tuple:
                self.sequence.run(*piece)
            else:
                piece()
        for place, array, written in zip(self.arguments, given, self.written, strict=True):
            if written:
                array[...] = place
        return [array.copy() for array in self.outputs]


class _Writing:
    """One pass of a program's calls into a sequence."""

    def __init__(self, program: Program, backend: CppBackend):
        self.program = program
        self.sequence = backend.c.Sequence()
        self.make = backend.c.empty
        self.pieces: list[Any] = []
        self.arrays: dict[Value, Any] = {}
        self.born: list[int] = []  # by allocation: the step in which it was made
        self.roots: dict[int, int] = {}  # by address: which allocation

    def place(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.make(np.empty(0, dtype), shape)

    def get(self, what: Any) -> Any:
        if type(what) is Value:
            return what.array if what.array is not None else self.arrays[what]
        if type(what) in (list, tuple):
            return type(what)(map(self.get, what))
        return what

    def write(self) -> None:
        sequence, program = self.sequence, self.program
        doors = local.doors
        for value in program.arguments:
            self.arrays[value] = self.place(value.shape, value.dtype)
        self.count(-1)
        start = 0
        for at, step in enumerate(program.steps):
            if isinstance(step, Action):
                start = self.cut(start)
                self.pieces.append(step.run)
                continue
            kernel = getattr(doors[step.kind], step.op.name)
            inputs = [self.get(x) for x in step.inputs]
            attrs = {key: self.get(x) for key, x in step.attrs.items()}
            if writable(kernel, inputs):
                outputs = kernel(*inputs, **attrs)
                made = outputs if isinstance(outputs, tuple) else (outputs,)
                for value, array in zip(step.results, made, strict=True):
                    if value is not None:
                        self.arrays[value] = array
            else:
                start = self.cut(start)
                targets = [None if v is None else self.place(v.shape, v.dtype) for v in step.results]
                for value, array in zip(step.results, targets, strict=True):
                    if value is not None:
                        self.arrays[value] = array
                self.pieces.append(_python_call(kernel, inputs, attrs, targets))
            self.count(at)
        self.cut(start)
        _ = sequence

    def cut(self, start: int) -> int:
        end = int(self.sequence.calls)
        if end > start:
            self.pieces.append((start, end))
        return end

    def count(self, at: int) -> None:
        self.born += [at] * (int(self.sequence.allocations) - len(self.born))


def _python_call(kernel: Any, inputs: list[Any], attrs: dict[str, Any], targets: list[Any]) -> Callable[[], None]:
    def call() -> None:
        outputs = kernel(*inputs, **attrs)
        made = outputs if isinstance(outputs, tuple) else (outputs,)
        for target, array in zip(targets, made, strict=True):
            if target is not None:
                target[...] = array

    return call


def link(program: Program) -> Linked | None:
    """The program, ready to run; None where another backend computes."""
    backend = local.plain[np.ndarray].backend
    if not isinstance(backend, CppBackend):
        return None
    first = _Writing(program, backend)
    first.sequence.begin()
    try:
        first.write()
    finally:
        sizes = first.sequence.end()
    offsets, nbytes = plan(program, first, sizes)
    second = _Writing(program, backend)
    second.sequence.begin(nbytes, offsets)
    try:
        second.write()
    finally:
        second.sequence.end()
    written = {v for call in program.calls for v in call.writes}
    return Linked(
        program, second.sequence, second.pieces, [second.arrays[v] for v in program.arguments],
        [second.get(v) for v in program.outputs], [v in written for v in program.arguments], nbytes,
    )  # fmt: skip


def plan(program: Program, writing: _Writing, sizes: list[int]) -> tuple[list[int], int]:
    """(a place for each allocation, bytes of the whole block): first come those that live longest and are largest."""
    starts = {}
    for value, array in writing.arrays.items():
        starts[value] = _bottom(array).__array_interface__["data"][0]
    owner = {address: i for i, address in enumerate(_addresses(sizes, writing))}
    last = list(writing.born)
    end = len(program.steps)

    def use(value: Value, at: int) -> None:
        allocation = owner.get(starts.get(value, -1))
        if allocation is not None:
            last[allocation] = max(last[allocation], at)

    for at, step in enumerate(program.steps):
        if isinstance(step, Call):
            for value in (*step.reads(), *(r for r in step.results if r is not None)):
                use(value, at)
    for value in (*program.outputs, *program.arguments):
        use(value, end)
    for value in program.arguments:
        allocation = owner.get(starts[value])
        if allocation is not None:
            writing.born[allocation] = -1
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    placed: list[tuple[int, int, int, int]] = []  # offset, end, born, last
    offsets = [0] * len(sizes)
    total = 0
    for i in order:
        size = max(_ALIGN, math.ceil(sizes[i] / _ALIGN) * _ALIGN)
        busy = sorted((p[0], p[1]) for p in placed if p[2] <= last[i] and writing.born[i] <= p[3])
        at = 0
        for low, high in busy:
            if at + size <= low:
                break
            at = max(at, high)
        offsets[i] = at
        placed.append((at, at + size, writing.born[i], last[i]))
        total = max(total, at + size)
    return offsets, total


def _addresses(sizes: list[int], writing: _Writing) -> list[int]:
    return list(writing.sequence.addresses)


def _bottom(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
