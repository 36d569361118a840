"""Making tensors: from data, and filled; and turning what users pass into tensors. Ranges are in ``ranges.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import registry
from ..device import CPU, chosen, where
from ..dispatch import local, was_made
from ..dtypes import DType, as_dtype, get_default_dtype, numpy_dtype, promote_types
from ..errors import ArgumentError, DTypeError, ShapeError
from ..layout import check_layout, dense_order, preserve_format
from ..tensor import Tensor, wrap
from .exchange import lies_on_gpu, shared, speaks_dlpack
from .shape_core import as_index, require_addressable
from .storable import NUMBERS, as_stored, check_storable, one_number

__all__ = [
    "as_tensor", "asarray", "empty", "empty_like", "empty_permuted", "empty_strided", "from_numpy", "frombuffer",
    "full", "full_like", "ones", "ones_like", "scalar_tensor", "tensor", "zeros", "zeros_like",
]  # fmt: skip

_ON_THE_HOST = (*NUMBERS, list, tuple, np.ndarray, np.generic)  # what is known not to lie on a GPU


def shape_from(name: str, given: Any) -> tuple[int, ...]:
    """A shape from ``f(2, 3)`` or ``f((2, 3))``. Raises ShapeError for negative sizes, TypeError for non-integers."""
    if len(given) == 1 and not isinstance(given[0], (int, np.integer)):
        one = given[0]
        if not (isinstance(one, Tensor) and one._data.ndim == 0):
            if not hasattr(one, "__iter__"):
                raise TypeError(f"{name}: a shape is made of integers, got {one!r}.")
            given = one
    sizes = []
    for size in given:
        whole = as_index(size)
        if whole is None:
            raise TypeError(f"{name}: a shape is made of integers, got {size!r} in {tuple(given)!r}.")
        sizes.append(whole)
    shape = tuple(sizes)
    if min(shape, default=0) < 0:
        raise ShapeError(f"{name}: shape {shape} has a negative size.")
    require_addressable(name, shape)
    return shape


def finish(array: Any, requires_grad: bool) -> Tensor:
    out = wrap(array)
    if requires_grad:
        out.requires_grad = True
    return out


def to_device(array: np.ndarray[Any, Any], device: Any) -> Any:
    """A host array on a device, by default the default one; the array itself on the CPU."""
    place = where(device)
    if place is CPU:
        return array
    return registry.on_device(place).from_host(array, place.index)


def _host_array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    """Fresh host array from nested lists, numbers or arrays, by PyTorch's rules of type."""
    if isinstance(data, (np.ndarray, np.generic)):
        own = as_dtype(data.dtype)
        return np.array(data, dtype=(dtype or own).np)
    if isinstance(data, (list, tuple)) and _holds_tensor(data):
        dtype = dtype or _common_dtype(data)
        data = _with_numbers(data, dtype)
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"tensor: the nested sequence is ragged: {error}") from None
    except OverflowError as error:
        raise ArgumentError(f"tensor: {error}.") from None
    if isinstance(data, (int, list, tuple)) and _may_be_beyond(array):
        array = _with_long_integers(data, array, dtype)
    if array.dtype.kind not in "biufcV" or array.dtype == np.uint64:
        raise TypeError(f"tensor: can't make numbers of {data!r}.")
    if dtype is None:
        kind = array.dtype.kind
        if isinstance(data, (list, tuple)) and _holds_numpy(data):
            dtype = _common_dtype(data) or as_dtype(array.dtype)
        elif kind == "f":
            dtype = get_default_dtype()
        elif kind == "c":
            dtype = get_default_dtype().to_complex()
        elif array.size == 0 and not isinstance(data, NUMBERS):
            dtype = get_default_dtype()
        else:
            dtype = as_dtype(array.dtype)
    check_storable("tensor", array, dtype)
    return array.astype(dtype.np)


def _may_be_beyond(array: np.ndarray[Any, Any]) -> bool:
    """Whether NumPy met integers beyond int64 among Python numbers: it makes other dtypes of them."""
    if array.dtype.kind == "f":
        return bool((abs(array) >= 2.0**63).any())
    return array.dtype == np.uint64 or array.dtype.kind == "O"


