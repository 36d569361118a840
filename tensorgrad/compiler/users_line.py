"""Where the user's code is that has led to a call of this package."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

from ..autograd.node import describe_line, inside, user_line

__all__ = ["at_users_line", "is_users_call", "line_in"]


def line_in(code: CodeType) -> int | None:
    """The line at which the innermost call of a function is; None if it isn't called."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else frame.f_lineno


def at_users_line(depth: int) -> str:
    """The place of the user's code in an error's words, or nothing; ``depth`` as ``user_line`` has it in the caller."""
    line = user_line(depth + 1)
    return f" at {describe_line(line)}" if line else ""


def is_users_call(files: tuple[str, ...]) -> bool:
    """Whether a function of these files of this package was called from outside of the package."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and inside[frame.f_code.co_filename] and frame.f_code.co_filename.endswith(files):
        if frame.f_code.co_name == "__index__":
            return True  # a tensor that the user gave for a place
        frame = frame.f_back
    return frame is None or not inside[frame.f_code.co_filename]
