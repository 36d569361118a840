"""Whether a dtype can hold a number that a user gave: silently another one, or infinity, would be stored otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import BY_NAME, DType
from ..errors import DTypeError
from ..tensor import Tensor

NUMBERS = (bool, int, float, complex)

# the largest number of each dtype that Python's floats go beyond
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38}
_LARGEST["complex64"] = _LARGEST["float32"]


def check_storable(name: str, value: Any, dtype: DType, *, assigned: bool = False) -> None:
    """Raises DTypeError for a Python number, or an array of integers, that ``dtype`` can't hold even rounded: NumPy
    would store some other number, or infinity.

    Unsigned integers take negative ones modulo their size, and half precision takes infinity for what is ``assigned``
    to elements and beyond it, both as in PyTorch.
    """
    kind = dtype.np.kind
    if type(value) is int and kind in "fcV" and abs(value) >= 2**1023:
        raise DTypeError(f"{name}: an integer of {value.bit_length()} bits is beyond the range of {dtype}.")
    largest = _LARGEST.get(dtype.name)
    # a size of a compiled program, which is an int of another class, is not compared: that would tie the program to it
    plain = type(value) is int or isinstance(value, (float, complex))
    if largest is not None and plain and not (assigned and dtype.itemsize == 2):
        parts = (value.real, value.imag) if isinstance(value, complex) else (value,)
        if any(largest < abs(part) < float("inf") for part in parts):
            raise DTypeError(f"{name}: value cannot be converted to {dtype.name} without overflow: {value}.")
    if kind == "b" or not isinstance(value, (int, float, complex, np.ndarray)):
        return
    if kind != "c" and (isinstance(value, complex) or getattr(value, "dtype", dtype.np).kind == "c"):
        raise DTypeError(f"{name}: a complex number can't be stored in a tensor of {dtype}.")
    if kind not in "iu":
        return
    given = np.asarray(value)
    if not given.size or given.dtype.kind == "b":
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


def as_stored(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number as the dtype stores it, as in PyTorch: unsigned ones take negative numbers from the other end, and what
    is beyond half precision is infinite."""
    if dtype.kind == "u" and isinstance(value, (int, float)) and value < 0:
        return int(value) % (int(np.iinfo(dtype).max) + 1)
    whole = type(value) is int
    if whole and dtype.kind == "b":
        return bool(value)
    if (whole or isinstance(value, float)) and dtype.kind in "fV" and dtype.itemsize == 2 and abs(value) >= 65520:
        largest = 65520 if dtype.name == "float16" else 3.4028235677973366e38
        if largest <= abs(value) < float("inf"):
            return float("inf") if value > 0 else -float("inf")
        return float(value)  # bfloat16 takes no integers beyond 64 bits
    return value


def stored_number(name: str, value: Any, dtype: DType) -> Any:
    """A number that a user gave to be written into a tensor of ``dtype``, or compared with its elements there: cut off
    to an integer for integers. Raises TypeError for what is no number, DTypeError for one that the dtype can't hold."""
    given = value if isinstance(value, NUMBERS) else one_number(name, value)
    check_storable(name, given, dtype)
    given = as_stored(given, dtype.np)
    return int(given) if dtype.category == 1 else given


def check_factor(name: str, value: Any, dtype: DType) -> None:
    """Raises DTypeError for a number beyond the dtype that tensors of ``dtype`` compute in: float32 for half."""
    if type(value) in (int, float) and dtype.category > 1:
        check_storable(name, value, BY_NAME["float32"] if dtype.itemsize == 2 else dtype)


def one_number(name: str, value: Any) -> Any:
    """The Python number that a tensor or an array without dimensions, or one of NumPy's numbers, holds."""
    from .create import as_operand

    given = as_operand(name, value)
    if isinstance(given, Tensor):
        if given._data.ndim:
            raise TypeError(f"{name}: expected one number, got a tensor of shape {tuple(given.shape)}.")
        return given.item()
    return given
