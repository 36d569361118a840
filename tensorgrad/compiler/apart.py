"""Whether gradients that a program adds to lie in memory of their own.

They are arguments of it, and passes take it that nobody else reads or writes there. Whoever sets ``.grad`` may share:
two parameters one gradient, a gradient with what the function is given. Slices of one buffer are memory of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.convert import address_of
from .signature import owner

__all__ = ["apart"]


def apart(arrays: list[Any], others: Iterable[Any], owners: frozenset[int]) -> bool:
    """Whether no two of the arrays share memory, nor one of them with others; ``owners``: identities of the arrays that
    still others lie in, of which none may be a gradient's."""
    own = [id(owner(array)) for array in arrays]
    if not owners.isdisjoint(own):
        return False
    others = list(others)
    if len(set(own)) == len(own) and not {id(owner(array)) for array in others} & set(own):
        return True
    spans = sorted([*((*_span(x), True) for x in arrays if x.size), *((*_span(x), False) for x in others if x.size)])
    end = end_of_ours = 0
    for start, stop, ours in spans:
        if start < (end if ours else end_of_ours):
            return False
        end = max(end, stop)
        end_of_ours = max(end_of_ours, stop) if ours else end_of_ours
    return True


def _span(array: Any) -> tuple[int, int]:
    """The first and the last address, and one, of an array's elements."""
    steps = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    first = address_of(array)
    return first + sum(min(step, 0) for step in steps), first + sum(max(step, 0) for step in steps) + array.itemsize
