"""Rows of a table by number, and their gradient, over ``xp``; rows named more than once are summed in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EmbeddingKernels:
    xp: Any
    check_index: Callable[..., None]  # of IndexKernels
    index_add_into: Callable[..., Any]

    def embedding(self, weight: Any, index: Any) -> Any:
        self.check_index("embedding", index, weight.shape[0], 0)
        return self.xp.take(weight, index, axis=0)

    def embedding_backward(self, g: Any, index: Any, *, num_embeddings: int, padding_idx: int | None) -> Any:
        width = g.shape[-1]
        rows, places = g.reshape(index.size, width), index.reshape(index.size)
        if padding_idx is not None:
            rows = self.xp.where((places == padding_idx)[:, None], self.xp.zeros((), dtype=g.dtype), rows)
        out = self.xp.zeros((num_embeddings, width), dtype=g.dtype)
        return self.index_add_into(out, places, rows, dim=0)
