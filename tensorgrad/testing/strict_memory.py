"""Memory of the stand-in: raw memory of a device, pools, allocators, and page-locked memory of the host.

What is freed is overwritten, and what was page-locked or pooled is given out again soon: who reads it later sees NaN,
or somebody else's numbers. Where devices have a size (``strict_cuda(memory=...)``) every array lies in the default
pool, which counts, keeps what is freed, and runs out as CuPy's does.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .strict_devices import machine, state

__all__ = [
    "POISON", "Memory", "MemoryPointer", "MemoryPool", "OutOfMemoryError", "PinnedMemoryPointer", "alloc",
    "alloc_pinned_memory", "chosen", "default_pool", "is_pinned", "owner", "placed", "room_at", "set_allocator",
    "using_allocator",
]  # fmt: skip

POISON = 0xFF  # of every byte: NaN, -1
_ROUND = 512


class OutOfMemoryError(MemoryError):
    """``xp.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int = 0):
        self.args_given = size, total, limit
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class _Full(RuntimeError):
    """``cudaErrorMemoryAllocation``."""


class _Poisoned:
    """Rooms that are private copies of a file of poison: only what is written costs time, of workspaces nothing."""

    least = 1 << 20
    file = -1
    size = 0

    @classmethod
    def room(cls, size: int) -> mmap.mmap | None:
        """``size`` bytes; None where filling them costs little, or the system has no such files (Linux has)."""
        if size < cls.least or not hasattr(os, "memfd_create"):
            return None
        if cls.file < 0:
            cls.file = os.memfd_create("poison")
        while cls.size < size:
            cls.size += os.write(cls.file, bytes([POISON]) * cls.least)
        return mmap.mmap(cls.file, size, access=mmap.ACCESS_COPY)


class Memory:
    """Raw memory of the current device, as ``cudaMalloc`` gives it."""

    def __init__(self, size: int):
        self.size = size
        self.device_id = state.device
        self.counted = 0
        if machine.memory is not None and machine.used[self.device_id] + size > machine.memory:
            raise _Full("cudaErrorMemoryAllocation: out of memory")
        self.mapped = _Poisoned.room(max(size, 1) + _ROUND)
        if self.mapped is None:
            self.room = np.full(max(size, 1) + _ROUND, POISON, np.uint8)
        else:
            self.room = np.frombuffer(self.mapped, np.uint8)
        self.ptr = -(-self.room.ctypes.data // _ROUND) * _ROUND  # as aligned as cudaMalloc's
        self.uses = machine.used
        self.uses[self.device_id] += size
        self.counted = size

    def __del__(self) -> None:
        if self.counted:
            self.uses[self.device_id] -= self.counted
        if not hasattr(self, "room"):
            return
        if self.mapped is None:
            self.room[:] = POISON
        else:
            self.mapped.madvise(mmap.MADV_DONTNEED)  # what was written is gone: the file's bytes are seen again


class MemoryPointer:
    """A place in memory, which lives as long as somebody has the place."""

    def __init__(self, mem: Any, offset: int):
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = mem.device_id

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr + offset - self.mem.ptr)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        """Copy from this or another device, on a stream of the current one; the peers' streams know nothing of it."""
        from .strict_stream import current, issue

        (stream or current()).finish()
        if size:
            issue(_overwrite_with, room_at(self.ptr, size), room_at(src.ptr, size), writes=True)


def _overwrite_with(target: Any, source: Any) -> None:
    target[...] = source


class _Pooled:
    """A block of a pool; it goes back when nobody has it any more."""

    def __init__(self, pool: MemoryPool, key: tuple[int, int, int], pointer: MemoryPointer):
        self.pool = pool
        self.key = key
        self.pointer = pointer
        self.ptr = pointer.ptr
        self.device_id, _, self.size = key
        start = self.ptr - pointer.mem.room.ctypes.data
        self.block = pointer.mem.room[start : start + self.size]
        self.pool.held[self.device_id] = self.pool.held.get(self.device_id, 0) + self.size

    def __del__(self) -> None:
        block = self.block
        stream = state.streams.get(state.device)
        graph = None if stream is None else stream.graph
        if graph is None:
            block[:] = POISON
        else:
            graph.nodes.append((_overwrite, (block,), {}))  # of the raw memory, which the graph's user has to keep
        self.pool.held[self.device_id] -= self.size
        self.pool.free.setdefault(self.key, []).append(self.pointer)


def _overwrite(block: Any) -> None:
    block[:] = POISON


