"""Which results of a formula may lie where an operand does, so that its kernel writes over what it reads.

A formula's loops go element by element, so each reads an element before it writes the one at the same place. But a
block of a result is written as soon as it is computed, by the loop that makes it, and other loops behind that may still
read the operand. So where there are several results, everything that reads the operand has to lead to this one: in
whatever order loops run, they have run before.
"""

from __future__ import annotations

from ..expr import Program as Formula
from ..ops.elementwise import Elementwise
from .fused import Fused
from .program import Call, Value

__all__ = ["overwritable"]


def overwritable(call: Call) -> list[tuple[Value, list[Value]]]:
    """Results that a formula stores, and the operands that each may be written over, if nobody else reads these."""
    if not isinstance(call.op, Elementwise) or call.writes:
        return []
    letters = call.op.letters if isinstance(call.op, Fused) else ""
    stored = [(k, v) for k, v in enumerate(call.results) if v is not None and letters[k : k + 1] in ("", ".")]
    if len(call.results) == 1:
        found = [(v, list(call.reads())) for _, v in stored]
    else:
        formula = call.op.program if isinstance(call.op, Fused) else call.formula
        if not isinstance(formula, Formula) or call.attrs or len(formula.inputs) != len(call.inputs):
            return []
        ends = _read_before(formula)
        found = [
            (v, [x for x in dict.fromkeys(call.reads()) if all(i in ends[k] for i in _numbers(call, x))])
            for k, v in stored
        ]
    return [(v, operands) for v, operands in found if operands and v.root is v and v.shape]


def _numbers(call: Call, operand: Value) -> list[int]:
    return [i for i, x in enumerate(call.inputs) if x is operand]


def _read_before(formula: Formula) -> list[set[int]]:
    """By result: the inputs of which nothing reads an element that doesn't lead to the result."""
    leads: list[int] = []  # by instruction, those that lead to it and itself, as bits
    readers = [0] * len(formula.inputs)
    for i, (op, _, args) in enumerate(formula.code):
        mine = 1 << i
        if op not in ("load", "const"):
            for arg in args[:1] if op == "wrap" else args:
                mine |= leads[arg]
                if formula.code[arg][0] == "load":
                    readers[formula.code[arg][2][0]] |= 1 << i
        leads.append(mine)
    copied = {formula.code[value][2][0] for value, _ in formula.outputs if formula.code[value][0] == "load"}
    return [
        {x for x, reading in enumerate(readers) if x not in copied and reading & ~leads[value] == 0}
        for value, _ in formula.outputs
    ]
