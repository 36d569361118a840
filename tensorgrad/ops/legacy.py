"""PyTorch's constructors by type: ``FloatTensor(2, 3)``, ``LongTensor([1, 2])``, ``isinstance(x, FloatTensor)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import BY_NAME, DType, as_dtype
from ..errors import DTypeError
from ..tensor import Tensor
from .create import empty, finish, tensor

__all__: list[str] = []

_KINDS = {
    "BFloat16": "bfloat16", "Bool": "bool", "Byte": "uint8", "Char": "int8", "Double": "float64", "Float": "float32",
    "Half": "float16", "Int": "int32", "Long": "int64", "Short": "int16",
}  # fmt: skip
CONSTRUCTORS = tuple(f"{kind}Tensor" for kind in _KINDS)
_NAMES = {dtype: f"{kind}Tensor" for kind, dtype in _KINDS.items()}


def legacy_tensor(name: str, args: tuple[Any, ...], dtype: DType, device: Any) -> Tensor:
    """What ``FloatTensor(*args)`` makes: sizes make an uninitialized tensor, a sequence, an array or a tensor its copy
    in the constructor's dtype. Raises TypeError for anything else."""
    # arrays and tensors have an __index__ too, but are no sizes
    if len(args) == 1 and (isinstance(args[0], (Tensor, np.ndarray)) or not hasattr(args[0], "__index__")):
        (data,) = args
        if isinstance(data, Tensor):
            if data.dtype is not dtype:
                raise DTypeError(f"{name}: expected a tensor of {dtype}, got {data.dtype}; convert it with .to().")
            return finish(data._data, False)
        if type(data).__name__ == "Size":
            return empty(tuple(data), dtype=dtype, device=device)
        if isinstance(data, (list, tuple, range, np.ndarray)):
            return tensor(list(data) if isinstance(data, range) else data, dtype=dtype, device=device)
        raise TypeError(f"{name}: expected sizes, a sequence, an array or a tensor, got {type(data).__name__}.")
    return empty(args or (0,), dtype=dtype, device=device)


class LegacyType(type):
    """The class of the constructors: ``isinstance(x, FloatTensor)`` asks for the dtype and the place."""

    dtype: DType
    device_type: str

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype and instance.device.type == cls.device_type

    def __call__(cls, *args: Any, device: Any = None) -> Tensor:
        return legacy_tensor(cls.__name__, args, cls.dtype, device or cls.device_type)

    def __repr__(cls) -> str:
        return f"<class '{type_name(cls.dtype, cls.device_type)}'>"


def constructor(kind: str, device_type: str) -> LegacyType:
    """The constructor of that name for the CPU or the GPU, e.g. ``constructor("FloatTensor", "cpu")``."""
    dtype = BY_NAME[_KINDS[kind.removesuffix("Tensor")]]
    doc = f"A tensor of {dtype}: of these sizes and uninitialized, or a copy of a sequence or array."
    return LegacyType(kind, (), {"dtype": dtype, "device_type": device_type, "__doc__": doc})


def type_name(dtype: DType, device_type: str) -> str:
    """PyTorch's name of a tensor's type, which programs compare with: ``"torch.FloatTensor"``."""
    place = "torch.cuda." if device_type == "cuda" else "torch."
    return place + _NAMES.get(dtype.name, f"Complex{'Double' if dtype.name == 'complex128' else 'Float'}Tensor")


def meaning_of(given: Any) -> tuple[DType, str | None]:
    """(dtype, device or None) of what ``Tensor.type`` takes: a dtype, a constructor, or the name of one."""
    if isinstance(given, LegacyType):
        return given.dtype, given.device_type
    if isinstance(given, str) and given.endswith("Tensor"):
        place, _, kind = given.rpartition(".")
        if kind == "Tensor":
            from ..dtypes import get_default_dtype

            return get_default_dtype(), "cuda" if place.endswith("cuda") else "cpu"
        name = _KINDS.get(kind.removesuffix("Tensor"))
        if name is None or place not in ("torch", "torch.cuda", "tensorgrad", "tensorgrad.cuda"):
            raise ValueError(f"type: invalid type: {given!r}; the types are {', '.join(_NAMES.values())}.")
        return BY_NAME[name], "cuda" if place.endswith("cuda") else "cpu"
    return as_dtype(given), None


for _kind in CONSTRUCTORS:
    globals()[_kind] = constructor(_kind, "cpu")
    __all__.append(_kind)
