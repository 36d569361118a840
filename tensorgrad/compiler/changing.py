"""``Changing``: the user's line after which something has changed, for words about it.

It asks after each line of the user's code, which takes long: a run is watched so only where it is about to be refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from ..autograd.node import describe_line

__all__ = ["Changing"]

_MOST = 2000  # lines after which is asked


class Changing:
    """A block to run code in. ``line``: in words, the line of a module for which ``is_users`` holds after which
    ``moved()`` has first said something; None if there is none.

    A debugger or the like that is set already goes on when the block ends, and sees nothing of it.
    """

    def __init__(self, moved: Callable[[], Any], is_users: Callable[[str | None], bool]):
        self.line: str | None = None
        self._moved = moved
        self._is_users = is_users
        self._asked = 0
        self._last: tuple[CodeType, int] | None = None
        self._before: Any = None

    def __enter__(self) -> Changing:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if self._is_users(frame.f_globals.get("__name__")) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self._asked == _MOST or self.line is not None:
            return None
        if self._last is not None:
            self._asked += 1
            if self._moved() is not None:
                self.line = describe_line(self._last)
        self._last = frame.f_code, frame.f_lasti
        return self._line
