"""What a walk has found: facts, and the names, texts and classes that tell it where to go on.

``Found`` is what all that walks shares: the facts of a dictionary, a list, an object of the user's class.
"""

from __future__ import annotations

import abc
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ..optim.optimizer import Optimizer
from ..tensor import Tensor
from .facts import Facts, short
from .whose import is_users_class

__all__ = ["MOST", "Found"]

MOST = 10_000  # entries of one container that are looked into; of more it is asked whether they are the same


class Found(Facts, abc.ABC):
    """``tensors``: every tensor found, by the path to it. ``seen``: everything that was walked, by its identity.

    ``whole``: the code of a function of which this one is a part: who names it means another one. ``places``: (the
    holder's identity, key) of what is handed to the function as an argument. ``texts``: the texts among its arguments.
    """

    def __init__(self, whole: types.CodeType | None, places: frozenset[Any], texts: Iterable[str]):
        super().__init__()
        self.optimizers: list[Optimizer] = []
        self.tensors: dict[int, tuple[str, Tensor]] = {}
        self.seen: dict[int, Any] = {}
        self._whole = whole
        self._places = places
        self._names: set[str] = set()
        self._theirs: set[str] = set()  # names of functions of libraries, however code names them
        self._texts = set(texts)  # that may be keys of a dict
        self._codes: list[types.CodeType] = []  # that was walked
        self._evaluates = False  # code has the built-in `eval` in its hands under whatever name
        self._open_ended = False  # there may be names that no code has as such
        self._classes: set[type] = set()
        self._sized: set[type] = set()  # of which it is known how much they hold
        self._weakly: set[int] = set()  # what somebody refers to without keeping it alive
        self._made: set[type] = set()  # classes that some code has in its hands
        self._reads_gradients = False
        self.tells_apart = False  # it may ask whether two tensors are the same one
        self._later: dict[int, tuple[str, Any]] = {}  # holders of attributes that matter if they are named
        self._abstract = False  # one of the user's classes may have others enter

    @abc.abstractmethod
    def _walk(self, path: str, what: Any) -> None:
        """Find the facts of an object, and walk on."""

    @abc.abstractmethod
    def _class(self, path: str, kind: type) -> None:
        """Find the facts of a class, if it is the user's."""

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

    def _container(self, path: str, what: Any) -> None:
        if isinstance(what, tuple):  # which stays as it is
            for i, value in enumerate(what[:MOST]):
                self._walk(f"{path}[{i}]", value)
            return
        self.sizes.append((path, what, len(what)))
        keys: tuple[Any, ...] = tuple(what) if isinstance(what, dict) and len(what) > 1 else ()
        if isinstance(what, OrderedDict) and keys:
            self.copies.append((path, what.keys(), keys))  # its order is its own, not the dict's
        elif keys or len(what) > MOST:
            every = what.values() if isinstance(what, dict) else what
            self.wholes.append((path, what, keys, tuple(every) if len(what) > MOST else ()))
        if len(what) > MOST:
            return
        if isinstance(what, dict):
            for key, value in what.items():
                if type(key) is str:
                    self._texts.add(key)
                else:
                    self._note_key(key)
                    self._walk(f"a key of {path}", key)
                self._fact(f"{path}[{short(key)}]", what, key, value)
        else:
            for i, value in enumerate(what):
                self._fact(f"{path}[{i}]", what, i, value)

    def _note_key(self, key: Any) -> None:
        """Of a key, or an element of a set: a tensor is found there by which one it is."""
        kept = key() if isinstance(key, weakref.ref) else key
        self.tells_apart = self.tells_apart or isinstance(kept, Tensor)

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
