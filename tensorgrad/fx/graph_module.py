"""``torch.fx.graph_module``'s class."""

from __future__ import annotations

from typing import Any

from . import GraphModule

__all__ = ["GraphModule"]


def _copy_attr(from_module: Any, to_module: Any, target: str) -> None:
    """Copy a dotted attribute, making the modules on the way."""
    *path, name = target.split(".")
    for part in path:
        from_module = getattr(from_module, part)
        if not hasattr(to_module, part):
            setattr(to_module, part, type(to_module)())
        to_module = getattr(to_module, part)
    setattr(to_module, name, getattr(from_module, name))
