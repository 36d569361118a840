"""``Rewritten``: a function whose statements that Python must run stay Python, and whose others are programs.

Under ``fallback=True`` a statement that reads a number which the function computes can't be in a program. So the
function's text is written anew: as few statements as possible stay as they are (the one that reads; the ``for``,
``while``, ``if`` or ``with`` around it; what can't be captured), and the runs of statements between them, in loops and
branches too, become functions of their own, the *parts*, that the new text calls and that are compiled:

    loss = criterion(model(x), y)          loss = part(x, y, ...)
    losses.append(loss.item())             losses.append(loss.item())
    loss.backward()                        loss.backward()
    optimizer.step()                       part()

Which statements stay is learned by running. A part that reads a number, or can't be captured, names one more of them,
and the text is written once more; parts that haven't changed keep their programs.

A part hands over local names. What a replay would make another one of (a list, an object of a class) is not handed
over: the statement that makes it stays. A backward pass that goes from one part into another stays as well: results of
parts have their places on the tape, and each part's own backward program runs there (``pair.py``).
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor
from ..utils._pytree import tree_flatten
from .flow import Flow, bodies_of, known_manager, leaves_always, stored, surely_bound, within
from .signature import PLAIN, owner
from .text import Text, text_of

__all__ = ["Part", "Rewritten", "Tracked"]

_WAITS = (ast.Yield, ast.YieldFrom, ast.Await)
_ON_TAPE = frozenset((
    "retain_grad", "register_hook", "register_post_accumulate_grad_hook", "is_leaf", "grad_fn", "requires_grad_",
    "detach_", "set_", "data", "_base", "_version",
))  # fmt: skip
"""What asks about, or changes, the place on the tape of a tensor that may come from another part."""
_WORK = (ast.Call, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.AugAssign)
_NAME, _NOTE = "<part {}>", "<note>"  # names that no source has
_FLOATS = 2  # values of a number that came after the first, each without a replay before it
_OTHERS = 6


class Tracked:
    """A function of the same text that tells after which of its statements ``moved()`` first says something."""

    def __init__(self, text: Text, body: list[ast.stmt], names: list[str] | None):
        self.line: int | None = None
        self.moved: Callable[[], Any] = lambda: None

        def note(line: int) -> None:
            if self.line is None and self.moved() is not None:
                self.line = line

        told: list[ast.stmt] = []
        for s in body:
            call = ast.Call(ast.Name(_NOTE, ast.Load()), [ast.Constant(s.lineno)], [])
            told.append(s)
            if not isinstance(s, (ast.Global, ast.Nonlocal, ast.Return)) and not _is_docstring(s):
                told.append(ast.copy_location(ast.Expr(call), s))
        self.function = text.whole(told, {_NOTE: note}) if names is None else text.part(names, told, {_NOTE: note})


class Part:
    """Statements that are a function of their own. ``names``: its arguments; ``gives``: the names whose values it
    returns; ``ends``: it returns what the whole function does, instead; ``compiled``: that function, compiled."""

    def __init__(self, whole: Rewritten, statements: list[ast.stmt], names: list[str], gives: list[str], ends: bool):
        self.whole = whole
        self.statements = statements
        self.names = names
        self.gives = gives
        self.ends = ends
        self.compiled: Any = None
        self._seen: dict[str, Any] = {}  # what was given last for each name, and how often it was another one
        self._changes: dict[str, int] = {}
        self._replays = 0

    @property
    def body(self) -> list[ast.stmt]:
        if not self.gives:
            return self.statements
        values: list[ast.expr] = [ast.Name(name, ast.Load()) for name in self.gives]
        result = values[0] if len(values) == 1 else ast.Tuple(values, ast.Load())
        return [*self.statements, ast.copy_location(ast.Return(result), self.statements[-1])]

    @property
    def line(self) -> int:
        return self.statements[0].lineno

    def tracked(self) -> Tracked:
        return Tracked(self.whole.text, self.body, self.names)

    def stays(self, why: str) -> None:
        """Every statement is Python's from now on."""
        self.whole.keep({id(s): why for s in self.statements})

    def refuses(self, args: tuple[Any, ...], result: Any, known: set[int]) -> bool:
        """Whether some of what the part gives would be something else in a replay; then the statements that make it
        stay."""
        if self.ends:
            return False
        values = (result,) if len(self.gives) == 1 else result if self.gives else ()
        bad: set[str] = set()
        owners: dict[int, Any] = {id(owner(t._data)): t for t in tree_flatten(args)[0] if isinstance(t, Tensor)}
        own = set(map(id, owners.values()))
        for name, value in zip(self.gives, values, strict=True):
            if not _is_plain(value, known):
                bad.add(name)
            for t in (value,) if isinstance(value, Tensor) else value if type(value) is tuple else ():
                made = isinstance(t, Tensor) and id(t) not in known and id(t) not in own
                if made and owners.setdefault(id(owner(t._data)), t) is not t:
                    bad.add(name)  # two tensors in one memory: changes of one show in the other
        if bad:
            why = f"what Python goes on with ({', '.join(sorted(bad))}) would be another object in each replay"
            self.whole.keep({id(s): why for s in self.statements if stored([s]) & bad})
        return bool(bad)

    def follow(self, args: tuple[Any, ...], replays: int) -> bool:
        """Notes what a call that needs a program of its own was given; whether a number is another one each time. Then
        the statements that read it stay."""
        if replays != self._replays:
            self._changes.clear()
        self._replays = replays
        restless: dict[str, str] = {}
        for name, value in zip(self.names, args, strict=True):
            leaves = [x for x in tree_flatten(value)[0] if not isinstance(x, Tensor)]
            before = self._seen.get(name)
            self._seen[name] = leaves
            if before is not None and not _same(leaves, before):
                self._changes[name] = self._changes.get(name, 0) + 1
                small = all(isinstance(x, PLAIN) and not isinstance(x, (float, complex)) for x in leaves)
                if self._changes[name] >= (_OTHERS if small else _FLOATS):
                    restless[name] = f"{name} is another number or object in each call, and no tensor"
            if any(isinstance(x, np.ndarray) for x in leaves):
                restless[name] = f"{name} is a NumPy array, whose elements no program can follow"
        found = {
            id(s): why for name, why in restless.items() for s in self.statements
            if name in self.whole.flow.needs([s]) | (stored([s]) & {name})
        }  # fmt: skip
        return bool(found) and self.whole.keep(found)


