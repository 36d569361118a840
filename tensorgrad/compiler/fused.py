"""``Fused``: several formulas as one op, joined as typed programs.

The parts are joined after they have been typed, instruction by instruction: so each is computed in the very types in
which it would be computed alone, and since backends work element by element, the results have the same bits. What goes
is memory: a value that only other parts read never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from ..dispatch import PASSING
from ..expr import Program
from ..expr.lower import Instruction, without_dead_code
from ..expr.node import INFIX
from ..ops.elementwise import Elementwise
from ..ops.record import Spec, entry_of

__all__ = ["ATTRS", "LETTERS", "Fused", "Joiner", "Rolls", "fused"]

# What may be taken of a result instead of storing it: of all its elements, or of its last axes.
LETTERS = {"s": "sum", "m": "mean", "x": "amax", "n": "amin", "l": "logsumexp", "e": "vector_norm"}
ATTRS: dict[str, dict[str, Any]] = {"vector_norm": {"ord": 2.0}}  # with which these are meant
Rolls = tuple[tuple[int, ...], ...]


class Fused(Elementwise):
    """A formula for operands of one kind: its program is typed already.

    ``parts``: the names of the ops that it stands for, in order. ``sums``: "" or a letter for each result: "." for one
    that is stored, "s" and "m" where the sum or mean of all elements is wanted, with the bits of the op of that name.
    Behind a colon, how many of the last axes are reduced instead of all, and a "k" where they stay with a size of 1:
    "s.:1k"; then any of ``LETTERS``. Behind a slash, how many axes there are behind these, in "sx:1/2": then all
    results are reduced, to sums, means and extremes. ``rolls``: () or, for each input, by how much it is read rolled
    along each of the results' axes, () for one that is not. It lives as long as a call has it.
    """

    def __init__(self, name: str, program: Program, parts: tuple[str, ...], sums: str = "", rolls: Rolls = ()):
        self.name = name
        self.program = program
        self.parts = parts
        self.sums = sums
        self.rolls = rolls
        self.letters, _, along = sums.partition(":")
        along, _, behind = along.partition("/")
        self.axes, self.keepdim, self.behind = int(along[:1] or 0), along[1:] == "k", int(behind or 0)
        self.inputs = tuple(f"x{i}" for i in range(len(program.inputs)))
        self.results = ()
        self.vjp = None
        outputs = len(program.outputs)
        self.outputs = ("y",) if outputs == 1 else tuple(f"y{i}" for i in range(outputs))
        self.nondiff = frozenset(range(outputs))
        self.samples = None
        self.define = None
        self.derived = True
        self.entry = entry_of(True)
        self._plans = {}
        self._programs = {}
        self._kernels: dict[Any, Callable[..., Any]] = {}
        PASSING[name] = self

    @property
    def primitives(self) -> frozenset[str]:
        return frozenset(op for op, _, _ in self.program.code)

    @property
    def formula(self) -> str:
        return text(self.program, self)

    def reduced(self, letter: str, words: str) -> str:
        """The words of what the letter says of a result with these."""
        dims = tuple(range(-self.axes - self.behind, -self.behind))
        said = f", dim={dims[0] if len(dims) == 1 else dims}" if dims else ""
        return f"{LETTERS[letter]}({words}{said}{', keepdim=True' if self.keepdim else ''})"

    def rolled(self, arrays: Sequence[Any]) -> list[Any]:
        """Those of the arrays that are read rolled."""
        return [x for x, by in zip(arrays, self.rolls, strict=True) if by] if self.rolls else []

    def read(self, number: int, words: str) -> str:
        """The words of how an input with these is read."""
        along = {d: by for d, by in enumerate(self.rolls[number] if self.rolls else ()) if by}
        if not along:
            return words
        shifts, dims = (values[0] if len(values) == 1 else values for values in (tuple(along.values()), tuple(along)))
        return f"roll({words}, {shifts}, {dims})"

    def specialize(self, keys: tuple[str, ...]) -> Program:
        if keys != self.program.inputs:
            raise TypeError(f"{self.name} is typed for {self.program.inputs}, not for {keys}")
        return self.program

    def kernel_on(self, backend: Any) -> Callable[..., Any]:
        found = self._kernels.get(backend)
        if found is None:
            found = backend.formula_kernel(self)
            if self.sums and not backend.sums_formulas:
                found = self._summed(found, backend.raw)
            elif self.axes:
                found = self._if_together(found, backend)
            if self.rolls and not backend.rolls_operands:
                found = self._rolling(found, backend.raw)
            self._kernels[backend] = found
        return found

    def _summed(self, formula: Callable[..., Any], F: Any) -> Callable[..., Any]:
        """Stored results, of which the backend's own kernels take the sums."""

        def kernel(*arrays: Any) -> Any:
            made = formula(*arrays)
            made = made if isinstance(made, tuple) else (made,)
            found = []
            for array, what in zip(made, self.letters, strict=True):
                if what != ".":
                    last = array.ndim - self.behind
                    dims = tuple(range(last - self.axes if self.axes else 0, last))
                    name = LETTERS[what]
                    array = getattr(F, name)(array, dim=dims, keepdim=self.keepdim, **ATTRS.get(name, {}))
                found.append(array)
            return found[0] if len(found) == 1 else tuple(found)

        return kernel

    def _rolling(self, formula: Callable[..., Any], F: Any) -> Callable[..., Any]:
        """The formula of operands that the backend's own kernel rolls."""

        def kernel(*arrays: Any) -> Any:
            given = (
                F.roll(x, shifts=by, dims=tuple(range(len(by)))) if by else x
                for x, by in zip(arrays, self.rolls, strict=True)
            )
            return formula(*given)

        return kernel

    def _if_together(self, formula: Callable[..., Any], backend: Any) -> Callable[..., Any]:
        """The kernel, which refuses rows of lengths that are reduced only where all rows are there."""
        stored: Callable[..., Any] | None = None

        def kernel(*arrays: Any) -> Any:
            nonlocal stored
            made = formula(*arrays)
            if made is not NotImplemented:
                return made
            if stored is None:
                plain = fused(self.program, self.parts, rolls=self.rolls)
                stored = self._summed(plain.kernel_on(backend), backend.raw)
            return stored(*arrays)

        kernel.native = formula  # type: ignore[attr-defined]  # see CppBackend.can_be_written
        return kernel

    def infer(self, *arrays: Any) -> Any:
        specs = super().infer(*arrays)
        if not self.sums and not self.rolls:
            return specs
        all_specs = specs if isinstance(specs, tuple) else (specs,)
        whole = all_specs[0].shape
        for x, by in zip(arrays, self.rolls, strict=False):
            if by and (x.shape != whole or len(by) != len(whole)):
                raise ValueError(
                    f"{self.name}: what is of shape {x.shape} is rolled by {by}, the results are of {whole}"
                )
        if not self.sums:
            return specs
        found = [
            s if what == "." else Spec(self._reduced(s.shape), s.dtype)
            for s, what in zip(all_specs, self.letters, strict=True)
        ]
        return found[0] if len(found) == 1 else tuple(found)

    def _reduced(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not self.axes:
            return ()
        last = len(shape) - self.behind
        if self.axes > last:
            raise ValueError(f"{self.name}: {self.axes} axes and {self.behind} are more than there are in {shape}")
        return shape[: last - self.axes] + (1,) * (self.axes if self.keepdim else 0) + shape[last:]


_numbers = count(1)
_known: WeakValueDictionary[str, Fused] = WeakValueDictionary()  # by the program's text, in which -0.0 is not 0.0


def fused(program: Program, parts: tuple[str, ...], sums: str = "", rolls: Rolls = ()) -> Fused:
    """The op of a typed program; the same for equal programs."""
    key = f"{sums}{rolls or ''}{program!r}"
    found = _known.get(key)
    if found is None:
        found = _known[key] = Fused(f"fused{next(_numbers)}", program, parts, sums, rolls)
    return found


class Joiner:
    """Typed programs, put one behind the other; equal instructions are kept once."""

    def __init__(self) -> None:
        self.code: list[Instruction] = []
        self._known: dict[Any, int] = {}

    def add(self, program: Program, operands: Sequence[Any]) -> list[int]:
        """Append a program; the values of its outputs.

        ``operands[i]`` is where its input i comes from: ``("value", one of ours)``, ``("input", the number of one of
        ours)`` or ``("number", a Python number)``.
        """
        return self.part(program, operands, [index for index, _ in program.outputs])

    def part(
        self, program: Program, operands: Sequence[Any], wanted: Sequence[int], known: dict[int, Any] | None = None
    ) -> list[int]:
        """Append what some values of a program need; what they are here.

        ``known``: where values come from that need not be computed, like operands. Those of inputs that nothing reads
        may be None.
        """
        known = known or {}
        needed = set(wanted)
        for i in range(len(program.code) - 1, -1, -1):
            op, _, args = program.code[i]
            if i in needed and i not in known and op not in ("load", "const"):
                needed.update(args[:1] if op == "wrap" else args)
        at: dict[int, int] = {}
        for i, (op, kind, args) in enumerate(program.code):
            if i not in needed:
                continue
            if i in known or op == "load":
                where, what = known[i] if i in known else operands[args[0]]
                if where == "value":
                    at[i] = what
                elif where == "input":
                    at[i] = self._emit("load", kind, (what,))
                else:
                    at[i] = self._emit("const", kind, (_as(kind, what),))
            elif op == "const":
                at[i] = self._emit(op, kind, args)
            elif op == "wrap":
                at[i] = self._emit(op, kind, (at[args[0]], args[1]))
            else:
                at[i] = self._emit(op, kind, tuple([at[arg] for arg in args]))
        return [at[index] for index in wanted]

    def program(self, outputs: list[tuple[int, str]], keys: Sequence[str]) -> Program:
        """What was joined, with these values, stored as these dtypes, for results."""
        return without_dead_code(self.code, outputs, tuple(keys))

    def _emit(self, op: str, kind: str, args: tuple[Any, ...]) -> int:
        key = (op, kind, repr(args)) if op == "const" else (op, kind, args)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.code)
            self.code.append((op, kind, args))
        return found


