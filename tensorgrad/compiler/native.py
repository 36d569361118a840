"""A program for the C++ backend: its kernels' calls written into a ``Sequence``, its memory planned to the byte.

The calls are written twice. The first time shows what is allocated, and between which calls each array is needed; then
places are found in one block, and the calls are written again with these addresses. Nothing is computed meanwhile:
what a kernel allocates has an address, and no memory the first time.

A kernel that is Python (a generic one, or one that looks at its inputs' elements) is called as it is, between two
stretches of the sequence, and its results are copied to their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..autograd.node import describe_line
from ..core import native
from ..dispatch import local
from ..errors import CompileError
from ..ops.record import as_ours
from .places import Places
from .program import Action, Call, Program, Value
from .writable import written

__all__ = ["Blueprint", "Instance", "blueprint"]

_WORTH_TRIMMING = 1 << 24  # bytes of a block
_SMALL = 4096  # bytes: a result that is copied rather than lent


class Blueprint:
    """What all instances of a program share: where everything lies in their block.

    Args:
        program: what to run.
        split: the number of the step with which its second stage begins (a backward pass); None: there is one stage.
        late: how many of the last arguments the second stage is given.
        early: how many of the outputs are the first stage's; None: all.
        shown: how many of the first outputs are handed to the user, who may keep them: small ones are copied.
        kept: values that somebody may want the arrays of.
    ``nbytes``: of an instance's block. ``at_once``: the most of it that is needed at one time. ``in_place``: calls
    whose result takes the place of an operand. ``python_calls``: calls that are Python between two stretches.
    """

    def __init__(
        self, program: Program, backend: Any, split: int | None = None, late: int = 0, early: int | None = None,
        kept: Sequence[Value] = (), shown: int = 0,
    ):  # fmt: skip
        self.program = program
        self.early = early
        self.kept = kept
        self.shown = shown
        self.backend = backend
        self.split = len(program.steps) if split is None else split
        self.late = late
        first = _Writing(self)
        sizes = first.run()
        places = Places(self, first, sizes)
        self.offsets, self.nbytes = places.offsets, places.nbytes
        self.at_once, self.in_place = places.at_once, places.in_place
        self.python_calls = first.python_calls


class Instance:
    """A block of memory, and a program's calls written for it.

    ``run`` runs the first stage; ``results`` are the arrays of its outputs then. Those that lie in the block are lent,
    and while somebody holds one of them the instance is not ``idle``; small ones are copied.
    """

    def __init__(self, blueprint: Blueprint):
        program = blueprint.program
        if blueprint.nbytes >= _WORTH_TRIMMING:
            blueprint.backend.c.trim_memory()  # what eager runs keep for each other, the block takes the place of
        writing = _Writing(blueprint)
        writing.run(blueprint.nbytes, blueprint.offsets)
        self.nbytes = blueprint.nbytes
        self.sequence = writing.sequence
        self.play = writing.sequence.play
        self.steps_of = writing.steps_of
        written = {v.root for call in program.calls for v in call.writes}
        arguments = [(writing.arrays[v], v in written) for v in program.arguments]
        early = len(arguments) - blueprint.late
        self.sequence.stage(writing.pieces[: writing.split], arguments[:early])
        self.sequence.stage(writing.pieces[writing.split :], arguments[early:])
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
                self.outputs.append((writing.get(v), _COPIED if small else _LENT, 0))
        arrays = [array for array, _, _ in self.outputs]
        # whoever is lent an array may keep it as its own: it has the array's memory, and a lease in place of a base
        self.leases = [[array] if how == _LENT else None for array, how, _ in self.outputs]
        self.kept = [writing.get(v) for v in blueprint.kept]
        self.token = np.empty(0)  # held by whoever needs what lies in the block
        self.early = early = len(self.outputs) if blueprint.early is None else blueprint.early
        self.lent: list[Any] = [self.token, *(lease for lease in self.leases[:early] if lease is not None)]
        # the first of these is held by whoever runs the second stage
        self.lent_late: list[Any] = [np.empty(0), *(lease for lease in self.leases[early:] if lease is not None)]
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
        handed = enumerate(zip(self.outputs[first:last], self.leases[first:last], strict=True))
        return tuple([(i, how, at, lease) for i, ((_, how, at), lease) in handed if how != _FIXED])

    @property
    def idle(self) -> bool:
        return unheld(self.lent, self.counts)

    def run(self, given: list[Any]) -> None:
        """Run the first stage on these arrays for its arguments; the second is C's."""
        try:
            self.play(0, given)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised, and says where
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> Exception:
        """The error as the op raises it, with the user's line that the call comes from."""
        at = self.sequence.at
        step = self.steps_of[at] if at < len(self.steps_of) else None
        if step is not None and step.line is not None and error.args and isinstance(error.args[0], str):
            error.args = (f"{error.args[0]} (in a compiled function, at {describe_line(step.line)})", *error.args[1:])
        return as_ours(error) if isinstance(error, IndexError) else error

    def results(self, given: list[Any], *, copied: bool = False) -> list[Any]:
        """The arrays of the first stage's outputs; ``copied``: nothing is lent."""
        most = _LENT if copied else _COPIED
        return [
            given[at]
            if how == _GIVEN
            else array
            if how == _FIXED
            else array.copy()
            if how <= most
            else lend(array, lease)
            for (array, how, at), lease in zip(self.outputs[: self.early], self.leases[: self.early], strict=True)
        ]


