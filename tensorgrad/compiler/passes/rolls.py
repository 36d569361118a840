"""What only formulas read is not rolled: they read it rolled, where it lies.

A step of a simulation on a periodic grid reads each point's neighbours: four rolls, each of which took as long as the
formula.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...dispatch import local
from ...ops.elementwise import broadcast_shape
from ..fused import Fused, Joiner, Rolls, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_SHORT = 64  # elements: of shorter rows that are rolled themselves, runs cost more than the copy did


class _Roll(NamedTuple):
    """A roll that a formula may do: its step, the class of arrays, what it rolls, and by how much along each axis."""

    at: int
    kind: type
    source: Value
    by: tuple[int, ...]


def run(program: Program) -> Program:
    """The program with rolls that only formulas read done by these."""
    if not any(call.op.name == "roll" for call in program.calls):
        return program
    memory = Memory.of(program)
    readers = program.readers
    steps: list[Call | Action | None] = list(program.steps)
    notes: list[str] = []
    taken: dict[Value, _Roll] = {}
    for at, step in enumerate(program.steps):
        made = _made_plainly(step)
        if isinstance(step, Call) and made is not None:
            roll = _Roll(at, step.kind, step.inputs[0], _shifts(step, made))
            if all(_takes(program, reader, made, roll, memory) for reader in readers.get(made, (-1,))):
                taken[made], steps[at] = roll, None
                notes.append(f"{made.nbytes} bytes are not rolled, but read where they were")
    for at, step in enumerate(program.steps):
        if isinstance(step, Call) and any(v in taken for v in step.reads()):
            steps[at] = _reading(step, taken, memory)
    return rewritten(program, [step for step in steps if step is not None], "rolls", notes) if taken else program


def _made_plainly(step: Call | Action) -> Value | None:
    """What a roll makes that a formula may do: of what lies in C's order, in rows that are worth it."""
    if not isinstance(step, Call) or step.op.name != "roll":
        return None
    x, y = step.inputs[0], step.results[0]
    if type(x) is not Value or y is None or y.root is not y or not (x.contiguous and y.contiguous) or not y.nbytes:
        return None
    return y if y.shape[-1] >= _SHORT or not _shifts(step, y)[-1] else None


def _shifts(call: Call, made: Value) -> tuple[int, ...]:
    """By how much along each axis, from minus half of its size to half of it."""
    found = [0] * len(made.shape)
    for by, d in zip(call.attrs["shifts"], call.attrs["dims"], strict=True):
        found[d] += by
    return tuple([(by + size // 2) % size - size // 2 for by, size in zip(found, made.shape, strict=True)])


def _takes(program: Program, reader: int, value: Value, roll: _Roll, memory: Memory) -> bool:
    """Whether the step is a formula that may read the value where it was before it was rolled."""
    step = program.steps[reader] if reader >= 0 else None
    if not isinstance(step, Call) or not local.plain[step.kind].backend.rolls_operands:
        return False
    if not memory.steady(roll.source, roll.at, reader) or step.kind is not roll.kind:
        return False
    if isinstance(step.op, Fused) and step.op.sums:
        if step.op.rolls:  # a program is passed again to be saved
            return False
    elif formula_of(step, memory) is None:
        return False
    return broadcast_shape(step.op.name, *(v.shape for v in step.reads())) == value.shape


def _reading(call: Call, taken: dict[Value, _Roll], memory: Memory) -> Call:
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
        source = (taken[x].source, taken[x].by if any(taken[x].by) else ()) if x in taken else (x, ())
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
