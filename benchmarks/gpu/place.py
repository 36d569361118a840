"""Where a benchmark runs, and the clock that belongs to it.

``cuda`` is the GPU. ``stand-in`` is for tests without one: tensorgrad computes on the strict stand-in for CuPy, PyTorch
on the CPU. The sizes are toys there and the times mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

__all__ = ["PLACES", "EventClock", "HostClock", "enter", "made_on", "why_not"]

PLACES = ("cuda", "stand-in")


def why_not() -> str | None:
    """Why tensorgrad can't run on a GPU here; None if it can."""
    from tensorgrad.backends import registry

    return registry.class_of("cupy").why_not()


def enter(ns: Any, place: str) -> str:
    """Plug the place in for as long as the process lives; the type of device that tensors of ``ns`` are to be on."""
    if place == "cuda":
        return "cuda"
    if ns.__name__ == "torch":
        return "cpu"
    from tensorgrad.testing.strict_backend import strict_cuda

    _entered.append(strict_cuda())
    _entered[-1].__enter__()
    return "cuda"


@contextmanager
def made_on(ns: Any, device: str) -> Iterator[None]:
    """Tensors that are made within the block are on the device. PyTorch's default device is a mode that every call goes
    through, at a cost that is none of a step's, so it ends before steps are timed."""
    ns.set_default_device(device)
    try:
        yield
    finally:
        ns.set_default_device(None)


_entered: list[Any] = []  # a block left would end the stand-in


class EventClock:
    """Time on the device: events between pieces of work, read after the last one."""

    def __init__(self, ns: Any) -> None:
        self.ns = ns
        self.events: list[Any] = []

    def mark(self) -> None:
        event = self.ns.cuda.Event(enable_timing=True)
        event.record()
        self.events.append(event)

    def seconds(self) -> list[float]:
        """Between each mark and the next; the clock starts anew."""
        self.ns.cuda.synchronize()
        events, self.events = self.events, []
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]


class HostClock:
    """The same on the CPU."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def mark(self) -> None:
        self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        marks, self.marks = self.marks, []
        return [b - a for a, b in pairwise(marks)]
