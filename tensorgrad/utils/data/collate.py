"""Collating: from a list of samples to one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from ...errors import ShapeError
from ...ops.create import as_tensor, tensor
from ...ops.join import stack
from ...tensor import Tensor

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]


def _refused(kind: Any) -> TypeError:
    return TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {kind}. Pass a "
        "collate_fn of your own."
    )


def collate(batch: Sequence[Any], *, collate_fn_map: dict[Any, Callable[..., Any]] | None = None) -> Any:
    """Samples of the same structure as one structure of batches: dicts, named tuples and sequences entry by entry, all
    else by the function that ``collate_fn_map`` gives for its class: ``f(batch, collate_fn_map=collate_fn_map)``.

    Raises: TypeError for a class that has none; ShapeError for sequences of different lengths.
    """
    first = batch[0]
    kind = type(first)
    known = collate_fn_map or {}
    function = known.get(kind)
    if function is None:
        function = next((f for kinds, f in known.items() if isinstance(first, kinds)), None)
    if function is not None:
        return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        entries = {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in first}
        return _like_mapping(first, entries)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=False)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ShapeError("default_collate: each element in list of batch should be of equal size.")
        columns = [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, tuple) else _like_sequence(first, columns)
    raise _refused(kind)


def _like_mapping(first: Any, entries: dict[Any, Any]) -> Any:
    """The entries in an object of the same class; a dict where that can't be made."""
    try:
        if isinstance(first, MutableMapping):
            clone = copy.copy(first)  # a defaultdict, say, keeps what makes it one
            clone.update(entries)
            return clone
        return type(first)(entries)
    except TypeError:
        return entries


def _like_sequence(first: Any, items: list[Any]) -> Any:
    try:
        if isinstance(first, MutableSequence):
            clone = copy.copy(first)
            for i, item in enumerate(items):
                clone[i] = item
            return clone
        return type(first)(items)
    except TypeError:  # a range, say
        return items


def _tensors(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return stack(list(batch), 0)


def _arrays(batch: Any, *, collate_fn_map: Any = None) -> Any:
    if batch[0].dtype.kind in "SUO":
        raise _refused(batch[0].dtype)
    return collate([as_tensor(x) for x in batch], collate_fn_map=collate_fn_map)


def _numpy_numbers(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return as_tensor(np.asarray(batch))


def _floats(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return tensor(list(batch), dtype="float64")


def _integers(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return tensor(list(batch))


def _as_they_are(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return batch


default_collate_fn_map: dict[Any, Callable[..., Any]] = {
    Tensor: _tensors, np.ndarray: _arrays, (np.bool_, np.number, np.object_): _numpy_numbers, float: _floats,
    int: _integers, str: _as_they_are, bytes: _as_they_are,
}  # fmt: skip
"""What ``default_collate`` does with what is no container; add classes of your own."""


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of the same structure as one structure of batches.

    Tensors and arrays are stacked along a new first dimension, numbers become a tensor (floats float64, integers
    int64), texts stay a list; dicts, named tuples and sequences are collated entry by entry.

    Raises: TypeError for anything else; ShapeError for sequences of different lengths.
    Example:
        >>> default_collate([(1, 2.0), (3, 4.0)])
        [tensor([1, 3]), tensor([2., 4.], dtype=torch.float64)]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """Arrays within a sample as tensors; everything else as it is. What is done without batching."""
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in "SUO" else as_tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, tuple):
        return [default_convert(value) for value in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like_sequence(data, [default_convert(value) for value in data])
    return data
