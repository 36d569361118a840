"""Rows that are picked by one index and added up by another, messages along the edges of a graph, are added up where
they lie: neither they, nor their products with a weight for each edge, nor the zeros they are added to are stored.

The edges are brought together by where they go, once for all that go the same way: each sum is then made in registers
and written once. Rows come to a sum in the order of the index, so the bits stay. The indices are checked where rows
were picked and where they were added, in the names of these calls. Single numbers (a rank of each page) are brought
together only where several sums go the same way: that takes as long as to add them up as they come.

Only a backend with kernels for it (``groups_rows``) gets such calls, for float32 and float64.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ...dispatch import OPS, local
from ...ops.elementwise import Elementwise
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_INT64 = np.dtype(np.int64)
_SHARED = 3  # sums of single numbers for which they are brought together


def run(program: Program) -> Program:
    """The program with rows that are picked and added up summed in one call."""
    if not any(call.op.name in _ADDS for call in program.calls):
        return program
    return _Rewriting(program).run()


class _Picked(NamedTuple):
    """Rows of ``x``, of which ``places`` says which, as step ``at`` reads them; perhaps multiplied by
    weights."""

    x: Value
    places: Value
    negative: bool
    at: int
    weights: Value | None = None


class _Added(NamedTuple):
    base: Value | None
    places: Value
    rows: Value
    groups: int
    negative: bool
    name: str  # of the op that checks the index


class _Group:
    """What a ``grouped_rows`` gives; its positions if somebody asks."""

    def __init__(self, at: int, call: Call, named: str, added: _Added, numbers: Value | None):
        self.at, self.call, self.added, self.numbers = at, call, added, numbers
        count = added.places.shape[0]
        self.rows, self.ends = _indices(f"{named}_rows", count), _indices(f"{named}_ends", added.groups + 1)
        self.kept: Value | None = None
        self.named = named

    def positions(self) -> Value:
        if self.kept is None:
            self.kept = _indices(f"{self.named}_positions", self.added.places.shape[0])
        return self.kept

    def step(self) -> Call:
        added = self.added
        attrs = {
            "groups": added.groups, "negative": added.negative, "name": added.name, "keeps": self.kept is not None
        }  # fmt: skip
        call, results = self.call, (self.rows, self.ends, self.kept)
        inputs = (added.places, self.numbers)
        return Call(OPS["grouped_rows"], call.kind, inputs, attrs, results, (), call.line, call.part)


class _Rewriting:
    def __init__(self, program: Program):
        self.program = program
        self.memory = Memory.of(program)
        self.readers = program.readers
        self.makers = {
            v: at
            for at, step in enumerate(program.steps)
            if isinstance(step, Call)
            for v in step.results
            if v is not None
        }
        self.numbers: dict[Any, tuple[int, Value]] = {}  # by index, number of rows, and sign: where it was checked
        self.groups: dict[Any, _Group] = {}
        self.checks: dict[int, list[Call]] = {}  # before steps
        self.first: dict[int, _Group] = {}  # likewise: groups that are made there
        self.instead: dict[int, Call | None] = {}
        self.products: set[Any] = set()  # calls that multiply rows by weights
        self.single: Counter[Any] = Counter()  # sums of single numbers, by the way that they go

    def run(self) -> Program:
        for at, step in enumerate(self.program.steps):
            if isinstance(step, Call) and (found := self.found(at, step)) is not None and not found[1].rows.shape[1:]:
                self.single[_way(*found)] += 1
        notes = [
            note
            for at, step in enumerate(self.program.steps)
            if isinstance(step, Call) and (note := self.summed(at, step)) is not None
        ]
        if not notes:
            return self.program
        steps: list[Call | Action] = []
        for at, step in enumerate(self.program.steps):
            steps += self.checks.get(at, ())
            if at in self.first:
                steps.append(self.first[at].step())
            now = self.instead.get(at, step)
            if now is not None:
                steps.append(now)
        read = {x for step in steps if isinstance(step, Call) for v in step.reads() for x in (v, v.root)}
        read.update(x for v in self.program.outputs for x in (v, v.root))
        steps = [self.trimmed(step, read) if step in self.products else step for step in steps]
        return rewritten(self.program, steps, "summed_rows", notes)

    def summed(self, at: int, call: Call) -> str | None:
        """Take an addition's place with a sum; what is said of it."""
        found = self.found(at, call)
        if found is None:
            return None
        picked, added = found
        if not added.rows.shape[1:] and self.single[_way(picked, added)] < _SHARED:
            return None
        made = call.results[0]
        dropped = None
        if call.writes:  # over the memory of zeros that nobody has read: as if made here
            made, dropped = added.base, self.only_zeros(added.base, at)
            if dropped is None:
                return None
        elif made is None or made.root is not made or not made.contiguous:
            return None
        assert made is not None
        if dropped is not None:
            self.instead[dropped] = None
        base = None if added.base is None or self.zeros(added.base, at) is not None else added.base
        group = self.group(at, call, added, self.checked(picked), made.name)
        weights = None if picked.weights is None else group.positions()
        inputs = (picked.x, group.rows, group.ends, picked.weights, weights, base)
        self.instead[at] = Call(OPS["summed_rows"], call.kind, inputs, {}, (made,), (), call.line, call.part)
        gathered = self.program.steps[picked.at]
        assert isinstance(gathered, Call)
        both = f"{gathered.op.name}{'' if picked.weights is None else ', weighted,'} and {call.op.name}"
        return f"{both} became summed_rows: {added.rows.nbytes} bytes are not written and read between"

    def found(self, at: int, call: Call) -> tuple[_Picked, _Added] | None:
        """What an addition adds up, and how, if a sum could take its place."""
        added = _ADDS[call.op.name](call, self) if call.op.name in _ADDS else None
        if added is None or not local.plain[call.kind].backend.groups_rows or not _fits(added):
            return None
        picked = self.picked(added.rows, at)
        return None if picked is None else (picked, added)

    def trimmed(self, step: Any, read: set[Value]) -> Call:
        """A formula without the products that were to be added up, where it gives something else as well."""
        formula = formula_of(step, self.memory)
        kept = [i for i, v in enumerate(step.results) if v in read or self.memory.written(v)]
        if formula is None or not 0 < len(kept) < len(step.results):
            return step
        joiner = Joiner()
        arrays = [x for x in step.inputs if type(x) is Value]
        number = {id(x): i for i, x in enumerate(arrays)}
        operands = [("input", number[id(x)]) if type(x) is Value else ("number", x) for x in step.inputs]
        values = joiner.add(formula, operands)
        op = fused(
            joiner.program([(values[i], formula.outputs[i][1]) for i in kept], [key_of(x) for x in arrays]),
            getattr(step.op, "parts", (step.op.name,)),
        )
        results = tuple([step.results[i] for i in kept])
        return Call(op, step.kind, tuple(arrays), {}, results, (), step.line, step.part)

    # --- what is added

    def picked(self, rows: Value, at: int) -> _Picked | None:
        """The rows that step ``at`` adds, if they were picked from something that is still there; perhaps multiplied
        by weights."""
        made = self.maker(rows, at)
        if made is None:
            return None
        where, call = made
        if call.op.name in _PICKS:
            read = _PICKS[call.op.name](call, self)
            if read is None or read[1].shape != rows.shape[:1] or not self.memory.steady(read[0], where, at):
                return None
            return _Picked(*read, where)
        if not isinstance(call.op, Elementwise):
            return None
        factors = _factors(call, rows, self.memory)
        for one, other in (factors, factors[::-1]) if factors else ():
            if one.shape != rows.shape or not _weigh(other, rows):
                continue
            found = self.picked(one, where)
            if found is None or found.weights is not None or not self.memory.steady(found.x, where, at):
                continue
            if self.memory.steady(other, where, at):
                self.products.add(call)
                return found._replace(weights=other)
        return None

    def maker(self, value: Value, at: int) -> tuple[int, Call] | None:
        """The step that makes a value that lies as it is until step ``at``."""
        where = self.makers.get(value)
        if where is None or value.root is not value or not value.contiguous:
            return None
        call = self.program.steps[where]
        if not isinstance(call, Call) or call.writes or not self.memory.steady(value, where, at):
            return None
        return where, call

    def zeros(self, value: Value, at: int) -> int | None:
        """Where these zeros, as they are before step ``at``, were made; -1 for a constant, None for what is none."""
        if value.constant:
            array: Any = value.array
            return None if np.any(array) or np.signbit(array).any() else -1
        where = self.makers.get(value)
        call = None if where is None else self.program.steps[where]
        if where is None or not isinstance(call, Call) or call.op.name not in ("full", "full_as", "zeros_as"):
            return None
        number = call.attrs.get("value", 0)
        if isinstance(number, (Value, complex)) or number != 0 or np.signbit(number):
            return None
        return where if self.memory.steady(value, where, at) else None

    def only_zeros(self, value: Value | None, at: int) -> int | None:
        """Where zeros were made that step ``at`` is the first to touch."""
        where = None if value is None else self.zeros(value, at)
        if value is None or where is None or where < 0 or value.root is not value or not value.contiguous:
            return None
        return where if min((i for i in self.readers[value] if i >= 0), default=-1) == at else None

    def column(self, value: Any, rows: tuple[int, ...]) -> Value | None:
        """The index (n,) of which ``value`` (n, ...) is a view that repeats it along all other axes."""
        if (
            type(value) is not Value
            or value.shape != rows
            or any(s for s, n in zip(value.strides[1:], value.shape[1:], strict=True) if n != 1)
        ):
            return None
        found: Any = value
        while type(found) is Value and found.root is value.root:
            if found.shape == rows[:1]:
                return found if found.strides[0] == value.strides[0] or rows[0] == 1 else None
            call = self.program.steps[self.makers[found]] if found in self.makers else None
            if not isinstance(call, Call) or not call.op.view:
                return None
            found = call.inputs[0]
        return None

    # --- calls that are new

    def checked(self, picked: _Picked) -> Value:
        """The numbers of the picked rows, checked where they were picked."""
        call = self.program.steps[picked.at]
        assert isinstance(call, Call)
        key = picked.places, picked.x.shape[0], picked.negative
        where, numbers = self.numbers.get(key, (0, None))
        if numbers is not None and where <= picked.at and self.memory.steady(picked.places, where, picked.at):
            return numbers
        numbers = _indices(f"{picked.places.name}_numbers", picked.places.shape[0])
        self.numbers[key] = picked.at, numbers
        attrs = {"rows": picked.x.shape[0], "negative": picked.negative, "name": call.op.name}
        check = Call(OPS["row_numbers"], call.kind, (picked.places,), attrs, (numbers,), (), call.line, call.part)
        self.checks.setdefault(picked.at, []).append(check)
        return numbers

    def group(self, at: int, call: Call, added: _Added, numbers: Value, named: str) -> _Group:
        key = numbers, added.places, added.groups, added.negative
        group = self.groups.get(key)
        if group is None or not self.memory.steady(added.places, group.at, at):
            group = self.groups[key] = self.first[at] = _Group(at, call, named, added, numbers)
        return group


