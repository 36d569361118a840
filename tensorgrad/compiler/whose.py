"""Whose code is whose: the user's, this package's, or a library's, by the names of modules."""

from __future__ import annotations

import sys
import types
from typing import Any

from ..backends import cuda
from ..nn.module import Module

__all__ = ["has_code_of_others", "is_users", "is_users_object", "package_of"]

_LIBRARIES = frozenset(sys.stdlib_module_names) | {"numpy", "tensorgrad", "__builtins__"}
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
_NO_CODE = frozenset(("abc", "enum", "typing"))
"""Modules of classes whose methods ask an object for nothing."""


def package_of(module: str) -> str:
    return module.partition(".")[0]


def is_users(module: str | None) -> bool:
    """Whether a Python module of this name belongs to the user."""
    if not isinstance(module, str):  # Cython's functions have something else there
        return module is None
    return package_of(module) not in _LIBRARIES or module.startswith("tensorgrad.examples")


def is_users_object(what: Any) -> bool:
    """Whether its attributes may matter: any object's but NumPy's, and but the machinery of this package."""
    module = type(what).__module__
    module = module if isinstance(module, str) else ""
    ours = package_of(module) == "numpy" or (module.startswith(_MACHINERY) and not isinstance(what, type(cuda.matmul)))
    return isinstance(what, Module) or not ours


def has_code_of_others(kind: type) -> bool:
    """Whether a class has methods that are not the user's and may ask an object for any attribute."""
    bases = (base for base in kind.__mro__ if base is not object and not is_users(base.__module__))
    return any(
        base.__module__ not in _NO_CODE and any(isinstance(x, types.FunctionType) for x in vars(base).values())
        for base in bases
    )
