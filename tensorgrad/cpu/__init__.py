"""``torch.cpu``: the questions that are asked of any device, answered for the CPU."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import missing_from

__all__ = ["current_device", "device_count", "is_available", "synchronize"]


def is_available() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """``"cpu"``."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: a call on the CPU returns when its work is done."""


_missing = missing_from("torch.cpu")


def __getattr__(name: str) -> Any:
    return importlib.import_module(f"{__name__}.amp") if name == "amp" else _missing(name)