def _indices(name: str, count: int) -> Value:
    return Value(name, SimpleNamespace(shape=(count,), dtype=_INT64, strides=(_INT64.itemsize,)))


def _way(picked: _Picked, added: _Added) -> Any:
    return picked.places, picked.x.shape[0], picked.negative, added.places, added.groups, added.negative


def _fits(added: _Added) -> bool:
    rows, base = added.rows, added.base
    tail = rows.shape[1:]
    return (
        rows.dtype.name in ("float32", "float64")
        and rows.nbytes > 0
        and added.places.shape == rows.shape[:1]
        and added.places.dtype == _INT64
        and added.groups <= rows.shape[0]  # of fewer rows than sums the grouping takes longer than the writing
        and (base is None or (base.dtype == rows.dtype and base.shape == (added.groups, *tail)))
    )


def _weigh(weights: Value, rows: Value) -> bool:
    """Whether each row, or each stretch of it that the first of its axes make up, has one weight."""
    shape, whole = weights.shape, rows.shape
    if len(shape) != len(whole) or shape[0] != whole[0] or weights.dtype != rows.dtype:
        return False
    same = next((k for k, (n, m) in enumerate(zip(shape, whole, strict=True)) if n != m), len(shape))
    return (same < len(shape) or same == 1) and all(n == 1 for n in shape[same:])


