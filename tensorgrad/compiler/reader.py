"""``Reader``: a program of the text and the arrays of a saved one.

The text is an opponent. Every shape, dtype, name, attribute and reference is checked, each call's results are inferred
anew and must be what the text says, and nothing but ops of this package can be named. What does not fit raises
FileError.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dispatch import OPS
from ..dtypes import BY_NAME, can_cast, get_default_dtype
from ..errors import DTypeError, TensorgradError
from ..expr import Expr
from ..io.safetensors import FileError
from ..ops import load_all
from ..ops.elementwise import Elementwise
from ..random import Generator
from ..tensor import Tensor, wrap
from .form import Slot
from .fused import LETTERS, fused
from .plain import dtype_from, expect, formula_from, formula_to, from_json, one_line, typed_from, whole
from .program import Call, Program, Value, values_in
from .program_file import MOST, shape_from
from .save import may_be_saved
from .trace import _written

__all__ = ["WRONG", "Leaf", "Reader"]

_PARTS = ("forward", "backward", "optimizer")
WRONG = (
    TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError, RecursionError,
    MemoryError, RuntimeError, TensorgradError,
)  # fmt: skip
"""What ops raise for what is not theirs."""


class Leaf:
    """Where a tensor of the result comes from: "output", "argument" or "state" of that number, through views."""

    __slots__ = ("chain", "form", "number")

    def __init__(self, form: str, number: int, chain: tuple[Any, ...] = ()):
        self.form = form
        self.number = number
        self.chain = chain


class Reader:
    """Makes a program of its text and the file's arrays.

    ``takes``, ``gives``: arguments and result, with Slots and Leaves for the tensors; ``same``: by argument, the number
    of the first one that is the same tensor; ``by_number``, ``tensors``: the state, by the number of the value and by
    name. ``of``: the reader of the same file's program of another batch size, whose state and generators this one has.
    """

    def __init__(
        self, written: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]], backend: Any,
        of: Reader | None = None,
    ):  # fmt: skip
        self.written = written
        self.of = of
        self.arrays = arrays
        self.backend = backend
        self.kind = backend.array_type
        self.largest = _memory()
        self.values: list[Value] = []
        self.by_number: dict[int, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}
        self.generators: list[Generator] = []
        self.ops: list[Any] = []
        default = written.get("default_dtype")
        expect(type(default) is str and default in BY_NAME and BY_NAME[default].is_floating_point, "no default dtype")
        self.default_dtype = str(default)
        self.others: dict[str, Callable[[Any], Any]] = {"value": self._value, "generator": self._generator}

    def program(self) -> Program:
        if get_default_dtype().name != self.default_dtype:
            raise DTypeError(
                f"it was saved under the default dtype {self.default_dtype}; set that first (set_default_dtype)"
            )
        for entry in self._list("generators") if self.of is None else ():
            expect(type(entry) is list and len(entry) == 2, "a generator's seed and offset were expected")
            raw = b"".join(whole(n, 1 << 64, "a generator's state").to_bytes(8, "little") for n in entry)
            self.generators.append(Generator().set_state(wrap(np.frombuffer(raw, np.uint8))))
        if self.of is not None:
            self.generators = self.of.generators
        for entry in self._list("formulas", 1 << 16):
            self.ops.append(self._formula(entry))
        arguments = [self._described(entry) for entry in self._list("arguments")]
        self._state()
        calls: list[Call] = []
        for at, entry in enumerate(self._list("calls")):
            try:
                calls.append(self._call(entry))
            except FileError as error:
                raise FileError(f"call {at}: {error}") from None
        outputs = self.outputs = [self._value(number) for number in self._list("outputs")]
        self._interface(len(arguments), len(outputs))
        program = Program(list(calls), arguments, outputs)
        program.foreign = True
        return program

    def _list(self, name: str, most: int = MOST) -> list[Any]:
        found = self.written.get(name)
        expect(type(found) is list and len(found) <= most, f"{name}: a list was expected")
        return found  # type: ignore[return-value]

    # --- values

    def _value(self, number: Any) -> Value:
        return self.values[whole(number, len(self.values), "a value's number")]

    def _generator(self, number: Any) -> Generator:
        return self.generators[whole(number, len(self.generators), "a generator's number")]

    def _described(self, entry: Any, array: Any = None) -> Value:
        """A value as an entry describes it; of the array, for one of the state."""
        expect(type(entry) is dict, "a value was expected")
        name, dtype, shape = entry.get("name"), dtype_from(entry.get("dtype")), shape_from(entry.get("shape"))
        expect(type(name) is str and 0 < len(name) <= 1000, "a value's name was expected")
        size = math.prod(shape) * dtype.itemsize
        expect(size <= self.largest, f"{name:.60}: {size} bytes are more than this machine's memory")
        root = None
        if "root" in entry:
            root = self._value(entry["root"]).root
        v = Value(name, _blank(shape, dtype) if array is None else array, root, fixed=array is not None)
        v.strides = _row_major(shape, dtype.itemsize) if array is None else v.strides
        self.values.append(v)
        return v

    def _state(self) -> None:
        entries = self._list("state")
        if self.of is not None:
            for entry, (number, tensor) in zip(entries, self.of.by_number.items(), strict=True):
                known = self.of.values[number]
                v = self._described(entry, tensor._data)
                v.constant = known.constant
                expect(len(self.values) - 1 == number and v.root.array is not None, "the state is another one")
            self.by_number, self.tensors = self.of.by_number, self.of.tensors
            return
        shared: dict[str, int] = {}
        for entry in entries:
            expect(type(entry) is dict and type(entry.get("tensor")) is str, "an array of the state was expected")
            shared[entry["tensor"]] = shared.get(entry["tensor"], 0) + 1
        for entry in entries:
            stored = self.arrays.get(entry["tensor"])
            expect(stored is not None, f"there is no array {entry['tensor']!r:.60}")
            assert stored is not None
            array = self._view(entry, stored)
            if self.kind is not np.ndarray:
                expect(shared[entry["tensor"]] == 1, f"{entry['tensor']!r:.60}: this backend's arrays share no memory")
                array = self.backend.from_host(array.copy())
            constant = entry.get("constant", False)
            expect(type(constant) is bool, "constant: true or false was expected")
            v = self._described(entry, array)
            v.constant = constant
            expect(v.root is v or v.root.array is not None, "an array of the state lies in none of the state")
            tensor = wrap(array)
            self.by_number[len(self.values) - 1] = tensor
            if not constant:
                name = v.name
                while name in self.tensors:
                    name += "'"
                self.tensors[name] = tensor

    def _view(self, entry: dict[str, Any], stored: np.ndarray[Any, Any]) -> Any:
        """The part of a stored array that an entry shows."""
        shape, dtype = shape_from(entry.get("shape")), dtype_from(entry.get("dtype"))
        offset = whole(entry.get("offset"), stored.nbytes + 1, "an offset")
        strides: Any = entry.get("strides")
        expect(type(strides) is list and len(strides) == len(shape), "as many strides as sizes were expected")
        bound = stored.nbytes + 1
        for step in strides:
            expect(type(step) is int and -bound < step < bound and step % dtype.itemsize == 0, "odd strides")
        expect(offset % dtype.itemsize == 0, "an odd offset")
        if 0 in shape:
            return np.empty(shape, dtype)
        if dtype == np.bool_ and stored.dtype != np.bool_:
            expect(int(stored.reshape(-1).view(np.uint8).max(initial=0)) <= 1, "bools that are none")
        low = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if s < 0)
        high = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if s > 0) + dtype.itemsize
        expect(low >= 0 and high <= stored.nbytes, f"{entry.get('name')!r:.60} reaches outside of its array")
        if offset == 0 and stored.dtype == dtype and stored.shape == shape and list(stored.strides) == strides:
            return stored
        return np.ndarray(shape, dtype, stored.reshape(-1).view(np.uint8).data, offset, strides)

    # --- calls

    def _formula(self, entry: Any) -> Any:
        """The op of a formula: this package's own of that name if it is the same, else one under a name that nothing
        else can have."""
        expect(type(entry) is dict, "a formula was expected")
        if "code" in entry:
            return self._typed(entry)
        name, inputs = entry.get("name"), entry.get("inputs")
        expect(type(name) is str and 0 < len(name) <= 1000 and name.isprintable(), "a formula's name was expected")
        expect(
            type(inputs) is list and 0 < len(inputs) <= 4096 and all(type(x) is str and len(x) <= 200 for x in inputs),
            "the names of a formula's inputs were expected",
        )
        results = formula_from(entry, len(inputs))
        if name not in OPS:
            load_all()
        for known in (name, own := f"{name}@{_digest(results)}"):
            op = OPS.get(known)
            if isinstance(op, Elementwise) and op.results == results and len(op.inputs) == len(inputs):
                return op
        return Elementwise(own, tuple(inputs), results, derived=True)

    def _typed(self, entry: dict[str, Any]) -> Any:
        """The op of a formula that passes have joined of several."""
        parts, sums = entry.get("parts"), entry.get("sums")
        expect(type(parts) is list and len(parts) <= 4096, "the parts of a formula were expected")
        assert type(parts) is list
        expect(all(type(part) is str and len(part) <= 200 for part in parts), "the parts of a formula were expected")
        typed = typed_from(entry)
        expect(type(sums) is str, "a letter for each result was expected")
        letters, _, along = str(sums).partition(":")
        expect(len(letters) in (0, len(typed.outputs)), "a letter for each result was expected")
        rows = re.fullmatch("[1-9]k?(/[1-9])?", along) is not None and ("/" not in along or not letters.strip("smxn"))
        expect(bool(letters) and rows if ":" in str(sums) else True, f"{along!r} for the axes of rows")
        for letter, (_, dtype) in zip(letters, typed.outputs, strict=False):
            fits = letter == "." or (letter in (LETTERS if along else "sm") and dtype in ("float32", "float64"))
            expect(fits, f"{letter!r} for a result of {dtype}")
        rolls = entry.get("rolls", [])
        expect(type(rolls) is list and len(rolls) in (0, len(typed.inputs)), "shifts for each input were expected")
        for by in rolls:
            small = type(by) is list and len(by) <= 64 and all(type(n) is int and abs(n) < 2**62 for n in by)
            expect(small, "a shift for each axis was expected")
        return fused(typed, tuple(parts), str(sums), tuple([tuple(by) for by in rolls]))

    def _call(self, entry: Any) -> Call:
        expect(type(entry) is dict, "a call was expected")
        if "formula" in entry:
            op = self.ops[whole(entry["formula"], len(self.ops), "a formula's number")]
        else:
            name = entry.get("op")
            expect(type(name) is str, "an op's name was expected")
            if name not in OPS:
                load_all()
            op = OPS.get(str(name))
            known = op is not None and not isinstance(op, Elementwise) and may_be_saved(op)
            expect(known, f"there is no op {name!r:.60}")
        inputs = from_json(entry.get("inputs"), self.others)
        expect(type(inputs) is list, "a call's inputs were expected")
        written = entry.get("attrs", {})
        named = type(written) is dict and all(key.isidentifier() for key in written)
        expect(named, "a call's attributes were expected")
        attrs = {key: from_json(x, self.others) for key, x in written.items()}
        specs = self._inferred(op, tuple(inputs), attrs)
        described = entry.get("results")
        expect(type(described) is list and len(described) == len(specs), f"{op.name} has {len(specs)} results")
        read = set(values_in([tuple(inputs), *attrs.values()]))
        results: list[Value | None] = []
        for one, spec in zip(described, specs, strict=True):
            if one is None:
                results.append(None)
                continue
            v = self._described(one)
            expect(spec is not None, f"{op.name} has no such result")
            same = v.shape == tuple(spec.shape) and v.dtype == spec.dtype
            expect(
                same,
                f"{op.name} makes {spec.dtype} of shape {tuple(spec.shape)}, and not what is written: {v.dtype} of "
                f"shape {v.shape}",
            )
            inside = v.root is v or v.root in {x.root for x in read}
            expect(inside, f"{op.name}: a result that lies in what it doesn't read")
            results.append(v)
        writes = tuple(self._value(number) for number in self._numbers(entry.get("writes", [])))
        expect(
            set(_written(op.name, tuple(inputs), attrs)) <= set(writes), f"{op.name}: it writes to more than it says"
        )
        expect(set(writes) <= read, f"{op.name}: it writes to what it doesn't read")
        expect(not any(v.constant or v.root.constant for v in writes), f"{op.name}: it writes to a constant")
        line, part = entry.get("line"), entry.get("part", "forward")
        expect(line is None or (type(line) is str and len(line) <= 300), "a line was expected")
        expect(part in _PARTS, "a part of the program was expected")
        return Call(op, self.kind, tuple(inputs), attrs, tuple(results), writes, line, part)

    def _numbers(self, written: Any) -> list[Any]:
        expect(type(written) is list and len(written) <= MOST, "a list was expected")
        return written

    def _inferred(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Any, ...]:
        """Shapes and dtypes of a call's results, as the op infers them."""
        rest = dict(attrs)
        out = rest.pop("out", None) if hasattr(op, "specialize") else None
        try:
            _check_views(op.name, inputs, rest)
            with np.errstate(all="ignore"):  # sizes that are NumPy's numbers
                made = op.infer(*_blanks(inputs), **{key: _blanks(x) for key, x in rest.items()})
            specs = made if isinstance(made, tuple) else (made,)
            for spec in specs:
                if spec is not None:
                    shape_from(list(spec.shape))
        except WRONG as error:
            raise FileError(f"{op.name}: {type(error).__name__}: {one_line(error)}") from None
        if hasattr(op, "specialize"):
            expect(len(inputs) == len(op.inputs), f"{op.name} takes {len(op.inputs)} operands")
        if out is not None:
            targets = out if isinstance(out, tuple) else (out,)
            fits = len(targets) == len(specs) and all(
                type(v) is Value and v.shape == tuple(s.shape) and can_cast(s.dtype, v.dtype)
                for v, s in zip(targets, specs, strict=True)
            )
            expect(fits, f"{op.name}: `out` is of another shape or dtype")
        return specs

    # --- what goes in and out

    def _interface(self, arguments: int, outputs: int) -> None:
        seen: list[int] = []

        def slot(number: Any) -> Slot:
            seen.append(whole(number, arguments, "a tensor's number"))
            return Slot(number)

        self.takes = from_json(self.written.get("takes"), {"tensor": slot})
        expect(type(self.takes) is tuple and len(self.takes) == 2, "arguments were expected")
        expect(type(self.takes[0]) is tuple and type(self.takes[1]) is dict, "arguments were expected")
        expect(all(type(key) is str for key in self.takes[1]), "names of arguments were expected")
        expect(seen == list(range(arguments)), "each tensor is one argument")
        self.same = self._list("same")
        expect(len(self.same) == arguments, "as many numbers as tensors were expected")
        for i, first in enumerate(self.same):
            whole(first, i + 1, "a tensor's number")
            expect(self.same[first] == first, "a tensor's number")

        def output(number: Any) -> Leaf:
            return Leaf("output", whole(number, outputs, "an output's number"))

        def argument(number: Any) -> Leaf:
            return Leaf("argument", whole(number, arguments, "a tensor's number"))

        def state(number: Any) -> Leaf:
            expect(type(number) is int and number in self.by_number, "the number of an array of the state was expected")
            return Leaf("state", number)

        sources: dict[str, Callable[[Any], Any]] = {"argument": argument, "state": state}

        def view(written: Any) -> Leaf:
            expect(type(written) is list and len(written) == 2, "a view was expected")
            source = from_json(written[0], {**sources, "output": output})
            expect(type(source) is Leaf, "a view's source was expected")
            v = self.outputs[source.number] if source.form == "output" else self.values[source.number]
            shown = _blank(v.shape, v.dtype)
            chain = []
            for step in self._numbers(written[1]):
                expect(type(step) is list and len(step) == 2 and type(step[1]) is dict, "a view's step was expected")
                op = OPS.get(step[0]) if type(step[0]) is str else None
                expect(op is not None and op.view, f"there is no view {step[0]!r:.60}")
                attrs = {key: from_json(x, {}) for key, x in step[1].items()}
                (spec,) = self._inferred(op, (_As(shown),), attrs)
                shown = _blank(tuple(spec.shape), spec.dtype)
                chain.append((op, attrs))
            return Leaf(source.form, source.number, tuple(chain))

        self.gives = from_json(self.written.get("gives"), {**sources, "output": output, "view": view})


