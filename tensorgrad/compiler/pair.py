"""``PairEntry``: two programs, forward and backward, of a run whose results carry a graph: a model, a loss function.

The backward program is written at once, by a backward pass through the graph of the captured run. A replay's results
hang on one node; what backward reads of the forward program are outputs of that one, saved in the node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ..autograd import engine
from ..autograd.node import Node
from ..core import Heap, native
from ..dispatch import listening, local
from ..errors import CompileError
from ..random import Generator
from ..tensor import Tensor
from ..utils._pytree import tree_flatten
from .entry import Entry
from .executor import executor, in_python, shelf_of
from .histories import broken, edges_to, nodes_behind
from .passes import PASSES, optimize
from .program import Action, Call, Program
from .put_back import PutBack
from .replay_backward import OfRun, ReplayBackward, count_changes, rerun

__all__ = ["PairEntry", "is_live", "leaves_behind"]


def is_live(result: Any) -> bool:
    """Whether some tensor of a result carries a graph that a backward pass can still go through."""
    leaves = tree_flatten(result)[0]
    return any(isinstance(x, Tensor) and x._node is not None and broken(x.grad_fn) is None for x in leaves)


class PairEntry(Entry):
    """Its forward program also returns what the backward program reads; see the module."""

    def _written(self, trace: Any, outputs: list[Any]) -> list[Program]:
        forward = list(trace.steps)
        filled = set(trace.of_host)
        leaves = tree_flatten(self.returned)[0]
        self.live = [i for i, leaf in enumerate(leaves) if is_live(leaf)]
        roots = [leaves[i] for i in self.live]
        # a leaf that a function was mapped over has gone with the map
        targets = [leaf for leaf in leaves_behind(roots) if not hasattr(type(leaf._data), "door")]
        self.hears = any(_runs_python(node) for node in nodes_behind(roots))
        seeds = [_zeros(type(root._data), root._data.shape, root._data.dtype) for root in roots]
        trace.standing.outside = {}
        self.kinds = [type(array) for array in seeds]
        seed_values = [trace.argument(array) for array in seeds]
        backward, found = self._backward(trace, roots, seeds, targets)
        early = [v for v in trace.arguments if v not in seed_values]
        gradients = list(dict.fromkeys(v for v in found if v is not None))
        made = {v for step in forward for v in getattr(step, "results", ()) if v is not None}
        self.patterns: dict[tuple[int, ...], tuple[Any, ...]] = {}
        others = []
        self.groups = _groups(roots)
        self.behind = _behind(roots)
        for slots in dict.fromkeys([*_patterns(len(roots)), *(g for g in self.groups if len(g) < len(roots))]):
            steps, parts = self._backward(trace, [roots[i] for i in slots], [seeds[i] for i in slots], targets)
            own = {v for step in steps for v in getattr(step, "results", ()) if v is not None}
            known = made | own | {*early, *seed_values}
            if all(v in known or v.array is not None for v in (*_reads(steps), *(v for v in parts if v is not None))):
                ends = list(dict.fromkeys(v for v in parts if v is not None))
                self.patterns[slots] = tuple(None if v is None else ends.index(v) for v in parts)
                others.append((steps, [seed_values[i] for i in slots], ends))
        if any(len(group) < len(roots) and group not in self.patterns for group in self.groups):
            self.groups = [tuple(range(len(roots)))]
        trace.steps = forward
        # what actions of forward fill for those of backward, as the state of a generator for a checkpointed function's
        # second run: the next call fills it anew
        looks = {id(array) for steps in (backward, *(steps for steps, _, _ in others)) for array in _looked_at(steps)}
        self.filled = [v.array for v in filled if id(v.array) in looks]
        needed = dict.fromkeys(v for ends in (gradients, *(ends for _, _, ends in others)) for v in ends)
        for steps in (backward, *(steps for steps, _, _ in others)):
            needed.update(dict.fromkeys(v for x in _reads(steps) for v in (x, x.root)))
        # of what only views are left, whose memory has an owner that no op has named, the views are saved
        kept = {v: trace.array_of(v) for v in needed if v in made or v in early}
        saved = [v for v, array in kept.items() if array is not None]
        self.kept = [kept[v] for v in saved]
        results = [trace.value_of(array) for array in outputs]
        self.count = len(results)
        self.targets = [self.given_number(t) for t in targets]
        self.grad_at = [None if v is None else gradients.index(v) for v in found]
        written = dict(zip(self.patterns, (steps for steps, _, _ in others), strict=True))
        # statistics that a checkpointed function's second run moves are what they are by then: nobody has saved them
        moved = {v.memory for step in backward if isinstance(step, Call) for v in step.writes}
        self.states = []  # by group: tensors that its backward program reads
        for group in self.groups:
            read = _reads(written.get(group, backward) if len(self.groups) > 1 else backward)
            watched = {v for x in read for v in (x, x.root) if v.array is not None and v.memory not in moved}
            self.states.append([t for t in self.known if trace.values.get(id(t._data)) in watched])
        used = {x for v in _reads([*forward, *backward]) for x in (v, v.root) if v.array is not None}
        self.rests_on = [t for t in self.known if trace.values.get(id(t._data)) in used]  # another run would read these
        return [
            Program(forward, early, [*results, *saved]), Program(backward, [*saved, *seed_values], gradients),
            *(Program(steps, [*saved, *given], ends) for steps, given, ends in others),
        ]  # fmt: skip

    def _backward(
        self, trace: Any, roots: list[Tensor], seeds: list[Any], targets: list[Tensor]
    ) -> tuple[list[Any], list[Any]]:
        """The steps of a backward pass, and the values of the targets' gradients."""
        trace.steps = []
        changes = PutBack()
        try:
            with listening(trace, changes):
                grads = engine.run(
                    roots, seeds, inputs=targets, retain=True, create=False, accumulate=False, heard=self.heard
                )
        finally:
            changes.put_back()
        if trace.unsplit is not None:  # it went through what another function has computed
            raise CompileError(trace.unsplit)
        return trace.steps, [None if g is None else trace.value_of(g) for g in grads]

    def link(self, raw: list[Program]) -> None:
        self._note_writes(raw[0])
        if self.patterns:  # what some results' gradients need of forward is read by programs of their own
            first, second = self.programs = [optimize(program) for program in raw[:2]]
            self.late: tuple[Program, tuple[str, ...]] = raw[1], PASSES
        else:
            *self.programs, late = _both(raw[0], raw[1], len(self.kinds), self.count or 0)
            first, second = self.programs
            self.late = late, ("dead", *_LAST)  # what it reads of forward is what that saves
        self.asked: dict[tuple[bool, ...], tuple[Any, tuple[int | None, ...]]] = {}
        made = sum(v.nbytes for call in self.late[0].all_calls for v in call.results if v is not None and v is v.root)
        self.backwards = [ReplayBackward(self, group, made >= _WORTH_ASKING) for group in self.groups]
        self.partly: dict[tuple[int, ...], Any] = dict(zip(self.patterns, raw[2:], strict=True))
        self.draws = any(isinstance(a, Generator) for call in first.all_calls for a in call.attrs.values())
        results, saved = first.outputs[: self.count], first.outputs[self.count :]
        seeds = second.arguments[len(saved) :]
        self.templates = [(kind, v.shape, v.dtype) for kind, v in zip(self.kinds, seeds, strict=True)]
        joined = Program([*first.steps, *second.steps], [*first.arguments, *seeds], [*results, *second.outputs])
        joined.notes = list(dict.fromkeys([*first.notes, *second.notes]))
        self.joined = joined
        self.shelf = shelf_of(
            joined, split=len(first.steps), late=len(seeds), early=len(results), kept=saved, shown=self.shown
        )
        self.run_forward = executor(first) if self.shelf is None else None
        self.run_backward: Any = executor(second) if self.shelf is None else None
        joined.runners = [*first.runners, *second.runners]
        if self.shelf is not None:
            first.linked = second.linked = joined.linked = self.shelf.plan
        self.read = _places(first.arguments, saved)  # arguments that backward reads
        self.read_of_run = _places(raw[0].arguments, raw[0].outputs[self.count :])  # of the one that was written down

    @property
    def whole(self) -> Program:
        return self.joined

    def _waiting(self) -> Any:
        return None if self.shelf is None else self.shelf.waiting

    def _packed_pair(self) -> Any:
        backward = self.backwards[0]
        return (
            backward, backward.gradients, tuple(self.targets), tuple(self.states[0]), len(self.live), self.read,
            tuple(self.rests_on),
        )  # fmt: skip

    def _packed(self) -> tuple[Any, ...] | None:
        # C makes one node, and asks nobody on the way back
        return super()._packed() if len(self.groups) == 1 and not self._asks else None

    @property
    def _asks(self) -> bool:
        """Whether a pass asks, or sets, something before it runs the program."""
        return bool(self.hears or self.filled)

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
        for number, array in self.result.roots.items():
            arrays[number] = array
        saved, self.kept = OfRun(self.kept), []
        self._first_gradients(signature)
        self.returned, self.given, self.result.roots = None, [], {}
        tensors = signature.tensors
        signature.forget()
        return self._recorded(arrays, saved, None, tensors)

    def replay(self, tensors: list[Tensor]) -> Any:
        given = self._arguments(tensors)
        self._turn(tensors)
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
        nodes = []
        read = [tensors[i] for i in (self.read_of_run if type(memory) is OfRun else self.read) if i < len(tensors)]
        for backward, state in zip(self.backwards, self.states, strict=True):
            node = Node(backward, {}, len(backward.slots))
            if len(self.groups) == 1 and not self._asks:
                node.plan = backward.gradients
            edges: list[Any] = []
            for who in self.targets:
                node.link(edges, tensors[who] if isinstance(who, int) else who, len(self.targets))
            node.edges = edges
            for t in (*state, *read):
                if not t._inference:  # the run would have raised if backward read it
                    node.watch(t)
            changes = count_changes([*self.rests_on, *tensors])
            node.saved = (memory, token, tuple(tensors), changes, [array.copy() for array in self.filled])
            node.note_line()
            nodes.append(node)
        result = self._on_tape(self.result.build(arrays, tensors), nodes)
        if isinstance(memory, list):
            self._watch(result, nodes, self.raw[0] if type(memory) is OfRun else self.programs[0])
        return result

    def _watch(self, result: Any, nodes: list[Node], forward: Program) -> None:
        """Notice it where a result is changed in place whose very memory backward reads: outside of a block it is no
        copy."""
        saved = {v.root for v in forward.outputs[self.count or 0 :]}
        leaves = tree_flatten(result)[0]
        for at, number in self.result.numbers():
            if forward.outputs[number].root in saved:
                slot = self.live.index(at) if at in self.live else None
                for node, group in zip(nodes, self.groups, strict=True):
                    if slot is None or slot in group:
                        node.watch(leaves[at])

    def finished(self, found: Any) -> Any:
        arrays, node = found
        return self._on_tape(self.result.build(arrays, []), [node])

    def _on_tape(self, result: Any, nodes: list[Node]) -> Any:
        leaves = tree_flatten(result)[0]
        for node, group in zip(nodes, self.groups, strict=True):
            for slot, number in enumerate(group):
                leaf = leaves[self.live[number]]
                leaf._node, leaf._slot, leaf._tracked = node, slot, True
        return result

    def gradients(self, memory: Any, seeds: list[Any]) -> list[Any]:
        """What the backward program makes of the results' gradients."""
        if type(memory) is OfRun:  # other values than the program saves, which has been made smaller since
            return in_python(optimize(self.raw[1]))([*memory, *seeds])
        if type(memory) is list:
            return self._outside_blocks([*memory, *seeds])
        arrays: Any = native.run_backward(memory, seeds)
        if arrays is NotImplemented:  # somebody still has those of the last pass
            return self._outside_blocks([*memory[-1].kept, *seeds])
        found: list[Any] = arrays
        return found

    def for_asked(self, asked: tuple[bool, ...]) -> tuple[Any, tuple[int | None, ...]] | None:
        """A program backward without the gradients that a pass to requested inputs does not ask for, and by input the
        number of its gradient; None where there are enough of these."""
        found = self.asked.get(asked)
        if found is None and len(self.asked) < _MOST_ASKED:
            numbers = [at if wanted else None for at, wanted in zip(self.grad_at, asked, strict=True)]
            ends = list(dict.fromkeys(at for at in numbers if at is not None))
            whole, passes = self.late
            program = Program(whole.steps, whole.arguments, [whole.outputs[at] for at in ends])
            own = tuple(None if at is None else ends.index(at) for at in numbers)
            found = self.asked[asked] = executor(optimize(program, passes)), own
        return found

    def gradients_of_some(self, node: Node, parts: Any) -> tuple[Any, ...]:
        """The gradients where only some results have one: not as if the others' were zeros, since what only these were
        computed of has none, and zero times infinity is none either."""
        memory = node.saved[0]
        slots = tuple(i for i, part in enumerate(parts) if part is not None)
        run = self.partly.get(slots)
        if run is None and not self.once:
            return rerun(self, node, parts, create=False)
        if run is None:
            seeds = [_zeros(*form) if g is None else g for g, form in zip(parts, self.templates, strict=True)]
            arrays = self.gradients(memory, seeds)
            reached = [self.patterns.get((i,), self.grad_at) for i in slots]
            return tuple(
                None if at is None or all(way[t] is None for way in reached) else arrays[at]
                for t, at in enumerate(self.grad_at)
            )
        if isinstance(run, Program):
            run = self.partly[slots] = executor(optimize(run))
        arrays = run([*(memory if isinstance(memory, list) else memory[-1].kept), *(parts[i] for i in slots)])
        return tuple(None if at is None else arrays[at] for at in self.patterns[slots])

    @property
    def once(self) -> bool:
        """Whether another run would be another one."""
        return bool(self.draws or self.cells or self.bumped)

    def changed_since(self) -> str | None:
        """In words, what is another than a run has left it; None if nothing."""
        with self.as_before():
            return None if self.reach.holds() else self.reach.changed()

    def _outside_blocks(self, given: list[Any]) -> list[Any]:
        if self.run_backward is None:
            self.run_backward = in_python(self.programs[1])
        arrays: list[Any] = self.run_backward(given)
        return arrays


