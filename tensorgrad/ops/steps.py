"""All rows of a tensor at once, for loops over time: one node on the tape, however many steps."""

from __future__ import annotations

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
