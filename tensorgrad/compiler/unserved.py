"""What is said aloud, at the user's line, where a compiled function goes on to be of no use."""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import TYPE_CHECKING

from ..autograd.node import inside

if TYPE_CHECKING:
    from .compiled import Compiled

__all__ = ["tell_of_captures", "tell_of_eager"]

_COUNTS = (
    "What stays of one shape, such as where(), masked_fill() or a weighted sum, needs no number; or give "
    "compile(..., fallback=True): what reads it is Python's then."
)
_FORMS = "A number that changes is a tg.scalar or a tensor; for batches of many sizes there is dynamic=True."


def tell_of_captures(compiled: Compiled) -> None:
    """Every call so far has written a program, and none was served by one."""
    why = compiled.entries[0].reach.changed()
    advice = (
        "Keep what changes out of the function's reach (its closure, its globals, the attributes of what is there), or "
        "pass it as a tensor."
    )
    if why is None:
        advice = _of_forms(compiled)
        why = "the arguments are other numbers or objects, or tensors of another form, each time"
        if advice is _COUNTS:
            why = "Python reads another number, or a mask picks another number of elements, each time"
    _warn(
        f"compile: each of the first {compiled.captures} calls of {compiled!r} wrote a program of its own, which takes "
        f"longer than to call the function as it is. Since the last call: {why}. {advice}"
    )


def tell_of_eager(compiled: Compiled, why: str, of_forms: bool) -> None:
    """Calls run as they are for one and the same reason; ``of_forms``: which is that they have ever other forms."""
    advice = 'Mend that, or give compile(..., fallback=True) if it is as it should be; stats()["reasons"] counts them.'
    _warn(
        f"compile: calls of {compiled!r} run as they are, with no program and no faster than without compile: "
        f"{why.removeprefix('compile: ')}. {_of_forms(compiled) if of_forms else advice}"
    )


def _of_forms(compiled: Compiled) -> str:
    return _COUNTS if compiled.entries and compiled.entries[0].conditions is not None else _FORMS


def _warn(text: str) -> None:
    frame: FrameType | None = sys._getframe(0)
    level = 1
    while frame is not None and inside[frame.f_code.co_filename]:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
