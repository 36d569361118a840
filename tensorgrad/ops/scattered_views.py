"""Copies of a tensor with a view of it replaced: slice_scatter, select_scatter, diagonal_scatter."""

from __future__ import annotations

from typing import Any

from ..errors import DimError, ShapeError
from ..tensor import Tensor, install
from . import shape_core as core
from .diagonals import diagonal
from .getitem import checked_slice
from .inplace import view_scatter
from .reduce import require_tensor
from .shape import select
from .shape_core import one_dim

__all__ = ["diagonal_scatter", "select_scatter", "slice_scatter"]


def _replaced(name: str, input: Tensor, src: Any, region: Tensor) -> Tensor:
    """A copy of ``input`` with ``src`` where ``region``, a view of it, looks."""
    if require_tensor(name, src).shape != region._data.shape:
        raise ShapeError(
            f"{name}: expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice size "
            f"= {list(region.shape)}."
        )
    chain = region._chain[len(input._chain) :]
    source = src if src._data.dtype == input._data.dtype else core.cast(src, dtype=input._data.dtype)
    return view_scatter(input, source, chain=chain)


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of ``input`` with ``input[..., start:end:step]``, along ``dim``, replaced by ``src``.

    Raises: ShapeError for a ``src`` of another shape than the slice; DimError for a bad dim.
    """
    shape = require_tensor("slice_scatter", input).shape
    at = one_dim("slice_scatter", dim, len(shape))
    if not shape:
        raise DimError("slice_scatter: a tensor of no dimensions has no slices.")
    part = checked_slice(slice(start, end, step), shape[at])
    region = core.slice_(input, key=(*(slice(None),) * at, part))
    return _replaced("slice_scatter", input, src, region)


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of ``input`` with the slice at ``index`` along ``dim`` replaced by ``src``.

    Raises: ShapeError for a ``src`` of another shape than the slice; DimError and IndexOutOfRange as ``select``.
    """
    return _replaced("select_scatter", input, src, select(input, dim, index))


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of ``input`` with a diagonal replaced by ``src``.

    Raises: ShapeError for a ``src`` of another shape than the diagonal; DimError as ``diagonal``.
    """
    return _replaced("diagonal_scatter", input, src, diagonal(input, offset, dim1, dim2))


for _function in (diagonal_scatter, select_scatter, slice_scatter):
    install(_function)
