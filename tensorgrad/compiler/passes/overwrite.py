"""What copies an array to change some places of the copy changes the array itself, if nobody reads that any more.

``gather``'s gradient adds to zeros made for it, and so do those of ``max``, ``sort`` and indexing: each wrote the
zeros, copied them and wrote again.
"""

from __future__ import annotations

from ...dispatch import OPS
from ..program import Action, Call, Program, Value
from .memory import Memory, replaced, rewritten

__all__ = ["run"]

_COPYING = ("scatter", "scatter_add", "scatter_reduce", "index_add", "index_put")  # there is an op <name>_into of each


def run(program: Program) -> Program:
    """The program with scatters onto arrays of its own in place of onto copies of them."""
    if not any(call.op.name in _COPYING for call in program.calls):
        return program
    memory = Memory.of(program)
    readers = program.readers
    own = {v for call in program.calls for v in call.results if v is not None and v.root is v and not call.op.view}
    instead: dict[Value, Value] = {}
    steps: list[Call | Action] = []
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if not isinstance(step, Call):
            steps.append(step)
            continue
        call = replaced(step, instead)
        if step.op.name in _COPYING:
            base, made = step.inputs[0], step.results[0]
            fits = isinstance(base, Value) and base in own and readers.get(base) == {at} and not memory.written(base)
            if fits and made is not None and -1 not in readers.get(made, ()) and _alike(base, made):
                target = call.inputs[0]
                reads = sum(v.root is target.root for v in call.reads())
                if not memory.written(made) and reads == 1:
                    instead[made] = target
                    op = OPS[f"{step.op.name}_into"]
                    steps.append(Call(op, call.kind, call.inputs, call.attrs, (None,), (target,), call.line, call.part))
                    notes.append(f"{step.op.name} writes where its operand lies: {made.nbytes} bytes are not copied")
                    continue
        steps.append(call)
    return rewritten(program, steps, "overwrite", notes) if notes else program


def _alike(base: Value, made: Value) -> bool:
    return made.root is made and made.shape == base.shape and made.dtype == base.dtype and made.strides == base.strides
