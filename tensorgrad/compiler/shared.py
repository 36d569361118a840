"""Which results of a run lie in memory that others show too, and how a replay makes them of it, so that they share it
there as well.

A result without a history is made of what owns the memory: a tensor of the caller's, another result, or an output of
the program that no result shows as a whole. One with a history is the tape's, and is an output by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..tensor import Tensor

if TYPE_CHECKING:
    from .before import Before

__all__ = ["Lies", "Output", "lying"]


class Output(int):
    """The number of an output that the result does not hold itself, only views of it."""


class Lies(NamedTuple):
    """``base``: a tensor of the caller's, the number of an argument, as a number below zero the result at position
    -1 - number, or an array that is one more output. ``chain``: the view ops that lead from there. ``cut``: whether the
    history of what is there is left out, as ``detach()`` does."""

    base: Any
    chain: tuple[Any, ...]
    cut: bool


def lying(
    leaves: list[Any], plain: list[int], before: Before, way_to: Callable[[Any], list[tuple[Any, tuple[Any, ...]]]]
) -> dict[int, Lies]:
    """By position, where results lie. ``leaves``: all results; ``plain``: positions of those without a history that
    the run has made."""
    if not plain:
        return {}
    shown: dict[int, int] = {}  # by array, the position that shows it, rather one with a history
    for at, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf._tracked and id(leaf) not in before.tensors:
            shown.setdefault(id(leaf._data), at)
    live = set(shown.values())
    for at in plain:
        shown.setdefault(id(leaves[at]._data), at)
    callers: dict[int, tuple[Any, bool]] = {id(t._data): (t, t._tracked) for t in before.known}
    given = [(before.tensors[key], number) for key, number in before.arguments.items()]
    callers.update((id(t._data), (number, t._tracked)) for t, number in given)
    ways = {at: way_to(leaves[at]._data) for at in plain}
    alone: dict[int, set[int]] = {}  # by the array that owns the memory, the results that lie in it
    for at, way in ways.items():
        alone.setdefault(id(way[-1][0]), set()).add(id(leaves[at]))
    found: dict[int, Lies] = {}
    for at, way in ways.items():
        whole, chain = way[-1]
        holder = shown.get(id(whole))
        within = next(((a, c) for a, c in reversed(way) if shown.get(id(a)) in live), None)
        theirs = next(((*callers[id(a)], c) for a, c in reversed(way) if id(a) in callers), None)
        if theirs is not None:
            who, recorded, ops = theirs
            found[at] = Lies(who, ops, recorded or not ops)
        elif holder is not None and leaves[holder] is not leaves[at]:
            found[at] = Lies(-1 - holder, chain, holder in live or not chain)
        elif holder is None and within is not None:
            found[at] = Lies(-1 - shown[id(within[0])], within[1], True)
        elif holder is None and len(alone[id(whole)]) > 1:
            found[at] = Lies(whole, chain, False)
    return found
