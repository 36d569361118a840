"""Storages: the flat memory that tensors of a checkpoint are views of, on the way in and on the way out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import registry
from ..device import Device, as_device
from ..dtypes import BY_NAME, DType
from ..errors import DeviceError, DTypeError
from ..tensor import Tensor, wrap
from .unpickle import CheckpointError

__all__ = ["STORAGE_NAMES", "Storage", "StorageType", "flat_view", "rebuild_tensor"]

STORAGE_NAMES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}  # fmt: skip
"""PyTorch's class of a storage, by dtype."""

_MAX_ELEMENTS = 2**62
_MAX_DIMS = 64  # NumPy's


class StorageType:
    """What a file's ``torch.FloatStorage`` stands for: the dtype of a storage."""

    def __init__(self, dtype: DType):
        self.dtype = dtype


class Storage:
    """Flat memory of one dtype. ``map_location`` functions get one, and return it, moved or not.

    Args:
        dtype: of the elements.
        size: their number.
        location: where the file says they were, e.g. ``"cuda:0"``.
    """

    def __init__(self, dtype: DType, size: int, location: str):
        self.dtype = dtype
        self._size = size
        self.array: Any = None
        self.location = location
        self.device = Device("cpu")
        self.used = False  # a tensor is a view of it
        self.read_early = False  # a tensor was computed from its elements while the pickle was read

    def size(self) -> int:
        """The number of elements."""
        return self._size

    def nbytes(self) -> int:
        return self._size * self.dtype.itemsize

    def cpu(self) -> Storage:
        """The storage, to be put into host memory."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Storage:
        """The storage, to be put onto a GPU."""
        return self.to(Device("cuda") if device is None else Device(device) if isinstance(device, int) else device)

    def to(self, device: Any) -> Storage:
        """The storage, to be put onto ``device``. Raises DeviceError if that is not here."""
        place = as_device(device)
        if place.type != "cpu":
            registry.on_device(place)
        self.device = place
        return self

    def fill(self, elements: np.ndarray[Any, Any]) -> None:
        """Take the elements, to where ``to`` said."""
        if self.device.type == "cpu":
            self.array = elements
        else:
            self.array = registry.on_device(self.device).from_host(elements, self.device.index)


def strided(flat: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """The view of flat memory with these sizes and strides in elements; bounds were checked before."""
    if type(flat) is np.ndarray:
        item = flat.itemsize
        return np.ndarray(size, flat.dtype, flat, offset * item, tuple([step * item for step in stride]))
    as_strided = registry.active(flat).xp.lib.stride_tricks.as_strided
    return as_strided(flat[offset:], size, tuple([step * flat.itemsize for step in stride]))


def _whole_numbers(what: str, given: Any) -> tuple[int, ...]:
    if not isinstance(given, (tuple, list)) or not all(type(n) is int for n in given):
        raise CheckpointError(f"a tensor's {what} is not a tuple of integers.")
    if any(n < 0 for n in given):
        raise CheckpointError(f"a tensor's {what} {tuple(given)} has negative numbers.")
    return tuple(given)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A view of a storage. Raises CheckpointError if it would reach outside of it, or is no view at all."""
    if not isinstance(storage, Storage):
        raise CheckpointError(f"a tensor's storage is a {type(storage).__name__}.")
    size, stride = _whole_numbers("size", size), _whole_numbers("stride", stride)
    (offset,) = _whole_numbers("storage offset", (offset,))
    if len(size) != len(stride) or len(size) > _MAX_DIMS:
        raise CheckpointError(f"a tensor has {len(size)} sizes and {len(stride)} strides; at most {_MAX_DIMS} of each.")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
    reach = max(size, default=0), max(stride, default=0) * storage.dtype.itemsize
    if last >= storage.size() or count > _MAX_ELEMENTS or max(reach) > _MAX_ELEMENTS:
        raise CheckpointError(
            f"a tensor of size {size} and stride {stride} at offset {offset} reaches outside of its storage, "
            f"which holds {storage.size()} elements."
        )
    storage.used = True
    if not count:  # nothing is read: strides of an empty tensor may be anything, and NumPy refuses some
        return wrap(storage.array[:0].reshape(size))
    return wrap(strided(storage.array, offset, size, stride))


