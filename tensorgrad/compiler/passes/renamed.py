"""A formula that is written over all of what a call has made gives a value of its own, so that it can be merged.

What lay there before is then another value, which its maker and those who read it until now know. Views of it would go
on to see the memory that was written, so there may be none until then. Which memory the two lie in is for the plan to
say, which puts a result in its operand's place where it can.
"""

from __future__ import annotations

from types import SimpleNamespace

from ...dtypes import of_array
from ..program import Action, Call, Program, Unless, Value
from .formulas import formula_of
from .memory import Memory, replaced, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with formulas that make values in place of such that write over what others have made."""
    if not any("out" in call.attrs for call in program.calls):
        return program
    unwritten = Memory(Program([], [], []))
    steps: list[Call | Action] = list(program.steps)
    touched: dict[Value, list[int]] = {}  # by root, the steps that make or read it; the first one makes it
    unfit: set[Value] = set()  # roots with views, or with other writes, until now
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call):
            continue
        target = step.attrs.get("out")
        if type(target) is Value and target in touched and target not in unfit and step.attrs.keys() == {"out"}:
            made = Call(step.op, step.kind, step.inputs, {}, (target,), (), step.line, step.part)
            formula = formula_of(made, unwritten)
            if formula is not None and [name for _, name in formula.outputs] == [of_array(target.dtype).name]:
                before = {target: _like(target)}
                for i in touched[target]:
                    steps[i] = _renamed(steps[i], before)
                steps[at] = replaced(made, before)
                touched[target] = [at]
                notes.append(f"{step.op.name} makes a value of its own instead of writing over another")
                step = made
        unfit.update(v.root for v in step.writes)
        for v in (*step.reads(), *step.results):
            if v is None:
                continue
            if v.root is not v or isinstance(step, Unless):
                unfit.add(v.root)
            places = touched.get(v)
            if places is not None and places[-1] != at:
                places.append(at)
            elif places is None and v in step.results and v.array is None:
                touched[v] = [at]
    return rewritten(program, steps, "renamed", notes) if notes else program


def _like(value: Value) -> Value:
    array = SimpleNamespace(shape=value.shape, dtype=value.dtype, strides=value.strides)
    return Value(f"{value.name}'", array)


def _renamed(step: Call | Action, by: dict[Value, Value]) -> Call:
    assert isinstance(step, Call)
    call = replaced(step, by)
    results = tuple(v if v is None else by.get(v, v) for v in call.results)
    return Call(call.op, call.kind, call.inputs, call.attrs, results, call.writes, call.line, call.part)
