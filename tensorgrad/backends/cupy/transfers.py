"""Copies between host and devices, what has to stay alive until they are done, and memory of other libraries.

A copy from or to page-locked memory runs on the current stream while the host goes on, if that is permitted; the memory
is held until an event behind the copy has happened. Whoever changes the source before that changes what is copied, and
whoever reads the target before that reads what was there, as in PyTorch. Other host memory is copied through a buffer
of CuPy's, and may be changed at once.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ...errors import ShapeError

__all__ = ["CupyTransfers", "Held"]


class Held:
    """Memory that streams still work with: (an event behind the work, what is to live until it has happened).

    What is let go may be an array that another stream was recorded for: its end comes back here, to hold its memory.
    And a collection of garbage may come back at any time. So there is no lock, and an entry is out of the row while it
    is looked at.
    """

    def __init__(self) -> None:
        self.waiting: deque[tuple[Any, Any]] = deque()
        self.recorded: set[tuple[int, int]] = set()  # arrays and streams of ``record_stream``, by identity and address

    def __len__(self) -> int:
        return len(self.waiting)

    def until(self, event: Any, *memory: Any) -> None:
        """Hold ``memory`` until the event; what was held for events that have happened is let go."""
        self.release()
        self.waiting.append((event, memory))

    def release(self) -> None:
        """Let go of what nobody works with any more. Waits for nothing."""
        for _ in range(len(self.waiting)):
            try:
                entry = self.waiting.popleft()
            except IndexError:  # others look at the rest
                return
            done = False
            try:
                done = entry[0].done
            finally:
                if not done:
                    self.waiting.append(entry)


class CupyTransfers:
    xp: Any
    settle: Callable[[], None]
    _held: Held

    def on(self, index: int | None) -> AbstractContextManager[Any]:
        return nullcontext() if index is None else self.xp.cuda.Device(index)

    def from_host(self, array: np.ndarray[Any, Any], index: int | None = None) -> Any:
        with self.on(index):
            # CuPy does not wait for copies out of page-locked memory, which the caller may change at once
            return self.xp.asarray(array, blocking=True) if self.is_pinned(array) else self.xp.asarray(array)

    def from_host_async(self, array: np.ndarray[Any, Any], index: int | None = None) -> Any:
        if not (self.is_pinned(array) and array.flags.c_contiguous):
            return self.from_host(array, index)
        xp = self.xp
        with self.on(index):
            made = xp.empty(array.shape, dtype=array.dtype)
            if array.size:
                stream = xp.cuda.get_current_stream()
                made.set(array, stream)
                self._held.until(self._event_on(stream), array)
            return made

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = self.xp.asnumpy(array)
        self.settle()
        return host

    def to_host_async(self, array: Any, out: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        if out is None:
            out = self._page_locked(array.shape, array.dtype)
        if not array.size:
            return out
        direct = self.is_pinned(out) and out.flags.c_contiguous and out.shape == array.shape
        if not (direct and out.dtype == array.dtype):
            out[...] = self.to_host(array)
            return out
        with self.on(array.device.id):
            stream = self.xp.cuda.get_current_stream()
            dense = self.xp.ascontiguousarray(array).reshape(array.shape)
            dense.get(stream=stream, out=out, blocking=False)
            self._held.until(self._event_on(stream), dense, out)
        return out

    def to_device(self, array: Any, index: int | None) -> Any:
        """A copy on another device, ordered behind what this thread's current streams of both have been given."""
        xp = self.xp
        target = xp.cuda.Device().id if index is None else index
        source = array.device.id
        with self.on(source):
            dense = xp.ascontiguousarray(array).reshape(array.shape)
            behind = xp.cuda.get_current_stream()
            ready = self._event_on(behind)
        with self.on(target):
            stream = xp.cuda.get_current_stream()
            stream.wait_event(ready)
            made = xp.empty(dense.shape, dtype=dense.dtype)
            made.data.copy_from_device_async(dense.data, dense.nbytes, stream)
            done = self._event_on(stream)
        with self.on(source):
            behind.wait_event(done)  # the source may be changed, or its memory given to others, but not before
        return made

    def _event_on(self, stream: Any) -> Any:
        """An event behind what a stream of the current device has been given so far."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    # ---- memory of other libraries

    def from_dlpack(self, source: Any) -> Any:
        return _readable(source if type(source) is self.xp.ndarray else self.xp.from_dlpack(source))

    def to_dlpack(self, array: Any, *, stream: Any, **options: Any) -> Any:
        with self.on(array.device.id):  # CuPy lets the consumer wait for the current stream of the current device
            return array.__dlpack__(stream=stream, **options)

    def from_cuda_array(self, source: Any) -> Any:
        pointer = source.__cuda_array_interface__["data"][0]
        # on another device than the current one CuPy would make a copy
        with self.on(self.xp.cuda.runtime.pointerGetAttributes(pointer).device if pointer else None):
            return _readable(self.xp.asarray(source))

    # ---- page-locked memory

    def _page_locked(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        memory = self.xp.cuda.alloc_pinned_memory(max(size, 1))
        return np.ndarray(shape, dtype, buffer=memory)

    def pinned(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        out = self._page_locked(array.shape, array.dtype)
        out[...] = array
        return out

    def is_pinned(self, array: Any) -> bool:
        while isinstance(array, np.ndarray):
            if isinstance(array, self.xp.cuda.PinnedMemoryPointer):  # the stand-in's is an array itself
                return True
            array = array.base
        if isinstance(array, memoryview):
            array = array.obj
        return isinstance(array, self.xp.cuda.PinnedMemoryPointer)

    # ---- memory that several streams use

    def record_stream(self, array: Any, stream: Any) -> None:
        """When the array's memory is given back, keep it from others until ``stream`` has done what it has by then.

        CuPy's pool gives it to later work of the stream that it was allocated on, which knows nothing of this one.
        """
        whole = array if array.base is None else array.base
        key = id(whole), int(stream.ptr)
        if key not in self._held.recorded:
            self._held.recorded.add(key)
            weakref.finalize(whole, self._give_back_behind, key, stream, whole.data, whole.device.id).atexit = False

    def _give_back_behind(self, key: tuple[int, int], stream: Any, memory: Any, index: int) -> None:
        self._held.recorded.discard(key)
        with self.on(index):
            self._held.until(self._event_on(stream), memory)


def _readable(array: Any) -> Any:
    """``array``. Raises ShapeError where elements lie across multiples of their size: kernels read none like that."""
    item = array.itemsize
    steps = [step for size, step in zip(array.shape, array.strides, strict=True) if size > 1]
    if array.size and any(place % item for place in (array.data.ptr, *steps)):
        raise ShapeError(
            f"the elements of {array.dtype.name} that are given lie across multiples of their size, {item} bytes; copy "
            "them first."
        )
    return array
