"""Slices along one dimension at positions: index_select, and what writes there, adds, reduces or fills."""

from __future__ import annotations

from typing import Any

from ..dispatch import known
from ..errors import ArgumentError, DimError, IndexOutOfRange, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .calls import calls
from .index import as_index, as_value, index_put_op, put_in_place, same_dtype
from .inplace import deliver_same
from .record import Spec, op
from .reduce import require_tensor
from .required import require
from .samples import Arg, Sample, int_arg
from .shape import reshape as to_shape
from .shape_core import one_dim

__all__ = ["index_add", "index_copy", "index_fill", "index_reduce", "index_select"]


def _vector(name: str, index: Any) -> Tensor:
    """An index of one dimension in int64, a 0-d one being one element. Raises DimError for more dimensions."""
    where = as_index(name, index)
    if where._data.ndim > 1:
        raise DimError(f"{name}: index must have one dimension, got shape {tuple(where.shape)}.")
    return where if where._data.ndim else core.reshape(where, shape=(1,))


def _lifted(name: str, x: Tensor, dim: int) -> tuple[Tensor, int]:
    """A 0-d tensor counts as one of one element."""
    array = require_tensor(name, x)
    return (x, one_dim(name, dim, array.ndim)) if array.ndim else (core.reshape(x, shape=(1,)), one_dim(name, dim, 0))


def _select_infer(x: Any, index: Any, *, dim: int) -> Spec:
    if index.ndim > 1:
        raise ShapeError(f"index_select: index must have one dimension, got shape {tuple(index.shape)}.")
    count = index.shape[0] if index.ndim else 1
    return Spec((*x.shape[:dim], count, *x.shape[dim + 1 :]), x.dtype)


def _select_rule(F: Any, g: Any, x: Any, index: Any, *, needs: Any, dim: int) -> tuple[Any, ...]:
    return known(F).index_add(F.zeros_as(g, shape=tuple(x.shape)), index, g, dim=dim), None


index_select_op = op(
    "index_select",
    raises=True,
    infer=_select_infer,
    rule=_select_rule,
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((4, 3)), int_arg((5,), 1, 0, 3, 1, 1)), {"dim": 0}, name="rows"),
        Sample((Arg((2, 4, 3), layout="T"), int_arg((2,), 3, 3)), {"dim": 1}, name="middle"),
        Sample((Arg((4,)), int_arg((0,))), {"dim": 0}, name="nothing"),
    ],
    checked=True,
    doc="The slices at ``index`` along ``dim``.",
)


@calls(index_select_op, "x dim index")
def index_select(input: Tensor, dim: int, index: Tensor, *, out: Any = None) -> Tensor:
    """The slices of ``input`` at ``index`` (one dimension) along ``dim``, in that order, copied.

    Raises: IndexOutOfRange for indices out of bounds (negative ones are); DimError for a bad dim.
    """
    at = one_dim("index_select", dim, require_tensor("index_select", input).ndim)
    where = as_index("index_select", index)
    if where._data.ndim > 1:
        raise IndexOutOfRange(f"index_select: index must have one dimension, got shape {tuple(index.shape)}.")
    if input._data.ndim:
        where = core.reshape(where, shape=(1,)) if where._data.ndim == 0 else where
        result = index_select_op(input, where, dim=at)
    else:
        lifted, _ = _lifted("index_select", input, dim)
        result = core.reshape(index_select_op(lifted, to_shape(where, -1), dim=0), shape=())
    return result if out is None else deliver_same("index_select", result, out)


def _add_infer(x: Any, index: Any, src: Any, *, dim: int) -> Spec:
    want = (*x.shape[:dim], index.shape[0] if index.ndim else 1, *x.shape[dim + 1 :])
    if index.ndim != 1 or tuple(src.shape) != want:
        raise ShapeError(
            f"index_add: index {tuple(index.shape)} must have one dimension and the source must have shape {want} for "
            f"a tensor of shape {tuple(x.shape)}; the source has {tuple(src.shape)}."
        )
    same_dtype("index_add", x, src)
    return Spec(tuple(x.shape), x.dtype)


