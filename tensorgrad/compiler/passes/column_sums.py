"""What a formula makes to be summed down columns is summed in registers, by a formula of its own, and not stored.

``((x - y) ** 2).sum(0)``, and in backward passes the gradients of what was broadcast along rows; likewise means and
extremes. What else the formula makes is stored by what is left of it; both read what they need of its operands. Where
that would be more than is saved, the formula stays.

Only a backend whose formulas do so (``sums_columns``) gets such calls.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from ...dispatch import local
from ...expr import Program as Formula
from ..fused import Fused, Joiner, fused
from ..program import Action, Call, Program, Value
from . import formulas, inline
from .formulas import formula_of, key_of
from .memory import Memory, rewritten
from .room import Room
from .summing import Reduced, columns, lies_in_matrices

__all__ = ["run"]

_SMALL = 8  # parts of a result's bytes: an operand of one of them comes from the cache
_ROWS = 16  # of fewer, sums of what is stored as well would be made sooner than an eager run has memory for them


class _Sum(NamedTuple):
    """A sum down the columns of a formula's result: its step, the number of the result, how, and the sum."""

    at: int
    number: int
    how: Reduced
    made: Value


def run(program: Program) -> Program:
    """The program with sums down columns taken by formulas."""
    memory = Memory.of(program)
    readers = program.readers
    steps: list[tuple[Call | Action, ...]] = [(step,) for step in program.steps]
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        formula = formula_of(step, memory) if isinstance(step, Call) else None
        if formula is None or not isinstance(step, Call):
            continue
        sums = _sums_of(step, program)
        alone = {s.number for s in sums if not readers[_result(step, s)] - {other.at for other in sums}}
        sums = _worth(step, formula, sums, alone)
        if not sums:
            continue
        how = sums[0].how
        letters = "".join(s.how.letter for s in sums) + f":{how.axes}{'k' if how.keepdim else ''}/{how.behind}"
        parts = (*getattr(step.op, "parts", (step.op.name,)), *(_name(program.steps[s.at]) for s in sums))
        summing = _part(step, formula, [s.number for s in sums], [s.made for s in sums], parts, letters)
        typed = summing.op.program
        lie = all(not x.shape or lies_in_matrices(x, _shape(step), how) for x in summing.reads())
        if not lie or not local.plain[step.kind].backend.sums_columns(typed):
            continue
        kept = [i for i, v in enumerate(step.results) if v is not None and i not in alone]
        left = _part(step, formula, kept, [step.results[i] for i in kept], parts[: -len(sums)]) if kept else None
        steps[at] = (summing,) if left is None else (summing, left)
        for s in sums:
            steps[s.at] = ()
        gone = sum(_result(step, s).nbytes for s in sums if s.number in alone)
        notes.append(f"{', '.join(parts[-len(sums) :])} is taken by {summing.op.name}: {gone} bytes are not stored")
    if not notes:
        return program
    made = rewritten(program, [one for each in steps for one in each], "column_sums", notes)
    made.needed, made.eager, made.tight = program.needed, program.eager, program.tight
    # what had to be there for a sum may now wait for who else reads it, or be computed by these
    again = inline.run(formulas.run(made))
    most = max(program.needed, Room(program).most)
    return next((each for each in (again, made) if Room(each).most <= most), program)


def _sums_of(step: Call, program: Program) -> list[_Sum]:
    """Sums of the formula's results down columns, as many as are alike."""
    found = []
    for i, value in enumerate(step.results):
        if value is None or not value.contiguous or value.dtype.name != "float32":
            continue
        for reader in sorted(program.readers.get(value, ())):
            other = program.steps[reader] if reader >= 0 else None
            how = columns(other, value) if isinstance(other, Call) else None
            if how is not None and isinstance(other, Call) and other.results[0] is not None:
                found.append(_Sum(reader, i, how, other.results[0]))
    alike = [[s for s in found if s.how[1:] == first.how[1:]] for first in found]
    return max(alike, key=len, default=[])


def _worth(step: Call, formula: Formula, sums: list[_Sum], alone: set[int]) -> list[_Sum]:
    """Those of the sums that are worth it, if any are: of results that are made for them alone, and of others that come
    of the same operands."""
    if not alone:
        return []
    own = {s.number for s in sums if s.number in alone}
    read = _large(step, formula, own)
    if len(own) < sum(v is not None for v in step.results) and len(read) > 2 * len(own):
        return []
    how = sums[0].how
    last = len(_shape(step)) - how.behind
    rows = prod(_shape(step)[last - how.axes : last])
    return [s for s in sums if s.number in own or (rows >= _ROWS and _large(step, formula, {s.number}) <= read)]


def _large(step: Call, formula: Formula, results: set[int]) -> set[Value]:
    """The large operands that these results come of."""
    found = {step.inputs[i] for i in _operands(formula, [formula.outputs[k][0] for k in results])}
    return {x for x in found if type(x) is Value and _elements(x) * _SMALL > prod(_shape(step))}


def _elements(value: Value) -> int:
    return prod([n for n, step in zip(value.shape, value.strides_in_items, strict=True) if step])


def _operands(formula: Formula, values: list[int]) -> set[int]:
    """The numbers of the operands that some values of a formula come of."""
    needed, found = set(values), set()
    for i in range(len(formula.code) - 1, -1, -1):
        op, _, args = formula.code[i]
        if i in needed and op == "load":
            found.add(args[0])
        elif i in needed and op != "const":
            needed.update(args[:1] if op == "wrap" else args)
    return found


def _part(
    step: Call, formula: Formula, numbers: list[int], results: list[Any], parts: tuple[str, ...], sums: str = ""
) -> Call:
    """The formula of some of the results, perhaps summed."""
    wanted = [formula.outputs[k][0] for k in numbers]
    read = _operands(formula, wanted)
    arrays = list(dict.fromkeys(x for i, x in enumerate(step.inputs) if type(x) is Value and i in read))
    operands: list[Any] = [
        None if i not in read else ("input", arrays.index(x)) if type(x) is Value else ("number", x)
        for i, x in enumerate(step.inputs)
    ]
    joiner = Joiner()
    values = joiner.part(formula, operands, wanted)
    outputs = [(value, formula.outputs[k][1]) for value, k in zip(values, numbers, strict=True)]
    op: Fused = fused(joiner.program(outputs, [key_of(x) for x in arrays]), parts, sums)
    return Call(op, step.kind, tuple(arrays), {}, tuple(results), (), step.line, step.part)


def _result(step: Call, sum_: _Sum) -> Value:
    found = step.results[sum_.number]
    assert found is not None
    return found


def _shape(step: Call) -> tuple[int, ...]:
    return next(v.shape for v in step.results if v is not None)


def _name(step: Call | Action) -> str:
    assert isinstance(step, Call)
    return step.op.name