def restore_location(storage: Storage, map_location: Any) -> None:
    """Decide where a storage goes. Raises DeviceError if the file's device is not here and nobody says where instead,
    CheckpointError for a ``map_location`` of another kind."""
    location = storage.location
    if callable(map_location):
        moved = map_location(storage, location)
        if isinstance(moved, Storage):
            return
        if moved is not None:
            raise TypeError(
                f"load: the map_location function returned a {type(moved).__name__}; return the storage, moved with "
                "storage.cpu(), .cuda(n) or .to(device), or None for the place in the file."
            )
    elif isinstance(map_location, dict):
        location = str(map_location.get(location, location))
    elif map_location is not None:
        location = str(as_device(map_location))
    if location == "cpu":
        storage.to("cpu")
        return
    try:
        storage.to(location)
    except DeviceError as error:
        raise DeviceError(
            f"load: a tensor of the file belongs on {location}, which is not available here ({error}). "
            "Pass map_location='cpu' to have everything in host memory."
        ) from None


def flat_view(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int, tuple[int, ...]]:
    """(storage, offset, strides): the array as a view of the flat memory it shares with others, in elements.

    The storage is that of the outermost array of the same dtype. An array that is no plain view of one (negative
    strides, gaps, other dtypes) is copied into a storage of its own.
    """
    owner = array
    while isinstance(owner.base, np.ndarray) and owner.base.dtype == array.dtype:
        owner = owner.base
    item = array.itemsize
    low, high = np.lib.array_utils.byte_bounds(owner)
    strides = [step // item for step in array.strides]
    plain = high - low == owner.nbytes and array.size and all(
        step >= 0 and step % item == 0 for step in (*array.strides, *owner.strides)
    )  # fmt: skip
    if not plain:
        flat = np.ascontiguousarray(array).reshape(-1)
        return flat, 0, contiguous_strides(array.shape)
    flat = np.lib.stride_tricks.as_strided(owner, (owner.size,), (item,)) if owner.size else owner.reshape(-1)
    offset = (np.lib.array_utils.byte_bounds(array)[0] - low) // item
    return flat, offset, tuple(strides)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


def host_elements(raw: Any, dtype: DType, count: int, byteorder: str) -> np.ndarray[Any, Any]:
    """Elements of a storage from their bytes, which are shared where they are in this machine's order and aligned.

    Raises: CheckpointError if the number of bytes is not that of ``count`` elements.
    """
    import sys

    data = np.frombuffer(raw, np.uint8)
    if data.size != count * dtype.itemsize:
        raise CheckpointError(
            f"a storage of {count} elements of {dtype.name} has {data.size} bytes; it must have "
            f"{count * dtype.itemsize}."
        )
    if byteorder != sys.byteorder and dtype.itemsize > 1:
        unit = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        data = data.view(f"u{unit}").byteswap().view(np.uint8) if data.size else data
    elif data.ctypes.data % max(dtype.itemsize, 8) or not data.flags.writeable:
        data = data.copy()
    if dtype.name == "bool" and data.size and data.max() > 1:
        data = (data != 0).astype(np.uint8)  # other bytes are no bools: kernels would disagree about them
    return data.view(dtype.np)


def dtype_of_storage(name: str) -> DType | None:
    """The dtype of PyTorch's storage class; None if it is not one that tensorgrad has. Raises DTypeError for those of
    types that only PyTorch has."""
    for dtype, storage in STORAGE_NAMES.items():
        if storage == name:
            return BY_NAME[dtype]
    if name.endswith("Storage"):
        raise DTypeError(f"load: the file has a {name}, whose elements tensorgrad does not store.")
    return None
