"""PyTorch's path to ``AdamW``."""

from __future__ import annotations

from .adam import AdamW

__all__ = ["AdamW"]
