"""What is negated only to be summed is summed, and the sum is negated: gradients of what was subtracted or divided by.

The value below the sign is often there already, or is stored for somebody else as well: then one array less is made
and less read. Rounding knows no sign, so a sum has the same bits, but for that of a zero: only on a backend that sums
formulas by the way (``sums_formulas``), whose programs round as they do anyhow.
"""

from __future__ import annotations

from types import SimpleNamespace

from ...dispatch import OPS, local
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_SUMS = frozenset(("sum", "sum_to", "mean"))
_LEAST = 1 << 16  # bytes: a call more takes longer than to go over less


def run(program: Program) -> Program:
    """The program with sums negated in place of what they are taken of."""
    memory = Memory.of(program)
    readers = program.readers
    steps: list[list[Call | Action]] = [[step] for step in program.steps]
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or not local.plain[step.kind].backend.sums_formulas:
            continue
        summed = [i for i, v in enumerate(step.results) if v is not None and _only_summed(program, v, readers)]
        formula = formula_of(step, memory) if summed else None
        if formula is None:
            continue
        joiner = Joiner()
        arrays = [x for x in step.inputs if type(x) is Value]
        number = {id(x): i for i, x in enumerate(arrays)}
        operands = [("input", number[id(x)]) if type(x) is Value else ("number", x) for x in step.inputs]
        values = joiner.add(formula, operands)
        results: list[Value | None] = list(step.results)
        instead: dict[Value, Value] = {}
        for i in summed:
            above, _, args = joiner.code[values[i]]
            if above != "neg":
                continue
            v = step.results[i]
            assert v is not None
            below, _, given = joiner.code[args[0]]
            if below == "load" and (arrays[given[0]].shape != v.shape or arrays[given[0]].dtype != v.dtype):
                continue
            values[i] = args[0]
            instead[v] = arrays[given[0]] if below == "load" else _like(f"{v.name}_positive", v)
            results[i] = None if below == "load" else instead[v]
        if not instead or not all(memory.steady(x, at, max(readers[v])) for v, x in instead.items()):
            continue
        kept = [i for i, v in enumerate(results) if v is not None]
        if kept:
            typed = joiner.program([(values[i], formula.outputs[i][1]) for i in kept], [key_of(x) for x in arrays])
            op = fused(typed, getattr(step.op, "parts", (step.op.name,)))
            made = tuple(results[i] for i in kept)
            steps[at] = [Call(op, step.kind, tuple(arrays), {}, made, (), step.line, step.part)]
        else:
            steps[at] = []
        for v, positive in instead.items():
            for reader in readers[v]:
                steps[reader] = _negated(program.steps[reader], positive)
            notes.append(f"the sums of {v.name} are negated, not its {v.nbytes} bytes")
    return rewritten(program, [s for group in steps for s in group], "negations", notes) if notes else program


def _only_summed(program: Program, v: Value, readers: dict[Value, set[int]]) -> bool:
    if v.nbytes < _LEAST or v.dtype.name not in ("float32", "float64") or v.root is not v or not readers.get(v):
        return False
    for reader in readers[v]:
        step = program.steps[reader] if reader >= 0 else None
        if not isinstance(step, Call) or step.op.name not in _SUMS or step.writes or len(step.inputs) != 1:
            return False
        made = step.results[0]
        if made is None or made.root is not made or made.dtype != v.dtype:
            return False
    return True


def _negated(step: Call | Action, positive: Value) -> list[Call | Action]:
    assert isinstance(step, Call)
    made = step.results[0]
    assert made is not None
    total = _like(f"{made.name}_positive", made)
    return [
        Call(step.op, step.kind, (positive,), step.attrs, (total,), (), step.line, step.part),
        Call(OPS["neg"], step.kind, (total,), {}, (made,), (), step.line, step.part),
    ]


def _like(name: str, value: Value) -> Value:
    return Value(name, SimpleNamespace(shape=value.shape, dtype=value.dtype, strides=value.strides))