def _between() -> None:
    """What the user does between the two, as an action: no value of the state may be read behind it in place of
    before."""


_APART = PASSES[: PASSES.index("ahead")]
_TOGETHER = PASSES[PASSES.index("ahead") : PASSES.index("recompute") + 1]
_LAST = PASSES[PASSES.index("recompute") + 1 :]
_MOST_ASKED = 8  # choices of gradients that have programs of their own; a pass to others makes them all
_WORTH_ASKING = 1 << 16  # bytes that backward makes: all of less take no longer than it takes to begin another program


def _both(first: Program, second: Program, seeds: int, count: int) -> list[Program]:
    """Both programs after all passes. What backward could have of forward, or make again, is seen with the two as one;
    then what the second reads of the first is saved. The last is the second before it is bound to its memory."""
    first, second = (optimize(program, _APART) for program in (first, second))
    given = second.arguments[len(second.arguments) - seeds :]
    border = Action(_between)
    whole = Program(
        [*first.steps, border, *second.steps], [*first.arguments, *given], [*first.outputs[:count], *second.outputs]
    )
    whole = optimize(whole, _TOGETHER)
    at = whole.steps.index(border)
    early, late = whole.steps[:at], whole.steps[at + 1 :]
    there = {v for step in early if isinstance(step, Call) for v in step.results if v is not None}
    there.update(first.arguments)
    read = [v for step in late if isinstance(step, Call) for x in step.reads() for v in (x, x.root)]
    saved = [v for v in dict.fromkeys([*second.outputs, *read]) if v in there]
    made = []
    for steps, arguments, outputs, own in (
        (early, first.arguments, [*first.outputs[:count], *saved], first.notes),
        (late, [*saved, *given], second.outputs, second.notes),
    ):
        program = Program(steps, arguments, outputs)
        program.notes = [*own, *whole.notes]
        made.append(optimize(program, _LAST))
    return [*made, program]


