"""Sequences of different lengths in one batch: padded, packed, and back.

A packed batch holds no padding: the elements of all sequences at the first step, then those at the second, and so on.
Sequences stand in order of falling length, so a step concerns the first few.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import DType
from ...errors import ArgumentError, DTypeError, ShapeError
from ...ops.checks import integer, integers_of, require_tensors
from ...ops.create import as_tensor, from_numpy
from ...ops.index_slices import index_select
from ...ops.join import cat
from ...ops.rearrange import pad
from ...ops.shape import reshape
from ...tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Parts(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Parts):
    """A batch of sequences without padding; made by ``pack_padded_sequence`` and ``pack_sequence``.

    Attributes:
        data: (sum of lengths, ...) the elements, step by step.
        batch_sizes: int64 on the CPU, how many sequences take part in each step.
        sorted_indices: the position in the given batch of each sequence, None if it was sorted already.
        unsorted_indices: the inverse of ``sorted_indices``.
    """

    __slots__ = ()

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        if batch_sizes is None:
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise AssertionError("PackedSequence: expected (data, batch_sizes), or the two as separate arguments.")
            data, batch_sizes = data
        require_tensors("PackedSequence", batch_sizes=batch_sizes)
        if batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. Make packed sequences with pack_sequence or "
                "pack_padded_sequence of nn.utils.rnn."
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _changed(self, data: Any) -> PackedSequence:
        if data is self.data:
            return self
        indices = [None if x is None else x.to(data.device) for x in (self.sorted_indices, self.unsorted_indices)]
        return type(self)(data, self.batch_sizes, *indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data in another dtype or on another device, as ``Tensor.to``; itself if nothing changes."""
        return self._changed(self.data.to(*args, **kwargs))

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data on an NVIDIA GPU."""
        return self._changed(self.data.cuda(*args, **kwargs))

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data in host memory."""
        return self._changed(self.data.to("cpu", *args, **kwargs))

    def pin_memory(self) -> PackedSequence:
        """The data in pinned host memory."""
        return self._changed(self.data.pin_memory())

    def is_pinned(self) -> bool:
        """Whether the data lies in pinned host memory."""
        return bool(self.data.is_pinned())

    @property
    def is_cuda(self) -> bool:
        """Whether the data lies on an NVIDIA GPU."""
        return bool(self.data.device.type == "cuda")

    def double(self) -> PackedSequence:
        return self._cast("float64")

    def float(self) -> PackedSequence:
        return self._cast("float32")

    def half(self) -> PackedSequence:
        return self._cast("float16")

    def long(self) -> PackedSequence:
        return self._cast("int64")

    def int(self) -> PackedSequence:
        return self._cast("int32")

    def short(self) -> PackedSequence:
        return self._cast("int16")

    def char(self) -> PackedSequence:
        return self._cast("int8")

    def byte(self) -> PackedSequence:
        return self._cast("uint8")

    def _cast(self, name: str) -> PackedSequence:
        from ...dtypes import BY_NAME

        dtype: DType = BY_NAME[name]
        return self.to(dtype=dtype)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes ``permutation``; None for None."""
    if permutation is None:
        return None
    require_tensors("invert_permutation", permutation=permutation)
    if permutation.dtype.name not in ("int64", "int32"):
        raise DTypeError(f"invert_permutation: expected dtype int32/int64 for the indices, got {permutation.dtype}.")
    order = _host(permutation)
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
        raise ArgumentError(f"invert_permutation: each of the indices below {order.size} must occur once.")
    return _indices(np.argsort(order), permutation)


def _host(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(x.detach().cpu().numpy())


def _indices(values: np.ndarray[Any, Any], like: Any) -> Any:
    made: Any = from_numpy(np.ascontiguousarray(values))
    return made.to(like.device)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """A padded batch without its padding.

    Args:
        input: (t, n, ...), or (n, t, ...) with ``batch_first``.
        lengths: of the n sequences, each from 1 to t: numbers or a tensor on the CPU.
        enforce_sorted: require the sequences to stand in order of falling length; otherwise they are sorted.
    Raises: RuntimeError for lengths that are not positive, not sorted or do not fit the input.
    Example:
        >>> import tensorgrad as tg
        >>> packed = pack_padded_sequence(tg.tensor([[1, 2], [3, 0]]), [2, 1], batch_first=True)
        >>> packed.data.tolist(), packed.batch_sizes.tolist()
        ([1, 3, 2], [2, 1])
    """
    require_tensors("pack_padded_sequence", input=input)
    x: Any = input
    if isinstance(lengths, Tensor):
        if lengths.device.type != "cpu":
            raise ShapeError(
                f"pack_padded_sequence: 'lengths' argument should be a 1D CPU int64 tensor, but it lives on "
                f"{lengths.device}; pass lengths.cpu()."
            )
        counts = _host(lengths).astype(np.int64)
    else:
        counts = _host(as_tensor(lengths)).astype(np.int64)
    if x.ndim < 2:
        raise ShapeError(f"pack_padded_sequence: expected (time, batch, ...), got shape {tuple(x.shape)}.")
    n, length = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    if counts.shape != (n,) or n == 0:
        raise ShapeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(counts.reshape(-1))} (batch_size={n})"
        )
    if counts.min() <= 0:
        raise ShapeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if counts.max() > length:
        raise ShapeError(
            f"Expected lengths of at most {length}, the input's number of steps, but got {int(counts.max())}."
        )
    order = None
    if not enforce_sorted:
        order = np.argsort(-counts, kind="stable")
        counts = counts[order]
    elif (np.diff(counts) > 0).any():
        raise ShapeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement."
        )
    sizes = _sizes_of(counts)
    step = np.repeat(np.arange(len(sizes)), sizes)
    sequence = _ranks(sizes)
    sequence = sequence if order is None else order[sequence]
    place = sequence * length + step if batch_first else step * n + sequence
    flat: Any = reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    data = index_select(flat, 0, _indices(place, x))
    indices = None if order is None else _indices(order, x)
    return PackedSequence(data, from_numpy(sizes), indices)


def _sizes_of(lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many sequences take part in each step."""
    return (lengths[None, :] > np.arange(lengths.max())[:, None]).sum(axis=1).astype(np.int64)