def _add_rule(F: Any, g: Any, x: Any, index: Any, src: Any, *, needs: Any, dim: int) -> tuple[Any, ...]:
    return g if needs[0] else None, None, known(F).index_select(g, index, dim=dim) if needs[2] else None


index_add_op = op(
    "index_add",
    raises=True,
    infer=_add_infer,
    define=lambda F, x, index, src, *, dim: F.index_add_into(F.contiguous_copy(x), index, src, dim=dim),
    rule=_add_rule,
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((3, 2)), int_arg((4,), 1, 0, 1, 1), Arg((4, 2))), {"dim": 0}, name="rows"),
        Sample((Arg((2, 3), layout="T"), int_arg((2,), 2, 2), Arg((2, 2))), {"dim": 1}, name="columns"),
        Sample((Arg((3,)), int_arg((0,)), Arg((0,))), {"dim": 0}, name="nothing"),
    ],
    checked=True,
    doc="``x`` with the slices of ``src`` added at ``index`` along ``dim``, in the order of the index.",
)
index_add_into = op(
    "index_add_into", raises=True, infer=_add_infer, doc="``index_add`` over the memory of ``x``; not recorded."
)


def _lines(name: str, target: Tensor, *sources: Any) -> tuple[Tensor, tuple[Any, ...]]:
    """The tensors with 0-d ones as one element in one dimension, which is how those are indexed."""
    if target._data.ndim > 1:
        return target, sources
    lifted = [
        core.reshape(x, shape=(1,)) if isinstance(x, Tensor) and x._data.ndim == 0 else x for x in (target, *sources)
    ]
    return lifted[0], tuple(lifted[1:])


def _like_target(result: Tensor, target: Tensor) -> Tensor:
    return result if target._data.ndim else core.reshape(result, shape=())


def _add_arguments(input: Tensor, dim: int, index: Any, source: Any, alpha: Any) -> tuple[Any, ...]:
    at = one_dim("index_add", dim, require_tensor("index_add", input).ndim)
    require_tensor("index_add", source)
    where = _vector("index_add", index)
    return at, where, source if alpha == 1 else pw.mul(source, alpha)


@calls(index_add_op, "x dim index x")
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1, out: Any = None) -> Tensor:
    """A copy of ``input`` with ``alpha * source``'s slices added at ``index`` along ``dim``; repeats add up, in order.

    Raises: IndexOutOfRange for indices out of bounds; ShapeError for a source of another shape.
    """
    at, where, src = _add_arguments(input, dim, index, source, alpha)
    x, (src,) = _lines("index_add", input, src)
    result = _like_target(index_add_op(x, where, src, dim=at), input)
    return result if out is None else deliver_same("index_add", result, out)


@calls(index_add_op, "x dim index x", into="index_add_into")
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """In-place form of ``index_add``."""
    at, where, src = _add_arguments(self, dim, index, source, alpha)
    x, (src,) = _lines("index_add", self, src)
    put_in_place(index_add_op, "index_add_into", x, (where, src), {"dim": at})
    return self


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor, *, out: Any = None) -> Tensor:
    """A copy of ``input`` with the slices at ``index`` along ``dim`` replaced by those of ``source``."""
    x, at, where, src = _copy_arguments(input, dim, index, source)
    result = _like_target(index_put_op(x, src, where, spec=(at,), accumulate=False), input)
    return result if out is None else deliver_same("index_copy", result, out)


def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """In-place form of ``index_copy``."""
    x, at, where, src = _copy_arguments(self, dim, index, source)
    put_in_place(index_put_op, "index_put_into", x, (src, where), {"spec": (at,), "accumulate": False})
    return self


