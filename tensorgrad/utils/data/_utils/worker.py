"""PyTorch's path to what a worker knows of itself."""

from __future__ import annotations

from ..workers import WorkerInfo, get_worker_info

__all__ = ["WorkerInfo", "get_worker_info"]
