"""``Before``: what the tensors within a function's reach were like before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autograd.hooks import hooks_of
from ..errors import CompileError
from ..tensor import Tensor
from .signature import owner

if TYPE_CHECKING:
    from .reach import Reach
    from .signature import Signature
    from .trace import Trace

__all__ = ["Before"]


class Before:
    """``arguments``: numbers of the arguments by identity; ``known``: the state's tensors."""

    def __init__(self, reach: Reach, signature: Signature, given: list[Tensor]):
        self.arguments = {id(t): i for i, t in enumerate(given)}
        self.known = [t for _, t in reach.tensors.values()]
        self.cells = {id(t._version_cell()): (t._version_cell(), t._version_cell()[0]) for t in self.known + given}
        self.grads = {id(t): t._grad for t in self.known + given}
        self.tensors = {id(t): t for t in self.known + given}
        self.objects = {*reach.seen, *map(id, signature.others)}
        self.histories = [(t, t._node) for t in given]
        self.given = [(t, t._data) for t in given]
        self.tracked = [t._tracked for t in given]
        self.attributes = [dict(t.__dict__) for t in given]
        self.hooks = {id(t): list(hooks_of(t)) for t in self.known + given if t._tracked}

    def heard(self) -> frozenset[int]:
        """Hooks that gradients meet outside of a program, by identity."""
        return frozenset(id(hook) for hooks in self.hooks.values() for hook in hooks)

    def forget_hooks(self, given: list[Tensor]) -> None:
        """Take from the arguments the hooks that the run has registered: they are in the program, which registers
        none."""
        for t in given:
            if t._tracked and id(t) in self.hooks:
                hooks_of(t)[:] = self.hooks[id(t)]

    def grad_arrays(self) -> dict[int, Tensor]:
        """The tensors by the identities of their gradients' arrays, without those that lie in memory which is reached
        by itself: that is where it is in each call."""
        reached = {id(owner(t._data)) for t in self.known}
        grads = ((key, g._data) for key, g in self.grads.items() if g is not None)
        return {id(array): self.tensors[key] for key, array in grads if id(owner(array)) not in reached}

    def tied(self, trace: Trace) -> list[tuple[Tensor, Any]]:
        """Leaves whose gradient the run has used where it lies in memory that is reached by itself, with its array."""
        others = self.grad_arrays()
        grads = ((self.tensors[key], g._data) for key, g in self.grads.items() if g is not None)
        return [(t, array) for t, array in grads if id(array) not in others and id(array) in trace.values]

    def shared(self, trace: Trace, parameters: list[Tensor]) -> str | None:
        """In words, which gradient that the run may have used is that of two tensors, or an argument."""
        used = {*trace.grads, *trace.asked, *map(id, parameters)}
        arguments = {id(self.tensors[key]._data) for key in self.arguments}
        met: set[int] = set()
        for key, g in self.grads.items():
            if g is None or (key not in used and id(g._data) not in trace.values):
                continue
            if id(g._data) in met:
                return "two tensors have one gradient, which a run adds to twice"
            if id(g._data) in arguments and key in used:
                return "an argument is the gradient of a tensor that the function uses"
            met.add(id(g._data))
        return None

    def written(self) -> list[list[int]]:
        """Version counters that have moved since."""
        return [cell for cell, seen in self.cells.values() if cell[0] != seen]

    def turned(self, given: list[Tensor], tensors: list[Tensor]) -> list[tuple[int, bool]]:
        """Numbers of the arguments that the run has told to require gradients, or not to, and which of both. Raises
        CompileError for one with a history, whose stand-in alone was told."""
        found = [
            (i, t._tracked) for i, (t, tracked) in enumerate(zip(given, self.tracked, strict=True))
            if t._tracked != tracked
        ]  # fmt: skip
        for i, _ in found:
            if given[i] is not tensors[i]:
                raise CompileError(
                    f"compile: the function takes requires_grad from its tensor argument {i}, which was computed "
                    "outside of it. Work on argument.detach()."
                )
        return found

    def check_histories(self, given: list[Tensor]) -> None:
        """Raises CompileError if an argument has another history than before: its gradient would go another way; or if
        it has other storage, or another shape."""
        for i, (t, data) in enumerate(self.given):
            if t._data is not data:
                raise CompileError(
                    f"compile: the function gives its tensor argument {i} another shape or storage (.data = ..., "
                    "unsqueeze_() or the like). A replay runs no Python and would leave it as it is. Do so outside of "
                    "the compiled function, or work on argument.detach()."
                )
            theirs, was = t.__dict__, self.attributes[i]
            if theirs.keys() != was.keys() or any(theirs[name] is not was[name] for name in was):
                raise CompileError(
                    f"compile: the function gives its tensor argument {i} an attribute. A replay runs no Python and "
                    "would give it none. Do so outside of the compiled function, or return the value."
                )
        for i, (t, node) in enumerate(self.histories):
            if t._node is not node:
                raise CompileError(
                    f"compile: the function changes its tensor argument {i}, which requires grad, in place. A replay "
                    "can't "
                    "change what is recorded of it; return the new tensor instead."
                )
