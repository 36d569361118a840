"""Tensors made of several: products of sets, combinations, block matrices, positions from flat ones."""

from __future__ import annotations

from itertools import combinations as choices
from itertools import combinations_with_replacement
from typing import Any

from ..dtypes import key_of, numpy_dtype, result_name
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from . import shape_core as core
from .checks import integer
from .create import ones_like, tensor
from .index_slices import index_select
from .join import cat, stack
from .rearrange import meshgrid, pad
from .reduce import require_tensor
from .shape import integers, reshape
from .shape_core import size_of

__all__ = ["block_diag", "cartesian_prod", "combinations", "unravel_index", "vander"]


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All rows that take one element of each vector: (n1 n2 ..., number of vectors); one vector is returned itself.

    Raises: ShapeError for tensors of more or fewer than one dimension.
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    for x in given:
        if require_tensor("cartesian_prod", x).ndim != 1:
            raise ShapeError(f"cartesian_prod: Expect a 1D vector, but got shape {tuple(x.shape)}.")
    if len(given) == 1:
        return given[0]
    return stack([reshape(grid, -1) for grid in meshgrid(*given)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of ``r`` elements of a vector, one a row, in the order of Python's itertools.

    Raises: ShapeError unless ``input`` has one dimension; ArgumentError for a negative ``r``.
    """
    array = require_tensor("combinations", input)
    if array.ndim != 1:
        raise ShapeError(f"combinations: Expect a 1D vector, but got shape {tuple(array.shape)}.")
    r = integer("combinations", "r", r)
    if r < 0:
        raise ArgumentError(f"combinations: Expect a non-negative number, but got {r}.")
    pick = combinations_with_replacement if with_replacement else choices
    if not with_replacement and r > array.shape[0]:
        return core.zeros_as(input, shape=(0, r))
    rows = [part for row in pick(range(array.shape[0]), r) for part in row]
    if r == 0:
        return core.zeros_as(input, shape=(0,))
    places = tensor(rows, dtype="int64", device=input.device)
    return reshape(index_select(input, 0, places), (len(rows) // r, r))


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with the given matrices along its diagonal and zeros elsewhere; vectors and numbers count as one row.

    Raises: ShapeError for tensors of more than two dimensions.
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if not given:
        return tensor([[]])
    matrices = []
    for i, x in enumerate(given):
        array = require_tensor("block_diag", x)
        if array.ndim > 2:
            raise ShapeError(
                f"block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {array.ndim} dimensions."
            )
        matrices.append(x if array.ndim == 2 else reshape(x, (1, size_of(array.shape))))
    dtype = numpy_dtype(result_name(tuple([key_of(x._data) for x in given])))
    width = sum(x._data.shape[1] for x in matrices)
    rows, start = [], 0
    for x in matrices:
        own = x._data.shape[1]
        wide = pad(x, (start, width - start - own))
        rows.append(wide if wide._data.dtype == dtype else core.cast(wide, dtype=dtype))
        start += own
    return cat(rows, 0)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of the elements of a vector, a row for each: ``x^(N-1), ..., x, 1``, or in the other order.

    Integers and truth values give int64. Raises: ShapeError unless ``x`` has one dimension, and for a negative ``N``.
    """
    array = require_tensor("vander", x)
    if array.ndim != 1:
        raise ShapeError(f"vander: x must be a one-dimensional tensor, got shape {tuple(array.shape)}.")
    count = array.size if N is None else integer("vander", "N", N)
    if count < 0:
        raise ShapeError(f"vander: N must be non-negative, got {count}.")
    base = core.cast(x, dtype=numpy_dtype("int64")) if array.dtype.kind in "bui" else x
    lead = ones_like(base).unsqueeze(1)
    powers = base.unsqueeze(1).expand(array.size, max(count - 1, 0)).cumprod(1)
    rows = cat([lead, powers], 1)[:, :count]
    return rows if increasing else rows.flip(1)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Where elements of these numbers, in row-major order, lie in a tensor of this shape: one int64 tensor for each
    dimension.

    Raises: DTypeError unless ``indices`` are integers; ArgumentError for those that ``shape`` does not hold.
    """
    array = require_tensor("unravel_index", indices)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"unravel_index: expected 'indices' to be an integer tensor, got {indices.dtype}.")
    sizes = (int(shape),) if hasattr(shape, "__index__") else integers("unravel_index", (shape,))
    if min(sizes, default=1) < 0:
        raise ArgumentError(f"unravel_index: 'shape' cannot have negative values, but got {sizes}.")
    if array.size and (int(indices.min()) < 0 or int(indices.max()) >= size_of(sizes)):
        raise ArgumentError(f"unravel_index: the indices must be from 0 to {size_of(sizes) - 1} for shape {sizes}.")
    rest: Any = core.cast(indices, dtype=numpy_dtype("int64"))
    places = []
    for size in reversed(sizes):
        places.append(pw.remainder(rest, max(size, 1)))
        rest = pw.floor_divide(rest, max(size, 1))
    return tuple(reversed(places))
