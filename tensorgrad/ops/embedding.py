"""Rows of a table by their number."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import no_grad
from ..dispatch import recorded
from ..dtypes import numpy_dtype
from ..errors import DTypeError, IndexOutOfRange, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import integer, product, real, require_tensors, reshaped, shaped
from .inplace import assign, write_into
from .normalize import vector_norm
from .record import Spec, op
from .samples import Arg, Sample, int_arg


def _infer(weight: Any, index: Any, **attrs: Any) -> Spec:
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the weight must be (rows, width), got shape {tuple(weight.shape)}.")
    if index.dtype.kind not in "iu":
        raise DTypeError(f"embedding: indices must be integers, got {index.dtype.name}.")
    return Spec((*index.shape, weight.shape[1]), weight.dtype)


def _samples(smooth: bool = True, **attrs: Any) -> Any:
    return lambda: [
        Sample((Arg((5, 3)), int_arg((4,), 1, 4, 1, 0)), attrs, name="rows"),
        Sample((Arg((5, 3), layout="T"), int_arg((2, 2), 1, 2, 2, 2)), attrs, smooth, "matrix"),
        Sample((Arg((5, 3)), int_arg((), 2)), attrs, smooth, "scalar"),
        Sample((Arg((5, 3)), int_arg((0,))), attrs, name="empty"),
    ]


def _rule(F: Any, g: Any, weight: Any, index: Any, *, needs: Any, padding_idx: int | None = None) -> tuple[Any, ...]:
    return F.embedding_backward(g, index, num_embeddings=weight.shape[0], padding_idx=padding_idx), None


embedding_op = op(
    "embedding",
    raises=True,
    infer=lambda weight, index: _infer(weight, index),
    rule=_rule,
    keeps=("index",),
    samples=_samples(),
    doc="The rows ``weight[index]``.",
)
padded_embedding = op(
    "padded_embedding",
    raises=True,
    infer=lambda weight, index, *, padding_idx: _infer(weight, index),
    define=lambda F, weight, index, *, padding_idx: F.embedding(weight, index),
    rule=_rule,
    keeps=("index",),
    samples=_samples(smooth=False, padding_idx=2),
    doc="The rows ``weight[index]``, of which row ``padding_idx`` gets no gradient.",
)


def _backward_infer(g: Any, index: Any, *, num_embeddings: int, padding_idx: int | None) -> Spec:
    return Spec((num_embeddings, g.shape[-1]), g.dtype)


def _backward_define(F: Any, g: Any, index: Any, *, num_embeddings: int, padding_idx: int | None) -> Any:
    count, width = product(index.shape), g.shape[-1]
    rows, places = reshaped(F, g, (count, width)), reshaped(F, index, (count,))
    if padding_idx is not None:
        rows = F.where(reshaped(F, F.ne(places, padding_idx), (count, 1)), rows, 0.0)
    return F.index_add(F.zeros_as(g, shape=(num_embeddings, width)), places, rows, dim=0)


def _backward_rule(
    F: Any, h: Any, g: Any, index: Any, *, needs: Any, num_embeddings: int, padding_idx: int | None
) -> tuple[Any, ...]:
    rows = F.embedding(h, index)
    if padding_idx is not None:
        rows = F.where(reshaped(F, F.ne(index, padding_idx), (*index.shape, 1)), rows, 0.0)
    return rows, None


embedding_backward = op(
    "embedding_backward",
    raises=True,
    infer=_backward_infer,
    define=_backward_define,
    rule=_backward_rule,
    keeps=("index",),
    samples=lambda: [
        Sample((Arg((4, 3)), int_arg((4,), 1, 4, 1, 0)), {"num_embeddings": 5, "padding_idx": None}, name="rows"),
        Sample((Arg((2, 2, 3)), int_arg((2, 2), 1, 4, 1, 1)), {"num_embeddings": 5, "padding_idx": 4}, name="padding"),
        Sample((Arg((0, 3)), int_arg((0,))), {"num_embeddings": 5, "padding_idx": None}, name="empty"),
    ],
    doc="Rows of ``g`` added up at the rows of the table they came from.",
)


scaled_gradient = op(
    "scaled_gradient",
    infer=lambda x, scale: Spec(tuple(x.shape), x.dtype),
    define=lambda F, x, scale: F.contiguous_copy(x),
    rule=lambda F, g, x, scale, *, needs: (F.mul(g, scale), None),
    keeps=("scale",),
    samples=lambda: [Sample((Arg((3, 2)), Arg((3, 1), 0.5, 2.0)), smooth=False, name="rows")],
    doc="``x``, whose gradient is multiplied by ``scale``.",
)


def looked_up(
    name: str, weight: Tensor, index: Tensor, padding_idx: int | None, max_norm: float | None, norm_type: float,
    by_frequency: bool,
) -> Tensor:  # fmt: skip
    """Rows of ``weight``, after those that are too long are shortened; their gradients divided by how often they are
    named, if asked for."""
    if max_norm is not None:
        _shorten(weight, index, real(name, "max_norm", max_norm), real(name, "norm_type", norm_type))
    if padding_idx is None:
        rows = embedding_op(weight, index)
    else:
        size, padding_idx = weight.shape[0], integer(name, "padding_idx", padding_idx)
        if not -size <= padding_idx < size:
            raise IndexOutOfRange(f"{name}: padding_idx {padding_idx} is out of range for {size} rows.")
        rows = padded_embedding(weight, index, padding_idx=padding_idx % size)
    if not (by_frequency and rows._tracked):
        return rows
    with no_grad():
        ones = recorded.full_as(recorded.zeros_as(rows, shape=(*index.shape, 1)), value=1.0)
        counts = recorded.embedding_backward(ones, index, num_embeddings=weight.shape[0], padding_idx=None)
        scale = pw.reciprocal(recorded.embedding(counts, index))
    return scaled_gradient(rows, scale)


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of ``weight`` that ``input`` numbers.

    Args:
        input: integers of any shape, from 0 to rows - 1.
        weight: (rows, width).
        padding_idx: this row gets no gradient; negative counts from the end.
        max_norm: rows that are used and whose ``norm_type``-norm is larger are first scaled down to it, in place.
        scale_grad_by_freq: gradients of rows are divided by how often they are named.
    Returns: (*input.shape, width).
    Raises: IndexOutOfRange for a row that is not there; DTypeError if ``input`` does not hold integers; ValueError for
        ``sparse``: gradients are dense.
    """
    require_tensors("embedding", input=input, weight=weight)
    if sparse:
        raise ValueError("embedding: gradients are dense; leave sparse False.")
    if input._data.dtype.kind in "iu" and input._data.dtype.itemsize != 8:
        input = recorded.cast(input, dtype=numpy_dtype("int64"))
    return looked_up("embedding", weight, input, padding_idx, max_norm, norm_type, scale_grad_by_freq)


def _shorten(weight: Tensor, index: Tensor, longest: float, p: float) -> None:
    """Scale the rows that are used and longer than ``longest`` down to it, in place."""
    with no_grad():
        norms = vector_norm(weight, p, 1, True)
        places = shaped(index, (index._data.size,))
        ones = recorded.full_as(recorded.embedding(norms, places), value=1.0)
        used = recorded.embedding_backward(ones, places, num_embeddings=weight.shape[0], padding_idx=None)
        long = pw.bitwise_and(pw.gt(used, 0), pw.gt(norms, longest))
        scale = pw.where(long, pw.div(longest, pw.add(norms, 1e-7)), 1.0)
        write_into(assign, weight, (weight, pw.mul(weight, scale)), {})
