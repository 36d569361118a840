"""Streams and events of a CUDA device, as far as programs time and order their work with them."""

from __future__ import annotations

from typing import Any

from .devices import backend, index_of

__all__ = ["Event", "Stream", "current_stream", "default_stream", "set_stream", "stream"]


class Stream:
    """A queue of work on a device; ``with cuda.stream(s):`` launches there. Raises DeviceError without a CUDA device.

    Args:
        device: whose queue; None for the current device's.
        priority: 0, or negative for work that should go first.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _native: Any = None):
        self._index = index_of(device)
        self._native = backend().new_stream(self._index, priority) if _native is None else _native

    def synchronize(self) -> None:
        """Wait until everything launched here is done."""
        self._native.synchronize()

    def query(self) -> bool:
        """Whether everything launched here is done."""
        return bool(self._native.done)

    def wait_event(self, event: Event) -> None:
        """Later work here starts after the event."""
        self._native.wait_event(event._made())

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
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __enter__(self) -> Stream:
        self._native.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._native.__exit__(*error)


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

    def _made(self) -> Any:
        if self._native is None:
            self._native = backend().new_event(timing=self._timing, blocking=self._blocking)
        return self._native

    def record(self, stream: Stream | None = None) -> None:
        """Put the event behind what the stream, by default the current one, has been given so far."""
        self._made().record((current_stream() if stream is None else stream)._native)

    def wait(self, stream: Stream | None = None) -> None:
        """Later work of the stream starts after this event."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether the event has happened."""
        return bool(self._made().done)

    def synchronize(self) -> None:
        """Wait for the event."""
        self._made().synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to a later one. Raises ValueError unless both were made with enable_timing."""
        if not (self._timing and end_event._timing):
            raise ValueError("elapsed_time: both events must be made with enable_timing=True.")
        return float(backend().elapsed_time(self._made(), end_event._made()))


def current_stream(device: Any = None) -> Stream:
    """Where work of this thread goes. Raises DeviceError without a CUDA device."""
    return Stream(device, _native=backend().current_stream(index_of(device)))


def default_stream(device: Any = None) -> Stream:
    """The device's own stream."""
    return Stream(device, _native=backend().default_stream(index_of(device)))


def set_stream(stream: Stream) -> None:
    """Let work of this thread go to ``stream`` from here on."""
    stream._native.use()


class stream:
    """``with cuda.stream(s):`` launches work of the block on ``s``; None changes nothing."""

    def __init__(self, stream: Stream | None):
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self.stream.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.stream is not None:
            self.stream.__exit__(*error)