def _ranks(sizes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which of the sorted sequences each packed row belongs to: 0, 1, ... within every step."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) - np.repeat(starts, sizes)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """(padded batch, lengths): the inverse of ``pack_padded_sequence``, sequences in their first order.

    Args:
        padding_value: stands where a sequence has ended.
        total_length: the number of steps, if it shall be more than the longest sequence's.
    Raises: ValueError for a smaller ``total_length``.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(f"pad_packed_sequence: expected a PackedSequence, got {type(sequence).__name__}")
    require_tensors("pad_packed_sequence", data=sequence.data)
    sizes = _host(sequence.batch_sizes)
    if sizes.ndim != 1 or not sizes.size or sizes.dtype.kind not in "iu":
        raise ShapeError(
            f"pad_packed_sequence: batch_sizes must be a 1D CPU int64 tensor of one step or more, got {sizes.dtype} of "
            f"shape {sizes.shape}."
        )
    if sizes[0] < 1 or sizes.sum() != len(sequence.data):
        raise ShapeError(f"pad_packed_sequence: batch_sizes {sizes.tolist()} for {len(sequence.data)} rows of data.")
    length = len(sizes)
    if total_length is not None:
        total_length = integer("pad_packed_sequence", "total_length", total_length)
        if total_length < length:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total_length} and max sequence length being {length}"
            )
        length = total_length
    n = int(sizes[0])
    data: Any = sequence.data
    lengths = (sizes[None, :] > np.arange(n)[:, None]).sum(axis=1).astype(np.int64)
    back = np.arange(n) if sequence.unsorted_indices is None else _host(sequence.unsorted_indices)
    # where in the packed rows each element of the padded batch is; the row after the last is the padding
    starts = np.concatenate([np.cumsum(sizes) - sizes, np.zeros(length - len(sizes), dtype=np.int64)])
    place = np.where(np.arange(length)[:, None] < lengths[back][None, :], starts[:, None] + back[None, :], len(data))
    place = place.T if batch_first else place
    rows = pad(data, (0, 0) * (data.ndim - 1) + (0, 1), value=padding_value)
    padded: Any = index_select(rows, 0, _indices(place.reshape(-1), data))
    return padded.reshape(*place.shape, *data.shape[1:]), from_numpy(lengths[back])


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences (length_i, ...) side by side, padded to the longest: (t, n, ...), or (n, t, ...) with ``batch_first``.

    Args:
        padding_side: "right", after a sequence's end, or "left", before its start.
    Raises: RuntimeError for an empty list, another side, or sequences that differ in more than their length.
    """
    if not isinstance(sequences, Iterable):
        raise DTypeError(f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}")
    members: list[Any] = list(sequences)
    if padding_side not in ("left", "right"):
        raise ShapeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    for member in members:
        require_tensors("pad_sequence", sequence=member)
    if not members:
        raise ShapeError("received an empty list of sequences")
    if any(x.ndim == 0 or tuple(x.shape[1:]) != tuple(members[0].shape[1:]) for x in members):
        raise ShapeError(
            "pad_sequence: sequences may differ in their first dimension only, got shapes "
            f"{', '.join(str(tuple(x.shape)) for x in members)}."
        )
    longest = max(x.shape[0] for x in members)
    axis = 0 if batch_first else 1
    still = (0, 0) * (members[0].ndim - 1)
    padded = []
    for x in members:
        gap = longest - x.shape[0]
        full: Any = x if not gap else pad(x, (*still, gap, 0) if padding_side == "left" else (*still, 0, gap),
                                          value=padding_value)  # fmt: skip
        padded.append(full.unsqueeze(axis))
    return cat(padded, axis)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, each with its own length: the inverse of ``pad_sequence``."""
    require_tensors("unpad_sequence", padded_sequences=padded_sequences)
    batch: Any = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    counts = integers_of("unpad_sequence", lengths)
    if counts is None:
        raise TypeError(f"unpad_sequence: lengths must be a Tensor or a sequence of integers, got {lengths!r}.")
    if min(counts, default=0) < 0:
        raise ArgumentError(f"unpad_sequence: lengths must not be negative, got {list(counts)}.")
    if len(counts) != batch.shape[0]:
        raise ShapeError(f"unpad_sequence: {batch.shape[0]} sequences but {len(counts)} lengths.")
    return [batch[i, :count] for i, count in enumerate(counts)]


def pack_sequence(sequences: Any, enforce_sorted: bool = True) -> PackedSequence:
    """Sequences of different lengths as a packed batch; see ``pack_padded_sequence`` for ``enforce_sorted``."""
    members = list(sequences)
    return pack_padded_sequence(pad_sequence(members), [x.shape[0] for x in members], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch: the inverse of ``pack_sequence``."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
