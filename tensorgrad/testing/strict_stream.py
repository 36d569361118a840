"""Streams, memory pools and CUDA graphs of the stand-in, as strict as the real ones where a mistake would hide.

Work is done at once, except while the current stream is captured: then every kernel and every function of the namespace
is written down instead, over the addresses of its arrays, and ``Graph.launch`` runs it on what lies there by then.

- A graph keeps no memory alive. Launching one whose memory was freed raises AssertionError.
- Memory of a private pool is overwritten when it is freed, within a graph at that place of the graph, and is given out
  again soon: who reads it later sees NaN, or somebody else's numbers.
- What a stream refuses while it is captured raises: crossing to the host and back, waiting, CuPy's own cuBLAS.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = [
    "Event", "Graph", "Memory", "MemoryPointer", "MemoryPool", "Stream", "capturing", "current", "get_elapsed_time",
    "issue", "placed", "refuse", "room_at", "touch", "using_allocator",
]  # fmt: skip

_POISON = 0xFF  # of every byte: NaN, -1
_ROUND = 512


class _State(threading.local):
    stream: Any = None  # None: the null stream
    allocator: Any = None  # None: NumPy's memory


_state = _State()


def current() -> Stream:
    """This thread's current stream."""
    return _state.stream or Stream.null


def capturing() -> Graph | None:
    """The graph that the current stream is captured into."""
    stream = _state.stream
    return None if stream is None else stream.graph


def refuse(what: str) -> None:
    """Raise as CUDA does if the current stream is captured."""
    if capturing() is not None:
        raise RuntimeError(f"{what}: operation not permitted when stream is capturing")


# --- memory


class Memory:
    """Raw memory of the device."""

    def __init__(self, size: int):
        self.size = size
        self.room = np.full(max(size, 1) + _ROUND, _POISON, np.uint8)
        self.ptr = -(-self.room.ctypes.data // _ROUND) * _ROUND  # as aligned as cudaMalloc's

    def __del__(self) -> None:
        self.room[:] = _POISON


class MemoryPointer:
    """A place in memory, which lives as long as somebody has the place."""

    def __init__(self, mem: Any, offset: int):
        self.mem = mem
        self.ptr = mem.ptr + offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr + offset - self.mem.ptr)


class _Pooled:
    """A block of a pool; it goes back when nobody has it any more."""

    def __init__(self, pool: MemoryPool, key: tuple[int, int], pointer: MemoryPointer):
        self.pool = pool
        self.key = key
        self.pointer = pointer
        self.ptr = pointer.ptr
        self.size = key[1]

    def __del__(self) -> None:
        room, start = self.pointer.mem.room, self.ptr - self.pointer.mem.room.ctypes.data
        block = room[start : start + self.size]
        graph = capturing()
        if graph is None:
            block[:] = _POISON
        else:
            graph.nodes.append((_overwrite, (block,), {}))  # of the raw memory, which the graph's user has to keep
        self.pool.free.setdefault(self.key, []).append(self.pointer)


def _overwrite(block: Any) -> None:
    block[:] = _POISON


class MemoryPool:
    """Blocks by stream and size; a freed one is the next to be given out."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None):
        self.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self.free: dict[tuple[int, int], list[MemoryPointer]] = {}

    def malloc(self, size: int) -> MemoryPointer:
        key = current().ptr, max(1, -(-size // _ROUND)) * _ROUND
        found = self.free.get(key)
        pointer = found.pop() if found else self.allocator(key[1])
        return MemoryPointer(_Pooled(self, key, pointer), 0)


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    before, _state.allocator = _state.allocator, allocator
    try:
        yield
    finally:
        _state.allocator = before


def alloc(size: int) -> MemoryPointer:
    """Memory from the current allocator."""
    return MemoryPointer(Memory(size), 0) if _state.allocator is None else _state.allocator(size)


def placed(host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in memory of the current allocator, with the elements of a fresh one."""
    if _state.allocator is None or not host.size:
        return host
    pointer = _state.allocator(host.nbytes)
    holder: Any = (ctypes.c_char * host.nbytes).from_address(pointer.ptr)
    holder.mem = pointer.mem  # the block lives as long as arrays whose base this is
    dense = host.flags.c_contiguous or host.base is None  # NumPy's own results are dense in some order
    made: np.ndarray[Any, Any] = np.ndarray(host.shape, host.dtype, holder, 0, host.strides if dense else None)
    made[...] = host
    return made


def room_at(address: int, size: int) -> np.ndarray[Any, Any]:
    """Bytes of this process."""
    return np.frombuffer(memoryview((ctypes.c_char * size).from_address(address)), np.uint8)


def _owner(host: Any) -> Any:
    """Who owns the memory of an array: the raw memory of a pool, or the NumPy array at the end of its bases."""
    while isinstance(host, np.ndarray) and host.base is not None:
        host = host.base
    block = getattr(host, "mem", None)
    return block.pointer.mem if isinstance(block, _Pooled) else host if block is None else block


# --- graphs


