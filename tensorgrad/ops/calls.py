"""Functions whose usual call is one record's, its arguments brought into the record's words by the tape's module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..core import native
from .record import Op

__all__ = ["calls"]

_F = TypeVar("_F", bound=Callable[..., Any])
_INPUTS = frozenset(("x", "flat", "index", "like", "sameindex", "list"))


def calls(record: Op, kinds: str, *, into: str | None = None, **fixed: Any) -> Callable[[_F], _F]:
    """A decorator: put C before the function, for calls that mean ``record(inputs, attributes, **fixed)``.

    ``kinds`` names for each parameter in order what it takes (the list is in ``csrc/tape/function.cpp``), and the
    attribute it becomes where that has another name: ``"x dim index"``, ``"x *dims"``, ``"x int=diagonal"``.
    ``into``: the function is the record's in-place form, and this its kernel, which refuses before it writes.

    Calls with other parameters, arguments of other kinds, and all that the record refuses go to the function, which is
    the meaning.
    """

    def before(function: _F) -> _F:
        if native is None:
            return function
        code = function.__code__
        names = [*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        given = function.__defaults__ or ()
        defaults = dict(zip(names[code.co_argcount - len(given) : code.co_argcount], given, strict=True))
        defaults |= function.__kwdefaults__ or {}
        described, attributes = [], []
        for name, text in zip(names, kinds.split(), strict=False):
            kind, _, attribute = text.partition("=")
            described.append((kind, name, (defaults[name],) if name in defaults else ()))
            if kind not in _INPUTS:
                attributes.append(attribute or name)
        made: Any = native.Function(
            function, record, tuple(described), (*attributes, *fixed), tuple(fixed.values()), into
        )
        return made

    return before
