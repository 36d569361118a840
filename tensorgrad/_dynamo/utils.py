"""``torch._dynamo.utils``: what can be asked of a tracer that is not here."""

from __future__ import annotations

from typing import Any

from ..errors import missing_from

__all__ = ["is_compile_supported"]


def is_compile_supported(device_type: Any) -> bool:
    """False: programs run eagerly."""
    return False


__getattr__ = missing_from("torch._dynamo.utils")
