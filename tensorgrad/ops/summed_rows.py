"""Rows picked by one index and added up by another, as in graph networks, without the picked rows in memory: three ops
that the compiler makes for backends with kernels for them.

``row_numbers`` is an index, checked where it picks; ``grouped_rows`` brings together what goes to the same place;
``summed_rows`` adds it up.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import numpy_dtype
from ..errors import ArgumentError, DTypeError, ShapeError
from .checks import reshaped
from .record import Spec, op
from .samples import Arg, Sample, int_arg

__all__ = ["ADDS", "PICKS"]

PICKS = ("index", "index_select", "gather", "embedding")  # ops whose indices row_numbers checks
ADDS = ("index_add", "index_put", "scatter_add", "embedding_backward")  # and grouped_rows

_INT64 = numpy_dtype("int64")


def _require_index(name: str, what: str, index: Any) -> None:
    if index.ndim != 1:
        raise ShapeError(f"{name}: {what} must have one dimension, got shape {tuple(index.shape)}.")
    if index.dtype != _INT64:
        raise DTypeError(f"{name}: {what} must be int64, got {index.dtype}.")


def _require_op(name: str, asked: Any, known: tuple[str, ...]) -> None:
    if asked not in known:  # a program's file may say anything
        raise ArgumentError(f"{name}: name must be one of {', '.join(known)}, got {asked!r}.")


def _require_count(name: str, what: str, count: Any) -> None:
    if type(count) is not int or count < 0:
        raise ArgumentError(f"{name}: {what} must be a number of rows, got {count!r}.")


def _numbers_infer(index: Any, *, rows: int, negative: bool, name: str) -> Spec:
    _require_index("row_numbers", "index", index)
    _require_op("row_numbers", name, PICKS)
    _require_count("row_numbers", "rows", rows)
    return Spec(tuple(index.shape), index.dtype)


row_numbers = op(
    "row_numbers",
    raises=True,
    infer=_numbers_infer,
    samples=lambda: [
        Sample((int_arg((4,), 1, -3, 2, -1),), {"rows": 3, "negative": True, "name": "index"}, name="negative"),
        Sample((int_arg((3,), 1, 0, 2),), {"rows": 3, "negative": False, "name": "index_select"}, name="positive"),
        Sample((int_arg((0,)),), {"rows": 0, "negative": False, "name": "gather"}, name="nothing"),
    ],
    doc="``index`` counted from the first of ``rows``; one out of range is the error that the op ``name`` raises.",
)


def _grouped_infer(
    target: Any, source: Any, *, groups: int, negative: bool, name: str, keeps: bool
) -> tuple[Spec | None, ...]:
    _require_index("grouped_rows", "target", target)
    if source is not None:
        _require_index("grouped_rows", "source", source)
        if source.shape != target.shape:
            raise ShapeError(f"grouped_rows: {target.shape[0]} targets, but {source.shape[0]} sources.")
    _require_op("grouped_rows", name, ADDS)
    _require_count("grouped_rows", "groups", groups)
    rows = Spec(tuple(target.shape), _INT64)
    return rows, Spec((groups + 1,), _INT64), rows if keeps else None


def _grouped_samples() -> list[Sample]:
    def attrs(groups: int, negative: bool, keeps: bool) -> dict[str, Any]:
        name = "index_put" if negative else "index_add"
        return {"groups": groups, "negative": negative, "name": name, "keeps": keeps}

    target, source = int_arg((5,), 2, 0, 2, 3, 0), int_arg((5,), 7, 1, 4, 1, 0)
    return [
        Sample((target, source), attrs(4, False, False), name="rows"),
        Sample((target, None), attrs(5, False, True), name="positions"),
        Sample((int_arg((5,), -1, 0, -1, 1, 2), source), attrs(3, True, True), name="negative"),
        Sample((int_arg((0,)), int_arg((0,))), attrs(2, False, True), name="nothing"),
    ]


grouped_rows = op(
    "grouped_rows",
    raises=True,
    infer=_grouped_infer,
    outputs=("rows", "ends", "positions"),
    samples=_grouped_samples,
    doc="Positions of ``target`` brought together by group, in their order: ``source`` there (the positions themselves "
    "without one), where groups end, and the positions if it ``keeps`` them. Group g lies in ``ends[g]:ends[g + 1]``.",
)


def _summed_infer(x: Any, rows: Any, ends: Any, weights: Any, positions: Any, base: Any) -> Spec:
    for what, index in (("rows", rows), ("ends", ends)):
        _require_index("summed_rows", what, index)
    if not x.ndim or not ends.shape[0]:
        raise ShapeError("summed_rows: needs a table, and where groups end.")
    if weights is not None:
        _require_index("summed_rows", "positions", positions)
        shape = weights.shape[1:]
        heads = next((k for k, (n, m) in enumerate(zip(shape, x.shape[1:], strict=False)) if n != m), len(shape))
        if positions.shape != rows.shape or weights.ndim != x.ndim or any(n != 1 for n in shape[heads:]):
            raise ShapeError(
                f"summed_rows: {rows.shape[0]} rows of shape {tuple(x.shape[1:])} with weights {tuple(weights.shape)} "
                f"at {positions.shape[0]} positions."
            )
    result = (ends.shape[0] - 1, *x.shape[1:])
    if base is not None and tuple(base.shape) != result:
        raise ShapeError(f"summed_rows: the base has shape {tuple(base.shape)}, the sums have {result}.")
    for other in (weights, base):
        if other is not None and other.dtype != x.dtype:
            raise DTypeError(f"summed_rows: rows of {x.dtype} and {other.dtype} can't be added up.")
    return Spec(result, x.dtype)


def _summed_define(F: Any, x: Any, rows: Any, ends: Any, weights: Any, positions: Any, base: Any) -> Any:
    picked = F.index_select(x, rows, dim=0)
    if weights is not None:
        picked = F.mul(picked, F.index_select(weights, positions, dim=0))
    ramp = F.sub(F.cumsum(F.full_as(rows, value=1), dim=0), 1)
    group = F.sub(F.searchsorted(ends, ramp, right=True), 1)
    start = F.zeros_as(picked, shape=(ends.shape[0] - 1, *x.shape[1:])) if base is None else base
    return F.index_add(start, group, reshaped(F, picked, (rows.shape[0], *x.shape[1:])), dim=0)


def _summed_samples() -> list[Sample]:
    rows, ends, positions = int_arg((5,), 0, 3, 3, 1, 0), int_arg((4,), 0, 2, 2, 5), int_arg((5,), 1, 0, 4, 2, 3)
    x, wide, heads = Arg((4, 3)), Arg((4, 13)), Arg((4, 2, 3))
    return [
        Sample((x, rows, ends, None, None, None), name="rows"),
        Sample((wide, rows, ends, None, None, Arg((3, 13), layout="T")), name="base"),
        Sample((wide, rows, ends, Arg((5, 1)), positions, None), name="weights"),
        Sample((heads, rows, ends, Arg((5, 2, 1)), positions, Arg((3, 2, 3))), name="heads"),
        Sample((Arg((4,)), rows, ends, Arg((5,)), positions, Arg((3,))), name="numbers"),
        Sample((Arg((4, 3), layout="T"), rows, ends, Arg((5, 3)), positions, None), name="a weight each"),
        Sample((x, int_arg((0,)), int_arg((3,), 0, 0, 0), None, None, None), name="nothing"),
    ]


summed_rows = op(
    "summed_rows",
    raises=True,
    infer=_summed_infer,
    define=_summed_define,
    samples=_summed_samples,
    doc="``base``, or zeros, and the rows of ``x`` that ``rows[ends[g]:ends[g + 1]]`` names, added up in their order; "
    "``weights[positions]`` multiply them.",
)
