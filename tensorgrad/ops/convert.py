"""From tensors to other things and back: Python numbers, NumPy arrays, other dtypes and devices, text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import registry
from ..device import Device
from ..dispatch import local
from ..dtypes import BY_NAME, as_dtype, numpy_dtype
from ..errors import ArgumentError, AutogradError, DeviceError
from ..layout import dense_order, follows, preserve_format
from ..tensor import Tensor, install, wrap
from .calls import calls
from .record import Op, Spec
from .shape_core import cast, contiguous_copy, copied

__all__ = ["is_complex", "is_floating_point"]


def host(x: Tensor) -> np.ndarray[Any, Any]:
    """The elements as a host array, which may share memory."""
    for ear in local.listeners:
        ear.read(x)
    return registry.active(x._data).to_host(x._data)


def item(self: Tensor) -> Any:
    """The only element, as a Python number. Raises RuntimeError if there is not exactly one."""
    if self._data.size != 1:
        raise ArgumentError(f"a Tensor with {self._data.size} elements cannot be converted to a number: item().")
    value = host(self).reshape(())
    return float(value) if value.dtype.kind == "V" else value.item()


def tolist(self: Tensor) -> Any:
    """The elements as nested lists of Python numbers (a number for a 0-d tensor)."""
    array = host(self)
    if array.dtype.kind == "V":  # ml_dtypes' scalars are no Python numbers
        array = array.astype(np.float32)
    return array.tolist()


def numpy(self: Tensor, *, force: bool = False) -> np.ndarray[Any, Any]:
    """The tensor as a NumPy array sharing its memory.

    Raises AutogradError for a tensor that requires grad, DeviceError for one that is not on the CPU; ``force=True``
    detaches and copies to the host instead.
    """
    if not force:
        if self._tracked:
            raise AutogradError(
                "numpy(): this tensor requires grad, and changes to the array would not be recorded. "
                "Use tensor.detach().numpy()."
            )
        if self.device.type != "cpu":
            raise DeviceError(f"numpy(): this tensor lives on {self.device}. Use tensor.cpu().numpy().")
    return host(self)


def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
    array = numpy(self)
    wanted = array.dtype if dtype is None else np.dtype(dtype)
    if copy is False and wanted != array.dtype:
        raise ValueError(f"a {array.dtype} tensor can't become a {wanted} array without a copy.")
    return array.astype(wanted, copy=bool(copy))


def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    return wrap(np.asarray(array))


class _Move(Op):
    """Copying between devices: the one op whose result another backend computes on."""

    def __call__(self, x: Tensor, *, device: Device, non_blocking: bool = False) -> Tensor:
        registry.on_device(device)  # a device that is not there is said first
        for ear in local.listeners:
            ear.moves(x, device)
        out = wrap(_moved(x._data, device, non_blocking))
        from ..autograd.grad_mode import state

        if x._tracked and state.recording:
            self.record((x,), [x._data], {"device": device, "origin": x.device}, (out,), (out._data,))
        return out

    def differentiate(self, F: Any, node: Any, g: Any, inputs: Any, outputs: Any) -> Any:
        back: Device = node.attrs["origin"]
        if isinstance(g, Tensor):
            return (self(g, device=back),)
        return (_moved(g, back, False),)


def _moved(array: Any, device: Device, non_blocking: bool) -> Any:
    """The array on another device. Raises DeviceError if there is none such."""
    source, found = registry.active(array), registry.on_device(device)
    if found.array_type is source.array_type:
        return found.to_device(array, device.index)
    if not non_blocking:
        return found.from_host(source.to_host(array), device.index)
    if found.device_type == "cpu":
        return found.from_host(source.to_host_async(array), device.index)
    return found.from_host_async(source.to_host(array), device.index)


def _move_infer(x: Any, *, device: Any, origin: Any = None) -> Spec:
    return Spec(tuple(x.shape), x.dtype)


move = _Move("move", infer=_move_infer, doc="The elements on another device.")


def _parse_to(args: tuple[Any, ...], device: Any, dtype: Any) -> tuple[Any, Any]:
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, (str, Device)) and not (isinstance(arg, str) and arg in BY_NAME):
            device = arg
        elif isinstance(arg, int) and not isinstance(arg, bool):
            device = Device("cuda", arg)
        elif arg is not None:
            dtype = as_dtype(arg)
    return device, None if dtype is None else as_dtype(dtype)


def _to_dtype(
    self: Tensor, dtype: Any, *, device: Any = None, non_blocking: bool = False, copy: bool = False,
    memory_format: Any = preserve_format,
) -> Any:  # fmt: skip
    """The usual form of ``to``."""


@calls(cast, "x dtype", cast=True, like=_to_dtype)
def to(
    self: Tensor, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, copy: bool = False,
    memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """The tensor on another device and/or in another dtype: ``x.to("cuda")``, ``x.to(tg.float64)``, ``x.to(other)``.

    Returns the tensor itself if nothing changes, unless ``copy``; a ``memory_format`` asks for that order in memory.
    With ``non_blocking`` a copy from pinned memory to a GPU, or from one to memory that is pinned for it, may still run
    when this returns: it is work of the current stream. Do not change the source before it is done; before reading the
    result on the host, wait for the stream.
    """
    if args and isinstance(args[-1], bool):  # x.to(device, dtype, non_blocking, copy)
        at = 2 if len(args) > 2 and isinstance(args[-2], bool) else 1
        non_blocking, copy = args[-at], args[-1] if at == 2 else copy
        args = args[:-at]
    device, wanted = _parse_to(args, device, dtype)
    out = self
    if device is not None:
        place = device if isinstance(device, Device) else Device(device)
        have = self.device
        if place.type != have.type or (place.index is not None and place.index != have.index):
            if place.type == "cpu" and non_blocking:
                # what comes after would read elements that are still on their way
                if wanted is not None and wanted.np != out._data.dtype:
                    out = _converted(out, wanted.np)
                non_blocking = memory_format is None or memory_format is preserve_format
            out = move(out, device=place, non_blocking=non_blocking)
    if wanted is not None and wanted.np != out._data.dtype:
        out = _converted(out, wanted.np)
    if memory_format is not None and memory_format is not preserve_format:
        order = dense_order("to", out._data, memory_format)
        if not follows(out._data, memory_format):
            out = copied(out, order)
    if copy and out is self:
        out = contiguous_copy(self)
    return out


def _converted(x: Tensor, dtype: Any) -> Tensor:
    """``x`` cast to ``dtype``; integers and bools have no gradient to pass on, so they are not recorded."""
    return cast(x if dtype.kind in "fcV" else x.detach(), dtype=dtype)


def _caster(name: str) -> Any:
    def convert(self: Tensor, memory_format: Any = preserve_format) -> Tensor:
        if memory_format is not preserve_format:
            return to(self, dtype=BY_NAME[name], memory_format=memory_format)
        wanted = numpy_dtype(name)
        return self if self._data.dtype == wanted else _converted(self, wanted)

    convert.__doc__ = f"The elements as {name}; the tensor itself if it is {name} already."
    if name == "bfloat16":  # which an extra brings; it is asked for when it is needed
        return convert
    return calls(cast, "x", cast=True, dtype=numpy_dtype(name))(convert)


_METHODS = {
    "double": "float64", "float": "float32", "half": "float16", "bfloat16": "bfloat16", "long": "int64",
    "int": "int32", "short": "int16", "char": "int8", "byte": "uint8", "bool": "bool", "cfloat": "complex64",
    "cdouble": "complex128",
}  # fmt: skip
for _method, _dtype in _METHODS.items():
    install(_caster(_dtype), _method)


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Without an argument PyTorch's name of the tensor's type, ``"torch.FloatTensor"``; else the tensor converted to a
    dtype, or to a type given by its name or constructor. ``non_blocking`` is a permission, as in ``to``."""
    from .legacy import meaning_of, type_name

    if dtype is None:
        return type_name(self.dtype, self.device.type)
    wanted, place = meaning_of(dtype)
    return self.to(device=place, dtype=wanted, non_blocking=non_blocking)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of ``other``."""
    if not isinstance(other, Tensor):
        raise TypeError(f"type_as: other must be a Tensor, got {type(other).__name__}.")
    return self.to(other.dtype)


def cpu(self: Tensor, memory_format: Any = preserve_format) -> Tensor:
    """The tensor in host memory."""
    return to(self, device="cpu", memory_format=memory_format)


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = preserve_format) -> Tensor:
    """The tensor on an NVIDIA GPU; ``non_blocking`` as in ``to``. Raises DeviceError if there is none."""
    place = "cuda" if device is None else device
    return to(self, device=place, non_blocking=non_blocking, memory_format=memory_format)


def record_stream(self: Tensor, stream: Any) -> None:
    """Tell the allocator that ``stream`` works with the tensor's memory: it will be given to nobody else before the
    stream has done what it has been given by the time the memory is free. Needed for a tensor that was made on another
    stream. Raises BackendError for a tensor that is not on a GPU.
    """
    registry.active(self._data).record_stream(self._data, getattr(stream, "_native", stream))


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Set ``requires_grad`` and return the tensor."""
    self.requires_grad = requires_grad
    return self


