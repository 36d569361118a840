"""``Result``: what a function returned, to be made again from a program's outputs."""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Any

from ..autograd.grad_mode import state as grad_state
from ..autograd.node import FREED, Node
from ..device import Device
from ..dtypes import DType
from ..errors import CompileError
from ..tensor import Tensor, wrap
from ..utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from .histories import broken
from .once import is_once, why_not_returned
from .shared import Output, lying
from .signature import PLAIN
from .tracked_sizes import untracked

if TYPE_CHECKING:
    from .before import Before

__all__ = ["Result"]

_HARMLESS = (*PLAIN, Device, DType, enum.Enum, slice, range, type, types.FunctionType, types.BuiltinFunctionType)


class _Gone:
    """What the node of such a result shows the engine in place of an op record."""

    name = "compiled"
    nondiff: frozenset[int] = frozenset()
    opaque = True
    kept_outputs: tuple[Any, ...] = ()


def _gone_as(node: Node | None) -> Node:
    """A node through which a pass can't go for the reason that holds for another one."""
    gone = Node(_Gone(), {}, 1)
    stale = None if node is None or node.saved is FREED else [(c, n) for c, n in node.versions or () if c[0] != n]
    if stale:
        gone.saved, gone.versions = (None,), [([cell[0]], then) for cell, then in stale]
        gone.line = None if node is None else node.line
    else:
        gone.saved = FREED
    return gone


def _made_of(view: Tensor, base: Tensor, before: Before) -> tuple[Tensor, Any]:
    """(what was there before, the ops): how a view of it was made. Of several tensors that are views of one base, an
    argument and the whole that the function reaches by itself say, it is the one whose own way is the first part."""
    chain: Any = view._chain
    own = 0
    for t in before.tensors.values():
        length = len(t._chain)
        if t._base is view._base and own < length <= len(chain) and all(map(is_, t._chain, chain)):
            base, own = t, length
    return base, chain[own:]


class _Held:
    """In a structure, in place of the class of a list or dict that was there before: that very one."""

    def __init__(self, what: Any):
        self.what = what

    def __call__(self, *elements: Any) -> Any:
        return self.what


def _with_held(result: Any, spec: TreeSpec, known: Collection[int]) -> TreeSpec:
    """The structure of a result, with the very lists and dicts of these identities where it has such."""
    if spec.is_leaf():
        return spec
    if not isinstance(result, tuple) and id(result) in known:
        return replace(spec, type=_Held(result))
    parts = result.values() if isinstance(result, dict) else result
    children = tuple(_with_held(part, child, known) for part, child in zip(parts, spec.children, strict=True))
    return replace(spec, children=children)