def _with_long_integers(data: Any, array: np.ndarray[Any, Any], dtype: DType | None) -> np.ndarray[Any, Any]:
    """Python numbers with integers beyond int64 among them: floats if there is a float, or a floating dtype is asked
    for. Raises ArgumentError otherwise."""
    leaves = _leaves(data)
    if not all(isinstance(x, NUMBERS) for x in leaves):
        return array
    beyond = next((x for x in leaves if isinstance(x, int) and not -(2**63) <= x < 2**63), None)
    if beyond is None:
        return array
    if not any(isinstance(x, float) for x in leaves) if dtype is None else dtype.category < 2:
        raise ArgumentError(f"tensor: {beyond} does not fit int64. Give floats, or dtype=torch.float64.")
    try:
        return np.array([float(x) for x in leaves]).reshape(array.shape)
    except OverflowError:
        raise ArgumentError("tensor: an integer is beyond the range of float64.") from None


def _leaves(data: Any) -> list[Any]:
    return [x for part in data for x in _leaves(part)] if isinstance(data, (list, tuple)) else [data]


def _holds_tensor(data: Any) -> bool:
    return isinstance(data, Tensor) or (isinstance(data, (list, tuple)) and any(map(_holds_tensor, data)))


def _holds_numpy(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic))


def _common_dtype(data: Any) -> DType | None:
    """The dtype that the elements of nested sequences are promoted to: tensors and NumPy numbers with their own, Python
    floats with the default one; None where there are none."""
    if isinstance(data, Tensor):
        return data.dtype
    if isinstance(data, (np.ndarray, np.generic)):
        return as_dtype(data.dtype)
    if isinstance(data, (list, tuple)):
        found: DType | None = None
        for part in data:
            one = _common_dtype(part)
            if one is not None:
                found = one if found is None else promote_types(found, one)
        return found
    if isinstance(data, (float, complex)):
        return get_default_dtype() if isinstance(data, float) else get_default_dtype().to_complex()
    return as_dtype(type(data)) if isinstance(data, (bool, int)) else None


