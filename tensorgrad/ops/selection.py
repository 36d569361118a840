"""Elements chosen, limited or replaced one by one: where, clamp, masked_fill, nan_to_num."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import DType, get_default_dtype
from ..errors import ArgumentError, DTypeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .checks import real
from .create import as_operand
from .elementwise import Elementwise
from .inplace import deliver, deliver_same, write_into
from .signatures import require_tensor_arguments
from .storable import check_storable

__all__ = ["clamp", "clamp_max", "clamp_min", "clip", "masked_fill", "nan_to_num", "where"]


def _check_bounds(name: str, input: Any, *bounds: Any) -> None:
    """Raises DTypeError for a number that wraps or is infinite in the result's dtype: another limit than asked."""
    for bound in bounds:
        if type(bound) is int or type(bound) is float:
            widened = type(bound) is float and input.dtype.category < 2
            check_storable(name, bound, get_default_dtype() if widened else input.dtype)


def _clamping(input: Any, low: Any, high: Any) -> tuple[Elementwise, tuple[Any, ...]]:
    require_tensor_arguments("clamp", input=input)
    if low is None and high is None:
        raise ArgumentError("clamp: at least one of min and max must be given.")
    _check_bounds("clamp", input, low, high)
    if high is None:
        return pw.clamp_min, (input, low)
    if low is None:
        return pw.clamp_max, (input, high)
    return pw.clamp_both, (input, low, high)


def _limited(name: str, result: Tensor, out: Tensor, *bounds: Any) -> Tensor:
    """``out`` with the result written in: cast to its dtype where tensors are the bounds, as in PyTorch."""
    casts = any(isinstance(bound, Tensor) for bound in bounds)
    return deliver(name, result, out) if casts else deliver_same(name, result, out)


@calls(pw.clamp_both, "x operand operand", alike=True)
def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Any = None) -> Any:
    """``input`` limited to ``[min, max]``; either bound may be None, a number or a tensor."""
    record, inputs = _clamping(input, min, max)
    result = record(*inputs)
    return result if out is None else _limited("clamp", result, out, min, max)


@calls(pw.clamp_both, "x operand operand", alike=True, into=True)
def clamp_(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """In-place form of ``clamp``."""
    record, inputs = _clamping(self, min, max)
    return write_into(record, self, inputs, {})


@calls(pw.clamp_min, "x operand", alike=True)
def clamp_min(input: Tensor, min: Any, *, out: Any = None) -> Any:
    """``input``, but not below ``min``, a number or a tensor."""
    require_tensor_arguments("clamp_min", input=input)
    _check_bounds("clamp_min", input, min)
    result = pw.clamp_min(input, min)
    return result if out is None else _limited("clamp_min", result, out, min)


@calls(pw.clamp_min, "x operand", alike=True, into=True)
def clamp_min_(self: Tensor, min: Any) -> Tensor:
    """In-place form of ``clamp_min``."""
    _check_bounds("clamp_min_", self, min)
    return write_into(pw.clamp_min, self, (self, min), {})


@calls(pw.clamp_max, "x operand", alike=True)
def clamp_max(input: Tensor, max: Any, *, out: Any = None) -> Any:
    """``input``, but not above ``max``, a number or a tensor."""
    require_tensor_arguments("clamp_max", input=input)
    _check_bounds("clamp_max", input, max)
    result = pw.clamp_max(input, max)
    return result if out is None else _limited("clamp_max", result, out, max)


@calls(pw.clamp_max, "x operand", alike=True, into=True)
def clamp_max_(self: Tensor, max: Any) -> Tensor:
    """In-place form of ``clamp_max``."""
    _check_bounds("clamp_max_", self, max)
    return write_into(pw.clamp_max, self, (self, max), {})


def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; with the condition alone, ``nonzero(as_tuple=True)``."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    require_tensor_arguments("where", condition=condition)
    if isinstance(condition, Tensor) and condition.dtype.name not in ("bool", "uint8"):
        raise DTypeError(f"where: the condition must be bool, got {condition.dtype}. Write condition != 0.")
    for number, tensor in ((input, other), (other, input)):
        given = type(number)
        if isinstance(tensor, Tensor) and (given is int or (given is float and tensor.dtype.category > 1)):
            check_storable("where", number, tensor.dtype, assigned=True)
    result = pw.where(condition, input, other)
    return result if out is None else deliver_same("where", result, out)


def _fill_value(input: Tensor, mask: Any, value: Any) -> Any:
    require_tensor_arguments("masked_fill", input=input)
    if not isinstance(mask, Tensor) or mask.dtype.name != "bool":
        raise DTypeError(f"masked_fill: the mask must be a bool tensor, got {getattr(mask, 'dtype', type(mask))}.")
    ready = as_operand("masked_fill", value)
    is_complex = ready.dtype.category == 3 if isinstance(ready, Tensor) else type(ready) is complex
    if is_complex and input.dtype.category < 3:
        raise DTypeError(f"masked_fill: the complex {value!r} can't be stored in a tensor of {input.dtype}.")
    if isinstance(ready, Tensor):
        if ready._data.ndim:
            raise DTypeError(f"masked_fill: value must be a number or a 0-d tensor, got {tuple(ready.shape)}.")
        return ready.to(input.dtype)
    check_storable("masked_fill", ready, input.dtype)
    return {0: bool, 1: int}.get(input.dtype.category, lambda x: x)(ready)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is True, in the dtype of ``input``.

    Raises DTypeError for a mask that is not bool and for a value that the dtype can't hold.
    """
    return pw.masked_fill(input, mask, _fill_value(input, mask, value))


def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """In-place form of ``masked_fill``."""
    return write_into(pw.masked_fill, self, (self, mask, _fill_value(self, mask, value)), {})


def _replacements(dtype: DType, nan: float | None, posinf: float | None, neginf: float | None) -> tuple[float, ...]:
    nan, posinf, neginf = (None if x is None else real("nan_to_num", "each", x) for x in (nan, posinf, neginf))
    largest = _largest(dtype.to_real())
    return nan or 0.0, largest if posinf is None else posinf, -largest if neginf is None else neginf


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """NaN and infinities replaced by numbers; infinities by default by the dtype's largest and lowest."""
    require_tensor_arguments("nan_to_num", input=input)
    if input.dtype.category < 2:
        result: Any = input.clone()
    else:
        numbers = _replacements(input.dtype, nan, posinf, neginf)
        if input.dtype.category == 3:
            parts = (pw.nan_to_num(part(input), *numbers) for part in (pw.real, pw.imag))
            result = pw.complex_(*parts)
        else:
            result = pw.nan_to_num(input, *numbers)
    return result if out is None else deliver_same("nan_to_num", result, out)


def nan_to_num_(
    self: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """In-place form of ``nan_to_num``."""
    if self.dtype.category == 2:
        return write_into(pw.nan_to_num, self, (self, *_replacements(self.dtype, nan, posinf, neginf)), {})
    return self if self.dtype.category < 2 else self.copy_(nan_to_num(self, nan, posinf, neginf))


def _largest(dtype: DType) -> float:
    if dtype.name == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo(dtype.np).max)


clip = clamp
_methods: tuple[Callable[..., Any], ...] = (
    clamp, clamp_, clamp_max, clamp_max_, clamp_min, clamp_min_, masked_fill, masked_fill_, nan_to_num, nan_to_num_,
)  # fmt: skip
for _given in _methods:
    install(_given)
install(clamp, "clip")
install(clamp_, "clip_")
install(lambda self, condition, other: where(condition, self, other), "where")
