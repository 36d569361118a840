"""What a formula of the backward pass computes from a forward formula's operands alone is computed there, if both need
the same exponential: GELU and its slope take little longer than GELU alone.

The part is stored in place of an operand that backward would have read, so no more is kept; where that operand has
other readers, all stays as it is. The instructions are the same, and what is stored is stored as it was computed, so
the bits are too.
"""

from __future__ import annotations

from typing import Any

from ...expr import Program as Formula
from ..fused import Joiner, fused
from ..program import Action, Call, Program, Value
from .formulas import formula_of, key_of
from .memory import Memory, rewritten

__all__ = ["run"]

_FAMILY = {"gelu_tanh_slope": "gelu_tanh", "gelu_slope": "normal_cdf"}  # they share all but a few operations
_COSTLY = frozenset((
    "exp", "exp2", "expm1", "log", "log1p", "sigmoid", "softplus", "tanh", "erf", "normal_cdf", "gelu_tanh", "sin",
    "cos", "pow",
))  # fmt: skip
_STORED = {"f32": "float32", "f64": "float64"}


class _Ahead:
    def __init__(self, program: Program):
        self.program = program
        self.memory = Memory.of(program)
        self.readers = program.readers
        self.steps: list[Call | Action] = list(program.steps)
        self.forward: dict[Value, list[int]] = {}  # by operand: the formulas that read it, so far
        self.made = 0
        self.notes: list[str] = []

    def run(self) -> Program:
        for at, step in enumerate(self.program.steps):
            if isinstance(step, Call) and (formula := formula_of(step, self.memory)) is not None:
                if step.part == "backward":
                    self.look_ahead(at, step, formula)
                else:
                    for v in dict.fromkeys(step.reads()):
                        self.forward.setdefault(v, []).append(at)
        return rewritten(self.program, self.steps, "ahead", self.notes) if self.notes else self.program

    def look_ahead(self, at: int, call: Call, formula: Formula) -> None:
        for x in dict.fromkeys(call.reads()):
            for first in self.forward.get(x, ()):
                if self.move(first, at, call, formula):
                    return

    def move(self, first: int, at: int, call: Call, formula: Formula) -> bool:
        """Whether the formula at ``first`` can do a part of the call at ``at``; then it does."""
        earlier = self.steps[first]
        assert isinstance(earlier, Call)
        theirs = formula_of(earlier, self.memory)
        result, like = call.results[0], earlier.results[0]
        if theirs is None or result is None or like is None or earlier.kind is not call.kind:
            return False
        if like.shape != result.shape or like.strides_in_items != result.strides_in_items:
            return False
        read = set(earlier.reads())
        known = [type(x) is not Value or (x in read and self.memory.steady(x, first, at)) for x in call.inputs]
        moved, kept = _border(formula, known)
        if not moved or any(_STORED.get(formula.code[i][1]) != result.dtype.name for i in moved):
            return False
        still = [x for i, x in enumerate(call.inputs) if i in kept]
        gone = {x for x in call.reads() if not any(x is y for y in still) and x.dtype == result.dtype}
        if sum(self.ends(x, first, at) for x in gone if x.shape == result.shape) < len(moved):
            return False
        arrays = [x for x in dict.fromkeys(earlier.inputs) if type(x) is Value]
        joiner = Joiner()
        outputs = joiner.add(theirs, _operands(earlier.inputs, arrays))
        before = _costs(joiner.code)
        places = joiner.part(formula, _operands(call.inputs, arrays), moved)
        alone = Joiner()
        alone.part(formula, _operands(call.inputs, arrays), moved)
        if len(_costs(joiner.code)) >= len(before) + len(_costs(alone.code)):
            return False  # nothing is shared
        # stored like the call's result, whose type theirs is; the formula's first one may be a mask
        values = [Value(f"{like.name}_{self.made + k + 1}", result) for k in range(len(moved))]
        self.made += len(moved)
        name = _STORED[formula.code[moved[0]][1]]
        stored = [*zip(outputs, (dtype for _, dtype in theirs.outputs), strict=True), *((i, name) for i in places)]
        program = joiner.program(stored, [key_of(v) for v in arrays])
        op = fused(program, (*_parts(earlier), *_parts(call)))
        results = (*earlier.results, *values)
        self.steps[first] = Call(op, earlier.kind, tuple(arrays), {}, results, (), earlier.line, earlier.part)
        self.steps[at] = _rest(call, formula, dict(zip(moved, values, strict=True)), kept)
        self.notes.append(f"{', '.join(_parts(earlier))} prepares {call.op.name}: the same functions serve both")
        return True

    def ends(self, value: Value, first: int, at: int) -> bool:
        """Whether nobody needs it after step ``first`` once step ``at`` does not."""
        if value.array is not None or value.root is not value or value in self.program.arguments:
            return False
        return all(0 <= i <= first or i == at for i in self.readers.get(value, ()))


def run(program: Program) -> Program:
    """The program with parts of backward's formulas computed by forward's."""
    return _Ahead(program).run()


def _border(formula: Formula, known: list[bool]) -> tuple[list[int], set[int]]:
    """Of a formula whose ``known`` operands are there earlier: the values that can be computed then and that the rest
    needs, and the numbers of the operands that it still reads."""
    early: list[bool] = []
    needed = {index for index, _ in formula.outputs}
    for op, _, args in formula.code:
        if op == "load":
            early.append(known[args[0]])
        elif op == "const":
            early.append(True)
        else:
            read = args[:1] if op == "wrap" else args
            early.append(all(early[arg] for arg in read))
            if not early[-1]:
                needed.update(read)
    moved = [i for i in sorted(needed) if early[i] and formula.code[i][0] not in ("load", "const")]
    return moved, {formula.code[i][2][0] for i in needed if formula.code[i][0] == "load"}


def _operands(inputs: tuple[Any, ...], arrays: list[Value]) -> list[Any]:
    number = {v: i for i, v in enumerate(arrays)}
    return [("number", x) if type(x) is not Value else ("input", number[x]) if x in number else None for x in inputs]


def _rest(call: Call, formula: Formula, given: dict[int, Value], kept: set[int]) -> Call:
    """What is left of a call whose values ``given`` are there already."""
    arrays = list(dict.fromkeys([x for i, x in enumerate(call.inputs) if type(x) is Value and i in kept]))
    arrays += given.values()
    joiner = Joiner()
    known = {i: ("input", arrays.index(v)) for i, v in given.items()}
    outputs = [index for index, _ in formula.outputs]
    made = joiner.part(formula, _operands(call.inputs, arrays), outputs, known)
    program = joiner.program(
        [(i, name) for i, (_, name) in zip(made, formula.outputs, strict=True)], [key_of(v) for v in arrays]
    )
    return Call(fused(program, _parts(call)), call.kind, tuple(arrays), {}, call.results, (), call.line, call.part)


def _parts(call: Call) -> tuple[str, ...]:
    return getattr(call.op, "parts", (call.op.name,))


def _costs(code: Any) -> set[Any]:
    """The costly functions in it."""
    named = [(_FAMILY.get(op, op), kind, args) for op, kind, args in code]
    return {each for each in named if each[0] in _COSTLY}
