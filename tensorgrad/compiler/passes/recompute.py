"""Cheap formulas are computed again in the backward pass, where forward's result would only lie and wait for it.

An eager run keeps what its backward formulas need; a program sees both ends. What a formula has made lies idle between
two steps that read it, forward's last and backward's first, while what it was made from is there for others anyway. If
memory is scarcest in that time, a second call makes it anew just before it is read again: the same formula over the
same elements, so the same bits. A result that nobody has read before is moved there, which costs nothing.

A second call costs time, so all of them together may cost no more than one part in ``_SHARE`` of the program.
"""

from __future__ import annotations

from typing import NamedTuple

from ...profiler.cost import flops, moved_bytes, product_flops
from ..program import Action, Call, Program, Value
from .formulas import formula_of
from .memory import Memory, replaced, rewritten

__all__ = ["run"]

_FROM = 1 << 25  # bytes in use at the worst: fewer are in the caches, where waiting costs nothing
_SHARE = 100  # of the program's time
_LEAST = 1 << 16  # bytes of a result that is worth a call
_PART = 100  # of what is in use at the worst: less is not worth one either
_BALANCE = 4  # floating-point operations in the time in which one byte is moved,
_OF_PRODUCTS = 16  # and those of products, which registers reuse
_SLOW = frozenset(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sinh", "cosh", "sin", "cos", "tan",
                   "erf", "erfc", "pow", "atan", "atan2", "asin", "acos", "lgamma", "digamma", "sigmoid"))  # fmt: skip
_OPERATIONS = 16  # that one of these stands for


class _Idle(NamedTuple):
    """A value between two steps: ``after`` the first (which made it, or read it last), ``before`` the second."""

    value: Value
    maker: int
    after: int
    before: int
    cost: int


class _Lives:
    """When each value's memory is needed, by the step numbers of a program."""

    def __init__(self, program: Program):
        self.program = program
        self.memory = Memory.of(program)
        self.end = len(program.steps)
        self.made: dict[Value, int] = {}
        self.readers: dict[Value, list[int]] = {}  # of the value itself
        self.last: dict[Value, int] = {}  # of its memory
        self.viewed: set[Value] = set()
        for at, step in enumerate(program.steps):
            if not isinstance(step, Call):
                continue
            for v in dict.fromkeys(step.reads()):
                self.readers.setdefault(v, []).append(at)
                self.last[v.root] = at
                if v.root is not v:
                    self.viewed.add(v.root)
            for made in step.results:
                if made is not None:
                    self.made[made] = at
                    self.last[made.root] = at
                    if made.root is not made:
                        self.viewed.add(made.root)
        for v in program.outputs:
            self.last[v.root] = self.end
        self.outputs = {v.root for v in program.outputs}

    def worst(self) -> tuple[int, int]:
        """(the step at which the most bytes of results are needed, how many)."""
        changes = [0] * (self.end + 2)
        for v, at in self.made.items():
            if v.root is v:
                changes[at] += v.nbytes
                changes[self.last[v] + 1] -= v.nbytes
        now = most = step = 0
        for at, change in enumerate(changes):
            now += change
            if now > most:
                most, step = now, at
        return step, most

    def idle(self, at: int) -> list[_Idle]:
        """Formulas' results that lie idle over a step and could be made again behind it."""
        found = []
        for value, maker in self.made.items():
            if maker >= at or self.last[value.root] <= at or value.root is not value or value.nbytes < _LEAST:
                continue
            if value in self.viewed or value in self.outputs:
                continue
            readers = self.readers.get(value, [])
            if at in readers:
                continue
            before = next(i for i in readers if i > at)
            after = max([maker, *(i for i in readers if i < at)])
            call = self.program.steps[maker]
            assert isinstance(call, Call)
            if self.can_wait(call, maker, before):
                found.append(_Idle(value, maker, after, before, 0 if after == maker else _cost(call, self.memory)))
        return found

    def can_wait(self, call: Call, maker: int, until: int) -> bool:
        """Whether the call is a formula whose operands are there at a later step, as they are, without having to be
        kept for it."""
        if len(call.results) != 1 or formula_of(call, self.memory) is None:
            return False
        result = call.results[0]
        assert result is not None
        for v in call.reads():
            if not self.memory.steady(v, maker, until):
                return False
            kept = v.root.array is not None or self.last.get(v.root, -1) >= until
            if not kept and v.root.nbytes * 16 > result.nbytes:
                return False
        return True


def run(program: Program) -> Program:
    """The program with results that only wait for the backward pass computed where that reads them."""
    notes: list[str] = []
    budget = -1
    while True:
        lives = _Lives(program)
        step, most = lives.worst()
        if most < _FROM:
            break
        waiting = [one for one in lives.idle(step) if one.value.nbytes * _PART >= most]
        if waiting and budget < 0:
            budget = sum(_cost(call, lives.memory) for call in program.calls) // _SHARE
        waiting = [one for one in waiting if one.cost <= budget]
        if not waiting:
            break
        one = max(waiting, key=lambda one: (one.value.nbytes / (1 + one.cost), -one.maker))
        budget -= one.cost
        program = _moved(program, one)
        what = "moved to" if one.after == one.maker else "computed again"
        call = lives.program.steps[one.maker]
        assert isinstance(call, Call)
        notes.append(f"{call.op.name} is {what} where it is read: {one.value.nbytes} bytes do not wait")
    return rewritten(program, program.steps, "recompute", notes) if notes else program


def _moved(program: Program, one: _Idle) -> Program:
    """The program with the idle value made before the step that reads it next."""
    maker = program.steps[one.maker]
    assert isinstance(maker, Call)
    steps: list[Call | Action] = list(program.steps)
    if one.after == one.maker:
        steps.insert(one.before, maker)
        del steps[one.maker]
    else:
        again = Value(f"{one.value.name}'", one.value)
        for i in range(one.before, len(steps)):
            step = steps[i]
            if isinstance(step, Call):
                steps[i] = replaced(step, {one.value: again})
        reader = steps[one.before]
        line = maker.line
        part = reader.part if isinstance(reader, Call) else maker.part
        steps.insert(one.before, Call(maker.op, maker.kind, maker.inputs, maker.attrs, (again,), (), line, part))
    made = Program(steps, program.arguments, program.outputs)
    made.notes = program.notes
    return made


def _cost(call: Call, memory: Memory) -> int:
    """Of a call, counted in bytes that could be moved in its time."""
    made = [v for v in call.results if v is not None]
    if not made and not call.writes:
        return 0  # it gave back its input
    given = call.op, call.inputs, call.attrs, call.results if made else call.writes
    operations = flops(*given)
    if product_flops(call.op.name, call.inputs, call.results, call.attrs) is not None:
        return moved_bytes(*given) + operations // _OF_PRODUCTS
    formula = formula_of(call, memory)
    if formula is not None:
        slow = sum(name in _SLOW for name, _, _ in formula.code)
        operations += slow * (_OPERATIONS - 1) * max(v.nbytes // int(v.dtype.itemsize) for v in made)
    return moved_bytes(*given) + operations // _BALANCE
