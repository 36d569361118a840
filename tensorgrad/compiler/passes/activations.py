"""The activation behind a call: what passes look for that give it to the call's own kernel."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..program import Call, Program, Value

__all__ = ["Activation", "activation_behind"]


class Activation(NamedTuple):
    at: int  # its step
    name: str
    made: Value  # what it gives
    alone: bool  # whether nobody else reads what it is taken of


def activation_behind(
    program: Program, y: Value, names: Collection[str], readers: dict[Value, set[int]]
) -> Activation | None:
    """The activation of ``y``, a result in memory of its own, if it is one of these and nobody reads, or writes to,
    ``y`` before it does. It gives an array of the same dtype and layout."""
    later = sorted(i for i in readers.get(y, ()) if i != -1)
    step = program.steps[later[0]] if later else None
    if not isinstance(step, Call) or step.op.name not in names or step.inputs != (y,):
        return None
    if step.attrs.keys() == {"out"} and step.attrs["out"] is y and step.writes == (y,):
        return Activation(later[0], step.op.name, y, True)  # in place: who reads y later means what the activation gave
    made = step.results[0]
    if step.attrs or step.writes or made is None:
        return None
    if made.root is not made or made.dtype != y.dtype or made.strides != y.strides:
        return None
    return Activation(later[0], step.op.name, made, readers[y] == {later[0]})
