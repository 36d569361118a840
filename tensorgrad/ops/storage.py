"""The memory behind tensors: what they report of it, and moving it where other processes or devices reach it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends import registry
from ..dispatch import local
from ..dtypes import uint8
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, install, wrap
from .checks import integer
from .convert import address_of, data_ptr
from .reduce import require_tensor

__all__ = ["TypedStorage", "UntypedStorage", "is_storage"]


class UntypedStorage:
    """The bytes behind a tensor and the views of it; made by ``Tensor.untyped_storage()``."""

    def __init__(self, owner: Tensor):
        self._owner = owner if owner._base is None else owner._base

    @classmethod
    def from_file(cls, filename: Any, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """The first ``nbytes`` bytes of a file, mapped into memory; writing changes the file only where ``shared``.

        Raises: ShapeError if the file is shorter.
        """
        with open(filename, "r+b" if shared else "rb") as file:
            size = file.seek(0, 2)
            if not 0 <= nbytes <= size:
                raise ShapeError(f"from_file: {filename} has {size} bytes, {nbytes} were asked for.")
            access = mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY
            memory = mmap.mmap(file.fileno(), nbytes, access=access) if nbytes else b""
        return cls(wrap(np.frombuffer(memory, np.uint8)))

    def untyped(self) -> UntypedStorage:
        return self

    def __getitem__(self, key: Any) -> Any:
        """A byte, or the storage of some of the bytes, which are shared."""
        if not isinstance(key, slice):
            return int(self._bytes()[key])
        return UntypedStorage(wrap(self._bytes()[key]))

    def __setitem__(self, key: Any, value: int) -> None:
        """Write a byte to where ``key``, a position or a slice, says."""
        self._writable()[key] = _byte("storage", value)

    def fill_(self, value: int) -> UntypedStorage:
        """Make every byte ``value``, from -128 to 255."""
        self._writable().fill_(_byte("fill_", value))
        return self

    def copy_(self, src: UntypedStorage, non_blocking: bool | None = None) -> UntypedStorage:
        """Take the bytes of ``src``. Raises ShapeError for a storage of another size."""
        if not isinstance(src, UntypedStorage):
            raise TypeError(f"copy_: src must be an UntypedStorage, got {type(src).__name__}.")
        if src.nbytes() != self.nbytes():
            raise ShapeError(f"copy_: size does not match, self has {self.nbytes()} bytes, src {src.nbytes()}.")
        self._writable().copy_(src.tensor.view(uint8))
        return self

    def clone(self) -> UntypedStorage:
        """A copy in memory of its own."""
        return UntypedStorage(self.tensor.clone())

    def _writable(self) -> Tensor:
        """The bytes as a tensor on the same memory, written to outside of any history. What was saved of the elements
        is out of date from now on."""
        flat: Tensor = self.tensor.view(uint8)
        self._owner._bump()
        return flat

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._bytes(), dtype=dtype, copy=copy)

    def _bytes(self) -> np.ndarray[Any, Any]:
        flat: np.ndarray[Any, Any] = self.tensor.cpu()._data
        return flat.view(np.uint8)

    @property
    def tensor(self) -> Tensor:
        """All elements of the storage in one dimension."""
        from .reinterpret import as_strided_op

        root = self._owner
        count = self.nbytes() // int(root._data.itemsize)
        with_grad_off: Tensor = wrap(root._data)
        flat: Tensor = as_strided_op(with_grad_off, size=(count,), stride=(1,), offset=0)
        flat._cell = root._version_cell()
        return flat

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return data_ptr(self._owner)

    def nbytes(self) -> int:
        """The number of bytes."""
        for ear in local.listeners:
            ear.size_read(self._owner)
        array = self._owner._data
        if array.size == 0:
            return 0
        return int(sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)) + array.itemsize)

    size = nbytes

    def __len__(self) -> int:
        return self.nbytes()

    @property
    def device(self) -> Any:
        return self._owner.device

    @property
    def is_cuda(self) -> bool:
        return bool(self._owner.device.type == "cuda")

    def tolist(self) -> list[int]:
        """The bytes as integers."""
        raw: list[int] = np.frombuffer(self.tensor.cpu().numpy().tobytes(), np.uint8).tolist()
        return raw

    def __repr__(self) -> str:
        return f"tensorgrad.storage.UntypedStorage(device={self.device}) of size {self.nbytes()}"


def _byte(name: str, value: Any) -> int:
    number = integer(name, "value", value)
    if not -128 <= number <= 255:
        raise DTypeError(f"{name}: {number} is no byte.")
    return number & 255


class TypedStorage:
    """The elements behind a tensor and the views of it; made by ``Tensor.storage()``."""

    def __init__(self, owner: Tensor):
        self._untyped = UntypedStorage(owner)

    @property
    def tensor(self) -> Tensor:
        """All elements of the storage in one dimension."""
        return self._untyped.tensor

    @property
    def dtype(self) -> Any:
        return self._untyped._owner.dtype

    @property
    def device(self) -> Any:
        return self._untyped.device

    def untyped(self) -> UntypedStorage:
        return self._untyped

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._untyped.data_ptr()

    def size(self) -> int:
        """The number of elements."""
        return self._untyped.nbytes() // int(self._untyped._owner._data.itemsize)

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._untyped.nbytes()

    def __len__(self) -> int:
        return self.size()

    def __getitem__(self, key: int) -> Any:
        return self.tensor[key].item()

    def __iter__(self) -> Any:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """The elements as Python numbers."""
        numbers: list[Any] = self.tensor.tolist()
        return numbers

    def __repr__(self) -> str:
        lines = "".join(f" {value}\n" for value in self.tolist())
        return f"{lines}[tensorgrad.storage.TypedStorage(dtype={self.dtype}, device={self.device}) of size {len(self)}]"


def is_storage(obj: Any) -> bool:
    """Whether ``obj`` is the storage of a tensor."""
    return isinstance(obj, (TypedStorage, UntypedStorage))


def untyped_storage(self: Tensor) -> UntypedStorage:
    """The bytes that the tensor, and what it is a view of, lie in."""
    return UntypedStorage(self)


def storage(self: Tensor) -> TypedStorage:
    """The elements that the tensor, and what it is a view of, lie in."""
    return TypedStorage(self)


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both see the same memory in the same way: address, shape and strides."""
    require_tensor("is_set_to", tensor)
    mine, other = self._data, tensor._data
    return mine.shape == other.shape and mine.strides == other.strides and address_of(mine) == address_of(other)


