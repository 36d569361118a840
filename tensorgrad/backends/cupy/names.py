"""The names of dtypes, as kernels have them: NumPy puts one together whenever it is asked."""

from __future__ import annotations

from typing import Any

__all__ = ["NAMES"]


class _Names(dict[Any, str]):
    def __missing__(self, dtype: Any) -> str:
        name = self[dtype] = dtype.name
        return name


NAMES = _Names()
"""By dtype."""
