"""Functions that are one call of a record: how C may make that call without the function's frame.

``@calls(sum_op, "x dims flag")`` says what each parameter takes, in their order. Inputs of the record:

- ``x``: a tensor, or None where that is the default; ``x2`` has two dims, ``x2+`` two or more, ``x2~`` two and is as
  long as the first input
- ``operand``: a tensor or a number
- ``like``: a tensor of the shape of the input before it; ``sameindex``: one of int64
- ``index``: a tensor of int64 that has dims; ``places``: a list of those, which become the last inputs, and an
  attribute, the dims that they are for
- ``flat``: a tensor, seen as a vector
- ``list``: tensors of one dtype

Its attributes:

- ``dim``: one, counted from the front; ``newdim``: one to be made; ``dims``: one or several, all by default;
  ``along``: several, perhaps twice the same; ``all``: every dim, which is the default
- ``int``, ``ints`` (one or several), ``number`` (int or float), ``real`` (a float), ``flag``, ``text``, ``this|that``
- ``sizes``: one number, or as many as (n, c, ...) has axes, by default those before; ``pair``: for two axes;
  ``pads``: (before, after) of the last dim, then of the one before it
- ``dtype``: a tensorgrad dtype
- ``-``: nothing; the parameter must be left at its default, as must those that are not spoken of

An attribute is called as the parameter or otherwise, ``real:ord``. ``real:ord=2.0`` says what the default means to the
record, ``-:correction=1`` what it hears of a parameter that is left out. ``*dims`` takes all arguments that are left.

Whatever else is given (another type, ``out=``, a wrong dim, an empty tensor), and what the record refuses, goes to the
function, which is the meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..core import native
from .numpy_names import accept

__all__ = ["calls"]

_F = TypeVar("_F", bound=Callable[..., Any])
_LITERALS: dict[str, Any] = {"True": True, "False": False, "None": None}


def calls(
    record: Any, kinds: str, *, returns: Any = None, alone: Any = None, alike: bool = False, into: bool | str = False,
    cast: bool = False, like: Any = None, numpy_names: bool = True, **fixed: Any,
) -> Callable[[_F], _F]:  # fmt: skip
    """A decorator: put C before the function, for calls that mean ``record(inputs, attributes, **fixed)``.

    Of several the upper one is tried first.

    Args:
        kinds: what each parameter takes, as above; a formula, which has no attributes, takes them as its last inputs.
        returns: a type of named tuples, the position of the result to return, or None for what the record returns.
        alone: a record of the result at that position, for calls on NumPy arrays that nobody records or listens to.
        alike: all inputs that are tensors must be of one floating dtype.
        into: the function is the in-place form of a formula (True), or of a record, with the name of the kernel that
            writes over the first input, which refuses before it writes.
        cast: the last attribute is a dtype; a tensor that has it is returned as it is.
        like: a function with the parameters to go by.
        numpy_names: the function takes NumPy's names of arguments too, as PyTorch's do that are not written in Python.
    """

    def before(function: _F) -> _F:
        if native is None:
            return function
        code = (like or function).__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = (like or function).__defaults__ or ()
        defaults = dict(zip(names[code.co_argcount - len(given) :], given, strict=False))
        defaults |= (like or function).__kwdefaults__ or {}
        words = kinds.split()
        parameters: list[tuple[Any, ...]] = []
        for name, word in zip(names, words + ["-"] * (len(names) - len(words)), strict=True):
            word, _, meaning = word.partition("=")
            kind, _, attribute = word.partition(":")
            default = (defaults[name],) if name in defaults and kind[0] != "*" else ()
            parameters.append((kind, attribute or name, name, *default, *((_literal(meaning),) if meaning else ())))
        made: Any = native.Function(
            accept(function) if numpy_names else function, record, tuple(parameters), code.co_argcount,
            hasattr(record, "specialize"), fixed, returns, alone, into or None, cast, alike,
        )  # fmt: skip
        return made

    return before


def _literal(text: str) -> Any:
    if text in _LITERALS or text.isalpha():
        return _LITERALS.get(text, text)
    return float(text) if "." in text else int(text)
