"""``torch.backends.openmp``: OpenMP is not used; kernels have their own threads, matrix products are OpenBLAS's."""

from __future__ import annotations

__all__ = ["is_available"]


def is_available() -> bool:
    """False: OpenMP is not used."""
    return False
