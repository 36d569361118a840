"""``Family``: programs that differ in the size of a batch alone, so that further sizes need no run to be written.

Two runs of different sizes show how every number in their programs follows from the size: it is the same in both, a
multiple of it, or it and so many more. A number that fits none of these, a third op, another order: then they are no
family. Sizes below two are never part of one: where a size is 1, arrays are broadcast.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .entry import Entry
from .program import Action, Call, Program, Value
from .signature import Signature

__all__ = ["Family", "family_of"]

_Rule = Callable[[int], Any]


class _Unlike(Exception):
    """Two programs are no family."""


class Family:
    """``entry_for(signature)``: an entry for a size that was not seen before; None if the signature is another one."""

    def __init__(self, entry: Entry, other: Entry, sizes: tuple[int, int], *, bound: bool = False):
        self.entry = entry
        self.sizes = sizes
        self.parts = self.rule(entry.signature.key, other.signature.key)
        self.values: dict[Value, tuple[Value, _Rule]] = {}  # of the entry's programs: the other's, shape and strides
        self.numbers: dict[int, _Rule] = {}  # by identity of an input or attribute: what it is for a size
        if _form(entry, bound) != _form(other, bound):
            raise _Unlike
        for one, two in zip(entry.raw, other.raw, strict=True):
            self._programs(one, two)
        if not bound:
            entry.family = other.family = self

    # --- two programs side by side

    def _programs(self, one: Program, two: Program) -> None:
        if any(len(getattr(one, x)) != len(getattr(two, x)) for x in ("steps", "arguments", "outputs")):
            raise _Unlike
        for a, b in zip(one.arguments, two.arguments, strict=True):
            self._value(a, b)
        for x, y in zip(one.steps, two.steps, strict=True):
            if isinstance(x, Action) or isinstance(y, Action):
                if not (isinstance(x, Action) and isinstance(y, Action) and x.run is y.run):
                    raise _Unlike
                continue
            if x.op is not y.op or x.kind is not y.kind or x.attrs.keys() != y.attrs.keys():
                raise _Unlike
            if len(x.inputs) != len(y.inputs) or len(x.results) != len(y.results):
                raise _Unlike
            self.numbers[id(x)] = self.rule((x.inputs, tuple(x.attrs.values())), (y.inputs, tuple(y.attrs.values())))
            for made, other in zip(x.results, y.results, strict=True):
                if (made is None) != (other is None):
                    raise _Unlike
                if made is not None and other is not None:
                    self._value(made, other)
        for a, b in zip(one.outputs, two.outputs, strict=True):
            self._value(a, b)

    def _value(self, a: Value, b: Value) -> None:
        known = self.values.get(a)
        if known is not None:
            if known[0] is not b:
                raise _Unlike
            return
        if (a.array is None) != (b.array is None) or a.dtype != b.dtype or (a.root is a) != (b.root is b):
            raise _Unlike
        if a.array is not None and b.array is not None:
            same = a.array is b.array or (a.constant and b.constant and _same_bytes(a.array, b.array))
            if not same:
                raise _Unlike
        if a.root is not a:
            self._value(a.root, b.root)
        self.values[a] = b, self.rule((a.shape, a.strides), (b.shape, b.strides))

    def rule(self, a: Any, b: Any) -> _Rule:
        """What stands in place of ``a`` for a size, where ``b`` stands for the other one. Raises _Unlike if nobody
        knows."""
        first, second = self.sizes
        if type(a) is not type(b):
            raise _Unlike
        if isinstance(a, Value):
            self._value(a, b)
            return lambda size: self.now[a]
        if isinstance(a, (list, tuple)):
            if len(a) != len(b):
                raise _Unlike
            rules = [self.rule(x, y) for x, y in zip(a, b, strict=True)]
            kind = type(a)
            return lambda size: kind([rule(size) for rule in rules])
        if isinstance(a, slice):
            cut = self.rule((a.start, a.stop, a.step), (b.start, b.stop, b.step))
            return lambda size: slice(*cut(size))
        if a is b or (type(a) not in (int, float) and _equal(a, b)) or (type(a) in (int, float) and repr(a) == repr(b)):
            return lambda size: a
        if type(a) is int:
            if a % first == 0 and a // first * second == b:
                return lambda size: a // first * size
            if a - first == b - second:
                return lambda size: a - first + size
        if type(a) is float:
            return self._float(a, b)
        raise _Unlike

    def _float(self, a: float, b: float) -> _Rule:
        first, second = self.sizes
        number = round(a * first)  # a share of the batch
        if number and number / first == a and number / second == b:
            return lambda size: number / size
        each = a / first
        if each.is_integer() and each * second == b:
            return lambda size: each * size
        if a > 1.0:  # n / (n - 1), which makes a variance unbiased
            count = round(a / (a - 1.0))
            if count % first == 0:
                per = count // first
                if per * first / (per * first - 1) == a and per * second / (per * second - 1) == b:
                    return lambda size: per * size / (per * size - 1)
        raise _Unlike

    # --- another size

    def entry_for(self, signature: Signature) -> Entry | None:
        """An entry for a signature that differs in the size alone."""
        size = self._size(signature)
        if size is None:
            return None
        self.now: dict[Value, Value] = {}
        programs = [self._program(program, size) for program in self.entry.raw]
        made = copy.copy(self.entry)
        made.family = self
        made.link(programs)
        made._stamp(signature)
        return made

    def _size(self, signature: Signature) -> int | None:
        for size in sorted({n for shape in signature.shapes for n in shape if n > 1}, reverse=True):
            if _equal(self.parts(size), signature.key):
                return size
        return None

    def _program(self, program: Program, size: int) -> Program:
        arguments = [self._at(v, size) for v in program.arguments]
        steps: list[Call | Action] = []
        for step in program.steps:
            if isinstance(step, Action):
                steps.append(step)
                continue
            for v in step.reads():
                self._at(v, size)
            inputs, attrs = self.numbers[id(step)](size)
            results = tuple(None if v is None else self._at(v, size) for v in step.results)
            writes = tuple(self._at(v, size) for v in step.writes)
            steps.append(Call(step.op, step.kind, inputs, dict(zip(step.attrs, attrs, strict=True)), results, writes,
                              step.line, step.part))  # fmt: skip
        return Program(steps, arguments, [self._at(v, size) for v in program.outputs])

    def _at(self, v: Value, size: int) -> Value:
        """The value that stands for this one."""
        if v.array is not None:
            self.now[v] = v
        found = self.now.get(v)
        if found is None:
            shape, strides = self.values[v][1](size)
            found = self.now[v] = copy.copy(v)
            found.shape, found.strides = tuple(shape), tuple(strides)
            found.root = found if v.root is v else self._at(v.root, size)
        return found


def family_of(entry: Entry, other: Entry) -> Family | None:
    """The family of two entries of a function; None if they are none."""
    if type(entry) is not type(other) or entry.conditions is not None or other.conditions is not None:
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
            except _Unlike:
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
    except _Unlike:
        return False
    return True


def _form(entry: Entry, bound: bool) -> Any:
    """What of an entry is no program: it must be equal in a family."""
    result = entry.result
    same = None if bound else [None if x is None else id(x) for x in entry.same]
    targets = [x if isinstance(x, int) else id(x) for x in getattr(entry, "targets", ())]
    return (
        repr(result.leaves), result.spec, result.made, result.passed, [x[0] for x in result.views], len(entry.cells),
        entry.bumped, entry.to_arguments, list(map(id, entry.leaves)), entry.numbers, list(map(id, entry.forgotten)),
        list(map(id, entry.expect_none)), list(map(id, entry.expect_some)), entry.refuses, len(entry.same), same,
        targets,
        [x if isinstance(x, int) else id(x) for x, _ in entry.accumulated], getattr(entry, "grad_at", None),
        getattr(entry, "live", None), getattr(entry, "count", None),
    )  # fmt: skip


def _same_bytes(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.strides == b.strides and a.tobytes() == b.tobytes())


def _equal(a: Any, b: Any) -> bool:
    found = a == b
    return found if isinstance(found, bool) else False
