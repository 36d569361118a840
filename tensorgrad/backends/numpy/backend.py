"""The reference backend: NumPy arrays, generic kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import Backend
from .convert import converted

__all__ = ["NumpyBackend"]


class NumpyBackend(Backend):
    name = "numpy"
    device_type = "cpu"
    xp = np
    array_type = np.ndarray
    at_in_order = True
    raises_out_of_range = True

    def converted(self, x: Any, dtype: Any) -> Any:
        return converted(np, x, dtype)

    def describe(self) -> str:
        return f"NumPy {np.__version__}, the reference"
