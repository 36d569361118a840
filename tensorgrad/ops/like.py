"""New tensors in the dtype and on the device of another: the ``new_*`` methods."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor, install
from . import create

__all__: list[str] = []


def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A leaf holding a copy of ``data``."""
    return create.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


def new_full(
    self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of shape ``size``, every element ``fill_value``."""
    return create.full(
        size, fill_value, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad
    )


def new_zeros(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros: ``x.new_zeros(2, 3)`` or ``x.new_zeros((2, 3))``."""
    return create.zeros(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


def new_ones(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones: ``x.new_ones(2, 3)`` or ``x.new_ones((2, 3))``."""
    return create.ones(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


def new_empty(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose elements are whatever the memory held."""
    return create.empty(*size, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


for _function in (new_empty, new_full, new_ones, new_tensor, new_zeros):
    install(_function)
