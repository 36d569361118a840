"""Where everything lies in a program's block: how long each array is needed, and what takes the place of what.

A formula may write a result over an operand that nobody reads any more: its kernel reads an element before it writes
the one at the same place (as with ``out=`` in an eager call), so the bits are those of a result of its own. See
``in_place`` for formulas of several.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Any

from ..ops.elementwise import Elementwise
from .fused import Fused
from .in_place import overwritable
from .passes.room import held, rounded
from .passes.summing import reduced
from .program import Action, Call, Value

__all__ = ["Places"]

_LITTLE = 400  # parts of what is needed: blocks may take one of them more, for what a row has beside its elements
_TRIES = 32  # plans, before nothing is done a piece at a time

_Block = tuple[int, int, int]


class Places:
    """A plan of what was written once.

    ``offsets``: of each allocation in the block. ``nbytes``: of the block. ``at_once``: the most that is needed at one
    time, so that no plan is smaller. ``captured``: what was needed as the program was captured, with the arguments that
    have places in the block. ``eager``: with what kernels make for themselves.
    ``in_place``: calls, and a result of theirs that lies where an operand did. ``blocks``: stretches of steps that may
    be done block by block, as in a blueprint.
    """

    def __init__(self, blueprint: Any, writing: Any, sizes: list[int]):
        self.program = blueprint.program
        given = sum(held(v) for v in self.program.arguments if v not in blueprint.there)
        self.captured = self.program.eager + given
        self.sizes = sizes
        self.room = [rounded(size) for size in sizes]
        self.starts = {v: array.__array_interface__["data"][0] for v, array in writing.arrays.items()}
        self.rising = sorted((address, i) for i, address in enumerate(writing.sequence.addresses))
        self.in_place: list[tuple[Call, Value]] = []
        self.together: dict[int, range] = {}  # by step: those that are done with it a piece at a time
        # by step: the first of those that are done with it block by block, the one whose blocks it are, and the last
        self.whole: dict[int, _Block] = {}
        self.homes: list[int] = []
        own = self.lives(blueprint, writing)
        self.blocks: list[_Block] = list(blueprint.blocks)
        self.made, self.numbers = writing.born, writing.numbers
        self.own = self.own_parts(writing)
        self.named = {self.allocation_of(v) for v in self.starts}
        self.changes = self.exchanges()
        # by step, from the one ahead of all on, its first time
        counts = [1] + [len(writing.parts.get(at, (0,))) for at in range(len(self.program.steps) + 2)]
        self.clock = [0, *accumulate(counts)]
        pieces = [piece for piece in writing.pieces if type(piece) is tuple]
        groups = [group for piece in pieces for group in writing.sequence.groups(*piece)]
        # numbers of calls: the first and the last of each group that may be done a piece at a time,
        self.groups = [(first, stop - 1) for first, stop in groups]
        # and of each stretch that may be done block by block
        self.stretches = [(low, high) for piece in pieces for low, _, high in writing.sequence.in_blocks(*piece)]
        spans = self.done_together(own)
        self.plan(own, spans)
        self.eager = max(self.captured, self.with_own(writing))
        kept = [i for i, home in enumerate(self.homes) if home == i]
        born, last = self.times(spans)
        found = blueprint.backend.c.find_places(
            [sizes[i] for i in kept], [born[i] for i in kept], [last[i] for i in kept], self.eager
        )
        at = dict(zip(kept, found[0], strict=True))
        self.offsets: list[int] = [at[home] for home in self.homes]
        self.nbytes: int = found[1]
        self.at_once: int = found[2]

    def allocation_of(self, value: Value) -> int | None:
        """The number of the allocation that a value, or what it is a view of, lies in."""
        return self.allocation_at(self.starts.get(value, -1))

    def allocation_at(self, start: int) -> int | None:
        at = bisect_right(self.rising, (start, len(self.rising))) - 1
        address, i = self.rising[at] if at >= 0 else (0, 0)
        return i if at >= 0 and start < address + max(1, self.sizes[i]) else None

    def lives(self, blueprint: Any, writing: Any) -> tuple[list[int], list[int]]:
        """Of each allocation the first and the last step that need it.

        What is handed out, and what a second stage reads of the first, lives until the end: the second stage may run
        twice. What that hands out (gradients, which are held over the next forward pass) has its place to itself.
        """
        program = self.program
        born = list(writing.born)
        last = list(born)
        end = len(program.steps)
        split = writing.split_at

        def use(value: Value, at: int) -> None:
            allocation = self.allocation_of(value)
            if allocation is not None:
                late = at >= split > born[allocation]
                last[allocation] = max(last[allocation], end if late else at)

        for at, step in enumerate(program.steps):
            if isinstance(step, Call):
                for value in (*step.reads(), *(r for r in step.results if r is not None)):
                    use(value, at)
        written = {v.root for call in program.calls for v in call.writes}
        for value in program.outputs:
            use(value, end)
        for value in program.arguments:  # what is written to is brought back; a second stage is given its own later
            if value.root in written or blueprint.early is not None:
                use(value, end)
        if blueprint.early is not None:
            for value in program.outputs[blueprint.early :]:
                allocation = self.allocation_of(value)
                if allocation is not None:
                    born[allocation] = -1
        return born, last

    def own_parts(self, writing: Any) -> dict[int, list[tuple[int, range]]]:
        """Of each allocation that a definition makes, the parts of the step that need it: their numbers, and those of
        their calls."""
        found: dict[int, list[tuple[int, range]]] = {}
        for at, parts in writing.parts.items():
            call, behind = bisect_left(writing.numbers, at), bisect_left(writing.born, at)
            for number, (end, allocations, addresses) in enumerate(parts):
                for i in {*range(behind, allocations), *map(self.allocation_at, addresses)}:
                    if i is not None and writing.born[i] == at:
                        found.setdefault(i, []).append((number, range(call, end)))
                call, behind = end, max(behind, allocations)
        return found

    def with_own(self, writing: Any) -> int:
        """The most bytes that were needed at one step as the program was captured, of those steps that a kernel makes
        arrays for itself in, and that are still made: these it makes in an eager run as well."""
        own: dict[int, int] = {}
        for i, at in enumerate(self.made):
            if i not in self.named and at not in writing.parts:
                own[at] = own.get(at, 0) + self.room[i]
        given = self.captured - self.program.eager
        most = 0
        for at, more in own.items():
            step = self.program.steps[at] if at >= 0 else None
            first = step.results[0] if isinstance(step, Call) and step.results else None
            name, needed = self.program.met.get(first, ("", 0)) if first is not None else ("", 0)
            if isinstance(step, Call) and step.op.name == name:
                most = max(most, given + needed + more)
        return most

    def times(self, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """The first and the last time at which each allocation is needed, with these groups done together: a step has
        one time, or one for each part of it. What a part makes for others that are not done together with another step
        is needed no longer than they need it."""
        born = [self.clock[at + 1] for at in self.born]
        last = [self.clock[at + 2] - 1 for at in self.last]
        if not self.own:
            return born, last
        others: set[int] = set()
        for first, end in self.groups + self.stretches:
            for begin, close in [*spans, *((low, high) for low, _, high in self.blocks)]:
                if self.numbers[first] <= begin and close <= self.numbers[end]:
                    others.update(i for i in range(first, end + 1) if begin <= self.numbers[i] <= close)
        for i, parts in self.own.items():
            if self.homes[i] == i and all(others.isdisjoint(calls) for _, calls in parts):
                start = self.clock[self.made[i] + 1]
                if self.born[i] == self.made[i]:
                    born[i] = start + parts[0][0]
                if i not in self.named:
                    last[i] = start + parts[-1][0]
        return born, last

    def done_together(self, own: tuple[list[int], list[int]]) -> list[tuple[int, int]]:
        """The first and the last step of each group that is done a piece at a time.

        What one of a group reads or makes is there until all are through. So groups are halved that would need more so
        than the program does at its worst step, as it was captured or with each step done by itself; stretches that are
        done block by block lose who is ahead of the blocks, or behind them.
        """
        spans = [(self.numbers[first], self.numbers[end]) for first, end in self.groups]
        spans = [(begin, close) for begin, close in spans if begin < close]
        every, self.blocks = self.blocks, []
        most = max(self.plan(own, [])[0], self.captured)
        self.blocks = every
        for _ in range(_TRIES):
            needed, worst = self.plan(own, spans)
            at = next((i for i, (begin, close) in enumerate(spans) if begin <= worst <= close), None)
            block = self.whole.get(worst)
            limit = most if at is not None else most + most // _LITTLE
            if needed <= limit or (at is None and block is None):
                return spans
            if at is None:
                assert block is not None
                self.shorten(block, own, spans)
                continue
            begin, close = spans[at]
            middle = (begin + close) // 2
            halves = [(begin, middle), (middle + 1, close)]
            spans[at : at + 1] = [(low, high) for low, high in halves if low < high]
        return []

    def shorten(self, block: _Block, own: tuple[list[int], list[int]], spans: list[tuple[int, int]]) -> None:
        """Have fewer steps done with a block: of those ahead and those behind the ones without which less is needed."""
        low, head, high = block
        rest = [each for each in self.blocks if each != block]
        found = []
        for left in sorted({(low, head, head), (head, head, high)} - {block}) or [(head, head, head)]:
            self.blocks = [*rest, left] if left[0] < left[2] else rest
            found.append((self.plan(own, spans)[0], self.blocks))
        self.blocks = min(found, key=lambda each: each[0])[1]

    def plan(self, own: tuple[list[int], list[int]], spans: list[tuple[int, int]]) -> tuple[int, int]:
        """Lives with these groups done together, and what takes the place of what; the most bytes that are needed at
        one time then, and the step that needs them."""
        born, last = own
        self.together.clear()
        self.in_place.clear()
        self.whole = {at: each for each in self.blocks for at in range(each[0], each[2] + 1)}
        until: dict[int, int] = {}  # by step: what it needs last is needed until that one
        for begin, close in spans:
            self.together.update(dict.fromkeys(range(begin, close + 1), range(begin, close + 1)))
        for begin, close in reversed(spans):  # a step may be the last of one group and the first of the next
            until.update(dict.fromkeys(range(begin, close), until.get(close, close)))
        self.born, self.last = list(born), [until.get(at, at) for at in last]
        self.homes = self.joined()
        self.born = [self.whole.get(at, (at,))[0] for at in self.born]
        self.last = [self.whole.get(at, (at,))[-1] for at in self.last]
        starts, ends = self.times(spans)
        changes = [0] * (self.clock[-1] + 1)
        for i, home in enumerate(self.homes):
            if home == i:
                changes[starts[i]] += self.room[i]
                changes[ends[i] + 1] -= self.room[i]
        needed = list(accumulate(changes))
        most = max(needed)
        return most, bisect_right(self.clock, needed.index(most)) - 2

    def exchanges(self) -> list[tuple[int, Call, list[tuple[Value, int, list[int]]]]]:
        """Of steps whose results may lie where operands do: these, their allocations and those of such operands."""
        found = []
        for at, step in enumerate(self.program.steps):
            if not isinstance(step, Call):
                continue
            results = []
            elsewhere = {self.allocation_of(v) for v in _rolled(step)}
            for result, operands in overwritable(step):
                made = self.allocation_of(result)
                if made is None or self.made[made] != at:
                    continue
                fitting = []
                for v in operands:
                    over = self.allocation_of(v)
                    if over is not None and over not in elsewhere and self.fits(step, v, over, result, made, operands):
                        fitting.append(over)
                if fitting:
                    results.append((result, made, list(dict.fromkeys(fitting))))
            if results:
                found.append((at, step, results))
        return found

    def joined(self) -> list[int]:
        """By allocation the one whose place it takes, itself for most; lives become those of the places."""
        homes = list(range(len(self.sizes)))
        own_last = list(self.last)
        for at, step, results in self.changes:
            taken: set[int] = set()
            for result, made, operands in results:
                if self.born[made] != at:
                    continue
                for over in operands:
                    home = homes[over]
                    if own_last[over] != at or self.last[home] != at or home in taken:
                        continue
                    if self.read_by_blocks(over, at) or self.read_elsewhere(over, at):
                        continue
                    taken.add(home)
                    homes[made] = home
                    self.last[home] = own_last[made]
                    self.in_place.append((step, result))
                    break
        return homes

    def read_by_blocks(self, allocation: int, at: int) -> bool:
        """Whether blocks that are not there yet when the step begins still read what lies there."""
        first, head, _ = self.whole.get(at, (at, at, at))
        others = (self.program.steps[i] for i in range(first, head + 1) if i < at)
        return any(self.allocation_of(v) == allocation for step in others for v in step.reads())

    def read_elsewhere(self, allocation: int, at: int) -> bool:
        """Whether what lies there is read by others than formulas and reductions of rows, or rolled by formulas, that
        are done a piece at a time with the step: a later piece of theirs may read where an earlier one of the step has
        written."""
        others = (self.program.steps[i] for i in self.together.get(at, ()) if i != at)
        return any(self.allocation_of(v) == allocation for step in others for v in _read_apart(step))

    def fits(self, call: Call, operand: Value, over: int, result: Value, made: int, operands: list[Value]) -> bool:
        """Whether the result may lie where the operand does: element upon element, with nothing else there that the
        call reads, or others of these ``operands`` alone."""
        if self.sizes[over] != self.sizes[made] or not _lie_alike(operand, result):
            return False
        offset = self.starts[result] - self.address(made)
        if self.starts[operand] - self.address(over) != offset:
            return False
        others = [v for v in call.reads() if v is not operand and self.allocation_of(v) == over]
        return all(self.starts[v] == self.starts[operand] and _lie_alike(v, result) and v in operands for v in others)

    def address(self, allocation: int) -> int:
        found: dict[int, int] | None = self.__dict__.get("_addresses")
        if found is None:
            found = self.__dict__["_addresses"] = {i: address for address, i in self.rising}
        return found[allocation]


def _rolled(step: Call | Action) -> list[Value]:
    """What a formula reads elsewhere than where it writes."""
    return step.op.rolled(step.inputs) if isinstance(step, Call) and isinstance(step.op, Fused) else []


def _read_apart(step: Call | Action) -> list[Value]:
    """What a step that is done a piece at a time reads elsewhere than at its elements, or within its rows."""
    if not isinstance(step, Call) or isinstance(step.op, Elementwise):
        return _rolled(step)
    return [v for v in step.reads() if reduced(step, v) is None]


def _lie_alike(a: Value, b: Value) -> bool:
    return a.shape == b.shape and a.dtype.itemsize == b.dtype.itemsize and a.strides_in_items == b.strides_in_items
