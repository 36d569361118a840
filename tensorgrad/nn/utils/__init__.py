"""Helpers around gradients, parameters and modules; each submodule is loaded when it is first named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from .vector import parameters_to_vector, vector_to_parameters

if TYPE_CHECKING:
    from . import rnn as rnn

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm", "parameters_to_vector",
    "vector_to_parameters",
]  # fmt: skip

_SUBMODULES = ("rnn",)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"tensorgrad.nn.utils has no {name}")
