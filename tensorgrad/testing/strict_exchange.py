"""Memory that the stand-in shares with other libraries, as CuPy does: DLPack and ``__cuda_array_interface__``.

- A capsule is a real one, and says that its memory is a CUDA device's: NumPy and other host libraries refuse it.
- The consumer's stream waits for the current stream of the current device, and an array of another device than that is
  refused: CuPy would let the consumer wait for the wrong stream.
- ``asarray`` of memory of another device than the current one raises, where CuPy would make a copy.
"""

from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..dtypes import numpy_dtype
from .strict_array import StrictArray, by_address
from .strict_devices import StrictDevice, on_current_device, state
from .strict_stream import Stream, current, refuse, streams_of

__all__ = ["capsule", "from_dlpack", "from_interface", "interface", "pointer_attributes"]

_CPU, _CUDA, _MANAGED = 1, 2, 13
_UNSIGNED, _BFLOAT = 1, 4  # kDLUInt, kDLBfloat
_LEGACY = 1  # the number of the default stream


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _described(held: Any) -> _DLTensor:
    """What a capsule says; raises ValueError for one that was consumed before."""
    return _DLTensor.from_address(_pointer_of(held, b"dltensor"))


# --- DLPack


def capsule(
    array: StrictArray, stream: int | None = None, max_version: Any = None, dl_device: Any = None,
    copy: bool | None = None,
) -> Any:  # fmt: skip
    """``array.__dlpack__()``; of version 0, which a producer may answer to any ``max_version``."""
    host = array._host
    if dl_device not in (None, (_CUDA, array._device)):
        if dl_device != (_CPU, 0):
            raise BufferError("unsupported device requested.")
        if copy is False:
            raise ValueError("GPU memory cannot be exported to CPU without copy.")
        return array.get().__dlpack__()
    if copy:
        raise BufferError("copy=True only supported for copy to CPU.")
    on_current_device("__dlpack__()", array._device)
    _order(stream)
    told = host.view(np.uint16) if host.dtype.name == "bfloat16" else host
    made = told.__dlpack__()
    says = _described(made)
    says.device_type, says.device_id = _CUDA, array._device
    if told is not host:
        says.code = _BFLOAT
    return made


def _order(stream: int | None) -> None:
    """Let the consumer's stream wait for the current one."""
    number = _LEGACY if stream is None else stream
    if not isinstance(number, int) or number < -1 or number == 0:
        raise ValueError(f"the valid stream for the DLPack protocol is -1, 1, 2, or any larger value, not {stream}")
    if number in (-1, current().ptr or _LEGACY):
        return
    consumers = [Stream.null] if number == _LEGACY else [x for x in streams_of(state.device) if x.ptr == number]
    if not consumers:
        raise RuntimeError(f"cudaErrorInvalidResourceHandle: device {state.device} has no stream {number}")
    consumers[0].wait_event(current().record())


class _Consumed:
    """A capsule for NumPy, which takes it for its own."""

    def __init__(self, held: Any):
        self.held = held

    def __dlpack__(self, **options: Any) -> Any:
        return self.held

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def from_dlpack(array: Any, *, device: Any = None, copy: bool | None = None) -> StrictArray:
    """``xp.from_dlpack``."""
    if device is not None:
        raise NotImplementedError("from_dlpack() does not support device yet.")
    kind, number = array.__dlpack_device__()
    if kind not in (_CUDA, _MANAGED):
        raise TypeError(f"from_dlpack: device type {kind} cannot be directly imported to CuPy.")
    with StrictDevice(number):
        held = array.__dlpack__(stream=current().ptr or _LEGACY, max_version=(1, 0), copy=copy)
        says = _described(held)
        if (says.device_type, says.device_id) != (kind, number):
            raise RuntimeError("CuPy is built against CUDA, different from the backend that backs the incoming tensor")
        says.device_type, says.device_id = _CPU, 0
        bfloat = says.code == _BFLOAT
        if bfloat:
            says.code = _UNSIGNED
        managed = np.from_dlpack(_Consumed(held))  # gives the memory back to its owner in the end
        dtype = numpy_dtype("bfloat16") if bfloat else managed.dtype
        return StrictArray(_at(managed.__array_interface__["data"][0], managed.shape, managed.strides, dtype, managed))


# --- __cuda_array_interface__


def interface(array: StrictArray) -> dict[str, Any]:
    """``array.__cuda_array_interface__``, of version 3: with the stream that a consumer has to wait for."""
    host = array._host
    pointer = array.data.ptr if host.size else 0
    return {
        "shape": host.shape, "typestr": host.dtype.str, "descr": host.dtype.descr, "stream": current().ptr or _LEGACY,
        "version": 3, "strides": None if host.flags.c_contiguous else host.strides, "data": (pointer, False),
    }  # fmt: skip


def from_interface(given: Any) -> StrictArray:
    """An array on what an object tells of; the host waits for the stream that it names."""
    told = given.__cuda_array_interface__
    shape, dtype, (pointer, _) = told["shape"], np.dtype(told["typestr"]), told["data"]
    if told.get("stream") is not None:
        refuse("waiting for another library's stream")
        for stream in streams_of(state.device):
            if (stream.ptr or _LEGACY) == told["stream"]:
                stream.finish()
    if not pointer:
        return StrictArray(np.empty(shape, dtype))
    on_current_device("asarray()", pointer_attributes(pointer).device)
    return StrictArray(_at(pointer, shape, told.get("strides"), dtype, given))


def pointer_attributes(ptr: int) -> Any:
    """``xp.cuda.runtime.pointerGetAttributes``, of addresses that others were told."""
    return SimpleNamespace(device=by_address[ptr]._device, type=2, devicePointer=ptr)


def _at(address: int, shape: Any, strides: Any, dtype: Any, held: Any) -> np.ndarray[Any, Any]:
    """The array at an address, which keeps ``held`` alive."""
    if 0 in shape:
        return np.empty(shape, dtype)
    if strides is None:
        strides = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    steps = list(zip(shape, strides, strict=True))
    low = sum(min(0, step * (size - 1)) for size, step in steps)
    high = sum(max(0, step * (size - 1)) for size, step in steps) + dtype.itemsize
    room: Any = (ctypes.c_char * (high - low)).from_address(address + low)
    room.mem = held
    return np.ndarray(shape, dtype, room, -low, strides)
