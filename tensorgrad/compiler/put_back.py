"""``PutBack``: what a run changes that is made for its program alone is put back at its end."""

from __future__ import annotations

from typing import Any

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
        self.own: dict[int, Any] = {}  # memory of the run's own, by identity
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
            if id(whole) not in self.own and id(whole) not in self.copies:
                self.copies[id(whole)] = whole, whole.copy()

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        given = {id(owner(array)) for array in arrays_in([*inputs, *attrs.values()])}
        for array in arrays_in(outputs):
            whole = owner(array)
            if id(whole) not in given:
                self.own[id(whole)] = whole

    def put_back(self) -> None:
        for array, copy in self.copies.values():
            array[...] = copy
        for generator, state in self.states.values():
            generator._state[:] = state
