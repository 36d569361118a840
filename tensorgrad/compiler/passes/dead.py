"""Calls whose results nobody reads are dropped: gradients of what needs none, copies that were not needed.

Of a call that makes the gradients of several inputs, those that nobody reads are not asked for: a gradient in the input
of a model comes without those of its weights.
"""

from __future__ import annotations

from ..program import Action, Call, Program, Unless, Value
from .memory import Memory, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program without calls that no output, no memory of others and no generator shows."""
    memory = Memory.of(program)
    needed = set(program.outputs)
    kept: list[Call | Action] = []
    notes: list[str] = []
    for step in reversed(program.steps):
        if isinstance(step, Action) or _seen(step, needed, memory):
            if isinstance(step, Call):
                step, unread = _asked(step, needed, memory)
                if unread:
                    notes.append(f"{step.op.name} without {unread}, which nobody reads")
                for value in step.reads():
                    needed.add(value)
                    needed.add(value.root)
            kept.append(step)
            continue
        notes.append(f"dropped {step.op.name}, which nobody reads")
    if not notes:
        return program
    return rewritten(program, kept[::-1], "dead", notes[::-1])


def _seen(call: Call, needed: set[Value], memory: Memory) -> bool:
    if call.writes or getattr(call.op, "demands", False) or call.draws or (isinstance(call, Unless) and call.acts):
        return True
    return any(v is not None and (v in needed or memory.written(v)) for v in call.results)


def _asked(call: Call, needed: set[Value], memory: Memory) -> tuple[Call, str]:
    """The call without the gradients that nobody reads, and their names in words; the call itself where it has none.

    Those of all inputs but the first go together: a bias's sums are taken in the order of its weight's product where
    both are asked for, and a program's bits are those of the calls.
    """
    if not getattr(call.op, "apart", False):
        return call, ""
    needs, results = call.attrs["needs"], call.results
    seen = [v is not None and (v in needed or memory.written(v)) for v in results]
    if not any(seen):
        return call, ""
    asked = [seen[0], *[any(seen[1:])] * (len(seen) - 1)]
    unread = [v.name for v, keeps in zip(results, asked, strict=True) if v is not None and not keeps]
    if not unread:
        return call, ""
    left = tuple([v if keeps else None for v, keeps in zip(results, asked, strict=True)])
    attrs = {**call.attrs, "needs": tuple([a and b for a, b in zip(needs, asked, strict=True)])}
    return Call(call.op, call.kind, call.inputs, attrs, left, call.writes, call.line, call.part), ", ".join(unread)
