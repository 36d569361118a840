"""Graphs that end at stand-ins, the leaves that a run is given in place of arguments with a history, and how they are
joined to that history."""

from __future__ import annotations

import gc
from collections.abc import Collection
from typing import Any, NamedTuple

from ..autograd import engine
from ..autograd.node import FREED, Node
from ..errors import CompileError
from ..tensor import Tensor

__all__ = ["Pass", "begins_before", "broken", "check_passes", "edges_to", "join", "nodes_behind", "send_on", "turn"]


class Pass(NamedTuple):
    """A backward pass of a run: the numbers of the arguments with a history that it has reached, whether it frees
    nothing, and whether it ends there."""

    reached: frozenset[int]
    retains: bool
    ends: bool


def broken(root: Any) -> Node | None:
    """A node behind this one through which no backward pass can go any more: another pass has freed what it saved, or
    that was changed in place since. A node that saves nothing, such as a sum's, doesn't tell."""
    seen: set[int] = set()
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if type(node) is Node and id(node) not in seen:
            if node.saved is FREED or any(cell[0] != then for cell, then in node.versions or ()):
                return node
            seen.add(id(node))
            stack.extend(node.edges)
    return None


def edges_to(roots: Any, ends: Collection[int]) -> tuple[list[tuple[int, Node | None, int]], set[int]]:
    """The edges of the graph behind tensors that end at tensors with these identities: (identity, node, number of the
    input), without a node for one of the roots; and the identities of all nodes and leaves on the way."""
    found: list[tuple[int, Node | None, int]] = [(id(root), None, 0) for root in roots if id(root) in ends]
    stack = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = {id(root) for root in roots if root.grad_fn is None}
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for at, edge in enumerate(node.edges):
            if type(edge) is Node:
                stack.append(edge)
            elif edge is not None:
                seen.add(id(edge))
                if id(edge) in ends:
                    found.append((id(edge), node, at))
    return found, seen


def begins_before(roots: Any, number: int) -> bool:
    """Whether the graph behind tensors has nodes that are older than the one of that number."""
    stack = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if node.number < number:
            return True
        if id(node) not in seen:
            seen.add(id(node))
            stack.extend(edge for edge in node.edges if type(edge) is Node)
    return False


def turn(node: Node, at: int, tensor: Tensor) -> None:
    """The gradient of a node's input goes to that tensor from now on."""
    edges: list[Any] = []
    ahead = Node(None, {}, 1)
    ahead.link(edges, tensor, 1)
    every = list(node.edges)
    every[at] = edges[0]
    slots = list(node.slots or (0,) * len(every))
    slots[at] = (ahead.slots or (0,))[0]
    node.edges = tuple(every) if isinstance(node.edges, tuple) else every  # the tape's C tells records by it
    node.slots = tuple(slots) if any(slots) else None


def send_on(arrived: list[tuple[int, Tensor, Tensor]], passes: list[Pass]) -> None:
    """What has arrived at arguments, (number, the argument, its gradient), goes on through their histories as the
    passes of the run would have gone: one behind another that has freed what both need raises AutogradError."""
    ending = frozenset().union(*(each.reached for each in passes if each.ends))
    for number, tensor, grad in arrived:
        if number in ending:
            tensor._grad = grad if tensor._grad is None else tensor._grad + grad
    going = {number: (tensor, grad) for number, tensor, grad in arrived if number not in ending}
    if not going:
        return
    through = [each for each in passes if not each.ends]
    freed: set[int] = set()
    for i, each in enumerate(through if len(through) > 1 else ()):
        behind = nodes_behind([going[n][0] for n in each.reached if n in going])
        for node in behind:
            if id(node) in freed:
                raise node.a_second_time()
        if not each.retains and i + 1 < len(through):
            freed.update(id(node) for node in behind if node.saves())
    retains = bool(through) and all(each.retains for each in through)
    roots, grads = zip(*going.values(), strict=True)
    engine.run(roots, [g._data for g in grads], inputs=None, retain=retains, create=False, accumulate=True)


def check_passes(passes: list[Pass]) -> None:
    """Raises CompileError where the gradient of an argument belongs to the argument and to its history as well."""
    ending = frozenset().union(*(each.reached for each in passes if each.ends))
    if any(not each.ends and each.reached & ending for each in passes):
        raise CompileError(
            "compile: one backward pass ends at an argument, as an input of it, and another goes on through what the "
            "argument was computed of. Leave one of them out of the compiled function, or compute the argument within "
            "it."
        )


def nodes_behind(tensors: list[Tensor]) -> list[Node]:
    """The nodes of the graph behind tensors."""
    seen: dict[int, Node] = {}
    stack: list[Any] = [t.grad_fn for t in tensors]
    while stack:
        node = stack.pop()
        if type(node) is Node and id(node) not in seen:
            seen[id(node)] = node
            stack.extend(node.edges)
    return list(seen.values())


def join(stand_in: Tensor, tensor: Tensor) -> None:
    """Whatever was recorded with the stand-in goes on at the tensor, also what a run has left somewhere else than in
    its result: all that refers to the stand-in is looked through."""
    holders = [x for x in gc.get_referrers(stand_in) if type(x) in (list, tuple, Tensor)]
    for holder in holders:
        if type(holder) is Tensor:
            if holder._base is stand_in:
                holder._base, holder._generation = tensor, tensor._changes
            continue
        for node in gc.get_referrers(holder):
            if type(node) is Node and node.edges is holder:
                for at, edge in enumerate(holder):
                    if edge is stand_in:
                        turn(node, at, tensor)