def _places(arguments: list[Any], saved: list[Any]) -> tuple[int, ...]:
    """The numbers of the arguments whose memory the saved values lie in."""
    roots = {v.root for v in saved}
    return tuple([i for i, v in enumerate(arguments) if v.root in roots])


def _patterns(count: int) -> list[tuple[int, ...]]:
    """Which of several results may have a gradient while the others have none, that programs are written for."""
    most = count - 1 if count <= 3 else 1
    return [slots for size in range(1, most + 1) for slots in itertools.combinations(range(count), size)]


def _groups(roots: list[Tensor]) -> list[tuple[int, ...]]:
    """Results whose graphs have no node in common have nodes of their own: a pass through one leaves the others."""
    groups: list[tuple[set[int], list[int]]] = []
    for slot, root in enumerate(roots):
        nodes, members = edges_to([root], ())[1], [slot]
        nodes -= {id(leaf) for leaf in leaves_behind([root])}
        for group in [group for group in groups if group[0] & nodes]:
            groups.remove(group)
            nodes, members = nodes | group[0], group[1] + members
        groups.append((nodes, members))
    return sorted(tuple(sorted(members)) for _, members in groups)


def _behind(roots: list[Tensor]) -> dict[int, list[int]]:
    """By the number of a result from which others were computed, the numbers of these."""
    found: dict[int, list[int]] = {}
    for j, root in enumerate(roots):
        places = {
            (id(edge), slot) for node in nodes_behind([root])
            for edge, slot in zip(node.edges, node.slots or itertools.repeat(0), strict=False) if type(edge) is Node
        }  # fmt: skip
        for i, other in enumerate(roots):
            if (id(other.grad_fn), other._slot) in places:
                found.setdefault(i, []).append(j)
    return found


