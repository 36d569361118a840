"""Weight norm by a hook: the older form, which computes the weight before every forward."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from ...ops.shape_core import one_dim
from ...ops.vector_norm import norm
from ...tensor import Tensor
from ..module import Module
from ..parameter import Parameter, is_lazy

__all__ = ["WeightNorm", "remove_weight_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def norm_except_dim(v: Any, pow: float = 2, dim: int = 0) -> Any:
    """The norm over all dimensions but ``dim``, which stay with size 1; over all, 0-d, for -1."""
    if dim == -1:
        return norm(v, pow)
    kept = one_dim("weight_norm", dim, v.ndim)
    if v.ndim < 2:
        return norm(v.reshape(v.shape[0], 1), pow, dim=1)
    return norm(v, pow, dim=[d for d in range(v.ndim) if d != kept], keepdim=True)


def scaled(v: Any, g: Any, dim: int) -> Any:
    """``g * v / |v|``."""
    return v * (g / norm_except_dim(v, 2, dim))


class WeightNorm:
    """The hook: ``module.<name>`` from ``<name>_g`` and ``<name>_v``."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Any) -> Tensor:
        """The weight, with gradients to g and v."""
        return scaled(getattr(module, self.name + "_v"), getattr(module, self.name + "_g"), self.dim)

    def remove(self, module: Any) -> None:
        """Make the weight an ordinary parameter again."""
        weight = self.compute_weight(module)
        for name in (self.name, self.name + "_g", self.name + "_v"):
            delattr(module, name)
        setattr(module, self.name, Parameter(weight.detach()))

    def __call__(self, module: Any, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Compute ``module.<name>`` as ``g * v / |v|`` before every forward.

    The parameters are ``<name>_g`` and ``<name>_v``; the norm is taken per slice along ``dim``, or of all with None.
    ``parametrizations.weight_norm`` is the newer form, and loads the state dicts of this one.

    Returns: the module. Raises: RuntimeError if it is there already. Source: Salimans and Kingma 2016.
    """
    warnings.warn(
        "`nn.utils.weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, dim)
    weight = getattr(module, name)
    if is_lazy(weight):
        raise ValueError(
            "The module passed to `WeightNorm` can't have uninitialized parameters. Make sure to run the dummy forward "
            "before applying weight normalization"
        )
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight, 2, hook.dim).detach()))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make ``module.<name>`` an ordinary parameter again. Raises ValueError if it is not weight-normalised."""
    hook = removed(module, WeightNorm, name)
    if hook is None:
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    hook.remove(module)
    return module


def removed(module: Module, kind: type, name: str) -> Any:
    """The forward pre-hook of this kind for this tensor, taken off the module; None if there is none."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, kind) and getattr(hook, "name", None) == name:
            del module._forward_pre_hooks[key]
            return hook
    return None
