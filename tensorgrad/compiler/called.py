"""What a function may call: other functions, methods, the modules that it imports.

Of a class's methods those are walked that somebody may call: what walked code names, what Python calls by itself
(``__len__``), and what a library may, since one of its classes has a method of that name.
"""

from __future__ import annotations

import abc
import builtins
import enum
import importlib.util
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

from .. import config
from .facts import get, gone
from .found import Found
from .named import (
    AS_TEXT,
    all_globals,
    globals_in,
    imports_in,
    names_in,
    reads_gradients,
    reads_modules,
    tells_apart,
    texts_in,
)
from .once import is_once
from .whose import is_users_class, is_users_function

__all__ = ["Called"]

_UNHEARD = frozenset((
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__dir__",
    "__match_args__", "__dataclass_fields__", "__dataclass_params__", "__annotations__", "__doc__", "__module__",
))  # fmt: skip
"""Of a class, what computes nothing."""
_MAKING = frozenset(("__init__", "__new__", "__post_init__", "__init_subclass__", "__del__"))
"""What runs where the class itself is named."""
_OF_REPR = frozenset(("dataclasses", "reprlib"))
"""Modules that wrap a ``__repr__``, to know of one that runs already: a set that is empty between calls."""
_MAKERS = frozenset(("type", "__class__", "replace", "_replace"))
"""What makes another object of an object's class."""
_PROTOCOLS = frozenset(("keys", "write", "flush", "read", "readline", "close", "run", "send", "throw"))
"""What Python and its library call by itself, of whatever object."""
_IMPORTS = frozenset(("import_module", "__import__"))
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
"""What may name a module."""


