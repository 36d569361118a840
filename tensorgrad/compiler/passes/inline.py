"""What a few cheap operations make of arrays that its readers read anyway is computed by each of them, not stored.

A value that formulas alone read, and that can be had from what all of them read already, from small arrays or from one
array as large in its place, costs each of them some instructions on blocks that lie in the cache; storing it costs the
way to memory. ``(x - mean) / std`` in the backward pass is such a value.

The instructions are the same and are typed already, so the bits are too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...expr import Program as Formula
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import CODE, PORTS, formula_of, key_of, lies_so
from .memory import Memory, rewritten

__all__ = ["run"]

_COSTS = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "abs", "sign", "max", "min", "where", "cast", "one_minus_square"), 1),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not"), 1),
    **dict.fromkeys(("div", "sqrt", "rsqrt"), 3),
}  # in additions; what is not here costs too much
_MOST = 12  # that a value may cost each reader
_READERS = 3
_SMALL = 16  # parts of the value's bytes: an array of one of them stays in the cache
_STORED = {"f32": "float32", "f64": "float64"}


class _Plan(NamedTuple):
    """How one reader has the value: what of the maker's code it takes from its own arrays instead."""

    at: int
    known: dict[int, Value]


class _Inline:
    def __init__(self, program: Program):
        self.program = program
        self.memory = Memory.of(program)
        self.readers = {v: set(at) for v, at in program.readers.items()}  # which change as steps do
        self.steps: list[Call | Action | None] = list(program.steps)
        self.notes: list[str] = []

    def run(self) -> Program:
        for at, step in enumerate(self.program.steps):
            if not isinstance(step, Call) or formula_of(step, self.memory) is None:
                continue
            for value in [v for v in step.results if v is not None]:
                self.look_at(at, value)
        if not self.notes:
            return self.program
        return rewritten(self.program, [s for s in self.steps if s is not None], "inline", self.notes)

    def look_at(self, at: int, value: Value) -> None:
        """Have the value that step ``at`` makes computed by those who read it, if all of them can."""
        maker = self.steps[at]
        assert isinstance(maker, Call)
        formula = formula_of(maker, self.memory)
        readers = sorted(self.readers.get(value, ()))
        if formula is None or not readers or readers[0] < 0 or len(readers) > _READERS:
            return
        index, stored = formula.outputs[maker.results.index(value)]
        if _STORED.get(formula.code[index][1]) != stored:
            return
        left = self.without(maker, formula, value)
        if left is not None and not _told(left):
            return
        plans = [self.plan(maker, at, formula, index, value, reader) for reader in readers]
        calls = [plan and (plan.at, self.with_value(maker, formula, index, value, plan)) for plan in plans]
        names: dict[str, None] = {}
        if not all(each and _told(each[1]) for each in calls):
            return
        for each in calls:
            assert each is not None
            reader, call = each
            self.steps[reader] = call
            names[call.op.name] = None
            for v in call.reads():
                self.readers.setdefault(v, set()).add(reader)
        self.steps[at] = left
        del self.readers[value]
        self.notes.append(
            f"{value.nbytes} bytes of {maker.op.name} are computed in {', '.join(names)} instead of stored"
        )

    def plan(self, maker: Call, at: int, formula: Formula, index: int, value: Value, reader: int) -> _Plan | None:
        """How the reader can compute the value of the maker's code at ``index``; None if it cannot."""
        call = self.steps[reader]
        theirs = formula_of(call, self.memory) if isinstance(call, Call) else None
        if theirs is None or not isinstance(call, Call) or call.kind is not maker.kind or call is maker:
            return None
        result = call.results[0]
        assert result is not None
        if result.shape != value.shape or result.strides_in_items != value.strides_in_items:
            return None
        read = set(call.reads())
        # results of the maker that the reader reads as well need not be computed, as long as they are what they were
        known = {
            i: v
            for v, (i, _) in zip(maker.results, formula.outputs, strict=True)
            if v is not None and v is not value and v in read and self.memory.steady(v, at, reader)
        }
        cost = 0
        operands: set[Value] = set(known.values())
        more: set[Value] = set()
        needed = {index}
        for i in range(index, -1, -1):
            op, _, args = formula.code[i]
            if i not in needed or op == "const" or (i in known and i != index):
                continue
            if op == "load":
                x = maker.inputs[args[0]]
                if type(x) is Value:
                    if not self.memory.steady(x, at, reader):
                        return None
                    if x not in read and x.nbytes * _SMALL > value.nbytes:
                        more.add(x)
                    operands.add(x)
                continue
            cost += _COSTS.get(op, _MOST + 1)
            needed.update(args)
        if len(more) > 1 or any(x.nbytes > value.nbytes for x in more):
            return None
        if cost > _MOST or len(formula.code) + len(theirs.code) > CODE:
            return None
        arrays = (read - {value}) | operands
        if len(arrays) + len(call.results) > PORTS:
            return None
        if not lies_so(value, arrays):
            return None
        return _Plan(reader, {i: v for i, v in known.items() if i != index})

    def with_value(self, maker: Call, formula: Formula, index: int, value: Value, plan: _Plan) -> Call:
        """The reader, computing the value."""
        call = self.steps[plan.at]
        assert isinstance(call, Call)
        theirs = formula_of(call, self.memory)
        assert theirs is not None
        like = value.shape, value.strides_in_items
        given = [x for x in (*call.inputs, *plan.known.values(), *maker.inputs) if type(x) is Value and x is not value]
        arrays = sorted(dict.fromkeys(given), key=lambda v: (v.shape, v.strides_in_items) != like)
        joiner = Joiner()
        number = {v: ("input", i) for i, v in enumerate(arrays)}
        known = {i: number[v] for i, v in plan.known.items()}
        (made,) = joiner.part(formula, _operands(maker.inputs, number), [index], known)
        outputs = joiner.add(theirs, _operands(call.inputs, {**number, value: ("value", made)}))
        named = [(i, name) for i, (_, name) in zip(outputs, theirs.outputs, strict=True)]
        return _call(joiner, named, arrays, call.results, call, (*_parts(maker), *_parts(call)))

    def without(self, maker: Call, formula: Formula, value: Value) -> Call | None:
        """The maker, no longer making the value; None if that was all it made."""
        kept = [i for i, v in enumerate(maker.results) if v is not value]
        if not kept:
            return None
        arrays = list(dict.fromkeys(x for x in maker.inputs if type(x) is Value))
        joiner = Joiner()
        number = {v: ("input", i) for i, v in enumerate(arrays)}
        made = joiner.add(formula, _operands(maker.inputs, number))
        named = [(made[i], formula.outputs[i][1]) for i in kept]
        return _call(joiner, named, arrays, tuple(maker.results[i] for i in kept), maker, _parts(maker))


