"""``SummaryWriter``: writes what TensorBoard shows, through tensorboardX."""

from __future__ import annotations

from .writer import SummaryWriter

__all__ = ["SummaryWriter"]
