"""The elementwise functions as users call them: PyTorch's signatures, Tensor methods, in-place forms, ``out=``.

Most are the records of ``pointwise`` as they stand, with ``out=`` added; the few whose arguments need thought are
written out. A name listed here becomes ``tensorgrad.name``, ``Tensor.name`` and, where it has one, ``Tensor.name_``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dtypes import DType, as_dtype, key_of, result_name
from ..dtypes import can_cast as can_cast
from ..dtypes import promote_types as promote_types
from ..errors import DTypeError
from ..tensor import Tensor, install
from . import pointwise as pw
from .create import as_operand, check_storable
from .elementwise import Elementwise
from .inplace import deliver, write_into

_PLAIN = (
    "abs", "acos", "acosh", "angle", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_left_shift",
    "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "conj", "cos", "cosh", "digamma", "eq",
    "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor", "floor_divide", "fmod", "ge", "gt", "isfinite",
    "isinf", "isnan", "le", "lerp", "lgamma", "log", "log10", "log1p", "log2", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul", "ne", "neg", "reciprocal",
    "remainder", "rsqrt", "sigmoid", "sign", "sin", "sinc", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "xlogy",
)  # fmt: skip
_ALIASES = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "fix": "trunc", "greater": "gt", "greater_equal": "ge", "less": "lt",
    "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne",
}  # fmt: skip
_NO_INPLACE = frozenset(("angle", "conj", "isfinite", "isinf", "isnan", "maximum", "minimum"))

__all__ = [
    "add", "addcdiv", "addcmul", "clamp", "clamp_max", "clamp_min", "clip", "complex", "div", "divide", "logit",
    "masked_fill", "nan_to_num", "pow", "result_type", "round", "sub", "subtract", "true_divide", "where",
    "can_cast", "promote_types", *_PLAIN, *_ALIASES,
]  # fmt: skip


def _public(name: str, record: Elementwise) -> Callable[..., Any]:
    """The record as a function with ``out=``; without it the call costs nothing extra."""

    def function(*inputs: Any, out: Any = None, **named: Any) -> Any:
        if named:
            inputs = _by_name(record, inputs, named)
        if out is not None:
            return deliver(name, record(*inputs), out)
        return record(*inputs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = record.__doc__ or f"Elementwise ``{record.formula}``."
    return function


def _by_name(record: Elementwise, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    rest = list(record.inputs[len(inputs) :])
    unknown = [key for key in named if key not in rest]
    if unknown:
        raise TypeError(f"{record.name}() got an unexpected keyword argument {unknown[0]!r}")
    missing = [key for key in rest if key not in named]
    if missing:
        raise TypeError(f"{record.name}() is missing the argument {missing[0]!r}")
    return (*inputs, *(named[key] for key in rest))


def _install_inplace(name: str, record: Elementwise) -> None:
    def in_place(self: Tensor, *others: Any) -> Tensor:
        return write_into(record, self, (self, *others), {})

    in_place.__name__ = f"{name}_"
    in_place.__doc__ = f"In-place form of ``{name}``."
    install(in_place)


for _name in _PLAIN:
    _record = getattr(pw, _name)
    globals()[_name] = _public(_name, _record)
    # the method is the record itself behind one call: the shortest way from x.exp() to the kernel
    install(globals()[_name], _name)
    if _name not in _NO_INPLACE:
        _install_inplace(_name, _record)
for _alias, _name in _ALIASES.items():
    globals()[_alias] = globals()[_name]
    install(globals()[_name], _alias)
    if _name not in _NO_INPLACE:
        install(getattr(Tensor, f"{_name}_"), f"{_alias}_")


def angle(input: Tensor, *, out: Any = None) -> Any:
    """The argument of complex numbers; pi for negative real ones, 0 for the others, NaN for NaN."""
    record = pw.angle_of_real if isinstance(input, Tensor) and input.dtype.category == 2 else pw.angle
    result = record(input)
    return result if out is None else deliver("angle", result, out)


def add(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """``input + alpha * other``."""
    result = pw.add(input, other) if alpha == 1 else pw.add_scaled(input, other, alpha)
    return result if out is None else deliver("add", result, out)


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """``input - alpha * other``."""
    result = pw.sub(input, other) if alpha == 1 else pw.sub_scaled(input, other, alpha)
    return result if out is None else deliver("sub", result, out)


def add_(self: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """In-place form of ``add``."""
    if alpha == 1:
        return write_into(pw.add, self, (self, other), {})
    return write_into(pw.add_scaled, self, (self, other, alpha), {})


def sub_(self: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """In-place form of ``sub``."""
    if alpha == 1:
        return write_into(pw.sub, self, (self, other), {})
    return write_into(pw.sub_scaled, self, (self, other, alpha), {})


def _divider(rounding_mode: str | None) -> Elementwise:
    found = {None: pw.div, "floor": pw.floor_divide, "trunc": pw.trunc_divide}.get(rounding_mode)
    if found is None:
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}.")
    return found


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    """``input / other``; with ``rounding_mode`` "floor" or "trunc" the quotient is rounded, in the inputs' dtype."""
    result = _divider(rounding_mode)(input, other)
    return result if out is None else deliver("div", result, out)