class Result:
    """``made``: (position among the leaves, number of the output, whether it is a leaf that requires grad) of tensors
    that the program makes; ``passed``: (position, number of the argument); ``views``: (position, argument or tensor,
    the ops that make the view) of what shares memory with a tensor of the caller's, or, as a number below zero, with
    the made one at position -1 - number, or with an ``Output``; ``cut``: positions of views that leave the history of
    what they show out; ``grads``: (position, leaf) of what is the leaf's gradient; ``inferred``: positions of what the
    program makes, and whether it is an inference tensor, where the mode around the call says otherwise.

    ``way_to``: of an array of the run the arrays that it is a view of; see ``Trace.ways``.

    Raises CompileError for an object that no replay could make anew.
    """

    def __init__(
        self, result: Any, before: Before, slot: Callable[[Any], int],
        way_to: Callable[[Any], list[tuple[Any, tuple[Any, ...]]]],
    ):  # fmt: skip
        leaves, self.spec = tree_flatten(result)
        self._around = _with_held(result, self.spec, before.objects)
        self.leaves = [*map(untracked, leaves)]
        self.made: list[tuple[int, int, bool]] = []
        self.passed: list[tuple[int, int]] = []
        self.views: list[tuple[int, int | Tensor, Any]] = []
        # of made ones, those whose history no backward pass can go through any more, with a node that says why
        self.freed: dict[int, Node] = {}
        self.grads: list[tuple[int, Tensor]] = []
        of = {id(t._grad): t for t in before.known if t._grad is not None and id(t) not in before.arguments}
        self.cut: set[int] = set()
        self.inferred: dict[int, bool] = {}
        self.roots: dict[int, Any] = {}  # of the run itself, by number: what Outputs are
        numbers: dict[int, int] = {}  # by what the run has made: of a tensor with a history, else of an array
        first: dict[int, int] = {}
        self.again: dict[int, int] = {}  # by position the first one at which the very tensor stands
        for at, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor):
                first.setdefault(id(leaf), at)
        plain = [
            at for at, leaf in enumerate(self.leaves)
            if type(leaf) is Tensor and not leaf._tracked and id(leaf) not in before.tensors and id(leaf) not in of
            and (leaf._base is None or id(leaf._base) not in before.tensors)
        ]  # fmt: skip
        lies = lying(self.leaves, plain, before, way_to)
        for at, leaf in enumerate(self.leaves):
            if not isinstance(leaf, Tensor):
                if is_once(leaf):
                    raise CompileError(why_not_returned(leaf))
                if not isinstance(leaf, _HARMLESS) and id(leaf) not in before.objects:
                    raise CompileError(
                        f"compile: the function returns an object of class {type(leaf).__name__}, which a replay "
                        "can't make "
                        "anew. Return tensors, numbers and text, in tuples, named tuples, lists and dicts."
                    )
                continue
            base = leaf._base
            if first[id(leaf)] < at:
                self.again[at] = first[id(leaf)]
            if id(leaf) in before.arguments:
                self.passed.append((at, before.arguments[id(leaf)]))
            elif id(leaf) in before.tensors:
                continue  # a tensor of the state, which is always the same
            elif id(leaf) in of:
                self.grads.append((at, of[id(leaf)]))
            elif base is not None and id(base) in before.tensors:
                base, chain = _made_of(leaf, base, before)
                self._add_view(at, before.arguments.get(id(base), base), chain, base._tracked and not leaf._tracked)
            elif type(leaf) is not Tensor:
                raise CompileError(
                    f"compile: the function returns a {type(leaf).__name__} that it makes, which a replay would not "
                    "make as "
                    "such. Return a tensor, and make the other of it outside."
                )
            elif at in lies:
                where, ops, cut = lies[at]
                if not isinstance(where, (int, Tensor)):
                    if id(where) not in numbers:
                        numbers[id(where)] = slot(where)
                    self.roots[numbers[id(where)]] = where
                    where = Output(numbers[id(where)])
                self._add_view(at, where, ops, cut)
                if isinstance(where, Output) and leaf._inference is not grad_state.inference:
                    self.inferred[at] = leaf._inference
            else:
                if leaf._inference is not grad_state.inference:
                    self.inferred[at] = leaf._inference
                key = id(leaf if leaf._tracked else leaf._data)
                if key not in numbers:
                    numbers[key] = slot(leaf._data)
                self.made.append((at, numbers[key], leaf._tracked and leaf._node is None))
                if leaf._node is not None:
                    self.freed[at] = _gone_as(broken(leaf.grad_fn))
        self._own = {id(self.leaves[at]) for at, _, _ in self.made}
        for places in (self.made, self.passed, self.views, self.grads):
            for at, *_ in places:
                self.leaves[at] = None
        self.alone = self.spec.is_leaf() and len(self.made) == 1 and not self.made[0][2] and not self.inferred

    def _add_view(self, at: int, base: int | Tensor, chain: Any, cut: bool) -> None:
        self.views.append((at, base, [(op, {name: untracked(x) for name, x in attrs.items()}) for op, attrs in chain]))
        if cut:
            self.cut.add(at)

    def shown(self, made: Tensor) -> Tensor:
        """The tensor that is all of the result."""
        if self.freed:
            made._node, made._tracked = self.freed[self.made[0][0]], True
        return made

    def numbers(self) -> Iterator[tuple[int, int]]:
        """(position, number) of the outputs that results show, each first where it is shown as a whole."""
        yield from ((at, number) for at, number, _ in self.made)
        yield from ((at, int(base)) for at, base, _ in self.views if type(base) is Output)

    def has(self, leaf: Tensor) -> bool:
        """Whether the run returned this very tensor."""
        return id(leaf) in self._own

    def of_run(self, result: Any, tensors: list[Tensor]) -> Any:
        """The run's own result, with the arguments themselves where it has their stand-ins."""
        own = tree_flatten(result)[0]
        leaves = [*map(untracked, own)]
        self._from_callers(leaves, tensors, [])
        return result if all(a is b for a, b in zip(own, leaves, strict=True)) else tree_unflatten(leaves, self._around)

    def build(self, arrays: list[Any], tensors: list[Tensor]) -> Any:
        """A result of these outputs and arguments."""
        if self.alone:
            return self.shown(wrap(arrays[self.made[0][1]]))
        leaves = list(self.leaves)
        for at, number, tracked in self.made:
            if at in self.again:
                leaves[at] = leaves[self.again[at]]
                continue
            made = leaves[at] = wrap(arrays[number])
            made._tracked = tracked
            made._inference = self.inferred.get(at, made._inference)
            if at in self.freed:
                made._node, made._tracked = self.freed[at], True
        self._from_callers(leaves, tensors, arrays)
        return tree_unflatten(leaves, self._around)

    def _from_callers(self, leaves: list[Any], tensors: list[Tensor], arrays: list[Any]) -> None:
        """Put in what is the caller's, and views; without arrays not those of what the program has made."""
        bases: dict[int, Tensor] = {}
        for at, leaf in self.grads:
            leaves[at] = leaf._grad
        for at, i in self.passed:
            leaves[at] = tensors[i]
        for at, base, chain in self.views:
            if arrays and at in self.again:
                leaves[at] = leaves[self.again[at]]
                continue
            if type(base) is Output:
                if not arrays:
                    continue
                if base not in bases:
                    bases[base] = wrap(arrays[base])
                    bases[base]._inference = self.inferred.get(at, bases[base]._inference)
                view = bases[base]
            elif isinstance(base, int):
                if base < 0 and not arrays:
                    continue
                view = tensors[base] if base >= 0 else leaves[-1 - base]
            else:
                view = base
            if at in self.cut:
                view = view.detach()
            for op, attrs in chain:
                view = op(view, **attrs)
            leaves[at] = view
