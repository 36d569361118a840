"""``Family``: programs that differ in the size of a batch alone, so that further sizes need no run to be written.

Two runs of different sizes show how every number in their programs follows from the size: it is the same in both, a
multiple of it, or it and so many more. A number that fits none of these, a third op, another order: then they are no
family. Sizes below two are never part of one: where a size is 1, arrays are broadcast.

A third size is served where three things hold. What Python has asked of sizes has the same answers
(``size_conditions.py``); each call's op gives the shapes that the program says (``shapes_checked.py``); and the size
lies between two of which there were runs: of a smaller or larger one the next call is a run, and its program has to be
the expected one. What Python does with a size past its methods (a ``range``, a slice of a list) comes out there.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..errors import CompileError
from .entry import Entry
from .program import Action, Call, Program, Unless, Value
from .shapes_checked import gives_its_shapes
from .signature import Signature
from .size_conditions import SizeConditions
from .sizes import Unlike, follows, number_at

__all__ = ["Family", "family_of"]

_Rule = Callable[[int], Any]


class Family:
    """``entry_for(signature)``: an entry for a size that was not seen before; None if the signature is another one.

    ``low``, ``high``: the smallest and the largest size of which there was a run. ``edge``: whether in what was
    expected last some array would have one element, or none, along an axis where it has more.
    """

    def __init__(self, entry: Entry, other: Entry, sizes: tuple[int, int], *, bound: bool = False):
        self.entry = entry
        self.sizes = sizes
        self.low, self.high = min(sizes), max(sizes)
        self.edge = False
        self.parts = self.rule(entry.signature.key, other.signature.key)
        self.values: dict[Value, tuple[Value, _Rule]] = {}  # of the entry's programs: the other's, shape and strides
        self.numbers: dict[int, _Rule] = {}  # by identity of an input or attribute: what it is for a size
        if _form(entry, bound) != _form(other, bound) or not self._goes_as(other):
            raise Unlike
        self.chains = self.rule(_chains(entry), _chains(other))
        for one, two in zip(entry.raw, other.raw, strict=True):
            self._programs(one, two)
        if entry.conditions is not None and other.conditions is not None:
            self._programs(entry.conditions.raw, other.conditions.raw)
        self.conditions: SizeConditions | None = None
        if other.sizes_read is not None and not bound:
            here = dict(self.values.values())
            self.conditions = SizeConditions(other.sizes_read, sizes, functools.partial(_shape_of, here))
        self.alone: tuple[Program, Any] | None = None  # that of the size 1, if it was written too, and its form
        if not bound:
            self.both = [(member.raw[0], member.programs[0].form) for member in (entry, other)]
            for member in (entry, other):
                member.family = member.programs[0].form.family = self

    # --- two programs side by side

    def _programs(self, one: Program, two: Program) -> None:
        if any(len(getattr(one, x)) != len(getattr(two, x)) for x in ("arguments", "outputs")):
            raise Unlike
        for a, b in zip(one.arguments, two.arguments, strict=True):
            self._value(a, b)
        self._steps(one.steps, two.steps)
        for a, b in zip(one.outputs, two.outputs, strict=True):
            self._value(a, b)

    def _steps(self, one: list[Call | Action], two: list[Call | Action]) -> None:
        if len(one) != len(two):
            raise Unlike
        for x, y in zip(one, two, strict=True):
            if isinstance(x, Action) or isinstance(y, Action):
                if not (isinstance(x, Action) and isinstance(y, Action) and x.run is y.run):
                    raise Unlike
                continue
            if isinstance(x, Unless) and isinstance(y, Unless):
                self._value(x.flag, y.flag)
                self._steps(x.steps, y.steps)
                continue
            if x.op is not y.op or x.kind is not y.kind or x.attrs.keys() != y.attrs.keys():
                raise Unlike
            if len(x.inputs) != len(y.inputs) or len(x.results) != len(y.results):
                raise Unlike
            self.numbers[id(x)] = self.rule((x.inputs, tuple(x.attrs.values())), (y.inputs, tuple(y.attrs.values())))
            for made, other in zip(x.results, y.results, strict=True):
                if (made is None) != (other is None):
                    raise Unlike
                if made is not None and other is not None:
                    self._value(made, other)

    def _value(self, a: Value, b: Value) -> None:
        known = self.values.get(a)
        if known is not None:
            if known[0] is not b:
                raise Unlike
            return
        if (a.array is None) != (b.array is None) or a.dtype != b.dtype or (a.root is a) != (b.root is b):
            raise Unlike
        if a.array is not None and b.array is not None:
            same = a.array is b.array or (a.constant and b.constant and _same_bytes(a.array, b.array))
            if not same:
                raise Unlike
        if a.root is not a:
            self._value(a.root, b.root)
        self.values[a] = b, self.rule((a.shape, a.strides), (b.shape, b.strides))

    def rule(self, a: Any, b: Any) -> _Rule:
        """What stands in place of ``a`` for a size, where ``b`` stands for the other one. Raises Unlike if nobody
        knows."""
        if type(a) is not type(b):
            raise Unlike
        if isinstance(a, Value):
            self._value(a, b)
            return lambda size: self.now[a]
        if isinstance(a, (list, tuple)):
            if len(a) != len(b):
                raise Unlike
            rules = [self.rule(x, y) for x, y in zip(a, b, strict=True)]
            kind = type(a)
            return lambda size: kind([rule(size) for rule in rules])
        if isinstance(a, slice):
            cut = self.rule((a.start, a.stop, a.step), (b.start, b.stop, b.step))
            return lambda size: slice(*cut(size))
        if a is b or (type(a) not in (int, float) and _equal(a, b)) or (type(a) in (int, float) and repr(a) == repr(b)):
            return lambda size: a
        found = follows(a, b, self.sizes) if type(a) in (int, float) else None
        if found is None:
            raise Unlike
        form, k = found
        return lambda size: number_at(form, k, size)

    # --- another size

    def entry_for(self, signature: Signature) -> Entry | None:
        """An entry for a signature that differs in the size alone; None if the programs can't be of its size, or if
        only a run can tell."""
        size = self._size(signature)
        if size is None or not self.low <= size <= self.high:
            return None
        made = self._entry(signature, size)
        if made is None:
            return None
        try:
            made.link(made.raw)
        except CompileError:
            return None
        made._stamp(signature)
        return made

    def expected(self, signature: Signature) -> Entry | None:
        """What a run of a size beyond those that there were should lead to, if the programs can be of that size."""
        size = self._size(signature)
        return None if size is None or self.low <= size <= self.high else self._entry(signature, size)

    def tells_of(self, entry: Entry) -> bool:
        """Whether a run has found gradients where the family's did, and none where they did not, and has read the same
        of tensors. A replay may serve other calls too, but a run that was another in this says nothing about sizes."""
        return self._goes_as(entry) and _gradients(entry) == _gradients(self.entry)

    def _goes_as(self, other: Entry) -> bool:
        """Whether Python has read the same truths and numbers of tensors in both runs."""
        mine, theirs = self.entry.conditions, other.conditions
        if mine is None or theirs is None:
            return mine is theirs
        return mine.trouble is None and theirs.trouble is None and mine.expected == theirs.expected

    def take(self, expected: Entry, entry: Entry) -> bool:
        """One more entry, of a run: whether it is the expected one, or may be another."""
        size = self._size(entry.signature)
        try:
            Family(expected, entry, (1, 1), bound=True)
        except Unlike:
            return self.edge
        if size is not None:
            self.low, self.high = min(self.low, size), max(self.high, size)
        entry.family = entry.programs[0].form.family = self
        return True

    def _entry(self, signature: Signature, size: int) -> Entry | None:
        if self.conditions is not None and not self.conditions.hold(size):
            return None
        self.now: dict[Value, Value] = {}
        self.edge = False
        programs = [self._program(program, size) for program in self.entry.raw]
        asked = None if self.entry.conditions is None else self._program(self.entry.conditions.raw, size)
        if not all(map(gives_its_shapes, programs if asked is None else [*programs, asked])):
            return None
        made = copy.copy(self.entry)
        if asked is not None and made.conditions is not None:
            made.conditions = made.conditions.asking(asked)
        made.family, made.raw, made.signature = self, programs, signature
        made.result = copy.copy(self.entry.result)
        chains = self.chains(size)
        made.result.views = [
            (at, base, [(op, dict(attrs)) for op, attrs in chain])
            for (at, base, _), chain in zip(self.entry.result.views, chains, strict=True)
        ]
        return made

    def note_alone(self, entry: Entry) -> None:
        """Remember a program of the size 1: a saved program may serve it too, if it does the same."""
        same = type(entry) is type(self.entry) and _equal(self.parts(1), entry.signature.key)
        if same and entry.refuses is None and _form(entry, False) == _form(self.entry, False):
            self.alone = entry.raw[0], entry.programs[0].form
            entry.programs[0].form.family = self

    def _size(self, signature: Signature) -> int | None:
        for size in sorted({n for shape in signature.shapes for n in shape if n > 1}, reverse=True):
            if _equal(self.parts(size), signature.key):
                return size
        return None

    def _program(self, program: Program, size: int) -> Program:
        arguments = [self._at(v, size) for v in program.arguments]
        return Program(self._sized(program.steps, size), arguments, [self._at(v, size) for v in program.outputs])

    def _sized(self, given: list[Call | Action], size: int) -> list[Call | Action]:
        steps: list[Call | Action] = []
        for step in given:
            if isinstance(step, Action):
                steps.append(step)
                continue
            if isinstance(step, Unless):
                steps.append(step.with_steps(self._sized(step.steps, size), self._at(step.flag, size)))
                continue
            for v in step.reads():
                self._at(v, size)
            inputs, attrs = self.numbers[id(step)](size)
            results = tuple(None if v is None else self._at(v, size) for v in step.results)
            writes = tuple(self._at(v, size) for v in step.writes)
            steps.append(Call(step.op, step.kind, inputs, dict(zip(step.attrs, attrs, strict=True)), results, writes,
                              step.line, step.part))  # fmt: skip
        return steps

    def _at(self, v: Value, size: int) -> Value:
        """The value that stands for this one."""
        if v.array is not None:
            self.now[v] = v
        found = self.now.get(v)
        if found is None:
            shape, strides = self.values[v][1](size)
            self.edge = self.edge or any(n < 2 <= m for n, m in zip(shape, v.shape, strict=True))
            array = SimpleNamespace(shape=shape, dtype=v.dtype, strides=strides)
            found = self.now[v] = Value(v.name, array, None if v.root is v else self._at(v.root, size))
        return found


def family_of(entry: Entry, other: Entry) -> Family | None:
    """The family of two entries of a function; None if they are none."""
    if type(entry) is not type(other):
        return None
    pairs = {
        (n, m)
        for one, two in zip(entry.signature.shapes, other.signature.shapes, strict=False)
        for n, m in zip(one, two, strict=False)
        if n != m
    }
    for sizes in sorted(pairs):
        if min(sizes) > 1:
            try:
                return Family(entry, other, sizes)
            except Unlike:
                continue
    return None


def is_for_all(entry: Entry, other: Entry) -> bool:
    """Whether two entries of one key, each bound to the very arguments of its call, do the same with them: then the
    first serves any. A tensor that is an argument and that the function reaches by itself too (one of a list of
    batches) is told apart so: reached by itself, it is a constant of one of the programs."""
    if type(entry) is not type(other) or entry.conditions is not None or other.conditions is not None:
        return False
    if entry.signature.key != other.signature.key or not any(x is not None for x in entry.same):
        return False
    try:
        Family(entry, other, (1, 1), bound=True)
    except Unlike:
        return False
    return True


def _shape_of(rules: dict[Value, _Rule], value: Value, size: int) -> tuple[int, ...]:
    if value not in rules:
        raise Unlike(f"Python reads the size of {value.name}, which is no part of the program")
    shape: tuple[int, ...] = rules[value](size)[0]
    return shape


def _form(entry: Entry, bound: bool) -> Any:
    """What of an entry is no program: it must be equal in a family."""
    result = entry.result
    bases = [(at, base if isinstance(base, int) else id(base)) for at, base, _ in result.views]
    same = None if bound else [None if x is None else id(x) for x in entry.same]
    targets = [x if isinstance(x, int) else id(x) for x in getattr(entry, "targets", ())]
    return (
        repr(result.leaves), result.spec, result.made, result.passed, bases, sorted(result.cut), len(entry.cells),
        entry.bumped, entry.to_arguments, list(map(id, entry.leaves)), entry.numbers, _gradients(entry), entry.refuses,
        len(entry.same), same, result.inferred,
        targets, [(id(attributes), *modes) for attributes, *modes in entry.modes],
        [x if isinstance(x, int) else id(x) for x, _ in entry.accumulated], getattr(entry, "grad_at", None),
        getattr(entry, "live", None), getattr(entry, "count", None),
    )  # fmt: skip


def _gradients(entry: Entry) -> list[list[int]]:
    return [list(map(id, leaves)) for leaves in (entry.forgotten, entry.expect_none, entry.expect_some)]


def _chains(entry: Entry) -> list[Any]:
    """The ops that make views which the function returns: sizes are among their attributes."""
    return [[(op, tuple(attrs.items())) for op, attrs in chain] for _, _, chain in entry.result.views]


def _same_bytes(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.strides == b.strides and a.tobytes() == b.tobytes())


def _equal(a: Any, b: Any) -> bool:
    found = a == b
    return found if isinstance(found, bool) else False