# --- memory that others reach


def share_memory_(self: Tensor) -> Tensor:
    """Move the tensor into memory that processes share with this one, forked from it or sent it; returns the tensor.

    On a GPU nothing needs to be moved. Raises: ShapeError for a view, whose base must be shared instead.
    """
    array = self._data
    if not isinstance(array, np.ndarray) or is_shared(self):
        return self
    if self._base is not None:
        raise ShapeError("share_memory_: this tensor is a view of another; share that one, or clone() the view first.")
    from ..multiprocessing.shared import shared_copy

    self._data = shared_copy(array, type(self))
    return self


def owners(array: Any) -> Iterator[Any]:
    """What the array's memory belongs to, from the nearest on."""
    while array is not None:
        array = getattr(array, "base", None) if not isinstance(array, memoryview) else array.obj
        if array is not None:
            yield array


def is_shared(self: Tensor) -> bool:
    """Whether the tensor lies in memory that forked processes share; always on a GPU."""
    if not isinstance(self._data, np.ndarray):
        return True
    return any(isinstance(owner, mmap.mmap) for owner in owners(self._data))


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor in page-locked host memory, from which copies to the GPU ``device`` are fast.

    Raises: DeviceError where there is no GPU; DTypeError for a tensor that is on one.
    """
    if self.device.type != "cpu":
        raise DTypeError(f"pin_memory: cannot pin {self.type()}; only CPU tensors can be pinned.")
    found = registry.on_device("cuda" if device is None else device)
    for ear in local.listeners:  # nobody else is told of the copy, which a program would take for a constant
        ear.moves(self, "page-locked memory")
    out = wrap(found.pinned(self._data))
    return out.requires_grad_() if self._tracked and self._node is None else out


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the tensor lies in page-locked host memory."""
    return any(type(owner).__name__ == "PinnedMemoryPointer" for owner in owners(self._data))


for _function in (is_pinned, is_set_to, is_shared, pin_memory, share_memory_, storage, untyped_storage):
    install(_function)
