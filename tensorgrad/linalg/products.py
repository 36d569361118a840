"""Products of vectors and of several matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import DTypeError, ShapeError
from ..ops import pointwise as pw
from ..ops.checks import integer
from ..ops.diagonals import diagonal as diagonal_of
from ..ops.elementwise import broadcast_shape
from ..ops.inplace import deliver_same
from ..ops.matmul import matmul
from ..ops.shape_core import one_dim
from ..tensor import Tensor
from .algebra import require_same

__all__ = ["cross", "diagonal", "matmul", "multi_dot", "vander", "vecdot"]


def cross(input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """The cross product of vectors of size 3 along ``dim``; the other dimensions broadcast.

    Raises: ShapeError if ``dim`` does not have size 3 in both, or the ranks differ.
    """
    return _cross("linalg.cross", input, other, dim, out)


def _cross(name: str, input: Any, other: Any, dim: int, out: Any) -> Tensor:
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        raise TypeError(f"{name}: expected two Tensors, got {type(input).__name__} and {type(other).__name__}.")
    if input._data.ndim != other._data.ndim:
        raise ShapeError(
            f"{name}: inputs must have the same number of dimensions, got {tuple(input.shape)} and "
            f"{tuple(other.shape)}."
        )
    axis = one_dim(name, dim, input._data.ndim)
    if input.shape[axis] != 3 or other.shape[axis] != 3:
        raise ShapeError(
            f"{name}: inputs dimension {dim} must have length 3. Got {input.shape[axis]} and {other.shape[axis]}."
        )
    shape = broadcast_shape(name, tuple(input.shape), tuple(other.shape))
    a, b = input.expand(*shape), other.expand(*shape)
    first = pw.mul(a.roll(-1, axis), b.roll(-2, axis))
    return deliver_same(name, pw.sub(first, pw.mul(a.roll(-2, axis), b.roll(-1, axis))), out)


def cross_of(input: Tensor, other: Tensor, dim: int | None = None, *, out: Any = None) -> Tensor:
    """The cross product along ``dim``; without one along the first dimension of size 3. See ``linalg.cross``."""
    if dim is None:
        sizes = tuple(input.shape)
        if 3 not in sizes:
            raise ShapeError(f"cross: no dimension of size 3 in input, got {sizes}.")
        dim = sizes.index(3)
    return _cross("cross", input, other, dim, out)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """``sum(conj(x) * y)`` along ``dim``; the inputs broadcast.

    Raises: DTypeError for differing dtypes; ShapeError if the shapes do not broadcast.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"linalg.vecdot: expected a Tensor, got {type(x).__name__}.")
    require_same("linalg.vecdot", x, y, label="y")
    shape = broadcast_shape("linalg.vecdot", tuple(x.shape), tuple(y.shape))
    axis = one_dim("linalg.vecdot", dim, len(shape))
    a, b = x.expand(*shape), y.expand(*shape)
    if x.dtype.is_complex:
        a = pw.conj(a)
    # as products of matrices, so that no product of all elements is made
    if shape:
        a, b = a.movedim(axis, -1), b.movedim(axis, -1)
        result = matmul(a.unsqueeze(-2), b.unsqueeze(-1)).squeeze(-1).squeeze(-1)
    else:
        result = pw.mul(a, b)
    return deliver_same("linalg.vecdot", result, out)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of the matrices in the last two dimensions; see ``tensorgrad.diagonal``."""
    return diagonal_of(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Rows ``1, x, x^2, ..., x^(N-1)`` for each element of (..., n): (..., n, N), N = n by default.

    Raises: ShapeError for N below 2.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"linalg.vander: x must be a Tensor, got {type(x).__name__}.")
    count = integer("linalg.vander", "N", N) if N is not None else int(x.shape[-1]) if x._data.ndim else 1
    if count <= 1:
        raise ShapeError(f"linalg.vander: N must be greater than 1, got {count}.")
    from ..ops.create import ones
    from ..ops.join import cat

    if x._data.ndim == 0:
        x = x.unsqueeze(0)
    dtype = x.dtype if x.dtype.category > 1 or x.dtype.name == "int64" else _int64()
    lead = ones((*x.shape, 1), dtype=dtype, device=x.device)
    powers = x.to(dtype).unsqueeze(-1).expand(*x.shape, count - 1).cumprod(-1)
    return cat([lead, powers], -1)


def _int64() -> Any:
    from ..dtypes import int64

    return int64


def multi_dot(tensors: Any, *, out: Tensor | None = None) -> Tensor:
    """The product of two matrices or more, in the order that takes the fewest multiplications.

    The first may be a vector, taken as a row, and the last, taken as a column.

    Raises: ShapeError for fewer than two tensors, or sizes that do not fit; DTypeError for differing dtypes.
    Source: Cormen et al., Introduction to Algorithms, matrix-chain multiplication.
    """
    name = "linalg.multi_dot"
    if not isinstance(tensors, Iterable):
        raise TypeError(f"{name}: expected a list of tensors, got {type(tensors).__name__}.")
    parts = list(tensors)
    if len(parts) < 2:
        raise ShapeError(f"{name}: expected at least 2 tensors but got {len(parts)}.")
    for x in parts[1:]:
        require_same(name, parts[0], x, label="a tensor")
        if x.device != parts[0].device:
            raise DTypeError(f"{name}: tensors live on {parts[0].device} and {x.device}.")
    first, last = parts[0]._data.ndim == 1, parts[-1]._data.ndim == 1
    if first:
        parts[0] = parts[0].unsqueeze(0)
    if last:
        parts[-1] = parts[-1].unsqueeze(-1)
    for i, x in enumerate(parts):
        if x._data.ndim != 2:
            raise ShapeError(f"{name}: tensor {i} must be 2D but got {x._data.ndim}D.")
    for i in range(len(parts) - 1):
        if parts[i].shape[1] != parts[i + 1].shape[0]:
            raise ShapeError(
                f"{name}: tensors {i} and {i + 1} with shapes {tuple(parts[i].shape)} and "
                f"{tuple(parts[i + 1].shape)} cannot be multiplied."
            )
    sizes = [int(parts[0].shape[0]), *(int(x.shape[1]) for x in parts)]
    result = _ordered(parts, _cuts(sizes), 0, len(parts) - 1)
    if last:
        result = result.squeeze(-1)
    if first:
        result = result.squeeze(0)
    return deliver_same(name, result, out)


def _cuts(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to cut each stretch of the chain."""
    count = len(sizes) - 1
    cost = {(i, i): 0 for i in range(count)}
    cuts: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            best = min(range(i, j), key=lambda k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1])
            cuts[i, j] = best
            cost[i, j] = cost[i, best] + cost[best + 1, j] + sizes[i] * sizes[best + 1] * sizes[j + 1]
    return cuts


def _ordered(parts: list[Tensor], cuts: dict[tuple[int, int], int], i: int, j: int) -> Tensor:
    if i == j:
        return parts[i]
    cut = cuts[i, j]
    return matmul(_ordered(parts, cuts, i, cut), _ordered(parts, cuts, cut + 1, j))
