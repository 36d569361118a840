"""What tensors, nodes and records are made of: objects with their fields in C, and the tape's inner loops over them.

They are written twice. ``csrc/tape`` serves NumPy arrays where the extension is built; what stands here, and the text
of ``Op.call``, ``Elementwise.call``, ``record`` and ``_Pass.go``, is the meaning, serves every other array, and all of
them under the setting ``tape = "python"``.
"""

from __future__ import annotations

import threading
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from . import config

__all__ = [
    "CompiledCore", "GradState", "Heap", "NodeCore", "OpCore", "PlanCore", "SpecCore", "TensorCore", "native",
    "set_doors",
]  # fmt: skip


def _load() -> Any:
    if config.get("tape") == "python":
        return None
    try:
        from . import _tape  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    return _tape


native: Any = _load()
"""The extension's module; None where Python does it all."""

if TYPE_CHECKING or native is None:

    class TensorCore:
        """Fields of a tensor. They are slots, so that its ``__dict__`` holds what users set, here as in C."""

        __slots__ = (
            "_base", "_begun", "_cell", "_chain", "_changes", "_data", "_frozen_view", "_generation", "_grad", "_hooks",
            "_inference", "_keeps_grad", "_node", "_post_hooks", "_slot",
        )  # fmt: skip
        _data: Any
        _node: Any
        _slot: int
        _begun: bool  # what is told of _tracked
        _grad: Any
        _cell: list[int] | None
        _base: Any
        _chain: tuple[tuple[Any, dict[str, Any]], ...]
        _changes: int
        _generation: int
        _frozen_view: bool
        _hooks: list[Any] | None
        _post_hooks: list[Any] | None
        _inference: bool
        _keeps_grad: bool

        def __new__(cls, *unused: Any, **named: Any) -> Any:
            self = object.__new__(cls)
            self._node = self._grad = self._cell = self._base = self._hooks = self._post_hooks = None
            self._begun = self._frozen_view = self._inference = self._keeps_grad = False
            self._slot = self._changes = self._generation = 0
            self._chain = ()
            return self

        @property
        def _tracked(self) -> bool:
            return self._begun or (
                self._base is not None and self._generation != self._base._changes and self._catch_up()
            )

        @_tracked.setter
        def _tracked(self, value: bool) -> None:
            self._begun = value

        def _catch_up(self) -> bool: ...

    _next_number = count(1).__next__

    class NodeCore:
        """Fields of a node."""

        op: Any
        edges: Any = ()
        number: int
        attrs: dict[str, Any] = {}  # noqa: RUF012 - never written to
        count: int = 1
        plan: Any = None
        saved: tuple[Any, ...] = ()
        saved_outputs: tuple[Any, ...] = ()
        slots: tuple[int, ...] | None = None
        versions: list[Any] | None = None
        line: Any = None
        watched: bool = False
        hooks: dict[int, list[Any]] | None = None
        post_hooks: list[Any] | None = None
        retained: dict[int, Any] | None = None
        packed: Any = None
        extra: Any = None

        def __new__(cls, *unused: Any) -> Any:
            self = object.__new__(cls)
            self.number = _next_number()
            return self

    class PlanCore:
        """Fields of a plan."""

        __slots__ = ("kernel", "parts", "uses", "uses_all", "uses_output", "wrt")

    class SpecCore:
        """Fields of a Spec."""

        __slots__ = ("dtype", "shape")
        dtype: Any
        shape: tuple[int, ...]

    class OpCore:
        """A record. Calling it is ``call``, without another frame between."""

        def __call__(self, *inputs: Any, **attrs: Any) -> Any: ...

    class CompiledCore:
        """Fields of a compiled function: its entries, the most recently used first, and how often one was replayed."""

        entries: list[Any]
        replays: int

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self._served(*args, **kwargs)

        def _served(self, *args: Any, **kwargs: Any) -> Any: ...

    class GradState(threading.local):
        """This thread's switches: whether calls are recorded, whether in inference mode, whether rarely used features
        (saved-tensor hooks, anomaly mode) want to see each new node, and whether autocast is on.

        ``lead``: of this thread's pass to requested inputs, the nodes that lead to some and the leaves among them, by
        identity; None in a pass to all leaves, and outside of passes.
        """

        recording: bool = True
        inference: bool = False
        extras: bool = False
        casting: bool = False
        lead: tuple[set[Any], set[int]] | None = None

    class Heap:
        """Nodes by falling numbers."""

        def __init__(self) -> None:
            self._nodes: list[tuple[int, Any]] = []

        def push(self, node: Any) -> None:
            heappush(self._nodes, (-node.number, node))

        def pop(self) -> Any:
            return heappop(self._nodes)[1]

        def __len__(self) -> int:
            return len(self._nodes)

    def set_doors(doors: Any) -> None:
        """Tell the inner loops of this thread's doors; None: those of every thread."""

else:
    TensorCore, NodeCore, PlanCore, SpecCore = native.TensorCore, native.NodeCore, native.PlanCore, native.SpecCore
    OpCore, GradState, Heap, set_doors = native.OpCore, native.GradState, native.Heap, native.set_doors
    CompiledCore = native.CompiledCore