_GIVEN, _FIXED, _COPIED, _LENT = range(4)


class _Writing:
    """One pass of a program's calls into a sequence."""

    def __init__(self, blueprint: Blueprint):
        self.program = blueprint.program
        self.split_at = blueprint.split
        self.backend = blueprint.backend
        self.sequence = blueprint.backend.c.Sequence()
        self.make = blueprint.backend.c.empty
        self.pieces: list[Any] = []
        self.split = 0
        self.arrays: dict[Value, Any] = {}
        self.born: list[int] = []  # by allocation: the step in which it was made
        self.python_calls: list[Call] = []
        self.steps_of: list[Call] = []  # by call of the sequence

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

    def write(self) -> None:
        program = self.program
        kernels = self.backend.raw
        for value in program.arguments:
            self.arrays[value] = self.place(value.shape, value.dtype)
        self.count(-1)
        start = 0
        for at, step in enumerate(program.steps):
            if at == self.split_at:
                start = self.cut(start)
                self.split = len(self.pieces)
            if isinstance(step, Action):
                start = self.cut(start)
                self.pieces.append(step.run)
                continue
            kernel = getattr(kernels, step.op.name)
            inputs = [self.get(x) for x in step.inputs]
            attrs = {key: self.get(x) for key, x in step.attrs.items()}
            made = written(self.backend, self.sequence, step.op, inputs, attrs)
            if made is not None:
                self._name(step, made)
                self.steps_of += [step] * (int(self.sequence.calls) - len(self.steps_of))
            else:
                start = self.cut(start)
                self.python_calls.append(step)
                targets = [None if v is None else self.place(v.shape, v.dtype) for v in step.results]
                self._name(step, targets)
                self.pieces.append(_python_call(kernel, inputs, attrs, targets))
            self.count(at)
        self.cut(start)
        if self.split_at >= len(program.steps):
            self.split = len(self.pieces)

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

    def count(self, at: int) -> None:
        self.born += [at] * (int(self.sequence.allocations) - len(self.born))


def _python_call(kernel: Any, inputs: list[Any], attrs: dict[str, Any], targets: list[Any]) -> Callable[[], None]:
    def call() -> None:
        outputs = kernel(*inputs, **attrs)
        made = outputs if isinstance(outputs, tuple) else (outputs,)
        for target, array in zip(targets, made, strict=True):
            if target is not None:
                target[...] = array

    return call


def blueprint(program: Program, **settings: Any) -> Blueprint | None:
    """A program's blueprint, with its further arguments; None where another backend computes."""
    backend = local.plain[np.ndarray].backend
    if not backend.writes_programs or native is None:
        return None
    if any(call.kind is not np.ndarray for call in program.calls):
        return None  # some of it is computed elsewhere
    if program.strided:
        return None  # in a block arguments are contiguous
    return Blueprint(program, backend, **settings)


def _unheld(arrays: list[Any], counts: tuple[int, ...]) -> bool:
    raise RuntimeError("an instance was made without the extension")


lend: Any = None if native is None else native.lend
unheld: Callable[[list[Any], tuple[int, ...]], bool] = _unheld if native is None else native.unheld
