"""Attention of the stand-in's cuDNN: what its graphs are checked for, and what they compute.

Limits are those of frontend 1.18 with cuDNN 9.19 on Hopper. A backward that may have other bits in the next run is the
caller's mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.generic.attention import AttentionKernels
from ..backends.generic.shape import ShapeKernels

__all__ = ["StrictAttention"]

_WIDEST = 256


class _Host(AttentionKernels, ShapeKernels):
    xp = np


class StrictAttention:
    """One call of ``sdpa`` or ``sdpa_backward``.

    Args:
        inputs: q, k, v, and backward o, dO and stats.
        outputs: o and stats, or dQ, dK and dV.
        how: what else it was called with.
    """

    def __init__(self, inputs: list[Any], outputs: list[Any], how: dict[str, Any]):
        self.inputs, self.outputs = inputs, outputs
        self.backward = len(inputs) == 6
        needed = {"use_deterministic_algorithm"} if self.backward else {"generate_stats"}
        if any(how.get(name) is not True for name in needed):
            raise AssertionError(f"attention without {needed}")
        band = {"diagonal_alignment", "diagonal_band_right_bound"}
        if not set(how) <= {"attn_scale", *band, *needed} or len(band & set(how)) == 1:
            raise TypeError(f"attention with {sorted(how)}")
        self.causal = "diagonal_band_right_bound" in how
        if self.causal and (how["diagonal_band_right_bound"], how["diagonal_alignment"].name) != (0, "TOP_LEFT"):
            raise ValueError(f"attention: {how}")
        self.scale = float(how["attn_scale"])

    def check(self, half: Any) -> None:
        q, k, v = self.inputs[:3]
        samples, heads, queries, width = q.dim
        keys, value_width = k.dim[2], v.dim[3]
        if heads % k.dim[1] or k.dim[1] != v.dim[1]:
            raise ValueError(f"{heads} heads of queries, {k.dim[1]} of keys and {v.dim[1]} of values")
        if width % 8 or value_width % 8 or max(width, value_width) > _WIDEST:
            raise ValueError(f"hidden_dim should be a multiple of 8 up to {_WIDEST}, got {width} and {value_width}")
        rows, stats = [samples, heads, queries, value_width], [samples, heads, queries, 1]
        fit = {
            k: [samples, k.dim[1], keys, width], v: [samples, k.dim[1], keys, value_width],
        }  # fmt: skip
        if self.backward:
            if queries == keys == 1:
                raise ValueError("s_q = s_kv = 1 is not supported.")
            fit |= dict(zip([*self.inputs[3:], *self.outputs], (rows, rows, stats, q.dim, k.dim, v.dim), strict=True))
            single = self.inputs[5]
        else:
            fit |= dict(zip(self.outputs, (rows, stats), strict=True))
            single = self.outputs[1]
        for tensor, dim in {q: q.dim, **fit}.items():
            if tensor.dim != dim or tensor.stride[3] != 1 or len(tensor.stride) != 4:
                raise ValueError(f"dim {tensor.dim} with stride {tensor.stride}, expected dim {dim}")
            if tensor.kind.name != "FLOAT" if tensor is single else tensor.kind is not half:
                raise ValueError(f"a tensor of type {tensor.kind}")
            if tensor is not single and any(step % 8 for step in tensor.stride[:3]):
                raise ValueError(f"rows at stride {tensor.stride} do not begin at multiples of 16 bytes")

    def workspace(self) -> int:
        """Bytes: a deterministic backward keeps the gradients of all scores."""
        samples, heads, queries, _ = self.inputs[0].dim
        keys = self.inputs[1].dim[2]
        return samples * heads * (-(-queries // 128)) * (-(-keys // 128)) * 128**2 * 2 if self.backward else 0

    def compute(self, *arrays: Any) -> None:
        host = _Host()
        how: dict[str, Any] = {"causal": self.causal, "scale": self.scale}
        q, k, v, *more = (x.astype(np.float32) for x in arrays[: len(self.inputs)])
        samples, heads, keys, _ = k.shape
        times = q.shape[1] // heads
        k, v = (np.repeat(x, times, axis=1) for x in (k, v))
        made: tuple[Any, ...]
        if self.backward:
            out, slope, stats = more
            needs = (True, True, True, False)
            made = host.attention_backward(slope, q, k, v, None, out, stats[..., 0], **how, needs=needs)[:3]
            made = (made[0], *[x.reshape(samples, heads, times, keys, -1).sum(axis=2) for x in made[1:]])
        else:
            out, lse = host.attention(q, k, v, None, **how)
            made = out, lse[..., None]
        for to, result in zip(arrays[len(self.inputs) :], made, strict=True):
            to[...] = result.astype(to.dtype)
