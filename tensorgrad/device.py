"""Where a tensor lives: ``cpu``, ``cuda:0``. Who computes there is the backend's business."""

from __future__ import annotations

import threading
from typing import Any

from .errors import DeviceError

__all__ = ["CPU", "Device", "as_device", "chosen", "get_default_device", "set_default_device", "where"]


class Device:
    """A place for tensors, e.g. ``Device("cuda:1")`` or ``Device("cuda", 1)``.

    Raises DeviceError for a malformed name; whether the device exists is found out when it is used. ``with
    device("cuda"):`` makes it the device of tensors made in the block, in this thread.
    """

    __slots__ = ("_before", "index", "type")

    type: str
    index: int | None

    def __init__(self, name: Any, index: int | None = None):
        if isinstance(name, Device):
            self.type, self.index = name.type, name.index
            return
        if isinstance(name, int):
            name, index = "cuda", name
        kind, colon, number = str(name).partition(":")
        if colon:
            if not number.isdigit() or index is not None:
                raise DeviceError(f"device {name!r}: expected a form like 'cpu', 'cuda' or 'cuda:0'.")
            index = int(number)
        if not kind:
            raise DeviceError(f"device {name!r}: expected a form like 'cpu', 'cuda' or 'cuda:0'.")
        self.type, self.index = kind, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Device, (str(self),))

    def __enter__(self) -> Device:
        # one object can be entered twice: what was before is kept as a stack
        self._before = [*getattr(self, "_before", ()), _default.place]
        _default.place = _met.setdefault(self, self)
        return self

    def __exit__(self, *error: Any) -> None:
        _default.place = self._before.pop()


class _Default(threading.local):
    place: Device | None = None


_default = _Default()
_met: dict[Device, Device] = {}  # default devices, an object each: compiled functions ask whether it is still the same
CPU = Device("cpu")


def where(given: Any) -> Device:
    """The device meant by an argument ``device=``: None is the default device."""
    if given is None:
        return _default.place or CPU
    return given if isinstance(given, Device) else Device(given)


def set_default_device(device: Any) -> None:
    """Make tensors on ``device`` where none is named, in this thread; None goes back to the CPU.

    Raises DeviceError for a malformed name; whether the device exists is found out when it is used.
    """
    found = None if device is None else as_device(device)
    _default.place = None if found is None else _met.setdefault(found, found)


def get_default_device() -> Device:
    """Where tensors are made when no device is named."""
    return _default.place or CPU


def chosen(given: Any) -> Device | None:
    """The device meant by an argument ``device=`` for what lies somewhere already: None leaves it there, unless a
    default device was set."""
    return _default.place if given is None else as_device(given)


def as_device(given: Any) -> Device:
    return given if isinstance(given, Device) else Device(given)