class Rewritten:
    """``run``: the function written anew; ``parts``: those that it calls, in their order; ``kept``: by the identity of
    a statement why it stays Python's.

    ``compiled_of``: makes a part's function a compiled one.
    """

    def __init__(self, text: Text, compiled_of: Callable[[Part], Any]):
        self.text = text
        self.flow = Flow(text.body, text.names, text.given)
        self.compiled_of = compiled_of
        self.kept: dict[int, str] = {}
        self.parts: list[Part] = []
        self.known: dict[Any, Part] = {}
        self.run: Any = text.function

    @staticmethod
    def of(function: Any, compiled_of: Callable[[Part], Any]) -> Rewritten | None:
        """None for a function whose text is not at hand."""
        text = text_of(function)
        return None if text is None else Rewritten(text, compiled_of)

    def stay(self, line: int, why: str) -> bool:
        """The innermost statement at a line is Python's from now on; whether that is news."""
        return self.keep({id(s): why for s in _at(self.text.body, line)})

    def keep(self, found: dict[int, str]) -> bool:
        """These statements stay; whether one of them is news."""
        # of a message to the user what was seen, and not what to do about it
        fresh = {key: why.removeprefix("compile: ").partition(". ")[0] for key, why in found.items()}
        fresh = {key: why for key, why in fresh.items() if key not in self.kept}
        if fresh:
            self.kept.update(fresh)
            self._write()
        return bool(fresh)

    def reasons(self) -> dict[str, str]:
        """Where Python runs a statement, and why."""
        file = os.path.basename(self.text.function.__code__.co_filename)
        every = [n for s in self.text.body for n in ast.walk(s) if id(n) in self.kept and isinstance(n, ast.stmt)]
        return {f"{file}:{s.lineno}": self.kept[id(s)] for s in sorted(every, key=lambda s: s.lineno)}

    # --- writing

    def _write(self) -> None:
        self.parts = []
        body = self._block(self.text.body, set(self.text.given - self.flow.deleted), top=True)
        self.known = {key: part for key, part in self.known.items() if part in self.parts}
        others = {_NAME.format(i): part.compiled for i, part in enumerate(self.parts)}
        self.run = self.text.whole(body, others)

    def _block(self, body: list[ast.stmt], bound: set[str], *, top: bool = False) -> list[ast.stmt]:
        """A block's statements, with calls in the places of those that are parts; ``bound``: names with values."""
        values = [bound]  # before each statement
        for s in body:
            values.append((values[-1] | surely_bound([s])) - self.flow.deleted)
        written: list[ast.stmt] = []
        end = len(body)
        if top or leaves_always(body):
            end = self._tail(body, values, top)
        run: list[int] = []
        for i, s in enumerate(body[:end]):
            if self._free(s, values[i]):
                run.append(i)
                continue
            written += self._run([body[j] for j in run], [values[j] for j in run])
            run = []
            written.append(self._python(s, values[i]))
        written += self._run([body[j] for j in run], [values[j] for j in run])
        if end < len(body):
            last = body[end:]
            names = sorted(self.flow.needs(last))
            call = self._call(last, names, [], True)
            written.append(ast.copy_location(ast.Return(call), last[0]))
        return written

    def _tail(self, body: list[ast.stmt], values: list[set[str]], top: bool) -> int:
        """Where the last statements begin that are one part which returns what the function does."""
        at = len(body)
        while at and self._free(body[at - 1], values[at - 1], returns=True):
            at -= 1
        while at < len(body) and not _works(body[at]) and not _returns(body[at]):
            at += 1
        rest = body[at:]
        if not top and (not rest or not _returns_always(rest)):
            return len(body)
        if not any(map(_works, rest)) or not self.flow.needs(rest) <= values[at]:
            return len(body)
        early = any(map(_returns, rest[:-1]))
        if not early and not (isinstance(rest[-1], ast.Return) and _works(rest[-1])):
            return len(body)  # nothing but a name is returned at its end
        return at

    def _run(self, run: list[ast.stmt], values: list[set[str]]) -> list[ast.stmt]:
        """Statements that could be one part, written as such if that is worth it."""
        first, last = 0, len(run)
        while first < last and not _works(run[first]):
            first += 1
        while last > first and not _works(run[last - 1]):
            last -= 1
        inner = run[first:last]
        if not inner:
            return run
        given = stored(inner)
        gives = given & (self.flow.after[id(inner[-1])] | self.flow.shared)
        perhaps = gives - surely_bound(inner)
        if perhaps - values[first]:  # that has no value may have none behind it either
            at = next(i for i in range(first, last) if stored([run[i]]) & (perhaps - values[first]))
            before, after = self._run(run[:at], values[:at]), self._run(run[at + 1 :], values[at + 1 :])
            return [*before, self._python(run[at], values[at]), *after]
        names = sorted(self.flow.needs(inner) | perhaps)
        call = self._call(inner, names, sorted(gives), False)
        statement: ast.stmt
        if not gives:
            statement = ast.Expr(call)
        else:
            targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in sorted(gives)]
            statement = ast.Assign([targets[0] if len(gives) == 1 else ast.Tuple(targets, ast.Store())], call)
        return [*run[:first], ast.copy_location(statement, inner[0]), *run[last:]]

    def _call(self, statements: list[ast.stmt], names: list[str], gives: list[str], ends: bool) -> ast.Call:
        key = tuple(map(id, statements)), tuple(names), tuple(gives), ends
        part = self.known.get(key)
        if part is None:
            part = self.known[key] = Part(self, statements, names, gives, ends)
            part.compiled = self.compiled_of(part)
        self.parts.append(part)
        return ast.Call(
            ast.Name(_NAME.format(len(self.parts) - 1), ast.Load()),
            [ast.Name(name, ast.Load()) for name in names],
            [],
        )

    def _python(self, s: ast.stmt, bound: set[str]) -> ast.stmt:
        """A statement that Python runs; what stands in its blocks may be parts."""
        made: Any
        if isinstance(s, ast.If):
            made = ast.If(s.test, self._block(s.body, bound), self._block(s.orelse, bound))
        elif isinstance(s, ast.While):
            made = ast.While(s.test, self._block(s.body, bound), self._block(s.orelse, bound))
        elif isinstance(s, ast.For):
            inner = (bound | stored([s.target])) - self.flow.deleted
            made = ast.For(s.target, s.iter, self._block(s.body, inner), self._block(s.orelse, bound))
        elif isinstance(s, ast.With) and all(map(known_manager, s.items)):
            names = stored([i.optional_vars for i in s.items if i.optional_vars is not None])
            made = ast.With(s.items, self._block(s.body, (bound | names) - self.flow.deleted))
        else:
            return s
        return ast.copy_location(made, s)

    def _free(self, s: ast.stmt, bound: set[str], *, returns: bool = False) -> bool:
        """Whether a statement may be in a part."""
        if isinstance(s, (ast.Global, ast.Nonlocal, ast.Delete)) or _is_docstring(s):
            return False
        for node in ast.walk(s):
            if id(node) in self.kept:
                return False
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if name in self.flow.restless or name in _ON_TAPE or name in ("super", "__class__"):
                return False
        for node in within(s):
            if isinstance(node, (*_WAITS, ast.Delete)) or (isinstance(node, ast.Return) and not returns):
                return False
        return not _jumps(s) and self.flow.needs([s]) <= bound


