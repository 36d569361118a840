"""A program cut into pieces: graphs of calls captured together, and what runs between them.

What graphs read and write lies in memory of their own: arguments are copied into it, as are results of ordinary calls
that a graph reads. What lives for a part of a program alone lends its place to others afterwards: the calls are
captured in the order in which the graphs run, from one pool, and an array goes back to it after its last use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...compiler.program import Action, Call, Program, Value
from .capture import Lane, Room
from .stretch import READS_WORDS, Launch, Stretch

if TYPE_CHECKING:
    from .graph import GraphProgram

__all__ = ["Chain", "Ordinary", "Pieces", "Unfit", "chain_of", "extent", "room_like"]

_MOST_KEPT = 1 << 10  # bytes that a call writes to, to be put back where a check failed; chosen, not measured

Chain = list[tuple[Callable[..., Any], Call, int]]
"""Calls that make a view: kernel, call, and which of its results."""


class Unfit(Exception):
    """Why a program is replayed in Python."""


class Ordinary:
    """A call between graphs. ``moved``: results that graphs read, by number, and the places that they are copied to;
    ``dead``: values that nobody reads after it."""

    def __init__(self, call: Call, kernel: Callable[..., Any], why: str):
        self.call = call
        self.kernel = kernel
        self.why = why
        self.moved: dict[int, Any] = {}
        self.dead: list[Value] = []


class Pieces:
    """All stretches of a program, captured in the order in which they will run, and the calls between them.

    Args:
        whole: the program, of which it is known what can be captured.
        lane: of the device.
    """

    def __init__(self, whole: GraphProgram, lane: Lane):
        self.whole = whole
        self.program: Program = whole.program
        self.chains: dict[Value, Chain] = dict(whole.chains)  # with outputs that share memory with others
        self.inputs: list[tuple[Value, Any]] = []  # arguments, and where graphs find them
        self.places: dict[Value, Any] = {}  # what ordinary calls and results find in memory of the graphs
        self.handed: list[Value] = []  # what outputs are that are copied, or copies that they are views of
        self.written: list[tuple[Value, Any]] = []  # arguments that graphs write to, and where
        self.steps: list[Launch | Ordinary | Action] = []
        self.room = Room(whole.backend.xp.cuda)
        self._cut(lane)

    @property
    def graphs(self) -> list[Launch]:
        return [step for step in self.steps if type(step) is Launch]

    @property
    def ordinary(self) -> list[Ordinary]:
        return [step for step in self.steps if type(step) is Ordinary]

    def _cut(self, lane: Lane) -> None:
        whole, steps, outside, xp = self.whole, self.program.steps, self.whole.outside, self.whole.backend.xp
        if len(outside) == len(self.program.calls):
            raise Unfit("none of its calls can be captured")
        inside = [isinstance(step, Call) and at not in outside for at, step in enumerate(steps)]
        read_inside = {v for at, step in enumerate(steps) if inside[at] for v in step.reads()}  # type: ignore[union-attr]
        read_inside.update(flag for flag in whole.flags.values() if flag is not None)
        self._check_aliases(read_inside)
        shared = _shared_outputs(self.program)
        allocator = self.room.pool.malloc
        places: dict[Value, Any] = {}
        kept: dict[Value, Any] = {}
        with lane.stream, xp.cuda.using_allocator(allocator):
            for v in self.program.arguments:
                if v in read_inside:
                    places[v] = room_like(xp, v)
            count = sum(whole.words[at][1] for at, captured in enumerate(inside) if captured)
            fixed = xp.empty((count,), dtype=np.uint64)  # before the graphs use memory for a while only
        self.inputs = list(places.items())
        at = 0
        while at < len(steps):
            step = steps[at]
            if inside[at] or at in whole.flags:
                end = self._end(at, inside)
                with lane.stream, xp.cuda.using_allocator(allocator):
                    stretch = Stretch(whole, at, end, places, shared, fixed)
                graph = lane.capture(allocator, stretch.run)
                if stretch.works:
                    fixed = fixed[stretch.words.counts[False] :]
                    stretch.words.settle(whole.backend._kernels)
                    self.steps.append(Launch(graph, stretch, whole.closed))
                else:
                    self.steps += [step for step in steps[at:end] if isinstance(step, Action)]
                at = end
                continue
            if isinstance(step, Action):
                self.steps.append(step)
            else:
                kernel = whole.kernels[at]
                assert kernel is not None
                piece = Ordinary(step, kernel, outside[at])
                kept.update((v, places[v]) for v in step.reads() if v in places)
                with lane.stream, xp.cuda.using_allocator(allocator):
                    for number, made in enumerate(step.results):
                        if made is not None and made in read_inside:
                            places[made] = piece.moved[number] = room_like(xp, made)
                piece.dead = whole.last[at]
                self.steps.append(piece)
                for v in whole.last[at]:
                    if v not in shared:
                        places.pop(v, None)
            at += 1
        if not self.graphs:
            raise Unfit("what can be captured of it computes nothing")
        kept.update((v, places[v]) for v in (*self.program.outputs, *shared) if v in places)
        self._settle(kept, shared)

    def _settle(self, kept: dict[Value, Any], shared: set[Value]) -> None:
        """What a replay finds where. ``kept``: the places that are read outside of graphs."""
        program = self.program
        changed = {v.root for call in program.calls for v in call.writes}
        self.written = [(v, place) for v, place in self.inputs if v in changed]
        for v, _ in self.inputs:  # ordinary calls and results have the arguments themselves
            if v not in changed:
                kept.pop(v, None)
        self.places = kept
        elsewhere = {
            v for piece in self.ordinary
            for number, v in enumerate(piece.call.results) if v is not None and number not in piece.moved
        }  # fmt: skip
        mine = [v for v in program.outputs if v.root.array is None and v.root not in program.arguments]
        for v in mine:
            if v.root in shared and v.root in kept and v.root is not v:
                self.chains[v] = chain_of(program, self.whole.kernels, v)
        copied = [v for v in mine if v not in self.chains and (v in kept or v.root not in elsewhere)]
        bases = [v.root for v in self.chains if v.root not in program.arguments]
        self.handed = list(dict.fromkeys((*bases, *copied)))

    def _end(self, at: int, inside: list[bool]) -> int:
        """Where a stretch of calls ends that begins at a step. What was there before the program must not be written
        to while checks are open: they are looked at after the graph, and a call that fails changes nothing. Steps of
        optimizers are left out by their kernels then, a few bytes are put back, and what the host has counted for a
        step is taken back; another check after them belongs to the next stretch, so that it is known which of them are.

        What the host does by itself in the midst of a stretch it does before the graph is launched, in its order among
        the words that are read. Other actions end a stretch; so does one that counts on from what may be taken back."""
        unchecked = guarded = False
        unsure: set[int] = set()  # counts of steps that a flag may leave out
        whole, end = self.whole, at
        for here in range(at, len(inside)):
            step = self.program.steps[here]
            if isinstance(step, Action):
                counts = set(map(id, step.counts))
                if not step.independent_of(whole.backend.array_type) or (unchecked and not counts) or counts & unsure:
                    break
                unsure |= counts if here in whole.flags else set()
                continue
            if not inside[here] or (guarded and whole.checks[here]):
                break
            state = [v for v in step.writes if v.root.array is not None]
            if unchecked and state and step.op.name not in READS_WORDS and sum(v.nbytes for v in state) > _MOST_KEPT:
                break
            guarded = guarded or (unchecked and bool(state)) or here in whole.flags
            unchecked = unchecked or whole.checks[here] > 0
            end = here + 1
        assert end > at
        return end

    def _check_aliases(self, read_inside: set[Value]) -> None:
        """Raises Unfit where an ordinary call makes a view, a graph reads it or its base, and somebody writes to them:
        the graph has copies, which would miss that."""
        written = {v.root for call in self.program.calls for v in call.writes}
        for at in self.whole.outside:
            for v in self.program.steps[at].results:  # type: ignore[union-attr]
                if v is not None and v.root is not v and v.root in written and {v, v.root} & read_inside:
                    raise Unfit(f"{v.name} is a view that is made outside of graphs, and what it shows is written to")


def chain_of(program: Program, kernels: list[Any], v: Value) -> Chain:
    """The calls that make a view of the array that owns its memory."""
    makers = {
        made: (at, number)
        for at, step in enumerate(program.steps) if isinstance(step, Call)
        for number, made in enumerate(step.results) if made is not None
    }  # fmt: skip
    chain: Chain = []
    at_value = v
    while at_value is not v.root:
        at, number = makers[at_value]
        call, kernel = program.steps[at], kernels[at]
        assert isinstance(call, Call) and kernel is not None
        if not call.op.view or type(call.inputs[0]) is not Value or len(list(call.reads())) > 1:
            raise Unfit(f"{v.name} shares memory with an argument or another result, and is no simple view")
        chain.insert(0, (kernel, call, number))
        at_value = call.inputs[0]
    return chain


def _shared_outputs(program: Program) -> set[Value]:
    """The memory that several outputs lie in."""
    seen: set[Value] = set()
    shared: set[Value] = set()
    for v in dict.fromkeys(program.outputs):
        if v.root.array is None and v.root in seen:
            shared.add(v.root)
        seen.add(v.root)
    return shared.difference(program.arguments)


def room_like(xp: Any, v: Value) -> Any:
    """Memory from the current allocator that lies as the value does."""
    if v.contiguous:
        return xp.empty(v.shape, dtype=v.dtype)
    item = int(v.dtype.itemsize)
    if any(step % item for step in v.strides):
        raise Unfit(f"the strides of {v.name} are no whole numbers of elements")
    low, size = extent(v)
    room = xp.empty((size // item,), dtype=v.dtype)
    return xp.lib.stride_tricks.as_strided(room[-low // item :], v.shape, v.strides)


def extent(v: Value) -> tuple[int, int]:
    """Bytes from the first element of a value to the lowest one, and from the lowest to the end of the highest."""
    if 0 in v.shape:
        return 0, 0
    reach = [step * (size - 1) for size, step in zip(v.shape, v.strides, strict=True)]
    low = sum(min(0, step) for step in reach)
    return low, sum(map(abs, reach)) + int(v.dtype.itemsize)
