"""Programs as CUDA graphs: ``tg.compile`` on CuPy's arrays.

The first replay of a program walks through its calls as Python would, which compiles what has to be compiled, and
tries each call alone on a stream that is captured. Stretches of calls that can be captured become a graph each, over
memory of the program's own; the others run between the graphs, as ordinary calls on the same stream:

- calls whose numbers come from the host and change (the rate of an optimizer without a kernel of its own): a graph
  would repeat the first ones for ever;
- calls that wait for the device, copy from or to the host, or reach a library that refuses (CuPy's own cuBLAS wrapper).

The numbers that SGD, Adam and random numbers need (rates, a generator's offset) are read from device memory, where they
are written anew right before each launch of the graph that they are in. What the host does in the midst of a graph's
calls (an optimizer counts its step, a generator is seeded) it does then too, in its order among the reads of such
numbers. So a training step is one graph, unless something is read on the device for it.

Checks of elements (that an index is in range) are computed in the graphs and looked at after the graph that they are
in, before anything that was there before the program is changed; kernels of SGD and Adam look at them themselves.

Arguments are copied into the graphs' memory, as are results of ordinary calls that a graph reads; what the user gets,
and what an argument was changed to, is copied out of it. So nobody outside ever sees memory that the next replay
overwrites. What lives for a part of a program alone lends its place to others afterwards: the calls are captured in the
order in which the graphs run, from one pool, and an array goes back to it after its last use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...compiler.program import Action, Call, Program, Unless, Value
from ...dispatch import local
from ..cuda import tf32_allowed
from .capture import Lane, Room, lane_of
from .dense_kernels import noted_checks
from .opened import opened
from .stretch import READS_WORDS, Launch, Stretch, arrays_of, captured
from .words import NotedWords, noting

__all__ = ["GraphProgram"]

_MOST_COPIED = 1 << 22  # bytes into and out of graphs for each call; chosen, not measured
_MOST_KEPT = 1 << 10  # bytes that a call writes to, to be put back where a check failed; chosen, not measured
_MOST_GAPS = 4  # times an argument's own size, from its first to its last element

_HOST_NUMBERS = "its numbers are the host's, and change"
_HOST_ARRAYS = "it computes on the host"
_DECIDED = "the host reads whether it is done"
# a graph would go on using the plan's memory, which CuPy gives to others once its cache forgets the plan
_PLANNED = frozenset(("fft_c2c", "fft_r2c", "fft_c2r"))
_PLANS = "cuFFT works in memory that CuPy owns"
_CHECKS = "it checks indices before it writes to what was there"


class _Unfit(Exception):
    """Why a program is replayed in Python."""


class _Ordinary:
    """A call between graphs. ``moved``: results that graphs read, by number, and the places that they are copied to;
    ``dead``: values that nobody reads after it."""

    def __init__(self, call: Call, kernel: Callable[..., Any], why: str):
        self.call = call
        self.kernel = kernel
        self.why = why
        self.moved: dict[int, Any] = {}
        self.dead: list[Value] = []


class GraphProgram:
    """Runs a program: ``run(given)`` is the list of its outputs' arrays for those of its arguments.

    Args:
        backend: the CuPy backend.
        program: what to run.
        replay: the program as a Python function, for when graphs do not fit.
    """

    def __init__(self, backend: Any, program: Program, replay: Callable[[list[Any]], list[Any]]):
        self.backend = backend
        self.in_python = replay
        self.why_python: str | None = None
        self.pieces: list[Launch | _Ordinary | Action] | None = None
        self.tf32 = False
        self.room: Room | None = None
        self.inputs: list[tuple[Value, Any]] = []  # arguments, and where graphs find them
        self.places: dict[Value, Any] = {}  # what ordinary calls and results find in memory of the graphs
        self.copied: set[Value] = set()  # outputs that lie there
        self.written: list[tuple[Value, Any]] = []  # arguments that graphs write to, and where
        # outputs that are views of an argument, or share memory with others
        self.chains: dict[Value, list[tuple[Callable[..., Any], Call, int]]] = {}
        self.workspace: Any = None
        self.device: int | None = None
        self.closed = program  # as it was written
        self._take(*opened(program, backend.array_type))

    def _take(self, program: Program, flags: dict[int, Value | None]) -> None:
        """Run this program. ``flags``: see ``opened``."""
        self.program, self.flags = program, flags
        self.kernels = [
            None
            if isinstance(step, Action)
            else step.kernel()
            if isinstance(step, Unless)
            else getattr(local.doors[step.kind], step.op.name)
            for step in program.steps
        ]
        count = len(program.steps)
        self.checks = [0] * count  # by step: how often its kernel looks at elements to refuse them
        self.words = [(0, 0)] * count  # by step: how many words of the host its kernel reads, see NotedWords
        self.last = _last_uses(program, flags)
        try:
            self.outside = self._known_outside()
            self._check()
        except _Unfit as why:
            self.why_python = str(why)

    # --- what can be told before anything runs

    def _known_outside(self) -> dict[int, str]:
        """By step: why a call is known to stay outside of graphs."""
        found: dict[int, str] = {}
        ours = self.backend.array_type
        for at, step in enumerate(self.program.steps):
            if not isinstance(step, Call):
                continue
            fixed = [v.array for v in step.reads() if v.array is not None]
            if isinstance(step, Unless):
                found[at] = _DECIDED
            elif step.kind is not ours:
                found[at] = _HOST_ARRAYS
            elif step.op.name not in READS_WORDS and any(not isinstance(array, ours) for array in fixed):
                found[at] = _HOST_NUMBERS
            elif step.op.name in _PLANNED:
                found[at] = _PLANS
        return found

    def _check(self) -> None:
        program = self.program
        given = set(program.arguments)
        self.chains = {v: self._chain(v) for v in program.outputs if v.root in given and v not in given}
        if len(self.outside) == len(program.calls):
            raise _Unfit("none of its calls can be captured")
        for v in program.arguments:
            if _extent(v)[1] > _MOST_GAPS * max(v.nbytes, 1 << 20):
                raise _Unfit(f"the elements of argument {v.name} lie far from each other")
        copied = sum(v.nbytes for v in {*program.arguments, *program.outputs})
        if copied > _MOST_COPIED * len(program.calls):
            raise _Unfit("to copy its arguments and results would take longer than to launch its calls")

    # --- a replay

    def __call__(self, given: list[Any]) -> list[Any]:
        if self.why_python is not None:
            return self.in_python(given)
        device = self._device(given)
        lane = lane_of(self.backend, device)
        with lane.lock, self.backend.on(device):
            stream = self.backend.xp.cuda.get_current_stream()
            if stream.is_capturing():  # into somebody else's graph
                return self.in_python(given)
            with lane.turn(stream):
                if self.pieces is None or self.tf32 != tf32_allowed() or device != self.device:
                    return self._first(given, lane, device)
                return self._replay(given, stream)

    def _device(self, given: list[Any]) -> int:
        for array in given:
            if isinstance(array, self.backend.array_type):
                return int(array.device.id)
        for call in self.program.calls:
            for v in call.reads():
                if isinstance(v.array, self.backend.array_type):
                    return int(v.array.device.id)
        return int(self.backend.xp.cuda.runtime.getDevice())

    def _replay(self, given: list[Any], stream: Any) -> list[Any]:
        found: dict[Value, Any] = dict(zip(self.program.arguments, given, strict=True))
        for v, place in self.inputs:
            place[...] = found[v]
        theirs = [found.pop(v) for v, _ in self.written]
        places = self.places
        assert self.pieces is not None
        for piece in self.pieces:
            if type(piece) is Launch:
                piece.words.refresh(self.backend._kernels)
                piece.graph.launch(stream)
                if piece.flags.size:
                    piece.check()
            elif type(piece) is Action:
                piece.run()
            else:
                assert type(piece) is _Ordinary
                call = piece.call
                made = piece.kernel(
                    *arrays_of(call.inputs, found, places),
                    **{name: arrays_of(x, found, places) for name, x in call.attrs.items()},
                )
                results = made if type(made) is tuple else (made,)
                for number, made_value in enumerate(call.results):
                    if made_value is None:
                        continue
                    place = piece.moved.get(number)
                    if place is None:
                        found[made_value] = results[number]
                    else:
                        place[...] = results[number]
                for v in piece.dead:
                    found.pop(v, None)
        for array, (v, place) in zip(theirs, self.written, strict=True):
            array[...] = place
            found[v] = array
        return self._results(found)

    def _results(self, found: dict[Value, Any]) -> list[Any]:
        """The outputs: what lies in memory of the graphs is copied; views of one array are views of its copy."""
        shared = dict.fromkeys(v.root for v in self.chains if v.root not in found)
        copies = {root: self._copy(root, self.places[root]) for root in shared}
        outputs: list[Any] = []
        for v in self.program.outputs:
            if v not in copies:
                copies[v] = self._result(v, found, copies)
            outputs.append(copies[v])
        return outputs

    def _result(self, v: Value, found: dict[Value, Any], copies: dict[Value, Any]) -> Any:
        if v.array is not None:
            return v.array
        if v in self.chains:
            array = found[v.root] if v.root in found else copies[v.root]
            for kernel, call, number in self.chains[v]:
                made = kernel(array, *call.inputs[1:], **call.attrs)
                array = made[number] if type(made) is tuple else made
            return array
        array = found[v] if v in found else self.places[v]
        if v in self.copied:
            return self._copy(v, array)
        return array if v in found else array[...]  # a view of what was there before: another object each time

    # --- the first replay

    def _first(self, given: list[Any], lane: Lane, device: int) -> list[Any]:
        """A replay in Python that finds out what can be captured, and then captures it."""
        self.pieces = None
        self.device, self.tf32 = device, tf32_allowed()
        cublas = self.backend._cublas
        try:
            # the graphs keep its address; made now, since while a stream is captured it would come from the wrong pool
            self.workspace = None if cublas is None else cublas.workspace(lane.stream.ptr)
        except self.backend.xp.cuda.memory.OutOfMemoryError as error:
            self._failed(error)
            return self.in_python(given)
        results = self._walked(given, lane)
        if any(at in self.outside or self.checks[at] for at in self.flags):
            self._take(self.closed, {})  # the next replay is the first one of the program as it was written
            return results
        try:
            self.backend.with_room(partial(self._build, lane))
        except _Unfit as why:
            self.why_python = str(why)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program can be replayed without graphs
            self._failed(error)
        if self.why_python is not None:
            self._give_up_room()
        return results

    def _failed(self, error: Exception) -> None:
        self.why_python = f"capturing it failed ({_in_a_line(error)})"
        warnings.warn(
            f"compile: a CUDA graph could not be made: {_in_a_line(error).rstrip('.')}. The program is replayed in "
            "Python.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _give_up_room(self) -> None:
        self.room, self.places, self.inputs, self.written = None, {}, [], []

    def _walked(self, given: list[Any], lane: Lane) -> list[Any]:
        found: dict[Value, Any] = dict(zip(self.program.arguments, given, strict=True))
        pool = self.backend.xp.cuda.MemoryPool()  # for results that nobody will see
        for at, step in enumerate(self.program.steps):
            flag = self.flags.get(at)
            left_out = flag is not None and self._is_set(flag, at, found)
            if isinstance(step, Action):
                if not left_out:
                    step.run()
                continue
            kernel = self.kernels[at]
            assert kernel is not None
            inputs = arrays_of(step.inputs, found, {})
            attrs = {name: arrays_of(x, found, {}) for name, x in step.attrs.items()}
            made = (None,) * len(step.results) if left_out else kernel(*inputs, **attrs)
            if at not in self.outside:
                try:
                    work = partial(kernel, *captured(inputs), **captured(attrs))
                    checks, words = self.backend.with_room(partial(self._alone, lane, pool.malloc, work))
                    self.checks[at], self.words[at] = len(checks), (words.counts[True], words.counts[False])
                    if checks and any(v.root.array is not None for v in step.writes):
                        self.outside[at] = _CHECKS
                except Exception as error:  # noqa: BLE001 - it ran a moment ago: what fails now is the capture
                    self.outside[at] = _in_a_line(error)
            results = made if type(made) is tuple else (made,)
            found.update((v, x) for v, x in zip(step.results, results, strict=True) if v is not None)
            for v in self.last[at]:
                found.pop(v, None)
        return [v.array if v.array is not None else found[v] for v in self.program.outputs]

    def _is_set(self, flag: Value, at: int, found: dict[Value, Any]) -> bool:
        """Whether a flag leaves out a step of this number, which stays outside of graphs if it is one of the host."""
        array = arrays_of(flag, found, {})
        if isinstance(array, self.backend.array_type):
            return bool(array.get())
        self.outside[at] = _DECIDED
        return bool(array)

    def _alone(self, lane: Lane, allocator: Callable[[int], Any], work: Callable[[], None]) -> tuple[Any, NotedWords]:
        """The checks and the words of a call that is captured to see whether it can be."""
        with noted_checks() as checks, noting(NotedWords(self.backend.xp)) as words:
            lane.capture(allocator, work)
        return checks, words

    def _build(self, lane: Lane) -> None:
        """Capture all stretches, in the order in which they will run."""
        self._give_up_room()
        steps, outside = self.program.steps, self.outside
        if len(outside) == len(self.program.calls):
            raise _Unfit("none of its calls can be captured")
        inside = [isinstance(step, Call) and at not in outside for at, step in enumerate(steps)]
        read_inside = {v for at, step in enumerate(steps) if inside[at] for v in step.reads()}  # type: ignore[union-attr]
        read_inside.update(flag for flag in self.flags.values() if flag is not None)
        self._check_aliases(read_inside)
        shared = self._shared_outputs()
        self.room = Room(self.backend.xp.cuda)
        allocator = self.room.pool.malloc
        places: dict[Value, Any] = {}
        kept: dict[Value, Any] = {}
        with lane.stream, self.backend.xp.cuda.using_allocator(allocator):
            for v in self.program.arguments:
                if v in read_inside:
                    places[v] = self._like(v)
            count = sum(self.words[at][1] for at, captured in enumerate(inside) if captured)
            fixed = self.backend.xp.empty((count,), dtype=np.uint64)  # before the graphs use memory for a while only
        self.inputs = list(places.items())
        pieces: list[Launch | _Ordinary | Action] = []
        at = 0
        while at < len(steps):
            step = steps[at]
            if inside[at] or at in self.flags:
                end = self._end(at, inside)
                with lane.stream, self.backend.xp.cuda.using_allocator(allocator):
                    stretch = Stretch(self, at, end, places, shared, fixed)
                graph = lane.capture(allocator, stretch.run)
                if stretch.works:
                    fixed = fixed[stretch.words.counts[False] :]
                    stretch.words.settle(self.backend._kernels)
                    calls = sum(inside[at:end])
                    pieces.append(Launch(graph, calls, stretch.flags, stretch.checks, stretch.words, self.closed))
                else:
                    pieces += [step for step in steps[at:end] if isinstance(step, Action)]
                at = end
                continue
            if isinstance(step, Action):
                pieces.append(step)
            else:
                kernel = self.kernels[at]
                assert isinstance(step, Call) and kernel is not None
                piece = _Ordinary(step, kernel, outside[at])
                kept.update((v, places[v]) for v in step.reads() if v in places)
                with lane.stream, self.backend.xp.cuda.using_allocator(allocator):
                    for number, made in enumerate(step.results):
                        if made is not None and made in read_inside:
                            places[made] = piece.moved[number] = self._like(made)
                piece.dead = self.last[at]
                pieces.append(piece)
                for v in self.last[at]:
                    if v not in shared:
                        places.pop(v, None)
            at += 1
        if not any(type(piece) is Launch for piece in pieces):
            raise _Unfit("what can be captured of it computes nothing")
        kept.update((v, places[v]) for v in (*self.program.outputs, *shared) if v in places)
        changed = {v.root for call in self.program.calls for v in call.writes}
        self.written = [(v, place) for v, place in self.inputs if v in changed]
        for v, _ in self.inputs:  # ordinary calls and results have the arguments themselves
            if v not in changed:
                kept.pop(v, None)
        self.places = kept
        elsewhere = {
            v for piece in pieces if type(piece) is _Ordinary
            for number, v in enumerate(piece.call.results) if v is not None and number not in piece.moved
        }  # fmt: skip
        mine = [v for v in self.program.outputs if v.root.array is None and v.root not in self.program.arguments]
        self.copied = {v for v in mine if v in kept or v.root not in elsewhere}
        for v in mine:
            if v.root in shared and v.root in kept and v.root is not v:
                self.chains[v] = self._chain(v)
        self.pieces = pieces

    def _end(self, at: int, inside: list[bool]) -> int:
        """Where a stretch of calls ends that begins at a step. What was there before the program must not be written
        to while checks are open: they are looked at after the graph, and a call that fails changes nothing. Steps of
        optimizers are left out by their kernels then, a few bytes are put back, and what the host has counted for a
        step is taken back; another check after them belongs to the next stretch, so that it is known which of them are.

        What the host does by itself in the midst of a stretch it does before the graph is launched, in its order among
        the words that are read. Other actions end a stretch; so does one that counts on from what may be taken back."""
        unchecked = guarded = False
        unsure: set[int] = set()  # counts of steps that a flag may leave out
        end = at
        for here in range(at, len(inside)):
            step = self.program.steps[here]
            if isinstance(step, Action):
                counts = set(map(id, step.counts))
                if not step.independent_of(self.backend.array_type) or (unchecked and not counts) or counts & unsure:
                    break
                unsure |= counts if here in self.flags else set()
                continue
            if not inside[here] or (guarded and self.checks[here]):
                break
            state = [v for v in step.writes if v.root.array is not None]
            if unchecked and state and step.op.name not in READS_WORDS and sum(v.nbytes for v in state) > _MOST_KEPT:
                break
            guarded = guarded or (unchecked and bool(state)) or here in self.flags
            unchecked = unchecked or self.checks[here] > 0
            end = here + 1
        assert end > at
        return end

    def _check_aliases(self, read_inside: set[Value]) -> None:
        """Raises _Unfit where an ordinary call makes a view, a graph reads it or its base, and somebody writes to them:
        the graph has copies, which would miss that."""
        written = {v.root for call in self.program.calls for v in call.writes}
        for at in self.outside:
            for v in self.program.steps[at].results:  # type: ignore[union-attr]
                if v is not None and v.root is not v and v.root in written and {v, v.root} & read_inside:
                    raise _Unfit(f"{v.name} is a view that is made outside of graphs, and what it shows is written to")

    def _shared_outputs(self) -> set[Value]:
        """The memory that several outputs lie in."""
        seen: set[Value] = set()
        shared: set[Value] = set()
        for v in dict.fromkeys(self.program.outputs):
            if v.root.array is None and v.root in seen:
                shared.add(v.root)
            seen.add(v.root)
        return shared.difference(self.program.arguments)

    def _chain(self, v: Value) -> list[tuple[Callable[..., Any], Call, int]]:
        """The calls that make a view of the array that owns its memory."""
        makers = {
            made: (at, number)
            for at, step in enumerate(self.program.steps) if isinstance(step, Call)
            for number, made in enumerate(step.results) if made is not None
        }  # fmt: skip
        chain: list[tuple[Callable[..., Any], Call, int]] = []
        at_value = v
        while at_value is not v.root:
            at, number = makers[at_value]
            call, kernel = self.program.steps[at], self.kernels[at]
            assert isinstance(call, Call) and kernel is not None
            if not call.op.view or type(call.inputs[0]) is not Value or len(list(call.reads())) > 1:
                raise _Unfit(f"{v.name} shares memory with an argument or another result, and is no simple view")
            chain.insert(0, (kernel, call, number))
            at_value = call.inputs[0]
        return chain

    # --- memory

    def _like(self, v: Value) -> Any:
        """Memory from the current allocator that lies as the value does."""
        xp = self.backend.xp
        if v.contiguous:
            return xp.empty(v.shape, dtype=v.dtype)
        item = int(v.dtype.itemsize)
        if any(step % item for step in v.strides):
            raise _Unfit(f"the strides of {v.name} are no whole numbers of elements")
        low, size = _extent(v)
        room = xp.empty((size // item,), dtype=v.dtype)
        return xp.lib.stride_tricks.as_strided(room[-low // item :], v.shape, v.strides)

    def _copy(self, v: Value, array: Any) -> Any:
        made = self._like(v)
        made[...] = array
        return made

    # --- for people

    def told(self) -> list[str]:
        """How the program is run, in words."""
        if self.why_python is not None:
            return [f"replayed in Python, call by call: {self.why_python}"]
        if self.pieces is None:
            return ["CUDA graphs: made in the first replay"]
        graphs = [piece for piece in self.pieces if type(piece) is Launch]
        ordinary = [piece for piece in self.pieces if type(piece) is _Ordinary]
        assert self.room is not None
        lines = [
            f"CUDA graphs: {len(graphs)}, of {sum(piece.calls for piece in graphs)} calls; they work in "
            f"{self.room.nbytes} bytes of their own; {len(ordinary)} calls run between them"
        ]
        reasons: dict[str, list[str]] = {}
        for piece in ordinary:
            reasons.setdefault(piece.why, []).append(piece.call.op.name)
        for why, names in reasons.items():
            counted = ", ".join(f"{names.count(n)} {n}" if names.count(n) > 1 else n for n in dict.fromkeys(names))
            lines.append(f"outside of graphs: {counted} ({why})")
        return lines


def _last_uses(program: Program, flags: dict[int, Value | None]) -> list[list[Value]]:
    """By step: the values that nobody needs after it. Steps that a flag guards read it."""
    found: list[list[Value]] = [[] for _ in program.steps]
    last = program.last_uses()
    for at, flag in flags.items():
        if flag in last:
            last[flag] = max(last[flag], at)
    for v, at in last.items():
        if v.array is None:
            found[at].append(v)
    return found


def _extent(v: Value) -> tuple[int, int]:
    """Bytes from the first element of a value to the lowest one, and from the lowest to the end of the highest."""
    if 0 in v.shape:
        return 0, 0
    reach = [step * (size - 1) for size, step in zip(v.shape, v.strides, strict=True)]
    low = sum(min(0, step) for step in reach)
    return low, sum(map(abs, reach)) + int(v.dtype.itemsize)


def _in_a_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
