"""How elements lie in memory, as PyTorch names it: ``strided``, and the orders of dense tensors."""

from __future__ import annotations

from typing import Any

from .errors import DTypeError, ShapeError

__all__ = [
    "Layout", "MemoryFormat", "channels_last", "channels_last_3d", "check_layout", "contiguous_format", "dense_order",
    "follows", "preserve_format", "strided",
]  # fmt: skip


class MemoryFormat:
    """An order of a dense tensor's elements in memory, e.g. ``tensorgrad.channels_last``."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"tensorgrad.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class Layout:
    """A way to store a tensor; there is one, ``tensorgrad.strided``."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"tensorgrad.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format = MemoryFormat("contiguous_format")
preserve_format = MemoryFormat("preserve_format")
channels_last = MemoryFormat("channels_last")
channels_last_3d = MemoryFormat("channels_last_3d")
strided = Layout("strided")

_CHANNELS_LAST = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}


def check_layout(name: str, layout: Any) -> None:
    """Raises DTypeError unless ``layout`` is None or ``strided``, the only one there is."""
    if layout is not None and layout is not strided:
        raise DTypeError(f"{name}: layout must be tensorgrad.strided, the only one there is; got {layout!r}.")


def dense_order(name: str, array: Any, memory_format: Any) -> tuple[int, ...] | None:
    """The dimensions from the slowest to the fastest, for a fresh tensor like ``array``; None means row-major.

    Raises: TypeError for what is no memory format; ShapeError for channels_last of another number of dimensions.
    """
    if memory_format is None or memory_format is contiguous_format:
        return None
    if memory_format is preserve_format:
        return _own_order(array)
    order = _CHANNELS_LAST.get(memory_format) if isinstance(memory_format, MemoryFormat) else None
    if order is None:
        raise TypeError(f"{name}: memory_format must be a memory format such as channels_last, got {memory_format!r}.")
    if array.ndim != len(order):
        raise ShapeError(f"{name}: required rank {len(order)} tensor to use {memory_format.name}, got {array.ndim}.")
    return order


def _own_order(array: Any) -> tuple[int, ...] | None:
    """The order of an array that fills its memory without holes or overlaps; None for others, and for row-major."""
    if array.flags.c_contiguous or array.size == 0:
        return None
    order = sorted(range(array.ndim), key=lambda d: -array.strides[d])
    expected = array.itemsize
    for d in reversed(order):
        if array.shape[d] == 1:
            continue
        if array.strides[d] != expected:
            return None
        expected *= array.shape[d]
    return tuple(order)


def follows(array: Any, memory_format: Any) -> bool:
    """Whether the elements lie in memory in this order."""
    order = _CHANNELS_LAST.get(memory_format)
    if order is None:
        return bool(array.flags.c_contiguous)
    return len(order) == array.ndim and bool(array.transpose(order).flags.c_contiguous)
