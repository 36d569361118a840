"""The updates of an optimizer's groups, or of several optimizers, are one call: one launch over all their parameters.

Groups differ in rates, weight decay or counts of steps; each keeps its own array of such numbers, and the call has one
for every group. What is not a number (nesterov, amsgrad, which states there are) has to be the same.
"""

from __future__ import annotations

from typing import Any

from ...dispatch import OPS
from ...ops.elementwise import Elementwise
from ..program import Action, Call, Program
from .memory import Memory, rewritten

__all__ = ["run"]

_GROUPED = {"sgd_": "grouped_sgd_", "adam_": "grouped_adam_"}
_LARGE = 1 << 17  # elements: one parameter of so many is a launch worth having, which may go along with its gradient's


def run(program: Program) -> Program:
    """The program with updates that follow each other done by one call."""
    memory = Memory.of(program)
    steps: list[Call | Action | None] = list(program.steps)
    notes: list[str] = []
    members: list[tuple[int, Call]] = []
    touched: set[Any] = set()  # memory of the members that is written

    def close() -> None:
        if len(members) > 1:
            for at, _ in members:
                steps[at] = None
            steps[members[-1][0]] = _joined([call for _, call in members])
            notes.append(f"{members[0][1].op.name} of {len(members)} groups are one call")
        members.clear()
        touched.clear()

    for at, step in enumerate(program.steps):
        if isinstance(step, Action):
            continue  # an optimizer counts the step of the group that follows, and writes down its numbers
        if _joins(step):
            reads = {v.memory for v in step.reads()}
            if members and (not _alike(members[-1][1], step) or reads & touched):
                close()
            members.append((at, step))
            touched.update(v.memory for v in step.writes)
            touched.add(step.attrs["hyper"].memory)  # a second step of the same group comes after the first
        elif members and not _passes(step, memory, touched):
            close()
    close()
    if not notes:
        return program
    return rewritten(program, [step for step in steps if step is not None], "groups", notes)


def _joins(call: Call) -> bool:
    params: list[Any] = call.inputs[0] if call.op.name in _GROUPED else []
    return len(params) > 1 or (len(params) == 1 and params[0].nbytes // int(params[0].dtype.itemsize) < _LARGE)


def _alike(one: Call, two: Call) -> bool:
    """Whether the calls differ in their arrays and numbers alone."""
    if one.op is not two.op or one.kind is not two.kind or len(one.inputs) != len(two.inputs):
        return False
    if any(bool(a) != bool(b) for a, b in zip(one.inputs, two.inputs, strict=True)):
        return False
    if one.inputs[0][0].dtype != two.inputs[0][0].dtype:
        return False
    return _settings(one) == _settings(two)


def _settings(call: Call) -> dict[str, Any]:
    return {name: value for name, value in call.attrs.items() if name not in ("hyper", "scale")}


def _passes(call: Call, memory: Memory, touched: set[Any]) -> bool:
    """Whether updates may wait behind the call: it computes something (a gradient, say) of what they don't change."""
    if not isinstance(call.op, Elementwise) or call.writes:
        return False
    return not any(v.memory in touched for v in call.reads())


def _joined(calls: list[Call]) -> Call:
    first, last = calls[0], calls[-1]
    inputs = tuple([x for call in calls for x in call.inputs[i]] for i in range(len(first.inputs)))
    attrs = {
        "counts": tuple(len(call.inputs[0]) for call in calls), "hypers": [call.attrs["hyper"] for call in calls],
        "scales": [call.attrs.get("scale") for call in calls], **_settings(first),
    }  # fmt: skip
    writes = tuple(dict.fromkeys(v for call in calls for v in call.writes))
    op = OPS[_GROUPED[first.op.name]]
    return Call(op, first.kind, inputs, attrs, (None,) * len(first.results), writes, last.line, last.part)
