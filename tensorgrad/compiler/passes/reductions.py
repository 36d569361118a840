"""A formula whose result is summed is summed while it is computed, and stored only if somebody else reads it.

So are sums, extremes and others along the last axes of what nobody else reads."""

from __future__ import annotations

from typing import Any

from ...dispatch import local
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten
from .summing import Reduced, reduced

__all__ = ["run"]

_FLOATS = ("float32", "float64")


def run(program: Program) -> Program:
    """The program with reductions of all of a formula's result, or of its rows, taken by the formula itself."""
    memory = Memory.of(program)
    readers = program.readers
    steps: list[Call | Action | None] = list(program.steps)
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or not local.plain[step.kind].backend.sums_formulas:
            continue
        formula = formula_of(step, memory)
        if formula is None:
            continue
        found: list[tuple[int, int, Reduced, Value]] = []  # which reader, of which result, how, as what
        for i, value in enumerate(step.results):
            if value is None or not value.shape or not value.contiguous or value.dtype.name not in _FLOATS:
                continue
            for reader in sorted(readers.get(value, ())):
                other = program.steps[reader] if reader >= 0 else None
                how = reduced(other, value) if isinstance(other, Call) else None
                if how is not None and isinstance(other, Call) and other.results[0] is not None:
                    found.append((reader, i, how, other.results[0]))
        found = _together(found, step.results, readers)
        if not found:
            continue
        taken = {reader: _name(program.steps[reader]) for reader, _, _, _ in found}
        kept = [i for i, v in enumerate(step.results) if v is not None and readers.get(v, set()) - set(taken)]
        joiner = Joiner()
        arrays = [x for x in step.inputs if type(x) is Value]
        number = {id(x): i for i, x in enumerate(arrays)}
        operands = [("input", number[id(x)]) if type(x) is Value else ("number", x) for x in step.inputs]
        values = joiner.add(formula, operands)
        outputs = [(values[i], formula.outputs[i][1]) for i in (*kept, *(i for _, i, _, _ in found))]
        typed = joiner.program(outputs, [key_of(x) for x in arrays])
        parts = (*getattr(step.op, "parts", (step.op.name,)), *taken.values())
        how = found[0][2]
        along = f":{how.axes}{'k' if how.keepdim else ''}" if how.axes else ""
        op = fused(typed, parts, "." * len(kept) + "".join(each.letter for _, _, each, _ in found) + along)
        results: list[Any] = [step.results[i] for i in kept] + [made for _, _, _, made in found]
        steps[at] = Call(op, step.kind, tuple(arrays), {}, tuple(results), (), step.line, step.part)
        for reader in taken:
            steps[reader] = None
        gone = sum(v.nbytes for i, v in enumerate(step.results) if v is not None and i not in kept)
        notes.append(f"{', '.join(taken.values())} is taken by {op.name}: {gone} bytes are not stored")
    if not notes:
        return program
    return rewritten(program, [s for s in steps if s is not None], "reductions", notes)


def _together(
    found: list[tuple[int, int, Reduced, Value]], results: tuple[Value | None, ...], readers: dict[Value, set[int]]
) -> list[tuple[int, int, Reduced, Value]]:
    """Those that one formula takes: all totals, or else reductions along the same axes, of what nobody else reads. For
    others it is stored, and near when it is reduced behind."""
    totals = [each for each in found if not each[2].axes]
    if totals:
        return totals
    taken = {reader for reader, _, _, _ in found}
    alone = {i for i, v in enumerate(results) if v is not None and not readers.get(v, set()) - taken}
    rows = [each for each in found if each[1] in alone]
    return [each for each in rows if each[2][1:] == rows[0][2][1:]]


def _name(step: Call | Action) -> str:
    assert isinstance(step, Call)
    return step.op.name
