"""Elementwise calls of one shape become one formula with several results: what lies between them stays in the cache.

A *group* is open while calls may join it: a call that reads its results (vertical), or reads what it reads
(horizontal). Members move down to the place of the last one. So a group is closed by who reads a result from outside;
but sums and maxima of results, and what little is made of these, follow it instead. It is closed too where it would
keep more for its last member than the program needs at its worst step: see ``room``.

Bits stay: see ``fused``. What is stored narrower than it is computed (float16, bfloat16) is rounded on its way through
memory, so it keeps its place there.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from ...dispatch import local
from ...dtypes import PYTHON_KEYS, of_array
from ...expr import Program as Formula
from ...expr import lower
from ...expr.node import call as node
from ...expr.node import symbol
from ...ops.elementwise import Elementwise, broadcast_shape
from ..fused import Fused, Joiner, fused
from ..program import UNASKED, Action, Call, Program, Value
from .memory import Memory, rewritten
from .room import Room
from .summing import reduced

__all__ = ["CODE", "PORTS", "formula_of", "key_of", "lies_so", "run"]

PORTS = 16  # arrays that a formula reads and writes: more of them than a core follows streams
CODE = 160  # instructions
_FOLLOW = frozenset(("sum", "mean", "sum_to", "amax", "amin", "logsumexp", "vector_norm"))
_FEW = 1024  # bytes: whoever makes no more of what followers have made follows too,
_SMALL = 32  # or so many times less than a result of the group has


class Group:
    """Calls that become one."""

    def __init__(self, shape: tuple[int, ...], kind: type, steps: tuple[int, ...]):
        self.shape = shape
        self.kind = kind
        self.layout = steps
        self.members: list[tuple[int, Call, Formula]] = []
        self.made: set[Value] = set()
        self.reads: dict[Value, int] = {}  # from outside: the first member that does
        self.followers: list[tuple[int, Call]] = []
        self.late: set[Value] = set()  # results of followers
        self.weight = 0
        self.place = -1  # of the last member, once nobody is to follow

    def add(self, at: int, call: Call, formula: Formula) -> None:
        self.members.append((at, call, formula))
        self.weight += len(formula.code)
        for value in call.reads():
            if value not in self.made:
                self.reads.setdefault(value, at)
        self.made.update(v for v in call.results if v is not None)

    def take(self, other: Group) -> None:
        self.members = sorted(self.members + other.members, key=lambda m: m[0])
        self.made |= other.made
        for value, at in other.reads.items():
            self.reads[value] = min(at, self.reads.get(value, at))
        for value in [v for v in self.reads if v in self.made]:
            del self.reads[value]
        self.followers += other.followers
        self.late |= other.late
        self.weight += other.weight


class _Fusing:
    def __init__(self, program: Program, *, trailing: bool = True):
        self.program = program
        self.trailing = trailing
        self.memory = Memory.of(program)
        self.room = Room(program)
        self.groups: list[Group] = []
        self.open: list[Group] = []
        self.maker: dict[Value, Group] = {}  # of results of open groups, and of their followers
        self.placed: list[tuple[int, Call | Action]] = []
        self.readers = program.readers
        self.homes: dict[Value, Group] = {}  # of all groups' results
        self.places: dict[Value, int] = {}  # of other calls' results
        self.numbers = _numbers_of(program, self.memory)
        self.elements = _elements_of(program)

    def run(self) -> Program:
        behind = 0
        for at, step in enumerate(self.program.steps):
            if isinstance(step, Action):
                self.placed.append((at, step))
                continue
            formula = formula_of(step, self.memory)
            if self.trailing and self.trails(at, step):
                behind += formula is not None
            elif formula is None:
                self.outside(at, step)
            else:
                self.inside(at, step, formula)
        notes: list[str] = []
        for group in self.open:
            group.place = group.members[-1][0]
        order: list[tuple[tuple[int, int], Call | Action]] = [((at, 0), step) for at, step in self.placed]
        for group in self.groups:
            if len(group.members) == 1:
                order.append(((group.place, 0), group.members[0][1]))
            else:
                order.append(((group.place, 0), self.joined(group, notes)))
            order += [((max(at, group.place), 1 + i), call) for i, (at, call) in enumerate(group.followers)]
        made = self.program
        if notes:
            order.sort(key=lambda pair: pair[0])
            made = rewritten(self.program, [step for _, step in order], "formulas", notes)
            made.needed, made.tight = self.program.needed, self.program.tight
        # those behind a group may be formulas among themselves
        return _Fusing(made, trailing=False).run() if behind > 1 else made

    # --- who goes where

    def outside(self, at: int, call: Call) -> None:
        """A call that is no formula: groups whose results it reads are closed, unless it can wait behind one."""
        met = self.met(call)
        if len(met) == 1 and call.op.name in _FOLLOW and not call.writes and call.results[0] is not None:
            (group,) = met
            if not any(v in group.late for v in call.reads()):
                self.follow(at, call, group)
                # they read what they sum one after the other, and all of it is there until then
                stored = self.followed(group)
                if stored and not self.has_room(at, group, more=max(v.nbytes for v in stored)):
                    self.close(group)
                return
        for group in met:
            self.close(group)
        self.placed.append((at, call))
        self.places.update((v, at) for v in call.results if v is not None)

    def trails(self, at: int, call: Call) -> bool:
        """Whether the call makes little of what followers of one group have made; then it follows as well."""
        results = [v for v in call.results if v is not None]
        met = self.met(call)
        led = [group for group in met if any(v in group.late or v.root in group.late for v in call.reads())]
        if len(led) != 1 or not results or call.writes or call.draws:
            return False
        (group,) = led
        made = any(v in group.made or v.root in group.made for v in call.reads())
        few = max(_FEW, prod(group.shape) * results[0].dtype.itemsize // _SMALL)
        if made or any(v.nbytes > few or v.shape == group.shape for v in results):
            return False
        for other in met:
            if other is not group:
                self.close(other)
        self.follow(at, call, group)
        return True

    def follow(self, at: int, call: Call, group: Group) -> None:
        group.followers.append((at, call))
        late = [v for v in call.results if v is not None]
        group.late.update(late)
        self.maker.update(dict.fromkeys(late, group))
        self.places.update((v, at) for v in late)

    def inside(self, at: int, call: Call, formula: Formula) -> None:
        result = next(v for v in call.results if v is not None)
        above = self.above(at, call, formula, result)
        if above is not None:
            above.add(above.place, call, formula)
            self.homes.update((v, above) for v in call.results if v is not None)
            return
        joined: Group | None = None
        for group in self.met(call):
            fits = group.shape == result.shape and group.kind is call.kind and group.layout == result.strides_in_items
            if not fits or any(v in group.late for v in call.reads()) or not self.can_wait(group, at):
                self.close(group)
            elif joined is None:
                joined = group
            elif (
                self.ports(joined, group, call) <= PORTS
                and joined.weight + group.weight <= CODE
                and self.lie_alike(joined, group, call)
                and self.has_room(at, joined, group)
            ):
                joined.take(group)
                self.maker.update(dict.fromkeys(group.made | group.late, joined))
                self.open.remove(group)
                self.groups.remove(group)
            else:
                self.close(group)
        if joined is None:
            joined = self.beside(at, call, result)
        if joined is not None and (
            self.ports(joined, None, call) > PORTS
            or joined.weight + len(formula.code) > CODE
            or not self.lie_alike(joined, None, call)
        ):
            if self.maker.get(next(call.reads(), result)) is joined or any(v in joined.made for v in call.reads()):
                self.close(joined)
            joined = None
        if joined is None:
            joined = Group(result.shape, call.kind, result.strides_in_items)
            self.groups.append(joined)
            self.open.append(joined)
        else:
            self.room.take(joined.reads, joined.made, self.followed(joined), at)
        joined.add(at, call, formula)
        self.maker.update((v, joined) for v in call.results if v is not None)
        self.homes.update((v, joined) for v in call.results if v is not None)

    def met(self, call: Call) -> list[Group]:
        """The open groups whose results, or whose followers' results, the call reads."""
        found: dict[int, Group] = {}
        for value in call.reads():
            for v in (value, value.root):
                group = self.maker.get(v)
                if group is not None:
                    found[id(group)] = group
        return list(found.values())

    def beside(self, at: int, call: Call, result: Value) -> Group | None:
        """An open group that reads something as large as the result which the call reads too."""
        for group in reversed(self.open):
            if group.shape != result.shape or group.kind is not call.kind or group.layout != result.strides_in_items:
                continue
            if any(v in group.reads and v.shape == result.shape for v in call.reads()) and self.can_wait(group, at):
                return group
        return None

    def above(self, at: int, call: Call, formula: Formula, result: Value) -> Group | None:
        """A closed group that makes what the call reads, for a call of which only sums are wanted: there it costs no
        memory."""
        readers = self.readers.get(result, ())
        if len(call.results) != 1 or not readers or not all(self.sums(i, result) for i in readers):
            return None
        group = next((self.homes[v] for v in call.reads() if v in self.homes), None)
        if group is None or group.place < 0 or group.kind is not call.kind or group.weight + len(formula.code) > CODE:
            return None
        if group.shape != result.shape or group.layout != result.strides_in_items:
            return None
        if not all(v in group.made or self.is_there(v, group.place, at) for v in call.reads()):
            return None
        return group if self.ports(group, None, call) <= PORTS and self.lie_alike(group, None, call) else None

    def sums(self, at: int, value: Value) -> bool:
        """Whether the step reduces all of the value, or rows of it."""
        step = self.program.steps[at] if at >= 0 else None
        return isinstance(step, Call) and reduced(step, value) is not None

    def is_there(self, value: Value, place: int, at: int) -> bool:
        """Whether the value at step ``at`` is what it would be at a place before that."""
        home = self.homes.get(value)
        made = self.places.get(value, -1) if home is None else home.place if home.place >= 0 else place
        return made < place and self.memory.steady(value, place, at)

    def can_wait(self, group: Group, at: int) -> bool:
        """Whether what the group and its followers read is the same at this step, and may be kept until then."""
        if not all(self.memory.steady(v, first, at) for v, first in group.reads.items()):
            return False
        if not all(self.memory.steady(v, first, at) for first, c in group.followers for v in c.reads()):
            return False
        return self.has_room(at, group)

    def has_room(self, at: int, *groups: Group, more: int = 0) -> bool:
        """Whether the groups may wait for this step, where more bytes may be needed, and the worst step needs no more
        memory than now."""
        made = {v for group in groups for v in group.made}
        reads = {v for group in groups for v in group.reads if v not in self.numbers}
        followed = {v for group in groups for v in self.followed(group)}
        return self.room.is_left(reads - made, made, followed, at, more)

    def followed(self, group: Group) -> set[Value]:
        """Results that are stored for followers: sums of all elements and of rows are taken on the way. None are minded
        where there is memory enough."""
        if not self.program.tight:
            return set()
        read = [(call, v) for _, call in group.followers for v in call.reads() if v in group.made]
        return {v for call, v in read if reduced(call, v) is None}

    def ports(self, group: Group, other: Group | None, call: Call) -> int:
        """How many arrays the group would read and write with these, at most."""
        made, reads = set(group.made), set(group.reads)
        if other is not None:
            made |= other.made
            reads |= set(other.reads)
        reads |= set(call.reads())
        return len({v for v in reads - made if v not in self.numbers}) + self.needed(made) + len(call.results)

    def lie_alike(self, group: Group, other: Group | None, call: Call) -> bool:
        """Whether results of the group with these would lie as they do in their calls."""
        reads = {*group.reads, *call.reads(), *(other.reads if other is not None else ())}
        made = group.made | (other.made if other is not None else set())
        result = next(iter(group.made))
        arrays = [v for v in reads - made if v not in self.numbers]
        if all(len(v.shape) < len(result.shape) for v in arrays):  # a number of one element has its dims alone
            return False
        return lies_so(result, [self.elements.get(v, v) for v in arrays])

    def read_as(self, reads: Iterable[Value], shape: tuple[int, ...]) -> dict[Value, Value]:
        """The arrays of a formula with results of this shape: elements for their views, where others give the shape."""
        arrays = [v for v in reads if v not in self.numbers]
        elements = [self.elements.get(v, v) for v in arrays]
        whole = broadcast_shape("fused", *(v.shape for v in elements)) == shape
        return dict(zip(arrays, elements if whole else arrays, strict=True))

    def needed(self, made: set[Value]) -> int:
        return sum(v in self.outputs for v in made)

    @property
    def outputs(self) -> set[Value]:
        found = self.__dict__.get("_outputs")
        if found is None:
            found = self.__dict__["_outputs"] = {v.root for v in self.program.outputs}
        return found

    def close(self, group: Group) -> None:
        self.open.remove(group)
        group.place = group.members[-1][0]
        for value in (*group.made, *group.late):
            del self.maker[value]

    # --- the formula of a group

    def is_read(self, value: Value, own: set[Call]) -> bool:
        """Whether others than these calls need it."""
        return any(at < 0 or self.program.steps[at] not in own for at in self.readers.get(value, ()))

    def joined(self, group: Group, notes: list[str]) -> Call:
        read_as = self.read_as(group.reads, group.shape)
        arrays = list(dict.fromkeys(read_as.values()))
        arrays.sort(key=lambda v: not (v.shape == group.shape and v.strides_in_items == group.layout))
        number = {v: i for i, v in enumerate(arrays)}
        joiner = Joiner()
        values: dict[Value, int] = {}
        stored: dict[Value, str] = {}
        for _, call, formula in group.members:
            operands: list[Any] = []
            for x in call.inputs:
                if type(x) is not Value:
                    operands.append(("number", x))
                elif x in values:
                    operands.append(("value", values[x]))
                elif x in self.numbers:
                    operands.append(("number", self.numbers[x]))
                else:
                    operands.append(("input", number[read_as[x]]))
            made = joiner.add(formula, operands)
            for v, index, (_, name) in zip(call.results, made, formula.outputs, strict=True):
                if v is not None:
                    values[v], stored[v] = index, name
        own = {call for _, call, _ in group.members}
        results = [v for v in values if self.is_read(v, own)]
        if not results:  # dead, and the pass that drops such calls was not asked
            results = [next(iter(values))]
        program = joiner.program([(values[v], stored[v]) for v in results], [key_of(v) for v in arrays])
        parts = tuple(call.op.name for _, call, _ in group.members)
        op = fused(program, parts)
        saved = sum(v.nbytes for v in values if v not in results)
        notes.append(f"{', '.join(parts)} became {op.name}: {saved} bytes are not stored")
        last = group.members[-1][1]
        return Call(op, group.kind, tuple(arrays), {}, tuple(results), (), last.line, last.part)


