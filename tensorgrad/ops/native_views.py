"""The functions of ``shape``, ``join``, ``getitem`` and ``index`` that make views or read at positions, with the tape's
module before them.

Their usual call (a tensor of a NumPy array, plain integers) is answered in C; the rest, and all that is wrong, goes to
the functions as they stand in their files."""

from __future__ import annotations

import sys
from typing import Any

from ..core import native
from ..device import _default as default_place
from ..dtypes import DType, get_default_dtype, when_default_changes
from ..random import default_generator
from ..tensor import Tensor
from . import shape_core as core
from .index import index_op
from .numpy_names import accept
from .search import nonzero_op

_MADE_BY = {
    core.reshape: (
        "view", "reshape", "flatten", "squeeze", "unsqueeze", "ravel", "view_as", "reshape_as", "unflatten",
    ),
    core.permute: ("permute", "transpose", "t", "T", "mT", "swapaxes", "swapdims", "movedim", "moveaxis"),
    core.expand: ("expand", "expand_as", "broadcast_to"),
    core.slice_: (
        "__getitem__", "select", "narrow", "split", "chunk", "unbind", "tensor_split", "masked_select",
        "__setitem__", "copy_", "fill_", "zero_",
    ),
}  # fmt: skip


_FACTORIES = {
    "zeros": ("sizes", 0.0), "ones": ("sizes", 1.0), "full": ("full", None), "zeros_like": ("like", 0),
    "ones_like": ("like", 1), "full_like": ("full_like", None), "arange": ("range", None), "new_zeros": ("new", 0.0),
    "new_ones": ("new", 1.0), "rand": ("draw", "random_uniform"), "randn": ("draw", "random_normal"),
    "rand_like": ("draw_like", "random_uniform"), "randn_like": ("draw_like", "random_normal"),
    "uniform_": ("draw_into", "random_uniform"), "normal_": ("draw_into", "random_normal"),
    "randint": ("integers", "random_integers"), "randperm": ("permutation", "random_permutation"),
    "bernoulli": ("bernoulli", "random_uniform"),
}  # fmt: skip
_standard = [get_default_dtype().np]


def _follow_default() -> None:
    _standard[0] = get_default_dtype().np


when_default_changes.append(_follow_default)


def install_views(public: dict[str, Any]) -> None:
    """Put them into ``Tensor`` and among the ``public`` functions."""
    if native is None:
        return
    native.register(reshape=core.reshape, permute=core.permute, index=index_op, nonzero=nonzero_op, accept=accept)
    native.register(dtype=DType, standard=_standard, place=default_place, generator=default_generator)
    for name, (form, value) in _FACTORIES.items():
        function = public[name] if name in public else vars(Tensor)[name]
        factory = native.Factory(form, function, value)
        setattr(sys.modules[function.__module__], name, factory)  # which is where a pickle looks
        if name in public:
            public[name] = factory
        else:
            setattr(Tensor, name, factory)
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
