"""Attention by cuDNN: which calls it is asked for, its graphs, and how arrays are given to it.

``why_not`` decides, ``attend`` and ``attend_backward`` compute. Arrays stay where they lie; results lie as the query,
key and value do, so that heads cut from packed positions are put together again without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import cuda as permissions
from .. import cudnn as library
from .cudnn import ALIGNMENT, TYPES, Cudnn, Graph, Operand, planned
from .names import NAMES

__all__ = ["Attention", "attend", "attend_backward", "described", "unwanted", "why_not"]

_WIDEST = 256  # of a head: what some architectures take; plans say whether this one does
_MOST_SLOPES = 256 << 20  # bytes that a deterministic backward may keep of the scores' gradients at a time


class Attention(NamedTuple):
    """All that a plan depends on.

    ``kind``: "forward" of (q, k, v) into (out, lse), "backward" of (q, k, v, out, slope, lse) into the gradients of q,
    k and v. Axes are samples, heads, positions and width; lse is float32, of width 1.
    """

    kind: str
    dtype: str
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    causal: bool
    scale: float

    def build(self, frontend: Any, **where: Any) -> Graph | None:
        graph, tensors = described(frontend, self, **where)
        return planned(frontend, graph, tensors, unwanted(frontend.numerical_note), "attention")

    def lacking(self) -> str | None:
        q, k, v = (one.shape for one in self.operands[:3])
        which = "" if self.kind == "forward" else "the gradients of "
        return f"{which}attention of {q}, {k} and {v} in {self.dtype}"


def described(frontend: Any, what: Attention, **where: Any) -> tuple[Any, list[Any]]:
    """A graph of the frontend's without a plan; its operands, then its results."""
    half, single = getattr(frontend.data_type, TYPES[what.dtype]), frontend.data_type.FLOAT
    graph = frontend.pygraph(io_data_type=half, intermediate_data_type=single, compute_data_type=single, **where)
    kinds = [single if one.shape[3] == 1 else half for one in what.operands]  # widths of heads are multiples of 8
    operands = [
        graph.tensor(name=f"operand{i}", dim=list(one.shape), stride=list(one.steps), data_type=kind)
        for i, (one, kind) in enumerate(zip(what.operands, kinds, strict=True))
    ]
    how = {"attn_scale": what.scale}
    if what.causal:  # query i looks at keys 0 to i, however many of either there are
        how |= {"diagonal_alignment": frontend.diagonal_alignment.TOP_LEFT, "diagonal_band_right_bound": 0}
    if what.kind == "forward":
        q, k, v = operands
        results = graph.sdpa(q=q, k=k, v=v, generate_stats=True, **how)
    else:
        q, k, v, out, slope, lse = operands
        results = graph.sdpa_backward(
            q=q, k=k, v=v, o=out, dO=slope, stats=lse, use_deterministic_algorithm=True, **how
        )  # fmt: skip
    for made, one in zip(results, what.results, strict=True):
        made.set_output(True).set_dim(list(one.shape)).set_stride(list(one.steps))
        made.set_data_type(single if one.shape[3] == 1 else half)
    return graph, [*operands, *results]


def unwanted(notes: Any) -> list[Any]:
    """What no plan may do: other bits in the next run, sums in less than float32."""
    return [notes.NONDETERMINISTIC, notes.REDUCED_PRECISION_REDUCTION]


def why_not(q: Any, k: Any, v: Any, mask: Any, backward: bool = False) -> str | None:
    """Why cuDNN is not asked for this attention, or for its gradients; None if it is.

    It may still have no plan. Dropout is another op, which it is never asked for: it would draw other masks.
    """
    if not library.enabled or not permissions.cudnn_sdp_enabled():
        return "it is switched off"
    if NAMES[q.dtype] not in ("float16", "bfloat16"):
        return "it takes half precision only"
    if not (q.size and k.size and v.size):
        return "there is nothing to compute"
    if q.ndim > 4:
        return "it takes one axis of samples and one of heads"
    if q.shape[-1] % 8 or v.shape[-1] % 8 or max(q.shape[-1], v.shape[-1]) > _WIDEST:
        return f"widths of heads are multiples of 8 up to {_WIDEST}"
    if mask is not None:
        # Queries that look nowhere get other results in different versions, and with a mask the gradient in q is NaN on
        # Hopper where scores are low (pytorch/pytorch#196678).
        return "masks are our kernels', which read them where they lie"
    if q.shape[-2] == 1:
        # A cache would want a plan for each length. Wrong results: pytorch/pytorch#193893, NVIDIA/cudnn-frontend#1072.
        return "a single query is our kernels'"
    if backward and k.shape[-2] % 128 == 64:
        # the last tile on Hopper: NaN where scores are low (NVIDIA/cudnn-frontend#628)
        return "gradients for 64 keys more than a multiple of 128 are our kernels'"
    return None


