"""What an error that a program's call raises says besides: which call of the program it was."""

from __future__ import annotations

from typing import Any

from ..autograd.node import describe_line
from ..errors import ArgumentError, TensorgradError
from ..io.safetensors import FileError
from ..ops.record import as_ours
from .plain import one_line
from .program import Call, Program, Value

__all__ = ["placed"]

_ODD = (AttributeError, TypeError, KeyError, AssertionError)
"""What ops raise for what is not theirs, where they have not looked at it before: an operand or attribute of another
type. Our own errors are of classes of their own."""

_UNFIT = (ValueError, OverflowError, ZeroDivisionError)
"""What they raise for a number or a text that they can't take, of an attribute or of the data."""

_MOST = 4  # operands of a list that are told


def placed(error: Exception, step: Call | None, program: Program) -> Exception:
    """The error as the op raises it, with the place that the call comes from; as it is where no call raised it."""
    if step is None:
        return error
    place = _place(step, program)
    if program.foreign and isinstance(error, (*_ODD, *_UNFIT)) and not isinstance(error, TensorgradError):
        text = one_line(error)
        if isinstance(error, _UNFIT):
            return ArgumentError(f"{text} ({place})").with_traceback(error.__traceback__)
        told = f"{step.op.name}: the file gives it what it can't take: {type(error).__name__}: {text} ({place})"
        return FileError(told).with_traceback(error.__traceback__)
    if error.args and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} ({place})", *error.args[1:])
    return as_ours(error) if isinstance(error, IndexError) else error


def _place(step: Call, program: Program) -> str:
    """The user's line; of a program from a file, whose source may not be there, and of what a pass has made, the call
    as ``explain()`` shows it, with its operands' shapes."""
    if step.line is not None and type(step.line) is not str:
        return f"in a compiled function, at {describe_line(step.line)}"
    calls = program.all_calls
    number = next((i for i, each in enumerate(calls, 1) if each is step), None)
    which = "a call" if number is None else f"call {number} of {len(calls)}"
    where = f", from {step.line}" if step.line else ""
    return f"in a {'loaded program' if program.foreign else 'compiled function'}, at {which}: {_text(step)}{where}"


def _text(call: Call) -> str:
    """``%2 = index_select(%1 f32[4,3], arg1 i64[2], dim=0)``"""
    from .explain import attrs_text

    made = ", ".join("_" if v is None else v.name for v in call.results)
    given = [_operand(x) for x in call.inputs] + attrs_text(call)
    return f"{made} = {call.op.name}({', '.join(given)})"


def _operand(what: Any) -> str:
    from .explain import operand_text, type_text

    if type(what) is Value:
        return f"{what.name} {type_text(what)}"
    if type(what) in (list, tuple):
        parts = [_operand(x) for x in what[:_MOST]]
        if len(what) > _MOST:
            parts.append(f"... {len(what)}")
        return f"[{', '.join(parts)}]"
    return operand_text(what)
