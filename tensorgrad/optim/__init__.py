"""Optimizers and learning-rate schedules under PyTorch's names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import missing_name
from .adam import Adam, AdamW
from .optimizer import Optimizer
from .sgd import SGD

if TYPE_CHECKING:
    from . import lr_scheduler

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]


def __getattr__(name: str) -> Any:
    if name == "lr_scheduler":
        return importlib.import_module(f"{__name__}.lr_scheduler")
    raise AttributeError(missing_name(f"torch.optim.{name}"))
