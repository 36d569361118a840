"""How a batch comes from a worker: pickled, with its arrays in shared memory where they are large.

The worker copies the arrays into one block, the receiver copies them out and gives the block back, so nothing of it
outlives the batch; a block whose receiver died is freed by Python's resource tracker. Where shared memory is full or
missing, the arrays go through the pipe.
"""

from __future__ import annotations

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
    block = _block(sum(sizes)) if sum(sizes) >= LARGE else None
    if block is None:
        return Parcel(text, sizes, None, [view.tobytes() for view in views])
    start = 0
    for view, size in zip(views, sizes, strict=True):
        block.buf[start : start + size] = view
        start += size
    name = block.name
    block.close()
    return Parcel(text, sizes, name, [])


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
        memory: Any = block.buf
        buffers, start = [], 0
        for size in parcel.sizes:
            buffers.append(bytearray(memory[start : start + size]))
            start += size
    finally:
        memory = None
        block.close()
        block.unlink()
    return pickle.loads(parcel.text, buffers=buffers)


def discard(parcel: Any) -> None:
    """Free what a parcel that nobody opens holds."""
    if isinstance(parcel, Parcel) and parcel.block is not None:
        block = shared_memory.SharedMemory(parcel.block)
        block.close()
        block.unlink()
