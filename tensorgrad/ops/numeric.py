"""Elementwise functions of how numbers are made: signs, parts and neighbours of floats, divisors, units of angles.

The first part are formulas, the second records whose kernels are in ``backends.generic.numeric``; what users call is
written in ``public.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import key_of, numpy_dtype, result_name
from ..errors import DTypeError
from ..expr import functions as fn
from .checks import is_float, np_dtype
from .elementwise import broadcast_shape, elementwise, fit
from .record import Spec, op
from .samples import Arg, Sample, binary, unary


# --- signs
def _negative(x: Any) -> Any:
    """Whether the sign bit is set: also that of -0.0, which no comparison sees."""
    return (x < 0) | (fn.eq(x, 0) & fn.lt(1 / x, 0))


signbit = elementwise(lambda input: _negative(input), name="signbit", samples=unary(avoid=(0,), smooth=False))


def _copysign(a: Any, b: Any) -> Any:
    size = fn.abs(fn.alike(a, b)) / 1  # floating point, also of integers
    return fn.where(_negative(b), -size, size)


copysign = elementwise(
    _copysign,
    name="copysign",
    vjp=lambda g, y, a, b: (fn.where(fn.eq(a, 0), 0, fn.where(fn.ne(_negative(y), a < 0), -g, g)), fn.alike(0, g)),
    samples=binary(avoid=(0,)),
    doc="The size of ``input`` with the sign of ``other``; floating point, also of integers.",
)
heaviside = elementwise(
    lambda input, values: fn.where(fn.eq(input, 0), values, fn.gt(input, 0)),
    name="heaviside",
    samples=binary(smooth=False),
    doc="0 for negative ``input``, 1 for positive, ``values`` at 0.",
)
isposinf = elementwise(lambda input: fn.isinf(input) & (input > 0), name="isposinf", samples=unary(smooth=False))
isneginf = elementwise(lambda input: fn.isinf(input) & (input < 0), name="isneginf", samples=unary(smooth=False))
isreal = elementwise(lambda input: fn.eq(fn.imag(input), 0), name="isreal", samples=unary(smooth=False, kinds="c"))

# --- parts, sizes and powers
frac = elementwise(
    lambda input: input - fn.trunc(input), name="frac", samples=unary(avoid=(-2, -1, 0, 1, 2)),
    doc="What is behind the point: ``input - trunc(input)``, with the sign of ``input``.",
)  # fmt: skip


def _ldexp_rule(g: Any, y: Any, a: Any, b: Any) -> tuple[Any, ...]:
    power = fn.pow(2.0, fn.alike(b, g))  # g is as a result is: the input is not kept for its dtype
    return g * fn.conj(power), g * fn.conj(a * power) * math.log(2)


ldexp = elementwise(
    lambda input, other: input * fn.pow(2.0, fn.alike(other, input)),
    name="ldexp",
    vjp=_ldexp_rule,
    samples=binary(),
    doc="``input * 2**other``.",
)


hypot = elementwise(
    fn.hypot,
    name="hypot",
    vjp=lambda g, y, a, b: (g * (a / y), g * (b / y)),
    samples=binary(avoid=(0,)),
    doc="The length ``sqrt(input**2 + other**2)``, without overflow on the way.",
)
fmax = elementwise(
    lambda input, other: fn.where(
        fn.isnan(input), other, fn.where(fn.isnan(other), input, fn.maximum(input, other))
    ),
    name="fmax",
    vjp=lambda g, y, a, b: (
        fn.where(fn.ge(a, b) | fn.isnan(b), g, 0), fn.where(fn.ge(a, b) | fn.isnan(b), 0, g)
    ),
    samples=binary(),
    doc="The larger of two; NaN only where both are. At ties the gradient goes to the first.",
)  # fmt: skip
fmin = elementwise(
    lambda input, other: fn.where(
        fn.isnan(input), other, fn.where(fn.isnan(other), input, fn.minimum(input, other))
    ),
    name="fmin",
    vjp=lambda g, y, a, b: (
        fn.where(fn.le(a, b) | fn.isnan(b), g, 0), fn.where(fn.le(a, b) | fn.isnan(b), 0, g)
    ),
    samples=binary(),
    doc="The smaller of two; NaN only where both are. At ties the gradient goes to the first.",
)  # fmt: skip


def _logaddexp2(a: Any, b: Any) -> Any:
    sum_ = fn.maximum(a, b) + fn.log1p(fn.exp2(-fn.abs(a - b))) / math.log(2)
    return fn.where(fn.eq(a, b) & fn.isinf(a), a, sum_)


def _share2(a: Any, b: Any) -> Any:
    """``2**a / (2**a + 2**b)``; a half where both are infinite."""
    return fn.where(fn.eq(a, b) & fn.isinf(a), 0.5, fn.sigmoid((a - b) * math.log(2)))


logaddexp2 = elementwise(
    _logaddexp2,
    name="logaddexp2",
    vjp=lambda g, y, a, b: (g * _share2(a, b), g * _share2(b, a)),
    samples=binary(),
    doc="``log2(2**input + 2**other)``.",
)

# --- angles
deg2rad = elementwise(lambda input: input * (math.pi / 180), name="deg2rad", samples=unary())
rad2deg = elementwise(lambda input: input * (180 / math.pi), name="rad2deg", samples=unary())
polar = elementwise(
    lambda abs, angle: fn.complex_(abs * fn.cos(angle), abs * fn.sin(angle)),
    name="polar",
    samples=binary(),
    doc="The complex number of this size and angle.",
)


# --- records
def _of_integers(name: str, a: Any, b: Any) -> Spec:
    dtype = _common(a, b)
    if dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected integers, got {a.dtype.name} and {b.dtype.name}.")
    return Spec(broadcast_shape(name, tuple(a.shape), tuple(b.shape)), dtype)


def _common(*arrays: Any) -> np.dtype[Any]:
    return numpy_dtype(result_name(tuple(map(key_of, arrays))))


_INTEGER_PAIRS = (
    Sample((Arg((3, 4), -30, 30, kind="i"), Arg((4,), -30, 30, kind="i")), smooth=False, name="broadcast"),
    Sample((Arg((), 0, 30, kind="i"), Arg((2, 0), kind="i")), smooth=False, name="empty"),
)
gcd = op(
    "gcd",
    infer=lambda input, other: _of_integers("gcd", input, other),
    samples=lambda: _INTEGER_PAIRS,
    doc="The greatest common divisor, not negative; that of 0 and n is abs(n).",
)
lcm = op(
    "lcm",
    infer=lambda input, other: _of_integers("lcm", input, other),
    samples=lambda: _INTEGER_PAIRS,
    doc="The least common multiple, not negative.",
)


def _of_floats(name: str, *arrays: Any) -> Spec:
    dtype = _common(*arrays)
    if not is_float(dtype):
        raise DTypeError(f"{name}: expected a floating-point tensor, got {dtype.name}. Convert it with .float().")
    return Spec(broadcast_shape(name, *(tuple(x.shape) for x in arrays)), dtype)


def _nextafter_rule(F: Any, g: Any, input: Any, other: Any, *, needs: Any) -> tuple[Any, ...]:
    if not needs[0]:
        return None, None
    moved = F.masked_fill(g, F.eq(input, other), 0.0)
    return fit(F, moved, tuple(input.shape), np_dtype(input)), None


nextafter = op(
    "nextafter",
    infer=lambda input, other: _of_floats("nextafter", input, other),
    rule=_nextafter_rule,
    keeps=("input", "other"),
    samples=lambda: (Sample((Arg((3, 4)), Arg((4,))), smooth=False, name="broadcast"),),
    doc="The number next to ``input`` in the direction of ``other``.",
)


def _frexp_infer(input: Any) -> tuple[Spec, Spec]:
    spec = _of_floats("frexp", input)
    return spec, Spec(spec.shape, np.dtype(np.int32))


def _frexp_rule(F: Any, g: Any, input: Any, *, needs: Any, exponent: Any) -> tuple[Any, ...]:
    mantissa_grad = g[0]
    if mantissa_grad is None:
        return (None,)
    return (F.mul(mantissa_grad, F.exp2(F.neg(F.cast(exponent, dtype=input.dtype)))),)


frexp = op(
    "frexp",
    infer=_frexp_infer,
    rule=_frexp_rule,
    keeps=("exponent",),
    outputs=("mantissa", "exponent"),
    nondiff=("exponent",),
    samples=lambda: (Sample((Arg((3, 4), 0.6, 0.9),), name="halves"), Sample((Arg((), -9.0, -8.5),), name="scalar")),
    doc="``input = mantissa * 2**exponent`` with ``0.5 <= abs(mantissa) < 1``.",
)
