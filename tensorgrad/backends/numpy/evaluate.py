"""Evaluates a typed program step by step over an array namespace: the reference for every other evaluator.

Special functions that NumPy lacks are in ``special.py``. Values are computed in the program's compute types, whatever
is stored: float16 and bfloat16 in float32, integers in int64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...dtypes import numpy_dtype
from ...expr import Program
from . import gamma, special
from .convert import converted

__all__ = ["evaluate"]

COMPUTE_DTYPE = {
    "bool": np.dtype(bool),
    "i64": np.dtype(np.int64),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "c64": np.dtype(np.complex64),
    "c128": np.dtype(np.complex128),
}

Step = Callable[..., Any]

_UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "neg": "negative", "abs": "absolute", "min": "minimum",
    "max": "maximum", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "not": "bitwise_not",
    "shl": "left_shift", "shr": "right_shift", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log",
    "log2": "log2", "log10": "log10", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos", "tan": "tan",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "atan2": "arctan2", "hypot": "hypot",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint", "isnan": "isnan", "isinf": "isinf",
    "isfinite": "isfinite", "conj": "conjugate", "where": "where", "real": "real", "imag": "imag", "angle": "angle",
}  # fmt: skip


def _div(xp: Any, kind: str, a: Any, b: Any) -> Any:
    return xp.true_divide(a, b)


def _sign(xp: Any, kind: str, a: Any) -> Any:
    return xp.sign(a)


def _fmod(xp: Any, kind: str, a: Any, b: Any) -> Any:
    if kind == "i64":
        safe = xp.where(b == 0, 1, b)
        return xp.where(b == 0, 0, xp.fmod(a, safe))
    return xp.fmod(a, b)


def _idiv(xp: Any, kind: str, a: Any, b: Any) -> Any:
    """C's integer division: towards zero; by zero gives zero."""
    safe = xp.where(b == 0, 1, b)
    quotient = xp.floor_divide(a, safe)
    quotient = quotient + ((quotient < 0) & (quotient * safe != a))
    return xp.where(b == 0, 0, quotient)


def _pow(xp: Any, kind: str, a: Any, b: Any) -> Any:
    if kind != "i64":
        return xp.power(a, b)
    # negative exponents truncate 1 / a**|b| towards zero: only 1 and -1 survive
    positive = xp.power(a, xp.where(b < 0, 0, b))
    odd = xp.where(b % 2 == 0, 1, -1)
    negative = xp.where(a == 1, 1, xp.where(a == -1, odd, 0))
    return xp.where(b < 0, negative, positive)


def _rsqrt(xp: Any, kind: str, a: Any) -> Any:
    return 1 / xp.sqrt(a)


def _sigmoid(xp: Any, kind: str, a: Any) -> Any:
    if kind in ("c64", "c128"):
        return 1 / (1 + xp.exp(-a))
    small = xp.exp(-xp.absolute(a))  # in (0, 1]: neither branch overflows
    return xp.where(a >= 0, 1, small) / (1 + small)


def _one_minus_square(xp: Any, kind: str, a: Any) -> Any:
    if kind == "f32":  # the square of a float is exact in double
        wide = a.astype(np.float64)
        return (1 - wide * wide).astype(a.dtype)
    return (1 - a) * (1 + a)


def _softplus(xp: Any, kind: str, a: Any) -> Any:
    return xp.maximum(a, 0) + xp.log1p(xp.exp(-xp.absolute(a)))


def _normal_cdf(xp: Any, kind: str, a: Any) -> Any:
    # in double, as the error function is: left of zero a rounded a / sqrt(2) would cost digits
    wide = a.astype(np.float64)
    return (0.5 * special.erfc(xp, "f64", wide * -math.sqrt(0.5))).astype(a.dtype)


def _gelu_slope(xp: Any, kind: str, a: Any) -> Any:
    wide = xp.clip(a.astype(np.float64), -40, 40)  # beyond, all is 0 or 1
    density = xp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return (_normal_cdf(xp, "f64", wide) + wide * density).astype(a.dtype)


# (1 + tanh(u / 2)) / 2 is sigmoid(u), which keeps the digits that 1 + tanh loses left of zero; in double, as there each
# digit that u loses is one of the result's
_LINEAR, _CUBIC = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715


def _gelu_tanh(xp: Any, kind: str, a: Any) -> Any:
    inside = xp.clip(a.astype(np.float64), -30, 30)  # beyond, the gate is 0 or 1
    return (a * _sigmoid(xp, "f64", inside * (_LINEAR + _CUBIC * (inside * inside)))).astype(a.dtype)


def _gelu_tanh_slope(xp: Any, kind: str, a: Any) -> Any:
    inside = xp.clip(a.astype(np.float64), -30, 30)
    square = inside * inside
    u = inside * (_LINEAR + _CUBIC * square)
    steep = inside * (_LINEAR + 3 * _CUBIC * square)
    return (_sigmoid(xp, "f64", u) * (1 + _sigmoid(xp, "f64", -u) * steep)).astype(a.dtype)


