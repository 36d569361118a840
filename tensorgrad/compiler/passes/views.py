"""Views that show their input as it is are left out, and a view of a reshaped value is a view of the value."""

from __future__ import annotations

from ..program import Action, Call, Program, Value
from .memory import replaced, rewritten

__all__ = ["run"]

_VIEWS = frozenset(("reshape", "permute", "expand", "slice", "as_strided", "diagonal"))


def run(program: Program) -> Program:
    """The program without views that change nothing, and without reshapes between a value and another reshape."""
    outputs = set(program.outputs)
    instead: dict[Value, Value] = {}
    before_reshape: dict[Value, Value] = {}  # a contiguous value's reshape -> that value
    steps: list[Call | Action] = []
    notes: list[str] = []
    for step in program.steps:
        if isinstance(step, Action):
            steps.append(step)
            continue
        call = replaced(step, instead)
        name = call.op.name
        if name in _VIEWS and len(call.results) == 1 and type(call.inputs[0]) is Value and not call.writes:
            seen, source = call.results[0], call.inputs[0]
            if seen is not None and seen.root is source.root:
                if name == "reshape" and source in before_reshape:
                    source = before_reshape[source]
                    call = replaced(call, {call.inputs[0]: source})
                    notes.append("reshape of a reshaped value reads the value itself")
                same = seen.shape == source.shape and seen.strides == source.strides and seen.dtype == source.dtype
                starts = name in ("reshape", "permute", "expand")  # the others may begin elsewhere
                if same and starts and seen not in outputs:
                    instead[seen] = source
                    notes.append(f"{name} to the same shape is left out")
                    continue
                if name == "reshape" and source.contiguous:
                    before_reshape[seen] = source
        steps.append(call)
    if not notes:
        return program
    return rewritten(program, steps, "views", notes)
