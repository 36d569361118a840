"""SparseAdam, which has nothing to work on here."""

from __future__ import annotations

from typing import Any

from .optimizer import Optimizer

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Refused: it updates the rows that a sparse gradient names, and tensorgrad has no sparse tensors.

    Raises ValueError always. Use ``Adam``: gradients of embeddings are dense here.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        maximize: bool = False,
    ):  # fmt: skip
        raise ValueError(
            "SparseAdam works on sparse gradients, and tensorgrad has no sparse tensors: gradients of embeddings are "
            "dense. Use Adam with the same arguments."
        )
