"""Attention by cuDNN where ``why_not`` has no objection and there is a plan, else by kernels of our own.

Ours keep no scores: half precision on tensor cores, float32 in float32. What they do not take is written out by the
generic kernels. Keys that heads share are read where they lie; their gradients are made for each head and added up.
Whoever computed forward, either may compute backward: both keep the log-sum-exp of natural logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..generic.attention import AttentionKernels
from .cublas import joined_axes
from .cudnn_attention import attend, attend_backward, why_not
from .kernels import ATTENTION_TYPES, ATTENTION_WIDTHS, Kernels

__all__ = ["LAYOUT", "CupyAttention"]

_BLOCK, _BLOCK_ROWS = 128, 64  # threads and rows of a block
_BATCH_AXES = 3
_MOST_LENGTH = 2**31 - 2 * _BLOCK_ROWS
_MOST_LAYOUTS = 1024
_NO_MASK, _BOOL_MASK, _ADDED_MASK = range(3)

LAYOUT = np.dtype(
    [
        ("batch", "i8", 3), ("q", "i8", 4), ("k", "i8", 4), ("v", "i8", 4), ("g", "i8", 4), ("mask", "i8", 5),
        ("queries", "i8"), ("keys", "i8"), ("width", "i8"), ("value_width", "i8"), ("scale", "f4"), ("causal", "i4"),
        ("mask_kind", "i4"), ("padding", "i4"),
    ]
)  # fmt: skip
"""``Layout`` of attention.cu."""


class CupyAttention(AttentionKernels):
    xp: Any
    _kernels: Kernels
    sum_to: Callable[..., Any]  # of ShapeKernels
    _cudnn: Any  # of CupyConvolutions

    def attention(self, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Any, Any]:
        if why_not(q, k, v, mask) is None and self._cudnn is not None:
            made = attend(self._cudnn, q, k, v, causal=causal, scale=scale)
            if made is not None:
                return made
        if not _fits(q, k, v):
            return super().attention(q, k, v, mask, causal=causal, scale=scale)
        xp = self.xp
        out = xp.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype)
        lse = xp.empty(q.shape[:-1], dtype=np.float32)
        layout, (q, k, v), mask = self._laid_out((q, k, v), mask, causal, scale)
        self._run("attention", q.shape[-2], layout, q, k, v, mask, out, lse)
        return out, lse

    def attention_backward(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
        needs: tuple[bool, ...],
    ) -> Any:  # fmt: skip
        same = g.dtype == q.dtype and out.dtype == q.dtype and lse.dtype == np.float32
        if same and why_not(q, k, v, mask, backward=True) is None and self._cudnn is not None:
            made = attend_backward(self._cudnn, g, q, k, v, out, lse, causal=causal, scale=scale)
            if made is not None:
                return (*[x if needed else None for x, needed in zip(made, needs[:3], strict=True)], None)
        if not _fits(q, k, v) or not same:
            return super().attention_backward(g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)
        xp = self.xp
        to_q = to_k = to_v = to_mask = None
        if needs[3]:  # as large as the scores, or summed over them: nothing to be saved there
            only = (False, False, False, True)
            _, _, _, to_mask = super().attention_backward(
                g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=only
            )
        if any(needs[:3]):
            shape, of_keys, of_values = q.shape, k.shape, v.shape
            layout, (q, k, v, g), mask = self._laid_out((q, k, v, g), mask, causal, scale)
            out, lse = xp.ascontiguousarray(out), xp.ascontiguousarray(lse)
            delta = xp.empty(lse.shape, dtype=np.float32)
            self._kernels.launch(_named("attentiondelta", q, v), lse.size * 32, layout, g, out, delta, block=_BLOCK)
            given = (layout, g, q, k, v, mask, lse, delta)
            if needs[0]:
                to_q = xp.empty(shape, dtype=q.dtype)
                self._run("attentionquery", q.shape[-2], *given, to_q)
            if needs[1] or needs[2]:
                to_k, to_v = xp.empty(k.shape, dtype=k.dtype), xp.empty(v.shape, dtype=v.dtype)
                self._run("attentionkey", k.shape[-2], *given, to_k, to_v)
                to_k, to_v = self._gathered(to_k, of_keys), self._gathered(to_v, of_values)
        return to_q, to_k if needs[1] else None, to_v if needs[2] else None, to_mask

    def _run(self, kind: str, rows: int, layout: Any, *arrays: Any) -> None:
        blocks = -(-rows // _BLOCK_ROWS) * math.prod(layout["batch"].tolist())
        q, v = (arrays[0], arrays[2]) if kind == "attention" else (arrays[1], arrays[3])
        self._kernels.launch(_named(kind, q, v), blocks * _BLOCK, layout, *arrays, block=_BLOCK)

    def _gathered(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A gradient in keys or values by head of queries, summed over those that share one."""
        return x if x.shape == shape else self.sum_to(x, shape=(*shape[:-2], 1, *shape[-2:])).reshape(shape)

    def _laid_out(self, arrays: tuple[Any, ...], mask: Any, causal: bool, scale: float) -> tuple[Any, Any, Any]:
        """The kernels' struct, and the arrays and the mask as they are to be passed.

        Arrays stay where they lie if their elements do side by side and at most three axes lead through the batch. Of
        heads that share keys, keys and values get an axis that no step leads over.
        """
        xp = self.xp
        arrays = tuple(
            [x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else xp.ascontiguousarray(x) for x in arrays]
        )
        if arrays[0].shape[:-2] != arrays[1].shape[:-2]:
            arrays, mask = _apart(xp, arrays, mask)
        scores = (*arrays[0].shape[:-1], arrays[1].shape[-2])
        layout = self._layout(arrays, mask, scores, causal, scale)
        if layout is None:
            arrays = tuple([xp.ascontiguousarray(x) for x in arrays])
            layout = self._layout(arrays, mask, scores, causal, scale)
        if layout is None:
            mask = xp.ascontiguousarray(xp.broadcast_to(mask, scores))
            layout = self._layout(arrays, mask, scores, causal, scale)
        # a pointer that nobody follows, where there is no mask
        return layout, arrays, arrays[0] if mask is None else mask

    def _layout(self, arrays: tuple[Any, ...], mask: Any, scores: tuple[int, ...], causal: bool, scale: float) -> Any:
        """The struct; None if more than three axes lead through the batch."""
        layouts: dict[Any, Any] = self.__dict__.setdefault("_attention_layouts", {})
        seen = None if mask is None else (mask.shape, mask.strides, mask.dtype.char)
        key = (tuple([(x.shape, x.strides) for x in arrays]), arrays[0].itemsize, seen, causal, scale)
        if key not in layouts:
            if len(layouts) >= _MOST_LAYOUTS:
                layouts.clear()
            layouts[key] = _struct(arrays, mask, scores, causal, scale)
        return layouts[key]


