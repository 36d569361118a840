"""Differentiation: the tape, its backward pass, and what users do with them.

Submodules are loaded when first named: most programs need ``backward`` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import missing_name

_HOME = {
    "Function": "function", "once_differentiable": "function", "backward": "differentiate", "grad": "differentiate",
    "gradcheck": "check", "gradgradcheck": "check", "detect_anomaly": "anomaly",
    "set_detect_anomaly": "anomaly", "is_anomaly_enabled": "anomaly", "no_grad": "grad_mode",
    "enable_grad": "grad_mode", "set_grad_enabled": "grad_mode", "inference_mode": "grad_mode",
}  # fmt: skip
_MODULES = frozenset(
    (
        "anomaly",
        "check",
        "differentiate",
        "engine",
        "function",
        "functional",
        "grad_mode",
        "graph",
        "hooks",
        "node",
        "profiler",
        "saved",
        "variable",
    )
)

if TYPE_CHECKING:
    from . import functional, graph
    from .anomaly import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
    from .check import gradcheck, gradgradcheck
    from .differentiate import backward, grad
    from .function import Function, once_differentiable
    from .grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = [
    "Function", "backward", "detect_anomaly", "enable_grad", "functional", "grad", "gradcheck", "gradgradcheck",
    "graph", "inference_mode", "is_anomaly_enabled", "no_grad", "once_differentiable", "set_detect_anomaly",
    "set_grad_enabled",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        # kept in the module: a submodule of the same name would otherwise take its place
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name == "Variable":  # tensors have recorded themselves since PyTorch 0.4; programs still write it
        return importlib.import_module("tensorgrad.autograd.variable").Variable
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(missing_name(f"torch.autograd.{name}"))
