"""Making tensors: from data, filled, in ranges; and turning what users pass into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import registry
from ..device import CPU, where
from ..dtypes import BY_NAME, DType, as_dtype, get_default_dtype, numpy_dtype
from ..errors import DeviceError, DTypeError, ShapeError
from ..tensor import Tensor, wrap

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "ones",
    "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip

_NUMBERS = (bool, int, float, complex)


def shape_from(name: str, given: Any) -> tuple[int, ...]:
    """A shape from ``f(2, 3)`` or ``f((2, 3))``. Raises ShapeError for negative sizes, TypeError for non-integers."""
    if len(given) == 1 and not isinstance(given[0], (int, np.integer)):
        given = given[0]
    sizes = []
    for size in given:
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise TypeError(f"{name}: a shape is made of integers, got {size!r} in {tuple(given)!r}.")
        sizes.append(int(size.__index__()))
    total = 1
    for size in sizes:
        if size < 0:
            raise ShapeError(f"{name}: shape {tuple(sizes)} has a negative size.")
        total *= size
    if total > 2**62:
        raise ShapeError(f"{name}: shape {tuple(sizes)} has {total} elements, more than can be addressed.")
    return tuple(sizes)


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


def check_storable(name: str, value: Any, dtype: DType) -> None:
    """Raises DTypeError for a Python number, or an array of them, that ``dtype`` can't hold even rounded: NumPy would
    store some other number. Unsigned integers take negative ones modulo their size, as in PyTorch."""
    kind = dtype.np.kind
    if kind == "b" or not isinstance(value, (int, float, complex, np.ndarray)):
        return
    given = np.asarray(value)
    if given.dtype.kind == "c" and kind != "c":
        raise DTypeError(f"{name}: a complex number can't be stored in a tensor of {dtype}.")
    if kind not in "iu" or not given.size or given.dtype.kind == "b":
        return
    limits = np.iinfo(dtype.np)
    low = limits.min or -limits.max
    if given.dtype.kind == "f":
        given = np.trunc(given)
        wrong = ~((given >= float(low)) & (given < float(limits.max) + 1))  # NaN is wrong too
    else:
        wrong = (given < low) | (given > limits.max)
    if wrong.any():
        raise DTypeError(f"{name}: {given[wrong].flat[0]} can't be stored in a tensor of {dtype}; it overflows.")


def _host_array(data: Any, dtype: DType | None) -> np.ndarray[Any, Any]:
    """Fresh host array from nested lists, numbers or arrays, by PyTorch's rules of type."""
    if isinstance(data, (np.ndarray, np.generic)):
        own = as_dtype(data.dtype)
        return np.array(data, dtype=(dtype or own).np)
    if isinstance(data, (list, tuple)) and _holds_tensor(data):
        data = _with_numbers(data)
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"tensor: the nested sequence is ragged: {error}") from None
    except OverflowError as error:
        raise OverflowError(f"tensor: {error}") from None
    if array.dtype.kind not in "biufcV" or array.dtype == np.uint64:
        raise TypeError(f"tensor: can't make numbers of {data!r}.")
    if dtype is None:
        kind = array.dtype.kind
        if isinstance(data, (list, tuple)) and _holds_numpy(data):
            dtype = as_dtype(array.dtype)
        elif kind == "f":
            dtype = get_default_dtype()
        elif kind == "c":
            dtype = get_default_dtype().to_complex()
        elif array.size == 0 and not isinstance(data, _NUMBERS):
            dtype = get_default_dtype()
        else:
            dtype = as_dtype(array.dtype)
    check_storable("tensor", array, dtype)
    return array.astype(dtype.np)


def _holds_tensor(data: Any) -> bool:
    return isinstance(data, Tensor) or (isinstance(data, (list, tuple)) and any(map(_holds_tensor, data)))


def _holds_numpy(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic))


