"""A program for the C++ backend: its kernels' calls written into a ``Sequence``, its memory planned to the byte.

The calls are written twice. The first time shows what is allocated, and between which calls each array is needed; then
places are found in one block, and the calls are written again with these addresses. Nothing is computed meanwhile:
what a kernel allocates has an address, and no memory the first time.

Arguments are copied to their places in the block. Where large ones have come to lie at the same addresses a few times,
the calls are written once more, to read them there. Of programs that have much to copy and little to do the arguments
have no places: the block is made when they have come to lie somewhere, and runs while they do.

A kernel that is Python (a generic one, or one that looks at its inputs' elements) is called as it is, between two
stretches of the sequence, and its results are copied to their places.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..core import native
from ..dispatch import local
from ..errors import CompileError
from .failures import placed
from .placed import Placement, placements
from .places import Places
from .program import Action, Call, Program, Unless, Value
from .writable import Part, written

__all__ = ["Blueprint", "Instance", "blueprint", "only_read", "there", "writes"]

_WORTH_TRIMMING = 1 << 24  # bytes of a block
_SMALL = 4096  # bytes: a result that is copied rather than lent
_LARGE = 32768  # bytes of arguments that are worth reading where they lie


class Blueprint:
    """What all instances of a program share: where everything lies in their block.

    Args:
        program: what to run.
        split: the number of the step with which its second stage begins (a backward pass); None: there is one stage.
        late: how many of the last arguments the second stage is given.
        early: how many of the outputs are the first stage's; None: all.
        shown: how many of the first outputs are handed to the user, who may keep them: small ones are copied.
        kept: values that somebody may want the arrays of.
        there: arrays of the arguments that have no place in the block.
    ``nbytes``: of an instance's block. ``at_once``: the most of it that is needed at one time. ``in_place``: calls,
    and a result of theirs that takes the place of an operand. ``in_pieces``: groups of calls that are done together, a
    piece at a time, as the last instance that was made does them. ``python_calls``: calls that are Python between two
    stretches. ``blocks``: stretches of steps (first, head, last) that are done block by block: those ``ahead`` of the
    head make what it reads next, those ``behind`` it go over what it has just made. ``copied``: copies with nothing
    left to do, and who writes to the place.
    """

    def __init__(
        self, program: Program, backend: Any, split: int | None = None, late: int = 0, early: int | None = None,
        kept: Sequence[Value] = (), shown: int = 0, there: Mapping[Value, Any] = MappingProxyType({}),
    ):  # fmt: skip
        self.program = program
        self.early = early
        self.kept = kept
        self.shown = shown
        self.backend = backend
        self.split = len(program.steps) if split is None else split
        self.late = late
        self.there = there
        self.python_calls: list[Call] = []
        first = _Writing(self)
        sizes = first.run()
        self.blocks = first.in_blocks()
        places = Places(self, first, sizes)
        self.offsets, self.nbytes = places.offsets, places.nbytes
        self.at_once, self.in_place = places.at_once, places.in_place
        self.python_calls = first.python_calls
        self.in_pieces: list[list[Call]] = []
        steps = program.steps
        self.copied = {id(steps[at]): call.op.name for at, call in first.copied.items()}
        self.numbers = frozenset(first.numbers)  # of the steps that are written
        self.done_in_blocks(places.blocks)

    def done_in_blocks(self, blocks: list[tuple[int, int, int]]) -> None:
        """Say of calls that these stretches are done block by block."""
        steps = self.program.steps
        self.blocks = blocks
        self.ahead: dict[int, str] = {}
        self.behind: dict[int, str] = {}
        for low, head, high in blocks:
            name = steps[head].op.name  # type: ignore[union-attr]
            for at in self.numbers.intersection(range(low, high + 1)) - {head}:
                (self.ahead if at < head else self.behind)[id(steps[at])] = name


class Gate(NamedTuple):
    """A piece that tells whether to leave out so many pieces behind it: those of an ``Unless``."""

    flag: Any
    pieces: int


class Instance:
    """A block of memory, and a program's calls written for it.

    ``run`` runs the first stage; ``results`` are the arrays of its outputs then. Those that lie in the block are lent,
    and while somebody holds one of them the instance is not ``idle``; small ones are copied.
    """

    def __init__(self, blueprint: Blueprint):
        self.program = program = blueprint.program
        self.blueprint = blueprint
        if blueprint.nbytes >= _WORTH_TRIMMING:
            blueprint.backend.c.trim_memory()  # what eager runs keep for each other, the block takes the place of
        writing = _Writing(blueprint)
        writing.run(blueprint.nbytes, blueprint.offsets)
        self.blocks = writing.in_blocks()  # as planned, unless places are in the way or allow more
        blueprint.done_in_blocks(self.blocks)
        self.nbytes = blueprint.nbytes
        self.sequence = writing.sequence
        self.play = writing.sequence.play
        self.steps_of = writing.steps_of
        written = {v.root for call in program.calls for v in call.writes}
        arguments = [(writing.arrays[v], v in written) for v in program.arguments]
        early = len(arguments) - blueprint.late
        self.sequence.stage(writing.pieces[: writing.split], arguments[:early])
        self.sequence.stage(writing.pieces[writing.split :], arguments[early:])
        settled = [] if blueprint.early is not None else only_read(program, blueprint.kept)
        if settled:
            self.sequence.settle(_settling(self, settled), settled, bool(blueprint.there))
        groups = [list(dict.fromkeys(self.steps_of[first:end])) for first, end in self.sequence.joined]
        blueprint.in_pieces = [group for group in groups if len(group) > 1]
        number = {v: i for i, v in enumerate(program.arguments)}
        self.outputs: list[tuple[Any, int, int]] = []  # array, how it is handed out, number of the argument that it is
        shown_first = len(program.outputs) if blueprint.early is None else blueprint.early
        for i, v in enumerate(program.outputs):
            if v in number and i >= shown_first and number[v] < early:  # a gradient that the first stage was given
                self.outputs.append((writing.get(v), _COPIED, 0))
            elif v in number:
                self.outputs.append((None, _GIVEN, number[v] - (early if i >= shown_first else 0)))
            elif v.root.array is not None:
                self.outputs.append((writing.get(v), _FIXED, 0))
            else:
                small = i < blueprint.shown and v.nbytes <= _SMALL and v.root is v
                how = _COPIED if small else _LENT if i < shown_first else _LEASED
                self.outputs.append((writing.get(v), how, 0))
        arrays = [array for array, _, _ in self.outputs]
        # What is handed out is on the same memory, and a view of no array: whoever has it may keep it. The first
        # stage's arrays are the same ones in each run. The second stage's go to a backward pass, which keeps as a
        # gradient, without a copy, what nobody else has: each is a new one, with a lease that is held instead.
        self.handed = [
            lend(array, [array]) if how == _LENT else [array] if how == _LEASED else None
            for array, how, _ in self.outputs
        ]
        self.kept = [writing.get(v) for v in blueprint.kept]
        self.token = np.empty(0)  # held by whoever needs what lies in the block
        self.early = early = len(self.outputs) if blueprint.early is None else blueprint.early
        self.lent: list[Any] = [self.token, *(one for one in self.handed[:early] if one is not None)]
        # the first of these is held by whoever runs the second stage
        self.lent_late: list[Any] = [np.empty(0), *(one for one in self.handed[early:] if one is not None)]
        del writing
        others = self._others(0, early), self._others(early, len(self.outputs))
        # counted when all who ever hold them do
        self.counts, self.counts_late = native.references(self.lent), native.references(self.lent_late)
        # for the usual call, which C makes
        self.packed = (
            self.lent, self.counts, arrays[:early], others[0], self.play, self._failed, self.lent_late,
            self.counts_late, arrays[early:], others[1], self,
        )  # fmt: skip

    def _others(self, first: int, last: int) -> tuple[Any, ...]:
        """What of a stage's outputs is not handed out as it is."""
        handed = enumerate(zip(self.outputs[first:last], self.handed[first:last], strict=True))
        return tuple([(i, how, at, lent) for i, ((_, how, at), lent) in handed if how != _FIXED])

    def beside(self, there: dict[Value, Any]) -> Any:
        """A sequence of the same calls in the same block, which read these arguments where these arrays lie; None if
        they are others so."""
        writing = _Writing(self.blueprint, there)
        fits = writing.run_beside(self.sequence, self.blueprint.offsets)
        if not fits or len(writing.steps_of) != len(self.steps_of):
            return None
        writing.sequence.stage(writing.pieces, [])
        return writing.sequence

    @property
    def idle(self) -> bool:
        return unheld(self.lent, self.counts)

    def run(self, given: list[Any]) -> bool:
        """Run the first stage on these arrays for its arguments; the second is C's. False if they would have to lie
        elsewhere."""
        try:
            return bool(self.play(0, given))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised, and says where
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> Exception:
        """The error as the op raises it, with the place that the call comes from."""
        at = self.sequence.at  # beyond all calls where Python failed, which has said it
        return placed(error, self.steps_of[at] if at < len(self.steps_of) else None, self.program)

    def results(self, given: list[Any], *, copied: bool = False) -> list[Any]:
        """The arrays of the first stage's outputs; ``copied``: nothing is lent."""
        most = _LENT if copied else _COPIED
        return [
            given[at]
            if how == _GIVEN
            else array
            if how == _FIXED
            else array.copy()
            if how <= most or not _is_still(lent, array)
            else lent
            for (array, how, at), lent in zip(self.outputs[: self.early], self.handed[: self.early], strict=True)
        ]


