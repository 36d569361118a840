"""Arithmetic as users call it: sums, products, quotients and powers whose arguments need a check or a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dtypes import BY_NAME, DType, key_of, result_name
from ..errors import ArgumentError, DTypeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .calls import calls
from .elementwise import Elementwise
from .inplace import assign, deliver, write_into
from .shape_core import cast
from .signatures import require_tensor_arguments
from .storable import check_factor, check_storable, stored_number

__all__ = [
    "add", "addcdiv", "addcmul", "div", "divide", "float_power", "lerp", "pow", "rsub", "square", "sub", "subtract",
    "true_divide",
]  # fmt: skip


def _dtype_of(*operands: Any) -> DType:
    return BY_NAME[result_name(tuple([key_of(x._data if isinstance(x, Tensor) else x) for x in operands]))]


def require_number(name: str, label: str, given: Any) -> None:
    """Raises TypeError for a tensor or array that has dimensions: it would be broadcast."""
    if getattr(given, "ndim", 0):
        raise TypeError(f"{name}: {label} must be a number, got a tensor of shape {tuple(given.shape)}.")


def _check_alpha(name: str, alpha: Any, *operands: Any) -> None:
    """Raises DTypeError for a factor of a higher category than what it multiplies, TypeError for what is no number."""
    category = _dtype_of(*operands).category
    require_number(name, "alpha", alpha)
    if type(alpha) is bool and category:
        raise DTypeError(f"{name}: a bool alpha goes with bool tensors only.")
    if type(alpha) is float and category < 2:
        raise DTypeError(f"{name}: for integer tensors, alpha must not be a floating point number, got {alpha}.")
    if type(alpha) is complex and category < 3:
        raise DTypeError(f"{name}: for tensors that are not complex, alpha must not be complex, got {alpha}.")
    check_storable(name, alpha, _dtype_of(*operands))


def _scaled(
    name: str, plain: Elementwise, scaled: Elementwise, input: Any, other: Any, alpha: Any, third: Any
) -> tuple[Elementwise, tuple[Any, ...]]:
    """The record and inputs of ``input + alpha * other``; ``third`` is there in the old order (input, alpha, other)."""
    if third is not None:
        other, alpha = third, other
    if type(alpha) is int and alpha == 1:
        return plain, (input, other)
    _check_alpha(name, alpha, input, other)
    if _dtype_of(input, other).category == 0:  # alpha is True or a number that is not 0 for bools
        return (plain, (input, other)) if alpha else (plain, (input, pw.logical_and(other, False)))
    return scaled, (input, other, alpha)


@calls(pw.add, "x operand", alike=True)
@calls(pw.add_scaled, "x operand - number", alike=True)
def add(input: Any, other: Any, third: Any = None, *, alpha: Any = 1, out: Any = None) -> Any:
    """``input + alpha * other``; PyTorch's old order ``add(input, alpha, other)`` is understood too.

    Raises DTypeError for a floating ``alpha`` with integer tensors.
    """
    if third is None and type(alpha) is int and alpha == 1:
        result = pw.add(input, other)
    else:
        record, inputs = _scaled("add", pw.add, pw.add_scaled, input, other, alpha, third)
        result = record(*inputs)
    return result if out is None else deliver("add", result, out)


@calls(pw.add, "x operand", alike=True, into=True)
@calls(pw.add_scaled, "x operand - number", alike=True, into=True)
def add_(self: Tensor, other: Any, third: Any = None, *, alpha: Any = 1) -> Tensor:
    """In-place form of ``add``."""
    record, inputs = _scaled("add_", pw.add, pw.add_scaled, self, other, alpha, third)
    return write_into(record, self, inputs, {})


@calls(pw.sub, "x operand", alike=True)
@calls(pw.sub_scaled, "x operand - number", alike=True)
def sub(input: Any, other: Any, third: Any = None, *, alpha: Any = 1, out: Any = None) -> Any:
    """``input - alpha * other``; PyTorch's old order ``sub(input, alpha, other)`` is understood too.

    Raises DTypeError for bool tensors and for a floating ``alpha`` with integer tensors.
    """
    if third is None and type(alpha) is int and alpha == 1:
        result = pw.sub(input, other)
    else:
        record, inputs = _scaled("sub", pw.sub, pw.sub_scaled, input, other, alpha, third)
        result = record(*inputs)
    return result if out is None else deliver("sub", result, out)


@calls(pw.sub, "x operand", alike=True, into=True)
@calls(pw.sub_scaled, "x operand - number", alike=True, into=True)
def sub_(self: Tensor, other: Any, third: Any = None, *, alpha: Any = 1) -> Tensor:
    """In-place form of ``sub``."""
    record, inputs = _scaled("sub_", pw.sub, pw.sub_scaled, self, other, alpha, third)
    return write_into(record, self, inputs, {})


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Any:
    """``other - alpha * input``."""
    require_tensor_arguments("rsub", input=input)
    return sub(other, input, alpha=alpha)


def _divider(rounding_mode: str | None) -> Elementwise:
    rounding = {None: pw.div, "floor": pw.floor_divide, "trunc": pw.trunc_divide}
    found = rounding.get(rounding_mode) if rounding_mode is None or isinstance(rounding_mode, str) else None
    if found is None:
        raise ArgumentError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}.")
    return found


@calls(pw.div, "x operand", alike=True)
def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    """``input / other``; with ``rounding_mode`` "floor" or "trunc" the quotient is rounded, in the inputs' dtype."""
    if rounding_mode is None:
        result = pw.div(input, other)
    elif rounding_mode == "trunc" and _is_half(input, other):
        result = pw.trunc(pw.div(input, other))
    else:
        result = _divider(rounding_mode)(input, other)
    return result if out is None else deliver("div", result, out)


