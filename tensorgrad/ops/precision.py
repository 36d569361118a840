"""Functions that autocast runs in float32 though they are no single record."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_float32", "widen"]

F = TypeVar("F", bound=Callable[..., Any])

widen: list[Callable[[Any], Any]] = []
"""Casts an argument while autocast is on; put here when that is first enabled."""


def in_float32(function: F) -> F:
    """``function``, whose half-precision arguments autocast casts to float32."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for cast in widen:
            args = tuple(map(cast, args))
            kwargs = {name: cast(value) for name, value in kwargs.items()}
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
