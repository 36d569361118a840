"""The matrix product that kernels are made of."""

from __future__ import annotations

from typing import Any

__all__ = ["Products"]


class Products:
    xp: Any

    def _product(self, a: Any, b: Any) -> Any:
        """``a @ b`` of matrices or batches of them, in the dtype that they have."""
        return self.xp.matmul(a, b)
