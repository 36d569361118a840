"""What a tensor says of itself, and functions applied to its elements one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DTypeError
from ..layout import strided
from ..tensor import Tensor, install
from .convert import host
from .elementwise import broadcast_shape
from .getitem import copy_
from .rearrange import flip
from .reduce import require_tensor

__all__ = ["detach", "get_device", "is_conj", "is_inference", "is_neg", "is_same_size", "is_signed"]

# kinds of tensors and devices that PyTorch asks for and that are not there
_NEVER = (
    "is_ipu", "is_maia", "is_meta", "is_mkldnn", "is_mps", "is_mtia", "is_nested", "is_quantized", "is_sparse",
    "is_sparse_csr", "is_vulkan", "is_xla", "is_xpu",
)  # fmt: skip


def is_conj(input: Tensor) -> bool:
    """Whether the conjugation of the elements was put off: never, it is done at once."""
    require_tensor("is_conj", input)
    return False


def is_neg(input: Tensor) -> bool:
    """Whether the negation of the elements was put off: never, it is done at once."""
    require_tensor("is_neg", input)
    return False


def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made under ``inference_mode``."""
    require_tensor("is_inference", input)
    return bool(input._inference)


def is_signed(input: Tensor) -> bool:
    """Whether the dtype holds negative numbers."""
    require_tensor("is_signed", input)
    return bool(input.dtype.is_signed)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape."""
    return bool(require_tensor("is_same_size", input).shape == require_tensor("is_same_size", other).shape)


def get_device(input: Tensor) -> int:
    """The number of the GPU that the tensor lies on; -1 for the CPU."""
    place = input.device
    return -1 if place.type == "cpu" else int(place.index or 0)


def detach(input: Tensor) -> Tensor:
    """The same memory without history; changes in place are noticed by version checks."""
    require_tensor("detach", input)
    return input.detach()


def to_dense(self: Tensor, dtype: Any = None) -> Tensor:
    """The tensor itself, in ``dtype`` if one is given: all tensors are dense."""
    out: Tensor = self if dtype is None else self.to(dtype)
    return out


def __reversed__(self: Tensor) -> Tensor:
    """The elements in reverse order along every dimension."""
    return flip(self, tuple(range(self._data.ndim))) if self._data.ndim else self


# --- Python functions of elements


def _elements(name: str, x: Tensor) -> np.ndarray[Any, Any]:
    require_tensor(name, x)
    if x._tracked:
        raise DTypeError(f"{name}: can't call {name}() on a tensor that requires grad; use detach() first.")
    if x.device.type != "cpu":
        raise DTypeError(f"{name}: {name} is only implemented on CPU tensors; this one lies on {x.device}.")
    return host(x)


def _filled_by(name: str, function: Callable[..., Any], self: Tensor, *others: Tensor) -> Tensor:
    arrays = [_elements(name, x) for x in (self, *others)]
    shape = broadcast_shape(name, *[x.shape for x in arrays])
    columns = [np.broadcast_to(x, shape).reshape(-1).tolist() for x in arrays]
    values = np.array([function(*row) for row in zip(*columns, strict=True)])
    from .create import tensor

    return copy_(self, tensor(values.reshape(shape) if values.size else np.zeros(shape), dtype=self.dtype))


def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it; slow, and on the CPU alone.

    Raises: DTypeError for a tensor that requires grad or lies on a GPU.
    """
    return _filled_by("apply_", callable, self)


def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it and the one of ``tensor``; as ``apply_``."""
    return _filled_by("map_", callable, self, tensor)


def map2_(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it and those of ``x`` and ``y``; as ``apply_``."""
    return _filled_by("map2_", callable, self, x, y)


for _function in (
    __reversed__, apply_, get_device, is_conj, is_inference, is_neg, is_same_size, is_signed, map2_, map_, to_dense,
):  # fmt: skip
    install(_function)
for _name in _NEVER:
    setattr(Tensor, _name, False)
for _name, _property in {
    "is_cpu": lambda self: self.device.type == "cpu",
    "is_cuda": lambda self: self.device.type == "cuda",
    "layout": lambda self: strided,
    "name": lambda self: None,
    "output_nr": lambda self: self._slot,
}.items():
    setattr(Tensor, _name, property(_property))
install(lambda self: False, "is_coalesced", "is_distributed")
