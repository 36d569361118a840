"""Putting elements in order: sort, argsort, topk."""

from __future__ import annotations

from typing import Any

from ..dtypes import numpy_dtype
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, install
from .calls import calls
from .checks import integer, require_outs
from .extremes import over_dim, place
from .inplace import deliver_same
from .record import Spec, op
from .reduce import named, require_tensor
from .samples import Arg, Sample

__all__ = ["argsort", "msort", "sort", "topk"]

_Sorted = named("sort", "values indices")
_Top = named("topk", "values indices")


def _require_order(name: str, x: Any) -> None:
    if x.dtype.kind == "c":
        raise DTypeError(f"{name}: complex numbers have no order; use abs().")


def _sort_infer(x: Any, *, dim: int, descending: bool, stable: bool) -> tuple[Spec, Spec]:
    _require_order("sort", x)
    return Spec(tuple(x.shape), x.dtype), Spec(tuple(x.shape), numpy_dtype("int64"))


def _sort_samples() -> list[Sample]:
    nan = float("nan")

    def one(name: str, arg: Arg, dim: int, descending: bool, smooth: bool = True) -> Sample:
        return Sample((arg,), {"dim": dim, "descending": descending, "stable": True}, smooth, name)

    return [
        one("rows", Arg((3, 4)), 1, False),
        one("columns-down", Arg((4, 3)), 0, True),
        one("transposed", Arg((2, 3, 4), layout="T"), 1, False),
        one("strided", Arg((5,), layout="step"), 0, True),
        one("empty", Arg((0, 3)), 0, False),
        one("equal", Arg((6,), values=(1.0, 0.0, 1.0, 0.0, 1.0, 0.0)), 0, False, False),
        one("nan-down", Arg((4,), values=(1.0, nan, -1.0, 2.0)), 0, True, False),
    ]


sort_op = op(
    "sort",
    infer=_sort_infer,
    rule=lambda F, g, x, *, indices, needs, dim, descending, stable: (place(F, g[0], indices, x, dim, True),),
    keeps=("indices",),
    outputs=("values", "indices"),
    nondiff=("indices",),
    checked=True,
    samples=_sort_samples,
    doc="The elements along ``dim`` in order and where they were; NaN counts as largest, equals keep their order.",
)


def _topk_infer(x: Any, *, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Spec, Spec]:
    _require_order("topk", x)
    if not 0 <= k <= x.shape[dim]:
        raise ShapeError(f"topk: k must be from 0 to {x.shape[dim]}, the size of dim {dim}; got {k}.")
    shape = (*x.shape[:dim], k, *x.shape[dim + 1 :])
    return Spec(shape, x.dtype), Spec(shape, numpy_dtype("int64"))


topk_op = op(
    "topk",
    infer=_topk_infer,
    rule=lambda F, g, x, *, indices, needs, k, dim, largest, sorted: (place(F, g[0], indices, x, dim, True),),
    keeps=("indices",),
    outputs=("values", "indices"),
    nondiff=("indices",),
    checked=True,
    samples=lambda: [
        Sample((Arg((3, 5)),), {"k": 2, "dim": 1, "largest": True, "sorted": True}, name="largest"),
        Sample((Arg((4, 3), layout="T"),), {"k": 3, "dim": 0, "largest": False, "sorted": True}, name="smallest"),
        Sample((Arg((4,)),), {"k": 4, "dim": 0, "largest": True, "sorted": True}, name="all"),
        Sample((Arg((2, 3)),), {"k": 0, "dim": 1, "largest": True, "sorted": True}, name="none"),
    ],
    doc="The ``k`` largest or smallest elements along ``dim`` and where they were.",
)


@calls(sort_op, "x dim flag flag", returns=_Sorted)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None) -> Any:
    """The elements along ``dim`` in order, and where they were: a named tuple (values, indices).

    Equal elements keep their order whether or not ``stable`` asks for it. NaN counts as larger than every number.

    Raises: DTypeError for complex tensors; DimError for a bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> values, indices = tg.sort(tg.tensor([3, 1, 2]))
        >>> values.tolist(), indices.tolist()
        ([1, 2, 3], [1, 2, 0])
    """
    attrs = {"descending": bool(descending), "stable": bool(stable)}
    values, indices = over_dim(sort_op, "sort", input, dim, **attrs)
    if out is not None:
        require_outs("sort", out)
        values, indices = deliver_same("sort", values, out[0]), deliver_same("sort", indices, out[1])
    return _Sorted(values, indices)


@calls(sort_op, "x dim flag flag", returns=1)
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Where the elements along ``dim`` are that ``sort`` puts first, second, and so on."""
    return sort(input, dim, descending, stable).indices


def msort(input: Tensor, *, out: Any = None) -> Tensor:
    """The elements in order along the first dimension."""
    result = sort(input, 0).values
    return result if out is None else deliver_same("msort", result, out)


@calls(topk_op, "x int dim flag flag", returns=_Top)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out: Any = None) -> Any:
    """The ``k`` largest (or smallest) elements along ``dim``, in order, and where they were: (values, indices).

    Raises: ShapeError if ``k`` is larger than the dimension; DTypeError for complex tensors; DimError for a bad dim.
    """
    array = require_tensor("topk", input)
    attrs = {"k": integer("topk", "k", k), "largest": bool(largest), "sorted": bool(sorted)}
    if array.ndim:
        values, indices = over_dim(topk_op, "topk", input, dim, **attrs)
    else:
        values, indices = sort(input, dim)
        if k != 1:
            raise ShapeError(f"topk: k must be 1 for a 0-d tensor, got {k}.")
    if out is not None:
        require_outs("topk", out)
        values, indices = deliver_same("topk", values, out[0]), deliver_same("topk", indices, out[1])
    return _Top(values, indices)


for _function in (argsort, msort, sort, topk):
    install(_function)
