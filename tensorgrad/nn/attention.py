"""Multi-head attention with its projections."""

from __future__ import annotations

from typing import Any

from ..errors import AttentionError
from ..ops.checks import integer
from ..ops.create import empty, zeros
from ..ops.multi_head import multi_head_attention_forward
from ..tensor import Tensor
from . import init
from .linear import Linear
from .module import Module
from .parameter import Parameter

__all__ = ["MultiheadAttention"]


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear under the name that PyTorch prints for the last projection of attention."""


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
        embed_dim = integer("MultiheadAttention", "embed_dim", embed_dim)
        num_heads = integer("MultiheadAttention", "num_heads", num_heads)
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} "
                "instead"
            )
        if embed_dim % num_heads:
            raise AttentionError(f"embed_dim {embed_dim} must be divisible by num_heads {num_heads}")
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
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **make)
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
        return multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k,
            self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias,
            training=self.training, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim, q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal, batch_first=self.batch_first,
        )  # fmt: skip
