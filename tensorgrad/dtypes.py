"""Data types and PyTorch's promotion rules.

A ``DType`` names a NumPy dtype. Promotion knows three ranks of operand, strongest first: tensors with
dimensions, 0-d tensors, Python numbers. A weaker operand changes the result only when its *category*
(bool < integer < floating < complex) is higher, so ``int32_tensor + 1`` stays int32 and
``float16_tensor * 2.5`` stays float16.

Operands are described by *keys*, plain strings that are cheap to hash: ``"float32"`` for a tensor with
dimensions, ``"float32:0"`` for a 0-d tensor, ``"py:int"`` for a Python number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from .errors import DTypeError, require_extra

__all__ = ["DType", "can_cast", "promote_types"]

_BOOL, _INT, _FLOAT, _COMPLEX = range(4)
_RANK_IN_FLOATS = {"float16": 0, "bfloat16": 0, "float32": 1, "float64": 2}
_INT_BITS = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64}


class DType:
    """The type of a tensor's elements, e.g. ``tensorgrad.float32``."""

    __slots__ = ("category", "itemsize", "name")

    def __init__(self, name: str, itemsize: int, category: int):
        self.name = name
        self.itemsize = itemsize
        self.category = category

    @property
    def np(self) -> np.dtype[Any]:
        """The NumPy dtype that stores it. Raises MissingExtra for bfloat16 without ml_dtypes."""
        return numpy_dtype(self.name)

    @property
    def is_floating_point(self) -> bool:
        return self.category == _FLOAT

    @property
    def is_complex(self) -> bool:
        return self.category == _COMPLEX

    @property
    def is_signed(self) -> bool:
        return self.name not in ("bool", "uint8")

    def to_real(self) -> DType:
        return BY_NAME[REAL_OF.get(self.name, self.name)]

    def to_complex(self) -> DType:
        return BY_NAME[COMPLEX_OF.get(self.name, self.name)]

    def __repr__(self) -> str:
        return f"torch.{self.name}"  # programs print dtypes, and compare their text

    def __reduce__(self) -> tuple[Any, ...]:
        return (as_dtype, (self.name,))


BY_NAME: dict[str, DType] = {
    name: DType(name, size, category)
    for name, size, category in (
        ("bool", 1, _BOOL),
        ("uint8", 1, _INT),
        ("int8", 1, _INT),
        ("int16", 2, _INT),
        ("int32", 4, _INT),
        ("int64", 8, _INT),
        ("float16", 2, _FLOAT),
        ("bfloat16", 2, _FLOAT),
        ("float32", 4, _FLOAT),
        ("float64", 8, _FLOAT),
        ("complex64", 8, _COMPLEX),
        ("complex128", 16, _COMPLEX),
    )
}
REAL_OF = {"complex64": "float32", "complex128": "float64"}
COMPLEX_OF = {"float16": "complex64", "bfloat16": "complex64", "float32": "complex64", "float64": "complex128"}

