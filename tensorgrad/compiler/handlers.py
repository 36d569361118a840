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

__all__ = ["is_handled", "unsettled"]

_SWALLOW = (contextlib.suppress, contextlib.ExitStack)


def is_handled(above: CodeType | None) -> bool:
    """Whether one of the user's frames stands in a ``try`` with a handler, or in a ``with`` that takes errors, up to
    the frame of this code."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not above:
        code = frame.f_code
        if not inside[code.co_filename] and _blocks(code) and _takes(frame):
            return True
        frame = frame.f_back
    return False


def _takes(frame: FrameType) -> bool:
    for kind, manager in _around(frame.f_code, frame.f_lasti):
        if kind == "except" or (kind == "with" and _swallows(manager, frame)):
            return True
    return False


@functools.lru_cache(maxsize=1024)
def _blocks(code: CodeType) -> tuple[tuple[int, int, int], ...]:
    """Where code is protected: (first place, the place behind the last, where an error goes on), from within."""
    if sys.version_info >= (3, 11):
        entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined, unused-ignore]
        return tuple((each.start, each.end, each.target) for each in entries)
    # an ``else``, which lies before the handler too, is taken for a part of its ``try``
    opened = [each for each in dis.get_instructions(code) if each.opname in ("SETUP_FINALLY", "SETUP_WITH")]
    return tuple((each.offset + 2, each.argval, each.argval) for each in reversed(opened))


@functools.lru_cache(maxsize=1024)
def _around(code: CodeType, at: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The blocks that an instruction stands in, from within: "except", "finally", or "with" and the names that its
    manager is made of."""
    instructions = list(dis.get_instructions(code))
    found = []
    while (target := next((goes for start, end, goes in _blocks(code) if start <= at < end), None)) is not None:
        kind = _kind(instructions, target)
        if kind:
            begins = min(start for start, _, goes in _blocks(code) if goes == target)
            found.append((kind, _manager(instructions, begins) if kind == "with" else ()))
        at = target
    return tuple(found)


_ENDS = frozenset(("CHECK_EXC_MATCH", "CHECK_EG_MATCH", "JUMP_IF_NOT_EXC_MATCH", "POP_EXCEPT", "RERAISE"))


def _kind(instructions: list[dis.Instruction], target: int) -> str:
    """What stands where an error goes on; nothing where only the stack is put in order."""
    first = next(i for i, each in enumerate(instructions) if each.offset == target)
    names = [each.opname for each in instructions[first : first + 2]]
    if "WITH_EXCEPT_START" in names:
        return "with"
    if sys.version_info >= (3, 11) and names[0] != "PUSH_EXC_INFO":
        return ""
    ends = next((each.opname for each in instructions[first:] if each.opname in _ENDS), "")
    return "finally" if ends == "RERAISE" else "except"


def _manager(instructions: list[dis.Instruction], begins: int) -> tuple[str, ...]:
    """The names that the context manager of a block is made of, ``a.b`` or ``a.b(...)``."""
    first = next(i for i, each in enumerate(instructions) if each.offset == begins)
    names: list[str] = []
    for each in _expression(instructions, first - 2):  # ahead of what enters the manager
        if each.opname.startswith("LOAD_") and isinstance(each.argval, str):
            if names and each.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break  # what it is called with
            names.append(each.argval)
        elif names and each.opname not in ("PUSH_NULL", "CACHE"):
            break
    return tuple(names)


def _expression(instructions: list[dis.Instruction], last: int) -> list[dis.Instruction]:
    """The instructions of an expression that ends with one of them."""
    where = getattr(instructions[last], "positions", None)
    if where is None or None in where:
        first, missing = last + 1, 1
        while missing > 0 and first > 0:
            first -= 1
            missing -= dis.stack_effect(instructions[first].opcode, instructions[first].arg)
        return instructions[first : last + 1]
    begin, end = (where.lineno, where.col_offset), (where.end_lineno, where.end_col_offset)
    return [
        each for each in instructions
        if (at := each.positions) is not None and None not in at
        and begin <= (at.lineno, at.col_offset) and (at.end_lineno, at.end_col_offset) <= end
    ]  # fmt: skip


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
        return code is not None and _has_handler(code)
    kind = what if isinstance(what, type) else type(what)
    if issubclass(kind, _SWALLOW):
        return True
    code = getattr(getattr(kind, "__exit__", None), "__code__", None)
    if code is None or inside[code.co_filename]:
        return False
    given = list(dis.get_instructions(code))
    returned = [before for before, each in itertools.pairwise(given) if each.opname == "RETURN_VALUE"]
    returned += [each for each in given if each.opname == "RETURN_CONST"]
    return any(each.opname not in ("LOAD_CONST", "RETURN_CONST") or each.argval for each in returned)


@functools.lru_cache(maxsize=256)
def _has_handler(code: CodeType) -> bool:
    instructions = list(dis.get_instructions(code))
    return any(_kind(instructions, goes) == "except" for _, _, goes in _blocks(code))


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
