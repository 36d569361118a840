"""``torch.utils.hooks``: what ``register_*hook`` returns."""

from __future__ import annotations

from ..autograd.hooks import Handle as RemovableHandle
from ..errors import missing_from

__all__ = ["RemovableHandle"]

__getattr__ = missing_from("torch.utils.hooks")
