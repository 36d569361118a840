"""PyTorch's path to ``tensorgrad.utils.data.collate``."""

from __future__ import annotations

from ..collate import collate, default_collate, default_collate_fn_map, default_convert

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]
