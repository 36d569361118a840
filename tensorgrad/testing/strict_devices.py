"""Devices of the stand-in: how many there are, how much memory each has, and which is a thread's current one.

CuPy launches on the current device whatever arrays a kernel is given, and a kernel that reads another device's memory
may read it over the bus, or crash. Here it raises AssertionError.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Machine", "StrictDevice", "equipped", "machine", "on_current_device", "properties", "state"]


class Machine:
    """What is plugged in: ``count`` devices, each with ``memory`` bytes; None is as much as the process can have."""

    def __init__(self, count: int = 1, memory: int | None = None):
        self.count = count
        self.memory = memory
        self.used = [0] * count  # raw bytes by device, of pools and others


class _State(threading.local):
    """A thread's current device, and its current streams and allocator there."""

    def __init__(self) -> None:
        self.device = 0
        self.devices: list[int] = []  # what ``with Device(i)`` goes back to
        self.streams: dict[int, Any] = {}  # by device; the null stream where there is none
        self.allocator: Any = None  # of ``using_allocator``


machine = Machine()
state = _State()


@contextmanager
def equipped(count: int, memory: int | None) -> Iterator[None]:
    """Within the block these devices are there."""
    before = dict(machine.__dict__)
    machine.__dict__.update(vars(Machine(count, memory)))
    try:
        yield
    finally:
        machine.__dict__.update(before)
        state.device = 0


class StrictDevice:
    """``array.device`` and ``xp.cuda.Device``; without a number the current one."""

    def __init__(self, device: Any = None):
        number = state.device if device is None else int(getattr(device, "id", device))
        if not 0 <= number < machine.count:
            raise RuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {number}")
        self.id = number

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> StrictDevice:
        state.devices.append(state.device)
        state.device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        state.device = state.devices.pop()

    def use(self) -> None:
        state.device = self.id

    def synchronize(self) -> None:
        from .strict_stream import refuse, streams_of

        refuse("Device.synchronize()")
        for stream in streams_of(self.id):
            stream.finish()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StrictDevice) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


def on_current_device(what: str, device: int) -> None:
    """Raise AssertionError for work on an array of another device than the current one."""
    if device != state.device:
        raise AssertionError(
            f"{what}: an array of device {device} while device {state.device} is the current one; the kernel would be "
            "launched there"
        )


def properties(device: int) -> dict[str, Any]:
    """``getDeviceProperties``: those that are asked for, of a card that does not exist."""
    StrictDevice(device)
    return {
        "name": b"strict stand-in", "major": 9, "minor": 0, "totalGlobalMem": machine.memory or 1 << 40,
        "multiProcessorCount": 4, "warpSize": 32, "maxThreadsPerMultiProcessor": 2048, "l2CacheSize": 1 << 20,
    }  # fmt: skip
