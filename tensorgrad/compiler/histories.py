"""Graphs that end at stand-ins, the leaves that a run is given in place of arguments with a history, and how they are
joined to that history."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Collection
from types import CellType, FrameType
from typing import Any, NamedTuple

from ..autograd import engine
from ..autograd.hooks import register_hook, retain_grad
from ..autograd.node import FREED, Node
from ..errors import CompileError
from ..tensor import Tensor
from ..utils._pytree import tree_flatten, tree_unflatten
from .before import Before

__all__ = [
    "Pass", "begins_before", "broken", "check_passes", "edges_to", "nodes_behind", "rejoined", "send_on", "show",
    "turn",
]  # fmt: skip


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


def rejoined(result: Any, before: Before, given: list[Tensor], tensors: list[Tensor], passes: list[Pass]) -> Any:
    """The result of a run on stand-ins that no program was written of, with the arguments' own histories behind it, and
    behind whatever else the run has recorded. What it has made of a stand-in is made of the argument."""
    real = {id(stand_in): t for stand_in, t in zip(given, tensors, strict=True) if stand_in is not t}
    if not real:
        return result
    leaves, spec = tree_flatten(result)
    were = zip(given, tensors, before.given, before.tracked, strict=True)
    stood = {id(s): (i, s, t, array, on) for i, (s, t, (_, array), on) in enumerate(were) if s is not t}.values()
    reached = frozenset().union(*(each.reached for each in passes))
    send_on([(i, t, s._grad) for i, s, t, *_ in stood if s._grad is not None and i in reached], passes)
    for i, stand_in, t, array, tracked in stood:
        if stand_in._grad is not None and i not in reached:
            t._grad = stand_in._grad if t._grad is None or t._node is not None else t._grad + stand_in._grad
        _join(stand_in, t)
        _hand_over(stand_in, array, tracked, t)
    return tree_unflatten([real.get(id(leaf), leaf) for leaf in leaves], spec)


def show(stand_in: Tensor, tensor: Tensor) -> None:
    """From now on the stand-in is a view of all of the tensor: it has its history, and whatever is recorded of changes
    in place of one or the other is seen through both."""
    root = tensor if tensor._base is None else tensor._base
    if tensor._base is not None and tensor._generation != root._changes:
        tensor._follow_base()
    for holder in gc.get_referrers(stand_in):
        if type(holder) is Tensor and holder._base is stand_in:
            holder._base, holder._chain, holder._generation = root, (*tensor._chain, *holder._chain), root._changes
        elif type(holder) is tuple or type(holder) is list:
            _turn_edges(holder, stand_in, tensor)
    _hand_over_hooks(stand_in, tensor)
    stand_in._base, stand_in._chain, stand_in._generation = root, tensor._chain, root._changes
    stand_in._node, stand_in._slot, stand_in._frozen_view = tensor._node, tensor._slot, tensor._frozen_view
    stand_in._keeps_grad = stand_in._keeps_grad or tensor._keeps_grad


def _join(stand_in: Tensor, tensor: Tensor) -> None:
    """Whatever was recorded with the stand-in goes on at the tensor, also what a run has left somewhere else than in
    its result: all that refers to the stand-in is looked through, and refers to the tensor from now on."""
    for holder in gc.get_referrers(stand_in):
        kind = type(holder)
        if kind is Tensor and holder._base is stand_in:
            holder._base, holder._generation = tensor, tensor._changes
        elif kind is Node:
            continue  # what it saves has the elements alone
        elif (kind is tuple or kind is list) and _turn_edges(holder, stand_in, tensor):
            continue
        elif kind is CellType:
            holder.cell_contents = tensor
        elif isinstance(holder, (list, deque)):
            for at, x in enumerate(holder):
                if x is stand_in:
                    holder[at] = tensor
        elif kind is not FrameType:
            own: Any = holder if isinstance(holder, dict) else getattr(holder, "__dict__", None)
            for name in [name for name, x in own.items() if x is stand_in] if isinstance(own, dict) else ():
                own[name] = tensor


def _turn_edges(edges: Any, stand_in: Tensor, tensor: Tensor) -> bool:
    """Whether these are edges of nodes, which go to the tensor now."""
    nodes = [node for node in gc.get_referrers(edges) if type(node) is Node and node.edges is edges]
    for node in nodes:
        for at, edge in enumerate(edges):
            if edge is stand_in:
                turn(node, at, tensor)
    return bool(nodes)


def _hand_over(stand_in: Tensor, array: Any, tracked: bool, tensor: Tensor) -> None:
    """What a run has made of the stand-in, which had this array and was tracked or not, is made of the tensor."""
    if stand_in.__dict__ or tensor.__dict__:
        tensor.__dict__.clear()
        tensor.__dict__.update(stand_in.__dict__)
    if stand_in._data is not array:
        tensor._data = stand_in._data
        tensor._changes += 1
    shown = stand_in._base is not None and (stand_in._base is tensor or stand_in._base is tensor._base)
    if shown and stand_in._data is not array:  # it is not all of the tensor, which becomes it
        shown = False
        if tensor._base is not None:
            tensor._chain, tensor._generation = stand_in._chain, stand_in._generation
    if shown and stand_in._keeps_grad:
        retain_grad(tensor)
    if not shown and (stand_in._node is not None or stand_in._tracked != tracked):
        tensor._node, tensor._slot, tensor._tracked = stand_in._node, stand_in._slot, stand_in._tracked
        if tensor._node is not None:  # a leaf's views have no history to follow
            tensor._changes += 1
    elif shown and stand_in._node is None and tensor._node is None:
        tensor._tracked = stand_in._tracked
    _hand_over_hooks(stand_in, tensor)


def _hand_over_hooks(stand_in: Tensor, tensor: Tensor) -> None:
    if stand_in._post_hooks:
        tensor._post_hooks = [*(tensor._post_hooks or ()), *stand_in._post_hooks]
    if stand_in._hooks and tensor._tracked:
        for hook in stand_in._hooks:
            register_hook(tensor, hook)
    stand_in._post_hooks = stand_in._hooks = None
