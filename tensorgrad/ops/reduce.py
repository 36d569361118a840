"""Reductions: sum and its family."""

from __future__ import annotations

from typing import Any

from ..dtypes import numpy_dtype
from .record import Spec, op

__all__ = ["reduced_shape"]


def reduced_shape(shape: tuple[int, ...], dim: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape after reducing over ``dim``."""
    if keepdim:
        return tuple(1 if i in dim else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in dim)


def _sum_infer(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Spec:
    dtype = numpy_dtype("int64") if x.dtype.kind in "bui" else x.dtype
    return Spec(reduced_shape(tuple(x.shape), dim, keepdim), dtype)


def spread(F: Any, g: Any, x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """A reduced gradient expanded back over the reduced axes of ``x``."""
    if not keepdim:
        g = F.reshape(F.contiguous(g), shape=reduced_shape(tuple(x.shape), dim, True))
    return F.expand(g, shape=tuple(x.shape))


sum_ = op(
    "sum",
    infer=_sum_infer,
    rule=lambda F, g, x, *, needs, dim, keepdim: (spread(F, g, x, dim, keepdim),),
    doc="The sum over ``dim``; bool and integers are summed in int64, float16 and bfloat16 in float32.",
)
