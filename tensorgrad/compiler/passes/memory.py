"""Which memory a value lies in, and who changes it when: what every pass asks before it drops or moves a call."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from ...random import Generator
from ..program import Action, Call, Program, Unless, Value
from ..signature import owner

__all__ = ["Memory", "draws", "owner_of", "readers_of", "replaced", "rewritten"]


class Memory:
    """The memory of a program's values.

    Values that were there before the run may overlap without knowing of each other: two views of one array are two
    values with roots of their own. They are told apart by the array that owns the elements.
    """

    def __init__(self, program: Program):
        self.program = program
        self._owners: dict[Value, Any] = {}
        self.writes: dict[Any, list[int]] = {}
        self.actions: list[int] = []
        for at, step in enumerate(program.steps):
            if isinstance(step, Action):
                self.actions.append(at)
                continue
            if isinstance(step, Unless) and step.acts:
                self.actions.append(at)
            for value in step.writes:
                places = self.writes.setdefault(self.owner(value), [])
                if not places or places[-1] != at:
                    places.append(at)

    def owner(self, value: Value) -> Any:
        """What stands for the memory that the value lies in: equal for values that may share elements."""
        found = self._owners.get(value)
        if found is None:
            found = self._owners[value] = owner_of(value)
        return found

    def is_state(self, value: Value) -> bool:
        """Whether it was there before: its elements may be others in the next replay."""
        return type(self.owner(value)) is int and not value.root.constant

    def written(self, value: Value) -> bool:
        """Whether some call of the program writes to its memory."""
        return self.owner(value) in self.writes

    def steady(self, value: Value, first: int, last: int) -> bool:
        """Whether nobody changes it after step ``first`` and before step ``last``. Actions may change what was there
        before the run, and nothing else."""
        places = self.writes.get(self.owner(value))
        if places and _between(places, first, last):
            return False
        return not (self.actions and self.is_state(value) and _between(self.actions, first, last))


def _between(places: list[int], first: int, last: int) -> bool:
    at = bisect_right(places, first)
    return at < len(places) and places[at] < last


def owner_of(value: Value) -> Any:
    """What stands for the memory that a value lies in: a number for what was there before."""
    array = value.array if value.array is not None else value.root.array
    return value.root if array is None else id(owner(array))


def draws(call: Call) -> bool:
    """Whether the call takes numbers from a generator, which changes it."""
    if isinstance(call, Unless):
        return any(isinstance(step, Call) and draws(step) for step in call.steps)
    return any(_has_generator(x) for x in (*call.inputs, *call.attrs.values()))


def _has_generator(what: Any) -> bool:
    return isinstance(what, Generator) or (type(what) in (list, tuple) and any(map(_has_generator, what)))


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


def readers_of(program: Program) -> dict[Value, set[int]]:
    """By value: the steps that read it or a view of it; -1 for the program's end."""
    found: dict[Value, set[int]] = {}
    for at, step in enumerate(program.steps):
        if isinstance(step, Call):
            for v in step.reads():
                found.setdefault(v, set()).add(at)
                if v.root is not v:
                    found.setdefault(v.root, set()).add(at)
    for v in program.outputs:
        found.setdefault(v, set()).add(-1)
        found.setdefault(v.root, set()).add(-1)
    return found
