"""NumPy's names of arguments, which PyTorch takes too: ``axis`` for ``dim``, ``keepdims`` for ``keepdim``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import native
from ..tensor import Tensor

__all__ = ["accept", "accept_in_methods"]

_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
_wrapped: dict[Any, Callable[..., Any]] = {}


def accept(function: Any) -> Any:
    """``function``, or what stands before it and takes the other names too, if it has an argument ``dim`` or ``other``.

    Calls inside the package go to the function itself: only users' calls pay for the look at their keywords.
    """
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__"):
        return function
    found = _wrapped.get(function)
    if found is None:
        found = _wrapped[function] = _accepting(function, code)
    return found


def _accepting(function: Any, code: Any) -> Any:
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if hasattr(function, "takes_numpy_names"):
        return function
    if "dim" not in own and "other" not in own:
        return function
    renamed = {other: name for other, name in _NAMES.items() if name in own and other not in own}
    if not renamed:
        return function
    if native is not None:
        return native.Renamed(function, renamed)

    def call(*args: Any, **named: Any) -> Any:
        if named:
            for key in named:
                if key in renamed:
                    named = {renamed.get(key, key): value for key, value in named.items()}
                    break
        return function(*args, **named)

    call.__name__, call.__qualname__, call.__doc__ = function.__name__, function.__qualname__, function.__doc__
    call.__module__ = function.__module__
    call.__wrapped__ = function  # type: ignore[attr-defined]  # inspect.signature shows the arguments
    return call


def accept_in_methods() -> None:
    """The same for every method of Tensor that an op family installed."""
    for name, value in list(vars(Tensor).items()):
        if not name.startswith("__"):
            taken = accept(value)
            if taken is not value:
                setattr(Tensor, name, taken)
