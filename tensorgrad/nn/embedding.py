"""Embedding: rows of a table, looked up by index."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..errors import IndexOutOfRange, ShapeError
from ..ops.create import empty
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """A table of ``num_embeddings`` vectors; int64 indices (*) give (*, embedding_dim).

    Args:
        padding_idx: this row starts at zero and gets no gradient.
        max_norm: rows that are looked up are first scaled to at most this ``norm_type`` norm, in place.
        scale_grad_by_freq, sparse: only False: gradients are dense and unscaled.
    Initial values: normal with mean 0 and variance 1.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, _weight: Tensor | None = None,
        _freeze: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if sparse or scale_grad_by_freq:
            raise ValueError("Embedding: gradients are dense and unscaled; leave sparse and scale_grad_by_freq False.")
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise IndexOutOfRange(f"Embedding: padding_idx {padding_idx} is not among {num_embeddings} rows.")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        if _weight is None:
            table = empty(num_embeddings, embedding_dim, dtype=dtype, device=device)
            self.weight = Parameter(table, requires_grad=not _freeze)
            self.reset_parameters()
        elif tuple(_weight.shape) != (num_embeddings, embedding_dim):
            raise ShapeError(
                f"Embedding: a table of shape {tuple(_weight.shape)} for {num_embeddings} rows of {embedding_dim}."
            )
        else:
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> Embedding:
        """An Embedding on a given table (rows, width), not trained by default."""
        if embeddings.ndim != 2:
            raise ShapeError(f"Embedding: the table must have 2 dimensions, got shape {tuple(embeddings.shape)}.")
        rows, width = tuple(embeddings.shape)
        return cls(rows, width, _weight=embeddings, _freeze=freeze, **options)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        return text
