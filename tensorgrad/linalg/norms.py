"""Norms of vectors and matrices, and the condition number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import DTypeError, ShapeError
from ..ops import pointwise as pw
from ..ops.calls import calls
from ..ops.inplace import deliver, deliver_same
from ..ops.reduce import prepared, require_tensor
from ..ops.shape_core import dims_of
from ..ops.vector_norm import order_of, vector_norm_op
from ..tensor import Tensor
from .algebra import require_lapack, require_matrix
from .singular import svdvals
from .solving import inv_op

__all__ = ["cond", "matrix_norm", "norm", "vector_norm"]

Order = float | str | None


def _require_float(name: str, x: Tensor, dtype: Any) -> None:
    if x.dtype.category < 2:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input, got {x.dtype}.")
    if dtype is None:
        return
    from ..dtypes import as_dtype

    wanted = as_dtype(dtype)
    if wanted.category < 2:
        raise DTypeError(f"{name}: dtype should be floating point or complex, got {wanted}.")
    if wanted.is_complex != x.dtype.is_complex:
        raise DTypeError(f"{name}: dtype should be {'complex' if x.dtype.is_complex else 'real'}, got {wanted}.")
    if wanted.itemsize < x.dtype.itemsize:
        raise DTypeError(f"{name}: the input of {x.dtype} should be convertible without narrowing to {wanted}.")


@calls(vector_norm_op, "x real:ord dims flag", alike=True)
def vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Tensor:
    """``sum(|x|^ord)^(1/ord)`` over all elements or ``dim``; the largest or smallest size for infinite ``ord``, and how
    many are not zero for 0.

    Raises: DTypeError for integers; ShapeError for no elements where ``ord`` is negative or infinite; DimError for a
        bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.vector_norm(tg.tensor([3.0, -4.0]), ord=1).item()
        7.0
    """
    name = "linalg.vector_norm"
    require_tensor(name, x)
    _require_float(name, x, dtype)
    if isinstance(ord, (str, complex)) or ord is None:
        raise DTypeError(f"{name}: Expected a non-complex scalar as the order of norm, got {ord!r}.")
    data = prepared(name, x, dtype)
    shape = tuple(data.shape)
    dims = dims_of(name, None if isinstance(dim, (tuple, list)) and not dim else dim, len(shape))
    ord = order_of(ord, data._data.dtype)
    if (ord < 0 or math.isinf(ord)) and any(shape[d] == 0 for d in dims):
        raise ShapeError(f"{name}: cannot compute the {ord} norm on an empty dimension of shape {shape}.")
    return deliver_same(name, vector_norm_op(data, ord=ord, dim=dims, keepdim=bool(keepdim)), out)


def _two(name: str, dim: Any, ndim: int) -> tuple[int, int]:
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise ShapeError(f"{name}: dim must be a 2-tuple. Got {dim}.")
    first, second = (dims_of(name, d, ndim)[0] for d in dim)
    if first == second:
        raise ShapeError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]}).")
    return first, second


def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *, dtype: Any = None,
    out: Any = None,
) -> Tensor:  # fmt: skip
    """The norm of the matrices in ``dim``.

    Args:
        ord: ``"fro"`` (root of the sum of squares), ``"nuc"`` (sum of singular values), 2 or -2 (the largest, smallest
            singular value), 1 or -1 (largest, smallest column sum of sizes), inf or -inf (of row sums).
    Raises: ShapeError for fewer than two dimensions, or another ``ord``; DTypeError for integers.
    """
    name = "linalg.matrix_norm"
    if not isinstance(A, Tensor):
        raise TypeError(f"{name}: A must be a Tensor, got {type(A).__name__}.")
    if A._data.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions, got shape {tuple(A.shape)}.")
    _require_float(name, A, dtype)
    x = prepared(name, A, dtype)
    rows, columns = _two(name, dim, x._data.ndim)
    if ord == "fro" or isinstance(ord, str):
        if ord not in ("fro", "nuc"):
            raise ShapeError(f"{name}: Order {ord} not supported.")
        if ord == "fro":
            return deliver_same(name, vector_norm_op(x, ord=2.0, dim=(rows, columns), keepdim=bool(keepdim)), out)
        result = _of_singular_values(x, rows, columns, "nuc", keepdim)
        return deliver_same(name, result, out)
    if not isinstance(ord, (int, float)) or abs(ord) not in (1, 2, math.inf):
        raise ShapeError(f"{name}: Order {ord} not supported.")
    if abs(ord) == 2:
        return deliver_same(name, _of_singular_values(x, rows, columns, "max" if ord > 0 else "min", keepdim), out)
    # sums over one dimension, then the extreme over the other
    summed, other = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = vector_norm_op(x, ord=1.0, dim=(summed,), keepdim=True)
    if sums.shape[other] == 0 and ord > 0:
        found = sums.sum((other,), keepdim=True)  # the largest of no sums is 0
    else:
        found = sums.amax((other,), keepdim=True) if ord > 0 else sums.amin((other,), keepdim=True)
    return deliver_same(name, found if keepdim else _dropped(found, rows, columns), out)


def _dropped(x: Tensor, rows: int, columns: int) -> Tensor:
    for d in sorted((rows, columns), reverse=True):
        x = x.squeeze(d)
    return x


def _of_singular_values(x: Tensor, rows: int, columns: int, which: str, keepdim: bool) -> Tensor:
    require_lapack("linalg.matrix_norm", x)
    ndim = x._data.ndim
    order = [d for d in range(ndim) if d not in (rows, columns)]
    values = svdvals(x.permute(*order, rows, columns))
    if which == "nuc" or (which == "max" and values.shape[-1] == 0):  # the largest of none is 0
        result = values.sum(-1)
    else:
        result = values.amax(-1) if which == "max" else values.amin(-1)
    if keepdim:
        for d in sorted((rows, columns)):
            result = result.unsqueeze(d)
    return result


@calls(vector_norm_op, "x -:ord=2.0 dims flag", alike=True)
def norm(
    A: Tensor, ord: Order = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Tensor:
    """A vector or a matrix norm.

    Without ``dim``: without ``ord`` the 2-norm of all elements; with it the norm of a vector or matrix, by the rank of
    ``A``. With an integer ``dim`` the vector norm along it, with two the matrix norm over them (the 2-norm of the
    elements without ``ord``).

    Raises: ShapeError if ``ord`` is given without ``dim`` for a tensor of another rank, and as ``vector_norm`` and
        ``matrix_norm``.
    Example:
        >>> import tensorgrad as tg
        >>> tg.linalg.norm(tg.tensor([[3.0, 0.0], [0.0, 4.0]]), "nuc").item()
        7.0
    """
    if not isinstance(A, Tensor):
        raise TypeError(f"linalg.norm: A must be a Tensor, got {type(A).__name__}.")
    if isinstance(dim, (tuple, list)) and len(dim) not in (0, 1, 2) and ord is not None:
        raise ShapeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {dim}.")
    if ord is None:
        return vector_norm(A, 2.0, dim, keepdim, dtype=dtype, out=out)
    if dim is None:
        if A._data.ndim not in (1, 2):
            raise ShapeError(
                "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
                f"{A._data.ndim}D. Use vector_norm or matrix_norm."
            )
        two = A._data.ndim == 2
    else:
        two = isinstance(dim, (tuple, list)) and len(dim) == 2
    if two:
        return matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype, out=out)
    if isinstance(ord, str):
        raise ShapeError(f"linalg.norm: ord={ord!r} is a matrix norm, but one dimension is given.")
    return vector_norm(A, ord, dim, keepdim, dtype=dtype, out=out)


def cond(A: Tensor, p: Order = None, *, out: Any = None) -> Tensor:
    """The condition number of (..., m, n) in a matrix norm: ``norm(A, p) * norm(inv(A), p)``.

    For ``p`` None, 2 or -2 the ratio of the extreme singular values, of matrices that need not be square; infinite for
    singular matrices.

    Raises: ShapeError for fewer than two dimensions, other ``p``, or not square matrices where the inverse is needed;
        DTypeError for integers and half precision.
    """
    name = "linalg.cond"
    require_matrix(name, A)
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise ShapeError(f"{name}: got an invalid norm type: {p}.")
    if not isinstance(p, str) and p is not None and abs(p) not in (1, 2, math.inf):
        raise ShapeError(f"{name}: got an invalid norm type: {p}.")
    batch = tuple(A.shape[:-2])
    if A._data.size == 0:
        return deliver(name, _zeros(A, batch), out)
    if p is None or p in (2, -2):
        values = svdvals(A)
        first, last = values[..., 0], values[..., -1]
        result = pw.div(first, last) if p != -2 else pw.div(last, first)
        return deliver(name, result, out)
    if A.shape[-1] != A.shape[-2]:
        raise ShapeError(f"{name}: p={p!r} needs square matrices, got shape {tuple(A.shape)}.")
    inverse, info = inv_op(A)
    if p == "nuc" or isinstance(p, str):
        # singular values of NaN can't be computed: a matrix without inverse is given one, and its result replaced
        inverse = pw.where(pw.ne(info, 0).reshape(*batch, 1, 1), 0.0, inverse)
    result = pw.mul(matrix_norm(A, p), matrix_norm(inverse, p))
    return deliver(name, pw.where(pw.ne(info, 0), math.inf, result), out)


def _zeros(A: Tensor, batch: tuple[int, ...]) -> Tensor:
    from ..ops.create import zeros
    from .singular import real_name

    return zeros(batch, dtype=real_name(A), device=A.device)
