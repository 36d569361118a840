"""Functions to write formulas with: primitives by name, and the few that are spelled in primitives.

Every function here takes expressions and Python numbers and returns an expression.
"""

from __future__ import annotations

from typing import Any

from .node import Expr, as_expr, call, constant

__all__ = [
    "abs",
    "acos",
    "acosh",
    "alike",
    "angle",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cast",
    "ceil",
    "complex_",
    "conj",
    "cos",
    "cosh",
    "digamma",
    "div",
    "eq",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "fmod",
    "ge",
    "gelu_slope",
    "gelu_tanh",
    "gelu_tanh_slope",
    "gt",
    "hypot",
    "igamma",
    "igammac",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "maximum",
    "minimum",
    "ne",
    "normal_cdf",
    "one_minus_square",
    "polygamma",
    "pow",
    "real",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "shl",
    "shr",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "truncdiv",
    "where",
    "zeta",
]  # fmt: skip


def _unary(op: str) -> Any:
    def primitive(x: Any) -> Expr:
        return call(op, x)

    primitive.__name__ = primitive.__qualname__ = op
    primitive.__doc__ = f"The primitive ``{op}(x)``."
    return primitive


def _binary(op: str) -> Any:
    def primitive(a: Any, b: Any) -> Expr:
        return call(op, a, b)

    primitive.__name__ = primitive.__qualname__ = op
    primitive.__doc__ = f"The primitive ``{op}(a, b)``."
    return primitive


exp, exp2, expm1 = _unary("exp"), _unary("exp2"), _unary("expm1")
log, log2, log10, log1p = _unary("log"), _unary("log2"), _unary("log10"), _unary("log1p")
sqrt, rsqrt, sigmoid, sign = _unary("sqrt"), _unary("rsqrt"), _unary("sigmoid"), _unary("sign")
sin, cos, tan = _unary("sin"), _unary("cos"), _unary("tan")
asin, acos, atan = _unary("asin"), _unary("acos"), _unary("atan")
sinh, cosh, tanh = _unary("sinh"), _unary("cosh"), _unary("tanh")
asinh, acosh, atanh = _unary("asinh"), _unary("acosh"), _unary("atanh")
erf, erfc, erfinv = _unary("erf"), _unary("erfc"), _unary("erfinv")
lgamma, digamma = _unary("lgamma"), _unary("digamma")
# 1 - x^2, rounded once, which tells near 1
one_minus_square = _unary("one_minus_square")
# log(1 + exp(x)); the normal distribution function Phi; the derivative of x Phi(x); GELU by tanh and its derivative
softplus, normal_cdf, gelu_slope = _unary("softplus"), _unary("normal_cdf"), _unary("gelu_slope")
gelu_tanh, gelu_tanh_slope = _unary("gelu_tanh"), _unary("gelu_tanh_slope")
floor, ceil, trunc, round = _unary("floor"), _unary("ceil"), _unary("trunc"), _unary("round")
abs, isnan, isinf, isfinite = _unary("abs"), _unary("isnan"), _unary("isinf"), _unary("isfinite")
conj, real, imag, angle = _unary("conj"), _unary("real"), _unary("imag"), _unary("angle")
eq, ne, lt, le, gt, ge = (_binary(op) for op in ("eq", "ne", "lt", "le", "gt", "ge"))
atan2, hypot, fmod, truncdiv, div, pow = (_binary(op) for op in ("atan2", "hypot", "fmod", "truncdiv", "div", "pow"))
floor_divide = _binary("floordiv")
maximum, minimum = _binary("max"), _binary("min")
igamma, igammac, zeta = _binary("igamma"), _binary("igammac"), _binary("zeta")
shl, shr, complex_ = _binary("shl"), _binary("shr"), _binary("complex")


def where(condition: Any, a: Any, b: Any) -> Expr:
    """``a`` where the condition holds, ``b`` elsewhere; both are evaluated."""
    return call("where", condition, a, b)


def alike(x: Any, other: Any) -> Expr:
    """``x`` in the dtype that it and ``other`` are promoted to."""
    return where(True, x, other)


def cast(x: Any, dtype: str) -> Expr:
    """``x`` converted to the named dtype; complex to real takes the real part."""
    return call("cast", x, value=dtype)


def polygamma(order: int, x: Any) -> Expr:
    """The ``order``-th derivative of digamma."""
    return digamma(x) if order == 0 else call("polygamma", x, value=int(order))


def square(x: Any) -> Expr:
    return as_expr(x) * x


def reciprocal(x: Any) -> Expr:
    return constant(1) / as_expr(x)


def remainder(a: Any, b: Any) -> Expr:
    """The rest of ``a / b`` with the sign of ``b``, as Python's ``%``."""
    rest = fmod(a, b)
    return where(ne(rest, 0) & ne(lt(rest, 0), lt(b, 0)), rest + b, rest)


def logical_not(x: Any) -> Expr:
    return eq(x, 0)


def logical_and(a: Any, b: Any) -> Expr:
    return cast(a, "bool") & cast(b, "bool")


def logical_or(a: Any, b: Any) -> Expr:
    return cast(a, "bool") | cast(b, "bool")


def logical_xor(a: Any, b: Any) -> Expr:
    return cast(a, "bool") ^ cast(b, "bool")
