"""``Conditions``: what Python has read while a program was written, and the program that computes it anew.

Under ``fallback=True`` a truth or an integer that Python reads splits a function: a program for each outcome. So does
how many elements a mask picks, with or without. A small program computes the outcome first; it must change nothing that
others see, since what follows may be another program or Python.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.node import describe_line
from .executor import executor
from .passes import optimize
from .program import Action, Call, Program, Unless, Value
from .signature import owner

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Conditions"]


class Conditions:
    """``met(given, answers)``: whether Python would read again what it has read, where ``answers`` holds what programs
    have given in the same call, those of other conditions too; ``trouble``: why that can't be asked, if so; ``raw``:
    what computes it, as it was written."""

    def __init__(self, trace: Trace):
        self.expected = [seen for _, seen, _ in trace.conditions]
        last = max(at for _, _, at in trace.conditions)
        read = [v for v, _, _ in trace.conditions]
        self.trouble: str | None = None
        program = self._ask(Program(_needed(trace.steps[:last], read), list(trace.arguments), read))
        given = set(program.arguments)
        for step in program.steps:
            if isinstance(step, (Action, Unless)) or _writes_outside(step, given) or step.draws:
                where = f" at {describe_line(trace.line_read)}" if trace.line_read is not None else ""
                self.trouble = (
                    "it changes something, or draws random numbers, before Python reads what it computes"
                    f"{where} (of a mask: how many elements it picks)"
                )
                return
        self.run = executor(program)

    def _ask(self, raw: Program) -> Program:
        self.raw = raw
        self.question = _question(raw)
        return optimize(raw)

    def asking(self, raw: Program) -> Conditions:
        """The same of a batch of another size, for which this program computes what is read."""
        made = copy.copy(self)
        made.run = executor(made._ask(raw))
        return made

    def ask_as(self, other: Conditions) -> None:
        """Ask by the very program of other conditions, where it computes the same: then a call asks once."""
        if self.trouble is None and other.trouble is None and self.question == other.question:
            self.run = other.run

    def met(self, given: list[Any], answers: dict[Any, list[Any]]) -> bool:
        found = answers.get(self.run)
        if found is None:
            found = answers[self.run] = self.run(given)
        return all(_bytes(x) == seen for x, seen in zip(found, self.expected, strict=True))


def _bytes(array: Any) -> bytes:
    return (array if isinstance(array, np.ndarray) else np.array(array.get())).tobytes()


def _question(program: Program) -> Any:
    """What is equal for two programs that compute the same of the same arguments and the same state."""
    read = [*(v for call in program.calls for v in call.reads()), *program.outputs]
    state = dict.fromkeys(v for v in read if v.array is not None)
    held = [_bytes(v.array) if v.constant else id(v.array) for v in state]
    known = [(v.name, v.shape, v.strides, v.dtype) for v in (*program.arguments, *read)]
    return [(id(call.op), call.kind, repr(call)) for call in program.calls], known, held


def _writes_outside(step: Call, given: set[Value]) -> bool:
    """Whether a step changes what was there before the program, or is given to it."""
    return any(v.root.array is not None or v.root in given for v in step.writes)


def _needed(steps: list[Call | Action], read: list[Value]) -> list[Call | Action]:
    """The steps that what is read rests on. A dropout, a statistic or an optimizer's step between them is no matter of
    theirs: the program that is chosen does it."""
    memory = {value.memory for value in read}
    found: list[Call | Action] = []
    for step in reversed(steps):
        if _changes(step, memory):
            found.append(step)
            if isinstance(step, Call):
                memory.update(value.memory for value in step.reads())
    return found[::-1]


def _changes(step: Call | Action, memory: set[Any]) -> bool:
    """Whether what lies in this memory may be another after a step. An action that says what it brings up to date (an
    optimizer's numbers, for its own update) does nothing else; any other may."""
    if isinstance(step, Action):
        return not step.counts or not memory.isdisjoint(id(owner(array)) for array in step.counts)
    if isinstance(step, Unless) and any(_changes(x, memory) for x in step.steps if isinstance(x, (Action, Unless))):
        return True
    return not memory.isdisjoint(v.memory for v in (*step.results, *step.writes) if v is not None)
