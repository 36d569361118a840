"""What the kernels of ``reduce.cu`` compute, on NumPy arrays: parts of sets, and parts merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["reduction"]


def reduction(name: str) -> Callable[..., None]:
    """The reference of the kernel ``kind_walk_elements``."""
    kind, walk, elements = name.split("_")

    def reference(*arguments: Any) -> None:
        numbers, (mode, number, centers, x, states, to, places) = arguments[:7], arguments[7:]
        outer, chunk, parts = (numbers[0], *(numbers[4:6] if walk == "rows" else numbers[3:5]))
        inner = 1 if walk == "rows" else numbers[2]
        if walk == "rows" and chunk == 0:
            slots = states.view(_slot(kind, elements)).reshape(outer, parts, numbers[2]).transpose(0, 2, 1)
            state = _merged(kind, mode, slots.reshape(outer * numbers[2], parts))
        else:
            if walk == "rows":
                sets = x.reshape(numbers[:4]).transpose(0, 2, 1, 3).reshape(outer * numbers[2], -1)
                outer *= numbers[2]
            else:
                sets = x.reshape(numbers[:3]).transpose(0, 2, 1).reshape(outer * inner, -1)
            made = np.empty((len(sets), parts), _slot(kind, elements))
            for part in range(parts):
                begin = part * chunk
                made[:, part] = _state(kind, mode, elements, sets[:, begin : begin + chunk], centers, begin)
            if parts > 1:
                slots = states.view(_slot(kind, elements)).reshape(outer, parts, inner)
                slots[...] = made.reshape(outer, inner, parts).transpose(0, 2, 1)
                return
            state = made[:, 0]
        to.reshape(-1)[...] = _written(kind, mode, float(number), state["value"])
        if kind == "place":
            places.reshape(-1)[...] = state["at"]

    return reference


def _slot(kind: str, elements: str) -> Any:
    """16 bytes of memory for a state: a value, and a place where two fit."""
    if elements.startswith("complex") and kind != "squares":
        return np.dtype([("value", np.complex128)])
    return np.dtype([("value", np.int64 if elements in ("integer", "truth") else np.float64), ("at", np.int64)])


def _state(kind: str, mode: int, elements: str, sets: Any, centers: Any, begin: int) -> Any:
    """The states of these (sets, elements)."""
    made = np.empty(len(sets), _slot(kind, elements))
    if kind == "count":
        x = (sets != 0).astype(np.int64)
    elif elements.startswith("sizes"):
        x = np.abs(sets).astype(np.float64)
    else:
        x = sets.astype(np.complex128 if sets.dtype.kind == "c" else made.dtype["value"])
    if kind == "squares":
        away = x if isinstance(centers, (int, np.integer)) else x - centers.reshape(-1, 1).astype(x.dtype)
        x = np.abs(away) if mode & 2 else away.real**2 + away.imag**2
    elif kind == "extreme" and mode & 2:
        x = np.abs(x)
    if kind == "place":
        at = x.argmin(axis=1) if mode & 1 else x.argmax(axis=1)
        made["value"] = np.take_along_axis(x, at[:, None], axis=1)[:, 0]
        made["at"] = at + begin
    else:
        made["value"] = _combined(kind, mode, x)
    return made


def _combined(kind: str, mode: int, x: Any) -> Any:
    """One value for each row, of elements or of the values of parts."""
    if kind == "product":
        return x.prod(axis=1)
    if kind == "extreme":
        return x.min(axis=1) if mode & 1 else x.max(axis=1)
    if kind == "logsumexp":
        top = x.max(axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0)
        return np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]
    return x.sum(axis=1)


def _merged(kind: str, mode: int, states: Any) -> Any:
    """The states of sets from those of their parts."""
    made = np.empty(len(states), states.dtype)
    value = states["value"]
    if kind == "place":
        part = (value.argmin(axis=1) if mode & 1 else value.argmax(axis=1))[:, None]
        made["value"] = np.take_along_axis(value, part, axis=1)[:, 0]
        made["at"] = np.take_along_axis(states["at"], part, axis=1)[:, 0]
    else:
        made["value"] = _combined(kind, mode, value)
    return made


def _written(kind: str, mode: int, number: float, value: Any) -> Any:
    if kind == "count":
        return value > 0 if mode & 1 else value == number if mode & 2 else value
    if kind not in ("sum", "squares") or value.dtype.kind == "i":
        return value
    share = value / number
    return np.sqrt(share) if kind == "squares" and mode & 1 else share
