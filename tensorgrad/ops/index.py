"""Reading and writing at integer positions along dimensions: the records behind ``x[i, j]``, and their functions."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import local
from ..dtypes import BY_NAME, numpy_dtype
from ..errors import ArgumentError, DimError, DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor, install, wrap
from . import pointwise as pw
from . import shape_core as core
from .calls import calls
from .create import as_operand, as_stored, check_storable
from .elementwise import broadcast_shape
from .inplace import at_level_of, check_partial_overlap, check_writable, deliver, write_into
from .record import Op, Spec, as_ours, op
from .reduce import require_tensor
from .samples import Arg, Sample
from .shape import reshape as to_shape
from .shape_core import one_dim, size_of

__all__ = [
    "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "index_select", "masked_scatter",
    "masked_select", "put", "take",
]  # fmt: skip


_INT64 = numpy_dtype("int64")

# --- what indexing functions share


def as_index(name: str, index: Any) -> Tensor:
    """An index tensor in int64. Raises DTypeError for anything that does not count."""
    array = require_tensor(name, index)
    if array.dtype == _INT64:
        return index
    if array.dtype.name != "int32" and (array.size or array.dtype.kind not in "iu"):
        raise DTypeError(f"{name}: index must be an int64 or int32 tensor, got {BY_NAME[array.dtype.name]}.")
    return core.cast(index, dtype=_INT64)


def as_value(name: str, target: Tensor, value: Any) -> Tensor:
    """A value to write into ``target``: a tensor, or a number as a 0-d tensor of the target's dtype and device."""
    value = as_operand(name, value)
    if isinstance(value, Tensor):
        return value
    dtype = target._data.dtype
    if isinstance(value, complex) and dtype.kind != "c":
        raise DTypeError(f"{name}: {value!r} can't be stored in a tensor of {target.dtype}.")
    if isinstance(value, float) and dtype.kind in "iu":
        if not abs(value) < float("inf"):
            raise DTypeError(f"{name}: {value} can't be stored in a tensor of {target.dtype}; it overflows.")
        value = int(value)  # as assignment in PyTorch: towards zero
    if value and dtype.kind in "iu":
        check_storable(name, value, target.dtype)
    value = as_stored(value, dtype)
    door = local.doors[type(target._data)]
    zero = door.zeros_as(target._data, shape=())
    return wrap(door.full_as(zero, value=value) if value else zero)


def elsewhere(a: Any, b: Any) -> bool:
    """Whether two arrays may live in different places."""
    return type(a) is not type(b) or getattr(a, "device", None) != getattr(b, "device", None)


def same_dtype(name: str, x: Any, src: Any) -> None:
    if x.dtype != src.dtype:
        raise DTypeError(
            f"{name}: the source must have the tensor's dtype; the tensor is {BY_NAME[x.dtype.name]}, the source "
            f"{BY_NAME[src.dtype.name]}. Convert it with source.to(tensor.dtype)."
        )


