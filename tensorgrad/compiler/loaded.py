"""``load``: a function from a file that ``Program.save`` wrote.

The file is an opponent. Every length is held against the file's, every shape, dtype, name, attribute and reference is
checked, each call's results are inferred anew and must be what the file says, and nothing is ever run of it but ops of
this package. What does not fit raises FileError.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.grad_mode import state as grad_state
from ..backends import registry
from ..dispatch import OPS, local
from ..dtypes import BY_NAME, get_default_dtype, numpy_dtype, of_array
from ..errors import AutogradError, DTypeError, ShapeError, TensorgradError
from ..expr import Expr
from ..io.safetensors import _CODES, FileError
from ..ops import load_all
from ..ops.elementwise import Elementwise
from ..random import Generator
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten
from .executor import executor, in_python
from .form import Slot
from .fused import fused
from .plain import dtype_from, expect, formula_from, from_json, typed_from, whole
from .program import Call, Program, Value, values_in
from .save import FORMAT, VERSION, may_be_saved
from .trace import _written

__all__ = ["Loaded", "load"]

_LONGEST_HEADER = 1 << 28
_MOST = 1 << 20  # calls, and arrays
_MOST_DIMS = 64
_PARTS = ("forward", "backward", "optimizer")
_WRONG = (
    TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError, RecursionError,
    MemoryError, RuntimeError, TensorgradError,
)  # fmt: skip


def load(path: str | os.PathLike[str], *, backend: str | None = None) -> Loaded:
    """A function from a file that ``save`` wrote: it needs NumPy and this package, and none of the model's source.

    Args:
        path: the file.
        backend: who computes: "numpy", "cpp", ...; the backend in use by default. The program's state is copied to its
            device.
    Returns: a function of the arguments that the saved one took, tensors of the same shapes and dtypes among them; see
        ``Loaded``.
    Raises: FileNotFoundError; FileError (a ValueError) for a file that is damaged, is not such a file, or is of a
        version that this one doesn't know; BackendError for a backend that can't run here.
    Example:
        >>> import tempfile
        >>> import tensorgrad as tg
        >>> model = tg.compile(tg.nn.Linear(3, 1))
        >>> with tg.inference_mode():
        ...     y = model(tg.ones(2, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.tgp")
        ...     again = tg.compiler.load(f"{folder}/model.tgp")
        >>> bool((again(tg.ones(2, 3)) == y).all())
        True
    """
    found = registry.get(backend) if backend is not None else local.plain[np.ndarray].backend
    name = os.fspath(path)
    try:
        arrays, text = _read_file(name)
        reader = _Reader(_json(text), arrays, found)
        program = reader.program()
        with registry.backend(found.name):
            run = executor(program)
    except FileError as error:
        raise FileError(f"{name}: {error}") from None
    except _WRONG as error:
        if isinstance(error, OSError):
            raise
        raise FileError(f"{name}: the program does not hold together: {type(error).__name__}: {error}") from None
    return Loaded(program, reader, run)


class Loaded:
    """A program from a file, called like the function that it was saved of; it records no gradients.

    ``program``: with ``explain`` and ``draw``. ``state``: its parameters, buffers and other tensors by name. They are
    its own: what a call changes (statistics of batch norm in training, a cache) it changes here, and so may you, in
    place.

    Calls raise TypeError for arguments of another structure, ShapeError and DTypeError for tensors of other shapes and
    dtypes than the saved program's, AutogradError for a tensor that requires grad, outside of ``no_grad()``.
    """

    def __init__(self, program: Program, reader: _Reader, run: Callable[[list[Any]], list[Any]]):
        self.program = program
        self.state = reader.tensors
        self._reader = reader
        self._run = run
        self._takes, self._spec = tree_flatten(reader.takes)
        self._gives, self._result = tree_flatten(reader.gives)
        self._written = {v.root for call in program.calls for v in call.writes}
        self._changed = [i for i, v in enumerate(program.arguments) if v.root in self._written]
        self._flat = not reader.takes[1] and all(type(x) is Slot for x in reader.takes[0])

    def __repr__(self) -> str:
        return f"<loaded program of {len(self.program.calls)} calls on {self._reader.backend.name}>"

    @property
    def __reached__(self) -> dict[int, Tensor]:
        """Every tensor that the program reads besides its arguments."""
        return self._reader.by_number

    def explain(self) -> str:
        """The program in words, to be printed."""
        return self.program.explain()

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the program; see ``Program.draw``."""
        self.program.draw(path)

    def manual_seed(self, seed: int) -> Loaded:
        """Seed the generators that the program draws from, which start as they were when it was saved. Returns it."""
        for generator in self._reader.generators:
            generator.manual_seed(seed)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves: Any = args
        if not self._flat or kwargs or not all(isinstance(x, Tensor) for x in args) or len(args) != len(self._takes):
            leaves, spec = tree_flatten((args, kwargs))
            if spec != self._spec:
                raise TypeError(f"the loaded program takes arguments of the structure {self._spec}, got {spec}.")
        given: list[Any] = []
        tensors: list[Tensor] = []
        for leaf, wanted in zip(leaves, self._takes, strict=True):
            if type(wanted) is not Slot:
                if type(leaf) is not type(wanted) or (leaf != wanted and leaf == leaf):
                    raise TypeError(f"the loaded program was saved for the argument {wanted!r}, got {leaf!r}.")
                continue
            tensors.append(leaf)
            given.append(self._array(leaf, wanted.number))
        if get_default_dtype().name != self._reader.default_dtype:
            raise DTypeError(
                f"the loaded program was saved under the default dtype {self._reader.default_dtype}, which decides "
                f"what its numbers are; it is {get_default_dtype().name} now."
            )
        for i, first in enumerate(self._reader.same):
            if tensors[i]._data is not tensors[first]._data:
                raise TypeError(f"the loaded program was saved for calls whose tensors {first} and {i} are one.")
        backend = self._reader.backend
        if local.plain[backend.array_type] is backend.raw and not local.listeners:
            arrays = self._run(given)
        else:
            with registry.backend(backend.name):
                # whoever listens is told of each call
                arrays = in_python(self.program)(given) if local.listeners else self._run(given)
        for i in self._changed:
            tensors[i]._bump()
        if self._result.is_leaf():
            return self._leaf(self._gives[0], arrays, tensors)
        return tree_unflatten([self._leaf(leaf, arrays, tensors) for leaf in self._gives], self._result)

    def _array(self, leaf: Any, number: int) -> Any:
        value = self.program.arguments[number]
        if not isinstance(leaf, Tensor):
            raise TypeError(f"the loaded program takes a Tensor as its tensor {number}, got {type(leaf).__name__}.")
        array = leaf._data
        if not isinstance(array, self._reader.backend.array_type):
            raise TypeError(
                f"the loaded program computes on {self._reader.backend.name}; its tensor {number} is a "
                f"{type(array).__name__}."
            )
        if leaf._tracked and grad_state.recording:
            raise AutogradError(
                f"the loaded program records no gradients, and its tensor {number} requires grad. Call it under "
                "no_grad(), or with x.detach()."
            )
        if tuple(array.shape) != value.shape:
            raise ShapeError(
                f"the loaded program takes shape {value.shape} as its tensor {number}, got {tuple(array.shape)}."
            )
        if array.dtype != value.dtype:
            raise DTypeError(
                f"the loaded program takes {of_array(value.dtype)} as its tensor {number}, got {of_array(array.dtype)}."
            )
        if not array.flags.c_contiguous:
            if value.root in self._written:
                raise ShapeError(f"the loaded program writes to its tensor {number}, which must be contiguous.")
            array = local.doors.of(array).contiguous(array)
        return array

    def _leaf(self, leaf: Any, arrays: list[Any], tensors: list[Tensor]) -> Any:
        if type(leaf) is not _Leaf:
            return leaf
        if leaf.form == "output":
            return wrap(arrays[leaf.number])
        made = tensors[leaf.number] if leaf.form == "argument" else self._reader.by_number[leaf.number]
        for op, attrs in leaf.chain:
            made = op(made, **attrs)
        return made


class _Leaf:
    """Where a tensor of the result comes from: "output", "argument" or "state" of that number, through views."""

    __slots__ = ("chain", "form", "number")

    def __init__(self, form: str, number: int, chain: tuple[Any, ...] = ()):
        self.form = form
        self.number = number
        self.chain = chain


# --- the file


def _read_file(name: str) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """(the arrays, the program's text), after the checksum of both."""
    size = os.stat(name).st_size
    with open(name, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        fits = size >= 8 and 2 <= length <= min(size - 8, _LONGEST_HEADER)
        expect(fits, "not a saved program: the header's length is wrong")
        header = _json_of_bytes(file.read(length))
        about = header.pop("__metadata__", None)
        expect(type(about) is dict and about.get("format") == FORMAT, "not a saved program")
        expect(
            about.get("version") == str(VERSION),
            f"of version {about.get('version')!r:.20}; this tensorgrad reads version {VERSION}",
        )
        text, checksum = about.get("program"), about.get("checksum")
        expect(type(text) is str and type(checksum) is str, "the program or its checksum is missing")
        expect(len(header) <= _MOST, "too many arrays")
        order = _checked_order(header, size - 8 - length)
        assert type(text) is str
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        arrays = {}
        for key in order:
            entry = header[key]
            array = np.empty(tuple(entry["shape"]), numpy_dtype(_CODES[entry["dtype"]]))
            raw = array.reshape(-1).view(np.uint8)
            expect(not raw.nbytes or file.readinto(raw.data) == raw.nbytes, "the file ends early")
            digest.update(json.dumps([key, entry]).encode())
            digest.update(raw.data)
            expect(entry["dtype"] != "BOOL" or not raw.size or raw.max() <= 1, f"{key!r}: bools that are none")
            arrays[key] = array
    expect(digest.hexdigest() == checksum, "the checksum is wrong: the file was changed, or damaged on its way")
    return arrays, text


def _checked_order(header: dict[str, Any], size: int) -> list[str]:
    """The arrays' names as they follow each other; together they fill the rest of the file."""
    at = 0
    for key, entry in header.items():
        keys = {"dtype", "shape", "data_offsets"}
        expect(type(entry) is dict and entry.keys() == keys, f"{key!r:.60}: no array is described")
        expect(type(entry["dtype"]) is str and entry["dtype"] in _CODES, f"{key!r:.60}: an unknown dtype")
        _shape(entry["shape"])
        ends = entry["data_offsets"]
        expect(type(ends) is list and len(ends) == 2, f"{key!r:.60}: no place is given")
        whole(ends[0], size + 1, "a place")
        whole(ends[1], size + 1, "a place")
        expect(
            math.prod(entry["shape"]) * BY_NAME[_CODES[entry["dtype"]]].itemsize == ends[1] - ends[0],
            f"{key!r:.60}: the shape has another number of bytes",
        )
    order = sorted(header, key=lambda key: (header[key]["data_offsets"], key))
    for key in order:
        begin, end = header[key]["data_offsets"]
        expect(begin == at, f"{key!r:.60}: arrays overlap, or leave a gap")
        at = end
    expect(at == size, "the arrays do not fill the file")
    return order


def _json_of_bytes(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise FileError("not a saved program: the header is no text") from None
    return _json(text)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"not a saved program: {error}") from None
    expect(type(found) is dict, "not a saved program: no JSON object")
    return found


def _no_constant(name: str) -> Any:
    raise FileError(f"{name} in JSON")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    expect(len(made) == len(pairs), "a key occurs twice")
    return made


def _shape(written: Any) -> tuple[int, ...]:
    expect(type(written) is list and len(written) <= _MOST_DIMS, "a shape was expected")
    return tuple(whole(n, 1 << 48, "a size") for n in written)


# --- the program


class _Reader:
    """Makes a program of its text and the file's arrays."""

    def __init__(self, written: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]], backend: Any):
        self.written = written
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
        for entry in self._list("generators"):
            expect(type(entry) is list and len(entry) == 2, "a generator's seed and offset were expected")
            raw = b"".join(whole(n, 1 << 64, "a generator's state").to_bytes(8, "little") for n in entry)
            self.generators.append(Generator().set_state(wrap(np.frombuffer(raw, np.uint8))))
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
        outputs = [self._value(number) for number in self._list("outputs")]
        self._interface(len(arguments), len(outputs))
        program = Program(list(calls), arguments, outputs)
        program.foreign = True
        return program

    def _list(self, name: str, most: int = _MOST) -> list[Any]:
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
        name, dtype, shape = entry.get("name"), dtype_from(entry.get("dtype")), _shape(entry.get("shape"))
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
        shared: dict[str, int] = {}
        entries = self._list("state")
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
        shape, dtype = _shape(entry.get("shape")), dtype_from(entry.get("dtype"))
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
        expect(type(sums) is str and len(sums) in (0, len(typed.outputs)), "a letter for each result was expected")
        for letter, (_, dtype) in zip(str(sums), typed.outputs, strict=False):
            fits = letter == "." or (letter in "sm" and dtype in ("float32", "float64"))
            expect(fits, f"{letter!r} for a result of {dtype}")
        return fused(typed, tuple(parts), str(sums))

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
            expect(same, f"{op.name} makes {spec}, and not what is written: {v.dtype} of shape {v.shape}")
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
        expect(type(written) is list and len(written) <= _MOST, "a list was expected")
        return written

    def _inferred(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Any, ...]:
        """Shapes and dtypes of a call's results, as the op infers them."""
        rest = dict(attrs)
        out = rest.pop("out", None) if hasattr(op, "specialize") else None
        try:
            _check_views(op.name, inputs, rest)
            with np.errstate(all="ignore"):  # sizes that are NumPy's numbers
                made = op.infer(*_blanks(inputs), **{key: _blanks(x) for key, x in rest.items()})
        except _WRONG as error:
            raise FileError(f"{op.name}: {type(error).__name__}: {str(error)[:300]}") from None
        specs = made if isinstance(made, tuple) else (made,)
        if hasattr(op, "specialize"):
            expect(len(inputs) == len(op.inputs), f"{op.name} takes {len(op.inputs)} operands")
        if out is not None:
            targets = out if isinstance(out, tuple) else (out,)
            fits = len(targets) == len(specs) and all(
                type(v) is Value and v.shape == tuple(s.shape) and v.dtype == s.dtype
                for v, s in zip(targets, specs, strict=True)
            )
            expect(fits, f"{op.name}: `out` is of another shape or dtype")
        for spec in specs:
            if spec is not None:
                _shape(list(spec.shape))
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

        def output(number: Any) -> _Leaf:
            return _Leaf("output", whole(number, outputs, "an output's number"))

        def argument(number: Any) -> _Leaf:
            return _Leaf("argument", whole(number, arguments, "a tensor's number"))

        def state(number: Any) -> _Leaf:
            expect(type(number) is int and number in self.by_number, "the number of an array of the state was expected")
            return _Leaf("state", number)

        sources: dict[str, Callable[[Any], Any]] = {"argument": argument, "state": state}

        def view(written: Any) -> _Leaf:
            expect(type(written) is list and len(written) == 2, "a view was expected")
            source = from_json(written[0], sources)
            expect(type(source) is _Leaf, "a view's source was expected")
            v = self.values[source.number]
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
            return _Leaf(source.form, source.number, tuple(chain))

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
        expect(1 <= size <= x.shape[dim] and step >= 1, "windows do not fit")


def _row_major(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides: list[int] = []
    step = itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(1, n)
    return tuple(reversed(strides))


def _digest(results: tuple[Expr, ...]) -> str:
    from .plain import formula_to

    return hashlib.sha256(json.dumps(formula_to(results)).encode()).hexdigest()[:16]


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40
