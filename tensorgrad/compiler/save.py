"""Programs as files: ``program.save("model.tgp")``, and ``load``, which needs NumPy and this package alone.

The program is a text: JSON with what ``plain`` describes, and nothing that could run. ``program_file`` has the rest of
the file.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .._version import __version__
from ..backends import registry
from ..dtypes import of_array
from ..errors import CompileError
from ..random import Generator
from ..tensor import Size, Tensor
from .explain import parts_of, place_text
from .form import Slot
from .fused import Fused
from .passes import PASSES, optimize
from .plain import formula_to, to_json, typed_to
from .program import Action, Call, Program, Unless, Value
from .program_file import CODE_OF, write_file
from .shared import Output
from .sizes import Unlike, at_size, merged, same_but_names

__all__ = ["may_be_saved", "save"]


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a program to a file that ``tg.compiler.load`` makes a function of, without the source it came from.

    The file holds the calls that the result needs, the parameters, buffers and constants that they read, and the states
    of the generators that they draw from. Of a function whose gradients may be asked for, it holds the forward pass.
    Of a function compiled with ``dynamic=True``, once it was called with two sizes of a batch, it serves any size.

    Args:
        path: the file; an existing one is replaced at once, or not at all.
    Raises: CompileError for a program whose work is not its result: an optimizer's step, gradients left in ``.grad``;
        and for what has no meaning without the source: arguments or results that are objects, ops of the user's own
        that are no formulas.
    """
    form = program.form
    if form is None:
        raise CompileError(
            "save: this program can't be called by itself (it is the backward part of another, or not a compiled "
            "function's). Save the function's first program: compiled.save(path)."
        )
    if form.trouble is not None:
        raise CompileError(f"save: {form.trouble}. {_REMEDY}")
    written = None
    if form.family is not None:
        written, arrays = _of_all_sizes(form.family)
        alone = form.family.alone
        if alone is not None and alone[1] is form and written["batch"]["least"] != 1:
            written = None  # what was called last is no case of it
    if written is None:
        written, arrays = _Writer(_cut(optimize(form.raw), form), form).written()
    write_file(path, arrays, json.dumps(written, separators=(",", ":"), allow_nan=False))


_PASSES = (
    PASSES,
    tuple(name for name in PASSES if name != "constants"),  # an array of the size is none for all sizes
    ("views", "duplicates", "dead"),
)
"""What may be done to a program before it is written for all sizes: the first of these that does the same for each."""


