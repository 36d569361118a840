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
from .memory import rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with products that end in their activation."""
    if not any(call.op.name == "linear" for call in program.calls):
        return program
    readers = program.readers
    steps: list[Call | Action | None] = list(program.steps)
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call) or step.op.name != "linear":
            continue
        y = step.results[0]
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


def _is_formula(program: Program, at: int) -> bool:
    step = program.steps[at]
    return at != -1 and isinstance(step, Call) and isinstance(step.op, Elementwise)
