"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import ShapeError
from ...ops.join import cat
from ...tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Let the parameters be views of parts of ``vec``, in order. Raises ShapeError unless all of it is used."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected Tensor, but got: {type(vec).__name__}")
    members = list(parameters)
    total = sum(int(p._data.size) for p in members)
    if tuple(vec.shape) != (total,):
        raise ShapeError(f"vector_to_parameters: the parameters have {total} elements, the vector {tuple(vec.shape)}.")
    start = 0
    for p in members:
        part: Any = vec[start : start + int(p._data.size)]
        p.data = part.view_as(p).data
        start += int(p._data.size)
