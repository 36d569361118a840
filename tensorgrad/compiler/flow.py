"""``Flow``: of a function's text, which local names each statement needs, gives, and leaves to those behind it.

A part of a function becomes a function of its own: its arguments are the names that it may read before it has given
them a value, its results those that somebody reads behind it. Both are found by going through the statements backwards,
and err on the side of one name too many.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

__all__ = ["Flow", "bodies_of", "known_manager", "leaves_always", "stored", "surely_bound", "within"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_MANAGERS = frozenset((
    "no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "autocast", "backend", "record_function",
    "detect_anomaly", "set_detect_anomaly", "profile",
))  # fmt: skip
"""Context managers that let every exception pass: their blocks run to the end, or the function ends."""


class Flow:
    """``after``: by a statement's identity, the names that may be read behind it.

    ``shared``: names that functions within the function see. ``restless``: those of them that get several values, so
    that a copy of the name is not the same; ``deleted``: names that may have lost their values.
    """

    def __init__(self, body: list[ast.stmt], names: frozenset[str], given: frozenset[str]):
        self.names = names
        self.after: dict[int, set[str]] = {}
        self.shared: set[str] = set()
        self.deleted: set[str] = set()
        counts: dict[str, int] = dict.fromkeys(given, 1)
        consumed = {id(c.args[0]) for s in body for c in ast.walk(s) if isinstance(c, ast.Call) and len(c.args) == 1}
        for top in body:
            for node in within(top):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
                    self.deleted.add(node.id)
                elif isinstance(node, ast.ExceptHandler) and node.name:
                    self.deleted.add(node.name)
                if isinstance(node, _SCOPES) or (isinstance(node, ast.GeneratorExp) and id(node) not in consumed):
                    self.shared |= _loads(node) & names
                    hidden = (x for x in ast.walk(node) if isinstance(x, ast.Nonlocal))
                    counts.update({name: 2 for x in hidden for name in x.names})
                if isinstance(node, _LOOPS):
                    counts.update(dict.fromkeys(stored([node]), 2))
            for name in _names_given(top):
                counts[name] = counts.get(name, 0) + 1
        self.restless = {name for name in self.shared if counts.get(name, 0) > 1}
        self.before(body, set())

    def before(self, body: list[ast.stmt], after: set[str], ends: tuple[set[str], set[str]] | None = None) -> set[str]:
        """The names that are read in ``body``, or behind it where it has not given them a value.

        ``ends``: what is read behind a ``break`` and behind a ``continue``.
        """
        for statement in reversed(body):
            self.after.setdefault(id(statement), set()).update(after)
            after = self._before_one(statement, after, ends)
        return after

    def needs(self, body: list[ast.stmt]) -> set[str]:
        """The names that the statements alone may read before they have given them a value."""
        kept, self.after = self.after, {}
        try:
            return self.before(body, set())
        finally:
            self.after = kept

    def _before_one(self, s: ast.stmt, after: set[str], ends: Any) -> set[str]:
        if isinstance(s, ast.Return):
            return self._read(s)
        if isinstance(s, ast.Raise):
            return self._read(s)
        if isinstance(s, ast.Break):
            return set(ends[0]) if ends else after
        if isinstance(s, ast.Continue):
            return set(ends[1]) if ends else after
        if isinstance(s, ast.If):
            return self._read(s.test) | self.before(s.body, after, ends) | self.before(s.orelse, after, ends)
        if isinstance(s, (ast.While, ast.For)):
            head = self.before(s.orelse, after, ends)
            once = self._read(s.test) if isinstance(s, ast.While) else self._read(s.target)
            given = set() if isinstance(s, ast.While) else stored([s.target])
            while True:
                more = head | once | (self.before(s.body, head, (after, head)) - given)
                if more == head:
                    break
                head = more
            return head if isinstance(s, ast.While) else head | self._read(s.iter)
        if isinstance(s, ast.With):
            inner = self.before(s.body, after, ends)
            for item in reversed(s.items):
                if item.optional_vars is not None:
                    inner = (inner - stored([item.optional_vars])) | self._read(item.optional_vars)
                inner |= self._read(item.context_expr)
            return inner if all(map(known_manager, s.items)) else inner | after
        if bodies_of(s):  # try, match: any statement may be the last, or be left out
            for body in bodies_of(s):
                self.before(body, after | (_loads(s) & self.names), ends)
            loose = ends[0] | ends[1] if ends else set()
            return after | (_loads(s) & self.names) | loose
        return (after - surely_bound([s])) | self._read(s)

    def _read(self, node: ast.AST) -> set[str]:
        return _loads(node) & self.names


def bodies_of(s: ast.AST) -> list[list[ast.stmt]]:
    """The blocks of a compound statement of the function itself."""
    if isinstance(s, _SCOPES):
        return []
    found = [block for name in ("body", "orelse", "finalbody") if (block := getattr(s, name, None))]
    for part in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
        found.append(part.body)
    return found


def known_manager(item: ast.withitem) -> bool:
    """Whether a context manager is one that lets every exception pass."""
    what: Any = item.context_expr
    what = what.func if isinstance(what, ast.Call) else what
    return getattr(what, "attr", getattr(what, "id", "")) in _MANAGERS


def within(node: ast.AST) -> Iterable[ast.AST]:
    """What belongs to the function itself, and not to one that is defined in it."""
    yield node
    for child in () if isinstance(node, _SCOPES) else ast.iter_child_nodes(node):
        yield from within(child)


def leaves_always(body: list[ast.stmt]) -> bool:
    """Whether nothing behind the block runs after it."""
    last = body[-1] if body else None
    if isinstance(last, ast.If):
        return leaves_always(last.body) and leaves_always(last.orelse)
    return isinstance(last, (ast.Return, ast.Raise, ast.Break, ast.Continue))


def surely_bound(body: list[ast.stmt]) -> set[str]:
    """Names that have a value once the statements have run to their end."""
    found: set[str] = set()
    for s in body:
        if isinstance(s, ast.If):
            ways = [surely_bound(way) for way in (s.body, s.orelse) if not leaves_always(way)]
            found |= set.intersection(*ways) if ways else set()
        elif isinstance(s, ast.With):
            found |= stored([i.optional_vars for i in s.items if i.optional_vars is not None])
            found |= surely_bound(s.body) if all(map(known_manager, s.items)) else set()
        elif bodies_of(s) or isinstance(s, ast.Delete) or (isinstance(s, ast.AnnAssign) and s.value is None):
            continue
        else:
            perhaps = {n.target.id for n in within(s) if isinstance(n, ast.NamedExpr)}
            found |= stored([s]) - perhaps
    return found


def stored(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that get a value somewhere in the statements."""
    return {name for top in nodes for name in _names_given(top)}


