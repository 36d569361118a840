"""Of calls that compute the same from the same, one is kept.

Two outputs are two arrays: the second is a copy, if that is much less than what it is computed from.
A reduction that keeps its axes and one that does not are the same but for the shape: the second is a view of the first.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ...ops.shape_core import contiguous_copy, reshape
from ..program import Action, Call, Program, Value
from .memory import Memory, replaced, rewritten

__all__ = ["key_of", "run"]

_REDUCTIONS = frozenset(("sum", "mean", "amax", "amin", "prod", "var", "std"))


def run(program: Program) -> Program:
    """The program with each result computed once.

    Two calls are the same if op, inputs and attributes are, and nobody changed what they read in between. Results that
    somebody writes to, or that are outputs, keep memory of their own.
    """
    memory = Memory.of(program)
    outputs = {v.root for v in program.outputs} | set(program.outputs)
    known: dict[Any, tuple[int, Call]] = {}
    instead: dict[Value, Value] = {}
    steps: list[Call | Action] = []
    notes: list[str] = []
    for at, step in enumerate(program.steps):
        if isinstance(step, Action):
            steps.append(step)
            continue
        call = replaced(step, instead)
        steps.append(call)
        if call.writes or call.draws or not any(v is not None for v in call.results):
            continue
        reduces = call.op.name in _REDUCTIONS and len(call.results) == 1
        attrs = tuple((k, key_of(x)) for k, x in call.attrs.items() if not (reduces and k == "keepdim"))
        key = (call.op.name, call.kind, key_of(call.inputs), attrs)
        first, same = known.setdefault(key, (at, call))
        if same is call:
            continue
        if not all(memory.steady(v, first, at) for v in call.reads()):
            known[key] = at, call
            continue
        pairs = {v: w for v, w in zip(call.results, same.results, strict=True) if v is not None and w is not None}
        if len(pairs) < sum(v is not None for v in call.results):
            continue
        shown = _reshaped(call, same) if reduces and call.attrs["keepdim"] != same.attrs["keepdim"] else None
        if not all(_alike(v, w) or shown for v, w in pairs.items()):
            continue
        if any(memory.written(v) or memory.written(w) for v, w in pairs.items() if v.root is v):
            continue
        if any(v in outputs for v in pairs):
            if len(pairs) == 1 and shown is None and _is_small(call):
                steps[-1] = Call(
                    contiguous_copy, call.kind, (*pairs.values(),), {}, (*pairs,), (), call.line, call.part
                )
                notes.append(f"{call.op.name} is copied instead of computed again")
            continue
        steps.pop()
        if shown is not None:
            steps.append(shown)
            pairs = {v: w for v, w in zip(pairs, shown.results, strict=True) if w is not None}
        instead.update(pairs)
        notes.append(f"{call.op.name} is computed once instead of again")
    if not notes:
        return program
    return rewritten(program, steps, "duplicates", notes)


def _is_small(call: Call) -> bool:
    """Whether the result is so much smaller than what it is made of that a copy of it costs next to nothing."""
    (made,) = [v for v in call.results if v is not None]
    return (
        made.root is made and made.contiguous and made.nbytes * 8 <= sum(v.nbytes for v in dict.fromkeys(call.reads()))
    )


def _reshaped(call: Call, same: Call) -> Call | None:
    """The call's result as a view of that of the same reduction, of which the axes are kept or not."""
    (made,), (source,) = call.results, same.results
    assert made is not None and source is not None
    if not made.contiguous or not source.contiguous:
        return None
    strides = [int(made.dtype.itemsize)]
    for size in made.shape[:0:-1]:
        strides.append(strides[-1] * size)
    array = SimpleNamespace(shape=made.shape, dtype=made.dtype, strides=strides[::-1][len(strides) - len(made.shape) :])
    seen = Value(made.name, array, source.root)
    return Call(reshape, call.kind, (source,), {"shape": made.shape}, (seen,), (), call.line, call.part)


def _alike(v: Value, w: Value) -> bool:
    return v.shape == w.shape and v.dtype == w.dtype and v.strides == w.strides and (v.root is v) == (w.root is w)


def key_of(what: Any) -> Any:
    """Equal for inputs and attributes that mean the same; numbers by their text, so that -0.0 is not 0.0."""
    if type(what) in (list, tuple):
        return type(what), tuple(map(key_of, what))
    if type(what) is slice:
        return slice, key_of(what.start), key_of(what.stop), key_of(what.step)
    if what is None or type(what) in (bool, int, float, complex, str):
        return type(what), repr(what)
    return id(what)
