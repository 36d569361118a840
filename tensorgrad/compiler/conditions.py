"""``Conditions``: what Python has read while a program was written, and the program that computes it anew.

Under ``fallback=True`` a truth or an integer that Python reads splits a function: a program for each outcome. A small
program computes the outcome first; it must change nothing, since what follows may be another program or Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..random import Generator
from .executor import executor
from .passes import optimize
from .program import Action, Program, Unless

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Conditions"]


class Conditions:
    """``met(given)``: whether Python would read again what it has read; ``trouble``: why that can't be asked, if so."""

    def __init__(self, trace: Trace):
        self.expected = [seen for _, seen, _ in trace.conditions]
        last = max(at for _, _, at in trace.conditions)
        program = optimize(Program(trace.steps[:last], list(trace.arguments), [v for v, _, _ in trace.conditions]))
        self.trouble: str | None = None
        for step in program.steps:
            draws = not isinstance(step, Action) and any(isinstance(x, Generator) for x in step.attrs.values())
            if isinstance(step, (Action, Unless)) or step.writes or draws:
                self.trouble = "it changes something, or draws random numbers, before Python reads what it computes"
                return
        self.run = executor(program)

    def met(self, given: list[Any]) -> bool:
        found = self.run(given)
        return all(
            (x if isinstance(x, np.ndarray) else np.array(x.get())).tobytes() == seen
            for x, seen in zip(found, self.expected, strict=True)
        )
