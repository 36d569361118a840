"""``torch.fx``: programs are not traced into graphs here. What packages name at import refuses to start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BackendError, missing_from
from ..nn.module import Module

__all__ = ["Graph", "GraphModule", "Interpreter", "Node", "Proxy", "Tracer", "symbolic_trace", "wrap"]

_T = TypeVar("_T", bound="Callable[..., Any] | str")


def _refuse(name: str) -> BackendError:
    return BackendError(f"fx.{name}: tensorgrad does not trace programs into graphs (see docs/differences.md).")


class _Refused:
    def __init__(self, *args: Any, **kwargs: Any):
        raise _refuse(type(self).__name__)


class Graph(_Refused):
    """Raises BackendError when made."""


class Node(_Refused):
    """Raises BackendError when made."""


class Proxy(_Refused):
    """Raises BackendError when made; no value is an instance."""


class Tracer(_Refused):
    """Raises BackendError when made."""


class Interpreter(_Refused):
    """Raises BackendError when made."""


class GraphModule(Module):
    """Raises BackendError when made; no Module is an instance."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise _refuse("GraphModule")


def symbolic_trace(root: Any, concrete_args: Any = None) -> Any:
    """Raises BackendError."""
    raise _refuse("symbolic_trace")


def wrap(fn_or_name: _T) -> _T:
    """What it is given: in PyTorch a mark for the tracer, of no effect on a program that runs."""
    return fn_or_name


__getattr__ = missing_from("torch.fx")