def put_in_place(record: Op, into: str, target: Tensor, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Tensor:
    """``target`` overwritten with ``record(target, *inputs)``.

    While recording this is ``write_into``; otherwise the kernel named ``into`` writes the places that change and
    leaves the rest of the memory alone.
    """
    name = f"{record.name}_"
    if grad_state.recording and (target._tracked or any(x._tracked for x in inputs)):
        return write_into(record, target, (target, *inputs), attrs)
    check_writable(name, target, False)
    if any(elsewhere(target._data, x._data) for x in inputs):
        inputs = at_level_of(name, target, inputs)
    record.infer(target._data, *[x._data for x in inputs], **attrs)
    # an input on the target's own memory must be read before the first write
    arrays = [
        local.doors[type(x._data)].contiguous_copy(x._data) if x._version is not None and x._version is target._version
        else x._data
        for x in inputs
    ]  # fmt: skip
    try:
        getattr(local.doors[type(target._data)], into)(target._data, *arrays, **attrs)
    except IndexError as error:
        raise as_ours(error) from None
    target._bump()
    return target


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


# --- any positions: x[i, j]


def indexed_shape(name: str, x: Any, indices: tuple[Any, ...], spec: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of ``x[indices]``: the indices' common shape takes the place of the dimensions ``spec`` if those are
    neighbours, and comes first otherwise. Raises ShapeError if the indices have no common shape."""
    if len(indices) == 1:
        at = spec[0]
        return (*x.shape[:at], *indices[0].shape, *x.shape[at + 1 :])
    common = broadcast_shape(f"{name} by tensors", *[tuple(i.shape) for i in indices])
    rest = [size for d, size in enumerate(x.shape) if d not in spec]
    first = spec[0] if spec[-1] - spec[0] == len(spec) - 1 else 0
    return (*rest[:first], *common, *rest[first:])


def _index_infer(x: Any, *indices: Any, spec: tuple[int, ...]) -> Spec:
    return Spec(indexed_shape("indexing", x, indices, spec), x.dtype)


def _index_rule(F: Any, g: Any, x: Any, *indices: Any, needs: Any, spec: tuple[int, ...]) -> tuple[Any, ...]:
    zeros = F.zeros_as(g, shape=tuple(x.shape))
    return (F.index_put(zeros, g, *indices, spec=spec, accumulate=True), *[None] * len(indices))


def _i(shape: tuple[int, ...], *values: int) -> Arg:
    return Arg(shape, kind="i", values=values)


def _index_samples() -> list[Sample]:
    return [
        Sample((Arg((4, 3)), _i((3,), 1, -1, 1)), {"spec": (0,)}, name="rows"),
        Sample((Arg((4, 3)), _i((2, 2), 0, 2, 1, 1)), {"spec": (1,)}, name="columns"),
        Sample((Arg((4, 3)), _i((3,), 1, 3, 1), _i((3,), 0, 0, 0)), {"spec": (0, 1)}, name="points"),
        Sample((Arg((2, 3, 4)), _i((2, 1), 1, 0), _i((3,), 3, 3, 0)), {"spec": (0, 2)}, name="apart"),
        Sample((Arg((2, 3, 4), layout="T"), _i((2,), 1, 1), _i((2,), 0, 2)), {"spec": (1, 2)}, name="transposed"),
        Sample((Arg((4, 3), layout="step"), _i((0,))), {"spec": (0,)}, name="nothing"),
    ]


index_op = op(
    "index",
    infer=_index_infer,
    rule=_index_rule,
    keeps=("indices",),
    samples=_index_samples,
    checked=True,
    doc="Integer-array indexing: ``indices[k]`` along dimension ``spec[k]``; negative indices count from the end.",
)


def _index_put_infer(x: Any, value: Any, *indices: Any, spec: tuple[int, ...], accumulate: bool) -> Spec:
    shape = indexed_shape("indexing", x, indices, spec)
    if value.shape != shape and broadcast_shape("index_put", shape, tuple(value.shape)) != shape:
        raise ShapeError(
            f"index_put: shape mismatch: value tensor of shape {tuple(value.shape)} cannot be broadcast to the "
            f"indexing result of shape {shape}."
        )
    same_dtype("index_put", x, value)
    return Spec(tuple(x.shape), x.dtype)


def _index_put_rule(
    F: Any, g: Any, x: Any, value: Any, *indices: Any, needs: Any, spec: tuple[int, ...], accumulate: bool
) -> tuple[Any, ...]:
    to_x = to_value = None
    if needs[0]:
        zero = F.zeros_as(g, shape=())
        to_x = g if accumulate else F.index_put(g, zero, *indices, spec=spec, accumulate=False)
    if needs[1]:
        to_value = F.sum_to(F.index(g, *indices, spec=spec), shape=tuple(value.shape))
    return (to_x, to_value, *[None] * len(indices))


def _index_put_samples() -> list[Sample]:
    def one(name: str, x: Arg, value: Arg, *indices: Arg, spec: tuple[int, ...], add: bool) -> Sample:
        return Sample((x, value, *indices), {"spec": spec, "accumulate": add}, name=name)

    return [
        one("rows", Arg((4, 3)), Arg((2, 3)), _i((2,), 1, -1), spec=(0,), add=False),
        one("rows-broadcast", Arg((4, 3)), Arg((3,)), _i((2,), 1, 2), spec=(0,), add=False),
        one("add-repeated", Arg((4, 3)), Arg((4, 3)), _i((4,), 1, 1, 1, 0), spec=(0,), add=True),
        one("add-points", Arg((3, 4)), Arg((3,)), _i((3,), 1, 1, 2), _i((3,), 0, 0, -1), spec=(0, 1), add=True),
        one("add-apart", Arg((2, 3, 4)), Arg((2, 3)), _i((2,), 1, 1), _i((2,), 0, 0), spec=(0, 2), add=True),
        one("number", Arg((4, 3), layout="T"), Arg(()), _i((2,), 1, 2), spec=(1,), add=False),
        one("nothing", Arg((4, 3)), Arg((0, 3)), _i((0,)), spec=(0,), add=True),
    ]


index_put_op = op(
    "index_put",
    infer=_index_put_infer,
    define=lambda F, x, value, *indices, spec, accumulate: F.index_put_into(
        F.contiguous_copy(x), value, *indices, spec=spec, accumulate=accumulate
    ),
    rule=_index_put_rule,
    keeps=("indices",),
    samples=_index_put_samples,
    checked=True,
    doc="``x`` with ``value`` (broadcast) written, or added, at the positions that ``index`` would read.",
)
index_put_into = op(
    "index_put_into", infer=_index_put_infer, doc="``index_put`` over the memory of ``x``; not recorded."
)


def _put_arguments(name: str, input: Tensor, indices: Any, values: Any) -> tuple[Tensor, Any, tuple[Any, ...]]:
    from .getitem import advanced

    if isinstance(indices, Tensor) or not isinstance(indices, (tuple, list)):
        raise TypeError(f"{name}: indices must be a tuple of index tensors, got {type(indices).__name__}.")
    require_tensor(name, input)
    spec, tensors = advanced(input, tuple(indices))
    return as_value(name, input, values), spec, tensors


@calls(index_put_op, "x places:spec x flag")
def index_put(input: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with ``input[indices] = values``, or ``+=`` with ``accumulate``.

    With ``accumulate`` indices that repeat add up, in their order; without, the last one stays.

    Raises: IndexOutOfRange for indices out of bounds; ShapeError where shapes do not broadcast; DTypeError for values
        of another dtype.
    """
    value, spec, tensors = _put_arguments("index_put", input, indices, values)
    return index_put_op(input, value, *tensors, spec=spec, accumulate=bool(accumulate))


@calls(index_put_op, "x places:spec x flag", into="index_put_into")
def index_put_(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """In-place form of ``index_put``."""
    value, spec, tensors = _put_arguments("index_put_", self, indices, values)
    attrs = {"spec": spec, "accumulate": bool(accumulate)}
    return put_in_place(index_put_op, "index_put_into", self, (value, *tensors), attrs)


# --- slices along one dimension


def _select_infer(x: Any, index: Any, *, dim: int) -> Spec:
    if index.ndim > 1:
        raise ShapeError(f"index_select: index must have one dimension, got shape {tuple(index.shape)}.")
    count = index.shape[0] if index.ndim else 1
    return Spec((*x.shape[:dim], count, *x.shape[dim + 1 :]), x.dtype)


def _select_rule(F: Any, g: Any, x: Any, index: Any, *, needs: Any, dim: int) -> tuple[Any, ...]:
    return F.index_add(F.zeros_as(g, shape=tuple(x.shape)), index, g, dim=dim), None


index_select_op = op(
    "index_select",
    infer=_select_infer,
    rule=_select_rule,
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((4, 3)), _i((5,), 1, 0, 3, 1, 1)), {"dim": 0}, name="rows"),
        Sample((Arg((2, 4, 3), layout="T"), _i((2,), 3, 3)), {"dim": 1}, name="middle"),
        Sample((Arg((4,)), _i((0,))), {"dim": 0}, name="nothing"),
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
    return result if out is None else deliver("index_select", result, out)


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
    return g if needs[0] else None, None, F.index_select(g, index, dim=dim) if needs[2] else None


index_add_op = op(
    "index_add",
    infer=_add_infer,
    define=lambda F, x, index, src, *, dim: F.index_add_into(F.contiguous_copy(x), index, src, dim=dim),
    rule=_add_rule,
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((3, 2)), _i((4,), 1, 0, 1, 1), Arg((4, 2))), {"dim": 0}, name="rows"),
        Sample((Arg((2, 3), layout="T"), _i((2,), 2, 2), Arg((2, 2))), {"dim": 1}, name="columns"),
        Sample((Arg((3,)), _i((0,)), Arg((0,))), {"dim": 0}, name="nothing"),
    ],
    checked=True,
    doc="``x`` with the slices of ``src`` added at ``index`` along ``dim``, in the order of the index.",
)
index_add_into = op("index_add_into", infer=_add_infer, doc="``index_add`` over the memory of ``x``; not recorded.")


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
    return result if out is None else deliver("index_add", result, out)


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
    return result if out is None else deliver("index_copy", result, out)


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
    array = index._data
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= size:
            raise IndexOutOfRange(
                f"{name}: index {high if high >= size else low} is out of bounds for dimension {dim} with size {size}."
            )


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
    return result if out is None else deliver("index_reduce", result, out)


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


