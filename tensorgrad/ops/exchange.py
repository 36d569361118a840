"""Memory shared with other libraries, by DLPack and, on a GPU, by ``__cuda_array_interface__``.

Nothing is copied: what one side writes the other finds. The version counters of tensors see writes through tensors
alone, so what another library changes between forward and backward goes unnoticed, as with NumPy arrays on the CPU.
"""

from __future__ import annotations

from typing import Any

from ..backends import registry
from ..dispatch import local, was_made
from ..dtypes import as_dtype
from ..errors import AutogradError, DeviceError, DTypeError, ExportError
from ..tensor import Tensor, install, wrap

__all__ = ["from_dlpack"]

# kDLCPU, kDLCUDA, kDLCUDAHost, kDLCUDAManaged
_DEVICE_TYPES = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}


def lies_on_gpu(given: Any) -> bool:
    """Whether an object is another library's array (CuPy, PyTorch, JAX, Numba) in the memory of a GPU."""
    asked = getattr(given, "__dlpack_device__", None)
    if asked is not None:
        return _DEVICE_TYPES.get(int(asked()[0])) == "cuda"
    return hasattr(given, "__cuda_array_interface__")


def speaks_dlpack(given: Any) -> bool:
    return hasattr(given, "__dlpack__") and hasattr(given, "__dlpack_device__")


def shared(given: Any) -> Tensor:
    """A tensor on the memory of an object that ``speaks_dlpack`` or ``lies_on_gpu``. DLPack comes first: it orders the
    streams of both sides without waiting, and knows bfloat16.

    Raises: DTypeError for elements that tensorgrad does not store; DeviceError for a device that no backend serves.
    """
    if speaks_dlpack(given):
        kind = int(given.__dlpack_device__()[0])
        place = _DEVICE_TYPES.get(kind)
        if place is None:
            raise DeviceError(f"from_dlpack: DLPack device type {kind} is served by no backend.")
        array = registry.on_device(place).from_dlpack(given)
    else:
        told = given.__cuda_array_interface__
        if told["data"][1]:
            raise TypeError(
                f"the memory of this {type(given).__name__} is read-only, which tensors are not; copy the array first."
            )
        if told["typestr"][1] == "V":
            raise DTypeError(
                f"__cuda_array_interface__ names no dtype of tensorgrad by {told['typestr']!r}; hand bfloat16 over by "
                "DLPack."
            )
        array = registry.on_device("cuda").from_cuda_array(given)
    as_dtype(array.dtype)
    if local.listeners:
        was_made(array, given)
    return wrap(array)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of any object that speaks DLPack (NumPy, CuPy, PyTorch, JAX, ...), without a copy.

    Args:
        device: where the tensor shall be; elsewhere than the object it is a copy.
        copy: True always copies, False never, None where it must be.
    Raises: TypeError for an object that does not; DeviceError for a device no backend serves; DTypeError for elements
        that tensorgrad does not store; ValueError for ``copy=False`` with another device.
    """
    if not speaks_dlpack(ext_tensor):
        raise TypeError(f"from_dlpack: {type(ext_tensor).__name__} does not support DLPack.")
    found = shared(ext_tensor)
    out: Tensor = found if device is None else found.to(device)
    if copy is False and out is not found:
        raise ValueError(f"from_dlpack: the object lies on {found.device}; copy=False forbids to move it to {device}.")
    return out.clone() if copy and out is found else out


def __dlpack__(self: Tensor, *, stream: Any = None, **options: Any) -> Any:
    """A DLPack capsule on the same memory.

    Args:
        stream: on a GPU the CUDA stream that the consumer works on, as a number: it waits, without the host, for what
            the current stream of the tensor's device has been given so far. None and 1 are the default stream, -1 asks
            for no order.
        options: ``max_version``, ``dl_device`` and ``copy`` of the protocol, as far as the arrays of the backend know
            them.
    Raises: ExportError, a BufferError, for tensors that require grad.
    """
    if self._tracked:
        raise ExportError("__dlpack__: this tensor requires grad; export tensor.detach().")
    for ear in local.listeners:
        ear.read(self)
    backend = registry.active(self._data)
    backend.settle()
    return backend.to_dlpack(self._data, stream=stream, **options)


def __dlpack_device__(self: Tensor) -> Any:
    return self._data.__dlpack_device__()


def __cuda_array_interface__(self: Tensor) -> dict[str, Any]:
    """How the tensor lies in the memory of a GPU, as ``cupy.asarray`` and others read it. Version 2, as PyTorch's: it
    names no stream, so a consumer that works on another than the current one has to wait for that itself.

    Raises: AttributeError for a tensor that is not on a GPU; AutogradError for one that requires grad; DTypeError for
        bfloat16, for which the protocol has no name.
    """
    place = self.device
    if place.type != "cuda":
        raise AttributeError(f"__cuda_array_interface__: this tensor lives on {place}; copy it with tensor.cuda().")
    if self._tracked:
        raise AutogradError("__cuda_array_interface__: this tensor requires grad; export tensor.detach().")
    array = self._data
    if array.dtype.kind == "V":
        raise DTypeError(
            f"__cuda_array_interface__ has no name for {self.dtype}; use cupy.from_dlpack(tensor), or convert with "
            ".float()."
        )
    for ear in local.listeners:
        ear.read(self)
    registry.active(array).settle()
    return {
        "shape": tuple(array.shape),
        "typestr": array.dtype.str,
        "strides": None if array.flags.c_contiguous else array.strides,
        "data": (self.data_ptr() if array.size else 0, False),
        "version": 2,
    }


install(__dlpack__)
install(__dlpack_device__)
Tensor.__cuda_array_interface__ = property(__cuda_array_interface__)  # type: ignore[attr-defined]