def run(program: Program) -> Program:
    """The program with its elementwise calls fused."""
    return _Fusing(program).run()


def key_of(value: Value) -> str:
    name = of_array(value.dtype).name
    return name if value.shape else name + ":0"


def formula_of(call: Call, memory: Memory) -> Formula | None:
    """The typed program of a call that may be fused; None for others."""
    if call.formula is UNASKED:
        call.formula = _formula_alone(call)
    if call.formula is None or any(v is not None and memory.written(v) for v in call.results):
        return None
    formula: Formula = call.formula
    return formula


def _formula_alone(call: Call) -> Formula | None:
    """The same, if nobody else writes to the results."""
    named = [v for v in call.results if v is not None]
    if not named or len(named) != len(call.results) or call.writes or call.draws:
        return None
    op = call.op
    if isinstance(op, Fused):
        return None if op.sums or op.rolls else op.program
    if isinstance(op, Elementwise):
        if call.attrs or not _is_formula(op.name, call.kind):
            return None
        keys = []
        for x in call.inputs:
            if type(x) is Value:
                keys.append(key_of(x))
            elif type(x) in PYTHON_KEYS:
                keys.append(PYTHON_KEYS[type(x)])
            else:
                return None
        formula = op.specialize(tuple(keys))
    elif op.name == "cast" and set(call.attrs) == {"dtype"}:
        (x,) = call.inputs
        to = of_array(named[0].dtype).name
        if to not in ("float32", "float64") or of_array(x.dtype).name not in _EXACT or x.dtype == named[0].dtype:
            return None
        formula = lower((node("cast", symbol(0), value=to),), (key_of(x),), name="cast")
    else:
        return None
    if not all(of_array(v.dtype).name in _EXACT for v in named):
        return None
    if any(v.shape != named[0].shape or v.root is not v for v in named):
        return None
    layout = named[0].strides_in_items
    if any(v.strides_in_items != layout for v in named):
        return None
    if not lies_so(named[0], call.reads()):
        return None
    return formula


