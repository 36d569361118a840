"""Streams and events of a CUDA device, as far as programs time and order their work with them."""

from __future__ import annotations

from typing import Any

from ..device import Device
from .devices import backend, index_of, place

__all__ = [
    "Event", "ExternalStream", "Stream", "StreamContext", "current_stream", "default_stream",
    "get_stream_from_external", "set_stream", "stream",
]  # fmt: skip


_FAR = 1 << 20  # a priority that no device has a queue for


class Stream:
    """A queue of work on a device; ``with cuda.stream(s):`` launches there. Raises DeviceError without a CUDA device.

    A tensor's memory belongs to the stream that it was made on: other streams ``wait_stream`` before they read it, and
    ``tensor.record_stream(s)`` keeps its memory from others until ``s`` is done with it.

    Args:
        device: whose queue; None for the current device's.
        priority: 0, or negative for work that should go first; a number that the device has no queue for counts as the
            nearest that it has.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _native: Any = None):
        self._index = index_of(device)
        self._native = backend().new_stream(self._index, priority) if _native is None else _native
        self._contexts: list[StreamContext] = []

    @property
    def device(self) -> Device:
        """Whose queue it is."""
        return place(self._index)

    @property
    def priority(self) -> int:
        """The priority that it works with."""
        return int(self._native.priority)

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """The least and the greatest priority of the current device's queues; the greatest is the lowest number."""
        index = index_of(None)
        ends = [backend().new_stream(index, priority) for priority in (_FAR, -_FAR)]
        return int(ends[0].priority), int(ends[1].priority)

    def synchronize(self) -> None:
        """Wait until everything launched here is done."""
        self._native.synchronize()
        backend().settle()

    def query(self) -> bool:
        """Whether everything launched here is done."""
        return bool(self._native.done)

    def wait_event(self, event: Event) -> None:
        """Later work here starts after the event; one that was never recorded is not waited for."""
        if event._native is not None:
            self._native.wait_event(event._native)

    def wait_stream(self, stream: Stream) -> None:
        """Later work here starts after what the other stream has been given so far."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """An event after what has been launched here so far."""
        event = Event() if event is None else event
        event.record(self)
        return event

    @property
    def cuda_stream(self) -> int:
        """The address of the native stream."""
        return int(self._native.ptr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.cuda_stream, self._index) == (other.cuda_stream, other._index)

    def __hash__(self) -> int:
        return hash((self.cuda_stream, self._index))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"

    def __enter__(self) -> Stream:
        context = StreamContext(self)
        context.__enter__()
        self._contexts.append(context)
        return self

    def __exit__(self, *error: Any) -> None:
        self._contexts.pop().__exit__(*error)


class ExternalStream(Stream):
    """A stream that another library made, by its address. It must exist for as long as it is used here."""

    def __init__(self, stream_ptr: int, device: Any = None):
        index = index_of(device)
        super().__init__(place(index), _native=backend().external_stream(stream_ptr, index))


def get_stream_from_external(data_ptr: int, device: Any = None) -> Stream:
    """The stream at an address that another library gave."""
    return ExternalStream(data_ptr, device)


class Event:
    """A point in a stream's work, to wait for or to measure from.

    Args:
        enable_timing: whether ``elapsed_time`` can be asked.
        blocking: whether a waiting thread sleeps rather than spins.
        interprocess: refused; memory is not shared between processes.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        if interprocess:
            raise ValueError("Event: interprocess events are not supported; leave interprocess=False.")
        self._timing, self._blocking = enable_timing, blocking
        self._native: Any = None

        self._index = -1

    def record(self, stream: Stream | None = None) -> None:
        """Put the event behind what the stream, by default the current one, has been given so far.

        Raises ValueError for a stream of another device than the one it was first recorded on.
        """
        stream = current_stream() if stream is None else stream
        if self._native is None:
            self._index = stream._index
            self._native = backend().new_event(self._index, timing=self._timing, blocking=self._blocking)
        if self._index != stream._index:
            raise ValueError(
                f"Event.record: the event belongs to {place(self._index)}, the stream to {stream.device}; use an event "
                "for each device."
            )
        with backend().on(self._index):
            self._native.record(stream._native)

    def wait(self, stream: Stream | None = None) -> None:
        """Later work of the stream starts after this event."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether the event has happened; True for one that was never recorded."""
        return self._native is None or bool(self._native.done)

    def synchronize(self) -> None:
        """Wait for the event; one that was never recorded is not waited for."""
        if self._native is not None:
            self._native.synchronize()
            backend().settle()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to a later one. Raises ValueError unless both were made with enable_timing and
        recorded, RuntimeError if one of them has not happened yet."""
        if not (self._timing and end_event._timing):
            raise ValueError("elapsed_time: both events must be made with enable_timing=True.")
        if self._native is None or end_event._native is None:
            raise ValueError("elapsed_time: both events must be recorded before calculating elapsed time.")
        return float(backend().elapsed_time(self._native, end_event._native))

    @property
    def device(self) -> Device | None:
        """The device that it was recorded on; None before."""
        return None if self._native is None else place(self._index)


def current_stream(device: Any = None) -> Stream:
    """Where work of this thread goes. Raises DeviceError without a CUDA device."""
    index = index_of(device)
    return Stream(place(index), _native=backend().current_stream(index))


def default_stream(device: Any = None) -> Stream:
    """The device's own stream."""
    index = index_of(device)
    return Stream(place(index), _native=backend().default_stream(index))


def set_stream(stream: Stream) -> None:
    """Let work of this thread go to ``stream``, and to its device, from here on; None changes nothing."""
    if stream is not None:
        backend().set_device(stream._index)
        stream._native.use()


class StreamContext:
    """``with cuda.stream(s):`` launches work of the block on ``s``, and on its device; None changes nothing."""

    def __init__(self, stream: Stream | None):
        self.stream = stream
        self._device: Any = None

    def __enter__(self) -> None:
        if self.stream is not None:
            self._device = backend().on(self.stream._index)
            self._device.__enter__()
            self.stream._native.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.stream is not None:
            self.stream._native.__exit__(*error)
            self._device.__exit__(*error)


def stream(stream: Stream | None) -> StreamContext:
    """``with cuda.stream(s):`` launches work of the block on ``s``, and on its device; None changes nothing."""
    return StreamContext(stream)
