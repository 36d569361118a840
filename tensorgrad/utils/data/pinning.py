"""Batches in page-locked memory: from there copies to a device run while the program goes on."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...backends import registry
from ...device import as_device
from ...tensor import Tensor, wrap
from .collate import _like_mapping, _like_sequence

__all__ = ["PinnedAhead", "pin_memory", "pinner"]

_AHEAD = 2
"""Batches that the thread pins before anybody asks for them."""


def pin_memory(data: Any, pin: Callable[[Any], Any]) -> Any:
    """The batch with ``pin(array)`` for the array of each tensor within it; also what has a method ``pin_memory``."""
    if isinstance(data, Tensor):
        return wrap(pin(data._data))
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, (str, bytes)):
        return data
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: pin_memory(value, pin) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(pin_memory(value, pin) for value in data))
    if isinstance(data, tuple):
        return [pin_memory(value, pin) for value in data]
    if isinstance(data, Sequence):
        return _like_sequence(data, [pin_memory(value, pin) for value in data])
    return data


def pinner(wanted: bool, device: str) -> Callable[[Any], Any] | None:
    """What pins an array for ``device``, by default the current CUDA device; None, with a warning, if there is none.

    Raises DeviceError for a device that does not exist beside others that do.
    """
    if not wanted:
        return None
    from ... import cuda

    if not cuda.is_available():
        warnings.warn(
            "'pin_memory' argument is set as true but no accelerator is found, "
            "then device pinned memory won't be used.",
            stacklevel=4,
        )
        return None
    place = as_device(device or "cuda")
    found = registry.on_device(place)
    index = cuda.current_device() if place.index is None else place.index

    def pin(array: Any) -> Any:
        with found.on(index):  # in a thread of its own there is another current device
            return found.pinned(array)

    return pin


class PinnedAhead(Iterator[Any]):
    """The batches of an iterator, pinned by a thread that reads ahead. An exception is raised where its batch would
    have come; ``close`` ends the thread."""

    def __init__(self, batches: Iterator[Any], pin: Callable[[Any], Any]):
        self.ready: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
        self.stop = threading.Event()
        self.over = False
        self.thread = threading.Thread(
            target=_pin_all, args=(batches, pin, self.ready, self.stop), name="tensorgrad pins batches", daemon=True
        )
        self.thread.start()

    def __next__(self) -> Any:
        if self.over:
            raise StopIteration
        kind, value = self.ready.get()
        if kind == "batch":
            return value
        self.over = True
        self.thread.join()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """End the thread, at the latest when the batch that it waits for has come or failed."""
        self.stop.set()
        if self.thread is not threading.current_thread():  # which may be the one that collects garbage
            self.thread.join()


def _pin_all(batches: Iterator[Any], pin: Callable[[Any], Any], ready: Any, stop: threading.Event) -> None:
    def put(kind: str, value: Any = None) -> None:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    try:
        while not stop.is_set():
            for batch in batches:
                put("batch", pin_memory(batch, pin))
                break
            else:
                put("end")
                return
    except BaseException as error:  # noqa: BLE001 - raised again where the batches are asked for
        put("error", error)
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()  # a generator ends its workers
