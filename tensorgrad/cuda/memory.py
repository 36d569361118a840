"""How much memory of a CUDA device is in use, and how much the allocator keeps for reuse. All zero without a device."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError
from .devices import backend, index_of, is_available

__all__ = [
    "OutOfMemoryError", "empty_cache", "max_memory_allocated", "max_memory_cached", "max_memory_reserved",
    "mem_get_info", "memory_allocated", "memory_cached", "memory_reserved", "memory_stats", "memory_summary",
    "reset_max_memory_allocated", "reset_max_memory_cached", "reset_peak_memory_stats",
]  # fmt: skip


class OutOfMemoryError(DeviceError, MemoryError):
    """Raised when a device has no memory left for what was asked."""


def _stats(device: Any) -> dict[str, int]:
    if not is_available():
        return dict.fromkeys(("allocated", "reserved", "peak_allocated", "peak_reserved"), 0)
    return dict(backend().device_memory(index_of(device)))


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors hold."""
    return _stats(device)["allocated"]


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors held since the start or the last ``reset_peak_memory_stats``."""
    return _stats(device)["peak_allocated"]


def memory_reserved(device: Any = None) -> int:
    """Bytes that the allocator holds, in use or kept for reuse."""
    return _stats(device)["reserved"]


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that the allocator held."""
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


def empty_cache() -> None:
    """Give memory that no tensor holds back to the device."""
    if is_available():
        backend().empty_cache()
