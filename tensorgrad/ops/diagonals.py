"""Diagonals and triangles of matrices."""

from __future__ import annotations

from typing import Any

from ..errors import DimError, ShapeError
from ..tensor import Tensor, install
from . import shape_core as core
from .calls import calls
from .checks import integer
from .index import index_put_
from .inplace import deliver_same, write_into
from .record import Spec, op
from .reduce import require_tensor, sum_op
from .samples import Arg, Sample
from .shape import reshape as flattened
from .shape_core import one_dim, require_addressable

__all__ = ["diag", "diag_embed", "diagflat", "diagonal", "trace", "tril", "triu"]


def _length(rows: int, columns: int, offset: int) -> int:
    return max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)


def _diagonal_infer(x: Any, *, offset: int, dim1: int, dim2: int) -> Spec:
    rest = tuple([size for d, size in enumerate(x.shape) if d not in (dim1, dim2)])
    return Spec((*rest, _length(x.shape[dim1], x.shape[dim2], offset)), x.dtype)


diagonal_op = op(
    "diagonal",
    infer=_diagonal_infer,
    rule=lambda F, g, x, *, needs, offset, dim1, dim2: (
        F.diagonal_backward(g, shape=tuple(x.shape), offset=offset, dim1=dim1, dim2=dim2),
    ),
    view=True,
    samples=lambda: [
        Sample((Arg((3, 4)),), {"offset": 0, "dim1": 0, "dim2": 1}, name="main"),
        Sample((Arg((3, 4), layout="T"),), {"offset": 2, "dim1": 0, "dim2": 1}, name="above"),
        Sample((Arg((2, 3, 4)),), {"offset": -1, "dim1": 2, "dim2": 0}, name="batched"),
        Sample((Arg((2, 3)),), {"offset": 3, "dim1": 0, "dim2": 1}, name="outside"),
        Sample((Arg((0, 3)),), {"offset": 0, "dim1": 0, "dim2": 1}, name="empty"),
    ],
    doc="The diagonals of the matrices in two dimensions, as a last dimension.",
)
diagonal_backward = op(
    "diagonal_backward",
    infer=lambda g, *, shape, offset, dim1, dim2: Spec(shape, g.dtype),
    rule=lambda F, gg, g, *, needs, shape, offset, dim1, dim2: (F.diagonal(gg, offset=offset, dim1=dim1, dim2=dim2),),
    samples=lambda: [
        Sample((Arg((3,)),), {"shape": (3, 4), "offset": 0, "dim1": 0, "dim2": 1}, name="main"),
        Sample((Arg((3, 2)),), {"shape": (2, 3, 3), "offset": 1, "dim1": 0, "dim2": 2}, name="batched"),
    ],
    checked=True,
    doc="Zeros of ``shape`` with ``g`` on the diagonals: the adjoint of ``diagonal``.",
)


def _two_dims(name: str, dim1: int, dim2: int, ndim: int) -> tuple[int, int]:
    a, b = one_dim(name, dim1, ndim), one_dim(name, dim2, ndim)
    if a == b:
        raise ShapeError(f"{name}: dim1 and dim2 are the same dimension, {dim1} and {dim2}.")
    return a, b


@calls(diagonal_op, "x int dim dim")
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonals of the matrices in ``dim1`` and ``dim2``, as the last dimension.

    ``offset`` counts to the right of the main diagonal. Raises: DimError for bad dims, ShapeError for equal ones.
    """
    a, b = _two_dims("diagonal", dim1, dim2, require_tensor("diagonal", input).ndim)
    return diagonal_op(input, offset=integer("diagonal", "offset", offset), dim1=a, dim2=b)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices in ``dim1`` and ``dim2`` of the result with the last dimension of ``input`` on their diagonal."""
    offset, shape = integer("diag_embed", "offset", offset), list(require_tensor("diag_embed", input).shape)
    if not shape:
        raise DimError("diag_embed: a 0-d tensor has no dimension to put on a diagonal.")
    a, b = _two_dims("diag_embed", dim1, dim2, len(shape) + 1)
    size = shape.pop() + abs(offset)
    for d in sorted((a, b)):
        shape.insert(d, size)
    require_addressable("diag_embed", tuple(shape))
    return diagonal_backward(input, shape=tuple(shape), offset=offset, dim1=a, dim2=b)