float64, float32, float16, bfloat16 = (BY_NAME[n] for n in ("float64", "float32", "float16", "bfloat16"))
int64, int32, int16, int8, uint8 = (BY_NAME[n] for n in ("int64", "int32", "int16", "int8", "uint8"))
bool_ = BY_NAME["bool"]
complex64, complex128 = BY_NAME["complex64"], BY_NAME["complex128"]


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of a dtype name."""
    if name == "bfloat16":
        return np.dtype(require_extra("ml_dtypes", "bfloat16").bfloat16)
    return np.dtype(name)


_default = ["float32"]
when_default_changes: list[Callable[[], object]] = []
"""Called after the default dtype has changed: whoever keeps typed programs of formulas must type them anew."""


def set_default_dtype(dtype: Any) -> None:
    """Floating dtype of Python floats and of functions that are given none: float16, bfloat16, float32 or float64."""
    chosen = as_dtype(dtype)
    if not chosen.is_floating_point:
        raise DTypeError(f"set_default_dtype: got {chosen}; only floating-point dtypes can be the default.")
    _default[0] = chosen.name
    result_name.cache_clear()
    for forget in when_default_changes:
        forget()


def get_default_dtype() -> DType:
    """The dtype of Python floats and of functions that are given none."""
    return BY_NAME[_default[0]]


_FROM_PYTHON = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}


def as_dtype(given: Any) -> DType:
    """The DType meant by a DType, a NumPy dtype, a Python type or a name.

    Raises DTypeError for anything tensorgrad does not store, e.g. ``numpy.uint32`` or strings.
    """
    if type(given) is DType:
        return given
    if isinstance(given, type) and given in _FROM_PYTHON:
        return BY_NAME[_FROM_PYTHON[given]]
    name = given if isinstance(given, str) else None
    if name is None:
        try:
            name = np.dtype(given).name
        except TypeError:
            name = str(given)
    name = name.rpartition(".")[2]
    if name not in BY_NAME:
        raise DTypeError(f"dtype {given!r} is not supported; the dtypes are {', '.join(BY_NAME)}.")
    return BY_NAME[name]


@cache
def promote_names(a: str, b: str) -> str:
    """The smallest dtype that both are promoted to, between operands of the same rank."""
    if a == b:
        return a
    ca, cb = BY_NAME[a].category, BY_NAME[b].category
    if ca > cb:
        a, b, ca, cb = b, a, cb, ca
    if cb == _COMPLEX:
        if ca == _FLOAT:
            return promote_names(COMPLEX_OF[a], b)
        return "complex128" if "complex128" in (a, b) else b
    if ca == _BOOL or ca < cb:
        return b
    if cb == _FLOAT:
        if _RANK_IN_FLOATS[a] == _RANK_IN_FLOATS[b]:
            return "float32"  # float16 with bfloat16: neither holds the other
        return max(a, b, key=lambda name: _RANK_IN_FLOATS[name])
    if "uint8" in (a, b):
        other = b if a == "uint8" else a
        return "int16" if other == "int8" else other
    return max(a, b, key=lambda name: _INT_BITS[name])


def promote_types(a: Any, b: Any) -> DType:
    """The smallest dtype to which both ``a`` and ``b`` are promoted, as ``torch.promote_types``.

    Example:
        >>> promote_types("int32", "float16")
        torch.float16
    """
    return BY_NAME[promote_names(as_dtype(a).name, as_dtype(b).name)]


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a cast keeps the category or raises it, as ``torch.can_cast``."""
    return as_dtype(from_).category <= as_dtype(to).category


def python_number_dtype(key: str) -> str:
    kind = key[3:]
    if kind == "float":
        return _default[0]
    if kind == "complex":
        return COMPLEX_OF[_default[0]]
    return "bool" if kind == "bool" else "int64"


def _combine(strong: str | None, weak: str | None) -> str | None:
    if strong is None or weak is None:
        return strong or weak
    cs, cw = BY_NAME[strong].category, BY_NAME[weak].category
    if cs >= cw:
        return strong
    if cw == _COMPLEX and cs == _FLOAT:
        return COMPLEX_OF[strong]
    return promote_names(strong, weak)


@lru_cache(maxsize=4096)
def result_name(keys: tuple[str, ...]) -> str:
    """The dtype name that operands with these keys are promoted to (see the module's text)."""
    ranks: list[str | None] = [None, None, None]
    for key in keys:
        if key.startswith("py:"):
            rank, name = 2, python_number_dtype(key)
        elif key.endswith(":0"):
            rank, name = 1, key[:-2]
        else:
            rank, name = 0, key
        seen = ranks[rank]
        ranks[rank] = name if seen is None else promote_names(seen, name)
    result = _combine(_combine(ranks[0], ranks[1]), ranks[2])
    if result is None:
        raise DTypeError("result_type: no operands were given.")
    return result


def key_of(operand: Any) -> str:
    """The promotion key of an array or a Python number."""
    kind = PYTHON_KEYS.get(type(operand))
    if kind is not None:
        return kind
    try:
        dtype = operand.dtype
    except AttributeError:
        raise TypeError(f"expected a Tensor or a number, got {type(operand).__name__}: {operand!r}") from None
    name = of_array(dtype).name
    return name if operand.ndim else name + ":0"


_OF_NUMPY: dict[Any, DType] = {}


def of_array(dtype: Any) -> DType:
    """The DType of an array's dtype: kept, since NumPy composes a dtype's name anew at each question."""
    found = _OF_NUMPY.get(dtype)
    if found is None:
        found = _OF_NUMPY[dtype] = as_dtype(dtype)
    return found


PYTHON_KEYS = {bool: "py:bool", int: "py:int", float: "py:float", complex: "py:complex"}