def div_(self: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """In-place form of ``div``."""
    return write_into(_divider(rounding_mode), self, (self, other), {})


def pow(input: Any, exponent: Any, *, out: Any = None) -> Any:
    """``input ** exponent``. Raises DTypeError for an integer tensor to a negative integer power."""
    result = _checked_pow(input, exponent)
    return result if out is None else deliver("pow", result, out)


def _checked_pow(input: Any, exponent: Any) -> Any:
    if type(exponent) is int and isinstance(input, Tensor):
        if exponent < 0 and input.dtype.category < 2:
            raise DTypeError("pow: integers to negative integer powers are not allowed; use input.float() ** exponent.")
        if exponent == 2:
            return pw.square(input)
        if exponent == 3 and input.dtype.category > 1:
            return pw.cube(input)
    elif type(exponent) is float and isinstance(input, Tensor) and input.dtype.category > 1:
        special = {2.0: pw.square, 3.0: pw.cube, 0.5: pw.sqrt}.get(exponent)
        if special is not None:
            return special(input)
    return pw.pow(input, exponent)


def pow_(self: Tensor, exponent: Any) -> Tensor:
    """In-place form of ``pow``."""
    return write_into(pw.pow, self, (self, exponent), {})


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Any = None) -> Any:
    """``input`` limited to ``[min, max]``; either bound may be None, a number or a tensor."""
    record, inputs = _clamping(input, min, max)
    result = record(*inputs)
    return result if out is None else deliver("clamp", result, out)


def _clamping(input: Any, low: Any, high: Any) -> tuple[Elementwise, tuple[Any, ...]]:
    if low is None and high is None:
        raise ValueError("clamp: at least one of min and max must be given.")
    if isinstance(input, Tensor) and input.dtype.category == 1:  # a bound that wraps would limit to another number
        for bound in (low, high):
            if type(bound) is int:
                check_storable("clamp", bound, input.dtype)
    if high is None:
        return pw.clamp_min, (input, low)
    if low is None:
        return pw.clamp_max, (input, high)
    return pw.clamp_both, (input, low, high)


