"""What modules and optimizers hold, which this package's own code reads: members, modes, hooks, settings, states.

Everything of them is a fact but the numbers that a step reads anew each time (``Optimizer.form`` says which), unless
walked code may read them too: it names ``param_groups`` and has their key.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from ..nn.module import Module
from .attributes import slots
from .facts import Form, gone
from .found import Found
from .named import goes_through
from .whose import is_users_class

__all__ = ["Members"]

_PICKLES = frozenset(("__getstate__", "__reduce__", "__reduce_ex__", "dumps"))


class Members(Found):
    """Of a walk, what looks into modules and optimizers."""

    def __init__(self, whole: types.CodeType | None, places: frozenset[Any], texts: Iterable[str]):
        super().__init__(whole, places, texts)
        self._settings_seen: set[tuple[int, str]] = set()

    def _module(self, path: str, module: Any) -> None:
        """Everything of a module, or of another object whose code isn't walked; of the user's own modules, besides
        members and what ``Module`` knows of, only what is named."""
        for name in slots(module):
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
        if (isinstance(module, Module) or is_users_class(type(module))) and id(module) not in self._weakly:
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
