"""Attributes of objects and modules: those that walked code names; where it makes names while it runs, all."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from ..backends import cuda
from ..optim.optimizer import Optimizer
from ..tensor import Tensor
from .facts import PLAIN, gone
from .found import Found
from .whose import is_users, package_of

__all__ = ["ENVIRONMENT", "Attributes", "TooMuch", "slots", "why_too_much"]

ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb", "expandvars", "expanduser", "home"))
_OF_OPTIMIZERS = frozenset((
    "_loaded", "_opt_called", "_plans", "_scales", "_scheduled_step", "_stepping", "_told", "_unless", "param_groups",
    "state",
))  # fmt: skip
"""What an optimizer keeps for itself, or what is asked in another way."""
_REPLACEABLE = (types.FunctionType, types.MethodType, types.ModuleType)
"""What of this package's modules somebody may have put another in place of."""
_SWITCHES_OF_MODULES = (*PLAIN, type(cuda.matmul))
"""What of them is set, where code names it."""
_NOT_OF_LIBRARIES = ENVIRONMENT | {"modules"}
"""What of Python's library is asked in another way, or is another whenever something is imported."""
_MOST_ASKED = 3_000_000
"""Attributes, where code makes names while it runs: it may mean anything of a library that it names."""


class TooMuch(Exception):
    """More attributes than ``_MOST_ASKED``; the argument is the path to what has the last."""


def why_too_much(path: str) -> str:
    """Why no program rests on what was found so far."""
    return (
        f"compile: the function makes names of attributes while it runs, as getattr(x, name) does, and so may read "
        f"whatever hangs on what it names: more than {_MOST_ASKED:,} attributes, those of {path} the last. Write the "
        "attribute where its name is known (x.name), or look it up outside and pass what was found."
    )


class Attributes(Found):
    """Of a walk, what asks objects for attributes."""

    def __init__(self, whole: types.CodeType | None, places: frozenset[Any], texts: Iterable[str]):
        super().__init__(whole, places, texts)
        self._asked = 0

    def _ask(self, asked: dict[int, set[str]]) -> bool:
        """Walk the attributes whose names are known by now; whether there were any to ask for. ``asked``: by holder,
        what has been asked before."""
        news = False
        known, named = 0, set[str]()  # how many names there were, and those that whoever makes names may ask for
        for path, holder in list(self._later.values()):
            before = asked.setdefault(id(holder), set())
            if self._open_ended:
                if len(self._names) != known:
                    known, named = len(self._names), _asked_for(self._names)
                fresh = (named | _asked_for((*slots(holder), *getattr(holder, "__dict__", ())))) - before
            elif len(before) == len(self._names):
                continue
            else:
                fresh = self._names - before
            if fresh:
                before |= fresh
                self._asked += len(fresh)
                if self._open_ended and self._asked > _MOST_ASKED:
                    raise TooMuch(path)
                self._attributes(path, holder, fresh)
                news = True
        return news

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
            for name in sorted(names & slots(holder)):
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
                if named and callable(attributes[name]):  # an op, a class
                    self.facts.append((f"{path}.{name}", attributes, name, attributes[name]))
                continue
            self._fact(f"{path}.{name}", attributes, name, attributes[name])


def _asked_for(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("__")}


def slots(what: Any) -> set[str]:
    """Names of an object's attributes that lie in slots."""
    found: set[str] = set()
    for kind in type(what).__mro__:
        names = kind.__dict__.get("__slots__", ())
        own = f"_{kind.__name__.lstrip('_')}"  # which Python puts before what only the class's code may name
        for name in (names,) if isinstance(names, str) else names:
            found.add(own + name if name.startswith("__") and not name.endswith("__") else name)
    return {name for name in found if not name.startswith("__")}
