"""Multi-head attention with its projections."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..ops import pointwise as pw
from ..ops.create import empty, zeros
from ..ops.join import cat
from ..ops.matmul import linear, matmul
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import Linear
from .module import Module
from .parameter import Parameter

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of ``num_heads`` heads, each on its own projection of query, key and value, then projected together.

    Args:
        embed_dim: width of queries and outputs, divisible by ``num_heads``.
        dropout: on the attention weights, in training.
        bias: whether the projections have biases.
        add_bias_kv: append a learned key and value to every sequence.
        add_zero_attn: append a key and value of zeros.
        kdim, vdim: widths of keys and values; ``embed_dim`` by default.
        batch_first: sequences are (n, t, width) instead of (t, n, width).
    Source: Vaswani et al. 2017.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: embed_dim ({embed_dim}) must be divisible by num_heads ({num_heads})."
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        make = {"dtype": dtype, "device": device}
        same = self._qkv_same_embed_dim
        widths = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        for letter, width in widths.items():
            own = None if same else Parameter(empty(embed_dim, width, **make))
            self.register_parameter(f"{letter}_proj_weight", own)
        self.register_parameter("in_proj_weight", Parameter(empty(3 * embed_dim, embed_dim, **make)) if same else None)
        self.register_parameter("in_proj_bias", Parameter(zeros(3 * embed_dim, **make)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **make)
        for letter in "kv":
            extra = Parameter(empty(1, 1, embed_dim, **make)) if add_bias_kv else None
            self.register_parameter(f"bias_{letter}", extra)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """(outputs, attention weights or None).

        Args:
            query, key, value: (t, n, embed_dim), (s, n, kdim), (s, n, vdim), or without n.
            key_padding_mask: (n, s), True (or -inf) where a key is to be ignored.
            need_weights: also return the weights (n, t, s), averaged over heads or (n, heads, t, s).
            attn_mask: (t, s) or (n * heads, t, s), True where a query may not see a key, or numbers that are added.
            is_causal: says that ``attn_mask`` is the causal one; it must be given.
        """
        if is_causal and attn_mask is None:
            raise ValueError("MultiheadAttention: is_causal=True is a hint about attn_mask, which must be given.")
        q, k, v = query, key, value
        batched = q.ndim == 3
        if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
            raise ShapeError(
                f"MultiheadAttention: query, key and value must all have 2 or all 3 dimensions, got {tuple(q.shape)}, "
                f"{tuple(k.shape)}, {tuple(v.shape)}."
            )
        parts: list[Any] = [x if batched else x.unsqueeze(1) for x in (q, k, v)]
        if batched and self.batch_first:
            parts = [x.transpose(0, 1) for x in parts]
        if key_padding_mask is not None and key_padding_mask.ndim == 1:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        length, n = parts[0].shape[:2]
        projected = self._project(*parts)
        mask = self._mask(attn_mask, key_padding_mask, n, projected[1].shape[0], projected[0])
        heads = [self._heads(x) for x in projected]
        drop = self.dropout if self.training else 0.0
        weights: Any = None
        if need_weights:
            scores = matmul(heads[0] * (self.head_dim**-0.5), heads[1].transpose(-2, -1))
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, drop, True) if drop else weights
            mixed: Any = matmul(weights, heads[2])
        else:
            mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask, dropout_p=drop)
        out: Any = self.out_proj(mixed.permute(2, 0, 1, 3).reshape(length, n, self.embed_dim))
        if need_weights:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        if not batched:
            return out.squeeze(1), weights
        return (out.transpose(0, 1) if self.batch_first else out), weights

    def _project(self, q: Any, k: Any, v: Any) -> list[Any]:
        if self._qkv_same_embed_dim:
            weights: Any = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases, strict=True))
        n = k.shape[1]
        if self.bias_k is not None:
            k = cat([k, self.bias_k.expand(1, n, self.embed_dim)], 0)
            v = cat([v, self.bias_v.expand(1, n, self.embed_dim)], 0)
        if self.add_zero_attn:
            blank = zeros(1, n, self.embed_dim, dtype=k.dtype, device=k.device)
            k, v = cat([k, blank], 0), cat([v, blank], 0)
        return [q, k, v]

    def _heads(self, x: Any) -> Any:
        """(t, n, embed_dim) as (n, heads, t, head_dim)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).permute(1, 2, 0, 3)

    def _mask(self, attn_mask: Any, padding: Any, n: int, keys: int, like: Any) -> Any:
        """What is added to the scores (n, heads, t, s); keys that the module appended are always seen."""
        total: Any = None
        if attn_mask is not None:
            mask = self._added(attn_mask, keys, like)
            total = mask if mask.ndim == 2 else mask.reshape(n, self.num_heads, *mask.shape[1:])
        if padding is not None:
            mask = self._added(padding, keys, like).reshape(n, 1, 1, keys)
            total = mask if total is None else total + mask
        return total

    def _added(self, mask: Any, keys: int, like: Any) -> Any:
        if mask.dtype.name == "bool":
            mask = pw.where(mask, float("-inf"), zeros((), dtype=like.dtype, device=like.device))
        appended = keys - mask.shape[-1]
        return F.pad(mask, (0, appended)) if appended else mask
