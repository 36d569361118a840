"""``Families``: of a function compiled with ``dynamic=True``, what is known of batches of other sizes."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from .dynamic import Family, family_of
from .entry import Entry
from .signature import Signature

__all__ = ["Expected", "Families"]


class Expected(NamedTuple):
    """What the next run should lead to, by what a family's programs show."""

    family: Family
    entry: Entry


class Families:
    """``refuted``: whether a run has shown that sizes lead to numbers in ways that nobody knows; then each size has a
    program of its own."""

    def __init__(self) -> None:
        self.refuted = False

    def entry_for(self, entries: list[Entry], signature: Signature) -> Entry | None:
        """An entry for a batch of another size, of what is known from two sizes."""
        answers: dict[Any, list[Any]] = {}
        found = (family.entry_for(signature) for family in _of(entries) if family.entry.holds())
        return next((e for e in found if e is not None and e.decides(signature.tensors, answers)), None)

    def expected(self, entries: list[Entry], signature: Signature) -> list[Expected]:
        """What a run of a size beyond the known ones should lead to: one entry for each way that Python may take."""
        found = [(family, family.expected(signature)) for family in _of(entries) if family.entry.holds()]
        return [Expected(family, entry) for family, entry in found if entry is not None]

    def join(self, entries: list[Entry], entry: Entry, expected: list[Expected], what: Any) -> list[Entry]:
        """The entries that stay, besides this one of a run."""
        if self.refuted:
            return entries
        expected = [one for one in expected if one.family.tells_of(entry)]
        if expected:
            if any(one.family.take(one.entry, entry) for one in expected):
                return entries
            self.refuted = True
            warnings.warn(
                f"compile: a further size of the batch has shown that {what!r} computes numbers from the size in a way "
                "that its programs do not show. From now on each size has a program of its own, written of a run.",
                stacklevel=5,
            )
            return [one for one in entries if one.family is None]
        for other in entries:
            if other.family is None and family_of(other, entry) is not None:
                break
        for family in _of(entries):
            family.note_alone(entry)
        return entries


def _of(entries: list[Entry]) -> list[Family]:
    return list({id(entry.family): entry.family for entry in entries if entry.family is not None}.values())
