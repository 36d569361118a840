"""Views and copies that everything else is made of: reshape, permute, expand, slice; cast, copy, sum back."""

from __future__ import annotations

from typing import Any

from ..dtypes import numpy_dtype
from ..errors import DimError, ShapeError
from ..tensor import wrap
from .record import Spec, op
from .samples import Arg, Sample

__all__ = ["cast", "contiguous_copy", "copy_into", "dims_of", "expand", "permute", "reshape", "slice_", "sum_to"]


def as_index(given: Any) -> int | None:
    """``given`` as a Python integer; None for what is none: True, 1.5, a tensor of other than one integer."""
    if type(given) is int:
        return given
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        return None
    if getattr(getattr(given, "dtype", None), "name", "") == "bool":
        return None
    try:
        return int(given.__index__())
    except TypeError:
        return None


def one_dim(name: str, dim: Any, ndim: int) -> int:
    """``dim`` counted from the front. Raises DimError out of range, TypeError for non-integers."""
    if type(dim) is int and -ndim <= dim < ndim:
        return dim if dim >= 0 else dim + ndim
    index = as_index(dim)
    if index is None:
        raise TypeError(f"{name}: dim must be an integer, got {dim!r}.")
    limit = max(ndim, 1)
    if not -limit <= index < limit:
        raise DimError(
            f"{name}: Dimension out of range: dim is {index}, a tensor with {ndim} dimensions has {-limit} to "
            f"{limit - 1}."
        )
    return index % limit


_ALL = tuple([tuple(range(ndim)) for ndim in range(65)])  # NumPy's arrays have at most 64 dimensions