# --- positions in the flattened tensor, and under masks


@calls(index_op, "flat index", spec=(0,))
def take(input: Tensor, index: Tensor, *, out: Any = None) -> Tensor:
    """The elements at ``index`` of the flattened tensor, in its shape; negative positions count from the end."""
    require_tensor("take", input)
    flat = input if input._data.ndim == 1 else to_shape(input, -1)
    result = index_op(flat, as_index("take", index), spec=(0,))
    if out is not None:
        check_partial_overlap("take", require_tensor("take", out), [input._data, index._data], same=True)
        return deliver("take", result, out)
    return result


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with elements of ``source`` written, or added, at these positions of the flattened tensor.

    Raises: ShapeError if ``source`` and ``index`` differ in their number of elements; DTypeError for another dtype.
    """
    value, where = _put_flat("put", input, index, source)
    flat = index_put_op(to_shape(input, -1), value, where, spec=(0,), accumulate=bool(accumulate))
    return core.reshape(flat, shape=tuple(input.shape))


def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """In-place form of ``put``."""
    value, where = _put_flat("put_", self, index, source)
    attrs = {"spec": (0,), "accumulate": bool(accumulate)}
    if self._data.flags.c_contiguous:
        put_in_place(
            index_put_op, "index_put_into", core.reshape(self, shape=(self._data.size,)), (value, where), attrs
        )
        return self
    result: Tensor = self.copy_(put(self, index, source, accumulate))
    return result


def _put_flat(name: str, target: Tensor, index: Any, source: Any) -> tuple[Tensor, Tensor]:
    require_tensor(name, target)
    where, values = as_index(name, index), require_tensor(name, source)
    if where._data.size != values.size:
        raise ShapeError(
            f"{name}: expected source and index to have the same number of elements, but got source.numel() = "
            f"{values.size}, index.numel() = {where._data.size}."
        )
    same_dtype(name, target._data, values)
    if where._data.size and not target._data.size:
        raise IndexOutOfRange(f"{name}: cannot write into a tensor of no elements.")
    return to_shape(source, -1), to_shape(where, -1)


def _mask_positions(name: str, input: Tensor, mask: Any) -> tuple[Tensor, tuple[int, ...], tuple[Any, ...]]:
    """(input, spec, indices): ``input`` broadcast with the mask, and where the mask holds."""
    from .search import nonzero

    array = require_tensor(name, input)
    if require_tensor(name, mask).dtype.kind != "b":
        raise DTypeError(f"{name}: the mask must be a bool tensor, got {mask.dtype}.")
    shape = broadcast_shape(name, array.shape, mask._data.shape)
    x = input if array.shape == shape else core.expand(input, shape=shape)
    where = mask if mask._data.shape == shape else core.expand(mask, shape=shape)
    if not shape:
        x, where = core.reshape(x, shape=(1,)), core.reshape(where, shape=(1,))
    return x, tuple(range(max(len(shape), 1))), nonzero(where, as_tuple=True)


def masked_select(input: Tensor, mask: Tensor, *, out: Any = None) -> Tensor:
    """The elements where ``mask`` (bool, broadcast) holds, in row-major order, as one dimension.

    Raises: DTypeError for a mask that is not bool; ShapeError where shapes do not broadcast.
    """
    x, spec, indices = _mask_positions("masked_select", input, mask)
    result = index_op(x, *indices, spec=spec)
    return result if out is None else deliver("masked_select", result, out)


def _masked_source(x: Tensor, source: Any, indices: tuple[Any, ...]) -> Tensor:
    count = indices[0]._data.shape[0]
    if size_of(require_tensor("masked_scatter", source).shape) < count:
        raise ShapeError(
            f"masked_scatter: the mask holds {count} times, but the source has {source._data.size} elements only."
        )
    return core.slice_(to_shape(source, -1), key=(slice(0, count, 1),))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of ``input`` with the elements where ``mask`` holds replaced by those of ``source``, one after another.

    Raises: ShapeError if ``source`` has fewer elements than the mask holds; DTypeError for another dtype.
    """
    x, spec, indices = _mask_positions("masked_scatter", input, mask)
    result = index_put_op(x, _masked_source(x, source, indices), *indices, spec=spec, accumulate=False)
    return result if input._data.ndim else core.reshape(result, shape=tuple(input.shape))


def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """In-place form of ``masked_scatter``."""
    x, spec, indices = _mask_positions("masked_scatter_", self, mask)
    if self._data.ndim and x._data.shape != self._data.shape:
        raise ShapeError(f"masked_scatter_: a mask of shape {tuple(mask.shape)} is larger than the tensor.")
    attrs = {"spec": spec, "accumulate": False}
    put_in_place(index_put_op, "index_put_into", x, (_masked_source(x, source, indices), *indices), attrs)
    return self


for _function in (
    index_add, index_add_, index_copy, index_copy_, index_fill, index_fill_, index_put, index_put_, index_reduce,
    index_reduce_, index_select, masked_scatter, masked_scatter_, masked_select, put, put_, take,
):  # fmt: skip
    install(_function)
