"""The tape's links: one node per recorded call, from a result back to what it was computed from."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ..core import NodeCore
from ..errors import AutogradError
from .grad_mode import state as grad_state

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["Node", "inside", "user_line"]

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_EXAMPLES = _PACKAGE + "examples" + os.sep
FREED: tuple[Any, ...] = ("freed",)


class Node(NodeCore):
    """One recorded call.

    ``edges[i]`` is where the gradient of input ``i`` goes: the node that made it, the leaf tensor itself, or None.
    ``slots[i]`` is which output of that node the input was. ``number`` grows with time, so going back in order of
    falling numbers visits every node after all of its users. Nodes hold arrays, never the tensors they made: a step's
    memory is freed by counting references alone.
    """

    __slots__ = ()
    op: Any
    edges: Sequence[Any]
    number: int
    attrs: dict[str, Any]
    count: int
    plan: Any  # what an elementwise op does backward
    saved: tuple[Any, ...]
    saved_outputs: tuple[Any, ...]
    slots: tuple[int, ...] | None
    versions: list[Any] | None
    line: tuple[CodeType, int] | None
    watched: bool  # one of the next four is there
    hooks: dict[int, list[Any]] | None
    post_hooks: list[Any] | None
    retained: dict[int, Any] | None
    packed: Any
    extra: Any

    def __init__(self, op: Any, attrs: dict[str, Any], outputs: int):
        self.op = op
        self.attrs = attrs
        self.count = outputs

    def link(self, edges: list[Any], x: Tensor, count: int) -> None:
        """The edge to input number ``len(edges)`` of ``count``."""
        if x._base is not None:
            if x._generation != x._base._changes:
                x._follow_base()
            if x._node is not None and x._node.number > self.number:  # a view's new history was recorded meanwhile
                self.number = Node(None, {}, 1).number
        if x._slot:
            slots = self.slots or (0,) * count
            self.slots = (*slots[: len(edges)], x._slot, *slots[len(edges) + 1 :])
        edges.append(x if x._node is None else x._node)

    @property
    def needs(self) -> tuple[bool, ...]:
        """Which inputs have a gradient."""
        return tuple([edge is not None for edge in self.edges])

    @property
    def asked(self) -> tuple[bool, ...]:
        """Which inputs get one in this thread's pass: of a pass to requested inputs, those on the way to some."""
        if grad_state.lead is None:
            return self.needs
        nodes, leaves = grad_state.lead
        return tuple([
            edge is not None and (edge in nodes if type(edge) is Node else id(edge) in leaves) for edge in self.edges
        ])  # fmt: skip

    def watch(self, tensor: Tensor) -> None:
        """A tensor's array was saved: remember its version, to find out if it is changed in place."""
        if tensor._inference:
            raise AutogradError(
                f"{self.op.name}: an inference tensor can't be saved for backward. "
                "Make it outside of inference_mode, or pass its clone()."
            )
        version = tensor._cell
        if version is None:
            version = tensor._cell = [0]
        versions = self.versions
        if versions is None:
            self.versions = [(version, version[0])]
        else:
            versions.append((version, version[0]))

    def note_line(self) -> None:
        """Remember the user's line, cheaply: formatted only if an error needs it."""
        self.line = user_line()

    def finish(self) -> None:
        """Called once everything is saved, if ``extras.active``: hooks pack, anomaly mode notes the line."""
        for hook in extras.on_finish:
            hook(self)

    def name(self) -> str:
        """PyTorch's name of the node, such as ``"AddBackward0"``."""
        from .names import node_name

        return node_name(self)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes (or leaf tensors) that the inputs' gradients go to, with the output number there."""
        slots = self.slots or (0,) * len(self.edges)
        return tuple(zip(self.edges, slots, strict=True))

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    def register_hook(self, hook: Any) -> Any:
        """Call ``hook(grad_inputs, grad_outputs)`` after this node's backward; it may return other grad_inputs."""
        from .hooks import Handle

        if self.post_hooks is None:
            self.post_hooks = []
            self.watched = True
        return Handle(self.post_hooks, hook)

    def check(self) -> None:
        """Raises AutogradError if what was saved has been freed or changed."""
        if self.saved is FREED:
            raise self.a_second_time()
        if self.versions is not None:
            for version, seen in self.versions:
                if version[0] != seen:
                    raise AutogradError(
                        f"a tensor that {self.op.name} saved for backward{self.where()} was changed in place since: "
                        f"it was at version {seen} and is now at {version[0]}. "
                        "Clone it before, or use the out-of-place operation."
                    )

    def a_second_time(self) -> AutogradError:
        """What a pass raises here after another one that freed what the node has saved."""
        return AutogradError(
            f"backward through {self.op.name} a second time: its saved tensors were freed by the first. "
            "Pass retain_graph=True to the first backward if you need both."
        )

    def saves(self) -> bool:
        """Whether there is something that a pass frees."""
        return bool(self.saved or self.saved_outputs or self.packed is not None)

    def where(self) -> str:
        """The user's line that recorded the call, as text."""
        return "" if self.line is None else f" (at {describe_line(self.line)})"

    def release(self) -> None:
        """Drop what was saved; its arrays are freed as soon as nobody else holds them."""
        if self.saves():
            self.saved = FREED
            self.saved_outputs = ()
            self.packed = None


class _Extras(threading.local):
    """What rarely used features (saved-tensor hooks, anomaly mode) want to do with each new node."""

    on_finish: tuple[Any, ...] = ()

    @property
    def active(self) -> bool:
        return grad_state.extras

    @active.setter
    def active(self, value: bool) -> None:
        grad_state.extras = value


extras = _Extras()


class _Inside(dict[str, bool]):
    """Whether a source file is the package's; its examples are users."""

    def __missing__(self, file: str) -> bool:
        found = self[file] = file.startswith(_PACKAGE) and not file.startswith(_EXAMPLES)
        return found


inside = _Inside()


def user_line(depth: int = 2) -> tuple[CodeType, int] | None:
    """The innermost line outside this package, as (code, instruction offset), from ``depth`` calls up on.

    Every frame that is looked at costs as much as a small kernel, the user's excepted, which is made once: the caller
    gives the largest depth below which all frames are the package's.
    """
    try:
        frame: FrameType | None = sys._getframe(depth)
    except ValueError:  # what usually has the package's frames above it was called by a script itself
        frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not inside[code.co_filename]:
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def line_number(line: tuple[CodeType, int]) -> tuple[str, int]:
    """(file, number) of a remembered line."""
    code, offset = line
    number = code.co_firstlineno
    for start, end, at in code.co_lines():
        if start <= offset < end and at is not None:
            number = at
    return code.co_filename, number


def describe_line(line: tuple[CodeType, int]) -> str:
    """``file.py:12 in function: source text`` of a remembered line."""
    import linecache

    code = line[0]
    number = line_number(line)[1]
    text = linecache.getline(code.co_filename, number).strip()
    return f"{code.co_filename}:{number} in {code.co_name}" + (f": {text}" if text else "")
