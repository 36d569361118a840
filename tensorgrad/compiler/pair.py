"""``PairEntry``: two programs, forward and backward, of a run whose results carry a graph: a model, a loss function.

The backward program is written at once, by a backward pass through the graph of the captured run. A replay's results
hang on one node; what backward reads of the forward program are outputs of that one, saved in the node.
"""

from __future__ import annotations

from typing import Any

from ..autograd import engine
from ..autograd.grad_mode import enable_grad
from ..autograd.node import FREED, Node
from ..core import native
from ..dispatch import listening, local
from ..errors import CompileError
from ..random import Generator
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten
from .entry import Entry
from .executor import executor, in_python, shelf_of
from .passes import optimize
from .program import Call, Program

__all__ = ["PairEntry", "is_live", "rejoined"]


def is_live(result: Any) -> bool:
    """Whether some tensor of a result carries a graph that a backward pass can still go through."""
    for leaf in tree_flatten(result)[0]:
        if isinstance(leaf, Tensor) and leaf._node is not None and not _is_freed(leaf.grad_fn):
            return True
    return False


def _is_freed(root: Any) -> bool:
    """Whether a backward pass has freed a part of the graph. A node that saves nothing, such as a sum's, doesn't
    tell."""
    seen: set[int] = set()
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if type(node) is Node and id(node) not in seen:
            if node.saved is FREED:
                return True
            seen.add(id(node))
            stack.extend(node.edges)
    return False


