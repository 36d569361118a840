"""An optimizer's action on the host comes before the formula that computes its gradient, not between it and the step.

Calls that follow each other directly can be done a piece at a time in C++: the step finds the gradient in the cache.
"""

from __future__ import annotations

from ...ops.elementwise import Elementwise
from ..program import Action, Call, Program, values_in
from .memory import Memory, rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with each action moved before the formulas that stand right before it.

    An action brings the numbers of a step up to date, which calls read as their attributes; a formula that reads one of
    those stays behind it. Nothing else moves: what can fail has to fail before steps are counted.
    """
    memory = Memory.of(program)
    numbers = {v.memory for call in program.calls for v in values_in(list(call.attrs.values()))}
    steps = list(program.steps)
    moved = 0
    for at, step in enumerate(steps):
        if not isinstance(step, Action):
            continue
        to = at
        while to > 0 and isinstance(before := steps[to - 1], Call) and _is_free(before, memory, numbers):
            steps[to] = before
            to -= 1
        steps[to] = step
        moved += at - to
    if not moved:
        return program
    return rewritten(
        program, steps, "actions", ["the optimizer's numbers are brought up to date before the last formulas"]
    )


def _is_free(call: Call, memory: Memory, numbers: set[object]) -> bool:
    if not isinstance(call.op, Elementwise) or call.writes:
        return False
    return not any(v.memory in numbers for v in call.reads())
