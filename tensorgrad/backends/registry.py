"""Which backends there are, and which computes where.

The package's own are listed here by name and import path; others are found through the entry point group
``tensorgrad.backends``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import threading
from functools import lru_cache
from typing import Any

from .. import config
from ..device import Device, as_device
from ..dispatch import local, set_everywhere, using
from ..errors import BackendError, DeviceError
from .base import Backend

__all__ = [
    "active", "backend", "backend_of", "default_backend", "device_of", "get", "get_backend", "names", "on_device",
    "set_backend", "status",
]  # fmt: skip

_OWN = {
    "cpp": "tensorgrad.backends.cpp.backend:CppBackend",
    "numpy": "tensorgrad.backends.numpy.backend:NumpyBackend",
    "cupy": "tensorgrad.backends.cupy.backend:CupyBackend",
    "null": "tensorgrad.backends.null.backend:NullBackend",
}
_loaded: dict[str, Backend] = {}
_classes: dict[str, type[Backend]] = {}
_lock = threading.RLock()


@lru_cache(maxsize=1)
def _from_entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="tensorgrad.backends")}


def names() -> list[str]:
    """The names of all backends, available or not."""
    return [*_OWN, *(name for name in _from_entry_points() if name not in _OWN), *_classes]


def register(cls: type[Backend]) -> type[Backend]:
    """Make a backend known for this process; also a decorator. Packages use the entry point group instead."""
    if cls.name in _OWN:
        raise BackendError(f"a backend named {cls.name!r} exists already.")
    _classes[cls.name] = cls
    return cls


def class_of(name: str) -> type[Backend]:
    """The class of a backend. Raises BackendError for an unknown name, listing the known ones."""
    if name in _classes:
        return _classes[name]
    path = _OWN.get(name)
    if path is None:
        point = _from_entry_points().get(name)
        if point is None:
            raise BackendError(f"unknown backend {name!r}; the backends are {', '.join(names())}.")
        return point.load()
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def get(name: str) -> Backend:
    """The backend of this name, loaded. Raises BackendError, with the reason, if it can't run here."""
    found = _loaded.get(name)
    if found is None:
        with _lock:
            found = _loaded.get(name)
            if found is None:
                cls = class_of(name)
                reason = cls.why_not()
                if reason is not None:
                    raise BackendError(f"backend {name!r} can't run here: {reason}")
                found = _loaded[name] = cls()
    return found


def is_loaded(device_type: str) -> bool:
    """Whether a backend of this device type is loaded."""
    return any(found.device_type == device_type for found in list(_loaded.values()))


def current_places() -> tuple[int, ...]:
    """The current device of each loaded backend that has several."""
    found = [backend.current_place() for backend in list(_loaded.values())]
    return tuple([place for place in found if place is not None])


def status() -> list[tuple[str, str, bool, str]]:
    """(name, device type, available, note) of every backend: why not, or what it runs on."""
    rows = []
    for name in names():
        try:
            cls = class_of(name)
            reason = None if name in _loaded else cls.why_not()
        except Exception as error:  # noqa: BLE001 - a third party's broken package must not break the report
            rows.append((name, "?", False, f"{type(error).__name__}: {error}"))
            continue
        if reason is None:
            rows.append((name, cls.device_type, True, get(name).describe()))
        else:
            rows.append((name, cls.device_type, False, reason))
    return rows


def default_backend(device_type: str = "cpu") -> Backend:
    """Who computes on a device type when nobody has chosen: for cpu by the settings, ``cpp`` where it loads."""
    if device_type == "cpu":
        chosen = config.get("backend")
        if chosen != "auto":
            found = get(chosen)
            if found.device_type == "cpu":
                return found
        return get("cpp") if class_of("cpp").why_not() is None else get("numpy")
    for name in names():
        cls = class_of(name)
        if cls.device_type == device_type:
            return get(name)
    raise DeviceError(f"no backend serves device {device_type!r}; try 'cpu'.")


def backend_of(array_type: type) -> Backend | None:
    """Who computes on arrays of this type by default; None if nobody does."""
    for candidate in list(_loaded.values()):
        if candidate.array_type is array_type and candidate.device_type != "cpu":
            return candidate
    cpu = default_backend()
    if issubclass(array_type, cpu.array_type):
        return cpu
    for candidate in list(_loaded.values()):
        if issubclass(array_type, candidate.array_type):
            return candidate
    return None


def active(array: Any) -> Backend:
    """Who computes on this array now, in this thread."""
    return local.plain.of(array).backend


def on_device(device: Any) -> Backend:
    """Who computes on a device now. Raises DeviceError if the device does not exist here."""
    place = as_device(device)
    for door in local.plain.values():
        if door.backend.device_type == place.type:
            found = door.backend
            break
    else:
        try:
            found = default_backend(place.type)
        except BackendError as error:
            raise DeviceError(f"device {str(place)!r} is not available: {error}") from None
        found = local.plain[found.array_type].backend
    if place.index is not None and place.index >= found.device_count():
        raise DeviceError(f"device {str(place)!r} does not exist; there are {found.device_count()}.")
    return found


def device_of(array: Any) -> Device:
    return active(array).device_of(array)


def set_backend(name: str) -> None:
    """Let ``name`` compute on its device from now on, in every thread that has not chosen otherwise.

    Raises BackendError for an unknown backend, or one that can't run here.
    """
    found = get(name)
    if found.device_type == "cpu":
        config.set("backend", name)  # its watcher tells every thread
    else:
        set_everywhere(found)


def get_backend(device: Any = "cpu") -> str:
    """The name of the backend that computes on ``device`` in this thread."""
    return on_device(device).name


def backend(name: str) -> Any:
    """``with tg.backend("numpy"):`` lets that backend compute within the block, in this thread."""
    return using(get(name))
