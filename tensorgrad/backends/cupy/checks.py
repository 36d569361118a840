"""Checks of elements (that indices are in range), and when the host looks at them.

A check is a truth on the device, and what raises where it holds. To look at it at once is to wait for the device.
Within a CUDA graph it is looked at behind the graph. With ``cuda_checks = "later"`` it is looked at when the host waits
anyway: kernels read zero for what is out of range and write nothing to it, so what comes of it is wrong, not dangerous,
and nobody sees a number of it before the error is raised, which names the line of the call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np

from ... import config
from ...autograd.node import describe_line, user_line
from ...dispatch import local
from ...errors import IndexOutOfRange
from ...ops.record import as_ours
from ...ops.required import between
from ..generic.checks import Checks

__all__ = ["CupyChecks", "noted_checks"]

_MOST_OPEN = 64  # whose indices are kept to be looked at; then the host waits once

Complaint = Callable[[], None]


class _Noted(threading.local):
    checks: list[tuple[Any, Complaint]] | None = None


_noted = _Noted()


@contextmanager
def noted_checks() -> Iterator[list[tuple[Any, Complaint]]]:
    """Within the block, in this thread, checks of elements are not made but written down: the truth that says that
    something is wrong, a 0-d array on the device, and what raises then."""
    before, _noted.checks = _noted.checks, []
    try:
        yield _noted.checks
    finally:
        _noted.checks = before


class _Open(threading.local):
    """A thread's checks that nobody has looked at. ``failed``: by device and stream, both, and whether one of theirs
    has failed, on the device. ``at_once``: none is put off now."""

    def __init__(self) -> None:
        self.checks: list[tuple[Any, Complaint, tuple[int, Any], Any]] = []
        self.failed: dict[tuple[int, int], tuple[tuple[int, Any], Any]] = {}
        self.at_once = False


class CupyChecks(Checks):
    xp: Any

    @cached_property
    def _open(self) -> _Open:
        return _Open()

    def _refuse_if(self, wrong: Any, complain: Complaint) -> None:
        if _noted.checks is not None:
            _noted.checks.append((wrong, partial(self._complain, complain)))
        elif not self._open.at_once and config.get("cuda_checks") == "later":
            self._put_off(wrong, complain)
        else:
            super()._refuse_if(wrong, complain)

    def require_between(self, x: Any, *, low: int, high: int, **how: Any) -> Any:
        if x.size:
            complain = partial(between, self.xp, x, low=low, high=high, **how)
            self._refuse_if(((x < low) | (x > high)).any(), complain)
        return self.xp.zeros((), dtype=np.int32)

    @contextmanager
    def checking_at_once(self) -> Iterator[None]:
        """Within the block, in this thread, checks are looked at when they are made."""
        before, self._open.at_once = self._open.at_once, True
        try:
            yield
        finally:
            self._open.at_once = before

    def _complain(self, complain: Complaint) -> None:
        with self.checking_at_once():  # what it looks at itself
            complain()

    def _put_off(self, wrong: Any, complain: Complaint) -> None:
        xp, found = self.xp, self._open
        if len(found.checks) >= _MOST_OPEN:
            self.settle()
        where = int(xp.cuda.Device().id), xp.cuda.get_current_stream()
        key = where[0], where[1].ptr
        if key not in found.failed:
            found.failed[key] = where, xp.zeros((), dtype=bool)
        failed = found.failed[key][1]
        xp.logical_or(failed, wrong, out=failed)
        found.checks.append((wrong, complain, where, user_line(2)))
        local.unsettled = self

    def failed_check(self) -> Any:
        """Whether an open check has failed, 0-d on the current device; None if that is not known on its current stream
        alone."""
        key = self.xp.cuda.Device().id, self.xp.cuda.get_current_stream().ptr
        failed = self._open.failed
        return failed[key][1] if key in failed and len(failed) == 1 else None

    def settle(self) -> None:
        found = self._open
        if not found.checks:
            return
        checks, failed, found.checks, found.failed = found.checks, found.failed, [], {}
        local.unsettled = None
        if not any(self._read(truth, where) for where, truth in failed.values()):
            return
        _, complain, where, line = next(check for check in checks if self._read(check[0], check[2]))
        told = f"(at {describe_line(line)})" if line else ""
        try:
            with self.xp.cuda.Device(where[0]), where[1]:
                self._complain(complain)
        except Exception as error:
            error.args = (f"{error} {told}",)
            if isinstance(error, IndexError):
                raise as_ours(error) from None
            raise
        raise IndexOutOfRange(f"an index was out of range, in a tensor that has been changed since {told}")

    def _read(self, truth: Any, where: tuple[int, Any]) -> bool:
        with self.xp.cuda.Device(where[0]), where[1]:
            return bool(truth.get())
