"""``ReplayBackward``: what the node of a replay shows the engine in place of an op record.

A pass runs the backward program of the entry, or the one that was written for the gradients asked for. One that
must be differentiable itself, or that vmap makes of many, takes another run of the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autograd import engine
from ..autograd.grad_mode import enable_grad
from ..autograd.hooks import hooks_of
from ..core import native
from ..dispatch import local, quiet
from ..errors import AutogradError, CompileError
from ..tensor import Tensor
from ..utils._pytree import tree_flatten

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..autograd.node import Node
    from .pair import PairEntry

__all__ = ["OfRun", "ReplayBackward", "count_changes", "rerun"]


class OfRun(list[Any]):
    """What backward reads of the run that was written down."""


class ReplayBackward:
    """A pass through a replay; see the module."""

    name = "compiled"
    nondiff: frozenset[int] = frozenset()
    opaque = True
    kept_outputs: tuple[Any, ...] = ()

    def __init__(self, entry: PairEntry, slots: tuple[int, ...], narrows: bool):
        self.entry = entry
        self.slots = slots  # which of the results that have a graph are the node's
        self.gradients = tuple(entry.grad_at)  # by input: which of the backward program's outputs it is
        self.narrows = narrows  # whether a pass to some of them takes a program without the others
        number = {result: slot for slot, result in enumerate(slots)}
        # by slot, the slots of results that were computed of it
        self.behind = {number[i]: [number[j] for j in others] for i, others in entry.behind.items() if i in number}

    def check_observed(self, node: Node, g: Any, wanted: Collection[int]) -> None:
        """Raises CompileError where somebody wants to see, or change, the whole gradient of a result, and some of it
        passes elsewhere: what comes from a result that the function has computed of it, within the program; what comes
        from a derivative of the function, in the graph of the run that made it."""

        def seen(slot: int) -> bool:
            retained = (node.retained or {}).get(slot)
            observed = (node.hooks or {}).get(slot) or (retained is not None and retained() is not None)
            return bool(slot in wanted or observed)

        if node.extra and any(map(seen, range(node.count))):
            raise CompileError(
                f"compile: a result of the function{node.where()} has a hook, retains its gradient or is an input of "
                "this pass, and a derivative of the function was taken with create_graph=True: what comes from there "
                "reaches the result in a graph of its own, where nobody sees it. Take the derivative within the "
                "function, or call the function itself."
            )
        for slot, others in self.behind.items():
            if seen(slot) and any(g[other] is not None for other in others):
                raise CompileError(
                    f"compile: a result of the function{node.where()} has a hook, retains its gradient or is an input "
                    "of this pass, and another result that the function has computed of it has a gradient as well, "
                    "which reaches the first within the program, where nobody sees it. Register the hook within the "
                    "function, compute the second result outside of it, or call the function itself."
                )

    def differentiate(self, F: Any, node: Node, g: Any, inputs: Any, outputs: Any) -> Any:
        entry = self.entry
        if entry.hears and (changed := entry.changed_since()) is not None:
            raise CompileError(
                f"compile: between a compiled function and its backward pass, {changed}. Hooks, or an "
                "autograd.Function, that run in that pass may rest on it, and a replay runs no Python. Call backward() "
                "before the change, or call the function itself."
            )
        for array, then in zip(entry.filled, node.saved[4] if entry.filled else (), strict=True):
            array[...] = then
        own = (g,) if node.count == 1 else g
        some = next(part for part in own if part is not None)
        parts: list[Any] = [None] * len(entry.live)
        for slot, part in zip(self.slots, own, strict=True):
            parts[slot] = part
        if isinstance(some, Tensor):
            return self._again(node, parts)
        if local.listeners:
            with quiet("a program's backward pass"):
                return self._arrays(node, parts)
        return self._arrays(node, parts)

    def _arrays(self, node: Node, parts: Any) -> tuple[Any, ...]:
        entry = self.entry
        if local.frames:  # a gradient that stands for many, of vmap, which a program can't take
            if entry.once:
                raise CompileError(
                    "compile: gradients under vmap (jacrev, is_grads_batched) of a compiled function that draws random "
                    "numbers or changes its state; the run that they take would be another one. Call the function "
                    "itself."
                )
            return rerun(entry, node, parts, create=False)
        if any(part is None for part in parts):
            return entry.gradients_of_some(node, parts)
        memory, numbers = node.saved[0], self.gradients
        found = None
        if self.narrows and type(memory) is not OfRun and not all(node.asked):
            found = entry.for_asked(node.asked)
        if found is None:
            arrays = entry.gradients(memory, list(parts))
        else:
            run, numbers = found
            arrays = run([*(memory if isinstance(memory, list) else memory[-1].kept), *parts])
        return tuple([None if at is None else arrays[at] for at in numbers])

    def _again(self, node: Node, parts: Any) -> Any:
        """Under create_graph: by a run of the function itself, whose gradient can be differentiated further."""
        if self.entry.once:
            raise CompileError(
                "compile: a second derivative through a compiled function that draws random numbers or changes its "
                "state; "
                "the run that it takes would be another one. Call the function itself."
            )
        node.extra = True  # a further pass may go through that run
        return rerun(self.entry, node, parts, create=True)


def rerun(entry: PairEntry, node: Node, parts: Any, *, create: bool) -> tuple[Any, ...]:
    """The gradients asked for, by a run of the function itself: Tensors, if a graph is made of it, or arrays."""
    tensors, changes = node.saved[2:4]
    asked = node.asked
    if count_changes([*entry.rests_on, *tensors]) != changes:
        raise AutogradError(
            f"compile: a tensor that the function{node.where()} is given, or reaches, was changed in place, or "
            "its data was set, since. A second derivative, or gradients under vmap, take another run of it, which "
            "would read the new elements. Clone the tensor before, or call the function itself."
        )
    if (changed := entry.changed_since()) is not None:
        raise CompileError(
            f"compile: between a compiled function and its backward pass, {changed}. A second "
            "derivative, or gradients under vmap, take another run of the function, which would be another one. Call "
            "backward() before the change, or call the function itself."
        )
    args, kwargs = entry.signature.arguments(list(tensors))
    targets = [tensors[t] if isinstance(t, int) else t for t in entry.targets]
    before = [(t, list(hooks_of(t))) for t in targets]
    with enable_grad(), entry.as_before():
        leaves = tree_flatten(entry.function(*args, **kwargs))[0]
    pairs = [(leaves[at], part) for at, part in zip(entry.live, parts, strict=True) if part is not None]
    roots = [root for root, _ in pairs]
    seeds = [part for _, part in pairs]
    heard = frozenset(id(hook) for _, hooks in before for hook in hooks)
    wanted = [t for t, one in zip(targets, asked, strict=True) if one]
    found = iter(engine.run(roots, seeds, inputs=wanted, retain=create, create=create, accumulate=False, heard=heard))
    for t, hooks in before:
        if len(hooks_of(t)) > len(hooks):  # what the run has registered was for this run
            hooks_of(t)[:] = hooks
    return tuple(next(found) if one else None for one in asked)


def count_changes(tensors: list[Tensor]) -> int:
    """A number that grows with every change in place of some of these tensors, and where their ``data`` is set."""
    return sum([sum(t._cell or ()) for t in tensors])


if native is not None:
    native.register(pair=ReplayBackward)
