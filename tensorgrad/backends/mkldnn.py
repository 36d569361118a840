"""``torch.backends.mkldnn``: oneDNN is not used; kernels have their own threads, matrix products are OpenBLAS's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

__all__ = ["flags", "is_available"]


def is_available() -> bool:
    """False: oneDNN is not used."""
    return False


def flags(enabled: bool = False, deterministic: bool = False, allow_tf32: bool = True) -> AbstractContextManager[None]:
    """A block in which nothing changes: there is no oneDNN to switch off. Raises ValueError for ``enabled=True``."""
    if enabled:
        raise ValueError("mkldnn.flags: oneDNN is not used and can't be enabled.")
    return nullcontext()