def dims_of(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Dimensions to work on as a tuple counted from the front; None and () mean all. Raises DimError."""
    if dim is None:
        return _ALL[ndim]
    if not isinstance(dim, (tuple, list)):
        chosen: tuple[int, ...] = (one_dim(name, dim, ndim),)
    else:
        chosen = tuple(one_dim(name, d, ndim) for d in dim)
        if not chosen:
            return tuple(range(ndim))
        if len(set(chosen)) != len(chosen):
            raise DimError(f"{name}: a dim appears twice in {tuple(dim)}.")
    return chosen if ndim else ()


def size_of(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def require_addressable(name: str, shape: tuple[int, ...]) -> None:
    """Raises ShapeError for a shape of more elements, or a larger size, than an array can have."""
    total = size_of(shape)
    if total > 2**59:  # of the widest elements, of 16 bytes
        raise ShapeError(f"{name}: shape {shape} has {total} elements, more than can be addressed.")
    if not total and size_of(tuple([size or 1 for size in shape])) > 2**59:
        raise ShapeError(f"{name}: shape {shape} has no elements, but larger sizes than can be addressed.")


def _reshape_infer(x: Any, *, shape: tuple[int, ...]) -> Spec:
    if size_of(tuple(x.shape)) != size_of(shape):
        raise ShapeError(
            f"reshape: shape {shape} is invalid for a tensor of {size_of(tuple(x.shape))} elements "
            f"(shape {tuple(x.shape)})."
        )
    return Spec(shape, x.dtype)


reshape = op(
    "reshape",
    infer=_reshape_infer,
    rule=lambda F, g, x, *, needs, shape: (F.reshape(_dense(F, g), shape=tuple(x.shape)),),
    view=True,
    samples=lambda: [
        Sample((Arg((3, 4)),), {"shape": (2, 6)}, name="matrix"),
        Sample((Arg(()),), {"shape": (1, 1)}, name="scalar"),
        Sample((Arg((0, 3)),), {"shape": (3, 0, 2)}, name="empty"),
    ],
    doc="The same elements in another shape; the input's memory must allow it without a copy.",
)


def _dense(F: Any, g: Any) -> Any:
    """``g`` in memory order, so that reshape is a view whatever strides an expanded or permuted gradient has."""
    return F.contiguous(g)


def _contiguous_infer(x: Any) -> Spec:
    return Spec(tuple(x.shape), x.dtype)


def _copies() -> list[Sample]:
    return [
        Sample((Arg((3, 4)),), name="matrix"),
        Sample((Arg((3, 4), layout="T"),), name="transposed"),
        Sample((Arg((2, 3), layout="step"),), name="strided"),
        Sample((Arg(()),), name="scalar"),
        Sample((Arg((0, 3)),), name="empty"),
    ]


contiguous = op(
    "contiguous",
    infer=_contiguous_infer,
    rule=lambda F, g, x, *, needs: (g,),
    define=lambda F, x: F.contiguous_copy(x),
    samples=_copies,
    doc="A C-contiguous copy, or the input itself if it is contiguous.",
)
contiguous_copy = op(
    "contiguous_copy",
    infer=_contiguous_infer,
    rule=lambda F, g, x, *, needs: (g,),
    samples=_copies,
    doc="A fresh C-contiguous copy.",
)


def copied(x: Any, order: tuple[int, ...] | None) -> Any:
    """A copy of the Tensor ``x`` whose memory runs through the dimensions in this order; None means row-major."""
    if order is None:
        return contiguous_copy(x)
    return owned(permute(contiguous_copy(permute(x, dims=order)), dims=_inverse(order)))


def owned(view: Any) -> Any:
    """A view of memory that nothing else sees, as a tensor of its own."""
    out = wrap(view._data)
    out._node, out._slot, out._tracked = view.grad_fn, view._slot, view._tracked
    return out


def _permute_infer(x: Any, *, dims: tuple[int, ...]) -> Spec:
    return Spec(tuple(x.shape[d] for d in dims), x.dtype)


def _inverse(dims: tuple[int, ...]) -> tuple[int, ...]:
    inverse = [0] * len(dims)
    for position, dim in enumerate(dims):
        inverse[dim] = position
    return tuple(inverse)


permute = op(
    "permute",
    infer=_permute_infer,
    rule=lambda F, g, x, *, needs, dims: (F.permute(g, dims=_inverse(dims)),),
    view=True,
    samples=lambda: [
        Sample((Arg((2, 3, 4)),), {"dims": (2, 0, 1)}, name="three"),
        Sample((Arg((3, 4), layout="T"),), {"dims": (1, 0)}, name="transposed"),
        Sample((Arg(()),), {"dims": ()}, name="scalar"),
        Sample((Arg((0, 2)),), {"dims": (1, 0)}, name="empty"),
    ],
    doc="The same elements with the dimensions in another order.",
)


def _expand_infer(x: Any, *, shape: tuple[int, ...]) -> Spec:
    have = tuple(x.shape)
    lead = len(shape) - len(have)
    if lead < 0 or any(size not in (1, shape[i + lead]) for i, size in enumerate(have)):
        raise ShapeError(f"expand: a tensor of shape {have} can't be expanded to {shape}: only sizes of 1 grow.")
    return Spec(shape, x.dtype)


expand = op(
    "expand",
    infer=_expand_infer,
    rule=lambda F, g, x, *, needs, shape: (F.sum_to(g, shape=tuple(x.shape)),),
    view=True,
    samples=lambda: [
        Sample((Arg((3, 1)),), {"shape": (2, 3, 4)}, name="column"),
        Sample((Arg(()),), {"shape": (2, 2)}, name="scalar"),
        Sample((Arg((1, 3), layout="step"),), {"shape": (0, 3)}, name="to-nothing"),
        Sample((Arg((2, 3)),), {"shape": (2, 3)}, name="same"),
    ],
    doc="Dimensions of size 1 repeated without copying.",
)


def _slice_infer(x: Any, *, key: tuple[Any, ...]) -> Spec:
    shape: list[int] = []
    axis = 0
    for part in key:
        if part is None:
            shape.append(1)
            continue
        if isinstance(part, slice):
            shape.append(len(range(*part.indices(x.shape[axis]))))
        axis += 1
    shape.extend(x.shape[axis:])
    return Spec(tuple(shape), x.dtype)


def _slice_rule(F: Any, g: Any, x: Any, *, needs: tuple[bool, ...], key: tuple[Any, ...]) -> tuple[Any, ...]:
    parts = [part for part in key if part is not None]
    whole = [slice(0, n, 1) for n in x.shape[: len(parts)]]
    if parts == whole:  # new dimensions of size 1 and no more: nothing to fill with zeros
        return (F.slice(g, key=tuple([0 if part is None else part for part in key])),)
    return (F.slice_backward(g, shape=tuple(x.shape), key=key),)


slice_ = op(
    "slice",
    infer=_slice_infer,
    rule=_slice_rule,
    view=True,
    adds="slice_add_into",  # or the gradients of n slices would write and add n whole arrays
    samples=lambda: [
        Sample((Arg((4, 5)),), {"key": (1,)}, name="row"),
        Sample((Arg((4, 5), layout="T"),), {"key": (slice(1, 4, 2), slice(0, 5, 3))}, name="steps"),
        Sample((Arg((3, 2)),), {"key": (None, slice(0, 3, 1), 1, None)}, name="new-dims"),
        Sample((Arg((3, 2)),), {"key": (2, 0)}, name="element"),
        Sample((Arg((3, 2)),), {"key": (slice(2, 2, 1),)}, name="nothing"),
    ],
    doc="Basic indexing: ``key`` holds integers, slices and None.",
)


def _slice_backward_define(F: Any, g: Any, *, shape: tuple[int, ...], key: tuple[Any, ...]) -> Any:
    out = F.zeros_as(g, shape=shape)
    F.copy_into(F.slice(out, key=key), g)
    return out


slice_backward = op(
    "slice_backward",
    infer=lambda g, *, shape, key: Spec(shape, g.dtype),
    define=_slice_backward_define,
    rule=lambda F, g, g0, *, needs, shape, key: (F.slice(g, key=key),),
    samples=lambda: [
        Sample((Arg((2, 2)),), {"shape": (4, 5), "key": (slice(1, 4, 2), slice(0, 5, 3))}, name="steps"),
        Sample((Arg(()),), {"shape": (3, 2), "key": (2, 0)}, name="element"),
    ],
    doc="Zeros of ``shape`` with ``g`` where ``key`` points.",
)
slice_add_into = op(
    "slice_add_into",
    infer=lambda x, g, *, key: Spec(tuple(x.shape), x.dtype),
    doc="``x`` with ``g`` added where ``key`` points, in the memory of ``x``.",
)
zeros_as = op(
    "zeros_as",
    infer=lambda x, *, shape: Spec(shape, x.dtype),
    rule=lambda F, g, x, *, needs, shape: (None,),
    samples=lambda: [Sample((Arg((2, 3)),), {"shape": (4,)}, False, "vector")],
    doc="Zeros of ``shape`` in the dtype and on the device of ``x``.",
)

empty_as = op(
    "empty_as",
    infer=lambda x, *, shape: Spec(shape, x.dtype),
    doc="An array of ``shape`` in the dtype and on the device of ``x``, to be written to; its elements mean nothing.",
)


def _cast_infer(x: Any, *, dtype: Any) -> Spec:
    return Spec(tuple(x.shape), dtype)


def _cast_rule(F: Any, g: Any, x: Any, *, needs: tuple[bool, ...], dtype: Any) -> tuple[Any, ...]:
    return (F.cast(g, dtype=x.dtype),)


cast = op(
    "cast",
    infer=_cast_infer,
    rule=_cast_rule,
    checked=True,
    samples=lambda: [
        Sample((Arg((3, 4)),), {"dtype": numpy_dtype("float64")}, name="float64"),
        Sample((Arg((3, 4), 1.2, 9.8, layout="T"),), {"dtype": numpy_dtype("int64")}, False, "int64"),
        Sample((Arg((3,)),), {"dtype": numpy_dtype("bool")}, False, "bool"),
        Sample((Arg((0, 2)),), {"dtype": numpy_dtype("float32")}, False, "empty"),
    ],
    doc="The elements converted to ``dtype``, in fresh memory.",
)
sum_to = op(
    "sum_to",
    infer=lambda x, *, shape: Spec(shape, x.dtype),
    rule=lambda F, g, x, *, needs, shape: (F.expand(g, shape=tuple(x.shape)),),
    samples=lambda: [
        Sample((Arg((2, 3, 4)),), {"shape": (3, 1)}, name="lead-and-column"),
        Sample((Arg((2, 3), layout="T"),), {"shape": ()}, name="scalar"),
        Sample((Arg((2, 3)),), {"shape": (2, 3)}, name="same"),
        Sample((Arg((0, 3)),), {"shape": (3,)}, name="empty"),
    ],
    doc="The sum over the axes along which ``shape`` was broadcast: what undoes broadcasting in backward.",
)


def _copy_into_infer(target: Any, source: Any) -> Spec:
    return Spec(tuple(target.shape), target.dtype)


copy_into = op("copy_into", infer=_copy_into_infer, doc="Writes ``source`` over ``target``; not recorded.")
full = op("full", infer=lambda *, shape, value, dtype: Spec(shape, dtype), doc="A filled array.")
ramp = op(
    "ramp",
    infer=lambda *, first, by, count: Spec((count,), numpy_dtype("int64")),
    doc="``count`` whole numbers (int64) from ``first`` in steps of ``by``.",
)
full_as = op(
    "full_as",
    infer=lambda x, *, value: Spec(tuple(x.shape), x.dtype),
    rule=lambda F, g, x, *, needs, value: (None,),
    samples=lambda: [Sample((Arg((2, 3)),), {"value": 1.5}, False, "number")],
    doc="An array like ``x``, every element ``value``.",
)
