"""``torch._custom_ops``: an older place of ``torch.library``'s registrations."""

from __future__ import annotations

from .errors import missing_from
from .library import custom_op, impl, register_fake

__all__ = ["custom_op", "impl", "impl_abstract"]

impl_abstract = register_fake

__getattr__ = missing_from("torch._custom_ops")
