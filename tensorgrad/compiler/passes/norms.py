"""A batch norm by running statistics behind a linear layer becomes a formula, which goes by the product's blocks and
takes the activation and the residual behind it along.

Weights are not folded: ``scale = w / sqrt(var + eps)`` is computed anew in each run, of as many numbers as there are
channels. So nothing can be out of date, whoever changes a weight or a statistic, and how.

Sums are rounded in other places than in the norm's own kernel, so only a backend that says so (``folds_norms``) gets
such formulas.
"""

from __future__ import annotations

from typing import Any

from ...dispatch import OPS, local
from ...ops.elementwise import Elementwise
from ..program import Action, Call, Program, Value
from .memory import Memory, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with norms behind linear layers as formulas."""
    memory = Memory.of(program)
    readers = program.readers
    makers = {
        step.results[0]: at
        for at, step in enumerate(program.steps)
        if isinstance(step, Call) and step.op.name == "linear"
    }
    before: dict[int, list[Call]] = {}  # by step: what is computed ahead of it
    behind: dict[int, Call] = {}  # by step: what takes its place
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or not _fits(step, makers) or readers[step.inputs[0]] != {at}:
            continue
        first = makers[step.inputs[0]]
        if not all(memory.steady(v, first, at) for v in step.reads() if v is not step.inputs[0]):
            continue
        ahead, formula = _formulas(step)
        before[first] = ahead
        behind[at] = formula
        made = step.results[0]
        later = sorted(i for i in readers.get(made, ()) if i != -1)  # type: ignore[arg-type]
        if later and (follower := _out_of_place(program.steps[later[0]], formula)) is not None:
            behind[at], behind[later[0]] = follower
        notes.append(f"batch_norm_eval of {step.inputs[0].name} is a formula behind linear")
    if not notes:
        return program
    steps: list[Call | Action] = []
    for at, step in enumerate(program.steps):
        steps += before.get(at, ())
        steps.append(behind.get(at, step))
    return rewritten(program, steps, "norms", notes)


def _fits(call: Call, makers: dict[Value | None, int]) -> bool:
    """Whether it is the norm of a product's rows, all of one dtype."""
    if call.op.name != "batch_norm_eval" or call.attrs.keys() != {"eps"} or call.writes:
        return False
    x, made = call.inputs[0], call.results[0]
    if x not in makers or made is None or made.root is not made or len(x.shape) != 2:
        return False
    if not x.contiguous or not made.contiguous or x.dtype.name not in ("float32", "float64"):
        return False
    if any(v.dtype != x.dtype for v in (made, *call.reads())):
        return False
    return bool(local.plain[call.kind].backend.folds_norms)


def _formulas(call: Call) -> tuple[list[Call], Call]:
    """``scale = w / sqrt(var + eps)`` and ``shift = b - mean * scale``, and ``x * scale + shift``, op by op: other
    passes join them."""
    x, w, b, mean, var = call.inputs
    made = call.results[0]
    assert made is not None
    ahead: list[Call] = []

    def by(name: str, *inputs: Any) -> Value:
        result = Value(f"{made.name}_{len(ahead) + 1}", var)
        ahead.append(Call(OPS[name], call.kind, inputs, {}, (result,), (), call.line, call.part))
        return result

    scale = by("rsqrt", by("add", var, call.attrs["eps"]))
    if w is not None:
        scale = by("mul", scale, w)
    shift = by("mul", mean, scale)
    shift = by("neg", shift) if b is None else by("sub", b, shift)
    formula = Call(OPS["scale_shift"], call.kind, (x, scale, shift), {}, (made,), (), call.line, call.part)
    return ahead, formula


def _out_of_place(step: Call | Action, formula: Call) -> tuple[Call, Call] | None:
    """The formula and an activation that is written over its result, with a value between them instead, so that they
    can be joined; None if the step is no such activation."""
    made = formula.results[0]
    if not isinstance(step, Call) or step.attrs.keys() != {"out"} or step.attrs["out"] is not made:
        return None
    if step.writes != (made,) or any(v is not None for v in step.results) or not isinstance(step.op, Elementwise):
        return None
    assert made is not None
    inner = Value(f"{made.name}_0", made)
    inputs = tuple(inner if x is made else x for x in step.inputs)
    return (
        Call(formula.op, formula.kind, formula.inputs, {}, (inner,), (), formula.line, formula.part),
        Call(step.op, step.kind, inputs, {}, (made,), (), step.line, step.part),
    )
