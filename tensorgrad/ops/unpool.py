"""The partial inverse of max pooling: maxima put back where they came from."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .checks import everywhere, integer, product, require_tensors
from .conv import per_axis
from .record import Spec, op
from .samples import Arg, Sample

__all__: list[str] = []  # users know them as functions of nn.functional


def _infer(x: Any, indices: Any, *, sizes: Any) -> Spec:
    if indices.dtype.name != "int64":
        raise DTypeError(f"max_unpool: indices must be int64, got {indices.dtype.name}.")
    if tuple(indices.shape) != tuple(x.shape):
        raise ShapeError(
            f"max_unpool: indices have shape {tuple(indices.shape)}, the input {tuple(x.shape)}; they must be equal."
        )
    return Spec((*x.shape[: x.ndim - len(sizes)], *sizes), x.dtype)


def _define(F: Any, x: Any, indices: Any, *, sizes: Any) -> Any:
    lead = tuple(x.shape[: x.ndim - len(sizes)])
    flat = (*lead, product(x.shape[len(lead) :]))
    zeros = F.zeros_as(x, shape=(*lead, product(sizes)))
    places = F.reshape(F.contiguous(indices), shape=flat)
    put = F.scatter(zeros, places, F.reshape(F.contiguous(x), shape=flat), dim=len(lead))
    return F.reshape(put, shape=(*lead, *sizes))


max_unpool = op(
    "max_unpool",
    raises=True,
    infer=_infer,
    define=_define,
    samples=lambda: [
        Sample((Arg((1, 2, 4)), Arg((1, 2, 4), kind="i", values=(0, 3, 4, 7, 1, 2, 5, 6))), {"sizes": (8,)}, name="1d"),
        Sample((Arg((1, 2, 2)), Arg((1, 2, 2), kind="i", values=(0, 3, 9, 11))), {"sizes": (3, 4)}, name="image"),
    ],
    doc="Zeros of (..., *sizes) with the elements of ``x`` at their flat places in each plane.",
)


def _unpool(
    dims: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    name = f"max_unpool{dims}d"
    require_tensors(name, input=input, indices=indices)
    if input._data.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name}: expected {dims + 1} or {dims + 2} dimensions, got shape {tuple(input.shape)}.")
    kernel = per_axis(name, "kernel_size", kernel_size, dims, 1)
    steps = (
        kernel
        if stride is None or (isinstance(stride, (list, tuple)) and not stride)
        else per_axis(name, "stride", stride, dims, 1)
    )
    pads = per_axis(name, "padding", padding, dims, 0)
    have = tuple(input.shape[-dims:])
    if min(input.shape[0 if input._data.ndim == dims + 1 else 1 :]) < 1:
        raise ShapeError(f"{name}: only the batch may be empty, got shape {tuple(input.shape)}.")
    usual = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(have, steps, kernel, pads, strict=True))
    sizes = usual if output_size is None else _asked(name, output_size, dims, usual, steps)
    if min(sizes) < 1:
        raise ShapeError(f"{name}: the output would have sizes {sizes}.")
    return max_unpool(input, _checked(name, indices, product(sizes)), sizes=sizes)


def _checked(name: str, indices: Tensor, count: int) -> Tensor:
    if indices.dtype.name != "int64" or not indices._data.size:
        return indices
    if not everywhere(pw.bitwise_and(pw.ge(indices, 0), pw.lt(indices, count))):
        raise ArgumentError(f"{name}: an index lies outside of the {count} places of the output.")
    return indices


def _asked(name: str, output_size: Any, dims: int, usual: tuple[int, ...], steps: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(output_size, (tuple, list)):
        raise TypeError(f"{name}: output_size must be a sequence of integers, got {output_size!r}.")
    given = tuple([integer(name, "output_size", size) for size in output_size])
    if len(given) == dims + 2:
        given = given[2:]
    if len(given) != dims:
        raise ValueError(f"{name}: output_size must name {dims} or {dims + 2} sizes, got {len(given)}.")
    for size, want, step in zip(given, usual, steps, strict=True):
        if not want - step < size < want + step:
            raise ValueError(
                f"{name}: invalid output_size {given}: each must differ from {usual} by less than the stride {steps}."
            )
    return given


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """The partial inverse of ``max_pool1d``; see ``max_unpool2d``."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Zeros, and each maximum of ``max_pool2d`` where it was found.

    Args:
        input: (n, c, h, w) or (c, h, w): the maxima.
        indices: int64 of the same shape: what ``max_pool2d(..., return_indices=True)`` returned. Where one place is
            named twice, the last element stays.
        kernel_size, stride, padding: as given to the pooling.
        output_size: the sizes of the result, where the stride leaves a choice.
    Raises: ShapeError, DTypeError; ArgumentError for a place outside of the output.
    """
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """The partial inverse of ``max_pool3d``; see ``max_unpool2d``."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)
