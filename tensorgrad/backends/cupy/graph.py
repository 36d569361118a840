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
overwrites. How a program is cut is in ``pieces.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from ...compiler.failures import placed
from ...compiler.program import Action, Call, Program, Tally, Unless, Value
from ...dispatch import local
from .. import cuda, cudnn
from .capture import Lane, lane_of
from .checks import noted_checks
from .opened import opened
from .pieces import Chain, Ordinary, Pieces, Unfit, chain_of, extent, room_like
from .stretch import READS_WORDS, Launch, arrays_of, captured
from .words import NotedWords, noting

__all__ = ["GraphProgram"]

_MOST_COPIED = 1 << 22  # bytes into and out of graphs for each call; chosen, not measured
_MOST_GAPS = 4  # times an argument's own size, from its first to its last element

_HOST_NUMBERS = "its numbers are the host's, and change"
_HOST_ARRAYS = "it computes on the host"
_DECIDED = "the host reads whether it is done"
# a graph would go on using the plan's memory, which CuPy gives to others once its cache forgets the plan
_PLANNED = frozenset(("fft_c2c", "fft_r2c", "fft_c2r"))
_PLANS = "cuFFT works in memory that CuPy owns"
_CHECKS = "it checks indices before it writes to what was there"


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
        self.pieces: Pieces | None = None
        self.permitted: Any = None  # the switches that kernels asked
        self.chains: dict[Value, Chain] = {}  # outputs that are views of an argument
        self.workspace: Any = None
        self.plans: Any = None  # of cuDNN: they are the thread's that captured, which may end before
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
        except Unfit as why:
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
        views = [v for v in program.outputs if v.root in given and v not in given]
        self.chains = {v: chain_of(program, self.kernels, v) for v in views}
        if len(self.outside) == len(program.calls):
            raise Unfit("none of its calls can be captured")
        for v in program.arguments:
            if extent(v)[1] > _MOST_GAPS * max(v.nbytes, 1 << 20):
                raise Unfit(f"the elements of argument {v.name} lie far from each other")
        copied = sum(v.nbytes for v in {*program.arguments, *program.outputs})
        if copied > _MOST_COPIED * len(program.calls):
            raise Unfit("to copy its arguments and results would take longer than to launch its calls")

    # --- a replay

    def __call__(self, given: list[Any]) -> list[Any]:
        self.backend.settle()  # what the program writes does not come of wrong indices, nor of its own
        with self.backend.checking_at_once():
            return self._run(given)

    def _run(self, given: list[Any]) -> list[Any]:
        device = self._device(given)
        if self.why_python is not None:
            with self.backend.on(device):  # where what is made of nothing is made
                return self.in_python(given)
        lane = lane_of(self.backend, device)
        with lane.lock, self.backend.on(device):
            stream = self.backend.xp.cuda.get_current_stream()
            if stream.is_capturing():  # into somebody else's graph
                return self.in_python(given)
            with lane.turn(stream):
                if self.pieces is None or self.permitted != _permitted() or device != self.device:
                    return self._first(given, lane, device)
                return self._replay(self.pieces, given, stream)

    def _device(self, given: list[Any]) -> int:
        for array in given:
            if isinstance(array, self.backend.array_type):
                return int(array.device.id)
        for call in self.program.calls:
            for v in call.reads():
                if isinstance(v.array, self.backend.array_type):
                    return int(v.array.device.id)
        return int(self.backend.xp.cuda.runtime.getDevice())

    def _replay(self, pieces: Pieces, given: list[Any], stream: Any) -> list[Any]:
        found: dict[Value, Any] = dict(zip(self.program.arguments, given, strict=True))
        for v, place in pieces.inputs:
            place[...] = found[v]
        theirs = [found.pop(v) for v, _ in pieces.written]
        # no memory is asked for once a step has been taken: who catches that there is none may call again
        rooms = {v: room_like(self.backend.xp, v) for v in pieces.handed}
        tally = Tally()
        try:
            for piece in pieces.steps:
                if type(piece) is Launch:
                    piece.launch(self.backend._kernels, stream)
                    if piece.writes:
                        tally.settle()
                    if piece.flags.size:
                        piece.check()
                elif type(piece) is Action:
                    tally.act(piece)
                else:
                    assert type(piece) is Ordinary
                    self._between(piece, found, pieces.places)
                    if piece.call.writes:
                        tally.settle()
        except BaseException:
            tally.take_back()
            raise
        for array, (v, place) in zip(theirs, pieces.written, strict=True):
            array[...] = place
            found[v] = array
        return self._results(pieces, found, rooms)

    def _between(self, piece: Ordinary, found: dict[Value, Any], places: dict[Value, Any]) -> None:
        call = piece.call
        made = self._called(
            call,
            piece.kernel,
            arrays_of(call.inputs, found, places),
            {name: arrays_of(x, found, places) for name, x in call.attrs.items()},
        )
        results = made if type(made) is tuple else (made,)
        for number, value in enumerate(call.results):
            if value is None:
                continue
            place = piece.moved.get(number)
            if place is None:
                found[value] = results[number]
            else:
                place[...] = results[number]
        for v in piece.dead:
            found.pop(v, None)

    def _called(self, call: Call, kernel: Callable[..., Any], inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """What the kernel gives; its error says where the call comes from."""
        try:
            return kernel(*inputs, **attrs)
        except Exception as error:  # noqa: BLE001 - it is raised, and says where
            raise placed(error, call, self.closed) from None

    def _results(self, pieces: Pieces, found: dict[Value, Any], rooms: dict[Value, Any]) -> list[Any]:
        """The outputs: what lies in memory of the graphs is copied to the rooms; views of one array are views of its
        copy."""
        for v, room in rooms.items():
            room[...] = found[v] if v in found else pieces.places[v]
        copies = dict(rooms)
        outputs: list[Any] = []
        for v in self.program.outputs:
            if v not in copies:
                copies[v] = self._result(pieces, v, found, copies)
            outputs.append(copies[v])
        return outputs

    def _result(self, pieces: Pieces, v: Value, found: dict[Value, Any], copies: dict[Value, Any]) -> Any:
        if v.array is not None:
            return v.array
        if v in pieces.chains:
            array = found[v.root] if v.root in found else copies[v.root]
            for kernel, call, number in pieces.chains[v]:
                made = kernel(array, *call.inputs[1:], **call.attrs)
                array = made[number] if type(made) is tuple else made
            return array
        array = found[v] if v in found else pieces.places[v]
        return array if v in found else array[...]  # a view of what was there before: another object each time

    # --- the first replay

    def _first(self, given: list[Any], lane: Lane, device: int) -> list[Any]:
        """A replay in Python that finds out what can be captured, and then captures it."""
        self.pieces = None
        self.device, self.permitted = device, _permitted()
        cublas = self.backend._cublas
        try:
            # the graphs keep its address; made now, since while a stream is captured it would come from the wrong pool
            self.workspace = None if cublas is None else cublas.workspace(lane.stream.ptr)
        except self.backend.xp.cuda.memory.OutOfMemoryError as error:
            self._failed(error)
            return self.in_python(given)
        results = self._walked(given, lane)
        cudnn = vars(self.backend).get("_cudnn")  # not looked for where no call has asked for it
        self.plans = None if cudnn is None else cudnn.in_use()
        if any(at in self.outside or self.checks[at] for at in self.flags):
            self._take(self.closed, {})  # the next replay is the first one of the program as it was written
            return results
        try:
            self.pieces = self.backend.with_room(partial(Pieces, self, lane))
        except Unfit as why:
            self.why_python = str(why)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program can be replayed without graphs
            self._failed(error)
        return results

    def _failed(self, error: Exception) -> None:
        self.why_python = f"capturing it failed ({_in_a_line(error)})"
        warnings.warn(
            f"compile: a CUDA graph could not be made: {_in_a_line(error).rstrip('.')}. The program is replayed in "
            "Python.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _walked(self, given: list[Any], lane: Lane) -> list[Any]:
        tally = Tally()
        try:
            return self._tried(given, lane, tally)
        except BaseException:
            tally.take_back()
            raise

    def _tried(self, given: list[Any], lane: Lane, tally: Tally) -> list[Any]:
        found: dict[Value, Any] = dict(zip(self.program.arguments, given, strict=True))
        pool = self.backend.xp.cuda.MemoryPool()  # for results that nobody will see
        for at, step in enumerate(self.program.steps):
            flag = self.flags.get(at)
            left_out = flag is not None and self._is_set(flag, at, found)
            if isinstance(step, Action):
                if not left_out:
                    tally.act(step)
                continue
            kernel = self.kernels[at]
            assert kernel is not None
            inputs = arrays_of(step.inputs, found, {})
            attrs = {name: arrays_of(x, found, {}) for name, x in step.attrs.items()}
            made = (None,) * len(step.results) if left_out else self._called(step, kernel, inputs, attrs)
            if step.writes:
                tally.settle()
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

    # --- for people

    def told(self) -> list[str]:
        """How the program is run, in words."""
        if self.why_python is not None:
            return [f"replayed in Python, call by call: {self.why_python}"]
        if self.pieces is None:
            return ["CUDA graphs: made in the first replay"]
        graphs, ordinary = self.pieces.graphs, self.pieces.ordinary
        lines = [
            f"CUDA graphs: {len(graphs)}, of {sum(piece.calls for piece in graphs)} calls; they work in "
            f"{self.pieces.room.nbytes} bytes of their own; {len(ordinary)} calls run between them"
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


def _permitted() -> tuple[Any, ...]:
    """What a captured call would otherwise go on with after it has been forbidden."""
    return cuda.permitted(), cudnn.permitted()


def _in_a_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