def lies_so(result: Value, operands: Iterable[Value]) -> bool:
    """Whether a formula's result lies as this one, if those are its operands and any may come first: as one of its
    shape, or in C's order where all that there are lie so, whole ones of a larger array and broadcast ones."""
    operands = tuple(operands)
    layout = result.strides_in_items
    if any(v.shape == result.shape and v.strides_in_items == layout for v in operands) and all(
        step for size, step in zip(result.shape, layout, strict=True) if size != 1
    ):
        return True  # one lies as the result does: so it is with most, and the others need not be looked at
    found = False
    ordered = True
    sizes = [1] * len(result.shape)
    for v in operands:
        sizes = [max(pair) for pair in zip(sizes, (1,) * (len(sizes) - len(v.shape)) + v.shape, strict=True)]
        steps = [step for size, step in zip(v.shape, v.strides_in_items, strict=True) if size != 1]
        if v.shape == result.shape and 0 not in steps:
            found |= v.strides_in_items == result.strides_in_items
            ordered &= min(steps, default=1) > 0
        lengths = [abs(step) for step in steps if step]
        ordered &= lengths == sorted(lengths, reverse=True)
    return found or (ordered and result.contiguous and tuple(sizes) == result.shape)


# stored as they are computed: a value read from memory is the value that was stored
_EXACT = frozenset((
    "bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64", "complex64", "complex128",
))  # fmt: skip