def _is_plain(value: Any, known: set[int]) -> bool:
    """Whether a replay's value does as well as that of the run: a list, say, would be another one each time."""
    if type(value) is tuple:
        return all(_is_plain(part, known) for part in value)
    opened = isinstance(value, (list, dict, tuple))  # which results are made of anew
    return type(value) is Tensor or isinstance(value, PLAIN) or (id(value) in known and not opened)


def _same(a: list[Any], b: list[Any]) -> bool:
    if len(a) != len(b):
        return False
    return all(x is y or (isinstance(x, PLAIN) and type(x) is type(y) and x == y) for x, y in zip(a, b, strict=True))


def _works(s: ast.stmt) -> bool:
    """Whether it is more than a name or a constant."""
    return not _is_docstring(s) and any(isinstance(node, _WORK) for node in ast.walk(s))


def _is_docstring(s: ast.stmt) -> bool:
    return isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)


def _returns(s: ast.stmt) -> bool:
    return any(isinstance(node, ast.Return) for node in within(s))


def _returns_always(body: list[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and _returns_always(last.body) and _returns_always(last.orelse)
    return isinstance(last, ast.Return)


def _jumps(s: ast.stmt) -> bool:
    """Whether a ``break`` or ``continue`` in it belongs to a loop around it."""
    if isinstance(s, (ast.Break, ast.Continue)):
        return True
    if isinstance(s, (ast.For, ast.While)):
        return any(map(_jumps, s.orelse))
    return any(_jumps(inner) for block in bodies_of(s) for inner in block)


def _at(body: list[ast.stmt], line: int) -> list[ast.stmt]:
    """The innermost statements at a line; with a compound one whose first line it is, that one too."""
    found: list[ast.stmt] = []
    for s in body:
        if s.lineno <= line <= (s.end_lineno or s.lineno):
            inner = [one for block in bodies_of(s) for one in _at(block, line)]
            found += inner
            if not inner or any(one.lineno == s.lineno for one in inner):
                found.append(s)
    return found
