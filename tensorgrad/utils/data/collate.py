"""Collating: from a list of samples to one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.create import as_tensor, tensor
from ...ops.join import stack
from ...tensor import Tensor

__all__ = ["default_collate", "default_convert"]


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of the same structure as one structure of batches.

    Tensors and arrays are stacked along a new first dimension, numbers become a tensor (floats float64, integers
    int64), texts stay a list; dicts, named tuples and sequences are collated entry by entry.

    Raises: TypeError for anything else; ValueError for sequences of different lengths.
    Example:
        >>> default_collate([(1, 2.0), (3, 4.0)])
        [tensor([1, 3]), tensor([2., 4.], dtype=tensorgrad.float64)]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)):
        if isinstance(first, np.ndarray) and first.dtype.kind in "SUO":
            raise TypeError(f"default_collate: arrays of {first.dtype} can't become tensors.")
        return as_tensor(np.stack([np.asarray(x) for x in batch]))
    if isinstance(first, float):
        return tensor(list(batch), dtype="float64")
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        collated = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return collated if type(first) is dict else type(first)(collated)  # type: ignore[call-arg]
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ValueError("default_collate: each sample of the batch should be of equal size.")
        return [default_collate(column) for column in zip(*batch, strict=True)]
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
        f"{type(first).__name__}. Pass a collate_fn of your own."
    )


def default_convert(data: Any) -> Any:
    """Arrays within a sample as tensors; everything else as it is. What is done without batching."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind not in "SUO":
        return as_tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, (tuple, list)):
        return [default_convert(value) for value in data]
    return data
