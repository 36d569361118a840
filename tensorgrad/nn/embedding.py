"""Embedding: rows of a table, looked up by index."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..errors import IndexOutOfRange, ShapeError
from ..ops.checks import integer, require_optional
from ..ops.create import empty
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Embedding", "EmbeddingBag"]


def _draw(table: Any) -> None:
    init.normal_(table.weight)
    if table.padding_idx is not None:
        with no_grad():
            table.weight[table.padding_idx].fill_(0)


class Embedding(Module):
    """A table of ``num_embeddings`` vectors; int64 indices (*) give (*, embedding_dim).

    Args:
        padding_idx: this row starts at zero and gets no gradient.
        max_norm: rows that are looked up are first scaled to at most this ``norm_type`` norm, in place.
        scale_grad_by_freq: gradients of rows are divided by how often they are named.
        sparse: only False: gradients are dense.
    Initial values: normal with mean 0 and variance 1.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, _weight: Tensor | None = None,
        _freeze: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if sparse:
            raise ValueError("Embedding: gradients are dense; leave sparse False.")
        num_embeddings = integer("Embedding", "num_embeddings", num_embeddings)
        embedding_dim = integer("Embedding", "embedding_dim", embedding_dim)
        require_optional("Embedding", _weight=_weight)
        if padding_idx is not None:
            padding_idx = integer("Embedding", "padding_idx", padding_idx)
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise IndexOutOfRange(f"Embedding: padding_idx {padding_idx} is not among {num_embeddings} rows.")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
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
        _draw(self)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        return text


class EmbeddingBag(Module):
    """Sums, means or maxima of rows of a table, for bags of indices.

    Args:
        max_norm: rows that are looked up are first scaled to at most this ``norm_type`` norm, in place.
        scale_grad_by_freq: gradients of rows are divided by how often they are named; not for "max".
        mode: "sum", "mean" or "max".
        sparse: only False: gradients are dense.
        include_last_offset: ``offsets`` has one entry more, the end of the last bag.
        padding_idx: rows of this index do not count; this row starts at zero and gets no gradient.
    Initial values: normal with mean 0 and variance 1.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, _weight: Tensor | None = None,
        include_last_offset: bool = False, padding_idx: int | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if sparse:
            raise ValueError("EmbeddingBag: gradients are dense; leave sparse False.")
        num_embeddings = integer("EmbeddingBag", "num_embeddings", num_embeddings)
        embedding_dim = integer("EmbeddingBag", "embedding_dim", embedding_dim)
        require_optional("EmbeddingBag", _weight=_weight)
        if padding_idx is not None:
            padding_idx = integer("EmbeddingBag", "padding_idx", padding_idx)
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise IndexOutOfRange(f"EmbeddingBag: padding_idx {padding_idx} is not among {num_embeddings} rows.")
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.padding_idx = padding_idx
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset
        if _weight is None:
            self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype, device=device))
            self.reset_parameters()
        elif tuple(_weight.shape) != (num_embeddings, embedding_dim):
            raise ShapeError(
                f"EmbeddingBag: a table of shape {tuple(_weight.shape)} for {num_embeddings} rows of {embedding_dim}."
            )
        else:
            self.weight = Parameter(_weight)

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **options: Any) -> EmbeddingBag:
        """An EmbeddingBag on a given table (rows, width), not trained by default."""
        if embeddings.ndim != 2:
            raise ShapeError(f"EmbeddingBag: the table must have 2 dimensions, got shape {tuple(embeddings.shape)}.")
        rows, width = tuple(embeddings.shape)
        made = cls(rows, width, _weight=embeddings, **options)
        made.weight.requires_grad = not freeze
        return made

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        _draw(self)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Bags (bags, n), or (n,) with the ``offsets`` where bags start; weights of the input's shape for "sum"."""
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        text += f", mode={self.mode!r}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        return text