def _factors(call: Call, result: Value, memory: Memory) -> tuple[Value, Value] | None:
    """The two arrays of which a formula's result is the product, and nothing else."""
    formula = formula_of(call, memory)
    if formula is None:
        return None
    at, _ = formula.outputs[call.results.index(result)]
    name, _, operands = formula.code[at]
    if name != "mul" or any(formula.code[i][0] != "load" for i in operands):
        return None
    one, other = [call.inputs[formula.code[i][2][0]] for i in operands]
    if type(one) is not Value or type(other) is not Value or result.dtype != one.dtype:
        return None
    return one, other


# What picks rows: x, the index, whether it may be negative.


def _index(call: Call, _: _Rewriting) -> tuple[Value, Value, bool] | None:
    return _pick(call.inputs, True) if call.attrs == {"spec": (0,)} and len(call.inputs) == 2 else None


def _index_select(call: Call, _: _Rewriting) -> tuple[Value, Value, bool] | None:
    return _pick(call.inputs, False) if call.attrs == {"dim": 0} else None


def _gather(call: Call, around: _Rewriting) -> tuple[Value, Value, bool] | None:
    x, index = call.inputs
    if call.attrs != {"dim": 0} or type(x) is not Value or type(index) is not Value or not index.shape:
        return None
    return _pick((x, around.column(index, (index.shape[0], *x.shape[1:]))), False)