def there(array: Any) -> Any:
    """An array on the same memory, which may go."""
    return local.plain[np.ndarray].backend.c.Sequence.there(array)


def only_read(program: Program, kept: Sequence[Value] = ()) -> list[int]:
    """The numbers of arguments that a run may read where they lie: large ones, in rows, that nobody writes to and of
    which no part is handed out, nor anything kept."""
    written = {v.root for call in program.calls for v in call.writes}
    parts = {v.root for v in program.outputs if v.root is not v} | {v.root for v in kept}
    found = [
        i
        for i, v in enumerate(program.arguments)
        if v.root is v and v not in written and v not in parts and v.nbytes >= _LARGE
    ]
    return found if len(set(program.arguments)) == len(program.arguments) else []


def _settling(instance: Instance, numbers: list[int]) -> Callable[[list[Any]], Any]:
    """What the instance's sequence asks; it does not keep the instance alive."""
    known = weakref.ref(instance)

    def ask(given: list[Any]) -> Any:
        one = known()
        assert one is not None  # it is running
        arguments = one.program.arguments
        return one.beside({arguments[i]: there(given[i]) for i in numbers})

    return ask


def _is_still(lent: Any, array: Any) -> bool:
    """Whether nobody has changed what an array that was lent is (its shape, say, which can be set)."""
    same = lent.dtype == array.dtype and lent.shape == array.shape and lent.strides == array.strides
    return bool(same and lent.flags.writeable)


