"""Finding: where elements are, which there are, how often, and where they belong in an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dispatch import local
from ..dtypes import key_of, numpy_dtype, result_name
from ..errors import ArgumentError, DimError, DTypeError, ShapeError
from ..tensor import Tensor, install
from . import pointwise as pw
from . import shape_core as core
from .checks import integer
from .inplace import deliver_same
from .record import Spec, op
from .reduce import count_nonzero, require_tensor
from .samples import Arg, Sample
from .shape import contiguous, movedim
from .shape import reshape as to_shape
from .shape_core import one_dim
from .sort import sort_op

__all__ = [
    "argwhere", "bincount", "bucketize", "isin", "nonzero", "nonzero_static", "one_hot", "searchsorted", "unique",
    "unique_consecutive",
]  # fmt: skip

_INT64 = numpy_dtype("int64")


def _unknown(name: str) -> Any:
    def infer(x: Any, *others: Any, **attrs: Any) -> Any:
        return Spec((), _INT64)

    infer.__name__ = name
    return infer


# The shapes of results that are ``sized_by_data`` are not what infer says of them.
nonzero_op = op(
    "nonzero",
    infer=_unknown("nonzero"),
    nondiff=("y",),
    sized_by_data=True,
    doc="(n, ndim): where ``x`` is not zero.",
)
positions_op = op(
    "positions",
    raises=True,
    infer=lambda x, *, count: Spec((count, x.ndim), _INT64),
    nondiff=("y",),
    samples=lambda: [
        Sample((Arg((2, 3), kind="i", values=(0, 2, 1, 1, 0, 2)),), {"count": 4}, False, "matrix"),
        Sample((Arg((4,), kind="b", values=(0, 0, 0, 0)),), {"count": 0}, False, "none"),
    ],
    doc="(count, ndim): where ``x`` is not zero, which is in so many places, or it raises.",
)
one_hot_op = op(
    "one_hot",
    raises=True,
    infer=lambda x, *, classes: Spec((*x.shape, classes), _INT64),
    nondiff=("y",),
    samples=lambda: [Sample((Arg((2, 3), kind="i", values=(0, 2, 1, 1, 0, 2)),), {"classes": 4}, False, "matrix")],
    doc="1 where the class of a new last dimension is that of the element, 0 elsewhere.",
)
bincount_op = op(
    "bincount",
    raises=True,
    infer=_unknown("bincount"),
    nondiff=("y",),
    sized_by_data=True,
    fixed="one_hot(x, n).sum(0), or weights @ one_hot(x, n), for integers below n: minlength is a least length, and "
    "the largest integer may make the result longer",
    doc="How often each integer occurs.",
)


def nonzero(input: Tensor, *, as_tuple: bool = False, out: Any = None) -> Any:
    """Where the elements are not zero: an (n, ndim) int64 tensor; with ``as_tuple`` an (n,) tensor per dimension."""
    array = require_tensor("nonzero", input)
    if as_tuple:
        found = _places(input if array.ndim else core.reshape(input, shape=(1,)))
        return tuple([core.slice_(found, key=(slice(None), i)) for i in range(max(array.ndim, 1))])
    result = _places(input)
    return result if out is None else deliver_same("nonzero", result, out)


def _places(x: Tensor) -> Any:
    if not local.frames and any(ear.counts(x) for ear in local.listeners):
        # what a program holds has a fixed shape: how many there are is read first, and so will be in each call
        return positions_op(x, count=count_nonzero(x).item())
    return nonzero_op(x)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1, out: Any = None) -> Tensor:
    """``nonzero`` with exactly ``size`` rows: more are cut off, missing ones are filled with ``fill_value``."""
    from .create import full
    from .join import cat

    size = integer("nonzero_static", "size", size)
    if size < 0:
        raise ArgumentError(f"nonzero_static: size must not be negative, got {size}.")
    found = nonzero(input)
    count, ndim = found._data.shape
    result = core.slice_(found, key=(slice(0, min(count, size), 1),))
    if count < size:
        result = cat([result, full((size - count, ndim), fill_value, dtype="int64", device=input.device)], 0)
    return result if out is None else deliver_same("nonzero_static", result, out)


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False, out: Any = None
) -> Tensor:
    """Whether each of ``elements`` is among ``test_elements``; one of the two may be a number.

    ``assume_unique`` promises that no element occurs twice, which is not needed; ``invert`` asks whether it is not.

    Raises: TypeError if neither is a tensor; DTypeError for bool and complex tensors.
    """
    from .create import tensor

    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise TypeError("isin: one of elements and test_elements must be a tensor.")
    pair = [x if isinstance(x, Tensor) else tensor(x) for x in (elements, test_elements)]
    for x in pair:
        if x._data.dtype.kind in "bc":
            raise DTypeError(f"isin: Unsupported input type encountered for isin(): {x.dtype}.")
    dtype = numpy_dtype(result_name((key_of(pair[0]._data), key_of(pair[1]._data))))
    wanted, known = [x if x._data.dtype == dtype else core.cast(x, dtype=dtype) for x in pair]
    if known._data.size:
        ordered: Any = sort_op(to_shape(known, -1), dim=0, descending=False, stable=False)[0]
        places = pw.clamp_max(searchsorted(ordered, contiguous(wanted)), known._data.size - 1)
        found = pw.eq(ordered[places] if places._data.ndim else ordered[int(places)], wanted)
    else:
        found = pw.ne(wanted, wanted) if dtype.kind != "f" else pw.logical_and(pw.isnan(wanted), pw.eq(wanted, 0))
    result = pw.logical_not(found) if invert else found
    return result if out is None else deliver_same("isin", result, out)


def argwhere(input: Tensor) -> Tensor:
    """``nonzero(input)``: an (n, ndim) tensor of positions."""
    return nonzero(input)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in ``input`` (one dimension, integers), or the sum of its weights.

    Raises: IndexOutOfRange for negative integers; ShapeError for more than one dimension or weights of another shape.
    """
    array = require_tensor("bincount", input)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ShapeError(f"bincount: expected integers in one dimension, got {input.dtype} {tuple(input.shape)}.")
    minlength = integer("bincount", "minlength", minlength)
    if minlength < 0:
        raise ShapeError(f"bincount: minlength must not be negative, got {minlength}.")
    if weights is not None:
        if require_tensor("bincount", weights).shape != array.shape:
            raise ShapeError(f"bincount: weights have shape {tuple(weights.shape)}, the input {tuple(input.shape)}.")
        if weights._data.dtype.name != "float32":
            weights = core.cast(weights, dtype=numpy_dtype("float64"))
    wide = core.cast(input, dtype=_INT64) if array.dtype != _INT64 else input
    return bincount_op(wide, weights, minlength=minlength)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """An int64 tensor with a new last dimension, 1 where it equals the class and 0 elsewhere.

    Args:
        num_classes: the size of that dimension; -1 means one more than the largest class.
    Raises: DTypeError unless ``tensor`` is int64; IndexOutOfRange for classes that are negative or too large.
    """
    from .extremes import amax

    array = require_tensor("one_hot", tensor)
    if array.dtype != _INT64:
        raise DTypeError(f"one_hot is only applicable to index tensors of type int64, got {tensor.dtype}.")
    num_classes = integer("one_hot", "num_classes", num_classes)
    if num_classes == -1 and array.size:
        num_classes = max(int(amax(tensor)), 0) + 1
    if array.size == 0 and num_classes <= 0:
        raise ShapeError("one_hot: the number of classes can't be found in an empty tensor; pass num_classes.")
    return one_hot_op(tensor, classes=num_classes)


