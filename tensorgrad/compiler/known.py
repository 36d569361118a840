"""``Known``: what a run's arrays are called, by identity, and which of them lies in the memory of another."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dispatch import Listener
from .program import Action, Call, Value, values_in

__all__ = ["Known", "arrays_in", "is_array"]


class _Watch(weakref.ref[Any]):
    """A look at an array that knows what the array is called: one object for each, where a function of its own for what
    is done at the array's end is five more, in a cycle with whoever knows the array."""

    __slots__ = ("key", "value")

    key: int
    value: Value


class Known(Listener):
    """A listener that knows arrays by identity.

    An array's entry dies with the array, so that a run needs no more memory than without a listener, and an identity
    that is used twice is two values.

    Args:
        arguments: arrays that later replays are given anew.
    """

    def __init__(self, arguments: list[Any]):
        self.steps: list[Call | Action] = []
        self.values: dict[int, Value] = {}
        self.watches: dict[int, _Watch] = {}
        self._at_its_end = _forgetting(weakref.ref(self))
        self.arguments = [self._enter(array, Value(f"arg{i}", array)) for i, array in enumerate(arguments)]

    def _enter(self, array: Any, value: Value) -> Value:
        key = id(array)
        self.values[key] = value
        watch = self.watches[key] = _Watch(array, self._at_its_end)
        watch.key, watch.value = key, value
        return value

    def _forget(self, watch: _Watch) -> None:
        if self.values.get(watch.key) is watch.value:
            del self.values[watch.key], self.watches[watch.key]

    def made_here(self, array: Any) -> Value | None:
        """The value of an argument or of what a call has made; None for what was there before."""
        found = self.values.get(id(array))
        return None if found is None or found.root.array is not None else found

    def argument(self, array: Any) -> Value:
        """One more argument."""
        value = self._enter(array, Value(f"seed{len(self.arguments)}", array))
        self.arguments.append(value)
        return value

    def array_of(self, value: Value) -> Any:
        """The array of a value; None if it isn't alive any more."""
        return next((self.watches[key]() for key, v in self.values.items() if v is value and key in self.watches), None)

    def ways(self) -> Callable[[Any], list[tuple[Any, tuple[Any, ...]]]]:
        """A function of an array that this run has made: the arrays that view ops have led to it from, those that are
        alive, with the ops between, from itself on to the one that owns the memory."""
        made = {v: step for step in self.steps if isinstance(step, Call) and step.op.view for v in step.results}

        def way_to(array: Any) -> list[tuple[Any, tuple[Any, ...]]]:
            chain: tuple[Any, ...] = ()
            found = [(array, chain)]
            value = self.values.get(id(array))
            while value is not None and (call := made.get(value)) is not None:
                source = call.inputs[0]
                if len(call.inputs) > 1 or source.root is not value.root or any(values_in([*call.attrs.values()])):
                    break
                value, chain = source, ((call.op, call.attrs), *chain)
                whole = self.array_of(source) if source.array is None else source.array
                if whole is not None:
                    found.append((whole, chain))
            return found

        return way_to

    def _root(self, array: Any) -> Value | None:
        """The known value that an array is a view of."""
        base = getattr(array, "base", None)
        while base is not None:  # NumPy's as_strided puts objects of its own between two arrays
            found = self.values.get(id(base))
            if found is not None:
                return found.root
            base = getattr(base, "base", None)
        return None


def _forgetting(known: weakref.ref[Known]) -> Callable[[_Watch], None]:
    """What is done at an array's end. It doesn't keep who knows the array alive."""

    def forget(watch: _Watch) -> None:
        mine = known()
        if mine is not None:
            mine._forget(watch)

    return forget


def is_array(what: Any) -> bool:
    return type(what) is np.ndarray or (hasattr(what, "dtype") and hasattr(what, "shape") and hasattr(what, "strides"))


def arrays_in(what: Any) -> Any:
    if type(what) in (list, tuple):
        for part in what:
            yield from arrays_in(part)
    elif is_array(what):
        yield what
