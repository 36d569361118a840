"""A graph in the making: nodes, initializers, and integers that are computed from the sizes of the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import of_array
from ..errors import require_extra
from .sizes import OnnxExporterError, Size

__all__ = ["Graph", "Value"]

_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
    "bfloat16": 16,
}  # fmt: skip
"""ONNX' numbers of dtypes."""


def onnx_type(dtype: Any) -> int:
    name = of_array(dtype).name
    if name not in _TYPES:
        raise OnnxExporterError(f"ONNX runtimes compute on no {name} tensors; export a model of real numbers.")
    return _TYPES[name]


class Value:
    """A tensor of the graph: its name, its shape (numbers and Sizes) and its NumPy dtype."""

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, name: str, shape: tuple[Any, ...], dtype: Any):
        self.name = name
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Graph:
    """Collects nodes; ``opset`` says which version of the operators they are of."""

    def __init__(self, opset: int):
        self.opset = opset
        self.helper = require_extra("onnx.helper", "onnx")
        self.numpy_helper = require_extra("onnx.numpy_helper", "onnx")
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray[Any, Any]] = {}
        self.axes: dict[str, tuple[str, int]] = {}  # a dynamic axis: the input and the dimension that it is read from
        self.results: list[tuple[tuple[Any, ...], Any]] = []  # shape and dtype of the current step's results
        self.wanted: list[bool] = []  # which of them are used
        self._names: set[str] = set()
        self._constants: dict[Any, str] = {}
        self._computed: dict[Any, str] = {}

    def fresh(self, hint: str) -> str:
        name, number = hint, 0
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name

    def node(self, kind: str, *inputs: Any, count: int = 1, **attrs: Any) -> Any:
        """Add a node; the name of its result (a tuple of names for ``count`` above 1). Missing inputs are None."""
        names = [("" if x is None else x.name if isinstance(x, Value) else x) for x in inputs]
        while names and not names[-1]:
            names.pop()
        results = [self.fresh(kind) for _ in range(count)]
        given = {name: value for name, value in attrs.items() if value is not None}
        self.nodes.append(self.helper.make_node(kind, names, results, name=f"node_{results[0]}", **given))
        return results[0] if count == 1 else tuple(results)

    def initializer(self, array: Any, name: str) -> str:
        """A named array of the model."""
        name = self.fresh(name)
        self.initializers[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """A small array, one for each content."""
        array = np.asarray(value, dtype)
        key = array.tobytes(), array.shape, array.dtype
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self.initializer(array, "constant")
        return found

    def size(self, value: int | Size) -> str:
        """A tensor (1,) of an integer that may depend on the inputs' sizes."""
        if isinstance(value, int):
            return self.constant([value])
        found = self._computed.get(value)
        if found is not None:
            return found
        total = ""
        for names, factor in sorted(value.terms.items()):
            term = "" if factor != 1 or not names else self._axis(names[0])
            if not term:
                term = self.constant([factor])
                rest = names
            else:
                rest = names[1:]
            for name in rest:
                term = self.node("Mul", term, self._axis(name))
            total = self.node("Add", total, term) if total else term
        self._computed[value] = total
        return total

    def _axis(self, name: str) -> str:
        found = self._computed.get(name)
        if found is None:
            source, dim = self.axes[name]
            found = self._computed[name] = self.node("Shape", source, start=dim, end=dim + 1)
        return found

    def sizes(self, values: Any) -> str:
        """A tensor (n,) of integers, some of which may depend on the inputs' sizes."""
        if all(isinstance(value, int) for value in values):
            return self.constant(list(values))
        return self.node("Concat", *[self.size(value) for value in values], axis=0)

    def shape_for_reshape(self, shape: tuple[Any, ...]) -> str:
        """As ``sizes``, with the -1 of Reshape for a lone unknown."""
        unknown = [i for i, value in enumerate(shape) if isinstance(value, Size)]
        if len(unknown) == 1 and all(value > 0 for value in shape if isinstance(value, int)):
            return self.constant([-1 if i in unknown else value for i, value in enumerate(shape)])
        return self.sizes(shape)

    def number(self, value: Any, dtype: Any) -> str:
        """A 0-d tensor of a Python number or a Size."""
        if isinstance(value, Size):
            flat = self.node("Squeeze", self.size(value), self.constant([0]))
            return flat if dtype == np.int64 else self.node("Cast", flat, to=onnx_type(dtype))
        return self.constant(value, dtype)

    def counted(self, count: Any, first: Any, by: Any, dtype: Any) -> str:
        """``count`` numbers: first + by * (0, 1, 2 ...)."""
        steps = self.node("Range", self.constant(0), self.number(count, np.int64), self.constant(1))
        steps = self.cast(steps, np.dtype(np.int64), dtype)
        return self.node("Add", self.node("Mul", steps, self.number(by, dtype)), self.number(first, dtype))

    def cast(self, x: str, have: Any, want: Any) -> str:
        return x if have == want else self.node("Cast", x, to=onnx_type(want))

    def filled(self, value: Any, shape: tuple[Any, ...], dtype: Any) -> str:
        """An array of one number; computed at run time if its shape depends on the inputs."""
        if all(isinstance(size, int) for size in shape) and int(np.prod(shape)) <= 1024:
            return self.constant(np.full(shape, value, dtype), dtype)
        return self.node("Expand", self.constant(value, dtype), self.sizes(shape))
