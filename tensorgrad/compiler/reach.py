"""What a function can reach: numbers, tensors, modules, optimizers in its closure, its globals, and whatever hangs
there.

A replay runs no Python, so it is right only while all this is as it was when the program was written. ``Reach`` walks
it once and keeps *facts*, which are asked again (``facts.py``).

Of a module of this package and of an optimizer everything is a fact but the numbers that a step reads anew each time
(``Optimizer.form`` says which), unless walked code may read them too: it names ``param_groups`` and has their key. Of
other objects and of Python modules only attributes whose names occur in the code that was walked; where that code makes
names while it runs, all.

Of a class's methods those are walked that somebody may call: what walked code names, what Python calls by itself
(``__len__``), and what a library may, since one of its classes has a method of that name.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import ctypes
import dis
import enum
import functools
import importlib.util
import logging
import math
import operator
import os
import random
import re
import sys
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import numpy as np

from .. import config
from ..backends import cuda
from ..dtypes import _default as default_dtype
from ..nn.hooks import everywhere as hooks_of_all
from ..nn.module import Module
from ..nn.parameter import Parameter, is_lazy
from ..optim.optimizer import Optimizer, _post_hooks_of_all, _pre_hooks_of_all
from ..random import Generator
from ..tensor import Tensor
from .clocks import Watch, watching
from .facts import BUFFERS, PLAIN, Facts, Form, elements, get, gone, kept_by, short, state_of
from .named import (
    AS_TEXT,
    NAMERS,
    all_globals,
    globals_in,
    goes_through,
    imports_in,
    names_in,
    names_of_getter,
    reads_modules,
    texts_in,
)  # fmt: skip
from .once import is_once
from .surroundings import told_of
from .whose import has_code_of_others, is_users, is_users_class, is_users_function, is_users_object, package_of

__all__ = ["Reach", "why_too_much"]

_READERS = (
    math.gcd, math.lcm, math.comb, math.perm, math.factorial, math.isqrt, math.ldexp, operator.index,
)  # fmt: skip
_UNHEARD = frozenset((
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__dir__",
    "__match_args__", "__dataclass_fields__", "__dataclass_params__", "__annotations__", "__doc__", "__module__",
))  # fmt: skip
"""Of a class, what computes nothing."""
_MAKING = frozenset(("__init__", "__new__", "__post_init__", "__init_subclass__", "__del__"))
"""What runs where the class itself is named."""
_ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb", "expandvars", "expanduser", "home"))
_PICKLES = frozenset(("__getstate__", "__reduce__", "__reduce_ex__", "dumps"))
_OF_REPR = frozenset(("dataclasses", "reprlib"))
"""Modules that wrap a ``__repr__``, to know of one that runs already: a set that is empty between calls."""
_CACHED = functools._lru_cache_wrapper
_STATES = frozenset(("getstate", "get_state"))
_SOURCES = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_MAKERS = frozenset(("type", "__class__", "replace", "_replace"))
"""What makes another object of an object's class."""
_OF_OPTIMIZERS = frozenset((
    "_opt_called", "_plans", "_scales", "_scheduled_step", "_stepping", "_told", "_unless", "param_groups", "state",
))  # fmt: skip
"""What an optimizer keeps for itself, or what is asked in another way."""
_PROTOCOLS = frozenset(("keys", "write", "flush", "read", "readline", "close", "run", "send", "throw"))
"""What Python and its library call by itself, of whatever object."""
_SWITCHES = {"no_grad", "enable_grad", "requires_grad", "requires_grad_", "set_grad_enabled", "is_grad_enabled"}
_REPLACEABLE = (types.FunctionType, types.MethodType, types.ModuleType)
"""What of this package's modules somebody may have put another in place of."""
_SWITCHES_OF_MODULES = (*PLAIN, type(cuda.matmul))
"""What of them is set, where code names it."""
_NOT_OF_LIBRARIES = _ENVIRONMENT | {"modules"}
"""What of Python's library is asked in another way, or is another whenever something is imported."""
_IMPORTS = frozenset(("import_module", "__import__"))
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_BOUND = (types.BuiltinFunctionType, types.MethodWrapperType)
_MOST = 10_000  # entries of one container that are looked into; of more it is asked whether they are the same
_MOST_ASKED = 3_000_000
"""Attributes, where code makes names while it runs: it may mean anything of a library that it names."""


class _TooMuch(Exception):
    """More attributes than ``_MOST_ASKED``; the argument is the path to what has the last."""