class PairEntry(Entry):
    """Its forward program also returns what the backward program reads; see the module."""

    def _written(self, trace: Any, outputs: list[Any]) -> list[Program]:
        forward = list(trace.steps)
        leaves = tree_flatten(self.returned)[0]
        self.live = [i for i, leaf in enumerate(leaves) if is_live(leaf)]
        roots = [leaves[i] for i in self.live]
        targets = _leaves_behind(roots)
        seeds = [_zeros(type(root._data), root._data.shape, root._data.dtype) for root in roots]
        trace.steps = []
        self.kinds = [type(array) for array in seeds]
        seed_values = [trace.argument(array) for array in seeds]
        with listening(trace):
            grads = engine.run(roots, seeds, inputs=targets, retain=True, create=False, accumulate=False)
        backward, trace.steps = trace.steps, forward
        early = [v for v in trace.arguments if v not in seed_values]
        found = [None if g is None else trace.value_of(g) for g in grads]
        gradients = list(dict.fromkeys(v for v in found if v is not None))
        made = {v for step in forward for v in getattr(step, "results", ()) if v is not None}
        needed = dict.fromkeys(gradients)
        for step in backward:
            if isinstance(step, Call):
                needed.update(dict.fromkeys(v for x in step.reads() for v in (x, x.root)))
        # of what only views are left, whose memory has an owner that no op has named, the views are saved
        kept = {v: trace.array_of(v) for v in needed if v in made or v in early}
        saved = [v for v, array in kept.items() if array is not None]
        self.kept = [kept[v] for v in saved]
        results = [trace.value_of(array) for array in outputs]
        self.count = len(results)
        self.targets = [self.given_number(t) for t in targets]
        self.grad_at = [None if v is None else gradients.index(v) for v in found]
        watched = {v for v in needed if v.array is not None}
        self.state = [t for t in self.known if trace.values.get(id(t._data)) in watched]
        return [Program(forward, early, [*results, *saved]), Program(backward, [*saved, *seed_values], gradients)]

    def link(self, raw: list[Program]) -> None:
        self.backward = _Backward(self)
        self._note_writes(raw[0])
        first, second = self.programs = [optimize(program) for program in raw]
        self.draws = any(isinstance(a, Generator) for call in first.calls for a in call.attrs.values())
        results, saved = first.outputs[: self.count], first.outputs[self.count :]
        seeds = second.arguments[len(saved) :]
        self.templates = [(kind, v.shape, v.dtype) for kind, v in zip(self.kinds, seeds, strict=True)]
        joined = Program([*first.steps, *second.steps], [*first.arguments, *seeds], [*results, *second.outputs])
        joined.notes = [*first.notes, *second.notes]
        self.joined = joined
        self.shelf = shelf_of(
            joined, split=len(first.steps), late=len(seeds), early=len(results), kept=saved, shown=self.shown
        )
        self.run_forward = executor(first) if self.shelf is None else None
        self.run_backward: Any = executor(second) if self.shelf is None else None
        joined.runners = [*first.runners, *second.runners]
        if self.shelf is not None:
            first.linked = second.linked = joined.linked = self.shelf.plan

    @property
    def whole(self) -> Program:
        return self.joined

    def _waiting(self) -> Any:
        return None if self.shelf is None else self.shelf.waiting

    def _packed_pair(self) -> Any:
        return self.backward, self.backward.gradients, tuple(self.targets), tuple(self.state), len(self.live)

    def given_number(self, t: Tensor) -> Tensor | int:
        """The number of the argument that a tensor stands for; itself for others."""
        for i, one in enumerate(self.given):
            if one is t:
                return i
        return t

    def first(self, signature: Any) -> Any:
        # The run's own results, behind a node like every replay's.
        arrays: list[Any] = [None] * (self.count or 0)
        leaves = tree_flatten(self.returned)[0]
        for where, number, _ in self.result.made:
            arrays[number] = leaves[where]._data
        saved, self.kept = self.kept, []
        self._first_gradients(signature)
        self.returned, self.given = None, []
        tensors = signature.tensors
        signature.forget()
        return self._recorded(arrays, saved, None, tensors)

    def replay(self, tensors: list[Tensor]) -> Any:
        given = self._arguments(tensors)
        for g in self._added_to(tensors):
            g._bump()
        shelf = self.shelf
        memory: Any
        if shelf is None:
            found = self.run_forward(given)  # type: ignore[misc]
            arrays, memory, token = found[: self.count], found[self.count :], None
        else:
            one = shelf.take()
            assert one is not None
            token = one.token
            try:
                one.run(given)
                arrays = one.results(given)
            finally:
                shelf.put(one)
            memory = one.packed
        self._settle(tensors, arrays)
        return self._recorded(arrays, memory, token, tensors)

    def _recorded(self, arrays: list[Any], memory: Any, token: Any, tensors: list[Tensor]) -> Any:
        """The result, with its node: ``memory`` is the instance whose block holds what backward reads, which is not
        idle while the token lives, or a list of these arrays."""
        node = Node(self.backward, {}, len(self.live))
        node.plan = self.backward.gradients
        edges: list[Any] = []
        for who in self.targets:
            node.link(edges, tensors[who] if isinstance(who, int) else who, len(self.targets))
        node.edges = edges
        for t in (*self.state, *tensors):
            node.watch(t)
        node.saved = (memory, token, tuple(tensors))
        node.note_line()
        return self._on_tape(self.result.build(arrays, tensors), node)

    def _is_direct(self) -> bool:
        return self.result.alone

    def finished(self, found: Any) -> Any:
        arrays, node = found
        return self._on_tape(self.result.build(arrays, []), node)

    def _on_tape(self, result: Any, node: Node) -> Any:
        leaves = tree_flatten(result)[0]
        for slot, at in enumerate(self.live):
            leaf = leaves[at]
            leaf._node, leaf._slot, leaf._tracked = node, slot, True
        return result

    def gradients(self, memory: Any, seeds: list[Any]) -> list[Any]:
        """What the backward program makes of the results' gradients."""
        if type(memory) is list:
            return self._outside_blocks([*memory, *seeds])
        arrays: Any = native.run_backward(memory, seeds)
        if arrays is NotImplemented:  # somebody still has those of the last pass
            return self._outside_blocks([*memory[-1].kept, *seeds])
        found: list[Any] = arrays
        return found

    def _outside_blocks(self, given: list[Any]) -> list[Any]:
        if self.run_backward is None:
            self.run_backward = in_python(self.programs[1])
        arrays: list[Any] = self.run_backward(given)
        return arrays