def _names_given(top: ast.AST) -> Iterable[str]:
    """Names that get a value, once for each time that they occur."""
    stack = [top]
    while stack:
        node = stack.pop()
        if isinstance(node, _COMPREHENSIONS):  # its own names are no concern of the function's; `:=` is
            stack += [x for x in ast.walk(node) if isinstance(x, ast.NamedExpr)]
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest
        if not isinstance(node, _SCOPES):
            stack += ast.iter_child_nodes(node)


def _loads(node: Any) -> set[str]:
    """Names that are read, or deleted, also by functions within; not those that a comprehension or such a function has
    for itself."""
    if isinstance(node, list):
        return {name for part in node for name in _loads(part)}
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Store) else {node.id}
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return {node.target.id} | _loads(node.value)
    if isinstance(node, _COMPREHENSIONS):
        own = stored([g.target for g in node.generators])
        first = _loads(node.generators[0].iter)
        return first | ({name for child in ast.iter_child_nodes(node) for name in _loads(child)} - own)
    if isinstance(node, _FUNCTIONS):
        arguments = node.args
        own = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        own |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None}
        body = node.body if isinstance(node.body, list) else [node.body]
        outer = {name for s in body for n in within(s) if isinstance(n, ast.Nonlocal) for name in n.names}
        own |= stored(body) - outer
        early = [*arguments.defaults, *(d for d in arguments.kw_defaults if d), *getattr(node, "decorator_list", ())]
        return _loads(early) | ((_loads(body) | outer) - own)
    return {name for child in ast.iter_child_nodes(node) for name in _loads(child)}