def why_too_much(path: str) -> str:
    """Why no program rests on what was found so far."""
    return (
        f"compile: the function makes names of attributes while it runs, as getattr(x, name) does, and so may read "
        f"whatever hangs on what it names: more than {_MOST_ASKED:,} attributes, those of {path} the last. Write the "
        "attribute where its name is known (x.name), or look it up outside and pass what was found."
    )


class Reach(Facts):
    """The facts that hold for a function (and the objects given besides) now.

    ``tensors``: every tensor found, by the path to it. ``arrays``: their arrays' identities.

    ``whole``: the code of a function of which this one is a part: who names it means another one. ``places``: (the
    holder's identity, key) of what is handed to the function as an argument. ``texts``: the texts among its arguments.
    """

    def __init__(
        self, *roots: tuple[str, Any], whole: types.CodeType | None = None, places: frozenset[Any] = frozenset(),
        texts: Iterable[str] = (),
    ):  # fmt: skip
        super().__init__()
        self.optimizers: list[Optimizer] = []
        self.tensors: dict[int, tuple[str, Tensor]] = {}
        self.once: tuple[str, Any] | None = None  # a generator, or the like
        self.seen: dict[int, Any] = {}
        self._whole = whole
        self._places = places
        self._names: set[str] = set()
        self._theirs: set[str] = set()  # names of functions of libraries, however code names them
        self._texts = set(texts)  # that may be keys of a dict
        self._codes: list[types.CodeType] = []  # that was walked
        self._settings_seen: set[tuple[int, str]] = set()
        self._evaluates = False  # code has the built-in `eval` in its hands under whatever name
        self._may_evaluate: list[types.FunctionType] = []  # whose globals are not all walked
        self._open_ended = False  # there may be names that no code has as such
        # methods that nobody has named so far: path, class, name, function, what the class holds and where
        self._methods: list[tuple[str, type, str, Any, Any, Any]] = []
        self._classes: set[type] = set()
        self._sized: set[type] = set()  # of which it is known how much they hold
        self._weakly: set[int] = set()  # what somebody refers to without keeping it alive
        self._made: set[type] = set()  # classes that some code has in its hands
        self._reads_gradients = False
        self._reads_modules = False
        self._later: dict[int, tuple[str, Any]] = {}  # holders of attributes that matter if they are named
        self._abstract = False  # one of the user's classes may have others enter
        self._asked = 0
        self.beyond: str | None = None  # where the walk was given up
        try:
            for path, root in roots:
                self._walk(path, root)
            self._standing()
            asked: dict[int, set[str]] = {}
            while self._hear() or self._ask(asked) or self._settings() or self._told_by_names():
                pass  # what is found there may name others
        except _TooMuch as found:
            self.beyond = str(found)
            return
        named = self._names | self._theirs
        if named & _ENVIRONMENT:
            self._container("os.environ", vars(os.environ)["_data"])
        told = list(told_of(named))
        if named & _STATES:
            told += [
                (f"the state of {name}", functools.partial(_told_state, source)) for name, source, _ in self.sources
            ]
        if self._abstract and not named.isdisjoint(("isinstance", "issubclass")):
            told.append(("the classes that entered abstract ones", _told_abstract))
        if "__subclasses__" in named:
            told += [(f"subclasses of {x.__qualname__}", functools.partial(_told_subclasses, x)) for x in self._classes]
        self.copies += [(path, ask, elements(ask)) for path, ask in told]
        self.seen.update(dict.fromkeys(self._weakly))  # whose life is no longer for that
        self._later = {}
        self.pack()

    def watch(self) -> Watch:
        """A block to run the function in, which sees what is another in each call and leaves nothing to be compared."""
        return watching(self._names | self._theirs, is_users)

    @property
    def looks_at_gradients(self) -> bool:
        """Whether the function itself may do something else where a tensor has a gradient, or has none."""
        return self._reads_gradients or any("grad" in name for name in self._names - _SWITCHES - {"grad", "zero_grad"})

    @property
    def parameters(self) -> list[Tensor]:
        """What optimizers update and ``zero_grad`` clears, where it has a gradient."""
        if not self.optimizers and "zero_grad" not in self._names:
            return []
        own = [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]
        return [*own, *(t for _, t in self.tensors.values() if isinstance(t, Parameter))]

    def waits_for(self, tensors: list[Tensor]) -> bool:
        """Whether the function does something with gradients of what these were computed of."""
        from .pair import leaves_behind

        mine = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        if self.looks_at_gradients:
            mine |= self.tensors.keys()
        return bool(mine) and any(id(leaf) in mine for leaf in leaves_behind([t for t in tensors if t._node]))

    @property
    def reads_numbers_unseen(self) -> bool:
        """Whether the function may hand a whole number to C, which reads it past all methods of its type."""
        return any(id(reader) in self.seen for reader in _READERS)

    # --- walking

    def _standing(self) -> None:
        """What every function rests on: the default dtype, hooks of all modules and optimizers, sources of numbers that
        are not ours and must not be asked in between."""
        self._fact("the default dtype", default_dtype, 0, default_dtype[0])
        for path, hooks in (("hooks of all modules", hooks_of_all), ("hooks of all optimizers", _pre_hooks_of_all),
                            ("hooks of all optimizers", _post_hooks_of_all)):  # fmt: skip
            self._container(path, hooks)
        for name, source in (("Python's random", random), ("numpy.random", np.random)):
            self.sources.append((name, source, repr(state_of(source))))

    def _fact(self, path: str, holder: Any, key: Any, value: Any) -> None:
        if self._places and (id(holder), key) in self._places:
            return
        self.facts.append((path, holder, key, value))
        self._walk(path, value)

    def _new(self, what: Any) -> bool:
        if id(what) in self.seen:
            return False
        self.seen[id(what)] = what
        return True

    def _walk(self, path: str, what: Any) -> None:
        if type(what) is str:
            self._texts.add(what)
        if (isinstance(what, PLAIN) and not is_users_class(type(what))) or not self._new(what):
            return
        if type(what) in (weakref.ProxyType, weakref.CallableProxyType):
            with contextlib.suppress(ReferenceError):  # nothing is there any more, and nothing will be
                self._weakly.add(id(what.__repr__.__self__))
                self._walk(path, what.__repr__.__self__)
            return
        if isinstance(what, Tensor) and is_lazy(what):
            self.facts.append((f"{path}.__class__", what, "__class__", type(what)))  # it has no elements yet
        elif isinstance(what, Tensor):
            self.tensors[id(what)] = (path, what)
            own = what.__dict__
            self.data.append((path, what, what._data, what._tracked, what._hooks, what._post_hooks, len(own)))
            if what._node is not None:
                self.facts.append((f"the history of {path}", what, "_node", what._node))
            if own:
                self._later.setdefault(id(what), (path, what))
            for name, hooks in (("hooks", what._hooks), ("post_hooks", what._post_hooks)):
                if hooks is not None:
                    self._container(f"{path}._{name}", hooks)
        elif isinstance(what, (types.FunctionType, types.MethodType)):
            self._function(path, what)
        elif isinstance(what, _BOUND) or not isinstance(type(what).__module__, str):
            self._theirs.add(what.__name__)  # the latter is a function that Cython has made
            self._evaluates = self._evaluates or what is eval or what is exec
            of_others = what in NAMERS and path.rpartition(".")[2] != what.__name__
            self._open_ended = self._open_ended or self._evaluates or of_others
            if not isinstance(getattr(what, "__self__", None), (types.ModuleType, type, type(None))):
                self._walk(f"{path}.__self__", what.__self__)
        elif isinstance(what, logging.Logger):
            self._logger(path, what)
        elif isinstance(what, threading.local):
            self.copies.append((path, what, elements(what)))
            self._container(path, self.copies[-1][2])
            self._class(f"type({path})", type(what))
        elif isinstance(what, Optimizer) and hasattr(what, "param_groups") and hasattr(what, "state"):
            self._optimizer(path, what)
        elif isinstance(what, (list, tuple, dict)):
            self._container(path, what)
            self._own(path, what)
        elif isinstance(what, (weakref.ref, ContextVar)):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, weakref.ref):
                self._weakly.add(id(what()))
            self._walk(path, what() if isinstance(what, weakref.ref) else self.copies[-1][2][0])
        elif isinstance(what, BUFFERS):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, ctypes._Pointer) and what:
                self._walk(f"{path}.contents", what.contents)
        elif isinstance(what, _VIEWS):
            self._walk(path, what.mapping)
        elif isinstance(what, (set, frozenset, deque, types.MappingProxyType, np.ndarray, np.generic)):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, (np.ndarray, np.generic)):
                inside = np.asarray(what).reshape(-1)[:_MOST].tolist() if what.dtype.hasobject else ()
                if "_mask" in getattr(what, "__dict__", ()):  # of a masked one
                    self._fact(f"{path}.mask", vars(what), "_mask", vars(what)["_mask"])
            else:
                inside = self.copies[-1][2][:_MOST]
            for element in inside:
                self._walk(f"an element of {path}", element)
            self._own(path, what)
        elif isinstance(what, types.ModuleType):
            self._later.setdefault(id(what), (path, what))
            self._class(f"type({path})", type(what))
            if is_users(what.__name__) and "__getattr__" in vars(what):
                self._fact(f"{path}.__getattr__", vars(what), "__getattr__", vars(what)["__getattr__"])
        elif isinstance(what, type):
            self._made.add(what)
            self._open_ended = self._open_ended or (what in NAMERS and path.rpartition(".")[2] != what.__name__)
            if not is_users_class(what):
                self._theirs.add(what.__name__)
            self._class(path, what)
        elif is_once(what):
            self.once = self.once or (path, what)
        elif names_of_getter(what):
            self._names |= names_of_getter(what)
        elif isinstance(what, (Generator, random.SystemRandom)):  # the latter has no state: who asks it is watched
            return
        elif isinstance(what, _SOURCES):
            self.sources.append((path, what, repr(state_of(what))))
        elif isinstance(what, _CACHED):
            self.copies.append((path, what, elements(what)))
            self._walk(path, what.__wrapped__)
            for number, kept in enumerate(kept_by(what)):
                self._walk(f"{path}, result {number}", kept)
        elif isinstance(what, functools.partial):
            self._walk(f"{path}.func", what.func)
            self._container(f"{path}.args", what.args)
            self._container(f"{path}.keywords", what.keywords)
        elif hasattr(type(what), "__reached__"):  # what a program from a file holds
            self._container(path, what.__reached__)
        elif "__wrapped__" in getattr(what, "__dict__", ()) or hasattr(type(what), "__wrapped__"):
            self._walk(path, what.__wrapped__)
        elif (hasattr(what, "__dict__") or _slots(what)) and is_users_object(what):
            kind = type(what)
            if isinstance(what, Module) or not is_users_class(kind) or has_code_of_others(kind):
                self._class(f"type({path})", type(what))
                self._module(path, what)
            else:
                self._own(path, what)

    def _logger(self, path: str, logger: logging.Logger) -> None:
        """What decides which messages a logger passes on; not what it has noted about that, nor what becomes of
        them."""
        for name in ("level", "disabled", "propagate", "parent"):
            self._fact(f"{path}.{name}", vars(logger), name, getattr(logger, name))
        for name in ("handlers", "filters"):
            self.facts.append((f"{path}.{name}", vars(logger), name, getattr(logger, name)))
            self.sizes.append((f"{path}.{name}", getattr(logger, name), len(getattr(logger, name))))
        self._fact(f"{path}.manager.disable", vars(logger.manager), "_disable", logger.manager.disable)
        self._own(path, logger)

    def _own(self, path: str, what: Any) -> None:
        """Of an object of the user's class what is named."""
        if not is_users_class(type(what)):
            return
        self._class(f"type({path})", type(what))
        self._later.setdefault(id(what), (path, what))
        self._names_of(path, what)

    def _names_of(self, path: str, what: Any) -> None:
        """Nobody may give an object or a class an attribute which it has not: what looks for it finds another. Nor may
        one come from another class."""
        if isinstance(what, type):
            self.facts.append((f"{path}.__bases__", what, "__bases__", what.__bases__))
        elif not isinstance(what, (list, tuple, dict)) and id(what) not in self._weakly:
            self.facts.append((f"{path}.__class__", what, "__class__", type(what)))
        attributes = getattr(what, "__dict__", None)
        if isinstance(attributes, (dict, types.MappingProxyType)):
            self.sizes.append((f"{path}.__dict__", attributes, len(attributes)))

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
        self._reads_gradients = self._reads_gradients or _reads_gradients(code)
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
            if name in sys.modules:
                self._walk(name, sys.modules[name])
            else:
                self.unloaded.append(("sys.modules", sys.modules, {name}))
            name = name.rpartition(".")[0]

    def _told_by_names(self) -> bool:
        """Walk what functions named by now tell of: modules by their names, subclasses, what patterns ask for; whether
        there was any."""
        found: dict[str, Any] = {}
        if self._reads_modules or self._names & _IMPORTS:
            found |= {name: sys.modules[name] for name in sorted(self._texts & sys.modules.keys())}
        if "__subclasses__" in self._names:
            found |= {f"{x.__qualname__}.__subclasses__()": tuple(x.__subclasses__()) for x in self._classes}
        before, seen = len(self._names), len(self.seen)
        for path, what in found.items():
            for one in what if type(what) is tuple else (what,):
                self._walk(path, one)
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

    def _ask(self, asked: dict[int, set[str]]) -> bool:
        """Walk the attributes whose names are known by now; whether there were any to ask for. ``asked``: by holder,
        what has been asked before."""
        news = False
        for path, holder in list(self._later.values()):
            before = asked.setdefault(id(holder), set())
            if self._open_ended:
                every = {*self._names, *_slots(holder), *getattr(holder, "__dict__", ())}
                fresh = {name for name in every if not name.startswith("__")} - before
            elif len(before) == len(self._names):
                continue
            else:
                fresh = self._names - before
            if fresh:
                before |= fresh
                self._asked += len(fresh)
                if self._open_ended and self._asked > _MOST_ASKED:
                    raise _TooMuch(path)
                self._attributes(path, holder, fresh)
                news = True
        return news

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

    def _container(self, path: str, what: Any) -> None:
        if isinstance(what, tuple):  # which stays as it is
            for i, value in enumerate(what[:_MOST]):
                self._walk(f"{path}[{i}]", value)
            return
        self.sizes.append((path, what, len(what)))
        keys: tuple[Any, ...] = tuple(what) if isinstance(what, dict) and len(what) > 1 else ()
        if isinstance(what, OrderedDict) and keys:
            self.copies.append((path, what.keys(), keys))  # its order is its own, not the dict's
        elif keys or len(what) > _MOST:
            every = what.values() if isinstance(what, dict) else what
            self.wholes.append((path, what, keys, tuple(every) if len(what) > _MOST else ()))
        if len(what) > _MOST:
            return
        if isinstance(what, dict):
            for key, value in what.items():
                if type(key) is str:
                    self._texts.add(key)
                else:
                    self._walk(f"a key of {path}", key)
                self._fact(f"{path}[{short(key)}]", what, key, value)
        else:
            for i, value in enumerate(what):
                self._fact(f"{path}[{i}]", what, i, value)

    def _module(self, path: str, module: Any) -> None:
        """Everything of a module, or of another object whose code isn't walked; of the user's own modules, besides
        members and what ``Module`` knows of, only what is named."""
        for name in _slots(module):
            if hasattr(module, name):
                self._fact(f"{path}.{name}", module, name, getattr(module, name))
        attributes = getattr(module, "__dict__", {})
        unguarded = getattr(type(module), "unguarded", ())  # what no program rests on
        self.sizes.append((path, attributes, len(attributes)))
        theirs = {base for base in type(module).__mro__ if not is_users_class(base)}
        members = attributes.get("_kinds", ()) if theirs == set(Module.__mro__) else None
        if members is not None:
            self._later.setdefault(id(module), (path, module))
        if isinstance(module, Module):
            self.modules.add(id(attributes))
            self._forward(type(module))
        if len(attributes.get("_kinds", ())) > 1 and isinstance(module, Module):
            self.wholes.append((f"the members of {path}", attributes["_kinds"], tuple(attributes["_kinds"]), ()))
        if is_users_class(type(module)) and id(module) not in self._weakly:
            self.facts.append((f"{path}.__class__", module, "__class__", type(module)))
        for name, value in attributes.items():
            if members is not None and name not in members and not hasattr(Module, name):
                continue  # no code but the user's reads it, if any does
            if name not in ("_kinds", "_unsaved") and name not in unguarded:
                self._fact(f"{path}.{name}", attributes, name, value)

    def _forward(self, kind: type) -> None:
        """Nobody may put another `forward` into a class of this package."""
        base = next(base for base in kind.__mro__ if "forward" in vars(base))
        if base not in self._sized and not is_users_class(base):
            self._sized.add(base)
            self._fact(f"{base.__qualname__}.forward", vars(base), "forward", vars(base)["forward"])

    def _optimizer(self, path: str, optimizer: Any) -> None:
        self.optimizers.append(optimizer)
        self.optimizer_paths.append(path)
        self._class(f"type({path})", type(optimizer))
        self._later.setdefault(id(optimizer), (path, optimizer))
        attributes = vars(optimizer)
        self._names_of(path, optimizer)
        for name in ("param_groups", "state"):
            self.facts.append((f"{path}.{name}", attributes, name, attributes.get(name, gone)))
        groups, states = optimizer.param_groups, optimizer.state
        self.sizes.append((f"{path}.param_groups", groups, len(groups)))
        for i, group in enumerate(groups):
            where = f"{path}.param_groups[{i}]"
            self.facts.append((where, groups, i, group))
            self._fact(f"{where}['params']", group, "params", group["params"])
            self.forms.append(Form(where, optimizer, group))
        for name in ("_pre_hooks", "_post_hooks"):
            self._container(f"{path}.{name}", attributes[name])
        self.sizes.append((f"{path}.state", states, len(states)))
        for i, (p, entries) in enumerate(states.items()):
            where = f"{path}.state[{i}]"
            self.facts.append((where, states, p, entries))
            if isinstance(entries, dict):
                self.sizes.append((where, entries, len(entries)))
                for name, value in entries.items():
                    self._fact(f"{where}[{name!r}]", entries, name, value)

    def _settings(self) -> bool:
        """Walk what groups of optimizers hold under keys that walked code may ask for; whether there was any. A step
        reads it anew, but what the user's code makes of it is written in the program."""
        pickles = not self._names.isdisjoint(_PICKLES)
        if not self.optimizers or not (self._open_ended or pickles or "param_groups" in self._texts | self._names):
            return False
        before = len(self._settings_seen)
        every = self._open_ended or pickles or any(map(goes_through, self._codes))
        for path, optimizer in zip(self.optimizer_paths, self.optimizers, strict=True):
            for i, group in enumerate(optimizer.param_groups):
                for key, value in list(group.items()):
                    known = (id(group), key) in self._settings_seen
                    if key != "params" and not known and (every or key in self._texts or key in self._names):
                        self._settings_seen.add((id(group), key))
                        self._fact(f"{path}.param_groups[{i}][{key!r}]", group, key, value)
        return len(self._settings_seen) > before

    def _attributes(self, path: str, holder: Any, names: set[str]) -> None:
        if isinstance(holder, Optimizer):
            names = names - _OF_OPTIMIZERS
        others = isinstance(holder, types.ModuleType) and not is_users(holder.__name__)
        ours = others and package_of(holder.__name__) == "tensorgrad"
        if others and not ours:
            names = (names & self._names) - _NOT_OF_LIBRARIES
        if others:
            self.unloaded.append((path, vars(holder), names - vars(holder).keys()))
        if not isinstance(holder, type):
            for name in sorted(names & _slots(holder)):
                self._fact(f"{path}.{name}", holder, name, getattr(holder, name, gone))
            if hasattr(holder, "__dict__") and not isinstance(holder, (Tensor, types.FunctionType)):
                for name in sorted(names & set(dir(type(holder))) - vars(holder).keys()):
                    self.facts.append((f"{path}.{name}", vars(holder), name, gone))  # nor what the class says
        attributes = getattr(holder, "__dict__", {})
        for name in sorted(names & attributes.keys()):
            if isinstance(holder, type) and isinstance(attributes[name], types.FunctionType):
                continue
            named = name in self._names and not name.startswith("_")
            switch = named and isinstance(attributes[name], _SWITCHES_OF_MODULES)
            if ours and not switch and not isinstance(attributes[name], _REPLACEABLE):
                continue
            self._fact(f"{path}.{name}", attributes, name, attributes[name])


def _reads_gradients(code: types.CodeType) -> bool:
    """Whether code asks an object for its ``grad``, other than ``autograd.grad``."""
    before = None
    for step in dis.get_instructions(code):
        if step.argval == "grad" and step.opname in ("LOAD_ATTR", "LOAD_METHOD") and before != "autograd":
            return True
        before = step.argval
    return any(_reads_gradients(part) for part in code.co_consts if isinstance(part, types.CodeType))


def _told_subclasses(kind: type) -> tuple[Any, ...]:
    return tuple(kind.__subclasses__())


def _told_abstract() -> tuple[Any]:
    return (abc.get_cache_token(),)


def _told_state(source: Any) -> tuple[str]:
    return (repr(state_of(source)),)


def _slots(what: Any) -> set[str]:
    """Names of an object's attributes that lie in slots."""
    found: set[str] = set()
    for kind in type(what).__mro__:
        names = kind.__dict__.get("__slots__", ())
        own = f"_{kind.__name__.lstrip('_')}"  # which Python puts before what only the class's code may name
        for name in (names,) if isinstance(names, str) else names:
            found.add(own + name if name.startswith("__") and not name.endswith("__") else name)
    return {name for name in found if not name.startswith("__")}