# --- order


def _search_infer(boundaries: Any, values: Any, *, right: bool) -> Spec:
    if boundaries.ndim != 1 and tuple(boundaries.shape[:-1]) != tuple(values.shape[:-1]):
        raise ShapeError(
            f"searchsorted: boundaries {tuple(boundaries.shape)} must have one dimension or share all but the last "
            f"with the values {tuple(values.shape)}."
        )
    return Spec(tuple(values.shape), _INT64)


searchsorted_op = op(
    "searchsorted",
    infer=_search_infer,
    nondiff=("y",),
    samples=lambda: [
        Sample((Arg((4,), values=(-1.0, 0.0, 0.0, 1.0)), Arg((3, 2))), {"right": False}, False, "vector"),
        Sample((Arg((2, 3), values=(-1.0, 0.0, 1.0, 0.0, 0.5, 2.0)), Arg((2, 4))), {"right": True}, False, "rows"),
        Sample((Arg((0,)), Arg((3,))), {"right": False}, False, "no-boundaries"),
        Sample((Arg((3,), values=(0.0, 1.0, 2.0)), Arg((3,), values=(1.0, 2.0, 0.0))), {"right": True}, False, "equal"),
    ],
    doc="Where each value belongs among sorted boundaries, before (or, with ``right``, after) equal ones.",
)