def detach_(self: Tensor) -> Tensor:
    """Cut the tensor off its history, in place."""
    if self._base is not None:
        raise AutogradError("detach_(): this tensor is a view; its history follows its base. Use detach().")
    self._node, self._slot, self._tracked = None, 0, False
    return self


def _number(self: Tensor, kind: Any) -> Any:
    return kind(item(self))


def __bool__(self: Tensor) -> bool:
    if self._data.size != 1:
        raise AutogradError(
            f"the truth value of a tensor with {self._data.size} elements is ambiguous; use .any() or .all()."
        )
    return bool(item(self))


def __index__(self: Tensor) -> int:
    if self._data.size != 1 or self.dtype.category > 1:
        raise TypeError(f"only an integer tensor of one element can be an index, got {self.dtype} {tuple(self.shape)}.")
    return int(item(self))


def __format__(self: Tensor, spec: str) -> str:
    if hasattr(self._data, "mapped"):  # within vmap
        return format(repr(self), spec)
    return format(item(self), spec) if self._data.ndim == 0 else object.__format__(self, spec)


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    for ear in local.listeners:
        ear.address_read(self)
    return address_of(self._data)


def address_of(array: Any) -> int:
    """``data_ptr``, of which nobody is told: for what this package itself has to know."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


for _function in (
    item, tolist, numpy, __array__, __array_wrap__, to, type_as, cpu, cuda, record_stream, requires_grad_,
    detach_, __bool__, __index__, __format__, data_ptr,
):  # fmt: skip
    install(_function)
install(type_, "type")
install(lambda self: _number(self, int), "__int__")
install(lambda self: _number(self, float), "__float__")
install(lambda self: _number(self, complex), "__complex__")


def is_floating_point(self: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    return self.dtype.is_floating_point


def is_complex(self: Tensor) -> bool:
    """Whether the dtype is a complex one."""
    return self.dtype.is_complex


install(is_floating_point)
install(is_complex)
