"""Layers without the time that drawing their initial values takes."""

from __future__ import annotations

import inspect
from typing import Any

from ...autograd.grad_mode import no_grad
from ..module import Module

__all__ = ["skip_init"]


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """``module_cls(*args, **kwargs)`` with parameters whose values are not set: to be loaded or set by hand.

    ``reset_parameters``, which layers call to draw their values, is passed over.
    Raises: RuntimeError for what is no Module class or takes no ``device``.
    Example:
        >>> import tensorgrad as tg
        >>> tuple(skip_init(tg.nn.Linear, 5, 1).weight.shape)
        (1, 5)
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError("Module must support a 'device' arg to skip initialization")
    nothing = {
        name: lambda self: None for name in ("reset_parameters", "_reset_parameters") if hasattr(module_cls, name)
    }
    bare = type(module_cls.__name__, (module_cls,), {**nothing, "__module__": module_cls.__module__})
    with no_grad():
        made = bare(*args, **kwargs)
    made.__class__ = module_cls
    return made