def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None,
    out: Any = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where each element of ``input`` belongs in the last dimension of ``sorted_sequence`` to keep it sorted.

    Args:
        right: (or ``side="right"``) after equal elements rather than before.
        sorter: what sorts ``sorted_sequence``, if it is not sorted itself.
        out_int32: int32 instead of int64.
    Raises: ShapeError for a sequence of several dimensions whose leading ones differ from the input's; ValueError for
        ``side`` and ``right`` that contradict each other.
    """
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ValueError(f"searchsorted: side must be 'left' or 'right' and agree with right={right}, got {side!r}.")
    array = require_tensor("searchsorted", sorted_sequence)
    if array.ndim == 0:
        raise ShapeError("searchsorted: the sequence must have at least one dimension.")
    if sorter is not None:
        from .gather import gather

        if tuple(require_tensor("searchsorted", sorter).shape) != array.shape:
            raise ShapeError(f"searchsorted: sorter has shape {tuple(sorter.shape)}, the sequence {array.shape}.")
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    number = not isinstance(input, Tensor)
    if number:
        from .create import tensor

        input = tensor(input, device=sorted_sequence.device)
    result = searchsorted_op(sorted_sequence, input, right=right or side == "right")
    if out_int32:
        result = core.cast(result, dtype=numpy_dtype("int32"))
    return result if out is None else deliver_same("searchsorted", result, out)


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False, out: Any = None
) -> Tensor:
    """The number of the bucket, bounded by ``boundaries`` (one dimension, sorted), that each element falls into."""
    if require_tensor("bucketize", boundaries).ndim != 1:
        raise ShapeError(f"bucketize: boundaries must have one dimension, got {tuple(boundaries.shape)}.")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)


# --- which there are


unique_op = op(
    "unique",
    infer=_unknown("unique"),
    outputs=("values", "inverse", "counts"),
    nondiff=("values", "inverse", "counts"),
    sized_by_data=True,
    doc="The distinct rows of ``x``, sorted; where each row is among them (if asked), and how often each occurs.",
)


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements, or the distinct slices along ``dim``, sorted (``sorted=False`` permits any order).

    Returns: the values; with ``return_inverse`` also where each element is among them, with ``return_counts`` also how
        often each occurs. NaN differs from every NaN.
    """
    array = require_tensor("unique", input)
    if dim is None:
        rows = to_shape(input, -1, 1)
        shape: Sequence[int] = tuple(array.shape)
    else:
        at = one_dim("unique", dim, array.ndim)
        if not array.ndim:
            raise DimError("unique: a tensor of no dimensions has none to compare along.")
        moved: Any = movedim(input, at, 0)
        rows = moved.reshape(array.shape[at], -1) if array.size else moved.flatten(1)
        shape = (array.shape[at],)
    values, inverse, counts = unique_op(rows, inverse=return_inverse)
    if dim is None:
        values = values.reshape(-1)
    else:
        values = values.reshape((values.shape[0], *moved.shape[1:])).movedim(0, at).contiguous()
    where = inverse.reshape(shape) if return_inverse else None
    return _asked(values, where, counts, return_inverse, return_counts)


def _asked(values: Any, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool) -> Any:
    found = (values, *([inverse] if return_inverse else []), *([counts] if return_counts else []))
    return found if len(found) > 1 else values


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (or slices along ``dim``) without those that equal the one before; returns as ``unique``."""
    from .create import full
    from .join import cat

    array = require_tensor("unique_consecutive", input)
    at = 0 if dim is None else one_dim("unique_consecutive", dim, array.ndim)
    if dim is not None and not array.ndim:
        raise DimError("unique_consecutive: a tensor of no dimensions has none to compare along.")
    x: Any = to_shape(input, -1) if dim is None else movedim(input, at, 0)
    count = x._data.shape[0]
    rows = x.reshape(count, -1) if x._data.size else x.flatten(1) if x._data.ndim > 1 else x.reshape(count, 1)
    new: Any = full((count,), True, device=input.device)
    if count > 1:
        new[1:] = (rows[1:] != rows[:-1]).any(1)
    starts = nonzero(new)[:, 0]
    values = x[starts] if dim is None else x[starts].movedim(0, at).contiguous()
    inverse = (new.cumsum(0) - 1).reshape(tuple(array.shape) if dim is None else (count,))
    ends = full((1,), count, device=input.device)
    counts = cat([starts[1:], ends]) - starts if count else starts
    return _asked(values, inverse, counts, return_inverse, return_counts)


for _function in (argwhere, bincount, nonzero, nonzero_static, unique, unique_consecutive):
    install(_function)
