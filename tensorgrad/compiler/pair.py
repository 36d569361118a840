"""``PairEntry``: two programs, forward and backward, of a run whose results carry a graph: a model, a loss function.

The backward program is written at once, by a backward pass through the graph of the captured run. A replay's results
hang on one node; what backward reads of the forward program are outputs of that one, saved in the node.
"""

from __future__ import annotations

from typing import Any

from ..autograd import engine
from ..autograd.grad_mode import enable_grad
from ..autograd.node import FREED, Node
from ..dispatch import listening
from ..errors import CompileError
from ..random import Generator
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten
from .entry import Entry
from .executor import executor
from .program import Program, Value, values_in

__all__ = ["PairEntry", "is_live"]


def is_live(result: Any) -> bool:
    """Whether some tensor of a result carries a graph that a backward pass can still go through."""
    for leaf in tree_flatten(result)[0]:
        if isinstance(leaf, Tensor) and leaf._node is not None and leaf._node.saved is not FREED:
            return True
    return False


class PairEntry(Entry):
    """Its forward program also returns what the backward program reads; see the module."""

    def __init__(self, function: Any, reach: Any, signature: Any, given: Any, trace: Any, before: Any, result: Any):
        forward = list(trace.steps)
        leaves = tree_flatten(result)[0]
        self.live = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
        roots = [leaves[i] for i in self.live]
        targets = _leaves_behind(roots)
        seeds = [_like(root._data) for root in roots]
        trace.steps = []
        seed_values = [trace.argument(array) for array in seeds]
        with listening(trace):
            grads = engine.run(roots, seeds, inputs=targets, retain=True, create=False, accumulate=False)
        backward, trace.steps = trace.steps, forward
        made_before = {v for step in forward for v in getattr(step, "results", ()) if v is not None}
        saved: dict[Value, None] = {}
        outputs = [None if g is None else trace.value_of(g) for g in grads]
        needed = {v for v in outputs if v is not None}
        for step in backward:
            for v in values_in([*getattr(step, "inputs", ()), *getattr(step, "attrs", {}).values()]):
                needed.add(v)
        for v in needed:
            if v in made_before or v in trace.arguments[: len(given)]:
                saved[v] = None
        trace.arguments = trace.arguments[: len(given)] + trace.arguments[len(given) + len(seeds) :]
        self.saved = list(saved)
        self.kept = [trace.array_of(v) for v in self.saved]
        super().__init__(function, reach, signature, given, trace, before, result)
        self.state = [t for t in before.known if trace.values.get(id(t._data)) in needed]
        self.count = len(self.program.outputs)
        self.program.outputs += [v for v in self.saved if v not in self.program.outputs]
        self.places = [self.program.outputs.index(v) for v in self.saved]
        self.run = executor(self.program)
        self.targets = [before.arguments.get(id(t), t) for t in targets]
        order = [v for v in outputs if v is not None]
        self.grad_at = [None if v is None else order.index(v) for v in outputs]
        self.backward = Program(backward, [*self.saved, *seed_values], order)
        self.run_backward = executor(self.backward)
        self.templates = [(root._data.shape, root._data.dtype) for root in roots]
        self.draws = any(isinstance(a, Generator) for call in self.program.calls for a in call.attrs.values())

    def first(self, signature: Any) -> Any:
        arrays: dict[int, Any] = {}
        leaves = tree_flatten(self.returned)[0]
        outputs = [None] * len(self.program.outputs)
        for at, number in self.result.made:
            outputs[number] = leaves[at]._data
        for number, array in zip(self.places, self.kept, strict=True):
            outputs[number] = array
        del arrays
        for who, at in self.grads:
            if type(who) is int:
                signature.tensors[who]._grad = None if at is None else self.given[who]._grad
        self.returned = self.given = self.kept = None  # type: ignore[assignment]
        return self._recorded(outputs, signature)

    def replay(self, signature: Any) -> Any:
        tensors = signature.tensors
        given = [t._data for t in tensors]
        arrays = self.run(given)
        for cell in self.cells:
            cell[0] += 1
        for i in self.bumped:
            tensors[i]._bump()
        return self._recorded(arrays, signature)

    def _recorded(self, arrays: list[Any], signature: Any) -> Any:
        result = self.result.build(arrays, signature.tensors)
        leaves = tree_flatten(result)[0]
        node = Node(_Backward(self, signature), {}, len(self.live))
        edges: list[Any] = []
        for who in self.targets:
            node.link(edges, signature.tensors[who] if type(who) is int else who, len(self.targets))
        node.edges = edges
        for t in (*self.state, *signature.tensors):
            node.watch(t)
        node.saved = tuple([arrays[at] for at in self.places])
        node.note_line()
        for slot, at in enumerate(self.live):
            leaf = leaves[at]
            leaf._node, leaf._slot, leaf._tracked = node, slot, True
        return result


class _Backward:
    """What the node of a replay shows the engine in place of an op record."""

    name = "compiled"
    nondiff: frozenset[int] = frozenset()
    opaque = True
    kept_outputs: tuple[Any, ...] = ()

    def __init__(self, entry: PairEntry, signature: Any):
        self.entry = entry
        self.signature = signature

    def differentiate(self, F: Any, node: Node, g: Any, inputs: Any, outputs: Any) -> Any:
        entry = self.entry
        parts = (g,) if node.count == 1 else g
        some = next(part for part in parts if part is not None)
        if isinstance(some, Tensor):
            return self._again(entry, parts)
        seeds = [_like_form(form) if part is None else part for part, form in zip(parts, entry.templates, strict=True)]
        arrays = entry.run_backward([*node.saved, *seeds])
        return tuple([None if at is None else arrays[at] for at in entry.grad_at])

    def _again(self, entry: PairEntry, parts: Any) -> Any:
        """Under create_graph: by a run of the function itself, whose gradient can be differentiated further."""
        if entry.draws:
            raise CompileError(
                "compile: a second derivative through a compiled function that draws random numbers; they would be "
                "others in the run that it takes. Call the function itself."
            )
        from ..autograd import grad

        args, kwargs = self.signature.arguments(self.signature.tensors)
        with enable_grad():
            leaves = tree_flatten(entry.function(*args, **kwargs))[0]
            roots = [leaves[i] for i in entry.live]
            pairs = [(r, p) for r, p in zip(roots, parts, strict=True) if p is not None]
            targets = [self.signature.tensors[t] if type(t) is int else t for t in entry.targets]
            found = grad([r for r, _ in pairs], targets, [p for _, p in pairs], create_graph=True, allow_unused=True)
        return tuple(found)


def _leaves_behind(roots: list[Tensor]) -> list[Tensor]:
    """The leaves that the graph behind these tensors ends at, in the order in which they are met."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    stack: list[Any] = [root.grad_fn for root in reversed(roots)]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for edge in reversed(node.edges):
            if edge is None:
                continue
            if type(edge) is Node:
                stack.append(edge)
            else:
                found[id(edge)] = edge
    return list(found.values())


def _like(array: Any) -> Any:
    from ..dispatch import local

    return local.doors.of(array).full(shape=array.shape, value=0, dtype=array.dtype)


def _like_form(form: Any) -> Any:
    from ..dispatch import everywhere

    shape, dtype = form
    return next(iter(everywhere.values())).full(shape=shape, value=0, dtype=dtype)


_ = wrap
