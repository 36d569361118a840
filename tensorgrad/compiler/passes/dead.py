"""Calls whose results nobody reads are dropped: gradients of what needs none, copies that were not needed."""

from __future__ import annotations

from ..program import Action, Call, Program, Unless, Value
from .memory import Memory, draws, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program without calls that no output, no memory of others and no generator shows."""
    memory = Memory(program)
    needed = set(program.outputs)
    kept: list[Call | Action] = []
    notes: list[str] = []
    for step in reversed(program.steps):
        if isinstance(step, Action) or _seen(step, needed, memory):
            kept.append(step)
            if isinstance(step, Call):
                for value in step.reads():
                    needed.add(value)
                    needed.add(value.root)
            continue
        notes.append(f"dropped {step.op.name}, which nobody reads")
    if not notes:
        return program
    return rewritten(program, kept[::-1], "dead", notes[::-1])


def _seen(call: Call, needed: set[Value], memory: Memory) -> bool:
    if call.writes or getattr(call.op, "demands", False) or draws(call) or (isinstance(call, Unless) and call.acts):
        return True
    return any(v is not None and (v in needed or memory.written(v)) for v in call.results)
