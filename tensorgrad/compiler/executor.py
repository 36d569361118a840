"""Who runs a program: C++ where its backend computes, who else a backend has for it, Python elsewhere.

The C++ side runs a program in a block of memory of its own, an *instance*. One that somebody still holds results of,
or that another thread runs, waits; another is taken or made.
"""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from typing import Any

from ..dispatch import local
from .failures import placed
from .native import Instance, blueprint, only_read, there, writes
from .program import Program

__all__ = ["Shelf", "executor", "in_python", "shelf_of"]

_WRITTEN_OUT = 1 << 15  # bytes of an index
_MOST_COPIED = 1 << 17  # bytes of arguments for each step: to bring more into a block takes longer than Python's calls
_PATIENCE = 3  # calls with arguments at the same addresses, until a block reads them there
_MOST = 2  # instances of a program whose results may be copied


class Shelf:
    """Instances of one program that nobody runs now."""

    def __init__(self, plan: Any):
        self.plan = plan
        self.waiting: list[tuple[Any, ...]] = []  # each as C wants to have it, itself last
        self.made = 0

    def take(self, most: int | None = None) -> Instance | None:
        """One that is idle; a new one if none is, or None if there are ``most`` already."""
        held = []
        found = None
        while found is None and self.waiting:
            packed = self.waiting.pop()  # atomic: no other thread gets it
            one = packed[-1]
            if one.idle:
                found = one
            else:
                held.append(packed)
        self.waiting[:0] = held
        if found is None and (most is None or self.made < most):
            self.made += 1
            found = Instance(self.plan)
        return found

    def put(self, one: Instance) -> None:
        self.waiting.append(one.packed)


class _InBlocks:
    """Runs a program of one stage. Results that are held for long are copied from then on."""

    def __init__(self, shelf: Shelf):
        self.shelf = shelf
        self.copying: Shelf | None = None

    def __call__(self, given: list[Any]) -> list[Any]:
        results = self.try_on(given)
        assert results is not None
        return results

    def try_on(self, given: list[Any]) -> list[Any] | None:
        """The results; None if an instance would need these arguments elsewhere."""
        shelf, copied = self.shelf, False
        one = shelf.take(_MOST)
        if one is None:
            if self.copying is None:
                self.copying = Shelf(shelf.plan)
            shelf, copied = self.copying, True
            one = shelf.take()
            assert one is not None
        try:
            return one.results(given, copied=copied) if one.run(given) else None
        finally:
            shelf.put(one)


class _OnceSettled(_InBlocks):
    """Runs a program in Python, of which arguments (by number) are too large to be copied to a block, until these have
    come to lie at the same addresses; from then on in a block that reads them there, while they do."""

    def __init__(self, program: Program, numbers: list[int], shown: int):
        super().__init__(Shelf(None))
        self.program = program
        self.numbers = numbers
        shared = {v.root for call in program.calls for v in call.writes} | {v.root for v in program.outputs}
        shared.update(program.strided)
        self.in_place = {*numbers, *(i for i, v in enumerate(program.arguments) if v.root in shared)}
        self.shown = shown
        self.in_python = in_python(program)
        self.seen: list[int] = []  # where they lay in the last call, and in how many calls before
        self.times = 0

    def __call__(self, given: list[Any]) -> list[Any]:
        results = self.try_on(given) if self.shelf.plan is not None or self._settled(given) else None
        return self.in_python(self._as_in_a_block(given)) if results is None else results

    def _as_in_a_block(self, given: list[Any]) -> list[Any]:
        """What a block would have copies of lies as these would: sums of what lies otherwise may be added up in another
        order, and no call may have other bits than the next."""
        return [x if x.flags.c_contiguous or i in self.in_place else x.copy(order="C") for i, x in enumerate(given)]

    def _settled(self, given: list[Any]) -> bool:
        """Whether they have come to lie somewhere; then there is a plan."""
        now = [given[i].__array_interface__["data"][0] for i in self.numbers]
        self.times = self.times + 1 if now == self.seen else 0
        self.seen = now
        if self.times < _PATIENCE or not all(given[i].flags.c_contiguous for i in self.in_place):
            return False
        arguments = self.program.arguments
        self.shelf.plan = self.program.linked = blueprint(
            self.program, shown=self.shown, there={arguments[i]: there(given[i]) for i in self.numbers}
        )
        return True


def shelf_of(program: Program, **settings: Any) -> Shelf | None:
    """Where instances of the program are, with ``Blueprint``'s further arguments; None where its backend has none."""
    plan = blueprint(program, **settings)
    return None if plan is None else Shelf(plan)


def executor(program: Program, shown: int | None = None) -> Callable[[list[Any]], list[Any]]:
    """A function from arrays for the program's arguments to those of its outputs, of which the first ``shown`` (all)
    go to the user."""
    runner = _runner_of(program)
    if runner is not None:
        return runner
    if not writes(program) or _repeating(program):
        return in_python(program)
    shown = len(program.outputs) if shown is None else shown
    if _copied(program) > _MOST_COPIED * len(program.steps):
        numbers = only_read(program)
        large = _copied(program) - sum(program.arguments[i].nbytes for i in numbers) > _MOST_COPIED * len(program.steps)
        return in_python(program) if large else _OnceSettled(program, numbers, shown)
    shelf = shelf_of(program, shown=shown)
    assert shelf is not None
    program.linked = shelf.plan
    return _InBlocks(shelf)


def _copied(program: Program) -> int:
    """Bytes that a block's run copies of arguments."""
    return sum(v.nbytes for v in program.arguments)


def _repeating(program: Program) -> bool:
    """Whether an index that is expanded is among the arguments: kernels take whole rows by it; in a block, where it is
    written out, they read it element by element."""
    return any(
        v.dtype.kind == "i"
        and v.nbytes >= _WRITTEN_OUT
        and any(n > 1 and not s for n, s in zip(v.shape, v.strides, strict=True))
        for v in program.arguments
    )


def _runner_of(program: Program) -> Callable[[list[Any]], list[Any]] | None:
    """Who runs the program for the backend of its calls, if that has somebody for it."""
    for kind in dict.fromkeys(call.kind for call in program.calls):
        backend = getattr(local.doors[kind], "backend", None)
        runner: Any = None if backend is None else backend.program_runner(program, in_python)
        if runner is not None:
            program.runners = [runner]
            return runner
    return None


def in_python(program: Program) -> Callable[[list[Any]], list[Any]]:
    """The program as a Python function."""
    text, names, steps = program.replay_source()
    space: dict[str, Any] = dict(names)
    exec(compile(text, "<tensorgrad program>", "exec"), space)
    replay: Callable[[list[Any]], list[Any]] = space["replay"]

    def run(given: list[Any]) -> list[Any]:
        try:
            return replay(given)
        except Exception as error:
            line = next((n for frame, n in walk_tb(error.__traceback__) if frame.f_code is replay.__code__), 0)
            said = placed(error, steps.get(line), program)
            if said is error:
                raise
            raise said from None

    return run
