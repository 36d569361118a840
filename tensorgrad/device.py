"""Where a tensor lives: ``cpu``, ``cuda:0``. Who computes there is the backend's business."""

from __future__ import annotations

from typing import Any

from .errors import DeviceError

__all__ = ["Device", "as_device"]


class Device:
    """A place for tensors, e.g. ``Device("cuda:1")`` or ``Device("cuda", 1)``.

    Raises DeviceError for a malformed name; whether the device exists is found out when it is used.
    """

    __slots__ = ("index", "type")

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


def as_device(given: Any) -> Device:
    return given if isinstance(given, Device) else Device(given)
