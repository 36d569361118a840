"""The paths by which programs reach PyTorch's helpers: ``torch.utils.data._utils.collate.default_collate``."""

from __future__ import annotations

from . import collate, worker

__all__ = ["collate", "worker"]