def diag(input: Tensor, diagonal: int = 0, *, out: Any = None) -> Tensor:
    """The matrix with a vector on its diagonal, or the diagonal of a matrix. Raises ShapeError for other tensors."""
    array = require_tensor("diag", input)
    if array.ndim not in (1, 2):
        raise ShapeError(f"diag: expected one or two dimensions, got shape {tuple(array.shape)}.")
    offset = integer("diag", "diagonal", diagonal)
    if array.ndim == 1:
        result = diag_embed(input, offset)
    else:
        result = core.contiguous_copy(diagonal_op(input, offset=offset, dim1=0, dim2=1))
    return result if out is None else deliver_same("diag", result, out)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements of ``input`` on its diagonal number ``offset``."""
    require_tensor("diagflat", input)
    return diag_embed(flattened(input, -1), integer("diagflat", "offset", offset))


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix. Raises ShapeError for other tensors."""
    if require_tensor("trace", input).ndim != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {tuple(input.shape)}.")
    return sum_op(diagonal(input), dim=(0,), keepdim=False)


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Write a number over the main diagonal; ``wrap`` goes on below it in tall matrices, after a row left out.

    Raises: ShapeError for fewer than two dimensions, or more of different sizes.
    """
    shape = self._data.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise ShapeError(f"fill_diagonal_: expected a matrix or equal sizes, got shape {tuple(shape)}.")
    if len(shape) > 2:
        from .create import tensor

        ramp = tensor(list(range(shape[0])), device=self.device)
        return index_put_(self, (ramp,) * len(shape), fill_value)
    rows, columns = shape
    step = rows if not wrap else columns + 1
    for start in range(0, rows, max(step, 1)):
        part = core.slice_(self, key=(slice(start, rows, 1),))
        diagonal_op(part, offset=0, dim1=0, dim2=1).fill_(fill_value)
    return self


# --- triangles


def _triangle_infer(name: str) -> Any:
    def infer(x: Any, *, diagonal: int) -> Spec:
        if x.ndim < 2:
            raise ShapeError(f"{name}: expected at least two dimensions, got shape {tuple(x.shape)}.")
        return Spec(tuple(x.shape), x.dtype)

    return infer


def _triangle_samples() -> list[Sample]:
    return [
        Sample((Arg((3, 4)),), {"diagonal": 0}, name="main"),
        Sample((Arg((2, 4, 3), layout="T"),), {"diagonal": -1}, name="below"),
        Sample((Arg((3, 3), layout="step"),), {"diagonal": 2}, name="above"),
        Sample((Arg((0, 3)),), {"diagonal": 0}, name="empty"),
    ]


tril_op, triu_op = (
    op(
        name,
        infer=_triangle_infer(name),
        rule=lambda F, g, x, *, needs, diagonal, _name=name: (getattr(F, _name)(g, diagonal=diagonal),),
        samples=_triangle_samples,
        checked=True,
        doc=f"The matrices with zeros {where} the diagonal.",
    )
    for name, where in (("tril", "above"), ("triu", "below"))
)


@calls(tril_op, "x int")
def tril(input: Tensor, diagonal: int = 0, *, out: Any = None) -> Tensor:
    """The lower triangles of the matrices in the last two dimensions, zeros above diagonal number ``diagonal``."""
    require_tensor("tril", input)
    result = tril_op(input, diagonal=integer("tril", "diagonal", diagonal))
    return result if out is None else deliver_same("tril", result, out)


@calls(triu_op, "x int")
def triu(input: Tensor, diagonal: int = 0, *, out: Any = None) -> Tensor:
    """The upper triangles of the matrices in the last two dimensions, zeros below diagonal number ``diagonal``."""
    require_tensor("triu", input)
    result = triu_op(input, diagonal=integer("triu", "diagonal", diagonal))
    return result if out is None else deliver_same("triu", result, out)


def tril_(self: Tensor, diagonal: int = 0) -> Tensor:
    """In-place form of ``tril``."""
    return write_into(tril_op, self, (self,), {"diagonal": integer("tril_", "diagonal", diagonal)})


def triu_(self: Tensor, diagonal: int = 0) -> Tensor:
    """In-place form of ``triu``."""
    return write_into(triu_op, self, (self,), {"diagonal": integer("triu_", "diagonal", diagonal)})


for _function in (diag, diag_embed, diagflat, diagonal, fill_diagonal_, trace, tril, tril_, triu, triu_):
    install(_function)