def _embedding(call: Call, _: _Rewriting) -> tuple[Value, Value, bool] | None:
    return None if call.attrs else _pick(call.inputs, False)


def _pick(inputs: tuple[Any, ...], negative: bool) -> tuple[Value, Value, bool] | None:
    x, index = inputs
    if type(x) is not Value or type(index) is not Value or len(index.shape) != 1 or index.dtype != _INT64:
        return None
    return x, index, negative


_PICKS = {"index": _index, "index_select": _index_select, "gather": _gather, "embedding": _embedding}


# What adds rows up.


def _index_add(call: Call, _: _Rewriting) -> _Added | None:
    base, index, rows = call.inputs
    return _add(base, index, rows, False, "index_add") if call.attrs == {"dim": 0} else None


def _index_put(call: Call, _: _Rewriting) -> _Added | None:
    if call.attrs != {"spec": (0,), "accumulate": True} or len(call.inputs) != 3:
        return None
    base, rows, index = call.inputs
    return _add(base, index, rows, True, "index_put")


def _scatter_add(call: Call, around: _Rewriting) -> _Added | None:
    base, index, rows = call.inputs
    if call.attrs != {"dim": 0} or type(rows) is not Value or not rows.shape:
        return None
    return _add(base, around.column(index, rows.shape), rows, False, "scatter_add")


def _embedding_backward(call: Call, _: _Rewriting) -> _Added | None:
    rows, index = call.inputs
    if call.attrs["padding_idx"] is not None or type(rows) is not Value or type(index) is not Value:
        return None
    return _Added(None, index, rows, call.attrs["num_embeddings"], False, "embedding_backward")


def _add(base: Any, index: Any, rows: Any, negative: bool, name: str) -> _Added | None:
    if type(base) is not Value or type(index) is not Value or type(rows) is not Value or not base.shape:
        return None
    return _Added(base, index, rows, base.shape[0], negative, name)


_ADDS = {
    "index_add": _index_add,
    "index_add_into": _index_add,
    "index_put": _index_put,
    "index_put_into": _index_put,
    "scatter_add": _scatter_add,
    "scatter_add_into": _scatter_add,
    "embedding_backward": _embedding_backward,
}
