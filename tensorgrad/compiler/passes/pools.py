"""Maxima whose places nobody reads are found without them: a place takes eight bytes, the maximum two to eight."""

from __future__ import annotations

from ...dispatch import OPS
from ..program import Action, Call, Program
from .memory import Memory, rewritten

__all__ = ["run"]

_WITHOUT = {"max_pool": "max_pool_values", "adaptive_max_pool": "adaptive_max_pool_values"}


def run(program: Program) -> Program:
    """The program with pools that give no places where none are needed (in inference)."""
    found = [step for step in program.calls if step.op.name in _WITHOUT]
    if not found:
        return program
    memory = Memory.of(program)
    readers = program.readers
    steps: list[Call | Action] = []
    notes: list[str] = []
    for step in program.steps:
        if isinstance(step, Call) and step.op.name in _WITHOUT and len(step.results) == 2:
            values, places = step.results
            if values is not None and (places is None or not (readers.get(places) or memory.written(places))):
                op = OPS[_WITHOUT[step.op.name]]
                steps.append(Call(op, step.kind, step.inputs, step.attrs, (values,), step.writes, step.line, step.part))
                saved = 0 if places is None else places.nbytes
                notes.append(f"{step.op.name} gives no places: {saved} bytes are not stored")
                continue
        steps.append(step)
    return rewritten(program, steps, "pools", notes) if notes else program
