"""Whether calls give what a program says they do: shapes by their ops' own rules, strides of views by making them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..backends import registry
from ..dispatch import Raw
from ..ops.record import Spec
from .program import Action, Call, Program, Unless, Value

__all__ = ["gives_its_shapes"]


def gives_its_shapes(program: Program) -> bool:
    """Whether each call's op gives results of the shapes, dtypes and strides that the program's values have, of inputs
    as they are. Nothing is computed."""
    return all(map(_gives, _calls(program.steps)))


def _calls(steps: list[Call | Action]) -> list[Call]:
    found: list[Call] = []
    for step in steps:
        if isinstance(step, Unless):
            found += _calls(step.steps)
        elif isinstance(step, Call):
            found.append(step)
    return found


def _gives(call: Call) -> bool:
    attrs = {name: _spec(x) for name, x in call.attrs.items() if name != "out"}
    try:
        specs = _many(call.op.infer(*map(_spec, call.inputs), **attrs))
    except (ValueError, TypeError, IndexError, RuntimeError):  # which all of this package's errors are
        return False
    out = call.attrs.get("out")  # where the results are written, converted to what is there
    for v, spec in zip(_many(out or call.results), specs, strict=False):
        if v is not None and spec is not None and tuple(spec.shape) != v.shape:
            return False
        if v is not None and spec is not None and out is None and spec.dtype != v.dtype:
            return False
    return all(_lies_there(call, v) for v in call.results if v is not None and v.root is not v)


def _given(what: Any, made: dict[Value, Any]) -> Any:
    """Operands with an array in the place of each value."""
    if type(what) in (list, tuple):
        return type(what)(_given(x, made) for x in what)
    if not isinstance(what, Value):
        return what
    if what not in made:
        made[what] = _untouched(what)
    return made[what]


def _many(what: Any) -> Any:
    return what if type(what) in (tuple, list) else (what,)


def _lies_there(call: Call, v: Value) -> bool:
    """Whether a view lies in memory as its value says."""
    source = next((x for x in call.reads() if x.root is v.root), None)
    if source is None:
        return False
    made_of: dict[Value, Any] = {}
    inputs = _given(call.inputs, made_of)
    attrs = {name: _given(x, made_of) for name, x in call.attrs.items()}
    try:
        made = getattr(_views(), call.op.name)(*inputs, **attrs)
    except (ValueError, TypeError, IndexError, RuntimeError):  # a number beyond the axis, which says so when it is read
        return False
    array = made[call.results.index(v)] if type(made) is tuple else made
    pairs = zip(v.shape, array.strides, v.strides, strict=True)
    return array.shape == v.shape and all(n < 2 or a == b for n, a, b in pairs)


@cache
def _views() -> Raw:
    """Kernels that make views, found when the first is checked."""
    return Raw(registry.get("numpy"))


def _untouched(v: Value) -> Any:
    """An array of a value's form in memory that nobody has written to, or reads."""
    if not v.nbytes:
        return np.empty(v.shape, v.dtype)
    spans = [(n - 1) * s for n, s in zip(v.shape, v.strides, strict=True)]
    below = -sum(s for s in spans if s < 0)
    memory = np.empty(below + sum(s for s in spans if s > 0) + v.dtype.itemsize, np.uint8)
    return np.ndarray(v.shape, v.dtype, memory.data, below, v.strides)


def _spec(what: Any) -> Any:
    if isinstance(what, Value):
        return what.array if what.array is not None else Spec(what.shape, what.dtype)
    if type(what) in (list, tuple):
        return type(what)(map(_spec, what))
    return what