def attend(cudnn: Cudnn, q: Any, k: Any, v: Any, *, causal: bool, scale: float) -> tuple[Any, Any] | None:
    """(out, lse) by cuDNN; None if it has no plan."""
    xp = cudnn.xp
    lead = q.shape[:-1]
    q, k, v = (_taken(xp, x) for x in (q, k, v))
    out = _lying_as(xp, q, v.shape[3])
    lse = xp.empty((*q.shape[:3], 1), dtype=np.float32)
    graph = _plan(cudnn, "forward", (q, k, v), (out, lse), causal, scale)
    if graph is None:
        return None
    cudnn.run(graph, (q, k, v), out, lse)
    return out.reshape(*lead, out.shape[3]), lse.reshape(lead)


def attend_backward(
    cudnn: Cudnn, g: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, *, causal: bool, scale: float
) -> tuple[Any, Any, Any] | None:
    """The gradients of q, k and v by cuDNN, the same bits in every run; None if it has no plan.

    On Hopper it keeps the gradients of all scores for that, so a large call is made in pieces.
    """
    xp = cudnn.xp
    shapes = [x.shape for x in (q, k, v)]
    q, k, v, out, g = (_taken(xp, x) for x in (q, k, v, out, g))
    lse = xp.ascontiguousarray(lse).reshape(*q.shape[:3], 1)
    grads = [_lying_as(xp, x, x.shape[3]) for x in (q, k, v)]
    by_head = 2 * (q.shape[1] // k.shape[1]) * _tiled(q.shape[2]) * _tiled(k.shape[2])
    for samples, heads in _pieces(k.shape[0], k.shape[1], by_head):
        operands = [_aligned(xp, _cut(x, samples, heads, k.shape[1])) for x in (q, k, v, out, g, lse)]
        results = [_cut(x, samples, heads, k.shape[1]) for x in grads]
        graph = _plan(cudnn, "backward", operands, results, causal, scale)
        if graph is None:
            return None
        cudnn.run(graph, operands, *results)
    to_q, to_k, to_v = (x.reshape(shape) for x, shape in zip(grads, shapes, strict=True))
    return to_q, to_k, to_v


def _plan(
    cudnn: Cudnn, kind: str, operands: Sequence[Any], results: Sequence[Any], causal: bool, scale: float
) -> Graph | None:
    seen = [tuple([_operand(x) for x in arrays]) for arrays in (operands, results)]
    return cudnn.plan(Attention(kind, NAMES[operands[0].dtype], seen[0], seen[1], causal, scale))


def _taken(xp: Any, x: Any) -> Any:
    """``x`` with all four axes, where it lies if cuDNN takes that: elements of a row side by side, rows at multiples of
    16 bytes."""
    x = x[(None,) * (4 - x.ndim)]
    apart = [step for size, step in zip(x.shape[:3], x.strides[:3], strict=True) if size > 1]
    if x.strides[3] != x.itemsize or any(step <= 0 or step % ALIGNMENT for step in apart):
        x = xp.ascontiguousarray(x)
    return _aligned(xp, x)


def _aligned(xp: Any, x: Any) -> Any:
    return xp.array(x, order="C") if x.data.ptr % ALIGNMENT else x


def _lying_as(xp: Any, x: Any, width: int) -> Any:
    """Room for a result of the shape of x but for its width: heads within positions where they are in x."""
    samples, heads, positions = x.shape[:3]
    if x.strides[1] < x.strides[2]:
        return xp.empty((samples, positions, heads, width), dtype=x.dtype).swapaxes(1, 2)
    return xp.empty((samples, heads, positions, width), dtype=x.dtype)


def _operand(x: Any) -> Operand:
    """Shape and steps; an axis of one element has the step that a dense array's would."""
    steps, dense = [0] * 4, 1
    for axis in reversed(range(4)):
        steps[axis] = x.strides[axis] // x.itemsize if x.shape[axis] > 1 else dense
        dense *= x.shape[axis]
    return Operand(tuple(x.shape), tuple(steps))


def _tiled(length: int) -> int:
    return -(-length // 128) * 128


def _pieces(samples: int, heads: int, by_head: int) -> Iterator[tuple[slice, slice]]:
    """Samples and heads of keys: as many samples as fit into the workspace, or parts of one. Pieces are about as large
    as each other, so that most share a plan."""
    fitting = max(1, _MOST_SLOPES // by_head)  # heads
    for some in _evenly(samples, max(1, fitting // heads)):
        for part in _evenly(heads, fitting):
            yield some, part


def _evenly(count: int, most: int) -> Iterator[slice]:
    pieces = -(-count // most)
    step = -(-count // pieces)
    for at in range(0, count, step):
        yield slice(at, min(count, at + step))


def _cut(x: Any, samples: slice, heads: slice, of: int) -> Any:
    """Some samples and heads of x, given as heads of keys out of ``of``, which x may have several times."""
    times = x.shape[1] // of
    return x[samples, heads.start * times : heads.stop * times]
