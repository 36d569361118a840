"""Nested containers as flat lists: what functions of dicts of tensors are made of.

Tuples, named tuples, shapes, lists, dicts (also ordered and default ones) are containers; everything else, None
included, is a leaf.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..tensor import Size

__all__ = [
    "TreeSpec", "tree_all", "tree_any", "tree_flatten", "tree_leaves", "tree_map", "tree_map_only", "tree_structure",
    "tree_unflatten",
]  # fmt: skip


@dataclass(frozen=True)
class TreeSpec:
    """The structure of a nested container without its leaves: ``type`` None is a leaf."""

    type: Any
    context: Any
    children: tuple[TreeSpec, ...]
    num_leaves: int

    @property
    def children_specs(self) -> list[TreeSpec]:
        return list(self.children)

    def is_leaf(self) -> bool:
        return self.type is None

    def __repr__(self) -> str:
        if self.type is None:
            return "*"
        return f"TreeSpec({self.type.__name__}, {self.context}, [{', '.join(map(repr, self.children))}])"


_LEAF = TreeSpec(None, None, (), 1)


def _opened(tree: Any) -> tuple[Any, Any, list[Any]] | None:
    """(type, context, children) of a container; None for a leaf."""
    kind = type(tree)
    if kind is tuple or kind is list or kind is Size:
        return kind, None, list(tree)
    if kind is dict or kind is OrderedDict:
        return kind, list(tree), list(tree.values())
    if kind is defaultdict:
        return kind, [tree.default_factory, list(tree)], list(tree.values())
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return kind, kind, list(tree)
    return None


def _closed(spec: TreeSpec, children: list[Any]) -> Any:
    kind = spec.type
    if kind in (tuple, list, Size):
        return kind(children)
    if kind in (dict, OrderedDict):
        return kind(zip(spec.context, children, strict=True))
    if kind is defaultdict:
        return defaultdict(spec.context[0], zip(spec.context[1], children, strict=True))
    return kind(*children)


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """(leaves from left to right, structure).

    Example:
        >>> from tensorgrad.utils._pytree import tree_flatten
        >>> tree_flatten({"a": 1, "b": [2, (3, None)]})[0]
        [1, 2, 3, None]
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves, is_leaf)


def _flatten(tree: Any, leaves: list[Any], is_leaf: Callable[[Any], bool] | None) -> TreeSpec:
    opened = None if is_leaf is not None and is_leaf(tree) else _opened(tree)
    if opened is None:
        leaves.append(tree)
        return _LEAF
    kind, context, children = opened
    before = len(leaves)
    specs = tuple([_flatten(child, leaves, is_leaf) for child in children])
    return TreeSpec(kind, context, specs, len(leaves) - before)


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The container of this structure around ``leaves``. Raises ValueError for a wrong number of them."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(
            f"tree_unflatten: {len(given)} leaves were given, the structure has {treespec.num_leaves}: {treespec}"
        )
    return _unflatten(treespec, iter(given))


# No closure: one that calls itself is a cycle, in which the leaves (a program's results, the whole of a step's memory)
# would wait for the garbage collector.
def _unflatten(spec: TreeSpec, rest: Iterator[Any]) -> Any:
    return next(rest) if spec.type is None else _closed(spec, [_unflatten(child, rest) for child in spec.children])


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves from left to right."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """The structure alone."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """``func`` applied to each leaf, and to what ``rests``, of the same structure, have in its place.

    Raises: ValueError for structures that differ.
    """
    leaves, spec = tree_flatten(tree, is_leaf)
    others = []
    for rest in rests:
        more, other = tree_flatten(rest, is_leaf)
        if other != spec:
            raise ValueError(f"tree_map: the structures differ: {spec} and {other}")
        others.append(more)
    return tree_unflatten([func(*parts) for parts in zip(leaves, *others, strict=True)], spec)


def tree_map_only(kind: Any, func: Callable[[Any], Any], tree: Any) -> Any:
    """``func`` applied to the leaves that are instances of ``kind`` (a type or a tuple of types)."""
    return tree_map(lambda leaf: func(leaf) if isinstance(leaf, kind) else leaf, tree)


def tree_all(predicate: Callable[[Any], bool], tree: Any) -> bool:
    """Whether it holds for all leaves."""
    return all(map(predicate, tree_leaves(tree)))


def tree_any(predicate: Callable[[Any], bool], tree: Any) -> bool:
    """Whether it holds for some leaf."""
    return any(map(predicate, tree_leaves(tree)))


def broadcast_prefix(prefix: Any, tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any] | None:
    """``prefix`` spread over the leaves of ``tree``: a leaf of the prefix counts for all that stands in its place.

    None if the prefix has another structure.
    """
    opened = None if is_leaf is not None and is_leaf(prefix) else _opened(prefix)
    if opened is None:
        return [prefix] * tree_structure(tree).num_leaves
    mine, theirs = opened, _opened(tree)
    if theirs is None or mine[0] is not theirs[0] or mine[1] != theirs[1] or len(mine[2]) != len(theirs[2]):
        return None
    spread: list[Any] = []
    for part, whole in zip(mine[2], theirs[2], strict=True):
        inner = broadcast_prefix(part, whole, is_leaf)
        if inner is None:
            return None
        spread += inner
    return spread
