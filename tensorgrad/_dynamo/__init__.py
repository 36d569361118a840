"""``torch._dynamo``: PyTorch's tracer of bytecode, which is not here; marks for it have no effect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..compiler import allow_in_graph, disable, is_compiling, reset
from ..errors import missing_from

__all__ = ["allow_in_graph", "config", "disable", "graph_break", "is_compiling", "mark_dynamic", "optimize", "reset"]

config: Any = SimpleNamespace(suppress_errors=False, cache_size_limit=8, recompile_limit=8, verbose=False)
"""Settings of a tracer that never runs: they keep what they are given."""


def graph_break(msg: str = "") -> None:
    """Nothing to break: programs run eagerly."""


def mark_dynamic(t: Any, index: Any, **bounds: Any) -> None:
    """Nothing to mark: every shape is dynamic."""


def optimize(*args: Any, **kwargs: Any) -> Any:
    """A decorator that leaves a function as it is: programs run eagerly."""
    return lambda function: function


__getattr__ = missing_from("torch._dynamo")
