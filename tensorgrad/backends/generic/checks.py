"""What kernels insist on that only the elements of an array can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Checks"]


class Checks:
    def _refuse_if(self, wrong: Any, complain: Callable[[], None]) -> None:
        """Calls ``complain``, which raises, if the 0-d array ``wrong`` is true."""
        if bool(wrong):
            complain()