def _apart(xp: Any, arrays: tuple[Any, ...], mask: Any) -> tuple[tuple[Any, ...], Any]:
    """The heads of queries that share one of keys on an axis of their own, along which keys and values repeat."""
    q, k = arrays[:2]
    heads, times = k.shape[-3], q.shape[-3] // k.shape[-3]
    lead = (*k.shape[:-2], times)
    views = [
        xp.broadcast_to(x[..., None, :, :], (*lead, *x.shape[-2:])) if x.shape[-3] == heads
        else x.reshape(*lead, *x.shape[-2:]) for x in arrays
    ]  # fmt: skip
    if mask is not None and mask.ndim > 2:
        own = (1, 1) if mask.shape[-3] == 1 else (heads, times)
        mask = mask.reshape(*mask.shape[:-3], *own, *mask.shape[-2:])
    return tuple(views), mask


def _fits(q: Any, k: Any, v: Any) -> bool:
    return (
        q.dtype.name in ATTENTION_TYPES
        and max(q.shape[-1], v.shape[-1]) <= ATTENTION_WIDTHS[-1]
        and max(q.shape[-2], k.shape[-2]) <= _MOST_LENGTH
        and bool(q.size and k.size and v.size)
    )


def _named(kind: str, q: Any, v: Any) -> str:
    widest = max(q.shape[-1], v.shape[-1])
    return f"{kind}_{q.dtype.name}_{next(width for width in ATTENTION_WIDTHS if width >= widest)}"


def _steps(x: Any, rank: int) -> list[int]:
    """By axis, the last ``rank``, elements from one to the next; 0 where there is but one."""
    item = x.itemsize
    steps = [0 if size == 1 else step // item for size, step in zip(x.shape, x.strides, strict=True)]
    return [0] * (rank - len(steps)) + steps


def _struct(arrays: tuple[Any, ...], mask: Any, scores: tuple[int, ...], causal: bool, scale: float) -> Any:
    rank = len(scores)
    steps = [_steps(x, rank) for x in arrays]
    steps.append([0] * rank if mask is None else _steps(mask, rank))
    axes = [(scores[axis], *[step[axis] for step in steps]) for axis in reversed(range(rank - 2)) if scores[axis] != 1]
    axes = joined_axes(axes)
    if len(axes) > _BATCH_AXES:
        return None
    axes = [(1, *[0] * len(steps))] * (_BATCH_AXES - len(axes)) + axes[::-1]
    made = np.zeros((), LAYOUT)
    made["batch"] = [axis[0] for axis in axes]
    for place, name in enumerate(("q", "k", "v", "g")[: len(arrays)]):
        made[name] = [*[axis[1 + place] for axis in axes], steps[place][-2]]
    made["mask"] = [*[axis[-1] for axis in axes], *steps[-1][-2:]]
    made["queries"], made["keys"] = scores[-2:]
    made["width"], made["value_width"] = arrays[0].shape[-1], arrays[2].shape[-1]
    made["scale"], made["causal"] = scale, causal
    made["mask_kind"] = _NO_MASK if mask is None else _BOOL_MASK if mask.dtype.kind == "b" else _ADDED_MASK
    return made
