"""The activation behind ``linear`` is done by the product's own kernel, on sums that are still in registers.

The gradient of a ReLU asks for what it gave, and nobody else for what it was taken of, in training neither. A GELU's
asks for what it was taken of: then the kernel stores both, which saves the way back. Not where only formulas read what
the activation gives: they compute it by the way, without storing it.

Only a backend with a kernel for it (``fuses_activation``) gets such calls. A half-precision result is rounded once,
not twice.
"""

from __future__ import annotations

from typing import Any

from ...dispatch import OPS, local
from ...ops.elementwise import Elementwise
from ...ops.linear_activation import ACTIVATIONS
from ..program import Action, Call, Program, Value
from .activations import Activation, activation_behind
from .memory import Memory, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with products that end in their activation."""
    if not any(call.op.name in ("linear", "linear_backward") for call in program.calls):
        return program
    readers, memory = program.readers, Memory.of(program)
    makers = {made: at for at, step in enumerate(program.steps) if isinstance(step, Call) for made in step.results}
    steps: list[Call | Action | None] = list(program.steps)
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or step.op.name not in ("linear", "linear_backward"):
            continue
        y = step.results[0]
        if step.op.name == "linear_backward":
            slope = None if y is None else _slope_behind(program, at, y, readers, makers, memory)
            if slope is not None:
                where, before, made = slope
                op, attrs = OPS["linear_activation_backward"], {"activation": "gelu_tanh", **step.attrs}
                inputs, results = (*step.inputs, before), (made, *step.results[1:])
                steps[at] = Call(op, step.kind, inputs, attrs, results, (), step.line, step.part)
                steps[where] = None
                notes.append(f"linear_backward, gelu_tanh_backward became one: {made.nbytes} bytes are not between")
            continue
        found = None if y is None or step.attrs else _behind(program, step, y, readers)
        if found is None:
            continue
        assert y is not None
        attrs = {"activation": found.name, "keeps": not found.alone}
        results = (found.made, None if found.alone else y)
        op = OPS["linear_activation"]
        steps[at] = Call(op, step.kind, step.inputs, attrs, results, (), step.line, step.part)
        steps[found.at] = None
        ways = "written and read" if found.alone else "read"
        notes.append(f"linear, {found.name} became linear_activation: {y.nbytes} bytes are not {ways} between")
    if not notes:
        return program
    return rewritten(program, [s for s in steps if s is not None], "linear_activation", notes)


def _behind(program: Program, linear: Call, y: Value, readers: dict[Value, set[int]]) -> Activation | None:
    if linear.inputs[2] is None or linear.writes or y.root is not y or not y.contiguous:
        return None
    found = activation_behind(program, y, ACTIVATIONS, readers)
    if found is None:
        return None
    backend: Any = local.plain[linear.kind].backend
    if not backend.fuses_activation(found.name, y.dtype.name, y.shape[-1], keeps=not found.alone):
        return None
    if not found.alone and all(_is_formula(program, i) for i in readers.get(found.made, ())):
        return None
    return found


def _slope_behind(
    program: Program, at: int, to_y: Value, readers: dict[Value, set[int]], makers: dict[Value | None, int],
    memory: Memory,
) -> tuple[int, Value, Value] | None:  # fmt: skip
    """The step that takes this gradient, which nobody else reads, through a GELU; what that was taken of, if that is
    there already; and the step's result."""
    later = readers.get(to_y, set())
    where = min(later, default=-1)
    step = program.steps[where] if len(later) == 1 and where != -1 else None
    if not isinstance(step, Call) or step.op.name != "gelu_tanh_backward0" or step.attrs or step.writes:
        return None
    made, before = step.results[0], step.inputs[1]
    if made is None or made.root is not made or step.inputs[0] is not to_y or type(before) is not Value:
        return None
    if any(v.dtype != to_y.dtype or v.shape != to_y.shape or not v.contiguous for v in (before, made, to_y)):
        return None
    if makers.get(before, -1) > at or not memory.steady(before, at, where) or before.root is not before:
        return None
    backend: Any = local.plain[step.kind].backend
    fuses = backend.fuses_activation("gelu_tanh", to_y.dtype.name, to_y.shape[-1], keeps=True)
    return (where, before, made) if fuses else None


def _is_formula(program: Program, at: int) -> bool:
    step = program.steps[at]
    return at != -1 and isinstance(step, Call) and isinstance(step.op, Elementwise)
