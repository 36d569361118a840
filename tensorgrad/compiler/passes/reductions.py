"""A formula whose result is summed is summed while it is computed, and stored only if somebody else reads it."""

from __future__ import annotations

from typing import Any

from ...dispatch import local
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_LETTERS = {"sum": "s", "sum_to": "s", "mean": "m"}


def run(program: Program) -> Program:
    """The program with sums and means of all elements of a formula's result taken by the formula itself."""
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
        sums: list[tuple[int, str, Value]] = []  # which result, how, as what
        taken: dict[int, str] = {}
        for i, value in enumerate(step.results):
            if (
                value is None
                or not value.shape
                or not value.contiguous
                or value.dtype.name not in ("float32", "float64")
            ):
                continue
            for reader in sorted(readers.get(value, ())):
                other = program.steps[reader] if reader >= 0 else None
                if isinstance(other, Call) and (made := _total(other, value)) is not None:
                    sums.append((i, _LETTERS[other.op.name], made))
                    taken[reader] = other.op.name
        if not sums:
            continue
        kept = [i for i, v in enumerate(step.results) if v is not None and readers.get(v, set()) - set(taken)]
        joiner = Joiner()
        arrays = [x for x in step.inputs if type(x) is Value]
        number = {id(x): i for i, x in enumerate(arrays)}
        operands = [("input", number[id(x)]) if type(x) is Value else ("number", x) for x in step.inputs]
        values = joiner.add(formula, operands)
        outputs = [(values[i], formula.outputs[i][1]) for i in (*kept, *(i for i, _, _ in sums))]
        typed = joiner.program(outputs, [key_of(x) for x in arrays])
        parts = (*getattr(step.op, "parts", (step.op.name,)), *taken.values())
        op = fused(typed, parts, "." * len(kept) + "".join(letter for _, letter, _ in sums))
        results: list[Any] = [step.results[i] for i in kept] + [made for _, _, made in sums]
        steps[at] = Call(op, step.kind, tuple(arrays), {}, tuple(results), (), step.line, step.part)
        for reader in taken:
            steps[reader] = None
        gone = sum(v.nbytes for i, v in enumerate(step.results) if v is not None and i not in kept)
        notes.append(f"{', '.join(taken.values())} is taken by {op.name}: {gone} bytes are not stored")
    if not notes:
        return program
    return rewritten(program, [s for s in steps if s is not None], "reductions", notes)


def _total(call: Call, value: Value) -> Value | None:
    """The result of a call that is the sum or mean of all elements of the value."""
    if call.op.name not in _LETTERS or len(call.inputs) != 1 or call.inputs[0] is not value:
        return None
    if call.op.name == "sum_to":
        (made,) = call.results
        return made if made is not None and not made.shape and made.dtype == value.dtype else None
    if set(call.attrs) != {"dim", "keepdim"} or call.attrs["keepdim"] or call.writes:
        return None
    dims = call.attrs["dim"]
    if type(dims) is not tuple or sorted(d % len(value.shape) for d in dims) != list(range(len(value.shape))):
        return None
    (made,) = call.results
    return made if made is not None and made.dtype == value.dtype and made.root is made else None