def _as(kind: str, value: Any) -> Any:
    if kind == "bool":
        return bool(value)
    if kind in ("c64", "c128"):
        return complex(value)
    real = value.real if isinstance(value, complex) else value
    return int(real) if kind == "i64" else float(real)


def text(program: Program, of: Fused) -> str:
    """A typed program as readable source: one line for each value that is used more than once, and for each result."""
    uses = [0] * len(program.code)
    for op, _, args in program.code:
        if op not in ("load", "const"):
            for arg in args[:1] if op == "wrap" else args:
                uses[arg] += 1
    for index, _ in program.outputs:
        uses[index] += 1
    lines: list[str] = []
    said: list[str] = []
    for i, (op, kind, args) in enumerate(program.code):
        if op == "load":
            said.append(of.read(args[0], f"x{args[0]}"))
            continue
        if op == "const":
            said.append(repr(args[0]))
            continue
        given = [said[arg] for arg in (args[:1] if op == "wrap" else args)]
        if op in INFIX:
            words = f"({given[0]} {INFIX[op]} {given[1]})"
        elif op in ("cast", "wrap"):
            words = f"{kind if op == 'cast' else args[1]}({given[0]})"
        else:
            words = f"{op}({', '.join(given)})"
        if uses[i] > 1:
            lines.append(f"t{i} = {_bare(words)}")
            words = f"t{i}"
        said.append(words)
    single = len(program.outputs) == 1
    for k, (index, _) in enumerate(program.outputs):
        words = _bare(said[index])
        if of.letters and of.letters[k] != ".":
            words = of.reduced(of.letters[k], words)
        lines.append(f"{'y' if single else f'y{k}'} = {words}")
    return "\n".join(lines)


def _bare(words: str) -> str:
    """Without parentheses around the whole."""
    depth = 0
    for at, c in enumerate(words):
        depth += (c == "(") - (c == ")")
        if depth == 0 and at < len(words) - 1:
            return words
    return words[1:-1] if words.startswith("(") else words
