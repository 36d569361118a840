"""Which memory a value lies in, and who changes it when: what every pass asks before it drops or moves a call."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from ..program import Action, Call, Program, Unless, Value

__all__ = ["Memory", "replaced", "rewritten"]


class Memory:
    """The memory of a program's values.

    Values that were there before the run may overlap without knowing of each other: two views of one array are two
    values with roots of their own. They are told apart by the array that owns the elements.
    """

    @staticmethod
    def of(program: Program) -> Memory:
        """That of the program, which passes that change nothing hand on to the next one."""
        found: Memory | None = program.memory
        if found is None:
            found = program.memory = Memory(program)
        return found

    def __init__(self, program: Program):
        self.writes: dict[Any, list[int]] = {}
        self.actions: list[int] = []
        for at, step in enumerate(program.steps):
            if isinstance(step, Action):
                self.actions.append(at)
                continue
            if isinstance(step, Unless) and step.acts:
                self.actions.append(at)
            for value in step.writes:
                places = self.writes.setdefault(value.memory, [])
                if not places or places[-1] != at:
                    places.append(at)

    def is_state(self, value: Value) -> bool:
        """Whether it was there before: its elements may be others in the next replay."""
        return type(value.memory) is int and not value.root.constant

    def written(self, value: Value) -> bool:
        """Whether some call of the program writes to its memory."""
        return value.memory in self.writes

    def steady(self, value: Value, first: int, last: int) -> bool:
        """Whether nobody changes it after step ``first`` and before step ``last``. Actions may change what was there
        before the run, and nothing else."""
        places = self.writes.get(value.memory)
        if places and _between(places, first, last):
            return False
        return not (self.actions and self.is_state(value) and _between(self.actions, first, last))


def _between(places: list[int], first: int, last: int) -> bool:
    at = bisect_right(places, first)
    return at < len(places) and places[at] < last


def replaced(call: Call, by: dict[Value, Value]) -> Call:
    """The call, reading other values in place of some."""
    if not any(v in by for v in call.reads()):
        return call
    if isinstance(call, Unless):
        steps = [replaced(step, by) if isinstance(step, Call) else step for step in call.steps]
        return call.with_steps(steps, by.get(call.flag, call.flag))
    attrs = {key: _put(x, by) for key, x in call.attrs.items()}
    return Call(call.op, call.kind, _put(call.inputs, by), attrs, call.results, call.writes, call.line, call.part)


def _put(what: Any, by: dict[Value, Value]) -> Any:
    if type(what) is Value:
        return by.get(what, what)
    if type(what) in (list, tuple):
        return type(what)(_put(part, by) for part in what)
    return what


def rewritten(program: Program, steps: list[Call | Action], name: str, notes: list[str]) -> Program:
    """A program of other steps, between the same arguments and outputs."""
    made = Program(steps, program.arguments, program.outputs)
    made.notes = [*program.notes, *((name, note) for note in notes)]
    return made
