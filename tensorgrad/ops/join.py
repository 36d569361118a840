"""Joining tensors, and cutting them up: cat, stack, split, chunk and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..dtypes import key_of, numpy_dtype, result_name
from ..errors import ArgumentError, DimError, ShapeError
from ..tensor import Tensor, install
from . import shape_core as core
from .calls import calls
from .checks import integer
from .inplace import check_partial_overlap, deliver
from .record import Spec, op
from .reduce import require_tensor
from .samples import Arg, Sample
from .shape import atleast_1d, atleast_2d, contiguous, integers
from .shape_core import as_index, one_dim

__all__ = [
    "cat", "chunk", "column_stack", "concat", "concatenate", "dsplit", "dstack", "hsplit", "hstack", "row_stack",
    "split", "split_with_sizes", "stack", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split", "vsplit", "vstack",
]  # fmt: skip


def _cat_infer(*xs: Any, dim: int) -> Spec:
    shape = list(xs[0].shape)
    before, after = tuple(shape[:dim]), tuple(shape[dim + 1 :])
    for i, x in enumerate(xs[1:], 1):
        other = x.shape
        if len(other) == len(shape) and other[:dim] == before and other[dim + 1 :] == after:
            shape[dim] += other[dim]
            continue
        if x.ndim != len(shape):
            raise ShapeError(
                f"cat: tensors must have the same number of dimensions: got {len(shape)} for tensor 0, {x.ndim} "
                f"for tensor {i}."
            )
        for axis, size in enumerate(x.shape):
            if axis != dim and size != shape[axis]:
                raise ShapeError(
                    f"cat: sizes of tensors must match except in dimension {dim}. Expected size {shape[axis]} in "
                    f"dimension {axis} but got size {size} for tensor number {i}."
                )
        shape[dim] += x.shape[dim]
    return Spec(tuple(shape), xs[0].dtype)


def _cat_rule(F: Any, g: Any, *xs: Any, needs: tuple[bool, ...], dim: int) -> tuple[Any, ...]:
    grads, start = [], 0
    lead = (slice(None),) * dim
    for x, needed in zip(xs, needs, strict=True):
        end = start + x.shape[dim]
        grads.append(F.slice(g, key=(*lead, slice(start, end, 1))) if needed else None)
        start = end
    return tuple(grads)


cat_op = op(
    "cat",
    infer=_cat_infer,
    rule=_cat_rule,
    checked=True,
    samples=lambda: [
        Sample((Arg((2, 3)), Arg((1, 3))), {"dim": 0}, name="rows"),
        Sample((Arg((2, 3)), Arg((2, 1)), Arg((2, 2), layout="T")), {"dim": 1}, name="columns"),
        Sample((Arg((0, 3)), Arg((2, 3), layout="step")), {"dim": 0}, name="empty"),
        Sample((Arg((2,)),), {"dim": 0}, name="one"),
    ],
    doc="The tensors one after another along ``dim``.",
)


def _stack_infer(*xs: Any, dim: int) -> Spec:
    shape = tuple(xs[0].shape)
    for i, x in enumerate(xs):
        if x.shape != shape:
            raise ShapeError(
                f"stack: expects each tensor to be equal size, but got {shape} at entry 0 and {tuple(x.shape)} at "
                f"entry {i}."
            )
    return Spec((*shape[:dim], len(xs), *shape[dim:]), xs[0].dtype)


def _stack_define(F: Any, *xs: Any, dim: int) -> Any:
    key = (*(slice(None),) * dim, None)
    return F.cat(*[F.slice(x, key=key) for x in xs], dim=dim)


def _stack_rule(F: Any, g: Any, *xs: Any, needs: tuple[bool, ...], dim: int) -> tuple[Any, ...]:
    lead = (slice(None),) * dim
    return tuple([F.slice(g, key=(*lead, i)) if needed else None for i, needed in enumerate(needs)])


stack_op = op(
    "stack",
    infer=_stack_infer,
    define=_stack_define,
    rule=_stack_rule,
    checked=True,
    samples=lambda: [
        Sample((Arg((2, 3)), Arg((2, 3))), {"dim": 0}, name="first"),
        Sample((Arg((2, 3)), Arg((2, 3), layout="T"), Arg((2, 3))), {"dim": 2}, name="last"),
        Sample((Arg(()), Arg(())), {"dim": 0}, name="scalars"),
        Sample((Arg((0, 3)),), {"dim": 1}, name="empty"),
    ],
    doc="The tensors, all of one shape, along a new dimension ``dim``.",
)


@calls(cat_op, "list dim")
def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """The tensors one after another along ``dim``, promoted to one dtype.

    All sizes but that of ``dim`` must match; one-dimensional tensors of no elements are passed over.

    Raises: ValueError for no tensors; ShapeError for sizes or dimensions that differ; DimError for a bad dim.
    Example:
        >>> import tensorgrad as tg
        >>> tg.cat([tg.tensor([1, 2]), tg.tensor([3])]).tolist()
        [1, 2, 3]
    """
    given = _tensors("cat", tensors)
    if isinstance(out, Tensor):
        check_partial_overlap("cat", out._data, [x._data for x in given], same=True)
    used = given
    for x in given:
        if x._data.shape == (0,):
            used = [x for x in given if x._data.shape != (0,)] or [given[0]]
            break
    if used[0]._data.ndim == 0:
        raise ShapeError("cat: 0-d tensors can't be concatenated; use stack.")
    at = one_dim("cat", dim, used[0]._data.ndim)
    result = cat_op(*_promoted(used, given), dim=at)
    return result if out is None else deliver("cat", result, out)


def _tensors(name: str, tensors: Any) -> list[Tensor]:
    if not isinstance(tensors, (tuple, list)):
        if isinstance(tensors, Tensor) or not hasattr(tensors, "__iter__"):
            raise TypeError(f"{name}: expected a sequence of Tensors, got {type(tensors).__name__}.")
        tensors = list(tensors)
    for x in tensors:
        if not isinstance(x, Tensor):
            require_tensor(name, x)
    if not tensors:
        raise ArgumentError(f"{name}: expected a non-empty list of Tensors ({name} expects a non-empty TensorList).")
    return tensors if type(tensors) is list else list(tensors)


def _promoted(used: list[Tensor], given: list[Tensor]) -> list[Tensor]:
    first = given[0]._data.dtype
    for x in given[1:]:
        if x._data.dtype is not first and x._data.dtype != first:
            break
    else:
        return used
    dtype = numpy_dtype(result_name(tuple([key_of(x._data) for x in given])))
    return [x if x._data.dtype == dtype else core.cast(x, dtype=dtype) for x in used]


@calls(stack_op, "list newdim")
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Any = None) -> Tensor:
    """The tensors, all of one shape, along a new dimension ``dim``.

    Raises: ValueError for no tensors; ShapeError if shapes differ; DimError for a bad dim.
    """
    given = _tensors("stack", tensors)
    at = one_dim("stack", dim, given[0]._data.ndim + 1)
    result = stack_op(*_promoted(given, given), dim=at)
    return result if out is None else deliver("stack", result, out)


def hstack(tensors: Sequence[Tensor], *, out: Any = None) -> Tensor:
    """The tensors side by side: along dim 1, or dim 0 if they have one dimension."""
    given = _tensors("hstack", tensors)
    grown = given if all(x._data.ndim for x in given) else [atleast_1d(x) for x in given]
    return cat(grown, 0 if grown[0]._data.ndim == 1 else 1, out=out)


def vstack(tensors: Sequence[Tensor], *, out: Any = None) -> Tensor:
    """The tensors one below another, as at least two-dimensional ones."""
    return cat([x if x._data.ndim > 1 else atleast_2d(x) for x in _tensors("vstack", tensors)], 0, out=out)


def dstack(tensors: Sequence[Tensor], *, out: Any = None) -> Tensor:
    """The tensors one behind another along dim 2, as at least three-dimensional ones."""
    from .shape import atleast_3d

    return cat([x if x._data.ndim > 2 else atleast_3d(x) for x in _tensors("dstack", tensors)], 2, out=out)


def column_stack(tensors: Sequence[Tensor], *, out: Any = None) -> Tensor:
    """The tensors side by side along dim 1; those of fewer than two dimensions as columns."""
    columns = [
        x if x._data.ndim > 1 else core.reshape(contiguous(x), shape=(core.size_of(x._data.shape), 1))
        for x in _tensors("column_stack", tensors)
    ]
    return cat(columns, 1, out=out)


# --- cutting up: all views


def _pieces(input: Tensor, dim: int, bounds: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    lead = (slice(None),) * dim
    return tuple([core.slice_(input, key=(*lead, slice(start, end, 1))) for start, end in bounds])


def _dim_to_cut(name: str, input: Any, dim: int) -> tuple[int, int]:
    shape = require_tensor(name, input).shape
    if not shape:
        raise DimError(f"{name}: a 0-d tensor can't be split.")
    at = one_dim(name, dim, len(shape))
    return at, shape[at]


def split(
    input: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> tuple[Tensor, ...]:
    """Views of ``split_size`` slices along ``dim`` each (the last may have fewer), or of as many as ``sections`` name.

    Raises: ShapeError for sections that do not add up to the dimension, or a size that is not positive.
    """
    at, total = _dim_to_cut("split", input, dim)
    if split_size_or_sections is None:
        split_size_or_sections = split_size
    if split_size_or_sections is None:
        raise TypeError("split: the size, or the sizes, of the pieces are missing.")
    several = hasattr(split_size_or_sections, "__iter__") and not isinstance(split_size_or_sections, (str, Tensor))
    if several and as_index(split_size_or_sections) is None:
        sections = integers("split", (split_size_or_sections,))
        if sum(sections) != total or min(sections, default=0) < 0:
            raise ShapeError(
                f"split: sections {sections} must add up to {total}, the size of dim {at}; they make {sum(sections)}."
            )
        bounds, start = [], 0
        for length in sections:
            bounds.append((start, start + length))
            start += length
        return _pieces(input, at, bounds)
    step = integer("split", "split_size", split_size_or_sections)
    if step < 0 or (step == 0 and total):
        raise ShapeError(f"split: split_size must be positive, got {step}.")
    return _pieces(input, at, [(i, min(i + step, total)) for i in range(0, total, step or 1)] or [(0, 0)])


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views along ``dim`` of as many slices as ``split_sizes`` name; see ``split``."""
    return split(input, integers("split_with_sizes", (split_sizes,)), dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views along ``dim``, all of one size but perhaps the last. Raises ShapeError for none."""
    at, total = _dim_to_cut("chunk", input, dim)
    chunks = integer("chunk", "chunks", chunks)
    if chunks < 1:
        raise ShapeError(f"chunk: chunks must be greater than 0, got {chunks}.")
    if total == 0:
        if chunks >= 2**31:
            raise ShapeError(f"chunk: {chunks} chunks are more tensors than memory holds.")
        return _pieces(input, at, [(0, 0)] * chunks)
    return split(input, -(-total // chunks), at)


def tensor_split(
    input: Tensor, indices_or_sections: Any = None, dim: int = 0, *, tensor_indices_or_sections: Any = None,
    indices: Any = None, sections: Any = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Views along ``dim``: ``sections`` of nearly equal size, or cut before each of the indices.

    Raises: ShapeError for ``sections < 1``.
    """
    at, total = _dim_to_cut("tensor_split", input, dim)
    for other in (tensor_indices_or_sections, indices, sections):
        indices_or_sections = other if indices_or_sections is None else indices_or_sections
    if isinstance(indices_or_sections, Tensor):
        if indices_or_sections.dtype.name != "int64" or indices_or_sections._data.ndim > 1:
            raise ShapeError(
                "tensor_split: tensor_indices_or_sections must be a one-dimensional or 0-d int64 tensor, got "
                f"{indices_or_sections.dtype} {tuple(indices_or_sections.shape)}."
            )
        indices_or_sections = indices_or_sections.tolist()
    if not isinstance(indices_or_sections, (tuple, list)) and not hasattr(indices_or_sections, "__index__"):
        raise TypeError(f"tensor_split: expected a number of sections or indices, got {indices_or_sections!r}.")
    if isinstance(indices_or_sections, (tuple, list)):
        cuts = [0, *integers("tensor_split", (indices_or_sections,)), total]
        starts = [min(max(c + total if c < 0 else c, 0), total) for c in cuts]
        starts[-1] = total
        return _pieces(input, at, [(a, max(a, b)) for a, b in pairwise(starts)])
    sections = integer("tensor_split", "sections", indices_or_sections)
    if sections < 1:
        raise ShapeError(f"tensor_split: the number of sections must be greater than 0, got {sections}.")
    if sections >= 2**31:
        raise ShapeError(f"tensor_split: {sections} sections are more tensors than memory holds.")
    size, more = divmod(total, sections)
    bounds, start = [], 0
    for i in range(sections):
        end = start + size + (i < more)
        bounds.append((start, end))
        start = end
    return _pieces(input, at, bounds)


def _cutter(name: str, least: int, dim_of: Any, doc: str) -> Any:
    """hsplit, vsplit, dsplit: ``tensor_split`` along a dimension of their own, where sections must divide it."""

    def cut(input: Tensor, indices_or_sections: Any = None, *, sections: Any = None, indices: Any = None) -> Any:
        for other in (sections, indices):
            indices_or_sections = other if indices_or_sections is None else indices_or_sections
        ndim = require_tensor(name, input).ndim
        if ndim < least:
            raise DimError(f"{name}: torch.{name} requires a tensor with at least {least} dimension, but got {ndim}.")
        at = dim_of(ndim)
        count = as_index(indices_or_sections)
        if count is not None:
            size = input._data.shape[at]
            if count < 1 or size % count:
                raise ShapeError(
                    f"{name}: torch.{name} attempted to split along dimension {at}, but the size of the dimension "
                    f"{size} is not divisible by the split_size {count}!"
                )
        return tensor_split(input, indices_or_sections, at)

    cut.__name__ = cut.__qualname__ = name
    cut.__doc__ = f"{doc} Raises: ShapeError for sections that do not divide the size, DimError for too few dimensions."
    return cut


hsplit = _cutter("hsplit", 1, lambda ndim: 0 if ndim == 1 else 1, "Views along dim 1, or dim 0 of a vector.")
vsplit = _cutter("vsplit", 2, lambda ndim: 0, "Views along dim 0.")
dsplit = _cutter("dsplit", 3, lambda ndim: 2, "Views along dim 2.")


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of all slices along ``dim``, without that dimension."""
    at, total = _dim_to_cut("unbind", input, dim)
    lead = (slice(None),) * at
    return tuple([core.slice_(input, key=(*lead, i)) for i in range(total)])


concat = concatenate = cat
row_stack = vstack
unsafe_chunk, unsafe_split = chunk, split
for _function in (chunk, dsplit, hsplit, split, split_with_sizes, tensor_split, unbind, vsplit):
    install(_function)
install(chunk, "unsafe_chunk")
install(split, "unsafe_split")