def clamp_(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """In-place form of ``clamp``."""
    record, inputs = _clamping(self, min, max)
    return write_into(record, self, inputs, {})


def clamp_min(input: Tensor, min: Any) -> Any:
    """``input``, but not below ``min``."""
    return pw.clamp_min(input, min)


def clamp_max(input: Tensor, max: Any) -> Any:
    """``input``, but not above ``max``."""
    return pw.clamp_max(input, max)


def round(input: Tensor, *, decimals: int = 0, out: Any = None) -> Any:
    """The nearest integer, halves to the even one; with ``decimals`` the nearest multiple of ``10**-decimals``."""
    if decimals == 0:
        result = pw.round(input)
    elif decimals > 0:
        result = pw.round(input * 10.0**decimals) / 10.0**decimals
    else:
        result = pw.round(input / 10.0**-decimals) * 10.0**-decimals
    return result if out is None else deliver("round", result, out)


def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; with the condition alone, ``nonzero(as_tuple=True)``."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if isinstance(condition, Tensor) and condition.dtype.name not in ("bool", "uint8"):
        raise DTypeError(f"where: the condition must be bool, got {condition.dtype}. Write condition != 0.")
    for number, tensor in ((input, other), (other, input)):
        if type(number) is int and isinstance(tensor, Tensor) and tensor.dtype.category == 1:
            check_storable("where", number, tensor.dtype)
    result = pw.where(condition, input, other)
    return result if out is None else deliver("where", result, out)


def _fill_value(input: Tensor, mask: Any, value: Any) -> Any:
    if not isinstance(mask, Tensor) or mask.dtype.name != "bool":
        raise DTypeError(f"masked_fill: the mask must be a bool tensor, got {getattr(mask, 'dtype', type(mask))}.")
    ready = as_operand("masked_fill", value)
    if isinstance(ready, Tensor):
        if ready._data.ndim:
            raise DTypeError(f"masked_fill: value must be a number or a 0-d tensor, got {tuple(ready.shape)}.")
        if ready.dtype.category == 3 > input.dtype.category:
            raise DTypeError(f"masked_fill: value cannot be converted to {input.dtype} without overflow: {ready!r}.")
        return ready.to(input.dtype)
    kind = input._data.dtype.kind
    if type(ready).__name__ == "complex" and kind != "c":
        raise DTypeError(f"masked_fill: value cannot be converted to {input.dtype} without overflow: {ready!r}.")
    if kind == "b":
        return ready != 0
    if isinstance(ready, float) and kind in "iu" and abs(ready) < 2.0**63:
        ready = int(ready)  # towards zero, as PyTorch
    check_storable("masked_fill", ready, input.dtype)
    return ready


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``input`` with ``value`` where ``mask`` is True. Raises DTypeError for a mask that is not bool."""
    return pw.masked_fill(input, mask, _fill_value(input, mask, value))


def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """In-place form of ``masked_fill``."""
    return write_into(pw.masked_fill, self, (self, mask, _fill_value(self, mask, value)), {})


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, out: Any = None) -> Any:
    """``input + value * tensor1 * tensor2``."""
    result = pw.addcmul(input, tensor1, tensor2, value)
    return result if out is None else deliver("addcmul", result, out)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, out: Any = None) -> Any:
    """``input + value * tensor1 / tensor2``. Raises DTypeError for integer tensors."""
    if tensor1.dtype.category < 2 and tensor2.dtype.category < 2:
        raise DTypeError("addcdiv: integer division is not supported; convert with .float().")
    result = pw.addcdiv(input, tensor1, tensor2, value)
    return result if out is None else deliver("addcdiv", result, out)


def addcmul_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """In-place form of ``addcmul``."""
    return write_into(pw.addcmul, self, (self, tensor1, tensor2, value), {})


def addcdiv_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """In-place form of ``addcdiv``."""
    return write_into(pw.addcdiv, self, (self, tensor1, tensor2, value), {})


def logit(input: Tensor, eps: float | None = None, *, out: Any = None) -> Any:
    """``log(x / (1 - x))``, with ``x`` limited to ``[eps, 1 - eps]`` if ``eps`` is given."""
    result = pw.logit(input if eps is None else pw.clamp_both(input, eps, 1 - eps))
    return result if out is None else deliver("logit", result, out)


def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None, *, out: Any = None
) -> Any:
    """NaN and infinities replaced by numbers; infinities by default by the dtype's largest and lowest."""
    if input.dtype.category < 2:
        result: Any = input.clone()
    else:
        largest = _largest(input.dtype)
        result = pw.nan_to_num(
            input, nan, largest if posinf is None else posinf, -largest if neginf is None else neginf
        )
    return result if out is None else deliver("nan_to_num", result, out)


def _largest(dtype: DType) -> float:
    import numpy as np

    if dtype.name == "bfloat16":
        return 3.3895313892515355e38
    return float(np.finfo(dtype.np).max)


def complex(real: Tensor, imag: Tensor, *, out: Any = None) -> Any:
    """The complex tensor of these parts, two of the same floating dtype. Raises DTypeError otherwise."""
    if real.dtype != imag.dtype or real.dtype.name not in ("float32", "float64"):
        raise DTypeError(f"complex: expected two tensors of float32 or of float64, got {real.dtype} and {imag.dtype}.")
    result = pw.complex_(real, imag)
    return result if out is None else deliver("complex", result, out)


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype that an operation on the two (tensors or numbers) would have."""
    keys = tuple(key_of(x._data if isinstance(x, Tensor) else x) for x in (tensor1, tensor2))
    return as_dtype(result_name(keys))


clip, subtract, divide, true_divide = clamp, sub, div, div
_methods: tuple[Callable[..., Any], ...] = (
    add, add_, addcdiv, addcdiv_, addcmul, addcmul_, angle, clamp, clamp_, clamp_max, clamp_min, div, div_, logit,
    masked_fill, masked_fill_, nan_to_num, pow, pow_, round, sub, sub_,
)  # fmt: skip
for _given in _methods:
    install(_given)
_other_names: dict[str, Callable[..., Any]] = {
    "clip": clamp, "clip_": clamp_, "subtract": sub, "subtract_": sub_, "divide": div, "divide_": div_,
    "true_divide": div, "true_divide_": div_, "__pow__": pow,
}  # fmt: skip
for _alias, _taken in _other_names.items():
    install(_taken, _alias)
_install_inplace("round", pw.round)
_install_inplace("clamp_min", pw.clamp_min)
_install_inplace("clamp_max", pw.clamp_max)
install(lambda self, condition, other: where(condition, self, other), "where")
