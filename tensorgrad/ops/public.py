"""The elementwise functions as users call them: PyTorch's signatures, Tensor methods, in-place forms, ``out=``.

Most are the records of ``pointwise`` and ``numeric`` as they stand, published by ``signatures``; functions whose
arguments need thought are written out here, in ``arithmetic`` and in ``selection``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, NamedTuple

from ..dtypes import DType, as_dtype, key_of, result_name
from ..dtypes import can_cast as can_cast
from ..dtypes import promote_types as promote_types
from ..errors import DTypeError
from ..tensor import Tensor, install
from . import numeric as nm
from . import pointwise as pw
from .checks import integer, real, require_outs
from .inplace import assign, deliver, deliver_same, write_into
from .signatures import publish, require_tensor_arguments

# by what may be a Python number: see ``signatures``
_UNARY = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "bitwise_not", "ceil", "cos", "cosh", "deg2rad",
    "digamma", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor", "isfinite", "isinf", "isnan",
    "isneginf", "isposinf", "isreal", "lgamma", "log", "log10", "log1p", "log2", "logical_not", "neg", "rad2deg",
    "reciprocal", "rsqrt", "sigmoid", "signbit", "sin", "sinc", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
_BINARY = {
    "any": ("bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "floor_divide",
            "mul", "remainder", "xlogy"),
    "other": ("copysign", "eq", "fmod", "ge", "gt", "le", "lt", "ne"),
    "none": ("atan2", "fmax", "fmin", "gcd", "hypot", "lcm", "ldexp", "logaddexp", "logaddexp2",
             "logical_and", "logical_or", "logical_xor", "maximum", "minimum", "nextafter"),
}  # fmt: skip
_ALIASES = {
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "fix": "trunc", "greater": "gt", "greater_equal": "ge", "less": "lt",
    "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne",
}  # fmt: skip
_NO_INPLACE = frozenset((
    "fmax", "fmin", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "isreal", "logaddexp", "logaddexp2",
    "maximum", "minimum", "signbit",
))  # fmt: skip
_SAME = frozenset((  # written into an ``out`` of the result's dtype alone
    "bitwise_not", "ceil", "floor", "isneginf", "isposinf", "neg", "signbit", "trunc",
))  # fmt: skip

__all__ = [
    "abs", "absolute", "angle", "can_cast", "complex", "conj", "conj_physical", "frac", "frexp", "heaviside",
    "is_conj", "is_neg", "is_signed", "logit", "polar", "positive", "promote_types", "result_type", "round", "sgn",
    "sign",
    *_UNARY, *(name for group in _BINARY.values() for name in group), *_ALIASES,
]  # fmt: skip

for _numbers, _names in [("any", _UNARY), *_BINARY.items()]:
    for _name in _names:
        _record = getattr(pw, _name, None) or getattr(nm, _name)
        globals()[_name] = publish(
            _name, _record, numbers=_numbers, inplace=_name not in _NO_INPLACE, same=_name in _SAME
        )
for _alias, _name in _ALIASES.items():
    globals()[_alias] = globals()[_name]
    install(globals()[_name], _alias)
    if _name not in _NO_INPLACE:
        install(getattr(Tensor, f"{_name}_"), f"{_alias}_")


def abs(input: Tensor, *, out: Any = None) -> Any:
    """The size of every number, real for complex ones. Raises DTypeError for bool tensors."""
    if isinstance(input, Tensor) and input._data.dtype.kind == "b":
        raise DTypeError("abs: not defined for bool tensors; convert to an integer dtype first.")
    return pw.abs(input) if out is None else deliver_same("abs", pw.abs(input), out)


def abs_(self: Tensor) -> Tensor:
    """In-place form of ``abs``. Raises DTypeError for bool tensors, and for complex ones, whose sizes are real."""
    if self.dtype.category not in (1, 2):
        raise DTypeError(f"abs_: not defined in place for {self.dtype}; use abs().")
    return write_into(pw.abs, self, (self,), {})


absolute, absolute_ = abs, abs_


def _require_float(name: str, input: Any) -> None:
    if isinstance(input, Tensor) and not input.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating-point tensor, got {input.dtype}. Convert it with .float().")


def frac(input: Tensor, *, out: Any = None) -> Any:
    """What is behind the point: ``input - trunc(input)``. Raises DTypeError unless ``input`` is floating point."""
    _require_float("frac", input)
    return nm.frac(input) if out is None else deliver_same("frac", nm.frac(input), out)


def frac_(self: Tensor) -> Tensor:
    """In-place form of ``frac``."""
    _require_float("frac_", self)
    return write_into(nm.frac, self, (self,), {})


def _require_alike(name: str, input: Any, values: Any) -> None:
    require_tensor_arguments(name, input=input, values=values)
    if input.dtype is not values.dtype or input.dtype.is_complex:
        raise DTypeError(f"{name}: expected two real tensors of the same dtype, got {input.dtype} and {values.dtype}.")


def heaviside(input: Tensor, values: Tensor, *, out: Any = None) -> Any:
    """0 for negative ``input``, 1 for positive, ``values`` at 0. Raises DTypeError for tensors of different dtypes."""
    _require_alike("heaviside", input, values)
    return nm.heaviside(input, values) if out is None else deliver_same("heaviside", nm.heaviside(input, values), out)


def heaviside_(self: Tensor, values: Tensor) -> Tensor:
    """In-place form of ``heaviside``."""
    _require_alike("heaviside_", self, values)
    return write_into(nm.heaviside, self, (self, values), {})


def sign(input: Tensor, *, out: Any = None) -> Any:
    """-1, 0 or 1. Raises DTypeError for complex numbers, whose direction is ``sgn``."""
    if isinstance(input, Tensor) and input.dtype.category == 3:
        raise DTypeError("sign: complex numbers have no sign; their direction is sgn().")
    result = pw.sign(input)
    return result if out is None else deliver_same("sign", result, out)


def sign_(self: Tensor) -> Tensor:
    """In-place form of ``sign``."""
    if self.dtype.category == 3:
        raise DTypeError("sign_: complex numbers have no sign; their direction is sgn_().")
    return write_into(pw.sign, self, (self,), {})


class MantissaExponent(NamedTuple):
    """What ``frexp`` returns."""

    mantissa: Tensor
    exponent: Tensor


def sgn(input: Tensor, *, out: Any = None) -> Any:
    """``sign`` of real numbers, ``z / |z|`` of complex ones and 0 at 0."""
    record = pw.direction if isinstance(input, Tensor) and input.dtype.category == 3 else pw.sign
    return record(input) if out is None else deliver_same("sgn", record(input), out)


def sgn_(self: Tensor) -> Tensor:
    """In-place form of ``sgn``."""
    return write_into(pw.direction if self.dtype.category == 3 else pw.sign, self, (self,), {})


def frexp(input: Tensor, *, out: Any = None) -> Any:
    """(mantissa, exponent) with ``input = mantissa * 2**exponent`` and ``0.5 <= abs(mantissa) < 1``.

    Raises DTypeError unless ``input`` is floating point.
    """
    require_tensor_arguments("frexp", input=input)
    parts = nm.frexp(input)
    if out is not None:
        require_outs("frexp", out)
        if out[1].dtype is not parts[1].dtype:
            raise DTypeError(f"frexp: expects exponent to have {parts[1].dtype}, but got {out[1].dtype}.")
        parts = tuple(deliver_same("frexp", part, target) for part, target in zip(parts, out, strict=True))
    return MantissaExponent(*parts)


def positive(input: Tensor) -> Any:
    """``input`` itself, as ``+input``. Raises DTypeError for bool tensors."""
    require_tensor_arguments("positive", input=input)
    if not input.dtype.category:
        raise DTypeError("positive: not defined for bool tensors; convert to an integer dtype first.")
    return input


def conj(input: Tensor) -> Any:
    """The conjugates of complex numbers, computed at once; a real tensor is returned itself."""
    require_tensor_arguments("conj", input=input)
    return input if isinstance(input, Tensor) and input.dtype.category < 3 else pw.conj(input)


def conj_physical(input: Tensor, *, out: Any = None) -> Any:
    """The conjugates of complex numbers; a real tensor is returned itself."""
    result = conj(input)
    return result if out is None else deliver_same("conj_physical", result, out)


def conj_physical_(self: Tensor) -> Tensor:
    """In-place form of ``conj_physical``."""
    return write_into(pw.conj, self, (self,), {}) if self.dtype.category == 3 else self


def is_conj(input: Tensor) -> bool:
    """False: ``conj`` computes at once here."""
    require_tensor_arguments("is_conj", input=input)
    return False


def is_neg(input: Tensor) -> bool:
    """False: no tensor here waits to be negated."""
    require_tensor_arguments("is_neg", input=input)
    return False


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    require_tensor_arguments("is_signed", input=input)
    return input.dtype.is_signed


def angle(input: Tensor, *, out: Any = None) -> Any:
    """The argument of complex numbers; pi for negative real ones, 0 for the others, NaN for NaN."""
    record = pw.angle_of_real if isinstance(input, Tensor) and input.dtype.category == 2 else pw.angle
    result = record(input)
    return result if out is None else deliver("angle", result, out)


def _rounded(input: Any, decimals: int) -> Any:
    decimals = integer("round", "decimals", decimals)
    if decimals == 0:
        return pw.round(input)
    if isinstance(input, Tensor) and input.dtype.category < 2:
        raise DTypeError(f"round: decimals need a floating-point tensor, got {input.dtype}.")
    scale = 10.0 ** builtins.abs(decimals) if builtins.abs(decimals) <= 308 else float("inf")
    if decimals > 0:
        return pw.div(pw.round(pw.mul(input, scale)), scale)
    return pw.mul(pw.round(pw.div(input, scale)), scale)


def round(input: Tensor, *, decimals: int = 0, out: Any = None) -> Any:
    """The nearest integer, halves to the even one; with ``decimals`` the nearest multiple of ``10**-decimals``."""
    result = _rounded(input, decimals)
    return result if out is None else deliver_same("round", result, out)


def round_(self: Tensor, *, decimals: int = 0) -> Tensor:
    """In-place form of ``round``."""
    if integer("round_", "decimals", decimals) == 0:
        return write_into(pw.round, self, (self,), {})
    return write_into(assign, self, (self, _rounded(self, decimals)), {})


def logit(input: Tensor, eps: float | None = None, *, out: Any = None) -> Any:
    """``log(x / (1 - x))``, with ``x`` limited to ``[eps, 1 - eps]`` if ``eps`` is given."""
    result = pw.logit(input) if eps is None else pw.logit_within(input, real("logit", "eps", eps))
    return result if out is None else deliver("logit", result, out)


def logit_(self: Tensor, eps: float | None = None) -> Tensor:
    """In-place form of ``logit``."""
    record, inputs = (pw.logit, (self,)) if eps is None else (pw.logit_within, (self, real("logit_", "eps", eps)))
    return write_into(record, self, inputs, {})


def _of_two_parts(name: str, record: Any, first: Any, second: Any, out: Any) -> Any:
    if first.dtype != second.dtype or first.dtype.name not in ("float32", "float64"):
        raise DTypeError(
            f"{name}: expected two tensors of float32 or of float64, got {first.dtype} and {second.dtype}."
        )
    result = record(first, second)
    if out is None:
        return result
    if out.dtype is not result.dtype:
        raise DTypeError(f"{name}: the result is {result.dtype}, out is {out.dtype}.")
    return deliver(name, result, out)


def complex(real: Tensor, imag: Tensor, *, out: Any = None) -> Any:
    """The complex tensor of these parts, two of the same floating dtype. Raises DTypeError otherwise."""
    require_tensor_arguments("complex", real=real, imag=imag)
    return _of_two_parts("complex", pw.complex_, real, imag, out)


def polar(abs: Tensor, angle: Tensor, *, out: Any = None) -> Any:
    """The complex tensor of these sizes and angles, two of the same floating dtype. Raises DTypeError otherwise."""
    require_tensor_arguments("polar", abs=abs, angle=angle)
    return _of_two_parts("polar", nm.polar, abs, angle, out)


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype that an operation on the two (tensors or numbers) would have."""
    keys = tuple(key_of(x._data if isinstance(x, Tensor) else x) for x in (tensor1, tensor2))
    return as_dtype(result_name(keys))


_methods: tuple[Callable[..., Any], ...] = (
    abs, abs_, angle, conj, conj_physical, conj_physical_, frac, frac_, frexp, heaviside, heaviside_, is_conj, is_neg,
    is_signed, logit, logit_, positive, round, round_, sgn, sgn_, sign,
)  # fmt: skip
for _given in _methods:
    install(_given)
install(abs, "absolute")
install(abs_, "absolute_")
install(sign_)