def _of_all_sizes(family: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON of a program of any size, and its arrays."""
    if family.conditions is not None and family.conditions.asked:
        raise CompileError(
            f"save: {family.conditions.text}, and a file serves all sizes. Save a program for each way: compile "
            "without dynamic=True."
        )
    first, second = family.sizes
    trouble: Exception | None = None
    for passes in _PASSES:
        (one, arrays), (two, others) = [
            _Writer(_cut(optimize(raw, passes), form, passes), form).written() for raw, form in family.both
        ]
        try:
            if arrays.keys() != others.keys() or not all(map(_same_array, arrays.values(), others.values())):
                raise Unlike("constants are other ones")
            made = merged(one, two, family.sizes)
        except Unlike as error:
            trouble = error
            continue
        least = 2
        if family.alone is not None:
            raw, form = family.alone
            alone, others = _Writer(_cut(optimize(raw, passes), form, passes), form).written()
            same = arrays.keys() == others.keys() and all(map(_same_array, arrays.values(), others.values()))
            if same and same_but_names(at_size(made, 1), alone):
                least = 1
        return {**made, "batch": {"saved": first, "least": least}}, arrays
    raise CompileError(
        f"save: the programs of the sizes {first} and {second} do not show how each number follows from the size "
        f"({trouble}). Save one for each size: compile without dynamic=True."
    )


def _cut(program: Program, form: Any, passes: tuple[str, ...] = PASSES) -> Program:
    """What of a program its result needs."""
    count = len(program.outputs) if form.outputs is None else form.outputs
    cut = optimize(Program(program.steps, program.arguments, program.outputs[:count]), passes)
    if any(isinstance(step, (Action, Unless)) for step in cut.steps):
        raise CompileError(
            f"save: the program does something on the host in each call (an optimizer's step). {_REMEDY}"
        )
    return cut


def _same_array(a: Any, b: Any) -> bool:
    return a is b or bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


_REMEDY = (
    "What can be saved is a function of tensors that returns what it computes: compile the model, or a function that "
    "returns the loss, call it (under inference_mode() for a model in use), and save that."
)


def may_be_saved(op: Any) -> bool:
    """Whether a file may name an op: one of this package that changes no lists of parameters."""
    if hasattr(op, "specialize"):
        return True
    return op.infer.__module__.startswith("tensorgrad.") and not op.name.endswith("_") and op.name != "move"


class _Writer:
    """Numbers a program's values and turns calls into JSON."""

    def __init__(self, program: Program, form: Any):
        self.program = program
        self.form = form
        self.number: dict[Value, int] = {}
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}  # by name: the file's tensors
        self.state: list[dict[str, Any]] = []
        self.state_of: dict[int, int] = {}  # by identity of an array that the result names: its value's number
        self.formulas: list[dict[str, Any]] = []
        self.formula_of: dict[Any, int] = {}
        self.generators: list[Generator] = []

    def written(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The program's JSON, and its arrays by name."""
        program, form = self.program, self.form
        for v in program.strided:
            raise CompileError(
                f"save: {v.name}, of shape {v.shape}, is not contiguous, and the program rests on its strides "
                "(as_strided). Call the function with x.contiguous() once, and save then."
            )
        for v in program.arguments:
            self._numbered(v)
        state = [v for call in program.calls for v in call.reads() if v.array is not None]
        roots = [v.root for v in state if v.root.array is not None]
        kept = list(dict.fromkeys([*roots, *state, *(v for v in program.outputs if v.array is not None)]))
        kept += [Value(f"result{i}", t._data, fixed=True) for i, t in enumerate(self._tensors_in_result())]
        self._store(kept)
        calls = [self._call(call, part) for call, part in zip(program.calls, parts_of(program), strict=True)]
        written = {
            "tensorgrad": __version__, "default_dtype": form.default_dtype,
            "arguments": [self._described(v) for v in program.arguments], "state": self.state,
            "formulas": self.formulas, "calls": calls, "outputs": [self.number[v] for v in program.outputs],
            "takes": self._structure(form.leaves, form.spec, "argument"), "same": form.same,
            "gives": self._result(), "generators": [list(_state_of(g)) for g in self.generators],
        }  # fmt: skip
        return written, self.arrays

    # --- values and arrays

    def _numbered(self, v: Value) -> None:
        self.number[v] = len(self.number)

    def _described(self, v: Value) -> dict[str, Any]:
        made: dict[str, Any] = {"name": v.name, "dtype": of_array(v.dtype).name, "shape": list(map(int, v.shape))}
        if v.root is not v and v.root in self.number:
            made["root"] = self.number[v.root]
        return made

    def _tensors_in_result(self) -> list[Tensor]:
        """Tensors of the state that the function returns as they are."""
        leaves = [leaf for leaf in self.form.result.leaves if isinstance(leaf, Tensor)]
        return leaves + [base for _, base, _ in self.form.result.views if isinstance(base, Tensor)]

    def _store(self, values: list[Value]) -> None:
        """Put the state's arrays among the file's: memory that several share once, so that they share it again."""
        hosts = {v: registry.backend_of(type(v.array)).to_host(v.array) for v in values}  # type: ignore[union-attr]
        order = {v: i for i, v in enumerate(values)}
        groups = sorted(_groups(list(hosts.items())), key=lambda group: min(order[v] for v, _ in group))
        names: set[str] = set()
        for group in groups:
            values_here = [v for v, _ in group]
            array = group[0][1]
            whole = len({_lies(a) for _, a in group}) == 1 and array.flags.c_contiguous
            low = min(_span(a)[0] for _, a in group)
            if whole and of_array(array.dtype).name in CODE_OF:
                stored = array
            else:
                stored = _bytes_of([a for _, a in group])
            base = values_here[0].name if len(set(map(_lies, (a for _, a in group)))) == 1 else "shared"
            name = _unique(base, names)
            self.arrays[name] = stored
            for v, a in group:
                self._numbered(v)
                self.state_of[id(v.array)] = self.number[v]
                entry = self._described(v)
                entry |= {"tensor": name, "offset": a.__array_interface__["data"][0] - low, "strides": list(a.strides)}
                if v.constant:
                    entry["constant"] = True
                self.state.append(entry)

    # --- calls

    def _call(self, call: Call, part: str) -> dict[str, Any]:
        if not may_be_saved(call.op):
            raise CompileError(f"save: {call.op.name} is no op that a file may name. {_REMEDY}")
        made: dict[str, Any] = {}
        if hasattr(call.op, "specialize"):
            made["formula"] = self._formula(call.op)
        else:
            made["op"] = call.op.name
        made["inputs"] = [to_json(x, self._other) for x in call.inputs]
        if call.attrs:
            made["attrs"] = {name: to_json(x, self._other) for name, x in call.attrs.items()}
        for v in call.results:
            if v is not None:
                self._numbered(v)
        made["results"] = [None if v is None else self._described(v) for v in call.results]
        if call.writes:
            made["writes"] = [self.number[v] for v in call.writes]
        place = place_text(call)
        if place:
            made["line"] = place
        made["part"] = part
        return made

    def _formula(self, op: Any) -> int:
        found = self.formula_of.get(op)
        if found is None:
            found = self.formula_of[op] = len(self.formulas)
            if isinstance(op, Fused):
                rolls = {"rolls": [list(by) for by in op.rolls]} if op.rolls else {}
                self.formulas.append({"parts": list(op.parts), "sums": op.sums, **rolls, **typed_to(op.program)})
            else:
                self.formulas.append({"name": op.name, "inputs": list(op.inputs), **formula_to(op.results)})
        return found

    def _other(self, what: Any) -> Any:
        if type(what) is Value:
            return {"value": self.number[what]}
        if isinstance(what, Generator):
            at = next((i for i, g in enumerate(self.generators) if g is what), None)
            if at is None:
                at = len(self.generators)
                self.generators.append(what)
            return {"generator": at}
        raise CompileError(f"save: a call has {what!r:.60}, which can't be written down. {_REMEDY}")

    # --- what goes in and out

    def _structure(self, leaves: list[Any], spec: Any, role: str) -> Any:
        from ..utils._pytree import tree_unflatten

        def refuse(kind: type) -> CompileError:
            return CompileError(
                f"save: {role}s hold an object of class {kind.__name__}, which means nothing without its source; "
                "tensors, numbers, texts, tuples, lists and dicts do. Reach it through a closure instead."
            )

        def slot(what: Any) -> Any:
            if isinstance(what, Slot):
                return {"tensor": what.number}
            if isinstance(what, _Made):
                return what.json
            raise refuse(type(what))

        if _has_shape(spec):
            raise refuse(Size)
        return to_json(tree_unflatten(leaves, spec), slot)

    def _result(self) -> Any:
        result = self.form.result
        leaves = list(result.leaves)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                leaves[i] = _Made({"state": self.state_of[id(leaf._data)]})
        for at, number, _ in result.made:
            leaves[at] = _Made({"output": number})
        for at, number in result.passed:
            leaves[at] = _Made({"argument": number})
        for at, base, chain in result.views:
            if isinstance(base, Tensor):
                source = {"state": self.state_of[id(base._data)]}
            else:
                source = {"argument": int(base)} if base >= 0 else leaves[-1 - base].json
                if type(base) is Output:
                    source = {"output": int(base)}
            steps = [[op.name, {name: to_json(x, self._other) for name, x in attrs.items()}] for op, attrs in chain]
            leaves[at] = _Made({"view": [source, steps]})
        return self._structure(leaves, result.spec, "result")


def _has_shape(spec: Any) -> bool:
    """Whether a structure has a ``Size``, which the file would make a tuple."""
    return spec.type is Size or any(map(_has_shape, spec.children))


class _Made:
    """A leaf that is JSON already."""

    def __init__(self, json: Any):
        self.json = json


def _state_of(generator: Generator) -> tuple[int, int]:
    raw = bytes(generator.get_state().tolist())
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def _unique(name: str, taken: set[str]) -> str:
    name = "".join(c if c.isprintable() else "?" for c in name)[:200]
    made, number = name, 2
    while made in taken or made == "__metadata__":
        made, number = f"{name} ({number})", number + 1
    taken.add(made)
    return made


def _lies(array: Any) -> tuple[Any, ...]:
    """Where an array lies, and how."""
    return array.__array_interface__["data"][0], array.shape, array.strides, str(array.dtype)


def _span(array: Any) -> tuple[int, int]:
    """(address of the first byte, that after the last) of an array's elements."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return (low, high) if array.size else (low, low)


def _groups(pairs: list[tuple[Value, Any]]) -> list[list[tuple[Value, Any]]]:
    """Arrays whose memory overlaps, together."""
    groups: list[list[tuple[Value, Any]]] = []
    end = 0
    for v, array in sorted(pairs, key=lambda pair: _span(pair[1])[0]):
        low, high = _span(array)
        if groups and low < end:
            groups[-1].append((v, array))
        else:
            groups.append([(v, array)])
        end = max(end, high)
    return groups


def _bytes_of(arrays: list[Any]) -> np.ndarray[Any, Any]:
    """The memory that arrays span, as bytes; what none of them shows is zero."""
    low = min(_span(a)[0] for a in arrays)
    high = max(_span(a)[1] for a in arrays)
    made = np.zeros(high - low, np.uint8)
    for a in arrays:
        at = a.__array_interface__["data"][0] - low
        np.ndarray(a.shape, a.dtype, made.data, at, a.strides)[...] = a
    return made
