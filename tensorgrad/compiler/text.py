"""``Text``: a function's source as a tree, and functions made of parts of it.

What is made has the globals, the closure and the line numbers of the function that it comes from, so that errors name
the user's lines.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import Any

__all__ = ["Text", "text_of"]

_LOOKS = frozenset(("locals", "vars", "exec", "eval", "dir"))  # at names that a part has no longer
_FUTURES = 0x1FF0000  # what `from __future__ import ...` sets in a code's flags
_INNER = "_inner_function_of_a_text"


class Text:
    """``function``: whose it is; ``arguments``, ``body``: of its definition; ``declared``: its global and nonlocal
    statements, which every part needs; ``names``: all its local names."""

    def __init__(self, function: types.FunctionType, tree: ast.FunctionDef):
        self.function = function
        self.arguments = tree.args
        self.declared: list[ast.stmt] = [s for s in ast.walk(tree) if isinstance(s, (ast.Global, ast.Nonlocal))]
        self.body = tree.body
        code = function.__code__
        self.names = frozenset((*code.co_varnames, *code.co_cellvars))
        count = code.co_argcount + code.co_kwonlyargcount
        stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
        self.given = frozenset(code.co_varnames[: count + stars])

    def whole(self, body: list[ast.stmt], others: dict[str, Any] | None = None) -> types.FunctionType:
        """The function with another body, which may also use these other objects by their names."""
        made = _made(self.function, self.arguments, body, others or {})
        made.__defaults__, made.__kwdefaults__ = self.function.__defaults__, self.function.__kwdefaults__
        return made

    def part(self, names: list[str], body: list[ast.stmt], others: dict[str, Any] | None = None) -> types.FunctionType:
        """A function of these names with that body."""
        given = [ast.arg(name) for name in names]
        taken = ast.arguments(posonlyargs=[], args=given, kwonlyargs=[], kw_defaults=[], defaults=[])
        declared = [] if not self.declared else self.declared
        return _made(self.function, taken, [*declared, *body], others or {})


def text_of(function: Any) -> Text | None:
    """The text of a function, if its source is at hand and is surely that of its code."""
    if not isinstance(function, types.FunctionType):
        return None
    code = function.__code__
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return None
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    tree = module.body[0] if module.body else None
    if not isinstance(tree, ast.FunctionDef):
        return None
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in _LOOKS or (name.startswith("__") and not name.endswith("__")):
            return None  # the latter mean something else outside of their class
    ast.increment_lineno(tree, code.co_firstlineno - 1)
    again = _made(function, tree.args, tree.body, {}).__code__
    return Text(function, tree) if _marks_of(again) == _marks_of(code) else None


def _marks_of(code: types.CodeType) -> Any:
    """What tells code from that of another source; instructions also depend on the module around them."""
    constants = [repr(x) for x in code.co_consts if not isinstance(x, types.CodeType)]
    lines = {line for _, _, line in code.co_lines() if line}
    return code.co_names, code.co_varnames, code.co_freevars, constants, lines - {code.co_firstlineno}


def _made(
    function: types.FunctionType, arguments: ast.arguments, body: list[ast.stmt], others: dict[str, Any]
) -> types.FunctionType:
    """A function of this body with the globals and the closure of another."""
    code = function.__code__
    bare = ast.arguments(
        posonlyargs=[_bare(a) for a in arguments.posonlyargs], args=[_bare(a) for a in arguments.args],
        vararg=_bare(arguments.vararg), kwonlyargs=[_bare(a) for a in arguments.kwonlyargs],
        kw_defaults=[None for _ in arguments.kwonlyargs], kwarg=_bare(arguments.kwarg), defaults=[],
    )  # fmt: skip
    extra: dict[str, Any] = {"type_params": []} if "type_params" in ast.FunctionDef._fields else {}
    # under a name of its own: a function may name itself, among its globals
    inner = ast.FunctionDef(name=_INNER, args=bare, body=body, decorator_list=[], **extra)
    free = [ast.arg(name) for name in (*code.co_freevars, *others)]
    around = ast.arguments(posonlyargs=[], args=free, kwonlyargs=[], kw_defaults=[], defaults=[])
    outer = ast.FunctionDef(name="around", args=around, body=[inner], decorator_list=[], **extra)
    module = ast.fix_missing_locations(ast.Module([outer], []))
    flags = code.co_flags & _FUTURES
    compiled = compile(module, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = _code_in(_code_in(compiled, "around"), _INNER).replace(co_name=code.co_name)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    cells.update((name, types.CellType(value)) for name, value in others.items())
    closure = tuple(cells[name] for name in found.co_freevars)
    if hasattr(found, "co_qualname"):
        found = found.replace(co_qualname=code.co_qualname)
    return types.FunctionType(found, function.__globals__, function.__name__, None, closure)


def _code_in(code: types.CodeType, name: str) -> types.CodeType:
    return next(x for x in code.co_consts if isinstance(x, types.CodeType) and x.co_name == name)


def _bare(argument: Any) -> Any:
    return None if argument is None else ast.arg(argument.arg)
