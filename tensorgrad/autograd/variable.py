"""``Variable``: what recorded tensors were called before they recorded themselves."""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import missing_from
from ..tensor import Tensor

__all__ = ["Variable"]


class _VariableMeta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_VariableMeta):
    """``Variable(x)`` is a tensor on the storage of ``x``, outside the tape; every tensor is an instance.

    Args:
        data: a tensor.
        requires_grad: whether gradients are recorded for it.
        volatile: what ``no_grad`` was before; as in PyTorch it warns and has no effect.
    Raises: TypeError if ``data`` is no tensor.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Any:
        if volatile:
            message = "volatile was removed and now has no effect. Use `with torch.no_grad():` instead."
            warnings.warn(message, UserWarning, stacklevel=2)
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable: data must be a Tensor, got {type(data).__name__}.")
        return data.detach().requires_grad_(requires_grad)


__getattr__ = missing_from("torch.autograd.variable")
