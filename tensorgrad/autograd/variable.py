"""``Variable``: what recorded tensors were called before they recorded themselves."""

from __future__ import annotations

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
        volatile: the old name of ``no_grad``; refused.
    Raises: TypeError if ``data`` is no tensor, ValueError for ``volatile=True``.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Any:
        if volatile:
            raise ValueError("Variable: volatile is gone; use `with torch.no_grad():`.")
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable: data must be a Tensor, got {type(data).__name__}.")
        return data.detach().requires_grad_(requires_grad)


__getattr__ = missing_from("torch.autograd.variable")
