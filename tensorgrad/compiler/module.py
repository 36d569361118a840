"""``CompiledModule``: a Module around another one, whose calls are compiled."""

from __future__ import annotations

from typing import Any

from ..nn.module import Module
from .compiled import Compiled

__all__ = ["CompiledModule"]


class CompiledModule(Module):
    """``_orig_mod`` is the module it was made of; parameters and mode are that one's, as are attributes that are looked
    up here and not found. Hooks of this one run around the compiled call, in each of them; those of ``_orig_mod`` are
    within, where no replay runs Python."""

    _orig_mod: Module

    def __init__(self, module: Module, *, limit: int = 8, dynamic: bool = False, fallback: bool = False):
        super().__init__()
        self._orig_mod = module
        self.training = module.training
        self.__dict__["_compiled"] = Compiled(module, limit=limit, dynamic=dynamic, fallback=fallback)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes."""
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("_orig_mod", "_compiled"):
                raise
            if name in ("programs", "forget", "stats", "explain", "draw", "save"):
                return getattr(self._compiled, name)
            return getattr(self._orig_mod, name)

    # Python looks these up in the class: what a container can do, it can do when it is compiled

    def __len__(self) -> int:
        return len(self._container)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(self._container)

    def __getitem__(self, key: Any) -> Any:
        return self._container[key]

    def __contains__(self, what: Any) -> bool:
        return what in self._container

    @property
    def _container(self) -> Any:
        """The module, of which only some classes have members by number or name; Python raises TypeError for others."""
        return self._orig_mod

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes are set on the module that this one was made of, whose forward looks for them there."""
        inner = self.__dict__.get("_orig_mod")
        if inner is not None and name not in ("_orig_mod", "training"):
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
        else:
            delattr(self._orig_mod, name)

    def __reduce__(self) -> Any:
        compiled = self._compiled
        hooks = None if self._hooks is None else {"_hooks": self._hooks}
        return _rebuild, (self._orig_mod, compiled.limit, compiled.dynamic, compiled.fallback), hooks


def _rebuild(module: Module, limit: int, dynamic: bool, fallback: bool) -> CompiledModule:
    return CompiledModule(module, limit=limit, dynamic=dynamic, fallback=fallback)
