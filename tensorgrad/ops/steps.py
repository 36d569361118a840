"""All rows of a tensor at once, or blocks of rows, for loops over time: one node on the tape, however many steps."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from ..errors import ShapeError
from .record import Spec, op
from .samples import Arg, Sample

# slicing row by row would make backward fill a whole gradient per step: quadratic in the number of steps


def _infer(x: Any) -> tuple[Spec, ...]:
    if x.ndim == 0:
        raise ShapeError("steps: a 0-d tensor has no rows.")
    return (Spec(tuple(x.shape[1:]), x.dtype),) * x.shape[0]


def _filled(F: Any, g: Any, shapes: list[tuple[int, ...]]) -> list[Any]:
    """The gradients of the parts, with zeros where none arrived. That of a single part comes as it is."""
    if len(shapes) == 1:
        return [g]
    known = next(part for part in g if part is not None)
    return [F.zeros_as(known, shape=shape) if part is None else part for part, shape in zip(g, shapes, strict=True)]


def _rule(F: Any, g: Any, x: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    parts = _filled(F, g, [tuple(x.shape[1:])] * x.shape[0])
    rows = [F.reshape(F.contiguous(part), shape=(1, *part.shape)) for part in parts]
    return (F.cat(*rows, dim=0),)


steps = op(
    "steps",
    infer=_infer,
    define=lambda F, x: tuple([F.contiguous_copy(F.slice(x, key=(i,))) for i in range(x.shape[0])]),
    rule=_rule,
    samples=lambda: [
        Sample((Arg((3, 2, 2)),), name="rows"),
        Sample((Arg((2, 3), layout="T"),), name="transposed"),
        Sample((Arg((1, 2)),), name="one row"),
    ],
    doc="The rows x[0], x[1], ... as separate arrays.",
)


def _pieces_infer(x: Any, *, sizes: tuple[int, ...]) -> tuple[Spec, ...]:
    if x.ndim == 0 or sum(sizes) != x.shape[0] or min(sizes, default=0) < 0:
        raise ShapeError(f"pieces: a tensor of shape {tuple(x.shape)} can't be cut in blocks of {sizes} rows.")
    return tuple([Spec((size, *x.shape[1:]), x.dtype) for size in sizes])


def _pieces_define(F: Any, x: Any, *, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    ends = list(accumulate(sizes))
    return tuple(
        [F.contiguous_copy(F.slice(x, key=(slice(end - n, end),))) for n, end in zip(sizes, ends, strict=True)]
    )


def _pieces_rule(F: Any, g: Any, x: Any, *, needs: tuple[bool, ...], sizes: tuple[int, ...]) -> tuple[Any, ...]:
    return (F.cat(*_filled(F, g, [(size, *x.shape[1:]) for size in sizes]), dim=0),)


pieces = op(
    "pieces",
    infer=_pieces_infer,
    define=_pieces_define,
    rule=_pieces_rule,
    samples=lambda: [
        Sample((Arg((6, 2)),), {"sizes": (3, 2, 1)}, name="rows"),
        Sample((Arg((2, 3), layout="T"),), {"sizes": (2, 0)}, name="an empty one"),
        Sample((Arg((2, 3)),), {"sizes": (2,)}, name="one piece"),
    ],
    doc="Consecutive blocks of rows of ``x``, as many as ``sizes`` says, as separate arrays.",
)
