"""``torch.accelerator``: the device that is not the CPU, if there is one."""

from __future__ import annotations

from typing import Any

from .device import Device
from .errors import DeviceError, missing_from

__all__ = [
    "current_accelerator", "current_device_idx", "current_device_index", "device_count", "device_index", "empty_cache",
    "is_available", "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved",
    "reset_peak_memory_stats", "set_device_idx", "set_device_index", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Whether a CUDA device can be used."""
    from . import cuda

    return cuda.is_available()


def device_count() -> int:
    """How many CUDA devices can be used."""
    from . import cuda

    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """``device("cuda")``, or None where no CUDA device can be used (with or without ``check_available``)."""
    return Device("cuda") if is_available() else None


def current_device_index() -> int:
    """The number of the current device. Raises DeviceError without one."""
    from . import cuda

    return cuda.current_device()


current_device_idx = current_device_index


def set_device_index(device: Any) -> None:
    """Make a device the current one. Raises DeviceError without one."""
    from . import cuda

    cuda.set_device(device)


set_device_idx = set_device_index


class device_index:
    """The device of that number as the current one within the block; None changes nothing."""

    def __init__(self, device: int | None):
        from . import cuda

        self._block = cuda.device(-1 if device is None else device)

    def __enter__(self) -> None:
        self._block.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)


def synchronize(device: Any = None) -> None:
    """Wait for everything launched on the device. Raises DeviceError without one."""
    from . import cuda

    if not is_available():
        raise DeviceError("synchronize: there is no accelerator here; tensors live on 'cpu'.")
    cuda.synchronize(device)


def empty_cache() -> None:
    """Give memory that no tensor holds back to the device."""
    from . import cuda

    cuda.empty_cache()


def memory_allocated(device_index: Any = None) -> int:
    """Bytes that tensors hold on the device; 0 without one."""
    from . import cuda

    return cuda.memory_allocated(device_index)


def max_memory_allocated(device_index: Any = None) -> int:
    """The most bytes that tensors held on the device."""
    from . import cuda

    return cuda.max_memory_allocated(device_index)


def memory_reserved(device_index: Any = None) -> int:
    """Bytes that the allocator holds on the device."""
    from . import cuda

    return cuda.memory_reserved(device_index)


def max_memory_reserved(device_index: Any = None) -> int:
    """The most bytes that the allocator held on the device."""
    from . import cuda

    return cuda.max_memory_reserved(device_index)


def reset_peak_memory_stats(device_index: Any = None) -> None:
    """Count peaks anew from here on."""
    from . import cuda

    cuda.reset_peak_memory_stats(device_index)


__getattr__ = missing_from("torch.accelerator")