def _with_numbers(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.tolist()
    return [_with_numbers(part) for part in data] if isinstance(data, (list, tuple)) else data


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf tensor holding a copy of ``data``.

    Args:
        data: a number, nested sequence, NumPy array, or tensor.
        dtype: of the result; by default Python floats give the default dtype (float32), integers int64, bools bool,
            arrays keep theirs.
        device: where to put it; ``"cpu"`` by default, the tensor's own if ``data`` is one.
        requires_grad: record operations on it.
    Raises: TypeError or ValueError if ``data`` does not make a rectangular array of numbers; DTypeError for a dtype
        that tensorgrad does not store; DeviceError for a device that is not here.
    Example:
        >>> tensor([[1, 2], [3, 4]]).shape
        tensorgrad.Size([2, 2])
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        out: Tensor = data.detach().clone()
        out = out.to(device=device, dtype=wanted) if device is not None or wanted is not None else out
        out._version = None
        if requires_grad:
            out.requires_grad = True
        return out
    if hasattr(data, "__cuda_array_interface__"):
        return tensor(from_array(data), dtype=dtype, device=device, requires_grad=requires_grad)
    return finish(to_device(_host_array(data, wanted), device), requires_grad)


def from_array(array: Any) -> Tensor:
    """A tensor on the memory of a backend's array. Raises DeviceError if no backend knows the type."""
    if registry.backend_of(type(array)) is None:
        raise DeviceError(f"no backend is loaded for arrays of type {type(array).__name__}.")
    as_dtype(array.dtype)
    return wrap(array)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, without a copy where possible (tensors and NumPy arrays share memory)."""
    if isinstance(data, np.ndarray):
        data = from_numpy(data)
    if isinstance(data, Tensor):
        return data if dtype is None and device is None else data.to(device=device, dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares memory with a NumPy array: writing to one changes the other."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}.")
    as_dtype(array.dtype)
    if not array.dtype.isnative:
        raise DTypeError("from_numpy: the array's byte order is not this machine's; convert it with astype first.")
    return wrap(np.asarray(array))  # a subclass (memmap, matrix) as the plain array that it is


def rebuild(kind: type, array: Any, requires_grad: bool, device: str) -> Tensor:
    """Unpickling: a tensor of class ``kind`` on ``array``."""
    out: Any = object.__new__(kind)
    out._data = array
    out._tracked = requires_grad
    return out


def as_operand(name: str, x: Any) -> Any:
    """A Tensor or Python number from what a user passed to ``name``; lists and objects are refused.

    NumPy scalars act as Python numbers do: they never widen.
    """
    if isinstance(x, Tensor) or type(x) in _NUMBERS:
        return x
    if isinstance(x, np.ndarray):
        return from_numpy(x)
    if isinstance(x, np.generic):
        return x.item()
    kinds: tuple[Any, ...] = _NUMBERS
    for kind in kinds:  # a subclass of int, an enum say, as the number that it is
        if isinstance(x, kind):
            return kind(x)
    raise TypeError(f"{name}: expected a Tensor or a number, got {type(x).__name__}: {x!r}")


def _filled(name: str, shape: tuple[int, ...], value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    if dtype is None:
        chosen = get_default_dtype() if not isinstance(value, (bool, int)) else as_dtype(type(value))
        if isinstance(value, complex):
            chosen = get_default_dtype().to_complex()
    else:
        chosen = as_dtype(dtype)
    if value:
        check_storable(name, value, chosen)
    place = where(device)
    found = registry.on_device(place)
    with found.on(place.index):
        out = wrap(found.raw.full(shape=shape, value=value, dtype=chosen.np))
    if requires_grad:
        out.requires_grad = True
    return out


def full(
    size: Sequence[int], fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of the given size, every element ``fill_value``."""
    value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
    return _filled("full", shape_from("full", (size,)), value, dtype, device, requires_grad)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return _filled("zeros", shape_from("zeros", size), 0.0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones: ``ones(2, 3)`` or ``ones((2, 3))``."""
    return _filled("ones", shape_from("ones", size), 1.0, dtype, device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose elements are whatever the memory held."""
    shape = shape_from("empty", size)
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    place = where(device)
    found = registry.on_device(place)
    with found.on(place.index):
        out = wrap(found.empty(shape, chosen.np))
    if requires_grad:
        out.requires_grad = True
    return out


def _like(x: Tensor, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a Tensor, got {type(x).__name__}")
    return _filled("full_like", tuple(x.shape), value, dtype or x.dtype, device or x.device, requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape, dtype and device of ``input``."""
    return _like(input, 0, dtype, device, requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape, dtype and device of ``input``."""
    return _like(input, 1, dtype, device, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` in the shape, dtype and device of ``input``."""
    return _like(input, fill_value, dtype, device, requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """An uninitialized tensor in the shape, dtype and device of ``input``."""
    return empty(
        tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad
    )


def arange(
    start: float, end: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from ``start`` to ``end`` (excluded) in steps: ``arange(4)``, ``arange(1, 4)``, ``arange(0, 1, 0.1)``.

    Raises ValueError for a step of zero, or one that leads away from ``end``.
    """
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) * step < 0:
        raise ValueError(f"arange: step {step} does not lead from {start} to {end}.")
    if dtype is None:
        chosen = get_default_dtype() if any(isinstance(v, float) for v in (start, end, step)) else BY_NAME["int64"]
    else:
        chosen = as_dtype(dtype)
    count = max(0, int(np.ceil((end - start) / step)))
    exact: Any = np.arange(count)
    if all(isinstance(v, int) for v in (start, end, step)):
        values = start + exact * step
    else:
        values = start + exact.astype(np.float64) * step
    return finish(to_device(values.astype(chosen.np), device), requires_grad)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` numbers evenly spaced from ``start`` to ``end``, both included."""
    if steps < 0:
        raise ValueError(f"linspace: the number of steps must not be negative, got {steps}.")
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    return finish(to_device(np.linspace(start, end, steps).astype(chosen.np), device), requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The (n, m) matrix with ones on the diagonal."""
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    array = np.eye(n, n if m is None else m, dtype=np.float64).astype(chosen.np)
    return finish(to_device(array, device), requires_grad)


def default_float() -> np.dtype[Any]:
    return numpy_dtype(get_default_dtype().name)
