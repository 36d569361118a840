"""A recorder at the door: notes every call of one run and plays the calls again.

Arrays are slots, known by identity. An array that existed before the recording (a parameter, a buffer, an optimizer's
state, an input) is used where it lies, so replays see its current content and write to it; results get fresh arrays in
each replay. Actions on the host (``dispatch.host``: an optimizer counting its steps and reading its learning rate) and
generators (attributes of random ops, which draw when the kernel runs) take part in each replay as they did in the
recording. What a replay can't know is Python: control flow and numbers read from tensors are those of the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dispatch import Listener, listening, local
from ..tensor import Tensor, wrap

__all__ = ["Recording", "record"]


class _Ref:
    """The place of a result in the replay's list of arrays."""

    __slots__ = ("slot",)

    def __init__(self, slot: int):
        self.slot = slot


class Recording(Listener):
    """The calls of one run: ``replay()`` runs them again and returns what the recorded function returned."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []  # (kernel name, array type, inputs, attrs, slots) or (action,)
        self._slot_of: dict[int, int] = {}
        self._alive: list[Any] = []  # keeps every array of the recording alive, so that no identity is used twice
        self.result: Any = None

    def after(self, op: Any, inputs: tuple[Any, ...], attrs: dict[str, Any], outputs: tuple[Any, ...]) -> None:
        array_type = type(next((x for x in (*inputs, *outputs) if hasattr(x, "dtype")), outputs[0]))
        if isinstance(inputs[0] if inputs else None, (list, tuple)):
            array_type = type(inputs[0][0])
        slots: list[int | None] = []
        step = (op.name, array_type, self._refs(inputs), {k: self._refs(v) for k, v in attrs.items()}, slots)
        for output in outputs:
            if output is None or id(output) in self._slot_of or any(output is x for x in inputs):
                slots.append(None)
            else:
                slots.append(self._new_slot(output))
        self._alive.append((inputs, attrs))
        self.steps.append(step)

    def host(self, action: Callable[[], Any]) -> None:
        self.steps.append((action,))

    def _new_slot(self, array: Any) -> int:
        self._alive.append(array)
        slot = self._slot_of[id(array)] = len(self._slot_of)
        return slot

    def _refs(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._refs(part) for part in value) if type(value) in (list, tuple) else value
        slot = self._slot_of.get(id(value))
        return value if slot is None else _Ref(slot)

    def finish(self, result: Any) -> None:
        tensors = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(t, Tensor) for t in tensors):
            raise TypeError("record: the function must return a Tensor or a tuple of Tensors.")
        self.result = [self._refs(t._data) for t in tensors], isinstance(result, tuple)

    def replay(self) -> Any:
        """Run the recorded calls again, on what the arrays hold now."""
        arrays: list[Any] = [None] * len(self._slot_of)

        def get(value: Any) -> Any:
            if type(value) is _Ref:
                return arrays[value.slot]
            if type(value) in (list, tuple):
                return type(value)(map(get, value))
            return value

        doors = local.doors
        for step in self.steps:
            if len(step) == 1:
                step[0]()
                continue
            name, array_type, inputs, attrs, slots = step
            kernel = getattr(doors[array_type], name)
            outputs = kernel(*map(get, inputs), **{key: get(value) for key, value in attrs.items()})
            for slot, output in zip(slots, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
                if slot is not None:
                    arrays[slot] = output
        refs, many = self.result
        results = tuple(wrap(get(ref)) for ref in refs)
        return results if many else results[0]


def record(function: Callable[..., Any], *args: Any) -> tuple[Any, Recording]:
    """(function(*args), its recording).

    New inputs are given to a replay by writing them into the tensors that the function read. Raises TypeError if the
    function returns anything but Tensors.
    """
    recording = Recording()
    with listening(recording):
        result = function(*args)
    recording.finish(result)
    return result, recording
