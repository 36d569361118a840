"""Files: tensors in safetensors; the readers and writers behind ``save`` and ``load``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import safetensors, sharded

__all__ = ["safetensors", "sharded"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"tensorgrad.io has no {name}")
