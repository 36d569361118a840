"""Whose code is whose: the user's, this package's, or a library's, by the names of modules."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import numpy as np

from ..backends import cuda
from ..nn.module import Module

__all__ = ["has_code_of_others", "is_users", "is_users_class", "is_users_function", "is_users_object", "package_of"]

_LIBRARIES = frozenset(sys.stdlib_module_names) | {"numpy", "tensorgrad", "__builtins__"}
_PLACE = os.path.dirname(os.__file__) + os.sep
_HEAP = 1 << 9
"""Of a class's flags: it was made by a `class` statement, or as if."""
_MACHINERY = tuple(
    f"tensorgrad.{part}"
    for part in (
        "autograd",
        "backends",
        "compiler",
        "config",
        "core",
        "device",
        "dispatch",
        "dtypes",
        "ops",
        "random",
        "tensor",
    )
)
_KNOWN: dict[str, bool] = {}
_NO_CODE = frozenset(("abc", "enum", "typing"))
"""Modules of classes whose methods ask an object for nothing."""


def package_of(module: str) -> str:
    return module.partition(".")[0]


def is_users(module: str | None) -> bool:
    """Whether a Python module of this name belongs to the user."""
    if not isinstance(module, str):  # Cython's functions have something else there
        return module is None
    known = _KNOWN.get(module)
    if known is None:
        package = package_of(module)
        known = package not in _LIBRARIES or module.startswith("tensorgrad.examples") or _stands_before(package)
        if package in sys.modules:
            _KNOWN[module] = known
    return known


def _stands_before(package: str) -> bool:
    """Whether a file of the user's has the name of a module of Python's library (`profile.py`), and is found first."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or package in ("numpy", "tensorgrad"):
        return False
    return not file.startswith(_PLACE) or "site-packages" in file


def is_users_function(function: types.FunctionType) -> bool:
    """Whether its code is the user's, or wraps the user's: `functools.wraps` gives it the other's module."""
    return is_users(function.__module__) or is_users(function.__globals__.get("__name__"))


def is_users_class(kind: type) -> bool:
    """Whether a class is the user's, also where it was made by a function of Python's library (`make_dataclass`), or by
    `exec`."""
    module = kind.__module__
    if module in ("types", "builtins") and kind.__flags__ & _HEAP:
        return getattr(sys.modules[module], kind.__name__, None) is not kind
    return is_users(module)


def is_users_object(what: Any) -> bool:
    """Whether its attributes may matter: any object's but the machinery of this package, and what NumPy knows of
    numbers."""
    module = type(what).__module__
    module = module if isinstance(module, str) else ""
    ours = isinstance(what, np.finfo) or (module.startswith(_MACHINERY) and not isinstance(what, type(cuda.matmul)))
    return isinstance(what, Module) or not ours


def has_code_of_others(kind: type) -> bool:
    """Whether a class has methods that are not the user's and may ask an object for any attribute."""
    bases = (base for base in kind.__mro__ if base is not object and not is_users_class(base))
    return any(
        base.__module__ not in _NO_CODE and any(isinstance(x, types.FunctionType) for x in vars(base).values())
        for base in bases
    )
