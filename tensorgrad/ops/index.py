"""Reading and writing at any integer positions: the records behind ``x[i, j]``, and their functions.

Whole slices along one dimension are in ``index_slices.py``.
"""

from __future__ import annotations

import math
from typing import Any

from ..autograd.grad_mode import state as grad_state
from ..dispatch import known, local
from ..dtypes import BY_NAME, numpy_dtype
from ..errors import DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor, install, wrap
from . import shape_core as core
from .calls import calls
from .create import as_operand
from .elementwise import broadcast_shape
from .inplace import at_level_of, check_partial_overlap, check_writable, deliver_same, write_into
from .record import Op, Spec, as_ours, op
from .reduce import require_tensor
from .samples import Arg, Sample, int_arg
from .selection import where
from .shape import reshape as to_shape
from .shape_core import size_of
from .storable import as_stored, check_storable

__all__ = ["index_put", "masked_scatter", "masked_select", "put", "take"]


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
    check_storable(name, value, target.dtype, assigned=name == "setitem")
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
        local.doors[type(x._data)].contiguous_copy(x._data) if x._cell is not None and x._cell is target._cell
        else x._data
        for x in inputs
    ]  # fmt: skip
    try:
        getattr(local.doors[type(target._data)], into)(target._data, *arrays, **attrs)
    except IndexError as error:
        raise as_ours(error) from None
    target._bump()
    return target


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
    return (known(F).index_put(zeros, g, *indices, spec=spec, accumulate=True), *[None] * len(indices))


def _index_samples() -> list[Sample]:
    return [
        Sample((Arg((4, 3)), int_arg((3,), 1, -1, 1)), {"spec": (0,)}, name="rows"),
        Sample((Arg((4, 3)), int_arg((2, 2), 0, 2, 1, 1)), {"spec": (1,)}, name="columns"),
        Sample((Arg((4, 3)), int_arg((3,), 1, 3, 1), int_arg((3,), 0, 0, 0)), {"spec": (0, 1)}, name="points"),
        Sample((Arg((2, 3, 4)), int_arg((2, 1), 1, 0), int_arg((3,), 3, 3, 0)), {"spec": (0, 2)}, name="apart"),
        Sample(
            (Arg((2, 3, 4), layout="T"), int_arg((2,), 1, 1), int_arg((2,), 0, 2)), {"spec": (1, 2)}, name="transposed"
        ),
        Sample((Arg((4, 3), layout="step"), int_arg((0,))), {"spec": (0,)}, name="nothing"),
    ]


index_op = op(
    "index",
    raises=True,
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
        to_x = g if accumulate else known(F).index_put(g, zero, *indices, spec=spec, accumulate=False)
    if needs[1]:
        to_value = F.sum_to(known(F).index(g, *indices, spec=spec), shape=tuple(value.shape))
    return (to_x, to_value, *[None] * len(indices))


def _index_put_samples() -> list[Sample]:
    def one(name: str, x: Arg, value: Arg, *indices: Arg, spec: tuple[int, ...], add: bool) -> Sample:
        return Sample((x, value, *indices), {"spec": spec, "accumulate": add}, name=name)

    return [
        one("rows", Arg((4, 3)), Arg((2, 3)), int_arg((2,), 1, -1), spec=(0,), add=False),
        one("rows-broadcast", Arg((4, 3)), Arg((3,)), int_arg((2,), 1, 2), spec=(0,), add=False),
        one("add-repeated", Arg((4, 3)), Arg((4, 3)), int_arg((4,), 1, 1, 1, 0), spec=(0,), add=True),
        one(
            "add-points", Arg((3, 4)), Arg((3,)), int_arg((3,), 1, 1, 2), int_arg((3,), 0, 0, -1), spec=(0, 1), add=True
        ),
        one("add-apart", Arg((2, 3, 4)), Arg((2, 3)), int_arg((2,), 1, 1), int_arg((2,), 0, 0), spec=(0, 2), add=True),
        one("number", Arg((4, 3), layout="T"), Arg(()), int_arg((2,), 1, 2), spec=(1,), add=False),
        one("nothing", Arg((4, 3)), Arg((0, 3)), int_arg((0,)), spec=(0,), add=True),
    ]


index_put_op = op(
    "index_put",
    raises=True,
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
    "index_put_into", raises=True, infer=_index_put_infer, doc="``index_put`` over the memory of ``x``; not recorded."
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


# --- positions in the flattened tensor, and under masks


@calls(index_op, "flat index", spec=(0,))
def take(input: Tensor, index: Tensor, *, out: Any = None) -> Tensor:
    """The elements at ``index`` of the flattened tensor, in its shape; negative positions count from the end."""
    require_tensor("take", input)
    flat = input if input._data.ndim == 1 else to_shape(input, -1)
    result = index_op(flat, as_index("take", index), spec=(0,))
    if out is not None:
        check_partial_overlap("take", require_tensor("take", out), [input._data, index._data], same=True)
        return deliver_same("take", result, out)
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
    return result if out is None else deliver_same("masked_select", result, out)


def _masked_source(x: Tensor, source: Any, indices: tuple[Any, ...]) -> Tensor:
    count = indices[0]._data.shape[0]
    if size_of(require_tensor("masked_scatter", source).shape) < count:
        raise ShapeError(
            f"masked_scatter: the mask holds {count} times, but the source has {source._data.size} elements only."
        )
    return core.slice_(to_shape(source, -1), key=(slice(0, count, 1),))


def _scattered_by_rank(input: Tensor, mask: Tensor, source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """By each place's rank under the mask: no shape depends on the data, so a program can hold it.

    For a source of as many elements as the mask, which no mask can exhaust.
    """
    same_dtype("masked_scatter", input._data, source._data)
    places = mask if mask._data.shape == shape else core.expand(mask, shape=shape)
    rank = (places.reshape(-1).cumsum(0) - 1).clamp(min=0)
    return where(places, take(source, rank.reshape(shape)), input)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of ``input`` with the elements where ``mask`` holds replaced by those of ``source``, one after another.

    Raises: ShapeError if ``source`` has fewer elements than the mask holds; DTypeError for another dtype.
    """
    if require_tensor("masked_scatter", mask).dtype.kind == "b":
        shape = broadcast_shape("masked_scatter", require_tensor("masked_scatter", input).shape, mask._data.shape)
        if 0 < math.prod(shape) <= size_of(require_tensor("masked_scatter", source).shape):
            return _scattered_by_rank(input, mask, source, shape)
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


for _function in (index_put, index_put_, masked_scatter, masked_scatter_, masked_select, put, put_, take):
    install(_function)
