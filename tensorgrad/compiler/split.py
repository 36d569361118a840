"""``Split``: a function cut in two where Python reads numbers: a program up to there, and Python from there on.

Under ``fallback=True`` a number that Python reads after something was changed (``return loss.item()`` at the end of a
training step) can't be asked for before the program runs. So the function's text is cut before the statement that
reads: what stands before it is a function of its own, which is compiled and returns the local names that are needed
later; what follows runs as it is, with these names. A cut is made between statements of the function's body itself, and
only where the halves surely do what the whole does; otherwise there is none.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterable
from typing import Any

from ..tensor import Tensor
from .signature import PLAIN

__all__ = ["Split", "split_at"]

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.Match)
_LEAVES = (ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith)
_LOOKS = frozenset(("locals", "vars", "exec", "eval", "super", "dir"))  # at names that a half has no longer


class Split:
    """A function in two halves.

    ``first``: gives {name: value} of what the second half needs and the first has made. ``second``: called with these
    names and with those of the arguments that it needs. ``line``: of the user's program, where the second half begins.
    """

    def __init__(
        self, first: Callable[..., Any], second: Callable[..., Any], signature: Any, wanted: frozenset[str], line: int
    ):  # fmt: skip
        self.first = first
        self.second = second
        self.signature = signature
        self.wanted = wanted
        self.line = line

    def rest(self, made: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The second half's result."""
        if self.wanted:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            made = {**{name: value for name, value in bound.arguments.items() if name in self.wanted}, **made}
        return self.second(**made)

    @staticmethod
    def hands_over(made: dict[str, Any]) -> bool:
        """Whether a replay's values do as well as those of the run: a list, say, would be another one each time."""
        return all(map(_is_plain, made.values()))


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) is Tensor or isinstance(value, PLAIN)


def split_at(function: Any, line: int) -> Split | None:
    """The function cut before the statement that this line belongs to; None where that can't be done."""
    owner = function.__self__ if isinstance(function, types.MethodType) else None
    plain = function.__func__ if owner is not None else function
    if not isinstance(plain, types.FunctionType):
        return None
    tree = _text_of(plain)
    if tree is None:
        return None
    body = tree.body
    at = next((i for i, s in enumerate(body) if s.lineno <= line <= (s.end_lineno or s.lineno)), 0)
    declared = [s for s in body if isinstance(s, (ast.Global, ast.Nonlocal))]
    before = [s for s in body[:at] if s not in declared]
    after = [s for s in body[at:] if s not in declared]
    if not any(map(_does_something, before)) or any(map(_leaves, before)):
        return None
    code = plain.__code__
    local = {*code.co_varnames, *code.co_cellvars}
    read = {n.id for s in after for n in ast.walk(s) if isinstance(n, ast.Name)} & local
    surely, perhaps, deleted = _bound_by(before)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + _stars(code)]
    surely |= perhaps & set(arguments)
    if read & (deleted | (perhaps - surely)) or set(code.co_cellvars) & _stored(after):
        return None
    made = sorted(read & surely)
    wanted = frozenset(name for name in arguments if name in read and name not in surely)
    keys: list[ast.expr | None] = [ast.Constant(name) for name in made]
    values: list[ast.expr] = [ast.Name(name, ast.Load()) for name in made]
    give = ast.Return(ast.Dict(keys, values))
    first = _made(plain, tree.args, [*declared, *before, give], defaults=True)
    names = [ast.arg(name) for name in (*made, *sorted(wanted))]
    taken = ast.arguments(posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=[])
    second = _made(plain, taken, [*declared, *after], defaults=False)
    signature = inspect.signature(plain if owner is None else function)
    if owner is not None:
        first_bound = types.MethodType(first, owner)
        self_name = arguments[0]
        if self_name in wanted:
            whole = second
            wanted -= {self_name}

            def second_of(**values: Any) -> Any:
                return whole(**{self_name: owner}, **values)

            return Split(first_bound, second_of, signature, wanted, body[at].lineno)
        return Split(first_bound, second, signature, wanted, body[at].lineno)
    return Split(first, second, signature, wanted, body[at].lineno)


