"""What a program computes of numbers that it makes itself is computed once, before all replays, and once for all calls
that are the same."""

from __future__ import annotations

from typing import Any

from ...dispatch import local
from ..program import Action, Call, Program, Value, values_in
from .duplicates import key_of
from .memory import Memory, replaced, rewritten

__all__ = ["run"]

_MAKERS = frozenset(("full_as", "zeros_as", "full", "ramp"))
_AS = frozenset(("full_as", "zeros_as"))  # they read shape and dtype of their input, not its elements
_LARGEST = 1 << 14  # bytes; what is larger takes longer to read than to make


def run(program: Program) -> Program:
    """The program with small constants in place of the calls that make them.

    State is no constant: the user may change it between replays. Nor is what somebody writes to, or an output, whose
    memory is the caller's.
    """
    memory = Memory.of(program)
    places = _places(program)
    outputs = {v.root for v in program.outputs}
    found: dict[Value, Value] = {}
    known: dict[Any, tuple[Value | None, ...]] = {}
    steps: list[Call | Action] = []
    notes: list[str] = []
    for step in program.steps:
        if isinstance(step, Action):
            steps.append(step)
            continue
        call = replaced(step, found)
        made = _computed(call, memory, outputs, places)
        if made is None:
            steps.append(call)
            continue
        key = _same(call)
        if key not in known:
            known[key] = tuple([None if v is None else _constant(v, made[v]) for v in call.results])
        found.update((v, w) for v, w in zip(call.results, known[key], strict=True) if v is not None and w is not None)
        notes.append(f"{call.op.name} of constants is computed once")
    if not notes:
        return program
    return rewritten(program, steps, "constants", notes)


def _same(call: Call) -> Any:
    """Equal for calls whose results are the same numbers."""
    inputs = call.inputs
    if call.op.name in _AS:
        like, *rest = inputs
        assert type(like) is Value
        inputs = (str(like.dtype), like.shape if "shape" not in call.attrs else (), *rest)
    named = tuple([v is not None for v in call.results])
    return call.op.name, call.kind, named, key_of(inputs), key_of(tuple(call.attrs.items()))


def _constant(value: Value, array: Any) -> Value:
    made = Value(value.name, array, fixed=True)
    made.constant = True
    return made


def _places(program: Program) -> dict[type, int | None]:
    """The number of the device on which a program computes, by the type of its arrays, where its state tells."""
    found: dict[type, int | None] = {}
    for call in program.calls:
        for v in call.reads():
            if v.root.array is not None and call.kind not in found:
                found[call.kind] = local.plain[call.kind].backend.device_index(v.root.array)
    return found


def _computed(
    call: Call, memory: Memory, outputs: set[Value], places: dict[type, int | None]
) -> dict[Value, Any] | None:
    if call.writes or call.draws or not call.results:
        return None
    named = [v for v in call.results if v is not None]
    if not named or any(v.root in outputs or memory.written(v) for v in named):
        return None
    if any(v.nbytes > _LARGEST and v.root is v for v in named):
        return None
    if call.op.name in _AS:
        if next(values_in(tuple(call.attrs.values())), None) is not None:
            return None
    elif call.op.name in _MAKERS:
        if next(call.reads(), None) is not None:
            return None
    elif next(call.reads(), None) is None or not all(v.constant for v in call.reads()):
        return None
    door = local.plain[call.kind]
    if call.kind not in places and door.backend.device_count() > 1:
        return None  # it may lie on any of them
    with door.backend.on(places.get(call.kind)):
        kernel = getattr(door, call.op.name)
        inputs = call.inputs
        try:
            if call.op.name in _AS:
                inputs = (_empty(inputs[0], call.kind, "shape" in call.attrs), *inputs[1:])
            results = kernel(*_arrays(inputs), **{key: _arrays(x) for key, x in call.attrs.items()})
        except Exception:  # noqa: BLE001 - what was recorded has been done: the call stays, and a replay tells
            return None
    results = results if isinstance(results, tuple) else (results,)
    made = {v: a for v, a in zip(call.results, results, strict=True) if v is not None}
    for value, array in made.items():
        if tuple(array.shape) != value.shape or array.dtype != value.dtype or tuple(array.strides) != value.strides:
            return None
    return made


def _empty(value: Any, kind: type, shape_is_given: bool) -> Any:
    """An array of the value's dtype, and of its shape where that matters."""
    if type(value) is not Value:
        return value
    return local.plain[kind].full(shape=() if shape_is_given else value.shape, value=0, dtype=value.dtype)


def _arrays(what: Any) -> Any:
    if type(what) is Value:
        return what.array
    if type(what) in (list, tuple):
        return type(what)(map(_arrays, what))
    return what