class _As:
    """Stands for an array where values do."""

    def __init__(self, array: Any):
        self.array = array


def _blank(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of that shape in the memory of one element."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _blanks(what: Any) -> Any:
    if type(what) is Value:
        return _blank(what.shape, what.dtype)
    if type(what) is _As:
        return what.array
    if type(what) in (list, tuple):
        return type(what)(map(_blanks, what))
    return what


def _check_views(name: str, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
    """What ops that look at memory by strides leave to those who call them."""
    if name == "as_strided":
        x = _blanks(inputs[0])
        size, stride, offset, within = (attrs[key] for key in ("size", "stride", "offset", "within"))
        for numbers in (size, stride, within, (offset,)):
            expect(type(numbers) is tuple and all(type(n) is int and 0 <= n < 1 << 48 for n in numbers), "odd strides")
        expect(len(size) == len(stride) and len(within) == x.ndim, "as many strides as sizes were expected")
        span = 1 + sum((n - 1) * s for n, s in zip(x.shape, within, strict=True)) if x.size else 0
        needed = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if 0 not in size else 0
        # the kernel sees to it that `within` is what the strides are
        expect(needed <= span, "it reaches outside of its array")
    elif name == "unfold_dim":
        x = _blanks(inputs[0])
        dim, size, step = (attrs[key] for key in ("dim", "size", "step"))
        expect(all(type(n) is int for n in (dim, size, step)) and 0 <= dim < x.ndim, "numbers were expected")
        expect(0 <= size <= x.shape[dim] and step >= 1, "windows do not fit")


def _row_major(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides: list[int] = []
    step = itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(1, n)
    return tuple(reversed(strides))


def _digest(results: tuple[Expr, ...]) -> str:
    return hashlib.sha256(json.dumps(formula_to(results)).encode()).hexdigest()[:16]


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40