def _complex(xp: Any, kind: str, re: Any, im: Any) -> Any:
    out = xp.empty(xp.broadcast_shapes(re.shape, im.shape), dtype=COMPUTE_DTYPE[kind])
    out.real, out.imag = re, im
    return out


_OTHERS: dict[str, Callable[..., Any]] = {
    "div": _div, "sign": _sign, "fmod": _fmod, "idiv": _idiv, "pow": _pow, "rsqrt": _rsqrt, "sigmoid": _sigmoid,
    "softplus": _softplus, "normal_cdf": _normal_cdf, "gelu_slope": _gelu_slope,
    "gelu_tanh": _gelu_tanh, "gelu_tanh_slope": _gelu_tanh_slope,
    "one_minus_square": _one_minus_square,
    "complex": _complex, "erf": special.erf, "erfc": special.erfc, "erfinv": special.erfinv,
    "lgamma": special.lgamma, "digamma": special.digamma, "polygamma": special.polygamma,
    "igamma": gamma.igamma, "igammac": gamma.igammac, "zeta": gamma.zeta,
}  # fmt: skip


def evaluate(program: Program, args: Sequence[Any], xp: Any = np) -> tuple[Any, ...]:
    """The program's outputs for these inputs (arrays of ``xp`` and Python numbers), broadcast to one shape.

    Raises ValueError if the inputs' shapes do not broadcast.
    """
    shapes = [a.shape for a in args if hasattr(a, "shape")]
    same = bool(shapes) and shapes.count(shapes[0]) == len(shapes)
    shape = shapes[0] if same else xp.broadcast_shapes(*shapes)
    values: list[Any] = []
    ends = _ends(program) if len(program.code) > _LONG else None
    with np.errstate(all="ignore"):
        for op, kind, operands in program.code:
            values.append(_step(xp, op, kind, operands, values, args))
            if ends is not None:
                for value in ends[len(values) - 1]:
                    values[value] = None
        results: list[Any] = []
        for index, name in program.outputs:
            value, dtype = values[index], numpy_dtype(name)
            own = _is_own(value, shape, dtype) and not any(value is other for other in (*args, *results))
            results.append(value if own else _stored(xp, value, shape, dtype))
    return tuple(results)


_LONG = 12  # instructions; where there are more, values are dropped after their last use


@lru_cache(maxsize=256)
def _ends(program: Program) -> list[list[int]]:
    """By instruction: the values that it is the last to use."""
    last: dict[int, int] = {}
    for at, (op, _, operands) in enumerate(program.code):
        if op not in ("load", "const"):
            for value in operands[:1] if op == "wrap" else operands:
                last[value] = at
    for value, _ in program.outputs:
        last.pop(value, None)
    ends: list[list[int]] = [[] for _ in program.code]
    for value, at in last.items():
        ends[at].append(value)
    return ends


def _step(xp: Any, op: str, kind: str, operands: tuple[Any, ...], values: list[Any], args: Sequence[Any]) -> Any:
    dtype = COMPUTE_DTYPE[kind]
    if op == "load":
        given = args[operands[0]]
        if not hasattr(given, "dtype"):
            return _number(xp, given, dtype)
        return given if given.dtype == dtype else given.astype(dtype)
    if op == "const":
        return _number(xp, operands[0], dtype)
    if op == "wrap":
        return values[operands[0]].astype(numpy_dtype(operands[1])).astype(dtype)
    inputs = [values[i] for i in operands]
    if op == "cast":
        source = inputs[0]
        if source.dtype.kind == "c" and dtype.kind not in "cb":
            source = source.real
        return converted(xp, source, dtype)
    name = _UFUNCS.get(op)
    result = getattr(xp, name)(*inputs) if name is not None else _OTHERS[op](xp, kind, *inputs)
    if getattr(result, "dtype", None) != dtype:
        result = xp.asarray(result, dtype=dtype)
    return result


def fitting(value: Any) -> int:
    """A Python number as an integer. Raises OverflowError beyond int64, where it would become another number."""
    whole = int(value)
    if not -(2**63) <= whole < 2**63:
        raise OverflowError(f"the number {whole} does not fit int64")
    return whole


def _number(xp: Any, value: Any, dtype: Any) -> Any:
    if dtype.kind == "i":
        value = fitting(value)
    elif dtype.kind in "fb" and isinstance(value, complex):
        value = value.real
    return xp.asarray(value, dtype=dtype)


def _is_own(value: Any, shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether ``value`` is an array like a fresh one of this shape and dtype; not whether somebody else has it too."""
    if not shape or value.shape != shape or value.dtype != dtype:  # without dimensions NumPy computes scalars
        return False
    return value.base is None and bool(value.flags.owndata and value.flags.c_contiguous)


def _stored(xp: Any, value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """``value`` as a fresh array of this shape and dtype."""
    out = xp.empty(shape, dtype=dtype)
    out[...] = value if value.dtype == dtype else value.astype(dtype)
    return out