def _with_numbers(data: Any, dtype: DType | None) -> Any:
    """Nested sequences with their tensors as numbers. As in PyTorch a tensor within a sequence is one number, whatever
    its dimensions: ``tensor([tensor([1]), tensor([2])])`` is ``[1, 2]``."""
    if isinstance(data, Tensor):
        if data.numel() != 1:
            wrong = TypeError if dtype is not None and dtype.np.kind in "iub" else ValueError
            raise wrong(
                "tensor: a tensor within a sequence counts as one number, and this one has shape "
                f"{tuple(data.shape)}; use torch.stack(sequence)."
            )
        return data.item()
    return [_with_numbers(part, dtype) for part in data] if isinstance(data, (list, tuple)) else data


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A new leaf tensor holding a copy of ``data``.

    Args:
        data: a number, nested sequence, NumPy array, array on a GPU (CuPy's and others'), or tensor. A tensor within a
            sequence is one number.
        dtype: of the result; by default Python floats give the default dtype (float32), integers int64, bools bool,
            arrays keep theirs.
        device: where to put it; ``"cpu"`` by default, its own if ``data`` is a tensor or lies on a GPU.
        requires_grad: record operations on it.
        pin_memory: put it into page-locked host memory; see ``Tensor.pin_memory``.
    Raises: TypeError or ValueError if ``data`` does not make a rectangular array of numbers; DTypeError for a dtype
        that tensorgrad does not store; DeviceError for a device that is not here.
    Example:
        >>> tensor([[1, 2], [3, 4]]).shape
        torch.Size([2, 2])
    """
    if pin_memory:
        pinned: Tensor = tensor(data, dtype=dtype, device=device).pin_memory()
        return finish(pinned._data, requires_grad)
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        out: Tensor = data.detach().clone()
        out = out.to(device=device, dtype=wanted) if device is not None or wanted is not None else out
        out._cell = None
        if requires_grad:
            out.requires_grad = True
        return out
    if not isinstance(data, _ON_THE_HOST) and lies_on_gpu(data):
        return tensor(shared(data), dtype=dtype, device=chosen(device), requires_grad=requires_grad)
    array = to_device(_host_array(data, wanted), device)
    if local.listeners:
        was_made(array, data)
    return finish(array, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, without a copy where possible: tensors, NumPy arrays, and arrays on a GPU (CuPy's and
    others') share their memory. Arrays on a GPU stay there unless a ``device`` is named or a default one is set."""
    if isinstance(data, np.ndarray):
        data = from_numpy(data)
    elif not isinstance(data, (Tensor, *_ON_THE_HOST)) and lies_on_gpu(data):
        data, device = shared(data), chosen(device)
    if isinstance(data, Tensor):
        return data if dtype is None and device is None else data.to(device=device, dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """``obj`` as a tensor: tensors, NumPy arrays, DLPack objects, arrays on a GPU and buffers share their memory where
    they can.

    Args:
        copy: True always copies, False never (and raises where it would have to), None where it must be.
        requires_grad: the result is a leaf that does; a tensor that does not want it is detached.
    Raises: ValueError for ``copy=False`` where a copy is needed.
    """
    if isinstance(obj, Tensor):
        found = obj
    elif isinstance(obj, np.ndarray):
        found = from_numpy(obj)
    elif isinstance(obj, (bytes, bytearray, memoryview)):
        found = frombuffer(obj, dtype=get_default_dtype() if dtype is None else dtype)
    elif not isinstance(obj, _ON_THE_HOST) and (speaks_dlpack(obj) or lies_on_gpu(obj)):
        found = shared(obj)
    else:
        if copy is False:
            raise ValueError("asarray: can't alias arbitrary sequence; a copy is needed, but copy=False forbids it.")
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    out: Tensor = found.to(device=device, dtype=dtype) if device is not None or dtype is not None else found
    copied = out._data is not found._data
    if copied and copy is False:
        raise ValueError(
            "asarray: can't alias the object in another dtype or on another device; copy=False forbids it."
        )
    if copy and not copied:
        out = out.clone()
    if not requires_grad:
        return out.detach() if out._tracked and not isinstance(obj, Tensor) else out
    return out if out._tracked else finish(out._data, True)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A tensor of one dimension on the memory of an object with Python's buffer interface.

    Args:
        count: how many elements; -1 means as many as there are.
        offset: bytes to pass over first.
    Raises: ValueError for a buffer that is empty, too short, or (with ``count=-1``) not of whole elements.
    """
    kind = as_dtype(dtype).np
    try:
        raw = memoryview(buffer)
    except TypeError:
        raise TypeError(
            f"frombuffer: object of {type(buffer).__name__} does not implement Python buffer protocol."
        ) from None
    total = raw.nbytes
    if total == 0:
        raise ValueError("frombuffer: both buffer length (0) and count must not be 0.")
    if not 0 <= offset < total:
        raise ValueError(
            f"frombuffer: offset ({offset} bytes) must be non-negative and no greater than buffer length ({total} "
            "bytes) minus 1."
        )
    if count == 0 or count < -1:
        raise ValueError(f"frombuffer: count must be positive or -1, got {count}.")
    room = total - offset
    if count == -1 and room % kind.itemsize:
        raise ValueError(
            f"frombuffer: buffer length ({room} bytes) after offset must be a multiple of element size "
            f"({kind.itemsize})."
        )
    elements = room // kind.itemsize if count == -1 else count
    if elements * kind.itemsize > room:
        raise ValueError(
            f"frombuffer: requested buffer length ({elements} * {kind.itemsize} bytes) after offset ({offset} bytes) "
            f"must not be greater than actual buffer length ({total} bytes)."
        )
    array = np.ndarray((elements,), kind, buffer=raw.cast("B") if raw.contiguous else raw, offset=offset)
    if local.listeners:
        was_made(array, array)
    return finish(array, requires_grad)


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares memory with a NumPy array: writing to one changes the other."""
    if not isinstance(array, np.ndarray):
        instead = "; use as_tensor" if lies_on_gpu(array) else ""
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {_full_name(type(array))}{instead}.")
    as_dtype(array.dtype)
    if not array.dtype.isnative:
        raise DTypeError("from_numpy: the array's byte order is not this machine's; convert it with astype first.")
    plain = np.asarray(array)  # of a subclass (memmap, matrix) the plain array that it is
    if local.listeners:
        was_made(plain, array)
    return wrap(plain)


def rebuild(kind: type[Tensor], array: Any, requires_grad: bool, device: str) -> Tensor:
    """Unpickling: a tensor of class ``kind`` on ``array``."""
    out: Any = kind.__new__(kind)
    out._data = array
    out._tracked = bool(requires_grad)
    return out


def as_operand(name: str, x: Any) -> Any:
    """A Tensor or Python number from what a user passed to ``name``; lists and objects are refused.

    NumPy scalars act as Python numbers do: they never widen.
    """
    if isinstance(x, Tensor) or type(x) in NUMBERS:
        return x
    if isinstance(x, np.ndarray):
        return from_numpy(x)
    if isinstance(x, np.generic):
        return x.item()
    kinds: tuple[Any, ...] = NUMBERS
    for kind in kinds:  # a subclass of int, an enum say, as the number that it is
        if isinstance(x, kind):
            return kind(x)
    if lies_on_gpu(x):
        return shared(x)
    raise TypeError(f"{name}: expected a Tensor or a number, got {type(x).__name__}: {x!r}")


def _placed(requires_grad: bool, pin_memory: bool, out: Tensor) -> Tensor:
    if pin_memory:
        out = out.pin_memory()
    return finish(out._data, requires_grad) if requires_grad else out


def _written(name: str, result: Tensor, out: Tensor | None, requires_grad: bool) -> Tensor:
    """``result``, or ``out`` with it written in."""
    if out is None:
        return result
    from .inplace import deliver

    deliver(name, result, out)
    return out.requires_grad_() if requires_grad else out


def _filled(
    name: str, shape: tuple[int, ...], value: Any, dtype: Any, device: Any, requires_grad: bool, layout: Any = None,
    pin_memory: bool = False, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    check_layout(name, layout)
    if not isinstance(value, NUMBERS):
        value = one_number(name, value)
    if dtype is None and out is not None:
        chosen = out.dtype
    elif dtype is None:
        chosen = get_default_dtype() if not isinstance(value, (bool, int)) else as_dtype(type(value))
        if isinstance(value, complex):
            chosen = get_default_dtype().to_complex()
    else:
        chosen = as_dtype(dtype)
    if value:
        check_storable(name, value, chosen, assigned=name == "scalar_tensor")
        value = as_stored(value, chosen.np)
    if out is not None and device is None:
        device = out.device
    place = where(device)
    found = registry.on_device(place)
    with found.on(place.index):
        made = wrap(local.doors[found.array_type].full(shape=shape, value=value, dtype=chosen.np))
    if out is not None:
        return _written(name, made, out, requires_grad)
    if pin_memory:
        return _placed(requires_grad, pin_memory, made)
    if requires_grad:
        made.requires_grad = True
    return made


def full(
    size: Sequence[int], fill_value: Any, *, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of the given size, every element ``fill_value``."""
    value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
    shape = shape_from("full", (size,))
    return _filled("full", shape, value, dtype, device, requires_grad, layout, pin_memory, out)


def sizes_from(name: str, given: tuple[Any, ...], size: Any) -> tuple[int, ...]:
    """The shape from ``f(2, 3)``, ``f((2, 3))`` or ``f(size=(2, 3))``."""
    if size is None:
        return shape_from(name, given)
    if given:
        raise TypeError(f"{name}: the size was given twice, as {given} and as size={size!r}.")
    return shape_from(name, (size,))


def zeros(
    *args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of zeros: ``zeros(2, 3)``, ``zeros((2, 3))`` or ``zeros(size=(2, 3))``."""
    return _filled("zeros", sizes_from("zeros", args, size), 0.0, dtype, device, requires_grad, layout, pin_memory, out)


def ones(
    *args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of ones: ``ones(2, 3)``, ``ones((2, 3))`` or ``ones(size=(2, 3))``."""
    return _filled("ones", sizes_from("ones", args, size), 1.0, dtype, device, requires_grad, layout, pin_memory, out)


def scalar_tensor(
    s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The number ``s`` as a 0-d tensor, in the default dtype unless another is given."""
    value = s.item() if isinstance(s, (Tensor, np.generic)) else s
    chosen = get_default_dtype() if dtype is None else dtype
    return _filled("scalar_tensor", (), value, chosen, device, requires_grad, layout, pin_memory)


def empty(
    *args: Any, size: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor whose elements are whatever the memory held; row-major, or in the order of a ``memory_format``."""
    check_layout("empty", layout)
    shape = sizes_from("empty", args, size)
    if dtype is None and out is not None:
        dtype = out.dtype
    made = _uninitialized(shape, dtype, device)
    if memory_format is not None:
        order = dense_order("empty", made._data, memory_format)
        made = made if order is None else _in_order(made, shape, order)
    if out is not None:
        return _written("empty", made, out, requires_grad)
    return _placed(requires_grad, pin_memory, made)


def _uninitialized(shape: tuple[int, ...], dtype: Any, device: Any) -> Tensor:
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    place = where(device)
    found = registry.on_device(place)
    with found.on(place.index):
        made = found.empty(shape, chosen.np)
    was_made(made, None)
    return wrap(made)


def _in_order(flat: Tensor, shape: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
    """The memory of ``flat`` seen in ``shape``, running through the dimensions in this order."""
    inside = flat._data.reshape([shape[d] for d in order])
    return wrap(inside.transpose([order.index(d) for d in range(len(order))]))


def empty_permuted(
    size: Sequence[int], physical_layout: Sequence[int], *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """An uninitialized tensor whose memory runs through the dimensions as ``physical_layout`` orders them.

    Raises: ShapeError unless ``physical_layout`` is a permutation of the dimensions.
    """
    check_layout("empty_permuted", layout)
    for label, given in (("size", size), ("physical_layout", physical_layout)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"empty_permuted: {label} must be a tuple of integers, got {given!r}.")
    shape = shape_from("empty_permuted", (tuple(size),))
    order = tuple([d for d in map(as_index, physical_layout) if d is not None])
    if len(order) != len(physical_layout):
        raise TypeError(f"empty_permuted: physical_layout is made of integers, got {tuple(physical_layout)}.")
    if len(order) != len(shape):
        raise ShapeError(
            f"empty_permuted: Number of dimensions in size does not match the length of the physical_layout: size "
            f"{shape}, physical_layout {order}."
        )
    if set(order) != set(range(len(shape))):
        raise ShapeError(
            f"empty_permuted: physical_layout {order} is no permutation of the dimensions 0 to {len(shape) - 1}; "
            "negative dimensions are not supported, a duplicate dim is not allowed."
        )
    made = _in_order(_uninitialized(shape, dtype, device), shape, order)
    return _placed(requires_grad, pin_memory, made)


def empty_strided(
    size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """An uninitialized tensor whose neighbours along dimension d lie ``stride[d]`` elements apart in memory.

    Raises: ShapeError for negative strides, or as many as there are not sizes.
    """
    check_layout("empty_strided", layout)
    if not isinstance(stride, (tuple, list)):
        raise TypeError(f"empty_strided: stride must be a tuple of integers, got {stride!r}.")
    shape, steps = shape_from("empty_strided", (size,)), shape_from("empty_strided", (tuple(stride),))
    if len(shape) != len(steps):
        raise ShapeError(
            f"empty_strided: dimensionality of sizes ({len(shape)}) must match dimensionality of strides "
            f"({len(steps)})."
        )
    span = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    flat = _uninitialized(shape_from("empty_strided", (span,)), dtype, device)
    if span == 0:
        return _placed(requires_grad, pin_memory, wrap(flat._data.reshape(shape)))
    door = registry.active(flat._data).raw
    made = wrap(door.as_strided(flat._data, size=shape, stride=steps, offset=0, within=(1,)))
    return _placed(requires_grad, pin_memory, made)


def _like(
    name: str, x: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool, layout: Any, pin_memory: bool,
    memory_format: Any,
) -> Tensor:  # fmt: skip
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
    shape = tuple(x.shape)
    order = None
    if memory_format is not preserve_format:
        order = dense_order(name, x._data, memory_format)
    if value is None:
        check_layout(name, layout)
        made = _uninitialized(shape, dtype or x.dtype, x.device if device is None else device)
    else:
        made = _filled(name, shape, value, dtype or x.dtype, x.device if device is None else device, False, layout)
    if order is not None:
        made = _in_order(made, shape, order)
    return _placed(requires_grad, pin_memory, made)


def zeros_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """Zeros in the shape, dtype and device of ``input``."""
    return _like("zeros_like", input, 0, dtype, device, requires_grad, layout, pin_memory, memory_format)


def ones_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """Ones in the shape, dtype and device of ``input``."""
    return _like("ones_like", input, 1, dtype, device, requires_grad, layout, pin_memory, memory_format)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """``fill_value`` in the shape, dtype and device of ``input``."""
    value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
    return _like("full_like", input, value, dtype, device, requires_grad, layout, pin_memory, memory_format)


def empty_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = preserve_format,
) -> Tensor:  # fmt: skip
    """An uninitialized tensor in the shape, dtype and device of ``input``."""
    return _like("empty_like", input, None, dtype, device, requires_grad, layout, pin_memory, memory_format)


def default_float() -> np.dtype[Any]:
    return numpy_dtype(get_default_dtype().name)
