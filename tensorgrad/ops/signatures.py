"""From an elementwise record to what users call: the function with ``out=``, the Tensor method, the in-place form.

Which arguments of a function of two may be Python numbers is PyTorch's choice: ``numbers="any"`` (``mul``), ``"other"``
(not the first: ``eq``), ``"none"`` (``maximum``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..expr import Expr
from ..tensor import Tensor, install
from .calls import calls
from .inplace import deliver, deliver_same, write_into

__all__ = ["install_in_place", "publish", "require_tensor_arguments"]


def require_tensor_arguments(name: str, **given: Any) -> None:
    """Raises TypeError unless every argument is a Tensor, or one an expression: a formula may be written with it."""
    if any(isinstance(x, Expr) for x in given.values()):
        return
    for label, x in given.items():
        if x is MISSING:
            raise TypeError(f"{name}() is missing the argument {label!r}")
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}(): argument {label!r} must be Tensor, not {type(x).__name__}")


def publish(
    name: str, record: Any, *, numbers: str = "any", inplace: bool = True, method: bool = True, same: bool = False
) -> Any:
    """The record as a function with ``out=``, which it installs as a method, with its in-place form ``name_``.

    Args:
        same: ``out`` must have the result's dtype.
    """
    function = (
        _of_one(name, record, deliver_same if same else deliver)
        if len(record.inputs) == 1
        else _of_two(name, record, numbers)
    )
    function.__name__ = function.__qualname__ = name
    function.__doc__ = record.__doc__ or f"Elementwise ``{record.formula}``."
    inputs = "x" if len(record.inputs) == 1 else "x x" if numbers == "none" else "x operand"
    function = calls(record, inputs)(function)
    if method:
        install(function, name)
        if inplace:
            install_in_place(name, record, numbers=numbers)
    return function


def _of_one(name: str, record: Any, deliver: Callable[..., Any]) -> Callable[..., Any]:
    def function(input: Any, *, out: Any = None) -> Any:
        return record(input) if out is None else deliver(name, record(input), out)

    return function


def _of_two(name: str, record: Any, numbers: str) -> Callable[..., Any]:
    # three spellings, since each pays for its own check alone: the smallest ops pass here
    def free(input: Any = MISSING, other: Any = MISSING, *, out: Any = None, **names: Any) -> Any:
        if names:
            return free(**numpy_names(name, input, other, out, names))
        return record(input, other) if out is None else deliver(name, record(input, other), out)

    def tensor_first(input: Any = MISSING, other: Any = MISSING, *, out: Any = None, **names: Any) -> Any:
        if names:
            return tensor_first(**numpy_names(name, input, other, out, names))
        if not isinstance(input, Tensor):
            require_tensor_arguments(name, input=input)
        return record(input, other) if out is None else deliver(name, record(input, other), out)

    def tensors(input: Any = MISSING, other: Any = MISSING, *, out: Any = None, **names: Any) -> Any:
        if names:
            return tensors(**numpy_names(name, input, other, out, names))
        if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
            require_tensor_arguments(name, input=input, other=other)
        return record(input, other) if out is None else deliver(name, record(input, other), out)

    chosen = {"any": free, "other": tensor_first, "none": tensors}[numbers]
    chosen.takes_numpy_names = True  # type: ignore[attr-defined]
    return chosen


class _Missing:
    def __repr__(self) -> str:
        return "a missing argument"


MISSING = _Missing()


def numpy_names(name: str, input: Any, other: Any, out: Any, names: dict[str, Any]) -> dict[str, Any]:
    """The arguments with NumPy's names for them replaced: ``x1`` and ``x2`` for ``input`` and ``other``."""
    given = {"input": input, "other": other}
    for key, value in names.items():
        own = {"x": "input", "a": "input", "x1": "input", "x2": "other"}.get(key)
        if own is None or given[own] is not MISSING:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
        given[own] = value
    return {**given, "out": out}


def install_in_place(name: str, record: Any, *, numbers: str = "any") -> None:
    """Make ``x.name_(...)`` write the record's result over ``x``."""
    if len(record.inputs) == 1:

        def in_place(self: Tensor) -> Tensor:
            return write_into(record, self, (self,), {})

    else:

        def in_place(self: Tensor, other: Any) -> Tensor:  # type: ignore[misc]
            if numbers == "none":
                require_tensor_arguments(f"{name}_", other=other)
            return write_into(record, self, (self, other), {})

    in_place.__name__ = in_place.__qualname__ = f"{name}_"
    in_place.__doc__ = f"In-place form of ``{name}``."
    inputs = "x" if len(record.inputs) == 1 else "x x" if numbers == "none" else "x operand"
    install(calls(record, inputs, alike=True, into=True)(in_place))
