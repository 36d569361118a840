"""Whole numbers that a formula turns into floats for each of many elements are turned once, ahead of it: how many ties
share a gradient, how long a row is. Processors without AVX-512 convert integers of 64 bits one by one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ...dispatch import OPS
from ...expr import Program as Formula
from ...ops.elementwise import Elementwise
from ..fused import Fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_OFTEN = 8  # elements of the result for each number
_FLOATS: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


def run(program: Program) -> Program:
    """The program with casts of broadcast integers ahead of the formulas that read them."""
    memory = Memory.of(program)
    turned: dict[tuple[Value, str], Value] = {}
    steps: list[Call | Action] = []
    notes: list[str] = []
    for step in program.steps:
        if isinstance(step, Call) and _is_untyped(step.op) and (formula := _of_integers(step, memory)):
            for i, x in enumerate(step.inputs):
                kind = _only_cast(formula, i) if type(x) is Value and _comes_again(x, step) else None
                if kind is None or memory.written(x):
                    continue
                made = turned.get((x, kind), _of_kind(x, kind))
                inputs = (*step.inputs[:i], made, *step.inputs[i + 1 :])
                if _outputs(step.op, inputs) != [dtype for _, dtype in formula.outputs]:
                    continue  # it has a say in the result's dtype
                if (x, kind) not in turned:
                    turned[x, kind] = made
                    attrs = {"dtype": made.dtype}
                    steps.append(Call(OPS["cast"], step.kind, (x,), attrs, (made,), (), step.line, step.part))
                    notes.append(f"{x.name} is cast to {made.dtype} once, not for each element of {step.op.name}")
                step = Call(step.op, step.kind, inputs, {}, step.results, (), step.line, step.part)
        steps.append(step)
    return rewritten(program, steps, "casts", notes) if notes else program


def _is_untyped(op: Any) -> bool:
    """Whether it is an elementwise op that takes operands of other types; a program is passed again to be saved."""
    return isinstance(op, Elementwise) and not isinstance(op, Fused)


def _of_integers(call: Call, memory: Memory) -> Formula | None:
    if not any(type(x) is Value and _comes_again(x, call) for x in call.inputs):
        return None
    return formula_of(call, memory)


def _comes_again(x: Value, call: Call) -> bool:
    made = call.results[0]
    if made is None or x.dtype.kind not in "iu" or not x.shape or x.array is not None or 0 in made.shape:
        return False
    return _OFTEN * int(np.prod(x.shape)) <= int(np.prod(made.shape))


def _only_cast(formula: Formula, i: int) -> str | None:
    """The kind of floats that an operand is turned into wherever it is read; None if it is read otherwise."""
    loads = {at for at, (op, _, args) in enumerate(formula.code) if op == "load" and args == (i,)}
    kinds = {
        kind if op == "cast" else ""
        for op, kind, args in formula.code
        if op not in ("load", "const") and loads.intersection(args[:1] if op == "wrap" else args)
    }
    found = kinds.pop() if len(kinds) == 1 else ""
    return found if found in _FLOATS and not any(at in loads for at, _ in formula.outputs) else None


def _of_kind(x: Value, kind: str) -> Value:
    strides = []
    size = _FLOATS[kind].itemsize
    for n in reversed(x.shape):
        strides.append(size)
        size *= n
    return Value(f"{x.name}_{kind}", SimpleNamespace(shape=x.shape, dtype=_FLOATS[kind], strides=strides[::-1]))


def _outputs(op: Any, inputs: tuple[Any, ...]) -> list[str]:
    keys = tuple(key_of(x) if type(x) is Value else f"py:{type(x).__name__}" for x in inputs)
    return [dtype for _, dtype in op.specialize(keys).outputs]
