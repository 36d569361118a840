"""Pickles as PyTorch writes them: tensors by the names of PyTorch's functions, their memory beside the pickle."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import IO, Any

import numpy as np

from ..backends import registry
from ..device import Device
from ..dtypes import DType
from ..nn.parameter import Buffer, Parameter
from ..tensor import Size, Tensor
from .storage import STORAGE_NAMES, contiguous_strides, flat_view

__all__ = ["TensorPickler"]


class Name:
    """A name of PyTorch, written to the pickle as if it stood for a function here."""

    def __init__(self, module: str, name: str):
        self.module = module
        self.__name__ = name

    def __call__(self, *args: Any) -> Any:
        raise TypeError(f"{self.module}.{self.__name__} is written, not called")  # pickle asks whether it is callable


_TENSOR_V2, _PARAMETER = Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_parameter")
_PARAMETER_STATE = Name("torch._utils", "_rebuild_parameter_with_state")
_FROM_TYPE, _TENSOR = Name("torch._tensor", "_rebuild_from_type_v2"), Name("torch", "Tensor")
_SIZE, _DEVICE = Name("torch", "Size"), Name("torch", "device")
_STORAGES = {dtype: Name("torch", storage) for dtype, storage in STORAGE_NAMES.items()}


class Reference:
    """A storage in the pickle: written as the key of its memory."""

    def __init__(self, key: str, dtype: DType, location: str, count: int):
        self.key = key
        self.id = ("storage", _STORAGES[dtype.name], key, location, count)


_Pickler: Any = pickle._Pickler  # Python's own in Python: the one in C can't write names of what is not here


class TensorPickler(_Pickler):
    """Writes one object; ``storages`` are then the flat host arrays by key.

    ``legacy``: the storages' identifiers carry a place for views, as before PyTorch 1.6.
    """

    dispatch = _Pickler.dispatch.copy()

    def __init__(self, file: IO[bytes], protocol: int, legacy: bool = False):
        super().__init__(file, protocol)
        self.legacy = legacy
        self.storages: dict[str, np.ndarray[Any, Any]] = {}
        self._keys: dict[Any, Reference] = {}
        self._alive: list[Any] = []  # so that no identity is used twice

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Reference):
            return (*obj.id, None) if self.legacy else obj.id
        return None

    def save_name(self, obj: Name) -> None:
        self._write_name(obj.module, obj.__name__)
        self.memoize(obj)

    def save_dtype(self, obj: DType) -> None:
        self._write_name("torch", obj.name)
        self.memoize(obj)

    def _write_name(self, module: str, name: str) -> None:
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[Name] = save_name
    dispatch[DType] = save_dtype

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self._tensor(obj)
        kind = type(obj)
        if kind is Size:
            return _SIZE, (tuple(obj),)
        if kind is Device:
            return _DEVICE, ((obj.type,) if obj.index is None else (obj.type, obj.index))
        return NotImplemented

    def _tensor(self, x: Tensor) -> Any:
        attributes = {name: value for name, value in vars(x).items() if not name.startswith("_")}
        view = self._view(x)
        hooks: OrderedDict[str, Any] = OrderedDict()
        kind = type(x)
        if kind is Parameter:
            data = x.detach()
            self._alive.append(data)
            if attributes:
                return _PARAMETER_STATE, (data, x.requires_grad, hooks, attributes)
            return _PARAMETER, (data, x.requires_grad, hooks)
        plain = (*view, x.requires_grad, hooks)
        if kind is Tensor and not attributes:
            return _TENSOR_V2, plain
        if kind in (Tensor, Buffer):
            if kind is Buffer:
                attributes["_is_buffer"] = True
            return _FROM_TYPE, (_TENSOR_V2, _TENSOR, plain, attributes)
        return _FROM_TYPE, (_TENSOR_V2, kind, plain, attributes)

    def _view(self, x: Tensor) -> tuple[Any, int, tuple[int, ...], tuple[int, ...]]:
        """(storage, offset, size, stride): tensors that share host memory share the storage."""
        array: Any = x._data
        size = tuple(int(n) for n in array.shape)
        if isinstance(array, np.ndarray):
            flat, offset, stride = flat_view(array)
            identity = (flat.ctypes.data, flat.size, flat.dtype) if flat.size else id(array)
        else:
            flat, offset, stride = registry.active(array).to_host(array), 0, contiguous_strides(size)
            flat = np.ascontiguousarray(flat).reshape(-1)
            identity = id(array)
        reference = self._keys.get(identity)
        if reference is None:
            key = str(len(self._keys))
            reference = self._keys[identity] = Reference(key, x.dtype, str(x.device), flat.size)
            self.storages[key] = flat
        self._alive += (array, flat)
        return reference, offset, size, tuple(stride)
