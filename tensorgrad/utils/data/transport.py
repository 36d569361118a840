"""How a batch comes from a worker: pickled, with its arrays in shared memory where they are large.

The worker copies the arrays into one block. The receiver maps it and removes its name at once, so the memory lives as
long as the batch's arrays do and no longer; a block whose receiver died is freed by Python's resource tracker. Where
shared memory is full or missing, the arrays go through the pipe.
"""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing import shared_memory
from typing import Any, NamedTuple

__all__ = ["Parcel", "discard", "pack", "unpack"]

LARGE = 1 << 18
"""Bytes from which on a block of shared memory is cheaper than the pipe."""


class Parcel(NamedTuple):
    """A pickled batch: its text, the sizes of its buffers, and where they are: the block's name, or themselves."""

    text: bytes
    sizes: list[int]
    block: str | None
    inline: list[bytes]


def pack(batch: Any) -> Parcel:
    """Pickle a batch. Raises what pickling raises."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    starts, total = _places(sizes)
    block = _block(total) if total >= LARGE else None
    if block is None:
        return Parcel(text, sizes, None, [view.tobytes() for view in views])
    for view, start, size in zip(views, starts, sizes, strict=True):
        block.buf[start : start + size] = view
    name = block.name
    block.close()
    return Parcel(text, sizes, name, [])


def _places(sizes: list[int]) -> tuple[list[int], int]:
    """Where each buffer begins in the block, as aligned as arrays like it, and the block's size."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // 64) * 64
    return starts, end


def _block(size: int) -> Any:
    """A block of shared memory, None where there is no room: its pages are taken now, for a write to pages that can't
    be had would end the process."""
    try:
        block = shared_memory.SharedMemory(create=True, size=size)
    except OSError:
        return None
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(block._fd, 0, size)  # type: ignore[attr-defined]
    except OSError:
        block.close()
        block.unlink()
        return None
    return block


def unpack(parcel: Parcel) -> Any:
    """The batch, on memory of its own."""
    if parcel.block is None:
        return pickle.loads(parcel.text, buffers=map(bytearray, parcel.inline))
    block = shared_memory.SharedMemory(parcel.block)
    try:
        memory: Any = _mapped(block)
    finally:
        block.close()
        block.unlink()
    starts, _ = _places(parcel.sizes)
    buffers = [memory[start : start + size] for start, size in zip(starts, parcel.sizes, strict=True)]
    return pickle.loads(parcel.text, buffers=buffers)


def _mapped(block: Any) -> memoryview:
    """The block's memory, for as long as somebody holds on to it: a mapping of its own, or a copy on systems where a
    block is no file."""
    if getattr(block, "_fd", -1) >= 0:
        return memoryview(mmap.mmap(block._fd, block.size))
    return memoryview(bytearray(block.buf))


def discard(parcel: Any) -> None:
    """Free what a parcel that nobody opens holds."""
    if isinstance(parcel, Parcel) and parcel.block is not None:
        block = shared_memory.SharedMemory(parcel.block)
        block.close()
        block.unlink()
