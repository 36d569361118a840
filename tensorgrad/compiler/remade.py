"""``Remade``: what an optimizer makes anew in each step, as LBFGS its direction, so that no program can rest on it."""

from __future__ import annotations

__all__ = ["PAUSE", "Remade"]

_PATIENCE = 3  # runs of such steps, one after the other
PAUSE = 8  # calls that run as they are then, before another run is tried


class Remade:
    """Counts the runs that have left other objects in an optimizer's state.

    What is new there needs a run of its own, but what is new in run after run stays so, or does for a while (where now
    these parameters have gradients, now those). So a run is tried again, each time after twice as many calls.

    ``count``: such runs in a row. ``why``: no run is written down at present, if that is so.
    """

    def __init__(self) -> None:
        self.settled()

    def settled(self) -> None:
        """A run has left the state as it was."""
        self.count = self._pause = self._left = 0
        self.why: str | None = None

    def tells(self, place: str) -> str | None:
        """Of a run that has left another object at this place of a state: why no more are to be written down, if there
        were enough of them."""
        if place.endswith(".state"):
            return None  # of one more parameter
        self.count += 1
        if self.count < _PATIENCE:
            return None
        return self.why or f"an optimizer makes {place} anew in each step, instead of changing a tensor in place"

    def pause(self, why: str) -> None:
        self.why = why
        self._left = self._pause = 2 * self._pause or PAUSE

    def passes(self) -> str | None:
        """Why the next call is to run as it is; None if a run may be written down."""
        if not self._left:
            return None
        self._left -= 1
        return self.why
