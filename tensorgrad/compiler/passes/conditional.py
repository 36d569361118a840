"""What a program does unless a flag is set goes through all passes by itself.

To the passes of the program around it this is one call, which reads and writes what its steps do. So nothing moves in
or out: what is computed only sometimes serves nobody else, and what others read is computed always.
"""

from __future__ import annotations

from ..program import Program, Unless
from .memory import rewritten

__all__ = ["run"]


def run(program: Program) -> Program:
    """The program with the steps of each ``Unless`` made smaller."""
    from . import optimize

    steps = list(program.steps)
    notes: list[tuple[str, str]] = []
    for at, step in enumerate(steps):
        if isinstance(step, Unless):
            body = optimize(step.body)
            if body.notes:
                steps[at] = step.with_steps(body.steps)
                notes += body.notes
    if not notes:
        return program
    made = rewritten(program, steps, "conditional", [])
    made.notes += notes
    return made
