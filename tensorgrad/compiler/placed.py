"""Results that a program only copies to their places in a larger array, and whose kernel can write them there at once.

Gradients of q, k and v cut from one product are such: they lie side by side in the gradient of the product.
"""

from __future__ import annotations

from typing import Any

from .program import Call, Program, Value

__all__ = ["Placement", "placements"]


class Placement:
    """Where a call's results go. ``targets``: by result, the part of ``whole`` that it is copied to. ``views``: the
    steps that make these parts. ``copies``: the steps that copy, with nothing to do then."""

    def __init__(self, whole: Value, targets: list[Value | None], views: list[int], copies: set[int]):
        self.whole = whole
        self.targets = targets
        self.views = views
        self.copies = copies


def placements(program: Program, able: frozenset[str], split: int) -> dict[int, Placement]:
    """By step: where the results of a call go whose op is among the ``able``. A program's two stages are apart."""
    readers: dict[Value, set[int]] | None = None
    made: dict[Value, int] = {}
    found: dict[int, Placement] = {}
    for at, step in enumerate(program.steps):
        if isinstance(step, Call) and step.op.name in able:
            if readers is None:
                readers = program.readers
                made = {v: i for i, s in enumerate(program.steps) for v in getattr(s, "results", ()) if v is not None}
            placement = _placement(program, at, step, readers, made)
            if placement is not None and not any(at < split <= i for i in placement.copies):
                found[at] = placement
    program.forget()  # the passes are over: a program that is kept shall not keep who reads what
    return found


def _placement(
    program: Program, at: int, call: Call, readers: dict[Value, set[int]], made: dict[Value, int]
) -> Placement | None:
    targets: list[Value | None] = []
    copies: dict[int, Value] = {}
    for result in call.results:
        target = None
        if result is not None:
            using = [i for i in readers.get(result, ()) if i < 0 or _name(program, i) != "empty_as"]
            if len(using) != 1 or using[0] < 0 or result.root is not result:
                return None
            target = _copied_to(program.steps[using[0]], result)
            if target is None:
                return None
            copies[using[0]] = target
        targets.append(target)
    wholes = {target.root for target in copies.values()}
    if len(wholes) != 1 or len(copies) != len(set(copies.values())):
        return None
    (whole,) = wholes
    first, last = made.get(whole, -1), max(copies)
    if first <= at or _name(program, first) != "empty_as":
        return None
    views = []
    for i in range(first + 1, last + 1):  # nobody else may touch the array before all parts are there
        step = program.steps[i]
        if i in copies or not isinstance(step, Call) or not any(v.root is whole for v in (*step.reads(), *step.writes)):
            continue
        if not step.op.view:
            return None
        views.append(i)
    return Placement(whole, targets, views, set(copies))


def _name(program: Program, at: int) -> str:
    step = program.steps[at]
    return step.op.name if isinstance(step, Call) else ""


def _copied_to(step: Any, value: Value) -> Value | None:
    """What a call copies the value to, if it does nothing else."""
    if not isinstance(step, Call) or step.op.name != "copy_into":
        return None
    target, source = step.inputs
    if source is not value or target.dtype != value.dtype or target.shape != value.shape:
        return None
    placed: Value = target
    return placed
