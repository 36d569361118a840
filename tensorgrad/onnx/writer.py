"""From runs to a graph: what the runs saw, as one; the steps that the outputs need; names, shapes and initializers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._version import __version__
from ..backends import registry
from ..ops.elementwise import Elementwise
from .call import Call
from .formula import formula
from .graph import Graph, Value, onnx_type
from .sizes import OnnxExporterError, Size, Sizes
from .table import TABLE
from .trace import Constant, Ref, Step, Trace

__all__ = ["Writer"]

_IR_VERSION = 10  # of the file format: new enough for opset 21, old enough for every runtime that knows it


class _Many:
    """A constant as each run saw it."""

    def __init__(self, arrays: list[Any]):
        self.arrays = arrays


class Writer:
    """Turns traces into a graph."""

    def __init__(
        self, graph: Graph, call: Call, axes: list[dict[int, str]], sizes: Sizes, traces: list[Trace],
        results: list[list[Any]], output_names: Sequence[str] | None, dynamic_axes: Mapping[str, Any] | None,
        fold: bool,
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
        self._state_names = {id(tensor._data): name for name, tensor in call.state().items()}
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
        if isinstance(first, dict):
            return {name: self._merge([value[name] for value in seen], what) for name in first}
        if isinstance(first, slice):
            return slice(*self._merge([(value.start, value.stop, value.step) for value in seen], what))
        if isinstance(first, (bool, str)) or first is None or not isinstance(first, (int, float)):
            if any(value is not first and value != first for value in seen):
                raise OnnxExporterError(f"{what} differs at other sizes; fix those sizes.")
            return first
        return self.sizes.explain(seen, what)

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
            own = name is not None or first.size > 64
            made = self.graph.initializer(first, name or "constant") if own else self.graph.constant(first, first.dtype)
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
        start, step = arrays[0][0], arrays[0][1] - arrays[0][0]
        return self.graph.counted(shape[0], start, step, arrays[0].dtype)

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
        nodes = _used(
            _without_identities(graph.nodes, set(self.call.names) | set(graph.initializers)), self.output_names
        )
        read = {name for node in nodes for name in node.input}
        weights = [graph.numpy_helper.from_array(x, name) for name, x in graph.initializers.items() if name in read]
        made = helper.make_graph(nodes, _graph_name(self.call.model), inputs, outputs, weights)
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


def _used(nodes: list[Any], outputs: list[str]) -> list[Any]:
    """The nodes that the outputs depend on, in their order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _graph_name(model: Any) -> str:
    return type(model).__name__ if hasattr(model, "forward") else getattr(model, "__name__", "function")
