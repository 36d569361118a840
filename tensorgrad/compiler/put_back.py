"""``PutBack``: what a run changes that is made for its program alone is put back at its end."""

from __future__ import annotations

from typing import Any
from weakref import ref

from ..dispatch import Listener
from ..random import Generator, default_generator
from .known import arrays_in
from .signature import owner
from .trace import _written

__all__ = ["PutBack"]


class PutBack(Listener):
    """A listener that keeps copies of what was there before and is written to, and states of generators that are drawn
    from: a backward pass that runs a checkpointed function again moves the statistics of its norms."""

    def __init__(self) -> None:
        # memory of the run's own, by identity: a pass adds to an array that nobody else holds in place
        self.own: dict[int, ref[Any]] = {}
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.states: dict[int, tuple[Generator, Any]] = {}
        self._note(default_generator)  # a checkpointed function's draws begin with a state that is set before

    def _note(self, generator: Generator) -> None:
        self.states[id(generator)] = generator, generator._state.copy()

    def before(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        for value in attrs.values():
            if isinstance(value, Generator) and id(value) not in self.states:
                self._note(value)
        for array in _written(op.name, inputs, attrs, arrays_in):
            whole = owner(array)
            if not self._is_own(whole) and id(whole) not in self.copies:
                self.copies[id(whole)] = whole, whole.copy()

    def _is_own(self, array: Any) -> bool:
        known = self.own.get(id(array))
        return known is not None and known() is array

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        given = {id(owner(array)) for array in arrays_in([*inputs, *attrs.values()])}
        for array in arrays_in(outputs):
            whole = owner(array)
            if id(whole) not in given:
                self.own[id(whole)] = ref(whole)

    def put_back(self) -> None:
        for array, copy in self.copies.values():
            array[...] = copy
        for generator, state in self.states.values():
            generator._state[:] = state