_GIVEN, _FIXED, _COPIED, _LENT, _LEASED = range(5)


class _Writing:
    """One pass of a program's calls into a sequence."""

    def __init__(self, blueprint: Blueprint, there: Mapping[Value, Any] | None = None):
        self.program = blueprint.program
        self.without = blueprint.there  # arguments that have no place in the block
        self.there = self.without if there is None else there  # arrays of those that are not brought to it
        self.split_at = blueprint.split
        self.backend = blueprint.backend
        self.sequence = blueprint.backend.c.Sequence()
        self.make = blueprint.backend.c.empty
        self.pieces: list[Any] = []
        self.split = 0
        self.arrays: dict[Value, Any] = {}
        self.born: list[int] = []  # by allocation: the step in which it was made
        self.python_calls: list[Call] = []
        self.known = {id(call) for call in blueprint.python_calls}  # could not be written before
        self.steps_of: list[Call] = []  # by call of the sequence
        self.numbers: list[int] = []  # of these steps
        self.parts: dict[int, list[Part]] = {}  # of steps that are definitions
        self.placed = placements(blueprint.program, self.backend.places, self.split_at)
        self.copied: dict[int, Call] = {}  # by step that has nothing to copy: who has written there

    def place(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.make(np.empty(0, dtype), shape)

    def get(self, what: Any) -> Any:
        if type(what) is Value:
            return what.array if what.array is not None else self.arrays[what]
        if type(what) in (list, tuple):
            return type(what)(map(self.get, what))
        return what

    def run(self, *places: Any) -> list[int]:
        """Write everything, into these places if they are known; the sizes of all that is allocated."""
        self.sequence.begin(*places or (self.program.foreign,))
        try:
            self.write()
        except BaseException:
            with suppress(RuntimeError):  # it would complain of what is missing
                self.sequence.end()
            raise
        sizes: list[int] = self.sequence.end()
        return sizes

    def run_beside(self, other: Any, offsets: list[int]) -> bool:
        """Write everything again, into the places of another sequence; whether the allocations are as planned."""
        self.sequence.begin_beside(other, offsets)
        try:
            self.write()
        except BaseException:
            with suppress(RuntimeError):  # as in run
                self.sequence.end()
            raise
        try:
            self.sequence.end()
        except RuntimeError:  # there were others
            return False
        return True

    def write(self) -> None:
        program = self.program
        for value in program.arguments:
            place = None if value in self.without else self.place(value.shape, value.dtype)
            self.arrays[value] = self.there.get(value, place)
        self.count(-1)
        start = 0
        for at, step in enumerate(program.steps):
            if at == self.split_at:
                start = self.cut(start)
                self.split = len(self.pieces)
            start = self.write_step(at, step, start)
            self.count(at)
        self.cut(start)
        if self.split_at >= len(program.steps):
            self.split = len(self.pieces)

    def write_step(self, at: int, step: Call | Action, start: int) -> int:
        """Write a step, of a stretch that starts at this number of a call; the number that it starts at then."""
        if isinstance(step, Action):
            start = self.cut(start)
            self.pieces.append(step.run)
            return start
        if isinstance(step, Unless):
            start = self.cut(start)
            gate = len(self.pieces)
            self.pieces.append(None)
            for each in step.steps:
                start = self.write_step(at, each, start)
            start = self.cut(start)
            self.pieces[gate] = Gate(self.get(step.flag), len(self.pieces) - gate - 1)
            return start
        if at in self.copied or (step.results and all(v in self.arrays for v in step.results)):
            return start  # done with the call that writes there
        inputs = [self.get(x) for x in step.inputs]
        attrs = {key: self.get(x) for key, x in step.attrs.items()}
        made = self._written_there(at, step, inputs, attrs) if at in self.placed else None
        if made is None and id(step) not in self.known:
            parts: list[Part] = []
            made = written(self.backend, self.sequence, step.op, inputs, attrs, parts)
            if parts and step is self.program.steps[at]:
                self.parts[at] = parts
        if made is not None:
            self._name(step, made)
            new = int(self.sequence.calls) - len(self.steps_of)
            self.steps_of += [step] * new
            self.numbers += [at] * new
            return start
        start = self.cut(start)
        self.python_calls.append(step)
        targets = [None if v is None else self.place(v.shape, v.dtype) for v in step.results]
        self._name(step, targets)
        self.pieces.append(
            _python_call(self.program, step, getattr(self.backend.raw, step.op.name), inputs, attrs, targets)
        )
        return start

    def _written_there(self, at: int, call: Call, inputs: list[Any], attrs: dict[str, Any]) -> Any:
        """The results at the places that they would be copied to; None if the kernel can't write there."""
        placement: Placement = self.placed[at]
        whole = placement.whole
        calls, allocations = self.sequence.calls, self.sequence.allocations
        arrays = {whole: self.place(whole.shape, whole.dtype)}
        for i in placement.views:
            view: Any = self.program.steps[i]
            given = [arrays[x] if type(x) is Value else x for x in view.inputs]
            views = written(self.backend, self.sequence, view.op, given, view.attrs)
            arrays[view.results[0]] = None if views is None else views[0]
        into = [None if v is None else arrays[v] for v in placement.targets]
        made = None
        if not any(_overlap(a, b) for i, a in enumerate(into) if a is not None for b in into[:i] if b is not None):
            made = written(self.backend, self.sequence, call.op, inputs, {**attrs, "into": into})
        if made is None:
            self.sequence.rewind(calls, allocations)
            return None
        self.arrays.update(arrays)
        self.copied.update(dict.fromkeys(placement.copies, call))
        return made

    def _name(self, call: Call, made: Any) -> None:
        for value, array in zip(call.results, made, strict=True):
            if value is not None:
                if tuple(array.shape) != value.shape:
                    raise CompileError(
                        f"compile: {call.op.name} gives {tuple(array.shape)}, {value.shape} was expected."
                    )
                self.arrays[value] = array

    def cut(self, start: int) -> int:
        """End a stretch; a number that the next one starts from."""
        end = int(self.sequence.calls)
        if end > start:
            self.pieces.append((start, end))
        return end

    def in_blocks(self) -> list[tuple[int, int, int]]:
        """Stretches of steps that are done block by block: the numbers of the first, the head and the last."""
        found = [each for piece in self.pieces if type(piece) is tuple for each in self.sequence.in_blocks(*piece)]
        return [(self.numbers[first], self.numbers[head], self.numbers[last]) for first, head, last in found]

    def count(self, at: int) -> None:
        self.born += [at] * (int(self.sequence.allocations) - len(self.born))


def _overlap(a: Any, b: Any) -> bool:
    most: Any = 1000  # steps of the search; the stubs know of two numbers alone
    try:
        return bool(np.shares_memory(a, b, max_work=most))
    except RuntimeError:  # too hard to say
        return True


def _python_call(
    program: Program, step: Call, kernel: Any, inputs: list[Any], attrs: dict[str, Any], targets: list[Any]
) -> Callable[[], None]:
    def call() -> None:
        try:
            outputs = kernel(*inputs, **attrs)
        except Exception as error:  # noqa: BLE001 - it is raised, and says where
            raise placed(error, step, program) from None
        made = outputs if isinstance(outputs, tuple) else (outputs,)
        for target, array in zip(targets, made, strict=True):
            if target is not None:
                target[...] = array

    return call


def writes(program: Program) -> bool:
    """Whether the calls of a program can be written."""
    if not local.plain[np.ndarray].backend.writes_programs or native is None:
        return False
    if any(call.kind is not np.ndarray for call in program.all_calls):
        return False  # some of it is computed elsewhere
    return not program.strided  # in a block arguments are contiguous


def blueprint(program: Program, **settings: Any) -> Blueprint | None:
    """A program's blueprint, with its further arguments; None where another backend computes."""
    return Blueprint(program, local.plain[np.ndarray].backend, **settings) if writes(program) else None


def _unheld(arrays: list[Any], counts: tuple[int, ...]) -> bool:
    raise RuntimeError("an instance was made without the extension")


lend: Any = None if native is None else native.lend
unheld: Callable[[list[Any], tuple[int, ...]], bool] = _unheld if native is None else native.unheld