def _copy_arguments(input: Tensor, dim: int, index: Any, source: Any) -> tuple[Any, ...]:
    at = one_dim("index_copy", dim, require_tensor("index_copy", input).ndim)
    where = _vector("index_copy", index)
    require_tensor("index_copy", source)
    x, (src,) = _lines("index_copy", input, source)
    shape = x._data.shape
    want = (*shape[:at], where._data.shape[0], *shape[at + 1 :])
    if src._data.shape != want:
        raise IndexOutOfRange(f"index_copy: the source must have shape {want}, got {tuple(source.shape)}.")
    _positive("index_copy", where, shape[at], at)
    return x, at, where, src


def _positive(name: str, index: Tensor, size: int, dim: int) -> None:
    """Raises IndexOutOfRange for an index that is out of range, which a negative one is here."""
    text = f"{name}: index {{value}} is out of bounds for dimension {dim} with size {size}."
    require(index, 0, size - 1, "index", text)


def _reduce_arguments(name: str, input: Tensor, dim: int, index: Any, source: Any, reduce: str) -> tuple[Any, ...]:
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise ArgumentError(f"{name}: reduce must be prod, mean, amax or amin, got {reduce!r}.")
    at = one_dim(name, dim, require_tensor(name, input).ndim)
    where = _vector(name, index)
    require_tensor(name, source)
    same_dtype(name, input._data, source._data)
    x, (src,) = _lines(name, input, source)
    count = where._data.shape[0]
    shape = x._data.shape
    if src._data.shape != (*shape[:at], count, *shape[at + 1 :]):
        raise ShapeError(
            f"{name}: the source must have the tensor's shape but {count} slices along dim {at}, got "
            f"{tuple(source.shape)} for {tuple(input.shape)}."
        )
    _positive(name, where, shape[at], at)
    column = core.reshape(where, shape=(1,) * at + (count,) + (1,) * (len(shape) - at - 1))
    return x, at, core.expand(column, shape=tuple(src._data.shape)), src


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True, out: Any = None
) -> Tensor:
    """A copy of ``input`` combined with the slices of ``source`` at ``index`` along ``dim``.

    Args:
        reduce: ``"prod"``, ``"mean"``, ``"amax"`` or ``"amin"``.
        include_self: whether the elements of ``input`` take part; if not, they stay only where no index points.
    Raises: ArgumentError for another ``reduce``; ShapeError for a source of another shape; IndexOutOfRange.
    """
    from .gather import scatter_reduce

    x, at, where, src = _reduce_arguments("index_reduce", input, dim, index, source, reduce)
    result = _like_target(scatter_reduce(x, at, where, src, reduce, include_self=include_self), input)
    return result if out is None else deliver_same("index_reduce", result, out)


def index_reduce_(
    self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """In-place form of ``index_reduce``."""
    before = core.contiguous_copy(self)
    result: Tensor = self.copy_(index_reduce(before, dim, index, source, reduce, include_self=include_self))
    return result


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of ``input`` with the slices at ``index`` along ``dim`` filled with ``value``, a number or 0-d tensor."""
    at, where, fill = _fill_arguments(input, dim, index, value)
    x, _ = _lines("index_fill", input)
    return _like_target(index_put_op(x, fill, where, spec=(at,), accumulate=False), input)


def index_fill_(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """In-place form of ``index_fill``."""
    at, where, fill = _fill_arguments(self, dim, index, value)
    x, _ = _lines("index_fill", self)
    put_in_place(index_put_op, "index_put_into", x, (fill, where), {"spec": (at,), "accumulate": False})
    return self


def _fill_arguments(input: Tensor, dim: int, index: Any, value: Any) -> tuple[Any, ...]:
    at = one_dim("index_fill", dim, require_tensor("index_fill", input).ndim)
    fill = as_value("index_fill", input, value)
    if fill._data.ndim:
        raise ShapeError(f"index_fill: value must be a number or a 0-d tensor, got shape {tuple(fill.shape)}.")
    where = _vector("index_fill", index)
    if fill._tracked:  # a place that is named twice is filled once
        from .search import unique

        where = unique(where)
    return at, where, fill


for _function in (
    index_add, index_add_, index_copy, index_copy_, index_fill, index_fill_, index_reduce, index_reduce_, index_select,
):  # fmt: skip
    install(_function)
