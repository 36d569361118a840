"""``torch.onnx.export``: a module's forward pass as an ONNX file.

The model is run, and what passes the door is written down in ONNX' operators. Where axes may vary it is run at several
sizes; what differs between the runs must be explained by the sizes, or the export is refused (``sizes.py``).
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from ..autograd.grad_mode import no_grad
from ..backends import registry
from ..dispatch import listening
from ..errors import TensorgradError, require_extra
from ..io.atomic import atomic_file
from ..ops.elementwise import Elementwise
from ..tensor import Tensor, wrap
from .formula import formula
from .graph import Graph, Value, onnx_type
from .sizes import OnnxExporterError, Size, Sizes
from .table import TABLE, translated
from .trace import Constant, Ref, Step, Trace

__all__ = ["ONNXProgram", "export"]

_LEAST_OPSET, _LAST_OPSET, _DEFAULT_OPSET = 17, 21, 18
_IR_VERSION = 10  # of the file format: new enough for opset 21, old enough for every runtime that knows it
_MOST_BYTES = 2**31 - 2**20  # a protobuf message holds no more
_EVAL, _PRESERVE, _TRAINING = range(3)


class ONNXProgram:
    """An exported model. ``model_proto`` is the protobuf message."""

    def __init__(self, model_proto: Any):
        self.model_proto = model_proto

    def save(self, destination: str | os.PathLike[str] | IO[bytes], *, external_data: bool = True) -> None:
        """Write the model to a path, at once or not at all, or to a binary file.

        Weights of 2 GB or more go to a file beside it, ``<name>.data``; with ``external_data=False`` that raises
        OnnxExporterError.
        """
        size = self.model_proto.ByteSize()
        if size > _MOST_BYTES:
            if not external_data or not isinstance(destination, (str, os.PathLike)):
                raise OnnxExporterError(f"a model of {size} bytes needs external_data=True and a path.")
            name = os.path.basename(os.fspath(destination)) + ".data"
            require_extra("onnx", "onnx").save_model(
                self.model_proto, os.fspath(destination), save_as_external_data=True, location=name
            )
            return
        content = self.model_proto.SerializeToString()
        if isinstance(destination, (str, os.PathLike)):
            with atomic_file(destination) as file:
                file.write(content)
        else:
            destination.write(content)

    def __repr__(self) -> str:
        graph = self.model_proto.graph
        return f"ONNXProgram({len(graph.node)} nodes, {len(graph.initializer)} initializers)"


def export(
    model: Any,
    args: Any = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    verbose: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamo: bool = True,
    external_data: bool = True,
    dynamic_shapes: Any = None,
    verify: bool = False,
    export_params: bool = True,
    keep_initializers_as_inputs: bool = False,
    dynamic_axes: Mapping[str, Any] | None = None,
    training: Any = _EVAL,
    do_constant_folding: bool = True,
) -> ONNXProgram:
    """Write a model's forward pass as an ONNX graph.

    Control flow in Python is that of the run; an RNN is written step by step, for the length it was given.

    Args:
        model: a Module, or any function of tensors; evaluated in evaluation mode, and left as it was.
        args: its inputs, a Tensor or a tuple of Tensors and other values (which become part of the model).
        f: a path or binary file to write to; None to only return the program.
        kwargs: inputs by keyword.
        verbose: print the graph.
        input_names, output_names: names in the graph; those of ``forward``'s parameters, and ``output_0`` ... .
        opset_version: 17 to 21; 18 by default.
        dynamo: PyTorch's choice between two exporters; there is one here, which serves for both.
        external_data: whether weights of 2 GB or more may go to a file beside ``f``.
        dynamic_shapes: the axes that may vary, by parameter or position: ``{"x": {0: "batch"}}``.
        verify: run the result in onnxruntime and compare.
        export_params, keep_initializers_as_inputs: only the defaults: the weights are part of the model.
        dynamic_axes: the axes that may vary, by name in the graph: ``{"input": {0: "batch"}}`` or ``{"input": [0]}``.
        training: ``TrainingMode.EVAL``, or PRESERVE to leave each module in the mode it is in.
        do_constant_folding: write what does not depend on the inputs as numbers instead of nodes.
    Returns: the program; its ``model_proto`` is the message, ``save`` writes it.
    Raises: OnnxExporterError (a RuntimeError) for an op that ONNX lacks, naming it, or a dependence on sizes that can't
        be written; MissingExtra without the package ``onnx``; ValueError for options that are not supported.
    """
    onnx = require_extra("onnx", "onnx")
    _check_options(opset_version, export_params, keep_initializers_as_inputs, training)
    call = _Call(model, args, kwargs or {}, input_names)
    axes = call.dynamic_axes(dynamic_axes, dynamic_shapes)
    with _mode_of(model, int(training)), no_grad():
        sizes, traces, results = _runs(call, axes)
        graph = Graph(opset_version or _DEFAULT_OPSET)
        proto = _Writer(
            graph, call, axes, sizes, traces, results, output_names, dynamic_axes, do_constant_folding
        ).proto()
        program = ONNXProgram(proto)
        if verify:
            _verify(program, call)
    if program.model_proto.ByteSize() <= _MOST_BYTES:
        onnx.checker.check_model(proto, full_check=True)
    if verbose:
        print(onnx.printer.to_text(proto) if hasattr(onnx, "printer") else proto)
    if f is not None:
        program.save(f, external_data=external_data)
    return program


def _check_options(opset: int | None, export_params: bool, inputs_too: bool, training: Any) -> None:
    if opset is not None and not _LEAST_OPSET <= opset <= _LAST_OPSET:
        raise ValueError(f"onnx.export: opset_version must be {_LEAST_OPSET} to {_LAST_OPSET}, got {opset}.")
    if not export_params or inputs_too:
        raise ValueError("onnx.export: the weights are always part of the model, and no inputs of it.")
    if int(training) not in (_EVAL, _PRESERVE):
        raise ValueError("onnx.export: models are exported in evaluation mode, or in the mode they are in (PRESERVE).")


@contextmanager
def _mode_of(model: Any, training: int) -> Iterator[None]:
    modules = list(model.modules()) if hasattr(model, "modules") else []
    before = [module.training for module in modules]
    if training == _EVAL and modules:
        model.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


class _Call:
    """The model with its example inputs: which tensors there are, and how to call it with others."""

    def __init__(self, model: Any, args: Any, kwargs: Mapping[str, Any], names: Sequence[str] | None):
        self.model = model
        given = args if isinstance(args, (tuple, list)) else (args,)
        if given and isinstance(given[-1], dict) and not kwargs and len(given) > 1:
            given, kwargs = given[:-1], given[-1]  # PyTorch's older way to give keywords
        self.args, self.kwargs = tuple(given), dict(kwargs)
        self.tensors: list[Tensor] = []
        self.paths: list[tuple[Any, ...]] = []
        for place, value in [*enumerate(self.args), *self.kwargs.items()]:
            self._gather(value, (place,))
        if not self.tensors:
            raise OnnxExporterError("onnx.export: the example inputs hold no Tensor.")
        self.parameters = self._parameter_names()
        self.names = self._input_names(names)

    def _gather(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            self.paths.append(path)
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                self._gather(part, (*path, i))
        elif isinstance(value, dict):
            for name, part in value.items():
                self._gather(part, (*path, name))

    def _parameter_names(self) -> list[str]:
        function = self.model.forward if hasattr(self.model, "forward") else self.model
        try:
            return [name for name, p in inspect.signature(function).parameters.items() if p.kind in (0, 1)]
        except (TypeError, ValueError):  # a builtin has no signature
            return []

    def parameter(self, path: tuple[Any, ...]) -> str:
        """The name of the parameter of ``forward`` that a tensor is given as."""
        if isinstance(path[0], str):
            return path[0]
        return self.parameters[path[0]] if path[0] < len(self.parameters) else f"input_{path[0]}"

    def _input_names(self, given: Sequence[str] | None) -> list[str]:
        names = list(given or ())
        if len(names) > len(self.tensors):
            raise ValueError(f"onnx.export: {len(names)} input_names for {len(self.tensors)} input tensors.")
        for path in self.paths[len(names) :]:
            name = "_".join([self.parameter(path), *map(str, path[1:])])
            names.append(name if name not in names else f"{name}_{len(names)}")
        if len(set(names)) != len(names):
            raise ValueError(f"onnx.export: input_names {names} are not all different.")
        return names

    def dynamic_axes(self, by_name: Mapping[str, Any] | None, by_shape: Any) -> list[dict[int, str]]:
        """For each input the axes that may vary, with their names."""
        found: list[dict[int, str]] = [{} for _ in self.tensors]
        if by_name and by_shape:
            raise ValueError("onnx.export: give dynamic_axes or dynamic_shapes, not both.")
        for i, (name, path) in enumerate(zip(self.names, self.paths, strict=True)):
            asked = (by_name or {}).get(name) if by_name else _at(by_shape, self, path)
            if asked is None:
                continue
            entries = asked.items() if isinstance(asked, Mapping) else enumerate(asked) if by_shape else (
                (axis, f"{name}_dynamic_axes_{k + 1}") for k, axis in enumerate(asked))  # fmt: skip
            for axis, label in entries:
                if label is None:
                    continue
                ndim = self.tensors[i].ndim
                if not isinstance(axis, int) or not -ndim <= axis < ndim:
                    raise ValueError(f"onnx.export: input {name!r} of {ndim} dimensions has no dynamic axis {axis!r}.")
                text = getattr(label, "__name__", label)
                found[i][axis % ndim] = text if isinstance(text, str) else f"{name}_dim_{axis % ndim}"
        return found

    def resized(self, axes: list[dict[int, str]], run: dict[str, int]) -> list[np.ndarray[Any, Any]]:
        """The example inputs at other sizes: their slices, repeated."""
        made = []
        for tensor, named in zip(self.tensors, axes, strict=True):
            array = registry.active(tensor._data).to_host(tensor._data)
            for axis, name in named.items():
                if array.shape[axis] == 0:
                    raise OnnxExporterError(
                        "onnx.export: an example input with a dynamic axis of size 0 tells nothing."
                    )
                array = np.take(array, np.arange(run[name]) % array.shape[axis], axis)
            made.append(np.array(array, order="C"))
        return made

    def __call__(self, arrays: Sequence[Any]) -> Any:
        fresh = iter([wrap(array) for array in arrays])

        def rebuilt(value: Any) -> Any:
            if isinstance(value, Tensor):
                return next(fresh)
            if isinstance(value, (list, tuple)):
                parts = [rebuilt(part) for part in value]
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
            return {name: rebuilt(part) for name, part in value.items()} if isinstance(value, dict) else value

        args = [rebuilt(value) for value in self.args]
        return self.model(*args, **{name: rebuilt(value) for name, value in self.kwargs.items()})


def _at(by_shape: Any, call: _Call, path: tuple[Any, ...]) -> Any:
    """What ``dynamic_shapes`` says of one tensor."""
    found = by_shape
    for depth, part in enumerate(path):
        if isinstance(found, Mapping):
            found = found.get(call.parameter(path) if depth == 0 else part)
        elif isinstance(found, (list, tuple)) and isinstance(part, int):
            found = found[part] if part < len(found) else None
        else:
            return None
    return found


def _runs(call: _Call, axes: list[dict[int, str]]) -> tuple[Sizes, list[Trace], list[list[Any]]]:
    """Run the model at every choice of sizes; (the sizes, the traces, the results' references)."""
    have: dict[str, int] = {}
    for tensor, named in zip(call.tensors, axes, strict=True):
        for axis, name in named.items():
            have.setdefault(name, int(tensor.shape[axis]))
    # larger sizes may not be allowed (a context of so many tokens), and 1 is special: try those above, then those below
    above = {name: (max(n, 2), max(n, 2) + 1, max(n, 2) + 2) for name, n in have.items()}
    below = {name: (n, n - 1, n - 2) for name, n in have.items()}
    try:
        return _run_at(call, axes, Sizes(above))
    except OnnxExporterError:
        raise
    except (TensorgradError, ValueError, IndexError, RuntimeError, AssertionError):
        if not have or min(have.values()) < 4:
            raise
        mixed = {name: below[name] if len(have) == 1 or not _batch(name) else above[name] for name in have}
        return _run_at(call, axes, Sizes(mixed))


def _batch(name: str) -> bool:
    return "batch" in name


def _run_at(call: _Call, axes: list[dict[int, str]], sizes: Sizes) -> tuple[Sizes, list[Trace], list[list[Any]]]:
    traces, results = [], []
    state = [tensor._data for tensor in call.model.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor)] if (
        hasattr(call.model, "state_dict")) else []  # fmt: skip
    for run in sizes.runs:
        trace = Trace(translated, state)
        arrays = [
            registry.active(tensor._data).from_host(array, tensor.device.index)
            for tensor, array in zip(call.tensors, call.resized(axes, run), strict=True)
        ]
        for array in arrays:
            trace.input(array)
        with listening(trace):
            outputs = _flat(call(arrays))
        results.append([trace.ref(tensor._data) for tensor in outputs])
        trace.host_arrays()
        traces.append(trace)
    return sizes, traces, results


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _flat(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _flat(part)]
    if value is None:
        return []
    raise OnnxExporterError(f"onnx.export: the model returned a {type(value).__name__}; outputs must be Tensors.")


