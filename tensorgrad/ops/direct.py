"""Functions that are one call of a record: how C may make that call without the function's frame.

``direct(sum, sum_op, "dims flag - -")`` says what each of the function's arguments is once the tensors are taken:

- ``tensor``, ``operand`` (or a number): an input of the record; they come first. ``tensor2`` has two dims, ``tensor2+``
  two or more, ``tensor2=`` two and is as long as the first input.
- ``dtype``: an attribute, a tensorgrad dtype. ``sizes``: numbers for the axes of (n, c, ...); None: those before.
- ``dim``, ``dims``, ``flag``, ``count``, ``real``, ``number``, ``text``: an attribute, under the argument's name or as
  ``real:ord``. ``real:ord=2.0`` says what the default means. ``all:dim``: every dim, the argument left out.
- ``-``: left out; ``-:correction=1``: left out, and the record hears of it what stands there.

Whatever else is given (another type, ``out=``, a wrong dim, an empty tensor) goes to the function.
"""

from __future__ import annotations

from typing import Any

from ..core import native
from ..dtypes import DType

__all__ = ["direct", "first_asked"]

_KINDS = {
    "tensor": "t", "operand": "o", "all": "a", "dims": "D", "dim": "d", "flag": "b", "count": "i", "real": "f",
    "number": "n", "text": "s", "sizes": "S", "dtype": "T", "-": "-",
}  # fmt: skip
_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None}
_made: dict[Any, list[tuple[Any, ...]]] = {}  # by function: the arguments of native.Direct behind its ``otherwise``


def direct(
    function: Any, record: Any, kinds: str, *, returns: Any = None, alike: bool = False, mode: str = "plain",
    like: Any = None, **fixed: Any,
) -> None:  # fmt: skip
    """Say that the function is a call of ``record``; said twice, the later way is tried first.

    Args:
        kinds: what each argument is, as above; the first is a tensor unless ``kinds`` begins with one itself.
        returns: a type of named tuples, the position of the result to return, or None for what the record returns.
        alike: all inputs that are tensors must be of one floating dtype.
        mode: ``"into"``: the function is a formula in place; ``"cast"``: a tensor of that dtype is returned as
            it is.
        like: a function with the signature to go by.
        fixed: further attributes; of a formula, which has none, its last inputs, as are numbers.
    """
    like = like or function
    code = like.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    before = code.co_argcount - len(like.__defaults__ or ())
    defaults = dict(zip(names[before:], like.__defaults__ or (), strict=False)) | (like.__kwdefaults__ or {})
    words = kinds.split()
    if len(words) < len(names):
        words.insert(0, "tensor")
    parameters, attrs = [], []
    for name, word in zip(names, words, strict=True):
        word, _, meaning = word.partition("=")
        kind, _, attr = word.partition(":")
        plain = kind.rstrip("0123456789+=")
        parameter = [name, _KINDS[plain] + kind[len(plain) :]]
        if name in defaults or plain == "dtype":
            parameter.append(defaults.get(name))
            if plain == "dtype":
                parameter.append(DType)
            elif meaning:
                parameter.append(_literal(meaning))
        parameters.append(tuple(parameter))
        if plain not in ("tensor", "operand") and (kind != "-" or meaning):
            attrs.append(attr or name)
    named = () if hasattr(record, "formula") else (*attrs, *fixed)
    facts = (tuple(parameters), code.co_argcount, named, tuple(fixed.values()), returns, alike, mode)
    _made.setdefault(function, []).append((record, facts))


def _literal(text: str) -> Any:
    if text in _LITERALS or text.isalpha():
        return _LITERALS.get(text, text)
    return float(text) if "." in text else int(text)


def first_asked(function: Any, otherwise: Any = None) -> Any:
    """What stands before the function, if something does; else ``otherwise``, which serves what that hands on."""
    made = function if otherwise is None else otherwise
    if native is not None:
        for record, facts in _made.get(function, ()):
            made = native.Direct(record, made, *facts)
    return made
