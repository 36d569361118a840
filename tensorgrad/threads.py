"""Threads and memory of the CPU's kernels."""

from __future__ import annotations

from . import config
from .backends import registry
from .dispatch import is_asked

__all__ = ["get_num_threads", "memory_stats", "set_num_threads"]


def set_num_threads(count: int) -> None:
    """Let CPU kernels use ``count`` threads; results do not depend on it. Raises ValueError below 1."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"set_num_threads: expected a number of threads from 1, got {count!r}.")
    config.set("num_threads", count)


def get_num_threads() -> int:
    """How many threads CPU kernels use."""
    is_asked("the number of threads", config._calls, "num_threads")
    return registry.on_device("cpu").num_threads()


def memory_stats() -> dict[str, int]:
    """Bytes that the CPU backend's allocator holds: in use, cached for reuse, the peak of both together, and that of
    what was in use."""
    return registry.on_device("cpu").memory_stats()