class _Many:
    """A constant as each run saw it."""

    def __init__(self, arrays: list[Any]):
        self.arrays = arrays


class _Writer:
    """Turns traces into a graph."""

    def __init__(
        self, graph: Graph, call: _Call, axes: list[dict[int, str]], sizes: Sizes, traces: list[Trace],
        results: list[list[Any]], output_names: Sequence[str] | None, dynamic_axes: Mapping[str, Any] | None, fold: bool,
    ):  # fmt: skip
        self.graph, self.call, self.axes, self.sizes, self.traces, self.fold = graph, call, axes, sizes, traces, fold
        steps = [[step.op.name for step in trace.steps] for trace in traces]
        if any(names != steps[0] for names in steps) or len({len(part) for part in results}) > 1:
            raise OnnxExporterError(
                f"the model does other steps at other sizes of {', '.join(sizes.names)} (a loop over that axis, or a "
                "branch); export it with that size fixed."
            )
        self.steps: list[Step] = traces[0].steps
        self.shapes = [self._shape(i) for i in range(len(traces[0].specs))]
        self.values: dict[int, Value] = {}
        self.constants: dict[int, Value] = {}
        self._kept: list[Any] = []
        self._state_names = self._named_state()
        self.outputs = [self._merge(seen, "an output") for seen in zip(*results, strict=True)]
        given = list(output_names or ())
        if len(given) > len(self.outputs):
            raise ValueError(f"onnx.export: {len(given)} output_names for {len(self.outputs)} outputs.")
        self.output_names = given + [f"output_{i}" for i in range(len(given), len(self.outputs))]
        if set(self.output_names) & set(call.names):
            raise ValueError("onnx.export: an output has the name of an input.")
        unknown = set(dynamic_axes or ()) - set(call.names) - set(self.output_names)
        if unknown:
            raise ValueError(f"onnx.export: dynamic_axes names {sorted(unknown)}, which are no inputs or outputs.")

    def _named_state(self) -> dict[int, str]:
        if not hasattr(self.call.model, "state_dict"):
            return {}
        state = self.call.model.state_dict(keep_vars=True)
        return {id(tensor._data): name for name, tensor in state.items() if isinstance(tensor, Tensor)}

    def _shape(self, slot: int) -> tuple[Any, ...]:
        seen = [trace.specs[slot][0] for trace in self.traces]
        if len({len(shape) for shape in seen}) > 1:
            raise OnnxExporterError("a tensor of the model has other dimensions at other sizes; fix those sizes.")
        return tuple(self.sizes.explain([int(n) for n in values], "a shape") for values in zip(*seen, strict=True))

    # --- what the runs saw, as one

    def _merge(self, seen: Sequence[Any], what: str) -> Any:
        first = seen[0]
        if any(type(value) is not type(first) for value in seen):
            raise OnnxExporterError(f"{what} is of another kind at other sizes; fix those sizes.")
        if isinstance(first, Ref):
            if any(value.slot != first.slot for value in seen):
                raise OnnxExporterError(f"{what} comes from another step at other sizes; fix those sizes.")
            return first
        if isinstance(first, Constant):
            return _Many([value.array for value in seen])
        if type(first) in (list, tuple):
            if len({len(value) for value in seen}) > 1:
                raise OnnxExporterError(f"{what} has other lengths at other sizes; fix those sizes.")
            return type(first)(self._merge(parts, what) for parts in zip(*seen, strict=True))
        if isinstance(first, slice):
            parts = [(value.start, value.stop, value.step) for value in seen]
            return slice(*(self._merge(part, what) if None not in part else self._all_none(part, what)
                           for part in zip(*parts, strict=True)))  # fmt: skip
        if isinstance(first, (bool, str)) or first is None or not isinstance(first, (int, float)):
            if any(value is not first and value != first for value in seen):
                raise OnnxExporterError(f"{what} differs at other sizes; fix those sizes.")
            return first
        return self.sizes.explain(seen, what)

    def _all_none(self, seen: Sequence[Any], what: str) -> None:
        if any(value is not None for value in seen):
            raise OnnxExporterError(f"{what} differs at other sizes; fix those sizes.")

    # --- values

    def _value(self, given: Any) -> Any:
        """A translation's argument: a Value for a Ref or a constant, anything else as it is."""
        if isinstance(given, Ref):
            return self._slot(given.slot)
        if isinstance(given, _Many):
            return self._constant(given.arrays)
        if type(given) in (list, tuple):
            return type(given)(self._value(part) for part in given)
        return given

    def _slot(self, slot: int) -> Value:
        if slot not in self.values:
            value = self._constant([trace.fixed[slot] for trace in self.traces])
            self.values[slot] = value
        return self.values[slot]

    def _constant(self, arrays: list[Any]) -> Value:
        found = self.constants.get(id(arrays[0]))
        if found is None:
            found = self.constants[id(arrays[0])] = self._new_constant(arrays)
            self._kept.append(arrays)
        return found

    def _new_constant(self, arrays: list[Any]) -> Value:
        name = self._state_names.get(id(arrays[0]))
        hosts = [registry.active(array).to_host(array) for array in arrays]
        first = hosts[0]
        onnx_type(first.dtype)
        if all(_same(array, first) for array in hosts):
            made = (
                self.graph.initializer(first, name)
                if name or first.size > 64
                else self.graph.constant(first, first.dtype)
            )
            return Value(made, tuple(first.shape), first.dtype)
        shapes = [array.shape for array in hosts]
        if len({len(shape) for shape in shapes}) > 1:
            raise OnnxExporterError("a constant of the model has other dimensions at other sizes; fix those sizes.")
        shape = tuple(
            self.sizes.explain([int(n) for n in part], "a constant's shape") for part in zip(*shapes, strict=True)
        )
        if all(array.size and (array == first.flat[0]).all() for array in hosts):
            return Value(self.graph.filled(first.flat[0], shape, first.dtype), shape, first.dtype)
        if all(array.ndim == 1 and _counts(array) for array in hosts):
            return Value(self._range(hosts, shape), shape, first.dtype)
        raise OnnxExporterError(
            "the model makes a tensor with NumPy or Python whose content depends on the sizes of "
            f"{', '.join(self.sizes.names)}. Make it with tensor operations, or keep a buffer of the largest size and "
            "slice it."
        )

    def _range(self, arrays: list[Any], shape: tuple[Any, ...]) -> str:
        """Numbers at equal distances: start + step * (0, 1, 2 ...)."""
        dtype = arrays[0].dtype
        start, step = arrays[0][0], arrays[0][1] - arrays[0][0]
        g = self.graph
        count = g.node("Squeeze", g.size(shape[0]), g.constant([0]))
        steps = g.cast(g.node("Range", g.constant(0), count, g.constant(1)), np.dtype(np.int64), dtype)
        return g.node("Add", g.node("Mul", steps, g.constant(step, dtype)), g.constant(start, dtype))

    # --- steps

    def _needed(self, slots: list[int]) -> set[int]:
        """Numbers of the results that the outputs depend on, down to inputs and constants."""
        makers = {slot: step for step in self.steps for slot in step.outputs if slot >= 0}
        needed: set[int] = set()
        waiting = list(slots)
        while waiting:
            slot = waiting.pop()
            if slot in needed or self._foldable(slot):
                continue
            needed.add(slot)
            step = makers.get(slot)
            if step is not None:
                waiting.extend(_slots_in((step.inputs, list(step.attrs.values()))))
        return needed

    def _foldable(self, slot: int) -> bool:
        if slot not in self.traces[0].fixed:
            return False
        arrays = [trace.fixed[slot] for trace in self.traces]
        return self.fold and all(_same(array, arrays[0]) for array in arrays)

    def proto(self) -> Any:
        graph, helper = self.graph, self.graph.helper
        inputs = []
        for i, (name, slot) in enumerate(zip(self.call.names, self.traces[0].inputs, strict=True)):
            graph.fresh(name)
            shape, dtype = self.shapes[slot], self.traces[0].specs[slot][1]
            self.values[slot] = Value(name, shape, dtype)
            for axis, label in self.axes[i].items():
                graph.axes.setdefault(label, (name, axis))
            inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), _labels(shape)))
        for name in self.output_names:
            graph.fresh(name)
        needed = self._needed([ref.slot for ref in self.outputs if isinstance(ref, Ref)])
        for number, step in enumerate(self.steps):
            if any(slot in needed and slot not in self.values for slot in step.outputs):
                self._write(number, step, needed)
        outputs = []
        for name, ref in zip(self.output_names, self.outputs, strict=True):
            value = self._value(ref)
            graph.nodes.append(helper.make_node("Identity", [value.name], [name], name=f"node_{name}"))
            outputs.append(helper.make_tensor_value_info(name, onnx_type(value.dtype), _labels(value.shape)))
        weights = [graph.numpy_helper.from_array(array, name) for name, array in graph.initializers.items()]
        nodes = _without_identities(graph.nodes, set(self.call.names) | set(graph.initializers))
        made = helper.make_graph(nodes, _graph_name(self.call.model), inputs, outputs, weights)
        from .._version import __version__

        return helper.make_model(
            made, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=_IR_VERSION,
            producer_name="tensorgrad", producer_version=__version__,
        )  # fmt: skip

    def _write(self, number: int, step: Step, needed: set[int]) -> None:
        op, twins = step.op, [trace.steps[number] for trace in self.traces]
        what = f"{op.name} (step {number})"
        given = self._value(self._merge([twin.inputs for twin in twins], what))
        attrs = {
            name: self._value(self._merge([twin.attrs[name] for twin in twins], f"{what}: {name}"))
            for name in step.attrs
        }
        graph = self.graph
        shapes = [self.shapes[slot] if slot >= 0 else () for slot in step.outputs]
        graph.results = [(shape, dtype) for shape, (_, dtype) in zip(shapes, step.specs, strict=True)]
        graph.wanted = [slot in needed for slot in step.outputs]
        if op.name in TABLE:
            made = TABLE[op.name](graph, *given, **attrs)
        elif isinstance(op, Elementwise):
            made = formula(graph, op, given)
        else:
            raise OnnxExporterError(
                f"the op {op.name!r} has no translation to ONNX; the translations are in tensorgrad/onnx/table.py."
            )
        names = list(made) if isinstance(made, (tuple, list)) else [made]
        for slot, name, (shape, dtype) in zip(step.outputs, names, graph.results, strict=True):
            if slot >= 0 and name is not None:
                self.values.setdefault(slot, Value(name, shape, dtype))