class MemoryPool:
    """Blocks by device, stream and size; a freed one is the next to be given out."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None):
        self.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self.free: dict[tuple[int, int, int], list[MemoryPointer]] = {}
        self.held: dict[int, int] = {}  # bytes that somebody has, by device
        self.limits: dict[int, int] = {}

    def malloc(self, size: int) -> MemoryPointer:
        from .strict_stream import current

        key = state.device, current().ptr, max(1, -(-size // _ROUND)) * _ROUND
        found = self.free.get(key)
        pointer = found.pop() if found else self._more(key[2])
        return MemoryPointer(_Pooled(self, key, pointer), 0)

    def _more(self, size: int) -> MemoryPointer:
        """Raw memory. Only where the device is full CuPy gives back by itself what nobody has; not at its limit."""
        total, limit = self.total_bytes(), self.get_limit()
        if limit and total + size > limit:
            raise OutOfMemoryError(size, total, limit)
        for last in (False, True):
            try:
                return self.allocator(size)
            except _Full:
                if last:
                    raise OutOfMemoryError(size, total) from None
                gc.collect()
                self.free_all_blocks()
        raise AssertionError

    def free_all_blocks(self, stream: Any = None) -> None:
        for key in [key for key in self.free if key[0] == state.device]:
            del self.free[key]

    def n_free_blocks(self) -> int:
        return sum(len(found) for key, found in self.free.items() if key[0] == state.device)

    def used_bytes(self) -> int:
        return self.held.get(state.device, 0)

    def free_bytes(self) -> int:
        return sum(key[2] * len(found) for key, found in self.free.items() if key[0] == state.device)

    def total_bytes(self) -> int:
        return self.used_bytes() + self.free_bytes()

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if (size is None) == (fraction is None):
            raise ValueError("size and fraction cannot be specified at one time")
        if fraction is not None:
            if not 0 <= fraction <= 1:
                raise ValueError(f"memory limit fraction out of range: {fraction}")
            size = int(fraction * (machine.memory or 1 << 40))
        assert size is not None
        self.limits[state.device] = size

    def get_limit(self) -> int:
        return self.limits.get(state.device, 0)


class _Default:
    """The pool of everybody who names none, made anew with the devices."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.pool = MemoryPool()
        self.allocator: Callable[[int], MemoryPointer] = self.pool.malloc


_default = _Default()


def default_pool() -> MemoryPool:
    """``xp.get_default_memory_pool``."""
    return _default.pool


def start_anew() -> None:
    """A default pool that holds nothing."""
    _default.start()


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    """Where memory comes from in every thread that is not ``using_allocator``."""
    _default.allocator = allocator or _default.pool.malloc


def get_allocator() -> Callable[[int], MemoryPointer]:
    return state.allocator or _default.allocator


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    before, state.allocator = state.allocator, allocator
    try:
        yield
    finally:
        state.allocator = before


def chosen() -> Callable[[int], MemoryPointer] | None:
    """The allocator; None is NumPy, for arrays whose memory nobody counts."""
    return state.allocator or (None if machine.memory is None else _default.allocator)


def alloc(size: int) -> MemoryPointer:
    """Memory from the current allocator."""
    allocator = chosen()
    return MemoryPointer(Memory(size), 0) if allocator is None else allocator(size)


def placed(host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in memory of the current allocator, with the elements of a fresh one."""
    allocator = chosen()
    if allocator is None or not host.size:
        return host
    pointer = allocator(host.nbytes)
    holder: Any = (ctypes.c_char * host.nbytes).from_address(pointer.ptr)
    holder.mem = pointer.mem  # the block lives as long as arrays whose base this is
    dense = host.flags.c_contiguous or host.base is None  # NumPy's own results are dense in some order
    made: np.ndarray[Any, Any] = np.ndarray(host.shape, host.dtype, holder, 0, host.strides if dense else None)
    made[...] = host
    return made


def room_at(address: int, size: int) -> np.ndarray[Any, Any]:
    """Bytes of this process."""
    return np.frombuffer(memoryview((ctypes.c_char * size).from_address(address)), np.uint8)


def owner(host: Any) -> Any:
    """Who owns the memory of an array: the raw memory of a pool, or the NumPy array at the end of its bases."""
    while isinstance(host, np.ndarray) and host.base is not None:
        host = host.base
    block = getattr(host, "mem", None)
    return block.pointer.mem if isinstance(block, _Pooled) else host if block is None else block


# --- page-locked memory of the host

_unlocked: dict[int, list[bytearray]] = {}  # rooms that are given out again, by size: what is read too late shows


class PinnedMemoryPointer(np.ndarray):  # so that it is a buffer
    """``xp.cuda.PinnedMemoryPointer``."""

    def __del__(self) -> None:
        room = self.base
        if isinstance(room, bytearray):
            self[:] = POISON
            _unlocked.setdefault(len(room), []).append(room)


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    found = _unlocked.get(size)
    room = found.pop() if found else bytearray(size)
    return PinnedMemoryPointer((size,), np.uint8, buffer=room)


def is_pinned(host: Any) -> bool:
    """Whether a NumPy array lies in page-locked memory."""
    while isinstance(host, np.ndarray):
        if isinstance(host, PinnedMemoryPointer):
            return True
        host = host.base
    return False
