"""Multi-head attention as one function of its weights."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ..errors import AttentionError
from ..tensor import Tensor
from . import pointwise as pw
from .attention import scaled_dot_product_attention
from .checks import integer, require_optional, require_tensors
from .create import zeros
from .dropout import dropout
from .join import cat
from .matmul import linear, matmul
from .rearrange import pad
from .softmax import softmax

__all__ = ["canonical_mask", "multi_head_attention_forward"]


def canonical_mask(
    mask: Any, name: str, like: Tensor, other: Tensor | None = None, other_name: str = "", stacklevel: int = 3
) -> Any:
    """A mask as numbers that are added to scores: -inf where a bool mask is True; None stays None.

    Raises AttentionError for a mask that is neither bool nor floating point. Warns if ``other`` is of another dtype.
    """
    if mask is None:
        return None
    if mask.dtype.name != "bool" and not mask.dtype.is_floating_point:
        raise AttentionError(f"only bool and floating types of {name} are supported, got {mask.dtype}")
    if other is not None and mask.dtype != other.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead.",
            stacklevel=stacklevel,
        )
    if mask.dtype.name != "bool":
        return mask
    return pw.where(mask, -math.inf, zeros((), dtype=like.dtype, device=like.device))


def _is_batched(query: Any, key: Any, value: Any, padding: Any, mask: Any, num_heads: int) -> bool:
    """Whether there is a batch dimension. Raises AttentionError for ranks and shapes that do not go together."""
    if query.ndim not in (2, 3):
        raise AttentionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor"
        )
    batched = query.ndim == 3
    kind, rank = ("batched (3-D)", 3) if batched else ("unbatched (2-D)", 2)
    if key.ndim != rank or value.ndim != rank:
        raise AttentionError(
            f"For {kind} `query`, expected `key` and `value` to be {rank}-D but found {key.ndim}-D and {value.ndim}-D "
            "tensors respectively"
        )
    if padding is not None and padding.ndim != rank - 1:
        raise AttentionError(
            f"For {kind} `query`, expected `key_padding_mask` to be `None` or {rank - 1}-D but found {padding.ndim}-D "
            "tensor instead"
        )
    if mask is not None and mask.ndim not in (2, 3):
        raise AttentionError(
            f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {mask.ndim}-D tensor instead"
        )
    if mask is not None and mask.ndim == 3 and not batched:
        expected = (num_heads, query.shape[0], key.shape[0])
        if tuple(mask.shape) != expected:
            raise AttentionError(f"Expected `attn_mask` shape to be {expected} but got {tuple(mask.shape)}")
    return batched


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
    training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
    attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
    static_v: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False, *,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(outputs, attention weights or None) of ``nn.MultiheadAttention`` with the weights given.

    Args:
        query, key, value: (t, n, e), (s, n, e_k), (s, n, e_v), or all without n.
        embed_dim_to_check: e.
        in_proj_weight: (3 e, e), the three projections one below the other; None with ``use_separate_proj_weight``.
        in_proj_bias: (3 e,) or None.
        bias_k, bias_v: (1, 1, e), one more key and value for every sequence; both or neither.
        add_zero_attn: append a key and a value of zeros.
        dropout_p: on the weights, if ``training``.
        key_padding_mask: (n, s), True where a key is ignored, or numbers added to its scores.
        attn_mask: (t, s) or (n * heads, t, s), True where a query does not see a key, or numbers added.
        q_proj_weight, k_proj_weight, v_proj_weight: (e, e), (e, e_k), (e, e_v).
        static_k, static_v: (n * heads, s, e / heads), used instead of the projected key and value.
        average_attn_weights: the weights are (n, t, s), not (n, heads, t, s).
        is_causal: ``attn_mask``, which must be given, is the causal mask.
        batch_first: inputs and outputs are (n, t, e), (n, s, e_k), (n, s, e_v); nothing is copied into another order.
    Raises: AttentionError (an AssertionError and a RuntimeError) if shapes or arguments do not go together.
    Source: Vaswani et al. 2017.
    """
    require_tensors("multi_head_attention_forward", query=query, key=key, value=value, out_proj_weight=out_proj_weight)
    require_optional(
        "multi_head_attention_forward", in_proj_weight=in_proj_weight, in_proj_bias=in_proj_bias, bias_k=bias_k,
        bias_v=bias_v, out_proj_bias=out_proj_bias, key_padding_mask=key_padding_mask, attn_mask=attn_mask,
        q_proj_weight=q_proj_weight, k_proj_weight=k_proj_weight, v_proj_weight=v_proj_weight, static_k=static_k,
        static_v=static_v,
    )  # fmt: skip
    q, k, v, padding, mask = query, key, value, key_padding_mask, attn_mask
    batched = _is_batched(q, k, v, padding, mask, num_heads)
    time = 1 if batch_first or not batched else 0
    if not batched:
        q, k, v = (x.unsqueeze(0) for x in (q, k, v))
        padding = None if padding is None else padding.unsqueeze(0)
    length, n, width = q.shape[time], q.shape[1 - time], q.shape[2]
    padding = canonical_mask(padding, "key_padding_mask", q, mask, "attn_mask", stacklevel=4)
    if is_causal and mask is None:
        raise AttentionError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    causal = is_causal and padding is None and not need_weights
    mask = None if causal else canonical_mask(mask, "attn_mask", q)
    if width != embed_dim_to_check:
        raise AttentionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {width}")
    num_heads = integer("multi_head_attention_forward", "num_heads", num_heads)
    if num_heads < 1 or width % num_heads:
        raise AttentionError(f"embed_dim {width} not divisible by num_heads {num_heads}")
    if mask is not None:
        expected = (length, k.shape[time]) if mask.ndim == 2 else (n * num_heads, length, k.shape[time])
        if tuple(mask.shape) != expected:
            raise AttentionError(
                f"The shape of the {mask.ndim}D attn_mask is {tuple(mask.shape)}, but should be {expected}."
            )
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    runs = [3] if query is key is value else [1, 2] if key is value else [2, 1] if query is key else [1, 1, 1]
    parts = _projected(q, k, v, in_proj_weight, in_proj_bias, separate, runs)
    order = (0, 2, 1, 3) if time else (1, 2, 0, 3)
    parts = _with_bias(parts, bias_k, bias_v, static_k, static_v, time)
    heads = [x.reshape(*x.shape[:2], num_heads, width // num_heads).permute(order) for x in parts]
    for i, static in ((1, static_k), (2, static_v)):
        if static is not None:
            heads[i] = _static(static, n, num_heads, width // num_heads, "kv"[i - 1])
    if add_zero_attn:
        blank = zeros(n, num_heads, 1, width // num_heads, dtype=heads[1].dtype, device=heads[1].device)
        heads[1:] = [cat([x, blank], 2) for x in heads[1:]]
    added = _added(mask, padding, n, num_heads, heads[1].shape[2])
    out, weights = _attend(heads, added, dropout_p if training else 0.0, need_weights, causal)
    out = out.permute((0, 2, 1, 3) if time else (2, 0, 1, 3)).reshape(q.shape)
    out = linear(out, out_proj_weight, out_proj_bias)
    if weights is not None:
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if batched else weights.squeeze(0)
    return (out if batched else out.squeeze(0)), weights


def _projected(q: Any, k: Any, v: Any, packed: Any, bias: Any, separate: Any, runs: list[int]) -> list[Any]:
    """The three inputs times their weights; with ``separate`` their widths may differ.

    Args: runs: so many inputs in a row are one tensor; a single product of the packed weights does for them.
    """
    if separate is None:
        if tuple(k.shape) != tuple(v.shape):
            raise AttentionError(f"key shape {tuple(k.shape)} does not match value shape {tuple(v.shape)}")
        if packed is None:
            raise AttentionError("use_separate_proj_weight is False but in_proj_weight is None")
        width = q.shape[-1]
        if tuple(packed.shape) != (3 * width, width):
            raise AttentionError(
                f"in_proj_weight has shape {tuple(packed.shape)}, inputs of {width} features need {(3 * width, width)}"
            )
        if bias is not None and tuple(bias.shape) != (3 * width,):
            raise AttentionError(f"in_proj_bias has shape {tuple(bias.shape)}, but should be {(3 * width,)}")
        sizes = [width * run for run in runs]
        weights, inputs = packed.split(sizes), (q, v) if runs[0] == 2 else (q, k, v)[: len(runs)]
        biases = (None,) * 3 if bias is None else bias.split(sizes)
        products = [linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=False)]
        return [part for x, run in zip(products, runs, strict=True) for part in x.chunk(run, -1)]
    if tuple(k.shape[:2]) != tuple(v.shape[:2]):
        raise AttentionError(
            f"key's sequence and batch dims {tuple(k.shape[:2])} do not match value's {tuple(v.shape[:2])}"
        )
    for letter, weight in zip("qkv", separate, strict=True):
        if weight is None:
            raise AttentionError(f"use_separate_proj_weight is True but {letter}_proj_weight is None")
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return [linear(x, w, b) for x, w, b in zip((q, k, v), separate, biases, strict=True)]


def _with_bias(parts: list[Any], bias_k: Any, bias_v: Any, static_k: Any, static_v: Any, time: int) -> list[Any]:
    """Query, key, value with one learned key and value more at the end, if they are given."""
    if (bias_k is None) != (bias_v is None):
        raise AttentionError("bias_k and bias_v go together: one is set but the other is None")
    if bias_k is None:
        return parts
    if static_k is not None or static_v is not None:
        raise AttentionError("bias cannot be added to static key or static value.")
    q, k, v = parts
    for label, bias in (("bias_k", bias_k), ("bias_v", bias_v)):
        if bias._data.size != k.shape[2]:
            raise AttentionError(f"{label} has shape {tuple(bias.shape)}, expected (1, 1, {k.shape[2]})")
    shape = (k.shape[0], 1, k.shape[2]) if time else (1, *k.shape[1:])
    return [q, cat([k, bias_k.expand(shape)], time), cat([v, bias_v.expand(shape)], time)]


def _static(x: Any, n: int, num_heads: int, width: int, letter: str) -> Any:
    if x.ndim != 3 or x.shape[0] != n * num_heads or x.shape[2] != width:
        raise AttentionError(
            f"expecting static_{letter} of shape ({n * num_heads}, s, {width}), but got {tuple(x.shape)}"
        )
    return x.reshape(n, num_heads, *x.shape[1:])


def _added(mask: Any, padding: Any, n: int, num_heads: int, keys: int) -> Any:
    """What is added to the scores (n, heads, t, s); keys that were appended are always seen."""

    def widened(x: Any) -> Any:
        appended = keys - x.shape[-1]
        return pad(x, (0, appended)) if appended > 0 else x

    total: Any = None
    if mask is not None:
        mask = widened(mask)
        total = mask if mask.ndim == 2 else mask.reshape(n, num_heads, *mask.shape[1:])
    if padding is not None:
        padding = widened(padding)
        if tuple(padding.shape) != (n, keys):
            raise AttentionError(
                f"Expected key_padded_mask.shape to be {(n, keys)}, with appended keys counted, but got "
                f"{tuple(padding.shape)}"
            )
        padding = padding.reshape(n, 1, 1, keys)
        total = padding if total is None else total + padding
    return total


def _attend(heads: list[Any], added: Any, drop: float, need_weights: bool, causal: bool) -> tuple[Any, Any]:
    """(mixed values, weights or None)."""
    q, k, v = heads
    if not need_weights:
        return scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=drop, is_causal=causal), None
    q, k = q * math.sqrt(1.0 / q.shape[-1]), k.transpose(-2, -1)
    if added is not None and q.dtype.itemsize < 4:  # rounded once, after the mask is added
        scores: Any = (matmul(q.float(), k.float()) + added).to(q.dtype)
    else:
        scores = matmul(q, k)
        scores = scores if added is None else scores + added.to(scores.dtype)
    weights: Any = softmax(scores, -1)
    weights = dropout(weights, drop, True) if drop else weights
    return matmul(weights, v), weights
