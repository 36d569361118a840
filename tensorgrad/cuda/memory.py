"""How much memory of a CUDA device is in use, and how much the allocator keeps for reuse. All zero without a device."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError
from .devices import backend, index_of, is_available

__all__ = [
    "OutOfMemoryError",
    "empty_cache",
    "get_per_process_memory_fraction",
    "max_memory_allocated",
    "max_memory_cached",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_cached",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_peak_memory_stats",
    "set_per_process_memory_fraction",
]  # fmt: skip


class OutOfMemoryError(DeviceError, MemoryError):
    """Raised when a device has no memory left for what was asked; tensors that exist are as they were."""


def _stats(device: Any) -> dict[str, int]:
    if not is_available():
        return dict.fromkeys(("allocated", "reserved", "peak_allocated", "peak_reserved"), 0)
    return dict(backend().device_memory(index_of(device)))


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors hold, and CUDA graphs of compiled functions."""
    return _stats(device)["allocated"]


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that these held since a peak was first asked for, or the last ``reset_peak_memory_stats``."""
    return _stats(device)["peak_allocated"]


def memory_reserved(device: Any = None) -> int:
    """Bytes that the allocator and CUDA graphs hold, in use or kept for reuse."""
    return _stats(device)["reserved"]


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that these held."""
    return _stats(device)["peak_reserved"]


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved


def memory_stats(device: Any = None) -> dict[str, int]:
    """The figures above under PyTorch's keys, ``allocated_bytes.all.peak`` and so on."""
    found = _stats(device)
    return {
        f"{name}_bytes.all.{when}": found[key]
        for name in ("allocated", "reserved")
        for when, key in (("current", name), ("peak", f"peak_{name}"))
    }


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The figures as lines to read; ``abbreviated`` leaves the peaks away."""
    found = _stats(device)
    names = [name for name in found if not (abbreviated and name.startswith("peak"))]
    return "\n".join(f"{name.replace('_', ' '):<16}{found[name]:>16,} bytes" for name in names)


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of the device, whoever uses them. Raises DeviceError without a CUDA device."""
    index = index_of(device)
    free, total = backend().device_memory_info(index)
    return int(free), int(total)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Count peaks anew from here on."""
    if is_available():
        backend().reset_peak_memory(index_of(device))


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let tensors, and what is kept for reuse, hold no more than this share of the device's memory.

    Raises: TypeError or ValueError unless ``fraction`` is a float from 0 to 1; DeviceError without a CUDA device.
    """
    if not isinstance(fraction, float):
        raise TypeError(f"set_per_process_memory_fraction: fraction must be a float, got {type(fraction).__name__}.")
    if not 0 <= fraction <= 1:
        raise ValueError(f"set_per_process_memory_fraction: fraction must lie between 0 and 1, got {fraction}.")
    index = index_of(device)
    backend().limit_memory(fraction, index)


def get_per_process_memory_fraction(device: Any = None) -> float:
    """The share of the device's memory that ``set_per_process_memory_fraction`` allows; 1.0 where nobody set it."""
    index = index_of(device)
    limit = int(backend().memory_limit(index))
    return limit / int(backend().device_memory_info(index)[1]) if limit else 1.0


def empty_cache() -> None:
    """Give memory that no tensor holds back to the device."""
    if is_available():
        backend().empty_cache()
