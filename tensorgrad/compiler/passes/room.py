"""Whether calls may wait: a call that moves down keeps what it reads for longer, and what it makes comes later.

Gradients of one weight that is used at every step of a sequence are added up one by one, each of them needed until its
addition. Were the additions one call, behind the last gradient, all gradients would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..program import Call, Program, Value

__all__ = ["Room", "held", "rounded"]

_UNIT = 64  # bytes: arrays begin at multiples of it
_FEW = 1024  # bytes of a value that may wait anyhow, until a program has turned out to need too much
_IN_PIECES = frozenset(("roll",))  # made a piece at a time, or by the formula that reads them: neighbours in a stencil


def held(value: Value) -> int:
    """The bytes of memory that an array of this form takes."""
    return rounded(value.nbytes)


def rounded(size: int) -> int:
    """The bytes of memory that so many bytes take."""
    return max(_UNIT, -(-size // _UNIT) * _UNIT)


class Room:
    """The bytes of results that are needed at each step of a program, as calls move down in it.

    ``worst``: those at the worst step; ``most``: likewise, of the program as it was captured too. In a ``tight`` one,
    which has turned out to need more, no step may need more than it was captured with, or than it does by now.
    Arguments and what was there before are no part of it. ``whole``: what is made in pieces counts like the rest, as
    an eager run has it.
    """

    def __init__(self, program: Program, *, whole: bool = False):
        self.few = 0 if program.tight else _FEW
        self.first: dict[Value, int] = {}
        self.last: dict[Value, int] = {}
        for at, step in enumerate(program.steps):
            if isinstance(step, Call):
                for v in step.reads():
                    self.last[v.root] = at
                for made in step.results:
                    if made is not None:
                        self.last[made.root] = at
                        if made.root is made and (whole or step.op.name not in _IN_PIECES):
                            self.first[made] = at
        end = len(program.steps)
        for v in program.outputs:
            self.last[v.root] = end
        changes = np.zeros(end + 2, dtype=np.int64)
        for v, at in self.first.items():
            changes[at] += held(v)
            changes[self.last[v] + 1] -= held(v)
        self.bytes = np.cumsum(changes)
        self.tight = program.tight
        self.worst = int(self.bytes.max())
        self.most = program.needed if self.tight else max(self.worst, program.needed)

    def by_result(self, program: Program) -> dict[Value, tuple[str, int]]:
        """By the first result of each call: its op, and the bytes that are needed at its step."""
        calls = [(at, step) for at, step in enumerate(program.steps) if isinstance(step, Call)]
        bytes_at = self.bytes.tolist()
        return {v: (step.op.name, bytes_at[at]) for at, step in calls for v in step.results[:1] if v is not None}

    def is_left(
        self, reads: Iterable[Value], made: Iterable[Value], followed: set[Value], until: int, more: int = 0
    ) -> bool:
        """Whether calls that read and make these may wait until a step without more being needed at the worst one.
        Results that are ``followed`` are read right behind the calls; ``more`` bytes may be needed there."""
        if not more and not any(self.last[v.root] < until for v in reads if self._counts(v.root)):
            return True  # others need what they read until then
        changes = self._changes(reads, made, followed, until)
        start = min((first for first, _, _ in changes), default=until)
        needed = self.bytes[start : until + 1].copy()
        for first, behind, size in changes:
            needed[first - start : behind - start] += size
        needed[-1] += more
        if self.tight:
            return bool((needed <= np.maximum(self.bytes[start : until + 1], self.most)).all())
        return int(needed.max()) <= self.most

    def take(self, reads: Iterable[Value], made: Iterable[Value], followed: set[Value], until: int) -> None:
        """These calls do wait."""
        for first, behind, size in self._changes(reads, made, followed, until):
            self.bytes[first:behind] += size
        for v in reads:
            if v.root in self.first:
                self.last[v.root] = max(self.last[v.root], until)
        for v in made:
            if v in followed and v in self.first:
                self.first[v], self.last[v] = until, max(self.last[v], until)
            elif self.last[v] <= until:  # only calls of the group have read it: it is never stored
                self.first.pop(v, None)
            elif v in self.first:
                self.first[v] = max(self.first[v], until)

    def _changes(
        self, reads: Iterable[Value], made: Iterable[Value], followed: set[Value], until: int
    ) -> list[tuple[int, int, int]]:
        """(from step, before step, bytes more), by value."""
        kept = {v.root for v in reads}
        found = [(self.last[v] + 1, until + 1, held(v)) for v in kept if self._counts(v) and self.last[v] < until]
        for v in made:
            if v in self.first:
                behind = min(self.last[v] + 1, until + (v not in followed))
                behind = behind if self.last[v] <= until else until
                if self.first[v] < behind:
                    found.append((self.first[v], behind, -held(v)))
                if v in followed and self.last[v] < until and v.nbytes > self.few:
                    found.append((until, until + 1, held(v)))
        return found

    def _counts(self, value: Value) -> bool:
        return value in self.first and value.nbytes > self.few
