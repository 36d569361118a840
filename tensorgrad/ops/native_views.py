"""The functions of ``shape``, ``join`` and ``getitem`` that make views, with the tape's module before them.

Their usual call (a tensor of a NumPy array, plain integers) is answered in C; the rest, and all that is wrong, goes to
the functions as they stand in their files."""

from __future__ import annotations

from typing import Any

from ..core import native
from ..tensor import Tensor
from . import shape_core as core
from .numpy_names import accept

_MADE_BY = {
    core.reshape: ("view", "reshape", "flatten", "squeeze", "unsqueeze"),
    core.permute: ("permute", "transpose", "t", "T", "mT"),
    core.expand: ("expand",),
    core.slice_: ("__getitem__", "select", "narrow", "split", "chunk", "unbind"),
}


def install_views(public: dict[str, Any]) -> None:
    """Put them into ``Tensor`` and among the ``public`` functions."""
    if native is None:
        return
    native.register(reshape=core.reshape, permute=core.permute, accept=accept)
    for op, names in _MADE_BY.items():
        for name in names:
            given = vars(Tensor)[name]
            if isinstance(given, property):
                setattr(Tensor, name, property(native.View(name, op, given.fget)))
                continue
            made = native.View(name, op, given)
            setattr(Tensor, name, made)
            if public.get(name) is given:
                public[name] = made
