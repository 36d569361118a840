"""Whether operations are recorded: thread-local switches, usable as context managers and as decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from ..core import GradState

__all__ = [
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]

F = TypeVar("F", bound=Callable[..., Any])


state = GradState()
"""This thread's switches."""


class _Switch:
    """Sets ``(recording, inference)`` for a block, or for each call of a decorated function."""

    _target: tuple[bool, bool]

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> Any:
        self._before.append((state.recording, state.inference))
        state.recording, state.inference = self._target
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state.recording, state.inference = self._before.pop()

    def _fresh(self) -> _Switch:
        return type(self)()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function)

        @functools.wraps(function)
        def with_switch(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return with_switch  # type: ignore[return-value]

    def _wrap_generator(self, function: Any) -> Any:
        @functools.wraps(function)
        def with_switch(*args: Any, **kwargs: Any) -> Iterator[Any]:
            # the switch holds while the generator runs, not while its caller does
            generator = function(*args, **kwargs)
            reply: Any = None
            while True:
                with self._fresh():
                    try:
                        item = generator.send(reply)
                    except StopIteration as stop:
                        return stop.value
                reply = yield item

        return with_switch


class _Decorating(_Switch):
    """A switch without arguments, so that ``@no_grad`` works as ``@no_grad()`` does."""

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        _Switch.__init__(made)
        return made(function)

    def __init__(self, function: Any = None) -> None:
        super().__init__()


class no_grad(_Decorating):
    """Nothing inside is recorded; results do not require grad.

    Example:
        >>> import tensorgrad as tg
        >>> x = tg.ones(2, requires_grad=True)
        >>> with tg.no_grad():
        ...     (x * 2).requires_grad
        False
    """

    _target = (False, False)

    def __enter__(self) -> Any:
        self._before.append((state.recording, state.inference))
        state.recording = False
        return self


class enable_grad(_Decorating):
    """Records inside, also within ``no_grad``; not within ``inference_mode``, whose tensors have no history."""

    def __enter__(self) -> Any:
        self._before.append((state.recording, state.inference))
        state.recording = not state.inference
        return self


class set_grad_enabled(_Switch):
    """Sets recording to ``mode`` at once; as a context manager, restores it afterwards."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._before.append((state.recording, state.inference))
        state.recording = self.mode and not state.inference

    def __enter__(self) -> Any:
        if not self._before:
            self._before.append((state.recording, state.inference))
            state.recording = self.mode and not state.inference
        return self

    def __call__(self, function: F) -> F:
        state.recording, state.inference = self._before.pop()
        return super().__call__(function)

    def _fresh(self) -> _Switch:
        return type(self)(self.mode)


class inference_mode(_Switch):
    """``no_grad`` whose tensors also can't be used in recorded operations later: they keep no version."""

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):  # used as a bare decorator
            return cls()(mode)
        return super().__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.mode = bool(mode)

    def __enter__(self) -> Any:
        self._before.append((state.recording, state.inference))
        state.recording, state.inference = not self.mode, self.mode
        return self

    def _fresh(self) -> _Switch:
        return type(self)(self.mode)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return state.recording


def is_inference_mode_enabled() -> bool:
    """Whether this thread is in inference mode."""
    return state.inference