class _Backward:
    """What the node of a replay shows the engine in place of an op record."""

    name = "compiled"
    nondiff: frozenset[int] = frozenset()
    opaque = True
    kept_outputs: tuple[Any, ...] = ()

    def __init__(self, entry: PairEntry):
        self.entry = entry
        self.gradients = tuple(entry.grad_at)  # by input: which of the backward program's outputs it is

    def differentiate(self, F: Any, node: Node, g: Any, inputs: Any, outputs: Any) -> Any:
        entry = self.entry
        parts = (g,) if node.count == 1 else g
        some = next(part for part in parts if part is not None)
        if isinstance(some, Tensor):
            return self._again(entry, parts, node.saved[2])
        seeds = [_zeros(*form) if part is None else part for part, form in zip(parts, entry.templates, strict=True)]
        arrays = entry.gradients(node.saved[0], seeds)
        return tuple([None if at is None else arrays[at] for at in self.gradients])

    def _again(self, entry: PairEntry, parts: Any, tensors: tuple[Tensor, ...]) -> Any:
        """Under create_graph: by a run of the function itself, whose gradient can be differentiated further."""
        if entry.draws or entry.cells or entry.bumped:
            raise CompileError(
                "compile: a second derivative through a compiled function that draws random numbers or changes its "
                "state; "
                "the run that it takes would be another one. Call the function itself."
            )
        from ..autograd import grad

        args, kwargs = entry.signature.arguments(list(tensors))
        with enable_grad():
            leaves = tree_flatten(entry.function(*args, **kwargs))[0]
            roots = [leaves[i] for i in entry.live]
            pairs = [(r, p) for r, p in zip(roots, parts, strict=True) if p is not None]
            targets = [tensors[t] if isinstance(t, int) else t for t in entry.targets]
            found = grad([r for r, _ in pairs], targets, [p for _, p in pairs], create_graph=True, allow_unused=True)
        return tuple(found)


if native is not None:
    native.register(pair=_Backward)


class _Through:
    """The node behind the results of a run on stand-ins: its backward is theirs."""

    name = "compiled"
    nondiff: frozenset[int] = frozenset()
    opaque = True
    kept_outputs: tuple[Any, ...] = ()

    def __init__(self, roots: list[Tensor], targets: list[Tensor]):
        self.roots = roots
        self.targets = targets

    def differentiate(self, F: Any, node: Node, g: Any, inputs: Any, outputs: Any) -> Any:
        parts = (g,) if node.count == 1 else g
        pairs = [(root, part) for root, part in zip(self.roots, parts, strict=True) if part is not None]
        create = isinstance(pairs[0][1], Tensor)
        roots = [root for root, _ in pairs]
        seeds = [part for _, part in pairs]
        return tuple(engine.run(roots, seeds, inputs=self.targets, retain=True, create=create, accumulate=False))


def rejoined(result: Any, given: list[Tensor], tensors: list[Tensor]) -> Any:
    """The result of a run on stand-ins, with the arguments' own histories behind it."""
    real = {id(stand_in): t for stand_in, t in zip(given, tensors, strict=True) if stand_in is not t}
    if not real:
        return result
    for stand_in, t in zip(given, tensors, strict=True):
        if stand_in is not t and stand_in._grad is not None:
            t.backward(stand_in._grad)
    leaves, spec = tree_flatten(result)
    live = [i for i, leaf in enumerate(leaves) if is_live(leaf)]
    if live:
        roots = [leaves[i] for i in live]
        targets = _leaves_behind(roots)
        node = Node(_Through(roots, targets), {}, len(live))
        edges: list[Any] = []
        for t in targets:
            node.link(edges, real.get(id(t), t), len(targets))
        node.edges = edges
        node.saved = ()
        node.note_line()
        for slot, at in enumerate(live):
            leaves[at] = leaf = wrap(leaves[at]._data)
            leaf._node, leaf._slot, leaf._tracked = node, slot, True
    return tree_unflatten([real.get(id(leaf), leaf) for leaf in leaves], spec)


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


def _zeros(kind: type, shape: Any, dtype: Any) -> Any:
    return local.doors[kind].full(shape=tuple(shape), value=0, dtype=dtype)