def _runs_python(node: Node) -> bool:
    """Whether the user's Python runs where a pass comes by: a hook, or a Function's ``backward``."""
    return node.watched or (getattr(node.op, "opaque", False) and not isinstance(node.op, ReplayBackward))


def _looked_at(steps: list[Any]) -> Iterator[Any]:
    """The arrays that actions read, and those that were there before and calls read."""
    for step in steps:
        if isinstance(step, Call):
            yield from (v.root.array for v in step.reads())
        elif isinstance(step, Action) and step.tensors is not None:
            yield from (t._data for t in step.tensors())


def _reads(steps: list[Any]) -> Iterator[Any]:
    for step in steps:
        if isinstance(step, Call):
            yield from step.reads()


def leaves_behind(roots: list[Tensor]) -> list[Tensor]:
    """The leaves that the graph behind these tensors ends at, in the order in which a backward pass meets them: that is
    the order of their hooks, and decides which leaves have a gradient where one of these raises."""
    found: dict[int, Tensor] = {}
    heap = Heap()
    seen: set[int] = set()

    def meet(edge: Any) -> None:
        if type(edge) is not Node:
            found.setdefault(id(edge), edge)
        elif id(edge) not in seen:
            seen.add(id(edge))
            heap.push(edge)

    for root in roots:
        meet(root.grad_fn)
    while heap:
        for edge in heap.pop().edges:
            if edge is not None:
                meet(edge)
    return list(found.values())


def _zeros(kind: type, shape: Any, dtype: Any) -> Any:
    return local.doors[kind].full(shape=tuple(shape), value=0, dtype=dtype)
