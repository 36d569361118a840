"""``Tentative``: what a run computes beside, which is part of the program only if somebody wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..dispatch import in_private
from .program import Action, Call, Value

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Refused", "Tentative"]

_Condition = tuple[Value, bytes, int]


class Refused:
    """What a mask picks where nobody may ask how many elements there are: an ordinary run computes it in private."""

    exact = False  # what is put back has no other use
    sums = False

    def __init__(self, refuse: Callable[[], None]):
        self.refuse = refuse

    def beside(self, action: Callable[[], Any]) -> Any:
        return in_private(action)

    def wanted(self, plain: Any) -> None:
        self.refuse()


class Tentative:
    """Groups of steps in the order in which they were written, and the memory that somebody asks for.

    What a mask picks may only be changed and put back, which a program says for any number of elements
    (``ops.selected``). The steps that find the elements are written all the same, since where they are wanted after all
    it is too late to write them. They rest on how many there are, which a condition says: without them it goes.
    """

    def __init__(self, trace: Trace):
        self.trace = trace
        self.exact, self.sums = False, True
        self.groups: list[list[Call | Action]] = []
        self.asked: set[Any] = set()

    def beside(self, action: Callable[[], Any]) -> Any:
        steps = self.trace.steps
        first = len(steps)
        found = action()
        self.groups.append(steps[first:])
        return found

    def wanted(self, plain: Any) -> None:
        self.asked.add(self.trace.value_of(plain._data).memory)

    def settle(
        self, steps: list[Call | Action], conditions: list[_Condition]
    ) -> tuple[list[Call | Action], list[_Condition]]:
        """The steps and the conditions without those that nobody wants."""
        beside = {id(step) for group in self.groups for step in group}
        needed = set(self.asked)
        for step in steps:
            if id(step) not in beside and isinstance(step, Call):
                needed.update(v.memory for v in step.reads())
        dropped: dict[int, Call] = {}
        for group in reversed(self.groups):
            calls = [step for step in group if isinstance(step, Call)]
            if needed.isdisjoint(v.memory for call in calls for v in (*call.results, *call.writes) if v is not None):
                dropped.update((id(call), call) for call in calls)
            else:
                needed.update(v.memory for call in calls for v in call.reads())
        gone = {v for call in dropped.values() for v in call.results}
        places = [0]  # by how many steps stand before: how many of these stay
        for step in steps:
            places.append(places[-1] + (id(step) not in dropped))
        kept = [(v, seen, places[at]) for v, seen, at in conditions if v not in gone]
        return [step for step in steps if id(step) not in dropped], kept
