"""Attention by cuDNN where ``why_not`` has no objection and there is a plan, else by kernels of our own.

Ours keep no scores: half precision on tensor cores, float32 in float32. What they do not take is written out by the
generic kernels. Keys that heads share are read where they lie, and their gradients are summed over the heads within the
kernel; where that would leave a device idle they are made for each head and added up.
Whoever computed forward, either may compute backward: both keep the log-sum-exp of natural logarithms.

Dropout is our kernels' alone: they draw the CPU's masks, forward and backward, and keep but the place in the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...dispatch import OPS
from ..generic.attention import AttentionKernels
from .cublas import joined_axes
from .cudnn_attention import attend, attend_backward, why_not
from .kernels import ATTENTION_JOINT, ATTENTION_TYPES, ATTENTION_WIDTHS, Kernels
from .names import NAMES

__all__ = ["LAYOUT", "CupyAttention"]

_BLOCK, _WIDE_BLOCK = 128, 64  # threads of a block, each warp of which has 16 rows
_ENOUGH_BLOCKS = 256  # of keys, each with all heads that share them: more than the multiprocessors of a device
_BATCH_AXES = 3
_NOWHERE = np.uint64(0)  # the null pointer
_MOST_LENGTH = 2**31 - _BLOCK  # rows of a matrix, and matrices
_MOST_LAYOUTS = 1024
_NO_MASK, _BOOL_MASK, _ADDED_MASK = range(3)

LAYOUT = np.dtype(
    [
        ("batch", "i8", 3), ("q", "i8", 4), ("k", "i8", 4), ("v", "i8", 4), ("g", "i8", 4), ("mask", "i8", 5),
        ("queries", "i8"), ("keys", "i8"), ("width", "i8"), ("value_width", "i8"), ("heads", "i8"), ("q_head", "i8"),
        ("g_head", "i8"), ("mask_head", "i8"), ("scale", "f4"), ("dropped", "f4"), ("kept", "f4"), ("causal", "i4"),
        ("mask_kind", "i4"), ("padding", "i4"),
    ]
)  # fmt: skip
"""``Layout`` of attention.cu."""


class _How(NamedTuple):
    """What attention does beside its arrays."""

    causal: bool
    scale: float
    p: float = 0.0  # the probability that a weight is dropped


class CupyAttention(AttentionKernels):
    xp: Any
    _kernels: Kernels
    sum_to: Callable[..., Any]  # of ShapeKernels
    raw: Any  # of Backend
    _place: Callable[..., tuple[Any, Any, Any]]  # of CupyRandomKernels
    _cudnn: Any  # of CupyConvolutions

    def attention(self, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float) -> tuple[Any, Any]:
        if why_not(q, k, v, mask) is None and self._cudnn is not None:
            made = attend(self._cudnn, q, k, v, causal=causal, scale=scale)
            if made is not None:
                return made
        if not _fits(q, k, v):
            return super().attention(q, k, v, mask, causal=causal, scale=scale)
        return self._attended(q, k, v, mask, _How(causal, scale), 0, 0, _NOWHERE, _NOWHERE)

    def attention_backward(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, *, causal: bool, scale: float,
        needs: tuple[bool, ...],
    ) -> Any:  # fmt: skip
        same = _same(g, q, out, lse)
        if same and why_not(q, k, v, mask, backward=True) is None and self._cudnn is not None:
            made = attend_backward(self._cudnn, g, q, k, v, out, lse, causal=causal, scale=scale)
            if made is not None:
                return (*[x if needed else None for x, needed in zip(made, needs[:3], strict=True)], None)
        if not _fits(q, k, v) or not same:
            return super().attention_backward(g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=needs)
        to_mask = None
        if needs[3]:  # as large as the scores, or summed over them: nothing to be saved there
            only = (False, False, False, True)
            _, _, _, to_mask = super().attention_backward(
                g, q, k, v, mask, out, lse, causal=causal, scale=scale, needs=only
            )
        return (*self._slopes(g, q, k, v, mask, out, lse, _How(causal, scale), _NOWHERE, needs), to_mask)

    # ---- with dropout of the weights

    def attends_with_dropout(self, q: Any, k: Any, v: Any) -> bool:
        return _fits(q, k, v)

    def attention_dropout(
        self, q: Any, k: Any, v: Any, mask: Any, *, causal: bool, scale: float, p: float, generator: Any
    ) -> tuple[Any, Any, Any]:
        if not _fits(q, k, v):
            define: Any = OPS["attention_dropout"].define
            made: tuple[Any, Any, Any] = define(
                self.raw, q, k, v, mask, causal=causal, scale=scale, p=p, generator=generator
            )
            return made
        place = self.xp.empty((2,), dtype=np.int64)
        stream = self._place(math.prod(q.shape[:-1]) * k.shape[-2], generator)
        out, lse = self._attended(q, k, v, mask, _How(causal, scale, p), *stream, place)
        return out, lse, place

    def attention_dropout_backward(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, place: Any, *, causal: bool, scale: float,
        p: float, needs: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        how = {"causal": causal, "scale": scale, "p": p}
        given = (g, q, k, v, mask, out, lse, place)
        define: Any = OPS["attention_dropout_backward"].define
        if not _fits(q, k, v) or not _same(g, q, out, lse):
            made: tuple[Any, ...] = define(self.raw, *given, **how, needs=needs)
            return made
        to_mask = define(self.raw, *given, **how, needs=(False, False, False, True))[3] if needs[3] else None
        return (*self._slopes(*given[:-1], _How(causal, scale, p), place, needs), to_mask)

    # ---- what both have in common

    def _attended(
        self, q: Any, k: Any, v: Any, mask: Any, how: _How, seed: int, offset: int, source: Any, place: Any
    ) -> tuple[Any, Any]:
        """(out, lse), by our kernel; with dropout, it writes to ``place`` where in the stream it was."""
        xp = self.xp
        out = xp.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype)
        lse = xp.empty(q.shape[:-1], dtype=np.float32)
        (q, k, v), mask, scores = self._laid_out((q, k, v), mask)
        layout, (q, k, v), mask = self._described((q, k, v), mask, scores, how)
        self._run("forward", how, layout, q, k, v, _given(mask), out, lse, seed, offset, source, place)
        return out, lse

    def _slopes(
        self, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, how: _How, place: Any,
        needs: tuple[bool, ...],
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """The gradients in query, key and value that are needed, by our kernels."""
        if not any(needs[:3]):
            return None, None, None
        xp = self.xp
        to_q = to_k = to_v = None
        shape, of_keys, of_values = q.shape, k.shape, v.shape
        arrays, mask, scores = self._laid_out((q, k, v, g), mask)
        layout, (q, k, v, g), mask = self._described(arrays, mask, scores, how)
        out, lse = xp.ascontiguousarray(out), xp.ascontiguousarray(lse)
        delta = xp.empty(lse.shape, dtype=np.float32)
        self._kernels.launch(_named("attentiondelta", q, v), lse.size * 32, layout, g, out, delta, block=_BLOCK)
        given = (g, q, k, v, _given(mask), lse, delta, place)
        if needs[0]:
            to_q = xp.empty(shape, dtype=q.dtype)
            self._run("query", how, layout, *given, to_q)
        if needs[1] or needs[2]:
            summed = q.shape[:-2] != of_keys[:-2] and _blocks(of_keys[-2], of_keys[:-2], _BLOCK) >= _ENOUGH_BLOCKS
            if summed:
                layout = self._layout((q, k, v, g), mask, scores, how, summed=True)
            wide = max(q.shape[-1], v.shape[-1]) > ATTENTION_JOINT
            if needs[1] or not wide:
                to_k = xp.empty(of_keys if summed else k.shape, dtype=k.dtype)
            if needs[2] or not wide:
                to_v = xp.empty(of_values if summed else v.shape, dtype=v.dtype)
            if to_k is not None:
                self._run("key", how, layout, *given, to_k, _NOWHERE if to_v is None else to_v)
            if wide and to_v is not None:
                self._run("value", how, layout, *given, _NOWHERE, to_v)
            to_k = self._gathered(to_k, of_keys) if needs[1] else None
            to_v = self._gathered(to_v, of_values) if needs[2] else None
        return to_q, to_k, to_v

    def _run(self, kind: str, how: _How, layout: Any, *arrays: Any) -> None:
        q, v = (arrays[0], arrays[2]) if kind == "forward" else (arrays[1], arrays[3])
        wide = q.itemsize == 2 and max(q.shape[-1], v.shape[-1]) > ATTENTION_JOINT and kind in ("query", "key")
        block = _WIDE_BLOCK if wide else _BLOCK
        rows = layout["keys" if kind in ("key", "value") else "queries"]
        blocks = _blocks(int(rows), tuple(layout["batch"].tolist()), block)
        name = _named(("dropped" if how.p else "attention") + kind, q, v)
        self._kernels.launch(name, blocks * block, layout, *arrays, block=block)

    def _gathered(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A gradient in keys or values by head of queries, summed over those that share one."""
        return x if x.shape == shape else self.sum_to(x, shape=(*shape[:-2], 1, *shape[-2:])).reshape(shape)

    def _laid_out(self, arrays: tuple[Any, ...], mask: Any) -> tuple[tuple[Any, ...], Any, tuple[int, ...]]:
        """The arrays and the mask as kernels can be told of them, and the shape of the scores.

        Arrays stay where they lie if their elements do side by side. Of heads that share keys, keys and values get an
        axis that no step leads over.
        """
        xp = self.xp
        arrays = tuple(
            [x if x.strides[-1] == x.itemsize or x.shape[-1] == 1 else xp.ascontiguousarray(x) for x in arrays]
        )
        if arrays[0].shape[:-2] != arrays[1].shape[:-2]:
            arrays, mask = _apart(xp, arrays, mask)
        return arrays, mask, (*arrays[0].shape[:-1], arrays[1].shape[-2])

    def _described(
        self, arrays: tuple[Any, ...], mask: Any, scores: tuple[int, ...], how: _How
    ) -> tuple[Any, tuple[Any, ...], Any]:
        """The kernels' struct, and the arrays and the mask as it tells of them: copies, where more than three axes lead
        through the batch."""
        xp = self.xp
        layout = self._layout(arrays, mask, scores, how)
        if layout is None:
            arrays = tuple([xp.ascontiguousarray(x) for x in arrays])
            layout = self._layout(arrays, mask, scores, how)
        if layout is None:
            mask = xp.ascontiguousarray(xp.broadcast_to(mask, scores))
            layout = self._layout(arrays, mask, scores, how)
        return layout, arrays, mask

    def _layout(
        self, arrays: tuple[Any, ...], mask: Any, scores: tuple[int, ...], how: _How, summed: bool = False
    ) -> Any:
        """The struct; None if more than three axes lead through the batch. ``summed``: the last of them is that of the
        heads that share keys, which a block goes through by itself."""
        layouts: dict[Any, Any] = self.__dict__.setdefault("_attention_layouts", {})
        seen = None if mask is None else (mask.shape, mask.strides, mask.dtype.char)
        key = (tuple([(x.shape, x.strides) for x in arrays]), arrays[0].itemsize, seen, how, summed)
        if key not in layouts:
            if len(layouts) >= _MOST_LAYOUTS:
                layouts.clear()
            layouts[key] = _struct(arrays, mask, scores, how, summed)
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
        NAMES[q.dtype] in ATTENTION_TYPES
        and max(q.shape[-1], v.shape[-1]) <= ATTENTION_WIDTHS[-1]
        and max(q.shape[-2], k.shape[-2], math.prod(q.shape[:-2])) <= _MOST_LENGTH
        and bool(q.size and k.size and v.size)
    )


