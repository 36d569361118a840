"""The model with its example inputs, and its runs: as they were given, or at every choice of sizes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import registry
from ..dispatch import listening
from ..errors import TensorgradError
from ..tensor import Tensor, wrap
from .sizes import OnnxExporterError, Sizes
from .table import translated
from .trace import Trace

__all__ = ["Call", "flat", "recorded"]


class Call:
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

    def state(self) -> dict[str, Tensor]:
        """The model's parameters and buffers by name; none for a plain function."""
        if not hasattr(self.model, "named_parameters"):
            return {}
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def __call__(self, arrays: Sequence[Any]) -> Any:
        fresh = iter([wrap(array) for array in arrays])
        args = [_rebuilt(value, fresh) for value in self.args]
        return self.model(*args, **{name: _rebuilt(value, fresh) for name, value in self.kwargs.items()})


# No closure: one that calls itself is a cycle, in which the model would wait for the garbage collector.
def _rebuilt(value: Any, fresh: Iterator[Tensor]) -> Any:
    """The arguments with fresh tensors."""
    if isinstance(value, Tensor):
        return next(fresh)
    if isinstance(value, (list, tuple)):
        parts = [_rebuilt(part, fresh) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return {name: _rebuilt(part, fresh) for name, part in value.items()} if isinstance(value, dict) else value


def _at(by_shape: Any, call: Call, path: tuple[Any, ...]) -> Any:
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


def recorded(call: Call, axes: list[dict[int, str]]) -> tuple[Sizes, list[Trace], list[list[Any]]]:
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


def _run_at(call: Call, axes: list[dict[int, str]], sizes: Sizes) -> tuple[Sizes, list[Trace], list[list[Any]]]:
    traces, results = [], []
    state = [tensor._data for tensor in call.state().values()]
    for run in sizes.runs:
        trace = Trace(translated, state)
        arrays = [
            registry.active(tensor._data).from_host(array, tensor.device.index)
            for tensor, array in zip(call.tensors, call.resized(axes, run), strict=True)
        ]
        for array in arrays:
            trace.input(array)
        with listening(trace):
            outputs = flat(call(arrays))
        results.append([trace.ref(tensor._data) for tensor in outputs])
        trace.host_arrays()
        traces.append(trace)
    return sizes, traces, results


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in flat(part)]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in flat(part)]
    if value is None:
        return []
    raise OnnxExporterError(f"onnx.export: the model returned a {type(value).__name__}; outputs must be Tensors.")
