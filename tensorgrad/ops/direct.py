"""Functions that are one call of a record: how C may make that call without the function's frame.

``direct(sum, sum_op, "dims flag - -")`` says what each of the function's arguments is once the tensors are taken:

- ``tensor``, ``operand`` (or a number): an input of the record; these come first.
- ``dim``, ``dims``, ``flag``, ``count``, ``real``, ``number``, ``text``: an attribute, under the argument's name or as
  ``real:ord``. ``real:ord=2.0`` says what the default means. ``all:dim``: every dim, the argument left out.
- ``-``: left out; ``-:correction=1``: left out, and the record hears of it what stands there.

Whatever else is given (another type, ``out=``, a wrong dim, an empty tensor) goes to the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import native

__all__ = ["direct", "first_asked"]

_KINDS = {
    "tensor": "t", "operand": "o", "all": "a", "dims": "D", "dim": "d", "flag": "b", "count": "i", "real": "f",
    "number": "n", "text": "s", "-": "-",
}  # fmt: skip
_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None}
_made: dict[Any, list[tuple[Any, ...]]] = {}  # by function: the arguments of native.Direct behind its ``otherwise``


def direct(
    function: Callable[..., Any], record: Any, kinds: str, *, returns: Any = None, alike: bool = False, **fixed: Any
) -> None:
    """Say that the function is a call of ``record``; said twice, the later way is tried first.

    Args:
        kinds: what each argument is, as above; the first is a tensor unless ``kinds`` begins with one itself.
        returns: a type of named tuples, the position of the result to return, or None for what the record returns.
        alike: all inputs that are tensors must be of one floating dtype.
        fixed: further attributes.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    before = code.co_argcount - len(function.__defaults__ or ())
    defaults = dict(zip(names[before:], function.__defaults__ or (), strict=False)) | (function.__kwdefaults__ or {})
    words = kinds.split()
    if not words or words[0] not in ("tensor", "operand"):
        words.insert(0, "tensor")
    parameters, attrs = [], []
    for name, word in zip(names, words, strict=True):
        word, _, meaning = word.partition("=")
        kind, _, attr = word.partition(":")
        parameter = [name, _KINDS[kind]]
        if name in defaults:
            parameter.append(defaults[name])
            if meaning:
                parameter.append(_LITERALS[meaning] if meaning in _LITERALS else type_of(meaning)(meaning))
        parameters.append(tuple(parameter))
        if kind not in ("tensor", "operand") and (kind != "-" or meaning):
            attrs.append(attr or name)
    facts = (tuple(parameters), code.co_argcount, (*attrs, *fixed), tuple(fixed.values()), returns, alike)
    _made.setdefault(function, []).append((record, facts))


def type_of(literal: str) -> type:
    return float if "." in literal else int


def first_asked(function: Any, otherwise: Any = None) -> Any:
    """What stands before the function, if something does; else ``otherwise``, which serves what that hands on."""
    made = function if otherwise is None else otherwise
    if native is not None:
        for record, facts in _made.get(function, ()):
            made = native.Direct(record, made, *facts)
    return made
