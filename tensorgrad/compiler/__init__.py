"""What is recorded of programs, and ``torch.compiler``'s and ``torch.compile``'s names.

``compile`` runs what it is given eagerly for now: its results are those of PyTorch's, the speed is the eager one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import missing_from

__all__ = ["allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin", "disable",
           "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends", "reset"]  # fmt: skip

_F = TypeVar("_F", bound=Callable[..., Any])
_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "eager",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """``model`` itself, to be run eagerly; a decorator when called without one.

    Args:
        model: a Module or a function.
        fullgraph, dynamic, backend, mode, options, disable: ways to the same results in PyTorch; there is one way here.
    Raises: TypeError if ``model`` can't be called, ValueError for an unknown mode, or for mode and options together.
    Example:
        >>> import tensorgrad as tg
        >>> tg.compile(lambda x: x + 1)(tg.ones(2)).tolist()
        [2.0, 2.0]
    """
    if mode is not None and mode not in _MODES:
        raise ValueError(f"compile: mode must be one of {', '.join(_MODES)}, got {mode!r}.")
    if mode is not None and options is not None:
        raise ValueError("compile: give mode or options, not both.")
    if model is None:
        return lambda wrapped: compile(wrapped)
    if not callable(model):
        raise TypeError(f"compile: expected a Module or a function, got {type(model).__name__}.")
    return model


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """``fn`` itself, which is not compiled anyway; a decorator when called without it."""
    return (lambda wrapped: wrapped) if fn is None else fn


def allow_in_graph(fn: _F) -> _F:
    """``fn`` itself."""
    return fn


def assume_constant_result(fn: _F) -> _F:
    """``fn`` itself."""
    return fn


def is_compiling() -> bool:
    """False: programs run eagerly."""
    return False


is_dynamo_compiling = is_exporting = is_compiling


def cudagraph_mark_step_begin() -> None:
    """Nothing to mark: no graph of a step is kept."""


def reset() -> None:
    """Nothing to forget: nothing was compiled."""


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """What ``compile`` can be told as its backend that exists here."""
    return ["eager"]


__getattr__ = missing_from("torch.compiler")
