"""What training needs besides layers and optimizers: data loading, checkpointing."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import missing_name

if TYPE_CHECKING:
    from . import checkpoint, data

__all__ = ["checkpoint", "data"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__") and find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(missing_name(f"torch.utils.{name}"))
