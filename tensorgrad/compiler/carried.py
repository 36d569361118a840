"""Tensors that a function leaves for its next call where it found them: ``self.h = cell(x, self.h)``.

Such a place holds another tensor in each call, or a tuple of others (an LSTM's state), so no program can rest on it. It
is an argument and a result of one instead: ``Carrying`` is the function with its places among both, and what it is
called through puts the results there.
"""

from __future__ import annotations

from types import CellType
from typing import Any

from ..tensor import Tensor
from .facts import Facts, get, gone

__all__ = ["Carrying", "Place", "places_in"]


class Place:
    """A key of a dict (an object's attributes, globals), an index of a list, or a variable of a closure."""

    def __init__(self, path: str, holder: Any, key: Any):
        self.path = path
        self.holder = holder
        self.key = key

    def get(self) -> Any:
        return get(self.holder, self.key)

    def set(self, what: Any) -> None:
        if isinstance(self.holder, CellType):
            self.holder.cell_contents = what
        else:
            self.holder[self.key] = what


def places_in(reach: Facts) -> list[Place]:
    """Where a run has left other tensors than it found, if that is all that it has changed."""
    found = reach.replaced()
    for path, holder, _, before, now in found:
        settable = type(holder) in (dict, list) or isinstance(holder, CellType)
        known = now is not None and _is_left(now) and _is_left(before)
        if not settable or not known or reach.is_of_optimizer(path):
            return []
    return [Place(path, holder, key) for path, holder, key, _, _ in found]


class Carrying:
    """The function, given what its places hold ahead of its arguments; it returns (its result, what they hold then).

    A call leaves the places as they are: it may be one that is made again, for a second derivative. Where the function
    raises, they hold what it has put there.
    """

    def __init__(self, function: Any, places: list[Place]):
        self.__wrapped__ = function
        self.__qualname__ = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.places = places
        self.keys = frozenset((id(place.holder), place.key) for place in places)

    def __call__(self, *given: Any, **kwargs: Any) -> Any:
        places, count = self.places, len(self.places)
        before = [place.get() for place in places]
        for place, what in zip(places, given[:count], strict=True):
            place.set(what)
        try:
            result = self.__wrapped__(*given[count:], **kwargs)
        except BaseException:
            for place, own, what in zip(places, before, given, strict=False):
                if place.get() is what:
                    place.set(own)
            raise
        found = [place.get() for place in places]
        for place, own in zip(places, before, strict=True):
            place.set(own)
        return result, found

    @property
    def replaced(self) -> bool:
        """Whether a place holds something of another kind, such as a parameter, which is no argument."""
        return any(place.get() is not gone for place in self.places if not _is_left(place.get()))

    def run(self, compiled: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function's own result, by a compiled one of this; None if a place is gone, or holds what no run leaves
        there."""
        held = [place.get() for place in self.places]
        if not all(map(_is_left, held)):
            return None
        result, found = compiled(*held, *args, **kwargs)
        for place, before, what in zip(self.places, held, found, strict=True):
            if what is not before:
                place.set(what)
        return (result,)


def _is_left(what: Any) -> bool:
    return what is None or type(what) is Tensor or (type(what) is tuple and all(map(_is_left, what)))
