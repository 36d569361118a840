"""``assert_close`` and ``make_tensor`` under PyTorch's names; and what a backend must do: see ``conformance``."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from ..errors import missing_name

__all__ = ["assert_close", "make_tensor"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import compare

        return getattr(compare, name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(missing_name(f"torch.testing.{name}"))
