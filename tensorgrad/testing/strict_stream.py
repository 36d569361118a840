"""Streams and CUDA graphs of the stand-in, as strict as the real ones where a mistake would hide.

Work is done at once, except while the current stream is captured: then every kernel and every function of the namespace
is written down instead, over the addresses of its arrays, and ``Graph.launch`` runs it on what lies there by then.

- A graph keeps no memory alive. Launching one whose memory was freed raises AssertionError.
- Memory of a private pool is overwritten when it is freed, within a graph at that place of the graph, and is given out
  again soon: who reads it later sees NaN, or somebody else's numbers.
- What a stream refuses while it is captured raises: crossing to the host and back, waiting, CuPy's own cuBLAS.
- Asynchronous copies between the device and page-locked memory are done as late as may be: when their stream, or one
  that waits for it, gets work or is waited for. Who does not wait reads what was there before. They hold no memory.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .strict_devices import state
from .strict_memory import POISON, Memory, MemoryPool, chosen, is_pinned, owner, placed, room_at, using_allocator

__all__ = [
    "Event", "ExternalStream", "Graph", "MemoryPool", "Stream", "capturing", "current", "get_elapsed_time", "issue",
    "later", "refuse", "streams_of", "touch", "using_allocator",
]  # fmt: skip


def current(device: int | None = None) -> Stream:
    """This thread's current stream of a device, by default of the current one."""
    return state.streams.get(state.device if device is None else device) or Stream.null


def capturing() -> Graph | None:
    """The graph that the current stream is captured into."""
    stream = state.streams.get(state.device)
    return None if stream is None else stream.graph


def refuse(what: str) -> None:
    """Raise as CUDA does if the current stream is captured."""
    if capturing() is not None:
        raise RuntimeError(f"{what}: operation not permitted when stream is capturing")


# --- graphs


class Graph:
    """What was done while a stream was captured."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self.memory: dict[int, Any] = {}  # weak references to the owners of all that is touched

    def touch(self, host: np.ndarray[Any, Any]) -> None:
        """The graph uses the memory of an array."""
        whole = owner(host)
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
    if graph is None:
        current().finish()
    with np.errstate(all="ignore"):
        result = function(*args, **kwargs)
    if writes:
        return result
    if graph is None and type(result) is np.ndarray and result.flags.writeable and chosen() is None:
        return result  # the most frequent case: it may stay where NumPy has put it
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
                part[...] = np.frombuffer(bytes([POISON]) * part.itemsize, part.dtype)[0]
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


class _Work:
    """A copy that a stream has still to do, or another stream's that it has to wait for."""

    def __init__(self, do: Callable[[], Any]):
        self.do: Callable[[], Any] | None = do

    def finish(self) -> None:
        do, self.do = self.do, None
        if do is not None:
            do()


def later(stream: Any, function: Callable[..., Any], *hosts: np.ndarray[Any, Any]) -> None:
    """Call a function of arrays when the stream cannot put it off any more. Page-locked memory is not kept alive."""
    places = [
        (x.shape, x.dtype, x.__array_interface__["data"][0], x.nbytes) if is_pinned(x) else x for x in hosts if x.size
    ]

    def do() -> None:
        found = (x if isinstance(x, np.ndarray) else np.ndarray(x[0], x[1], room_at(*x[2:])) for x in places)
        function(*found)

    if places:
        stream.behind.append(_Work(do))


class Event:
    """A place in a stream of the device that was current when the event was made."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.timing = not disable_timing
        self.device = state.device
        self.before: list[_Work] = []  # what has to be done before it happens
        self.at: float | None = None

    @property
    def done(self) -> bool:
        return all(work.do is None for work in self.before)

    def record(self, stream: Any = None) -> None:
        stream = current() if stream is None else stream
        if stream.device_id not in (-1, self.device) or (stream.device_id == -1 and state.device != self.device):
            raise RuntimeError("cudaErrorInvalidResourceHandle: the event and the stream are of different devices")
        self.before = list(stream.behind)
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        refuse("Event.synchronize()")
        self.finish()

    def finish(self) -> None:
        for work in self.before:
            work.finish()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """``xp.cuda.get_elapsed_time``."""
    if start_event.at is None or end_event.at is None or not (start_event.timing and end_event.timing):
        raise RuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    if not end_event.done:
        raise RuntimeError("cudaErrorNotReady: device not ready")
    return 1e3 * (end_event.at - start_event.at)


_streams: weakref.WeakSet[Any] = weakref.WeakSet()


def streams_of(device: int) -> list[Any]:
    """The streams of a device, the null stream among them."""
    return [stream for stream in _streams if stream.device_id in (-1, device)]


_PRIORITIES = (0, -5)  # the least and the greatest; negative ones go first


class Stream:
    """``xp.cuda.Stream``."""

    null: Any = None
    _count = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None):
        Stream._count += 1
        self.ptr = 0 if null else 0x1000 * Stream._count
        self.device_id = -1 if null else state.device
        least, greatest = _PRIORITIES
        self.priority = min(max(priority or 0, greatest), least)  # as CUDA does
        self._start()

    def _start(self) -> None:
        self.graph: Graph | None = None
        self.behind: list[_Work] = []  # what it has still to do
        self._before: list[tuple[int, Any]] = []
        _streams.add(self)

    def _here(self) -> None:
        if self.device_id not in (-1, state.device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device "
                f"({state.device})"
            )

    def __enter__(self) -> Stream:
        self._here()
        self._before.append((state.device, state.streams.get(state.device)))
        state.streams[state.device] = self
        return self

    def __exit__(self, *error: object) -> None:
        device, before = self._before.pop()
        state.streams[device] = before

    def use(self) -> Stream:
        self._here()
        state.streams[state.device] = self
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

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

    @property
    def done(self) -> bool:
        return all(work.do is None for work in self.behind)

    def finish(self) -> None:
        """Do what was put off."""
        behind, self.behind = self.behind, []
        for work in behind:
            work.finish()

    def synchronize(self) -> None:
        refuse("Stream.synchronize()")
        self.finish()

    def record(self, event: Event | None = None) -> Event:
        found = event or Event()
        found.record(self)
        return found

    def wait_event(self, event: Event) -> None:
        if not event.done:
            self.behind.append(_Work(event.finish))


class ExternalStream(Stream):
    """``xp.cuda.ExternalStream``: a stream that somebody else has made."""

    def __init__(self, ptr: int, device_id: int = -1):
        self.ptr = ptr
        self.device_id = device_id
        self.priority = 0
        self._start()


Stream.null = Stream(null=True)