class Called(Found):
    """Of a walk, what goes through code."""

    def __init__(self, whole: types.CodeType | None, places: frozenset[Any], texts: Iterable[str]):
        super().__init__(whole, places, texts)
        self._may_evaluate: list[types.FunctionType] = []  # whose globals are not all walked
        # methods that nobody has named so far: path, class, name, function, what the class holds and where
        self._methods: list[tuple[str, type, str, Any, Any, Any]] = []
        self._reads_modules = False
        self._asked_modules: set[str] = set()  # keys of ``sys.modules``

    def _function(self, path: str, function: Any) -> None:
        if isinstance(function, types.MethodType):
            self._walk(path.rpartition(".")[0] or f"{path}.__self__", function.__self__)
            function = function.__func__
        if getattr(function, "__globals__", {}).get("__name__") in _OF_REPR and hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if not isinstance(function, types.FunctionType) or not is_users_function(function):
            self._theirs.add(getattr(function, "__name__", ""))
            if function in (config.get, config.source, config.table):
                self._container("the settings", config._calls)
            if getattr(function, "__module__", None) == "functools":  # of one of its wrappers, as ``singledispatch`` is
                for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                    self._fact(f"{path}.{name}", cell, "cell_contents", get(cell, "cell_contents"))
            return
        self._later.setdefault(id(function), (path, function))
        self._names_of(path, function)
        code = function.__code__
        if code is self._whole:
            return
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            self.facts.append((f"{path}.{name}", function, name, getattr(function, name)))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            value = get(cell, "cell_contents")
            if name == "__class__" and "super" in code.co_names and isinstance(value, type):
                self._class(name, value)  # asked for by super(), which makes none
            else:
                self._fact(name, cell, "cell_contents", value)
        for i, value in enumerate(function.__defaults__ or ()):
            self._walk(f"{path}.__defaults__[{i}]", value)
        for key, value in (function.__kwdefaults__ or {}).items():
            self._fact(f"{path}.{key}", function.__kwdefaults__, key, value)
        names, open_ended = names_in(code, new=code.co_name in _MAKING)
        self._names |= names
        self._open_ended = self._open_ended or open_ended
        self._texts.update(texts_in(code))
        self._codes.append(code)
        self._reads_modules = self._reads_modules or reads_modules(code)
        self._reads_gradients = self._reads_gradients or reads_gradients(code)
        self.tells_apart = self.tells_apart or tells_apart(code, function.__globals__)
        for name in sorted((names & vars(builtins).keys()) - function.__globals__.keys()):
            self.facts.append((name, function.__globals__, name, gone))  # nobody may hide the built-in
        for name, above in imports_in(code):
            self._imported(name, above, function.__globals__.get("__package__"))
        every = all_globals(code)
        if every:
            self._every_global(function)
        elif "globals" in names:
            for name in sorted(set(texts_in(code))):
                self._fact(name, function.__globals__, name, get(function.__globals__, name))
        if not every:
            self._may_evaluate.append(function)
        for name in sorted(set(globals_in(code))):
            if name in function.__globals__:
                self._fact(name, function.__globals__, name, function.__globals__[name])
            elif name not in vars(builtins):
                self.facts.append((name, function.__globals__, name, gone))
            else:
                value = vars(builtins)[name]
                self.facts.append((name, vars(builtins), name, value))
                if isinstance(value, types.FunctionType):  # somebody's own in its place
                    self._walk(name, value)

    def _every_global(self, function: types.FunctionType) -> None:
        words = set(re.findall(r"\w+", " ".join(texts_in(function.__code__))))
        for name, value in list(function.__globals__.items()):
            if name.startswith("__") or is_once(value):
                continue
            if not isinstance(value, types.ModuleType) or name in words:
                self._fact(name, function.__globals__, name, value)

    def _imported(self, name: str, above: int, package: Any) -> None:
        """Walk a module that code imports while it runs, and those that it lies in."""
        if above and isinstance(package, str):
            name = importlib.util.resolve_name("." * above + name, package)
        while name:
            self._loaded(name)
            if name not in sys.modules:
                self.unloaded.append(("sys.modules", sys.modules, {name}))
            name = name.rpartition(".")[0]

    def _loaded(self, name: str) -> None:
        """Walk the module of that name; by the next call there may be another one, or none."""
        if name in self._asked_modules:
            return
        self._asked_modules.add(name)
        if name in sys.modules:
            self._fact(name, sys.modules, name, sys.modules[name])
        else:
            self.facts.append((name, sys.modules, name, gone))

    def _told_by_names(self) -> bool:
        """Walk what functions named by now tell of: modules by their names, subclasses, what patterns ask for; whether
        there was any."""
        before, seen = len(self._names), len(self.seen)
        if self._reads_modules or self._names & _IMPORTS:
            for name in sorted(filter(_MODULE.fullmatch, self._texts)):
                self._loaded(name)
        if "__subclasses__" in self._names:
            for kind in list(self._classes):
                below: list[type] = kind.__subclasses__()
                for one in below:
                    self._walk(f"{kind.__qualname__}.__subclasses__()", one)
        evaluating: list[types.FunctionType] = []
        if self._evaluates:
            evaluating, self._may_evaluate = self._may_evaluate, []
        for function in evaluating:
            self._every_global(function)
        if "__match_args__" in self._names:
            self._names.update(name for kind in self._classes for name in getattr(kind, "__match_args__", ()))
        return bool(evaluating) or len(self._names) != before or len(self.seen) != seen

    def _hear(self) -> bool:
        """Walk the methods that have been named by now; whether there were any."""
        waiting, self._methods = self._methods, []
        for method in waiting:
            path, kind, name, function, holder, own = method
            if self._open_ended or name in self._names or (name in _MAKING and self._makes(kind)):
                if name in AS_TEXT and names_in(function.__code__)[1]:
                    continue  # words of whatever there is, for a reader
                if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("cls",):
                    self._made.add(kind)  # it may make one
                self._method(path, name, function, holder, own)
            else:
                self._methods.append(method)
        return len(self._methods) != len(waiting)

    def _method(self, path: str, name: str, function: Any, holder: Any, own: Any) -> None:
        """Walk a method, which its class may have replaced by the next call."""
        self.facts.append((path, holder, name, own))
        self._walk(path, function)

    def _makes(self, kind: type) -> bool:
        """Whether some code may make an object of the class."""
        return kind in self._made or not self._names.isdisjoint((kind.__name__, *_MAKERS))

    def _class(self, path: str, kind: type) -> None:
        if not is_users_class(kind) or kind in self._classes:
            return
        self._classes.add(kind)
        self._abstract = self._abstract or isinstance(kind, abc.ABCMeta)
        if issubclass(kind, enum.Enum):
            for name, member in kind.__members__.items():
                self._walk(f"{path}.{name}.value", member.value)
        if is_users_class(type(kind)):
            self._class(f"type({path})", type(kind))
        theirs = [base for base in kind.__mro__ if base is not object and not is_users_class(base)]
        for base in kind.__mro__:
            if is_users_class(base):
                if base not in self._sized:
                    self._sized.add(base)
                    self._names_of(base.__qualname__, base)
                for name, value in vars(base).items():
                    if name in _UNHEARD:
                        continue
                    own = value
                    if isinstance(value, (staticmethod, classmethod)):
                        value = value.__func__
                    if isinstance(value, (property, types.FunctionType)):
                        by_itself = (name.startswith("__") and name.endswith("__")) or name in _PROTOCOLS
                        by_itself = by_itself and name not in _MAKING
                        by_itself = name not in AS_TEXT and (by_itself or any(hasattr(one, name) for one in theirs))
                        parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
                        for part in parts:
                            if part is not None and not (by_itself and name not in _MAKING):
                                self._methods.append((f"{path}.{name}", kind, name, part, vars(base), own))
                            elif part is not None:
                                self._method(f"{path}.{name}", name, part, vars(base), own)
                    elif not name.startswith("__"):
                        self._later.setdefault(id(base), (path, base))
