"""``Before``: what the tensors within a function's reach were like before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..autograd.hooks import hooks_of
from ..errors import CompileError
from ..tensor import Tensor

if TYPE_CHECKING:
    from .reach import Reach
    from .signature import Signature

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
        """The tensors by the identities of their gradients' arrays."""
        return {id(g._data): self.tensors[key] for key, g in self.grads.items() if g is not None}

    def written(self) -> list[list[int]]:
        """Version counters that have moved since."""
        return [cell for cell, seen in self.cells.values() if cell[0] != seen]

    def check_histories(self, given: list[Tensor]) -> None:
        """Raises CompileError if an argument has another history than before: its gradient would go another way."""
        for i, (t, node) in enumerate(self.histories):
            if t._node is not node:
                raise CompileError(
                    f"compile: the function changes its tensor argument {i}, which requires grad, in place. A replay "
                    "can't "
                    "change what is recorded of it; return the new tensor instead."
                )
