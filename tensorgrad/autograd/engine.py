"""The backward pass: visit recorded calls from last to first, hand each the gradient of its result.

No recursion (graphs may be 100,000 calls deep) and no counting of dependencies: a node's number grows with time, so a
heap of falling numbers visits a node only after everything that used its result. Outside of ``create_graph`` the
gradients are bare arrays and the rules run on raw kernels; under it, both are Tensors and every step is recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

from ..core import Heap, native
from ..dispatch import grad_was_set, local, recorded, region
from ..errors import AutogradError, DTypeError, ShapeError
from ..tensor import Tensor, wrap
from .grad_mode import state as grad_state
from .node import Node
from .saved import input_of

__all__ = ["from_loss", "run"]

anomaly_check: Any = None
"""Set by detect_anomaly: called with (node, gradients) after each node."""


def run(
    roots: Sequence[Tensor],
    seeds: Sequence[Any],
    *,
    inputs: Sequence[Tensor] | None,
    retain: bool,
    create: bool,
    accumulate: bool,
    heard: frozenset[int] | None = None,
) -> list[Any]:
    """Propagate ``seeds`` (arrays; Tensors under ``create``) from ``roots``.

    With ``accumulate`` the gradients land in ``.grad`` of the leaves (of ``inputs`` only, when given); otherwise they
    are returned, one per input, None where nothing flowed. ``heard``: for a pass within another one that goes on to the
    same inputs, the identities of the inputs' hooks, which that one calls; it also sees to gradients that they retain.
    """
    before, lead = grad_state.recording, grad_state.lead
    grad_state.recording, grad_state.lead = create, None
    try:
        if not local.listeners:
            return _Pass(inputs, retain, create, accumulate, heard).run(roots, seeds)
        for ear in local.listeners:
            roots, inputs = ear.differentiates(roots, inputs, retain, accumulate)
        with region("backward"):
            return _Pass(inputs, retain, create, accumulate, heard).run(roots, seeds)
    finally:
        grad_state.recording, grad_state.lead = before, lead


def from_loss(root: Tensor, retain: bool) -> bool:
    """``run`` for the usual root, a number that is no view, in C; False, and nothing is done, for any other."""
    if native is None or anomaly_check is not None or local.listeners:
        return False
    done: bool = native.backward(_Pass, root, retain)
    return done


_NOTHING: dict[Any, Any] = {}  # never written to


def _owns_memory(array: Any) -> bool:
    base = array.base  # the extension's arrays have a capsule of this name, memory of other libraries has others
    return base is None or (
        type(base).__name__ == "PyCapsule" and repr(base).startswith('<capsule object "tensorgrad"')
    )


class _Pass:
    # what a pass to requested inputs has besides
    captured: dict[tuple[Node, int], Any] = _NOTHING
    wanted: dict[Node, set[int]] = _NOTHING
    needed: set[Node] | None = None
    wanted_leaves: set[int] | None = None

    def __init__(
        self, inputs: Sequence[Tensor] | None, retain: bool, create: bool, accumulate: bool,
        heard: frozenset[int] | None = None,
    ):  # fmt: skip
        self.inputs = inputs
        self.retain = retain
        self.create = create
        self.accumulate = accumulate
        self.heard = heard
        self.leaves: dict[int, tuple[Tensor, Any]] = {}  # by identity: tensors compare elementwise

    def run(self, roots: Sequence[Tensor], seeds: Sequence[Any]) -> list[Any]:
        if self.inputs is not None:
            self.captured, self.wanted = {}, {}
            self.wanted_leaves = {id(x) for x in self.inputs if x.grad_fn is None}
            for x in self.inputs:
                if x._node is not None:
                    self.wanted.setdefault(x._node, set()).add(x._slot)
            self.needed = self.nodes_above_inputs(roots)
            grad_state.lead = self.needed, self.wanted_leaves
        heap = Heap()
        pending: dict[Node, Any] = {}
        for root, seed in zip(roots, seeds, strict=True):
            node = root.grad_fn
            if node is None:
                self.to_leaf(root, seed)
            else:
                self.send(heap, pending, node, root._slot, seed)
        self.go(heap, pending)
        return self.deliver()

    def go(self, heap: Heap, pending: dict[Node, Any]) -> None:
        """Visit all nodes. What ``visit`` does for any node stands here for the usual one, without its questions."""
        usual, every = not self.create and anomaly_check is None, self.inputs is None
        if native is not None and usual:
            asked = () if every else (self.wanted, self.needed, self.wanted_leaves)
            native.go(self, heap, pending, self.leaves, self.retain, *asked)
            return
        retain, doors, leaves = self.retain, local.doors, self.leaves
        while heap:
            node = heap.pop()
            g = pending.pop(node)
            if not usual or node.watched or node.count != 1 or node in self.wanted:
                self.visit(heap, pending, node, g)
                continue
            saved, saved_outputs = node.saved, node.saved_outputs
            if saved or saved_outputs:
                node.check()
            grads: Any = None
            if getattr(node.op, "adds", None) is not None and self.add_into(doors, pending, node, g):
                pass
            elif node.slots is not None or not every:
                grads = node.op.differentiate(doors[type(g)], node, g, saved, saved_outputs)
                self.hand_on(heap, pending, node, grads)
            else:
                grads = node.op.differentiate(doors[type(g)], node, g, saved, saved_outputs)
                for edge, part in zip(node.edges, grads):  # noqa: B905 - of one length; strict costs here
                    if edge is None or part is None:
                        continue
                    if type(edge) is not Node:
                        key = id(edge)
                        held = leaves.get(key)
                        leaves[key] = (edge, part if held is None else self.add(held[1], part))
                    elif edge.count != 1:
                        self.send(heap, pending, edge, 0, part)
                    elif edge in pending:
                        pending[edge] = self.add(pending[edge], part)
                    else:
                        pending[edge] = part
                        heap.push(edge)
            if not retain and (saved or saved_outputs):
                node.release()
            g = grads = part = None
            saved = saved_outputs = ()  # or they would live on while the next node computes

    def add(self, a: Any, b: Any) -> Any:
        # out of place: either may be seen by somebody else
        return recorded.add(a, b) if self.create else local.doors[type(a)].add(a, b)

    def add_into(self, doors: Any, pending: dict[Node, Any], node: Node, g: Any) -> bool:
        """Add the gradient of the node's one input to what has arrived there before, in place if nobody else can see
        that; False, and nothing is done, where there is none or it may be seen."""
        edge, total = node.edges[0], None
        if type(edge) is Node:
            if edge.count == 1:
                total = pending.get(edge)
        elif id(edge) in self.leaves:
            total = self.leaves[id(edge)][1]
        # a fresh array, known to the table, to `total` and to getrefcount's argument
        if total is None or type(total) is not type(g) or hasattr(type(g), "door") or getrefcount(total) > 3:
            return False
        if total.dtype != g.dtype or not _owns_memory(total):
            return False
        getattr(doors[type(g)], node.op.adds)(total, g, **node.attrs)
        return True

    def send(self, heap: Heap, pending: dict[Node, Any], node: Node, slot: int, g: Any) -> None:
        if self.needed is not None and node not in self.needed:
            return
        if node.count == 1:
            if node in pending:
                pending[node] = self.add(pending[node], g)
                return
            pending[node] = g
        else:
            parts = pending.get(node)
            if parts is not None:
                parts[slot] = g if parts[slot] is None else self.add(parts[slot], g)
                return
            parts = pending[node] = [None] * node.count
            parts[slot] = g
        heap.push(node)

    def visit(self, heap: Heap, pending: dict[Node, Any], node: Node, g: Any) -> None:
        if node.hooks is not None or node.retained is not None or node in self.wanted:
            if (check := getattr(node.op, "check_observed", None)) is not None:
                check(node, g, self.wanted.get(node, ()))
            g = self.observe(node, g)
            if self.needed is not None and not self.goes_on(node):
                return
        if node.saved or node.saved_outputs or node.versions is not None or node.packed is not None:
            node.check()
        if node.count == 1 and node.packed is None and not self.create:
            grads = node.op.differentiate(local.doors[type(g)], node, g, node.saved, node.saved_outputs)
        else:
            grads = self.gradients_of(node, g if node.count == 1 else tuple(g))
        if anomaly_check is not None:
            anomaly_check(node, grads)
        if node.post_hooks is not None:
            grads = self.after_node(node, grads, g)
        self.hand_on(heap, pending, node, grads)
        if not self.retain:
            node.release()

    def hand_on(self, heap: Heap, pending: dict[Node, Any], node: Node, grads: Any) -> None:
        """Each input's gradient goes where the input came from."""
        slots = node.slots
        for i, edge in enumerate(node.edges):
            if edge is None or grads[i] is None:
                continue
            if type(edge) is Node:
                self.send(heap, pending, edge, slots[i] if slots else 0, grads[i])
            else:
                self.to_leaf(edge, grads[i])

    def gradients_of(self, node: Node, g: Any) -> Any:
        if self.create:
            inputs, outputs = ((), ()) if getattr(node.op, "opaque", False) else self.as_tensors(node)
            return node.op.differentiate(recorded, node, g, inputs, outputs)
        inputs, outputs = node.saved, node.saved_outputs
        if node.packed is not None:
            inputs, outputs = node.packed.unpack(node)
        some = g if node.count == 1 else next(part for part in g if part is not None)
        return node.op.differentiate(local.doors[type(some)], node, g, inputs, outputs)

    def as_tensors(self, node: Node) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What was saved, as Tensors that stand where the originals stood on the tape."""
        saved, outputs = node.saved, node.saved_outputs
        if node.packed is not None:
            saved, outputs = node.packed.unpack(node)
        positions = node.op.saved_positions(node) if hasattr(node.op, "saved_positions") else range(len(saved))
        inputs = []
        for i, array in zip(positions, saved, strict=True):
            if not hasattr(array, "dtype") or not hasattr(type(array), "data"):
                inputs.append(array)  # a Spec, a number, None
                continue
            inputs.append(input_of(node, i, array))
        made: list[Any] = []
        for (slot, _), array in zip(node.op.kept_outputs, outputs, strict=False):
            if array is None:
                made.append(None)
                continue
            again = wrap(array)
            if slot not in node.op.nondiff:
                again._node, again._slot, again._tracked = node, slot, True
            made.append(again)
        return tuple(inputs), tuple(made)

    def observe(self, node: Node, g: Any) -> Any:
        """Hooks, retained gradients and requested inputs see the finished gradient of this node's outputs."""
        parts = [g] if node.count == 1 else list(g)
        for slot, part in enumerate(parts):
            if part is None:
                continue
            outside = self.heard is not None and slot in self.wanted.get(node, ())
            if node.hooks is not None and slot in node.hooks:
                hooks = self.unheard(node.hooks[slot]) if outside else list(node.hooks[slot])
                parts[slot] = part = self.through_hooks(hooks, part)
            if node.retained is not None and slot in node.retained and not outside:
                tensor = node.retained[slot]()
                if tensor is not None:
                    tensor._grad = self.accumulated(tensor, part, own=False)
            if slot in self.wanted.get(node, ()):
                self.captured[node, slot] = part
        return parts[0] if node.count == 1 else parts

    def unheard(self, hooks: list[Any]) -> list[Any]:
        """An input's hooks, without those that the pass around this one calls."""
        return list(hooks) if self.heard is None else [hook for hook in hooks if id(hook) not in self.heard]

    def through_hooks(self, hooks: list[Any], g: Any) -> Any:
        for hook in hooks:
            seen = g if self.create else wrap(g)
            replaced = hook(seen)
            if replaced is not None:
                if not isinstance(replaced, Tensor) or replaced._data.shape != seen._data.shape:
                    raise AutogradError(
                        f"a tensor hook must return None or a Tensor of shape {tuple(seen.shape)}, got {replaced!r}"
                    )
                g = replaced if self.create else replaced._data
        return g

    def after_node(self, node: Node, grads: Any, g: Any) -> Any:
        as_user = (lambda x: x) if self.create else (lambda x: None if x is None else wrap(x))
        outgoing = (g,) if node.count == 1 else tuple(g)
        for hook in list(node.post_hooks or ()):
            replaced = hook(tuple(map(as_user, grads)), tuple(map(as_user, outgoing)))
            if replaced is not None:
                replaced = replaced if isinstance(replaced, tuple) else (replaced,)
                grads = tuple(r if self.create or r is None else r._data for r in replaced)
        return grads

    def goes_on(self, node: Node) -> bool:
        """Whether gradients must flow past a requested node: only towards further requested inputs."""
        return any(node.asked)

    def nodes_above_inputs(self, roots: Sequence[Tensor]) -> set[Node]:
        """Nodes from which some requested input is reached; nothing else needs to run."""
        assert self.wanted_leaves is not None
        leads: dict[Node, bool] = {}
        stack: list[tuple[Node, bool]] = [(r.grad_fn, False) for r in roots if r.grad_fn is not None]
        while stack:
            node, done = stack.pop()
            if done:
                leads[node] = node in self.wanted or any(
                    edge is not None
                    and (leads.get(edge, False) if type(edge) is Node else id(edge) in self.wanted_leaves)
                    for edge in node.edges
                )
            elif node not in leads:
                leads[node] = False
                stack.append((node, True))
                stack.extend((e, False) for e in node.edges if type(e) is Node and e not in leads)
        return {node for node, reached in leads.items() if reached}

    def to_leaf(self, leaf: Tensor, g: Any) -> None:
        key = id(leaf)
        if self.wanted_leaves is not None and key not in self.wanted_leaves:
            return
        held = self.leaves.get(key)
        self.leaves[key] = (leaf, g) if held is None else (leaf, self.add(held[1], g))

    def deliver(self) -> list[Any]:
        if not self.accumulate:
            for key, (leaf, g) in self.leaves.items():
                if leaf._hooks:
                    self.leaves[key] = (leaf, self.through_hooks(self.unheard(leaf._hooks), g))
            return [self.result_for(x) for x in self.inputs or ()]
        if native is not None and not self.create and not local.listeners:
            native.deliver(self, self.leaves)
        else:
            kept: set[int] | None = None
            for key, (leaf, g) in self.leaves.items():
                # an array that only the pair, `g` and getrefcount's argument know becomes the gradient as it is
                own = getrefcount(g) <= 3 and not self.create
                if own and isinstance(g.base, type(g)):
                    if kept is None:
                        kept = self.private_views()
                    own = key in kept
                self.land(leaf, g, own)
        for x in self.inputs or ():
            if x._node is not None and (x._node, x._slot) in self.captured:
                x._grad = self.accumulated(x, self.captured[x._node, x._slot], own=False)
                grad_was_set(x)
        return []

    def private_views(self) -> set[int]:
        """The leaves, by identity, whose gradients are views that they may keep: contiguous ones of memory that nobody
        but such views knows, no two of which overlap. So slices of one gradient (of ``cat``, ``stack``) are not
        copied."""
        views: dict[int, list[tuple[int, int, int, bool]]] = {}
        for key, (_, g) in self.leaves.items():
            if isinstance(g.base, type(g)) and hasattr(g, "__array_interface__"):
                start = g.__array_interface__["data"][0]
                plain = g.flags.c_contiguous and g.flags.writeable
                views.setdefault(id(g.base), []).append((start, start + g.nbytes, key, plain))
        kept: set[int] = set()
        for found in views.values():
            base = self.leaves[found[0][2]][1].base
            # known to the views, to `base` and to getrefcount's argument
            if getrefcount(base) == len(found) + 2 and _owns_memory(base) and all(plain for *_, plain in found):
                found.sort()
                if all(a[1] <= b[0] for a, b in itertools.pairwise(found)):
                    kept.update(key for _, _, key, _ in found)
        return kept

    def land(self, leaf: Tensor, g: Any, own: bool) -> None:
        """A leaf's gradient has arrived; ``own``: nobody else knows the array."""
        if leaf._hooks:
            g, own = self.through_hooks(list(leaf._hooks), g), False
        data = leaf._data
        if own and leaf._grad is None and g.dtype is data.dtype and g.shape == data.shape:
            leaf._grad = wrap(g)
        else:
            leaf._grad = self.accumulated(leaf, g, own)
        grad_was_set(leaf)
        if leaf._post_hooks:
            for hook in list(leaf._post_hooks):
                hook(leaf)

    def result_for(self, x: Tensor) -> Any:
        if x._node is not None:
            return self.captured.get((x._node, x._slot))
        held = self.leaves.get(id(x))
        return None if held is None else held[1]

    def accumulated(self, tensor: Tensor, g: Any, own: bool) -> Tensor:
        """``tensor.grad`` after ``g`` arrived: a tensor that nobody else's gradient shares memory with.

        ``own``: nobody else knows the array ``g``.
        """
        array = g._data if self.create else g
        if array.shape != tensor._data.shape:
            raise ShapeError(
                f"backward: a gradient of shape {tuple(array.shape)} reached a tensor of shape {tuple(tensor.shape)}."
            )
        if array.dtype is not tensor._data.dtype and array.dtype != tensor._data.dtype:
            if array.dtype.kind == "c" and tensor._data.dtype.kind != "c":
                raise DTypeError(f"backward: a complex gradient reached a real tensor ({tensor.dtype}).")
            g = recorded.cast(g, dtype=tensor._data.dtype) if self.create else self.cast(array, tensor._data.dtype)
            array = g._data if self.create else g
            own = not self.create
        old = tensor._grad
        if self.create:
            return recorded.add(old, g) if old is not None else g
        if old is not None:
            if old._tracked:  # made under create_graph: its history must not be written over
                return wrap(local.doors[type(array)].add(old._data, array))
            local.doors[type(array)].add(old._data, array, out=old._data)
            old._bump()
            return old
        return wrap(array if own else local.doors[type(array)].contiguous_copy(array))

    def cast(self, array: Any, dtype: Any) -> Any:
        return local.doors[type(array)].cast(array, dtype=dtype)
