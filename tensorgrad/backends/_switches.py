"""Switches of PyTorch's backends: modules whose attributes are checked when they are set."""

from __future__ import annotations

import sys
import types
from typing import Any

__all__ = ["make_switches"]


class _Switches(types.ModuleType):
    """A module that has a type for some of its attributes, and refuses attributes that it does not know."""

    _switch_types: dict[str, type | tuple[type, ...]]

    def __setattr__(self, name: str, value: Any) -> None:
        expected = self._switch_types.get(name)
        if expected is not None and not isinstance(value, expected):
            kinds = expected if isinstance(expected, tuple) else (expected,)
            words = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{self.__name__}.{name} takes {words}, got {value!r}.")
        if expected is None and not name.startswith("_") and name not in self.__dict__:
            known = ", ".join(sorted(self._switch_types))
            raise AttributeError(f"{self.__name__} has no switch {name!r}; its switches are {known}.")
        super().__setattr__(name, value)


def make_switches(module_name: str, **types_of: type | tuple[type, ...]) -> None:
    """Let the module check what is assigned to its attributes named here, and refuse to invent others."""
    module = sys.modules[module_name]
    module.__dict__["_switch_types"] = types_of
    module.__class__ = _Switches