def _is_formula(name: str, kind: type) -> bool:
    """Whether the backend runs this op as a formula, and as it runs most of them."""
    door = local.plain[kind]
    return type(getattr(door, name)) is type(door.add)


_FILLINGS = frozenset(("full", "full_as", "zeros_as"))


def _numbers_of(program: Program, memory: Memory) -> dict[Value, Any]:
    """Values that are one number everywhere: fillings, and constants of one element or spread from one."""
    found: dict[Value, Any] = {}
    for call in program.calls:
        for v in call.reads():
            if v.constant and v not in found:
                number = _spread(v)
                if number is not None:
                    found[v] = number
        if call.op.name in _FILLINGS and call.results[0] is not None:
            made = call.results[0]
            value = call.attrs.get("value", 0)
            if type(value) in PYTHON_KEYS and not memory.written(made) and of_array(made.dtype).name in _EXACT:
                found[made] = made.dtype.type(value).item()
    return found


def _elements_of(program: Program) -> dict[Value, Value]:
    """Views of a value without dimensions: inside a formula they are its one element, for which loops need no array."""
    found: dict[Value, Value] = {}
    for call in program.calls:
        if call.op.name in ("reshape", "expand") and len(call.inputs) == 1 and type(call.inputs[0]) is Value:
            source, seen = found.get(call.inputs[0], call.inputs[0]), call.results[0]
            if not source.shape and seen is not None and seen.root is source.root:
                found[seen] = source
    return found


def _spread(v: Value) -> Any:
    """The number of a constant whose elements all lie at one place; None for others."""
    if any(size != 1 and stride != 0 for size, stride in zip(v.shape, v.strides, strict=True)) or 0 in v.shape:
        return None
    if type(v.array).__module__ != "numpy" or of_array(v.dtype).name not in _EXACT:
        return None
    array: Any = v.array
    return array[(0,) * len(v.shape)].item()