class Graph:
    """What was done while a stream was captured."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self.memory: dict[int, Any] = {}  # weak references to the owners of all that is touched

    def touch(self, host: np.ndarray[Any, Any]) -> None:
        """The graph uses the memory of an array."""
        whole = _owner(host)
        if isinstance(whole, (np.ndarray, Memory)):
            self.memory.setdefault(id(whole), weakref.ref(whole))

    def by_address(self, what: Any) -> Any:
        """Arrays without a hold on their memory, in lists and tuples too."""
        if isinstance(what, np.ndarray):
            if not what.size:
                return what
            self.touch(what)
            steps = list(zip(what.shape, what.strides, strict=True))
            low = sum(min(0, step * (size - 1)) for size, step in steps)
            high = sum(max(0, step * (size - 1)) for size, step in steps) + what.itemsize
            room = room_at(what.ctypes.data + low, high - low)
            return np.ndarray(what.shape, what.dtype, room, -low, what.strides)
        if isinstance(what, (list, tuple)):
            return type(what)(map(self.by_address, what))
        return what

    def add(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        held = {name: self.by_address(value) for name, value in kwargs.items()}
        self.nodes.append((function, self.by_address(tuple(args)), held))

    def launch(self, stream: Any = None) -> None:
        refuse("launching a graph")
        if any(one() is None for one in self.memory.values()):
            raise AssertionError("the graph uses memory that was freed")
        with np.errstate(all="ignore"):
            for function, args, kwargs in self.nodes:
                function(*args, **kwargs)

    def upload(self, stream: Any = None) -> None:
        """Nothing is to be prepared."""


def touch(*hosts: np.ndarray[Any, Any]) -> None:
    """A graph that is being captured uses the memory of these arrays, by their addresses."""
    graph = capturing()
    if graph is not None:
        for host in hosts:
            graph.touch(host)


def _assign(target: Any, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    result = function(*args, **kwargs)
    for one, new in zip(target, result if isinstance(result, (tuple, list)) else (result,), strict=True):
        if one is not None:
            one[...] = new


def issue(function: Callable[..., Any], *args: Any, writes: bool = False, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` of NumPy arrays, as work of the current stream.

    ``writes``: it changes what it is given and returns nothing new. Otherwise its results are views of what it is
    given, or fresh arrays, which are placed in memory of the current allocator.
    """
    graph = capturing()
    if graph is not None and writes:
        graph.add(function, args, kwargs)
        return None
    with np.errstate(all="ignore"):
        result = function(*args, **kwargs)
    if writes:
        return result
    parts = result if isinstance(result, (tuple, list)) else (result,)
    given = list(_arrays(args)) + list(_arrays(tuple(kwargs.values())))
    made: list[Any] = []
    fresh: list[Any] = []
    for part in parts:
        part = np.asarray(part) if isinstance(part, np.generic) else part
        own = isinstance(part, np.ndarray) and not any(np.may_share_memory(part, x) for x in given)
        if own:
            part = placed(part if part.flags.writeable else part.copy())  # CuPy knows no read-only arrays
            if graph is not None:
                part[...] = np.frombuffer(bytes([_POISON]) * part.itemsize, part.dtype)[0]
        made.append(part)
        fresh.append(part if own else None)
    if graph is not None and any(x is not None for x in fresh):
        graph.add(_assign, (fresh, function, args, kwargs), {})
    return (
        type(result)(made) if type(result) in (tuple, list) else tuple(made) if isinstance(result, tuple) else made[0]
    )


def _arrays(what: Any) -> Iterator[np.ndarray[Any, Any]]:
    for part in what:
        if isinstance(part, np.ndarray):
            yield part
        elif isinstance(part, (list, tuple)):
            yield from _arrays(part)


# --- streams and events


class Event:
    """A place in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.timing = not disable_timing
        self.when: float | None = None

    def record(self, stream: Any = None) -> None:
        """Work is done at once, so all there is to mark is the time."""
        self.when = time.perf_counter()

    def synchronize(self) -> None:
        refuse("Event.synchronize()")


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    start, end = start_event.when, end_event.when
    if start is None or end is None or not (start_event.timing and end_event.timing):
        raise RuntimeError("cudaErrorInvalidResourceHandle: an event was not recorded, or has no timing")
    return (end - start) * 1e3


class Stream:
    """``xp.cuda.Stream``."""

    null: Any = None
    _count = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None):
        Stream._count += 1
        self.ptr = 0 if null else 0x1000 * Stream._count
        self.graph: Graph | None = None
        self._before: list[Any] = []

    def __enter__(self) -> Stream:
        self._before.append(_state.stream)
        _state.stream = self
        return self

    def __exit__(self, *error: object) -> None:
        _state.stream = self._before.pop()

    def use(self) -> Stream:
        _state.stream = self
        return self

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.graph is not None:
            raise RuntimeError("cudaErrorIllegalState: the stream is captured already")
        self.graph = Graph()

    def end_capture(self) -> Graph:
        graph, self.graph = self.graph, None
        if graph is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not captured")
        return graph

    def is_capturing(self) -> bool:
        return self.graph is not None

    def synchronize(self) -> None:
        refuse("Stream.synchronize()")

    def record(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_event(self, event: Event) -> None:
        """What it waits for is done."""


Stream.null = Stream(null=True)