def run(program: Program) -> Program:
    """The program without results that cost their readers less than the way to memory and back."""
    return _Inline(program).run()


def _call(
    joiner: Joiner,
    outputs: list[tuple[int, str]],
    arrays: list[Value],
    results: Any,
    like: Call,
    parts: tuple[str, ...],
) -> Call:
    """A call of what was joined, of those arrays that it needs."""
    whole = joiner.program(outputs, [key_of(v) for v in arrays])
    place = {old: new for new, old in enumerate(sorted({args[0] for op, _, args in whole.code if op == "load"}))}
    code = tuple((op, kind, (place[args[0]],) if op == "load" else args) for op, kind, args in whole.code)
    left = [arrays[i] for i in place]
    op = fused(Formula(code, whole.outputs, tuple(key_of(v) for v in left)), parts)
    return Call(op, like.kind, tuple(left), {}, tuple(results), (), like.line, like.part)


def _told(call: Call) -> bool:
    """Whether what is read says how results lie. A formula that only asked an array for its shape reads it no more."""
    return all(lies_so(v, call.reads()) for v in call.results if v is not None)


def _operands(inputs: tuple[Any, ...], places: dict[Value, Any]) -> list[Any]:
    return [("number", x) if type(x) is not Value else places.get(x) for x in inputs]


def _parts(call: Call) -> tuple[str, ...]:
    return getattr(call.op, "parts", (call.op.name,))
