"""Tensors that a Module registers when they are assigned to it: parameters, which are trained, and buffers."""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError
from ..tensor import Tensor

__all__ = ["Buffer", "Parameter"]


class Parameter(Tensor):
    """A leaf tensor that a Module counts among its parameters.

    Args:
        data: a tensor, whose memory is shared; None for an empty one.
        requires_grad: whether it is trained.
    Raises: TypeError if ``data`` is no Tensor; DTypeError if it requires grad and is not floating or complex.
    Example:
        >>> import tensorgrad as tg
        >>> tg.nn.Parameter(tg.zeros(2)).requires_grad
        True
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True):
        self._data = _storage("Parameter", data)
        if requires_grad:
            if self.dtype.category < 2:
                raise DTypeError(
                    f"Parameter: a tensor of {self.dtype} can't require gradients; pass requires_grad=False, "
                    "or a floating-point tensor."
                )
            self._tracked = True

    def __repr__(self) -> str:
        return f"Parameter containing:\n{Tensor.__repr__(self)}"


class Buffer(Tensor):
    """A tensor that a Module counts among its buffers: part of its state, not trained.

    Args:
        data: a tensor, whose memory is shared; None for an empty one.
        persistent: whether it stands in the state dict.
    """

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        self._data = _storage("Buffer", data)
        self.persistent = persistent


def _storage(name: str, data: Any) -> Any:
    if data is None:
        from ..ops.create import empty

        return empty(0)._data
    if not isinstance(data, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(data).__name__}; make one with tensorgrad.tensor(...).")
    return data._data