def _text_of(function: types.FunctionType) -> ast.FunctionDef | None:
    """The function's definition, if its source is at hand and is surely that of its code."""
    code = function.__code__
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return None
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    tree = module.body[0] if module.body else None
    if not isinstance(tree, ast.FunctionDef) or "__class__" in code.co_freevars:
        return None
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in _LOOKS or (name.startswith("__") and not name.endswith("__")):
            return None  # the latter mean something else outside of their class
    ast.increment_lineno(tree, code.co_firstlineno - 1)
    again = _made(function, tree.args, tree.body, defaults=True).__code__
    return tree if _marks_of(again) == _marks_of(code) else None


def _marks_of(code: types.CodeType) -> Any:
    """What tells code from that of another source; instructions also depend on the module around them."""
    constants = [repr(x) for x in code.co_consts if not isinstance(x, types.CodeType)]
    lines = {line for _, _, line in code.co_lines() if line}
    return code.co_names, code.co_varnames, code.co_freevars, constants, lines - {code.co_firstlineno}


def _made(
    function: types.FunctionType, arguments: ast.arguments, body: list[ast.stmt], *, defaults: bool
) -> types.FunctionType:
    """A function of this body with the globals and the closure of another."""
    code = function.__code__
    bare = ast.arguments(
        posonlyargs=[_bare(a) for a in arguments.posonlyargs], args=[_bare(a) for a in arguments.args],
        vararg=_bare(arguments.vararg), kwonlyargs=[_bare(a) for a in arguments.kwonlyargs],
        kw_defaults=[None for _ in arguments.kwonlyargs], kwarg=_bare(arguments.kwarg), defaults=[],
    )  # fmt: skip
    extra: dict[str, Any] = {"type_params": []} if "type_params" in ast.FunctionDef._fields else {}
    inner = ast.FunctionDef(name=code.co_name, args=bare, body=body, decorator_list=[], **extra)
    around = ast.arguments(
        posonlyargs=[], args=[ast.arg(name) for name in code.co_freevars], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    outer = ast.FunctionDef(name="around", args=around, body=[inner], decorator_list=[], **extra)
    module = ast.fix_missing_locations(ast.Module([outer], []))
    flags = code.co_flags & _FUTURES
    compiled = compile(module, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = _code_in(_code_in(compiled, "around"), code.co_name)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in found.co_freevars)
    if hasattr(found, "co_qualname"):
        found = found.replace(co_qualname=code.co_qualname)
    made = types.FunctionType(found, function.__globals__, function.__name__, None, closure)
    if defaults:
        made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made


_FUTURES = 0x1FF0000  # what `from __future__ import ...` sets in a code's flags


def _code_in(code: types.CodeType, name: str) -> types.CodeType:
    return next(x for x in code.co_consts if isinstance(x, types.CodeType) and x.co_name == name)


def _bare(argument: Any) -> Any:
    return None if argument is None else ast.arg(argument.arg)


def _stars(code: types.CodeType) -> int:
    return bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _does_something(statement: ast.stmt) -> bool:
    """Whether it is more than a docstring or a name."""
    return any(isinstance(node, (ast.Call, ast.BinOp)) for node in ast.walk(statement))


def _leaves(statement: ast.stmt) -> bool:
    """Whether the function may end, or wait, within the statement."""
    return any(isinstance(node, _LEAVES) for node in _within(statement))


def _within(node: ast.AST) -> Iterable[ast.AST]:
    """What belongs to the function itself, and not to one that is defined in it."""
    yield node
    for child in () if isinstance(node, _SCOPES) else ast.iter_child_nodes(node):
        yield from _within(child)


def _bound_by(statements: list[ast.stmt]) -> tuple[set[str], set[str], set[str]]:
    """Names that the statements surely give a value, those that they may give one, and those that they delete."""
    surely: set[str] = set()
    perhaps: set[str] = set()
    deleted: set[str] = set()
    for statement in statements:
        names = _stored([statement])
        deleted |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
        if isinstance(statement, _BLOCKS):
            perhaps |= names
        else:
            surely |= names
    return surely, perhaps, deleted


def _stored(statements: list[ast.stmt]) -> set[str]:
    """Names that get a value."""
    found: set[str] = set()
    for statement in statements:
        for node in _within(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
                found.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                found.add(node.rest)
    return found