def _is_half(*operands: Any) -> bool:
    """Whether the quotient is float16 or bfloat16: PyTorch rounds it to that before it cuts off the fraction."""
    dtype = _dtype_of(*operands)
    return dtype.is_floating_point and dtype.itemsize == 2


@calls(pw.div, "x operand", alike=True, into=True)
def div_(self: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """In-place form of ``div``."""
    if rounding_mode == "trunc" and _is_half(self, other):
        return write_into(assign, self, (self, div(self, other, rounding_mode=rounding_mode)), {})
    return write_into(_divider(rounding_mode), self, (self, other), {})


def square(input: Tensor, *, out: Any = None) -> Any:
    """``input * input``; bool tensors give int64."""
    result = _checked_pow(input, 2)
    return result if out is None else deliver("square", result, out)


def square_(self: Tensor) -> Tensor:
    """In-place form of ``square``."""
    return write_into(pw.square, self, (self,), {}) if self.dtype.category else pow_(self, 2)


def pow(input: Any, exponent: Any, *, out: Any = None) -> Any:
    """``input ** exponent``. Raises DTypeError for an integer tensor to a negative integer power."""
    result = _checked_pow(input, exponent)
    return result if out is None else deliver("pow", result, out)


def _checked_pow(input: Any, exponent: Any) -> Any:
    if isinstance(input, Tensor) and type(exponent) in (int, float):
        if type(exponent) is int:
            _check_power(input, exponent)
        category = input.dtype.category
        if category > 1:
            spelled = _POWERS.get(exponent) or (_LONG_POWERS.get(exponent) if input.dtype.itemsize > 2 else None)
            if spelled is not None:
                return spelled(input)
        elif category == 1 and exponent == 2 and type(exponent) is int:
            return pw.square(input)
    return pw.pow(input, exponent)


def _fourth(x: Tensor) -> Tensor:
    return pw.square(pw.square(x))


def _fifth(x: Tensor) -> Tensor:
    return pw.mul(_fourth(x), x)


def _sixth(x: Tensor) -> Tensor:
    return pw.square(pw.cube(x))


# Powers of floating-point and complex tensors as products and roots: exact to an ulp or three, in a tenth of the time
# of pow() where elements are many. The second ones not in half precision, which would round what lies between the
# steps; there PyTorch, too, takes pow() for -0.5, whose infinity at -0.0 is positive.
_POWERS = {2: pw.square, 3: pw.cube, 0.5: pw.sqrt, -1: pw.reciprocal}
_LONG_POWERS = {4: _fourth, 5: _fifth, 6: _sixth, -2: pw.inverse_square, -0.5: pw.rsqrt}


def _check_power(input: Tensor, exponent: int) -> None:
    if exponent < 0 and input.dtype.category < 2:
        raise DTypeError("pow: integers to negative integer powers are not allowed; use input.float() ** exponent.")


def pow_(self: Tensor, exponent: Any) -> Tensor:
    """In-place form of ``pow``."""
    if type(exponent) is int:
        _check_power(self, exponent)
    return write_into(pw.pow, self, (self, exponent), {})


def float_power(input: Any, exponent: Any, *, out: Any = None) -> Any:
    """``input ** exponent`` computed in float64, or in complex128 if either is complex.

    Raises DTypeError for an ``out`` of another dtype.
    """
    if not isinstance(input, Tensor) and not isinstance(exponent, Tensor):
        require_tensor_arguments("float_power", input=input)
    kind = "complex128" if _dtype_of(input, exponent).category == 3 else "float64"
    if out is not None and out.dtype.name != kind:
        raise DTypeError(f"float_power: the result is {kind}, out is {out.dtype}.")
    result = pw.pow(_as(input, kind), _as(exponent, kind))
    return result if out is None else deliver("float_power", result, out)


def _as(x: Any, kind: str) -> Any:
    if isinstance(x, Tensor):
        dtype = BY_NAME[kind].np
        return x if x._data.dtype == dtype else cast(x, dtype=dtype)
    return complex(x) if kind == "complex128" else float(x)


def float_power_(self: Tensor, exponent: Any) -> Tensor:
    """In-place form of ``float_power``. Raises DTypeError unless the tensor has the dtype that it computes in."""
    kind = "complex128" if _dtype_of(self, exponent).category == 3 else "float64"
    if self.dtype.name != kind:
        raise DTypeError(f"float_power_: the result is {kind} and can't be stored in a tensor of {self.dtype}.")
    return write_into(pw.pow, self, (self, _as(exponent, kind)), {})


# --- of three


def _three(name: str, input: Any, tensor1: Any, tensor2: Any, third: Any, value: Any) -> tuple[Any, ...]:
    """The four inputs of addcmul and addcdiv; PyTorch's old order has ``value`` second."""
    if third is not None:
        value, tensor1, tensor2 = tensor1, tensor2, third
    require_tensor_arguments(name, input=input, tensor1=tensor1, tensor2=tensor2)
    require_number(name, "value", value)
    dtype = _dtype_of(input, tensor1, tensor2)
    if not dtype.category:
        raise DTypeError(f"{name}: not defined for bool tensors; convert to an integer dtype first.")
    if type(value) is complex and dtype.category < 3:
        raise DTypeError(f"{name}: a complex value does not go with {dtype} tensors.")
    if dtype.category == 1:
        value = stored_number(name, value, dtype)
    check_factor(name, value, dtype)
    return input, tensor1, tensor2, value


@calls(pw.addcmul, "x x x - number", alike=True)
def addcmul(input: Any, tensor1: Any, tensor2: Any, third: Any = None, *, value: Any = 1, out: Any = None) -> Any:
    """``input + value * tensor1 * tensor2``; the old order ``addcmul(input, value, tensor1, tensor2)`` works too."""
    result = pw.addcmul(*_three("addcmul", input, tensor1, tensor2, third, value))
    return result if out is None else deliver("addcmul", result, out)


@calls(pw.addcmul, "x x x - number", alike=True, into=True)
def addcmul_(self: Tensor, tensor1: Any, tensor2: Any, third: Any = None, *, value: Any = 1) -> Tensor:
    """In-place form of ``addcmul``."""
    return write_into(pw.addcmul, self, _three("addcmul_", self, tensor1, tensor2, third, value), {})


def _quotients(name: str, *given: Any) -> tuple[Any, ...]:
    inputs = _three(name, *given)
    if inputs[1].dtype.category < 2 and inputs[2].dtype.category < 2:
        raise DTypeError(f"{name}: integer division is not supported; convert with .float().")
    return inputs


@calls(pw.addcdiv, "x x x - number", alike=True)
def addcdiv(input: Any, tensor1: Any, tensor2: Any, third: Any = None, *, value: Any = 1, out: Any = None) -> Any:
    """``input + value * tensor1 / tensor2``; the old order ``addcdiv(input, value, tensor1, tensor2)`` works too.

    Raises DTypeError for a quotient of integer tensors.
    """
    result = pw.addcdiv(*_quotients("addcdiv", input, tensor1, tensor2, third, value))
    return result if out is None else deliver("addcdiv", result, out)


@calls(pw.addcdiv, "x x x - number", alike=True, into=True)
def addcdiv_(self: Tensor, tensor1: Any, tensor2: Any, third: Any = None, *, value: Any = 1) -> Tensor:
    """In-place form of ``addcdiv``."""
    return write_into(pw.addcdiv, self, _quotients("addcdiv_", self, tensor1, tensor2, third, value), {})


def _lerp_inputs(name: str, input: Any, end: Any, weight: Any) -> tuple[Any, ...]:
    require_tensor_arguments(name, input=input, end=end)
    dtype = input.dtype
    for label, x in (("end", end), ("weight", weight)):
        if isinstance(x, Tensor) and x.dtype is not dtype and not (label == "weight" and x._data.ndim == 0):
            raise DTypeError(f"{name}: expected dtype {dtype} for {label}, as input has it, got {x.dtype}.")
    if dtype.category < 2:
        raise DTypeError(f"{name}: expected floating-point tensors, got {dtype}. Convert with .float().")
    if isinstance(weight, Tensor) and weight.dtype is not dtype:
        weight = cast(weight, dtype=dtype.np)
    elif type(weight) is complex and dtype.category < 3:
        raise DTypeError(f"{name}: a complex weight does not go with {dtype} tensors.")
    check_factor(name, weight, dtype)
    return input, end, weight


@calls(pw.lerp, "x x operand", alike=True)
def lerp(input: Tensor, end: Tensor, weight: Any, *, out: Any = None) -> Any:
    """``input + weight * (end - input)``; ``weight`` is a number or a tensor.

    Raises DTypeError for tensors of different dtypes, and for integers.
    """
    result = pw.lerp(*_lerp_inputs("lerp", input, end, weight))
    return result if out is None else deliver("lerp", result, out)


@calls(pw.lerp, "x x operand", alike=True, into=True)
def lerp_(self: Tensor, end: Tensor, weight: Any) -> Tensor:
    """In-place form of ``lerp``."""
    return write_into(pw.lerp, self, _lerp_inputs("lerp_", self, end, weight), {})


subtract, divide, true_divide = sub, div, div
_methods: tuple[Callable[..., Any], ...] = (
    add, add_, addcdiv, addcdiv_, addcmul, addcmul_, div, div_, float_power, float_power_, lerp, lerp_, pow, pow_,
    square, square_, sub, sub_,
)  # fmt: skip
for _given in _methods:
    install(_given)
_other_names: dict[str, Callable[..., Any]] = {
    "subtract": sub, "subtract_": sub_, "divide": div, "divide_": div_, "true_divide": div, "true_divide_": div_,
}  # fmt: skip
for _alias, _taken in _other_names.items():
    install(_taken, _alias)
