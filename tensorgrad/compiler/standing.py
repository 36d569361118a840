"""``StandIns``: what stands for arguments in a run, and backward passes that would go on through their histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autograd.node import Node
from .histories import Pass, begins_before, broken, edges_to, send_on, show, turn
from .users_line import at_users_line

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["StandIns"]


_REACHED = (
    "compile: a tensor that the function reaches by itself, and not as an argument, was computed outside with a graph. "
    "Pass it as an argument, or detached."
)


class StandIns:
    """The leaves that a run is given in place of arguments.

    Args:
        trace: of the run.
        outside: arguments that stand for tensors with a history, by identity: (number, the tensor).
        stood: (number, what stands for an argument, the argument), by identity of the stand-in.
        reach: what the function reaches.
    """

    def __init__(
        self, trace: Trace, outside: dict[int, tuple[int, Any]], stood: dict[int, tuple[int, Any, Any]], reach: Any
    ):
        self.trace = trace
        self.outside = outside
        self.stood = stood
        self.reach = reach
        self.first_node = Node(None, {}, 1).number if trace.splits else 0  # what is older was recorded outside
        self.passes: list[Pass] = []

    def number(self, tensor: Any) -> int | None:
        """Of the argument with a history that a tensor stands for."""
        found = self.outside.get(id(tensor))
        return None if found is None else found[0]

    def rewrites(self, tensor: Any) -> None:
        """It may be a leaf here alone, which stands for an argument with a history; or one of the two that an argument
        is which the function also reaches by itself."""
        for i, stand_in, t in self.stood.values():
            if tensor is stand_in or tensor is t or tensor is t._base:
                where = at_users_line(4)
                outside = "was computed outside of the compiled function and requires grad"
                what = outside if t._tracked else "the function also reaches by itself"
                why = (
                    f"compile: argument {i}, which {what}, is changed in place{where}. A replay can't change what is "
                    "recorded of it. Use the out-of-place operation and return its result, or change a clone() of the "
                    "argument."
                )
                if self.trace.splits or t._tracked:
                    self.trace.refuse(why)
                else:  # as if eager up to the function's end, which may be an error of its own
                    self.trace.refused = why
                self.show()
                return

    def differentiates(self, roots: Any, inputs: Any, retain: bool, accumulate: bool) -> tuple[Any, Any]:
        """Where a backward pass would end at an argument, which has a history outside, and something here waits for
        the gradients of what lies behind: a replay could hand them on at its end alone. The run itself goes on through
        that history."""
        if self.trace.splits and begins_before(roots, self.first_node):
            self.trace.refuse(_REACHED)
        if not self.outside:
            return roots, inputs
        edges, seen = edges_to(roots, self.outside)
        reached = [self.outside[key] for key in dict.fromkeys(key for key, _, _ in edges)]
        if inputs is None and any(broken(t.grad_fn) is not None for _, t in reached):
            # it raises where it is, and not behind what the function does next
            self.trace.postponed = (
                "a backward pass goes to an argument whose history another has freed, or a change in place"
            )
            return self._through_histories(edges, roots), inputs
        if accumulate:
            ends = set(self.outside) if inputs is None else {id(x) for x in inputs}
            numbers = frozenset(self.outside[key][0] for key, _, _ in edges if key in ends)
            if numbers:
                self.passes.append(Pass(numbers, retain, inputs is not None))
        if not reached or not self._waits_for(reached, inputs, seen):
            return roots, inputs
        where = at_users_line(5)
        self.trace.refuse(
            f"compile: the backward pass{where} goes through argument {reached[0][0]}, which was computed outside of "
            "the compiled function, to tensors whose gradients are used within it. Compute it within the function, "
            "call backward() outside, pass it detached (x.detach()), or give compile(..., fallback=True)."
        )
        real = {key: self.outside[key][1] for key, _, _ in edges}
        return self._through_histories(edges, roots), None if inputs is None else [real.get(id(x), x) for x in inputs]

    def _waits_for(self, reached: list[tuple[int, Any]], inputs: Any, seen: set[int]) -> bool:
        if inputs is not None:
            mine = (x for x in inputs if id(x) not in self.outside)
            return any((id(x) if x._node is None else id(x._node)) not in seen for x in mine)
        return self.reach is not None and self.reach.waits_for([t for _, t in reached])

    def _through_histories(self, edges: list[tuple[int, Node | None, int]], roots: Any) -> list[Any]:
        """The roots of a pass that goes on through the histories of the arguments that these edges lead to."""
        real = {key: self.outside[key][1] for key, _, _ in edges}
        for key, node, at in edges:
            if node is not None:
                turn(node, at, real[key])
        self.outside = {key: pair for key, pair in self.outside.items() if key not in real}
        return [real.get(id(root), root) for root in roots]

    def show(self) -> None:
        """From now on they are the arguments themselves."""
        theirs = [(i, t, s._grad) for i, s, t in self.stood.values() if t._node is not None]
        arrived = [(i, t, grad) for i, t, grad in theirs if grad is not None]
        for _, stand_in, t in self.stood.values():
            show(stand_in, t)
            if t._node is not None:
                stand_in._grad = None
        self.stood, self.outside = {}, {}
        passes, self.passes = self.passes, []
        send_on(arrived, passes)