def _given(mask: Any) -> Any:
    return _NOWHERE if mask is None else mask


def _same(g: Any, q: Any, out: Any, lse: Any) -> bool:
    """Whether these have the dtypes that our kernels, and cuDNN, read."""
    return bool(g.dtype == q.dtype and out.dtype == q.dtype and lse.dtype == np.float32)


def _blocks(rows: int, batch: tuple[int, ...], block: int) -> int:
    return -(-rows // (block // 2)) * math.prod(batch)


def _named(kind: str, q: Any, v: Any) -> str:
    widest = max(q.shape[-1], v.shape[-1])
    return f"{kind}_{NAMES[q.dtype]}_{next(width for width in ATTENTION_WIDTHS if width >= widest)}"


def _steps(x: Any, rank: int) -> list[int]:
    """By axis, the last ``rank``, elements from one to the next; 0 where there is but one."""
    item = x.itemsize
    steps = [0 if size == 1 else step // item for size, step in zip(x.shape, x.strides, strict=True)]
    return [0] * (rank - len(steps)) + steps


def _struct(arrays: tuple[Any, ...], mask: Any, scores: tuple[int, ...], how: _How, summed: bool) -> Any:
    rank = len(scores)
    steps = [_steps(x, rank) for x in arrays]
    steps.append([0] * rank if mask is None else _steps(mask, rank))
    lead = rank - 3 if summed else rank - 2
    axes = [(scores[axis], *[step[axis] for step in steps]) for axis in reversed(range(lead)) if scores[axis] != 1]
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
    made["heads"] = 1
    if summed:
        made["heads"], made["q_head"], made["g_head"] = scores[-3], steps[0][-3], steps[3][-3]
        made["mask_head"] = steps[-1][-3]
    made["scale"], made["causal"] = how.scale, how.causal
    made["dropped"], made["kept"] = how.p, 1 / (1 - how.p) if how.p < 1 else 0
    made["mask_kind"] = _NO_MASK if mask is None else _BOOL_MASK if mask.dtype.kind == "b" else _ADDED_MASK
    return made
