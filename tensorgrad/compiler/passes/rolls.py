"""What only formulas read is not rolled: they read it rolled, where it lies.

A step of a simulation on a periodic grid reads each point's neighbours: four rolls, each of which took as long as the
formula.
"""

from __future__ import annotations

from typing import Any

from ...dispatch import local
from ...ops.elementwise import broadcast_shape
from ..fused import Fused, Joiner, Rolls, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_SHORT = 64  # elements: of shorter rows that are rolled themselves, runs cost more than the copy did


def run(program: Program) -> Program:
    """The program with rolls that only formulas read done by these."""
    if not any(call.op.name == "roll" for call in program.calls):
        return program
    memory = Memory.of(program)
    readers = program.readers
    made: dict[Value, int] = {}  # what rolls make: their steps
    for at, step in enumerate(program.steps):
        if isinstance(step, Call) and step.op.name == "roll" and _is_plain(step):
            made[step.results[0]] = at  # type: ignore[index]  # it is plain
    taken = {
        v: at
        for v, at in made.items()
        if all(_takes(program, reader, v, at, memory) for reader in readers.get(v, (-1,)))
    }
    if not taken:
        return program
    steps: list[Call | Action | None] = list(program.steps)
    for at, step in enumerate(program.steps):
        if isinstance(step, Call) and any(v in taken for v in step.reads()):
            steps[at] = _reading(program, step, taken, memory)
    notes = []
    for v, at in taken.items():
        steps[at] = None
        names = sorted({steps[reader].op.name for reader in readers[v]})  # type: ignore[union-attr]
        notes.append(f"{v.nbytes} bytes are not rolled: {', '.join(names)} reads them so")
    return rewritten(program, [step for step in steps if step is not None], "rolls", notes)


def _is_plain(call: Call) -> bool:
    """Whether it is one that a formula may do: of what lies in C's order, in rows that are worth it."""
    x, y = call.inputs[0], call.results[0]
    if type(x) is not Value or y is None or y.root is not y or not (x.contiguous and y.contiguous) or not y.nbytes:
        return False
    shifts = _shifts(call)
    return not shifts[-1] % y.shape[-1] or y.shape[-1] >= _SHORT


def _shifts(call: Call) -> tuple[int, ...]:
    """By how much along each axis, from minus half of its size to half of it."""
    (y,) = call.results
    assert y is not None
    found = [0] * len(y.shape)
    for by, d in zip(call.attrs["shifts"], call.attrs["dims"], strict=True):
        found[d] += by
    return tuple([(by + size // 2) % size - size // 2 for by, size in zip(found, y.shape, strict=True)])


def _takes(program: Program, reader: int, value: Value, made: int, memory: Memory) -> bool:
    """Whether the step is a formula that may read the value where it was before it was rolled by step ``made``."""
    step = program.steps[reader] if reader >= 0 else None
    if not isinstance(step, Call) or not local.plain[step.kind].backend.rolls_operands:
        return False
    roll = program.steps[made]
    assert isinstance(roll, Call)
    if not memory.steady(roll.inputs[0], made, reader) or step.kind is not roll.kind:
        return False
    if isinstance(step.op, Fused) and step.op.sums:
        if step.op.rolls:  # a program is passed again to be saved
            return False
    elif formula_of(step, memory) is None:
        return False
    return broadcast_shape(step.op.name, *(v.shape for v in step.reads())) == value.shape


def _reading(program: Program, call: Call, taken: dict[Value, int], memory: Memory) -> Call:
    """The formula, reading what is taken where it was."""
    typed = call.op.program if isinstance(call.op, Fused) else formula_of(call, memory)
    assert typed is not None
    sums = call.op.sums if isinstance(call.op, Fused) else ""
    sources: list[tuple[Value, tuple[int, ...]]] = []
    operands: list[Any] = []
    for x in call.inputs:
        if type(x) is not Value:
            operands.append(("number", x))
            continue
        source: tuple[Value, tuple[int, ...]] = (x, ())
        if x in taken:
            roll = program.steps[taken[x]]
            assert isinstance(roll, Call)
            source = roll.inputs[0], _shifts(roll)
            if not any(source[1]):
                source = source[0], ()
        if source not in sources:
            sources.append(source)
        operands.append(("input", sources.index(source)))
    joiner = Joiner()
    values = joiner.add(typed, operands)
    outputs = [(value, name) for value, (_, name) in zip(values, typed.outputs, strict=True)]
    program_of = joiner.program(outputs, [key_of(x) for x, _ in sources])
    rolls: Rolls = tuple([by for _, by in sources])
    op = fused(program_of, getattr(call.op, "parts", (call.op.name,)), sums, rolls if any(rolls) else ())
    return Call(op, call.kind, tuple([x for x, _ in sources]), {}, call.results, (), call.line, call.part)