def _same(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _counts(array: Any) -> bool:
    return array.size > 1 and array.dtype.kind in "if" and bool((np.diff(array) == array[1] - array[0]).all())


def _slots_in(value: Any) -> Iterator[int]:
    if isinstance(value, Ref):
        yield value.slot
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _slots_in(part)


def _labels(shape: tuple[Any, ...]) -> list[Any]:
    return [size.name or repr(size) if isinstance(size, Size) else size for size in shape]


def _without_identities(nodes: list[Any], reserved: set[str]) -> list[Any]:
    """An output's Identity is dropped where the node before it can bear the output's name."""
    makers = {name: node for node in nodes for name in node.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in nodes:
        source = node.input[0] if node.op_type == "Identity" else ""
        if source and source not in reserved and source in makers and source not in renamed:
            renamed[source] = node.output[0]
        else:
            kept.append(node)
    for node in kept:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
    return kept


def _graph_name(model: Any) -> str:
    return type(model).__name__ if hasattr(model, "forward") else getattr(model, "__name__", "function")


def _verify(program: ONNXProgram, call: _Call) -> None:
    """Raises OnnxExporterError if onnxruntime computes something else from the example inputs."""
    runtime = require_extra("onnxruntime", "onnx")
    buffer = io.BytesIO()
    program.save(buffer)
    session = runtime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    feed = {name: x.detach().cpu().numpy() for name, x in zip(call.names, call.tensors, strict=True)}
    known = {one.name for one in session.get_inputs()}
    got = session.run(None, {name: x for name, x in feed.items() if name in known})
    want = _flat(call([x._data for x in call.tensors]))
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if not np.allclose(a, b.detach().cpu().numpy(), rtol=1e-3, atol=1e-4, equal_nan=True):
            raise OnnxExporterError(f"onnx.export(verify=True): output {i} differs in onnxruntime.")
