"""New tensors in the dtype and on the device of another: the ``new_*`` methods."""

from __future__ import annotations

from typing import Any

from ..layout import check_layout
from ..tensor import Tensor, install
from . import create

__all__: list[str] = []


def _made(maker: Any, self: Tensor, args: tuple[Any, ...], dtype: Any, device: Any, named: dict[str, Any]) -> Tensor:
    result: Tensor = maker(*args, dtype=dtype or self.dtype, device=self.device if device is None else device, **named)
    return result


def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A leaf holding a copy of ``data``."""
    check_layout("new_tensor", layout)
    named = {"requires_grad": requires_grad, "pin_memory": pin_memory}
    return _made(create.tensor, self, (data,), dtype, device, named)


def new_full(
    self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, **named: Any
) -> Tensor:
    """A tensor of shape ``size``, every element ``fill_value``; further options as ``full``."""
    return _made(create.full, self, (size, fill_value), dtype, device, named)


def new_zeros(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, **named: Any) -> Tensor:
    """Zeros: ``x.new_zeros(2, 3)`` or ``x.new_zeros((2, 3))``; further options as ``zeros``."""
    return _made(create.zeros, self, size, dtype, device, named)


def new_ones(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, **named: Any) -> Tensor:
    """Ones: ``x.new_ones(2, 3)`` or ``x.new_ones((2, 3))``; further options as ``ones``."""
    return _made(create.ones, self, size, dtype, device, named)


def new_empty(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, **named: Any) -> Tensor:
    """A tensor whose elements are whatever the memory held; further options as ``empty``."""
    return _made(create.empty, self, size, dtype, device, named)


def new_empty_strided(
    self: Tensor, size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **named: Any
) -> Tensor:
    """An uninitialized tensor with these strides; further options as ``empty_strided``."""
    return _made(create.empty_strided, self, (size, stride), dtype, device, named)


def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """A tensor of this dtype and device, by the rules of the legacy constructors: sizes make an uninitialized one, a
    sequence or an array its copy."""
    from .legacy import legacy_tensor

    return legacy_tensor("new", args, self.dtype, self.device if device is None else device)


for _function in (new, new_empty, new_empty_strided, new_full, new_ones, new_tensor, new_zeros):
    install(_function)
