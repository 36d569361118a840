"""One run of a model, as the door saw it: every call with its inputs as references to earlier results.

Ops that the table can't translate are taken apart by their definitions while they are recorded. Writes into an existing
array make a new version of it; views of what was written are then out of date, and their use is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import registry
from ..dispatch import OPS, Listener, local
from ..ops.elementwise import Elementwise
from .sizes import OnnxExporterError

__all__ = ["Constant", "Ref", "Step", "Trace"]


class Ref:
    """The result of an earlier step, or an input of the model, by number."""

    __slots__ = ("slot",)

    def __init__(self, slot: int):
        self.slot = slot


class Constant:
    """An array that no step made: a parameter, a buffer, or what Python code made of numbers."""

    __slots__ = ("array",)

    def __init__(self, array: Any):
        self.array = array


class _ViewWrite:
    """The step that brings a written view back into what it is a view of."""

    name = "view_write"
    view = False


VIEW_WRITE = _ViewWrite()


class Step:
    """A call: its op, inputs and attributes (with Refs and Constants for arrays), and the numbers of its results."""

    __slots__ = ("attrs", "inputs", "op", "outputs", "specs")

    def __init__(self, op: Any, inputs: Any, attrs: dict[str, Any], outputs: list[int], specs: list[tuple[Any, Any]]):
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.outputs = outputs
        self.specs = specs


class _Definition:
    """The namespace a definition runs in while it is recorded: kernels, whose calls are noted."""

    def __init__(self, trace: Trace, raw: Any):
        self.trace = trace
        self.raw = raw
        self.backend = raw.backend

    def __getattr__(self, name: str) -> Any:
        kernel, op, trace = getattr(self.raw, name), OPS[name], self.trace

        def noted(*inputs: Any, **attrs: Any) -> Any:
            trace.before(op, inputs, attrs)
            outputs = kernel(*inputs, **attrs)
            trace.after(op, inputs, attrs, outputs if isinstance(outputs, tuple) else (outputs,))
            return outputs

        self.__dict__[name] = noted
        return noted


class Trace(Listener):
    """Listens to one run.

    Args:
        translated: ``translated(op, inputs, attrs)``: whether the table has this call.
        state: arrays of the model, which a run must not change.
    """

    def __init__(self, translated: Any, state: list[Any]):
        self.translated = translated
        self.steps: list[Step] = []
        self.inputs: list[int] = []
        self.specs: list[tuple[Any, Any]] = []  # shape and dtype by slot
        self.fixed: dict[int, Any] = {}  # arrays of slots that do not depend on the model's inputs
        self._slot: dict[int, int | Constant | None] = {}  # None: out of date
        self._seen_from: dict[int, tuple[Any, str, dict[str, Any]]] = {}  # a view: its input, its op's name, attributes
        self._alive: list[Any] = []
        self._state = state

    def input(self, array: Any) -> None:
        """Declare an input of the model."""
        self.inputs.append(self._add(array))

    def _add(self, array: Any) -> int:
        slot = len(self.specs)
        self.specs.append((tuple(array.shape), array.dtype))
        self._slot[id(array)] = slot
        self._alive.append(array)
        return slot

    def ref(self, array: Any) -> Any:
        """What stands for an array."""
        if id(array) not in self._slot:
            self._alive.append(array)
            self._slot[id(array)] = Constant(array)
        found = self._slot[id(array)]
        if found is None:
            raise OnnxExporterError(
                "the model uses an array after it was written to through a view of the same memory; ONNX has no views. "
                "Write out of place: torch.cat, torch.where or masked_fill instead of x[...] = y."
            )
        return found if isinstance(found, Constant) else Ref(found)

    def refs(self, value: Any) -> Any:
        if hasattr(value, "dtype") and hasattr(value, "shape") and hasattr(value, "ndim"):
            return self.ref(value)
        if type(value) in (list, tuple):
            return type(value)(self.refs(part) for part in value)
        return value

    @staticmethod
    def _target(op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """The array that a call writes over; None if it makes a new one."""
        if attrs.get("out") is not None:
            return attrs["out"]
        return inputs[0] if op.name.endswith(("_into", "_")) else None

    def before(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        target = self._target(op, inputs, attrs)
        if target is None:
            return
        arrays = target if isinstance(target, (list, tuple)) else [target]
        for array in arrays:
            if any(_share(array, own) for own in self._state):
                raise OnnxExporterError(f"{op.name}: the model changes its own parameters or buffers as it runs.")
            self.ref(array)
            self._keep_copies(array)

    def _keep_copies(self, target: Any) -> None:
        """What is known by its content keeps the content it has before ``target`` is written to."""
        for constant in self._slot.values():
            if isinstance(constant, Constant) and _share(constant.array, target):
                constant.array = constant.array.copy()
        for slot, array in self.fixed.items():
            if _share(array, target):
                self.fixed[slot] = array.copy()

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        target = self._target(op, inputs, attrs)
        if (
            target is None
            and not isinstance(op, Elementwise)
            and op.define is not None
            and not self.translated(op, inputs, attrs)
        ):
            first = next(x for x in (*inputs, *outputs) if hasattr(x, "dtype"))
            results = op.define(_Definition(self, local.plain[type(first)]), *inputs, **attrs)
            for output, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
                if id(result) in self._slot:
                    self._slot[id(output)] = self._slot[id(result)]
                self._alive.append(output)
            return
        given = self.refs(inputs)
        named = {name: self.refs(value) for name, value in attrs.items() if name != "out"}
        slots = []
        for output in outputs:
            if output is None or (target is None and any(output is x for x in inputs)):
                slots.append(-1)  # nothing, or an input handed on
            else:
                slots.append(self._add(output))
        specs = [((), None) if output is None else (tuple(output.shape), output.dtype) for output in outputs]
        self._alive.append((inputs, attrs))
        self.steps.append(Step(op, given, named, slots, specs))
        if not self._depends((given, list(named.values()))):
            self.fixed.update({slot: output for slot, output in zip(slots, outputs, strict=True) if slot >= 0})
        if op.view:
            self._seen_from[id(outputs[0])] = inputs[0], op.name, named
        if target is not None:
            for output in outputs:
                self._written(output)

    def _written(self, array: Any) -> None:
        """An array was written to: what it is a view of has changed too, and all else that shares the memory."""
        current = {id(array)}
        while id(array) in self._seen_from:
            base, name, attrs = self._seen_from[id(array)]
            before = self._slot.get(id(base))
            if before is None:  # out of date already
                break
            given = (self.ref(base), self.ref(array))
            slot = self._add(base)
            self.steps.append(Step(VIEW_WRITE, given, {"view": name, "attrs": attrs}, [slot], [self.specs[slot]]))
            if not self._depends(given):
                self.fixed[slot] = base
            array = base
            current.add(id(base))
        self._outdate(array, current)

    def _outdate(self, written: Any, current: set[int]) -> None:
        if not isinstance(written, np.ndarray):
            raise OnnxExporterError("the model writes in place; move it and its inputs to the cpu to export it.")
        for other in self._alive:
            if id(other) not in current and _share(other, written):
                self._slot[id(other)] = None

    def _depends(self, value: Any) -> bool:
        if isinstance(value, Ref):
            return value.slot not in self.fixed
        return isinstance(value, (list, tuple)) and any(map(self._depends, value))

    def host_arrays(self) -> None:
        """Let go of what depends on the inputs, and keep the rest on the host."""
        self.fixed = {slot: registry.active(array).to_host(array) for slot, array in self.fixed.items()}
        self._alive.clear()
        self._slot.clear()


def _share(a: Any, b: Any) -> bool:
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)
