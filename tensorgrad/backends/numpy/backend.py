"""The reference backend: NumPy arrays, generic kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DivisionByZero
from ..base import Backend
from .convert import converted
from .division import DIVISIONS, checked

if TYPE_CHECKING:
    from ...ops.record import Op

__all__ = ["NumpyBackend"]


class NumpyBackend(Backend):
    name = "numpy"
    device_type = "cpu"
    xp = np
    array_type = np.ndarray
    at_in_order = True
    raises_out_of_range = True

    def kernel(self, op: Op) -> Callable[..., Any]:
        found = super().kernel(op)
        return checked(op.name, found, self.refuse_zeros) if op.name in DIVISIONS else found

    def refuse_zeros(self, divisor: Any, text: str) -> None:
        """Raise DivisionByZero if an element is zero."""
        if not divisor.all():
            raise DivisionByZero(text)

    def converted(self, x: Any, dtype: Any) -> Any:
        return converted(np, x, dtype)

    def describe(self) -> str:
        return f"NumPy {np.__version__}, the reference"
