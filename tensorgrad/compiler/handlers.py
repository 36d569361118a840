"""Whether the user's code would handle an error that a call raises: a replay runs no Python, so it raises past a
``try`` that stands around the call."""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import sys
from types import CodeType, FrameType
from typing import Any

from ..autograd.node import inside
from .program import Call, Value

__all__ = ["is_handled", "raises_of_data", "unsettled"]

_OF_DATA = frozenset((
    "bincount", "cross_entropy", "embedding", "floor_divide", "gather", "grouped_rows", "histc", "index", "index_add",
    "index_add_into", "index_put", "index_put_into", "index_select", "nll_loss", "one_hot", "padded_embedding",
    "remainder", "require_between", "scatter", "scatter_add", "scatter_add_into", "scatter_into", "scatter_reduce",
    "scatter_reduce_into", "summed_rows", "trunc_divide",
))  # fmt: skip
"""Ops that raise for what their operands hold: an index beyond a table, an integer divided by zero, a matrix without
an inverse. What others raise follows from shapes and dtypes, which a program rests on."""

_SWALLOW = (contextlib.suppress, contextlib.ExitStack)


def raises_of_data(op: Any) -> bool:
    return op.name in _OF_DATA


def is_handled(above: CodeType | None) -> bool:
    """Whether one of the user's frames stands in a ``try`` with a handler, or in a ``with`` that takes errors, up to
    the frame of this code."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not above:
        code = frame.f_code
        if code.co_exceptiontable and not inside[code.co_filename] and _takes(frame):
            return True
        frame = frame.f_back
    return False


def _takes(frame: FrameType) -> bool:
    for kind, manager in _around(frame.f_code, frame.f_lasti):
        if kind == "except" or (kind == "with" and _swallows(manager, frame)):
            return True
    return False


@functools.lru_cache(maxsize=1024)
def _around(code: CodeType, at: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The blocks that an instruction stands in, from within: "except", "finally", or "with" and the names that its
    manager is made of."""
    instructions = list(dis.get_instructions(code))
    places = {each.offset: i for i, each in enumerate(instructions)}
    found = []
    while (target := _target(code, at)) is not None:
        first = places[target]
        names = [each.opname for each in instructions[first : first + 2]]
        if names[-1] == "WITH_EXCEPT_START":
            begins = min(each.start for each in _entries(code) if each.target == target)
            made = instructions[places[begins] - 2]  # ahead of BEFORE_WITH
            found.append(("with", _manager(instructions, made.positions)))
        elif names[0] == "PUSH_EXC_INFO":
            ends = next((x.opname for x in instructions[first:] if x.opname in _ENDS), "")
            found.append(("finally" if ends == "RERAISE" else "except", ()))
        at = target
    return tuple(found)


_ENDS = frozenset(("CHECK_EXC_MATCH", "CHECK_EG_MATCH", "POP_EXCEPT", "RERAISE"))


def _target(code: CodeType, at: int) -> int | None:
    """Where an error goes on that an instruction raises."""
    return next((each.target for each in _entries(code) if each.start <= at < each.end), None)


def _entries(code: CodeType) -> Any:
    return dis._parse_exception_table(code)  # type: ignore[attr-defined]


def _manager(instructions: list[dis.Instruction], where: Any) -> tuple[str, ...]:
    """The names that are read at a place of the source: those of the context manager, ``a.b`` or ``a.b(...)``."""
    names: list[str] = []
    for each in instructions:
        at = each.positions
        if where is None or at is None or None in (*at, *where):
            continue
        begins, ends = (at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)
        if begins < (where.lineno, where.col_offset) or ends > (where.end_lineno, where.end_col_offset):
            continue
        if each.opname.startswith("LOAD_") and isinstance(each.argval, str):
            if names and each.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break  # what it is called with
            names.append(each.argval)
        elif names and each.opname not in ("PUSH_NULL", "CACHE"):
            break
    return tuple(names)


def _swallows(names: tuple[str, ...], frame: FrameType) -> bool:
    """Whether a context manager takes errors, as far as it is found by its name."""
    if not names:
        return False
    space = next((s for s in (frame.f_locals, frame.f_globals, frame.f_builtins) if names[0] in s), None)
    what = None if space is None else space[names[0]]
    for name in names[1:]:
        what = getattr(what, name, None)
    wrapped = getattr(what, "__wrapped__", None)
    if wrapped is not None:  # of ``contextlib.contextmanager``: a function that gives once
        code = getattr(wrapped, "__code__", None)
        return code is not None and any(each.opname in ("CHECK_EXC_MATCH", "CHECK_EG_MATCH") for each in
                                        dis.get_instructions(code))  # fmt: skip
    kind = what if isinstance(what, type) else type(what)
    if issubclass(kind, _SWALLOW):
        return True
    code = getattr(getattr(kind, "__exit__", None), "__code__", None)
    if code is None or inside[code.co_filename]:
        return False
    given = list(dis.get_instructions(code))
    returned = [before for before, each in itertools.pairwise(given) if each.opname == "RETURN_VALUE"]
    return any(each.opname != "LOAD_CONST" or each.argval for each in returned)


def unsettled(steps: list[Any], arguments: list[Value]) -> bool:
    """Whether steps leave something that a run after them would find otherwise: what was there before is changed, a
    random number drawn, a step counted."""
    given = set(arguments)
    for step in steps:
        if not isinstance(step, Call):
            if step.counts:
                return True
        elif step.draws or any(v.root.array is not None or v.root in given for v in step.writes):
            return True
    return False
