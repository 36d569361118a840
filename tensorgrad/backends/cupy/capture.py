"""Capturing CUDA graphs: the stream, the memory that they keep, and the order of their launches."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ... import collector

__all__ = ["Lane", "Room", "held_by_graphs", "lane_of"]


class Lane:
    """What the programs of a device share: a stream to capture on, and the order of their replays.

    cuBLAS works in memory of the stream that was captured, so replays on several streams wait for each other.
    """

    def __init__(self, cuda: Any):
        self.cuda = cuda
        self.stream = cuda.Stream(non_blocking=True)
        self.done = cuda.Event(disable_timing=True)
        self.lock = threading.RLock()

    @contextmanager
    def turn(self, stream: Any) -> Iterator[None]:
        """Work of the block on a stream comes after all replays before, and before all that follow."""
        stream.wait_event(self.done)
        try:
            yield
        finally:
            self.done.record(stream)

    def capture(self, allocator: Callable[[int], Any], work: Callable[[], None]) -> Any:
        """The graph of what ``work`` does; its memory comes from the allocator."""
        stream = self.stream
        # what is freed while a stream is captured may be anybody's
        with collector.paused(), stream, self.cuda.using_allocator(allocator):
            stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # the error may have ended the capture, and is the one to be told
                    stream.end_capture()
                raise
            return stream.end_capture()


_lanes: weakref.WeakKeyDictionary[Any, dict[int, Lane]] = weakref.WeakKeyDictionary()  # by backend and device
_guard = threading.Lock()


def lane_of(backend: Any, device: int) -> Lane:
    """The lane of a device."""
    with _guard:
        lanes = _lanes.setdefault(backend, {})
        found = lanes.get(device)
        if found is None:
            with backend.on(device):
                found = lanes[device] = Lane(backend.xp.cuda)
        return found


class Room:
    """A private pool. Its raw memory stays even if the pool gives blocks back for want of memory: a graph holds
    addresses, not references."""

    def __init__(self, cuda: Any):
        self.raw: list[Any] = []
        self.sizes: dict[int, int] = {}  # bytes by device
        raw, sizes = self.raw, self.sizes

        def more(size: int) -> Any:
            pointer = cuda.MemoryPointer(cuda.Memory(size), 0)
            raw.append(pointer)
            sizes[pointer.mem.device_id] = sizes.get(pointer.mem.device_id, 0) + pointer.mem.size
            return pointer

        self.pool = cuda.MemoryPool(more)
        _rooms.add(self)

    @property
    def nbytes(self) -> int:
        return sum(self.sizes.values())


_rooms: weakref.WeakSet[Room] = weakref.WeakSet()


def held_by_graphs(device: int) -> int:
    """Bytes of a device that graphs work in, which no other pool knows of."""
    return sum(room.sizes.get(device, 0) for room in list(_rooms))
