"""What a function can reach: numbers, tensors, modules, optimizers in its closure, its globals, and whatever hangs
there.

A replay runs no Python, so it is right only while all this is as it was when the program was written. ``Reach`` walks
it once and keeps *facts*, which are asked again (``facts.py``).

What it finds of functions and classes is told in ``called.py``, of modules and optimizers in ``members.py``, of
attributes of other objects in ``attributes.py``.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import functools
import gc
import logging
import math
import operator
import os
import random
import threading
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Iterable
from contextvars import Context, ContextVar
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..dtypes import _default as default_dtype
from ..nn.hooks import everywhere as hooks_of_all
from ..nn.module import Module
from ..nn.parameter import Parameter, is_lazy
from ..optim.optimizer import Optimizer, _post_hooks_of_all, _pre_hooks_of_all
from ..random import Generator
from ..tensor import Tensor
from .attributes import ENVIRONMENT, Attributes, TooMuch, slots
from .called import Called
from .clocks import Watch, watching
from .facts import BUFFERS, PLAIN, elements, kept_by, state_of
from .found import MOST
from .members import Members
from .named import NAMERS, names_of_getter
from .once import is_once
from .surroundings import told_of
from .whose import has_code_of_others, is_users, is_users_class, is_users_object

__all__ = ["Reach"]

_READERS = (
    math.gcd, math.lcm, math.comb, math.perm, math.factorial, math.isqrt, math.ldexp, operator.index,
)  # fmt: skip
_CACHED = functools._lru_cache_wrapper
_KEY: Any = type(functools.cmp_to_key(max))
_STATES = frozenset(("getstate", "get_state"))
_SOURCES = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_SWITCHES = {"no_grad", "enable_grad", "requires_grad", "requires_grad_", "set_grad_enabled", "is_grad_enabled"}
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_BOUND = (types.BuiltinFunctionType, types.MethodWrapperType)


class Reach(Called, Members, Attributes):
    """The facts that hold for a function (and the objects given besides) now.

    ``roots``: (path, object) where the walk begins; the other arguments are those of ``Found``.
    """

    def __init__(
        self, *roots: tuple[str, Any], whole: types.CodeType | None = None, places: frozenset[Any] = frozenset(),
        texts: Iterable[str] = (),
    ):  # fmt: skip
        super().__init__(whole, places, texts)
        self.once: tuple[str, Any] | None = None  # a generator, or the like
        self.beyond: str | None = None  # where the walk was given up
        try:
            for path, root in roots:
                self._walk(path, root)
            self._standing()
            asked: dict[int, set[str]] = {}
            while self._hear() or self._ask(asked) or self._settings() or self._told_by_names():
                pass  # what is found there may name others
        except TooMuch as found:
            self.beyond = str(found)
            return
        named = self._names | self._theirs
        if named & ENVIRONMENT:
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

    def _standing(self) -> None:
        """What every function rests on: the default dtype, hooks of all modules and optimizers, sources of numbers that
        are not ours and must not be asked in between."""
        self._fact("the default dtype", default_dtype, 0, default_dtype[0])
        for path, hooks in (("hooks of all modules", hooks_of_all), ("hooks of all optimizers", _pre_hooks_of_all),
                            ("hooks of all optimizers", _post_hooks_of_all)):  # fmt: skip
            self._container(path, hooks)
        for name, source in (("Python's random", random), ("numpy.random", np.random)):
            self.sources.append((name, source, repr(state_of(source))))

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
            self.tells_apart = self.tells_apart or what is operator.is_ or what is operator.is_not
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
            if isinstance(what, defaultdict):
                told = functools.partial(_told_factory, what)
                self.copies.append((f"{path}.default_factory", told, elements(told)))
                self._walk(f"{path}.default_factory", what.default_factory)
            self._own(path, what)
        elif isinstance(what, (weakref.ref, ContextVar)):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, weakref.ref):
                self._weakly.add(id(what()))
            self._walk(path, what() if isinstance(what, weakref.ref) else self.copies[-1][2][0])
        elif isinstance(what, (Context, SimpleQueue, weakref.finalize)):
            self.copies.append((path, what, elements(what)))
        elif isinstance(what, _KEY):
            for number, kept in enumerate(gc.get_referents(what)):
                self._walk(f"{path}, {number}", kept)
        elif isinstance(what, BUFFERS):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, ctypes._Pointer) and what:
                self._walk(f"{path}.contents", what.contents)
        elif isinstance(what, _VIEWS):
            self._walk(path, what.mapping)
        elif isinstance(what, (set, frozenset, deque, types.MappingProxyType, np.ndarray, np.generic)):
            self.copies.append((path, what, elements(what)))
            if isinstance(what, (np.ndarray, np.generic)):
                inside = np.asarray(what).reshape(-1)[:MOST].tolist() if what.dtype.hasobject else ()
                if "_mask" in getattr(what, "__dict__", ()):  # of a masked one
                    self._fact(f"{path}.mask", vars(what), "_mask", vars(what)["_mask"])
            else:
                inside = self.copies[-1][2][:MOST]
            for element in inside:
                if isinstance(what, (set, frozenset)):
                    self._note_key(element)
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
        elif (hasattr(what, "__dict__") or slots(what)) and is_users_object(what):
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


def _told_subclasses(kind: type) -> tuple[Any, ...]:
    return tuple(kind.__subclasses__())


def _told_abstract() -> tuple[Any]:
    return (abc.get_cache_token(),)


def _told_factory(what: defaultdict[Any, Any]) -> tuple[Any]:
    return (what.default_factory,)


def _told_state(source: Any) -> tuple[str]:
    return (repr(state_of(source)),)
