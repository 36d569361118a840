"""Sums, means and maxima of rows of a table: bags of words, without the rows in memory for longer than it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import known, recorded
from ..errors import ArgumentError, DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import integer, np_dtype, require_optional, require_tensors, reshaped, statistic_dtype
from .create import from_numpy, full
from .embedding import looked_up
from .join import cat
from .norm import fitted
from .ranges import arange
from .record import Spec, op
from .required import require
from .samples import Arg, Sample
from .search import searchsorted

__all__: list[str] = []  # users know it as a function of nn.functional

_INT64 = np.dtype(np.int64)
_FIRST = "embedding_bag: offsets[0] has to be 0, the first bag starts there; got {value}."


def _infer(rows: Any, bag: Any, *, bags: int, mode: str) -> Spec:
    return Spec((bags, rows.shape[1]), rows.dtype)


def _define(F: Any, rows: Any, bag: Any, *, bags: int, mode: str) -> Any:
    """Rows of bag ``bags`` belong to none: they are padding."""
    dtype = np_dtype(rows)
    count, width = rows.shape
    if mode == "max":
        return _maximum(F, rows, bag, bags)
    rows = fitted(F, rows, statistic_dtype(dtype))
    total = F.index_add(F.zeros_as(rows, shape=(bags + 1, width)), bag, rows, dim=0)
    total = F.slice(total, key=(slice(0, bags, 1),))
    if mode == "mean":
        ones = F.full_as(F.zeros_as(rows, shape=(count,)), value=1.0)
        held = F.index_add(F.zeros_as(rows, shape=(bags + 1,)), bag, ones, dim=0)
        held = F.slice(held, key=(slice(0, bags, 1),))
        total = F.div(total, reshaped(F, F.where(F.gt(held, 0.0), held, 1.0), (bags, 1)))
    return fitted(F, F.contiguous(total), dtype)


def _maximum(F: Any, rows: Any, bag: Any, bags: int) -> Any:
    count, width = rows.shape
    if not count:
        return F.zeros_as(rows, shape=(bags, width))
    spread = F.expand(reshaped(F, bag, (count, 1)), shape=(count, width))
    lowest = F.full_as(F.zeros_as(rows, shape=(bags + 1, width)), value=float("-inf"))
    best = F.scatter_reduce(lowest, spread, rows, dim=0, reduce="amax")
    # the first row that has the maximum gets the gradient
    ramp = reshaped(F, F.sub(F.cumsum(F.full_as(bag, value=1), dim=0), 1), (count, 1))
    hit = F.logical_or(F.eq(rows, F.gather(best, spread, dim=0)), F.ne(rows, rows))
    place = F.where(hit, F.expand(ramp, shape=(count, width)), count)
    none = F.full_as(F.zeros_as(bag, shape=(bags + 1, width)), value=count)
    first = F.slice(F.scatter_reduce(none, spread, place, dim=0, reduce="amin"), key=(slice(0, bags, 1),))
    empty = F.eq(first, count)
    return F.where(empty, 0.0, F.gather(rows, F.contiguous(F.where(empty, 0, first)), dim=0))


def _samples() -> list[Sample]:
    bag = Arg((5,), kind="i", values=(0, 0, 2, 3, 2))  # bag 1 is empty, bag 3 is none
    count = 15
    distinct = Arg((5, 3), values=tuple((i * 7 % count) * 0.25 - 1.7 for i in range(count)))
    return [
        Sample((Arg((5, 3)), bag), {"bags": 3, "mode": "sum"}, name="sum"),
        Sample((Arg((5, 3), layout="T"), bag), {"bags": 3, "mode": "mean"}, name="mean"),
        Sample((distinct, bag), {"bags": 3, "mode": "max"}, name="max"),
        Sample((Arg((0, 3)), Arg((0,), kind="i")), {"bags": 2, "mode": "sum"}, name="empty"),
    ]


pooled_rows = op(
    "pooled_rows",
    raises=True,
    infer=_infer,
    define=_define,
    samples=_samples,
    doc="Rows (n, width) brought together by bag: (bags, width). Empty bags are zero.",
)


def _bag_rows_infer(weight: Any, index: Any, ends: Any, *, mean: bool) -> Spec:
    return Spec((ends.shape[0] - 1, weight.shape[1]), weight.dtype)


def _bag_of(F: Any, index: Any, ends: Any) -> Any:
    """The bag of each index."""
    ramp = F.sub(F.cumsum(F.full_as(index, value=1), dim=0), 1)
    return F.sub(F.searchsorted(ends, ramp, right=True), 1)


def _bag_rows_rule(
    F: Any, g: Any, weight: Any, index: Any, ends: Any, *, needs: Any, mean: bool
) -> tuple[Any, Any, Any]:
    bags = ends.shape[0] - 1
    if mean:
        held = F.sub(F.slice(ends, key=(slice(1, bags + 1, 1),)), F.slice(ends, key=(slice(0, bags, 1),)))
        share = F.cast(F.where(F.gt(held, 0), held, 1), dtype=np_dtype(g))
        g = F.div(g, reshaped(F, share, (bags, 1)))
    rows = known(F).index_select(g, _bag_of(F, index, ends), dim=0)
    return F.embedding_backward(rows, index, num_embeddings=weight.shape[0], padding_idx=None), None, None


def _bag_rows_samples() -> list[Sample]:
    index, ends = Arg((5,), kind="i", values=(0, 3, 3, 1, 0)), Arg((4,), kind="i", values=(0, 2, 2, 5))
    none = (Arg((0,), kind="i"), Arg((3,), kind="i", values=(0, 0, 0)))
    return [
        Sample((Arg((4, 3)), index, ends), {"mean": False}, name="sum"),
        Sample((Arg((4, 3), layout="T"), index, ends), {"mean": True}, name="mean"),
        Sample((Arg((4, 3)), *none), {"mean": True}, name="empty"),
    ]


bag_rows = op(
    "bag_rows",
    raises=True,
    infer=_bag_rows_infer,
    define=lambda F, weight, index, ends, *, mean: F.pooled_rows(
        F.embedding(weight, index), _bag_of(F, index, ends), bags=ends.shape[0] - 1, mode="mean" if mean else "sum"
    ),
    rule=_bag_rows_rule,
    keeps=("index", "ends"),
    samples=_bag_rows_samples,
    doc="Sums or means of the rows that ``index[ends[b]:ends[b + 1]]`` names, without the rows in memory.",
)


def _ends(offsets: Tensor, count: int) -> Tensor:
    """Where bags begin and the last one ends, on the tensors themselves: a program serves all offsets."""
    starts: Any = recorded.cast(offsets, dtype=_INT64) if offsets.dtype.name != "int64" else offsets
    ends: Any = cat((starts, full((1,), count, dtype="int64", device=offsets.device)))
    if starts._data.size:
        require(starts[:1], 0, 0, "argument", _FIRST)
        text = f"embedding_bag: offsets must not fall, nor exceed the {count} indices; one bag would have {{value}}."
        require(pw.sub(ends[1:], starts), 0, count, "argument", text)
    return ends


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of rows of a table, for bags of indices.

    Args:
        input: integers (bags, n): each row is a bag; or (n,) with ``offsets``.
        weight: (rows, width).
        offsets: int (bags,): where each bag starts in a 1-d input. Bags may be empty: they give zeros.
        max_norm: rows that are used and whose ``norm_type``-norm is larger are first scaled down to it, in place.
        scale_grad_by_freq: gradients of rows are divided by how often they are named; not for "max".
        mode: "sum", "mean" or "max".
        sparse: must be False: gradients are dense.
        per_sample_weights: of the input's shape; for "sum".
        include_last_offset: ``offsets`` has one entry more, the end of the last bag.
        padding_idx: rows of this index do not count; negative counts from the end.
    Returns: (bags, width).
    Raises: ValueError for arguments that exclude each other; ShapeError, DTypeError, IndexOutOfRange.
    """
    require_tensors("embedding_bag", input=input, weight=weight)
    if weight.dtype.category == 1 and input.dtype.category > 1:
        raise ArgumentError("embedding_bag: the arguments were changed: input comes first, then weight.")
    if input.dtype.name not in ("int64", "int32"):
        raise DTypeError(f"embedding_bag: indices must be int64 or int32, got {input.dtype}.")
    require_optional("embedding_bag", offsets=offsets, per_sample_weights=per_sample_weights)
    if offsets is not None and offsets.dtype.name not in ("int64", "int32"):
        raise DTypeError(f"embedding_bag: offsets must be int64 or int32, got {offsets.dtype}.")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode must be 'sum', 'mean' or 'max', got {mode!r}.")
    if sparse:
        raise ValueError("embedding_bag: gradients are dense; leave sparse False.")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("embedding_bag: max mode does not support scaling the gradient by the frequency.")
    if weight._data.ndim != 2:
        raise ShapeError(f"embedding_bag: the weight must be (rows, width), got shape {tuple(weight.shape)}.")
    if per_sample_weights is not None:
        if mode != "sum":
            raise NotImplementedError(f"embedding_bag: per_sample_weights are for mode 'sum', got {mode!r}.")
        if tuple(per_sample_weights.shape) != tuple(input.shape):
            raise ArgumentError(
                f"embedding_bag: per_sample_weights has shape {tuple(per_sample_weights.shape)}, the input "
                f"{tuple(input.shape)}; they must be equal."
            )
        if per_sample_weights.dtype != weight.dtype:
            raise DTypeError(
                f"embedding_bag: per_sample_weights are {per_sample_weights.dtype}, the weight {weight.dtype}."
            )
    index = recorded.cast(input, dtype=_INT64) if input.dtype.name != "int64" else input
    count = index._data.size
    flat: Any = index.reshape(-1)
    if input._data.ndim == 2:
        if offsets is not None:
            raise ValueError("embedding_bag: an input of 2 dimensions is its bags; offsets have to be None.")
        bags = kept = int(input._data.shape[0])
        ends: Any = from_numpy(np.arange(bags + 1) * (count // bags if bags else 0)).to(input.device)
    elif input._data.ndim == 1:
        if offsets is None:
            raise ValueError("embedding_bag: an input of 1 dimension needs offsets.")
        if offsets._data.ndim != 1:
            raise ValueError(f"embedding_bag: offsets must have 1 dimension, got shape {tuple(offsets.shape)}.")
        ends = _ends(offsets, count)
        bags = kept = int(offsets._data.shape[0])
        if include_last_offset:
            if not bags:
                raise ArgumentError("embedding_bag: include_last_offset needs at least one offset.")
            kept -= 1  # what follows the last end is in a bag that nobody gets
    else:
        raise ValueError(f"embedding_bag: the input must have 1 or 2 dimensions, got shape {tuple(input.shape)}.")
    plain = padding_idx is None and per_sample_weights is None and max_norm is None and not scale_grad_by_freq
    if plain and mode != "max" and bags:
        found = bag_rows(weight, flat, ends.to(weight.device), mean=mode == "mean")
        return found if kept == bags else found[:kept]
    bag: Any = pw.sub(searchsorted(ends, arange(count, device=ends.device), right=True), 1).to(input.device)
    if padding_idx is not None:
        rows, padding_idx = int(weight.shape[0]), integer("embedding_bag", "padding_idx", padding_idx)
        if not -rows <= padding_idx < rows:
            raise IndexOutOfRange(f"embedding_bag: padding_idx {padding_idx} is out of range for {rows} rows.")
        bag = pw.where(pw.eq(flat, padding_idx % rows), bags, bag)
    found = looked_up("embedding_bag", weight, flat, None, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        found = pw.mul(found, per_sample_weights.reshape(-1, 1))
    found = pooled_rows(found, bag, bags=bags, mode=mode)
    return found if kept == bags else found[:kept]
