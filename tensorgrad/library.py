"""``torch.library``: packages register facts about operators for PyTorch's compiler and dispatcher, which are not here.

An operator written in Python (``custom_op``) works as the function it is. What is registered for operators that only a
compiled extension has is dropped: those operators are not there, and calling one says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import missing_from

__all__ = ["Library", "custom_op", "define", "impl", "register_autograd", "register_fake", "register_kernel"]


class Library:
    """A namespace of operators of a compiled extension: what is registered in it has nobody to serve."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = ""):
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """The name in the schema."""
        return schema.partition("(")[0]

    def impl(self, op_name: Any, fn: Any = None, dispatch_key: str = "", **options: Any) -> Any:
        """Drops the implementation; a decorator when called without one."""
        return (lambda function: function) if fn is None else None


def _registered(name: Any, func: Any) -> Any:
    return (lambda function: function) if func is None else func


def define(qualname: str, schema: str, **options: Any) -> None:
    """Drops the declaration of an operator."""


def impl(qualname: Any, types: Any, func: Any = None, **options: Any) -> Any:
    """Drops an implementation; a decorator when called without one."""
    return _registered(qualname, func)


def register_fake(op: Any, func: Any = None, /, **options: Any) -> Any:
    """Drops the shapes of an operator, which only PyTorch's compiler asks for."""
    return _registered(op, func)


def register_kernel(op: Any, device_types: Any, func: Any = None, /, **options: Any) -> Any:
    """Drops a kernel of an operator."""
    return _registered(op, func)


def register_autograd(op: Any, backward: Callable[..., Any], /, **options: Any) -> None:
    """Keeps the derivative of a ``custom_op``; drops that of an operator that is not here."""
    if isinstance(op, _CustomOp):
        op.register_autograd(backward, **options)


class _CustomOp:
    """A function with, perhaps, a derivative of its own."""

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name, self.function = name, function
        self._call = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def register_fake(self, fn: Any) -> Any:
        """Drops the shapes of the operator."""
        return fn

    def register_kernel(self, device_types: Any, fn: Any = None, /) -> Any:
        """Drops another kernel: the function itself runs on every device."""
        return _registered(self.name, fn)

    def register_autograd(self, backward: Callable[..., Any], /, *, setup_context: Any = None) -> None:
        """The derivative: ``backward(ctx, *grads)``, after ``setup_context(ctx, inputs, output)``."""
        from .autograd.function import Function

        function = self.function

        def forward(ctx: Any, *args: Any) -> Any:
            output = function(*args)
            if setup_context is not None:
                setup_context(ctx, args, output)
            return output

        made: Any = type(self.name, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})
        self._call = made.apply


def custom_op(
    name: str, fn: Any = None, /, *, mutates_args: Any = (), device_types: Any = None, schema: Any = None
) -> Any:
    """A Python function as an operator; a decorator when called without one."""
    if fn is None:
        return lambda function: _CustomOp(name, function)
    return _CustomOp(name, fn)


__getattr__ = missing_from("torch.library")
