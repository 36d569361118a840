"""Datasets: samples by index, or as a stream; and datasets made of others."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

from ...errors import DimError, TensorgradError
from ...ops.checks import number
from ...ops.random import randperm
from ...random import Generator
from ...tensor import Tensor

__all__ = [
    "ChainDataset", "ConcatDataset", "Dataset", "IterableDataset", "StackDataset", "Subset", "TensorDataset",
    "random_split",
]  # fmt: skip

T = TypeVar("T")


class DatasetError(TensorgradError, ValueError, AssertionError):
    """Raised for datasets that can't be put together: an AssertionError in some places of PyTorch, a ValueError in
    others."""


class Dataset(Generic[T]):
    """Samples by index: define ``__getitem__`` and, for samplers, ``__len__``.

    ``__getitems__(indices)``, where defined, returns a list of samples at once.
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """A stream of samples: define ``__iter__``."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")

    def __add__(self, other: Any) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors of the same first size; sample ``i`` is the tuple of their rows ``i``.

    Raises DatasetError if the sizes differ.
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor):
        for x in tensors:
            if not isinstance(x, Tensor):
                raise TypeError(f"TensorDataset is made of tensors, got {x!r}.")
            if not x.ndim:
                raise DimError("TensorDataset: a tensor without dimensions holds no samples.")
        sizes = [int(x.shape[0]) for x in tensors]
        if len(set(sizes)) != 1:
            raise DatasetError(f"TensorDataset: Size mismatch between tensors; their first sizes are {sizes}.")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(x[index] for x in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class StackDataset(Dataset[Any]):
    """Datasets side by side: a sample is the tuple (or, from keywords, the dict) of theirs."""

    def __init__(self, *args: Any, **kwargs: Any):
        if bool(args) == bool(kwargs):
            raise DatasetError("StackDataset takes datasets either by position or by name, and at least one.")
        self.datasets: Any = kwargs or args
        members = kwargs.values() if kwargs else args
        sizes = [len(d) for d in members]
        if len(set(sizes)) != 1:
            raise DatasetError(f"StackDataset: Size mismatch between datasets; their sizes are {sizes}.")
        self._length = sizes[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples at these indices; of a dataset that can give several at once, all at once."""
        named = isinstance(self.datasets, dict)
        columns = []
        for dataset in self.datasets.values() if named else self.datasets:
            column = (
                dataset.__getitems__(indices)
                if callable(getattr(dataset, "__getitems__", None))
                else [dataset[i] for i in indices]
            )
            if len(column) != len(indices):
                raise DatasetError(f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(column)}")
            columns.append(column)
        rows = zip(*columns, strict=True)
        return [dict(zip(self.datasets, row, strict=True)) for row in rows] if named else list(rows)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T]):
    """Datasets one after the other."""

    datasets: list[Any]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise DatasetError("ConcatDataset: datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise DatasetError("ConcatDataset does not support IterableDataset; use ChainDataset.")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T:
        if index < 0:
            if -index > len(self):
                raise ValueError(
                    f"absolute value of index should not exceed dataset length: index {index}, {len(self)} samples"
                )
            index += len(self)
        if index >= len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        which = bisect_right(self.cumulative_sizes, index)
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset[Any]):
    """Streams one after the other."""

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[Any]:
        for dataset in self._streams():
            yield from dataset

    def _streams(self) -> list[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise DatasetError(f"ChainDataset only supports IterableDataset, got {type(dataset).__name__}")
        return self.datasets

    def __len__(self) -> int:
        self._streams()
        return sum(len(d) for d in self.datasets)


class Subset(Dataset[T]):
    """The samples of a dataset at some indices."""

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T]:
        kind = type(self)
        if kind.__getitem__ is not Subset.__getitem__ and kind.__getitems__ is Subset.__getitems__:
            return [self[i] for i in indices]  # a subclass whose samples are its own
        chosen = [self.indices[i] for i in indices]
        if callable(getattr(self.dataset, "__getitems__", None)):
            return self.dataset.__getitems__(chosen)
        return [self.dataset[i] for i in chosen]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Sequence[float], generator: Generator | None = None) -> list[Subset[Any]]:
    """Disjoint random subsets of these lengths, or of these fractions of the whole (which sum to 1).

    Raises ValueError if the lengths do not add up to the dataset's.
    """
    total = len(dataset)
    if isinstance(lengths, str) or not isinstance(lengths, Iterable):
        raise TypeError(f"random_split: lengths must be a sequence of numbers, got {lengths!r}.")
    lengths = [number("random_split", "each length", length) for length in lengths]
    if any(length != length or abs(length) == math.inf for length in lengths):
        raise ValueError(f"random_split: lengths must be finite, got {lengths}.")
    sizes = [int(size) for size in lengths]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        if not all(0 <= part <= 1 for part in lengths):
            at = next(i for i, part in enumerate(lengths) if not 0 <= part <= 1)
            raise ValueError(f"Fraction at index {at} is not between 0 and 1: {list(lengths)}")
        sizes = [math.floor(total * part) for part in lengths]
        for i in range(total - sum(sizes)):  # what rounding left over, one each
            sizes[i % len(sizes)] += 1
        for i, size in enumerate(sizes):
            if size == 0:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.", stacklevel=2
                )
    if sum(sizes) != total:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = randperm(total, generator=generator).tolist()
    ends = list(accumulate(sizes))
    return [Subset(dataset, order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
