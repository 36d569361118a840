"""The derivative of a formula is a formula.

Reverse mode over the expression graph: each primitive says what its operands receive when its value receives ``g``.
Conventions are PyTorch's: for complex values the gradient is that of the conjugate variable, so a holomorphic
primitive passes ``g * conj(f'(x))`` (``conj`` vanishes when the formula is lowered for real dtypes); where a
derivative jumps the value is the one PyTorch documents (``abs`` 0 at 0, ``max`` and ``min`` split ties in half).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import AutogradError
from . import functions as fn
from .node import Expr, as_expr, symbol, topological

Rule = Callable[..., tuple[Any, ...]]


def _times(a: Any, b: Any) -> Any:
    """a * b, without the multiplications by one that rules are full of."""
    a, b = as_expr(a), as_expr(b)
    if a.op == "const" and a.value == 1:
        return b
    if b.op == "const" and b.value == 1:
        return a
    return a * b


def _holomorphic(derivative: Callable[[Expr, Expr], Any]) -> Rule:
    """A rule for y = f(x) from f'(x), given as a function of x and y."""

    def rule(g: Expr, y: Expr, x: Expr) -> tuple[Any, ...]:
        return (_times(g, fn.conj(derivative(x, y))),)

    return rule


def _pow(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple[Any, ...]:
    if b.op == "const":
        power = b.value
        if power == 0:
            return fn.where(fn.eq(a, a), 0.0, 0.0) * g, None
        if power == 2:
            return g * fn.conj(2 * a), None
        return g * fn.conj(power * fn.pow(a, power - 1)), None
    # x**0 has slope 0 also at x = 0, and 0**b has slope 0 in b wherever b >= 0, where the formulas give NaN
    none = fn.eq(b, 0)
    to_a = fn.where(none, 0, g * fn.conj(b * fn.pow(a, fn.where(none, 1, b) - 1)))  # finite, for the next derivative
    to_b = g * fn.conj(fn.where(fn.eq(a, 0) & fn.ge(fn.real(b), 0), 0, y * fn.log(a)))
    return to_a, to_b


def _where(g: Expr, y: Expr, c: Expr, a: Expr, b: Expr) -> tuple[Any, ...]:
    if c.op == "const":  # ``alike``: of the other nothing but the dtype was asked
        return (None, g, None) if c.value else (None, None, g)
    return None, fn.where(c, g, 0), fn.where(c, 0, g)


def _chosen(first_wins: Callable[[Any, Any], Expr]) -> Rule:
    def rule(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple[Any, ...]:
        half = g / 2
        tie = fn.eq(a, b)
        return fn.where(tie, half, fn.where(first_wins(a, b), g, 0)), fn.where(
            tie, half, fn.where(first_wins(b, a), g, 0)
        )

    return rule


def _atan2(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple[Any, ...]:
    square = a * a + b * b
    norm = fn.where(fn.eq(square, 0), 0, g / square)  # at the origin, which has no angle
    return norm * b, -(norm * a)


def _normal_density(x: Expr) -> Expr:
    return (1 / math.sqrt(2 * math.pi)) * fn.exp(-0.5 * (x * x))


def _gelu_tanh_curve(x: Expr) -> Expr:
    """The second derivative of x s, s = sigmoid(u) and u = c x + d x^3: s (1 - s) (2 u' + x (u'^2 (1 - 2 s) + u''))."""
    linear, cubic = math.sqrt(8 / math.pi), math.sqrt(8 / math.pi) * 0.044715
    x = fn.minimum(fn.maximum(x, -30), 30)  # beyond, it is 0
    square = x * x
    u, slope = x * (linear + cubic * square), linear + 3 * cubic * square
    s, rest = fn.sigmoid(u), fn.sigmoid(-u)
    return s * rest * (2 * slope + x * (slope * slope * (rest - s) + 6 * cubic * x))


def _gamma_density(a: Expr, x: Expr) -> Expr:
    return fn.exp((a - 1) * fn.log(x) - x - fn.lgamma(a))


_UNKNOWN_IN_FIRST = frozenset(("igamma", "igammac", "zeta"))  # nor does PyTorch know these derivatives

_ZERO: Rule = lambda g, y, *args: (None,) * len(args)  # noqa: E731 - a table of one-line rules reads best

_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)

RULES: dict[str, Rule] = {
    "add": lambda g, y, a, b: (g, g),
    "sub": lambda g, y, a, b: (g, -g),
    "mul": lambda g, y, a, b: (_times(g, fn.conj(b)), _times(g, fn.conj(a))),
    "div": lambda g, y, a, b: (g / fn.conj(b), -(g * fn.conj(y / b))),
    "neg": lambda g, y, x: (-g,),
    "abs": lambda g, y, x: (fn.real(g) * fn.sign(x),),
    "fmod": lambda g, y, a, b: (g, -(g * fn.truncdiv(a, b))),
    "pow": _pow,
    "max": _chosen(fn.gt),
    "min": _chosen(fn.lt),
    "atan2": _atan2,
    "hypot": lambda g, y, a, b: (g * (a / y), g * (b / y)),
    "complex": lambda g, y, re, im: (fn.real(g), fn.imag(g)),
    # a real value may have met complex ones further on: only the real part of what it receives counts
    "real": lambda g, y, x: (fn.real(g),),
    "imag": lambda g, y, x: (fn.real(g) * 1j,),
    "conj": lambda g, y, x: (fn.conj(g),),
    "angle": lambda g, y, x: (fn.where(fn.eq(x, 0), 0, fn.real(g) * 1j * x / _safe_square(x)),),
    "where": _where,
    "exp": _holomorphic(lambda x, y: y),
    "exp2": _holomorphic(lambda x, y: y * math.log(2)),
    "expm1": _holomorphic(lambda x, y: y + 1),
    "log": lambda g, y, x: (g / fn.conj(x),),
    "log2": lambda g, y, x: (g / fn.conj(x * math.log(2)),),
    "log10": lambda g, y, x: (g / fn.conj(x * math.log(10)),),
    "log1p": lambda g, y, x: (g / fn.conj(x + 1),),
    "sqrt": lambda g, y, x: (g / fn.conj(2 * y),),
    "rsqrt": _holomorphic(lambda x, y: -0.5 * (y * y * y)),
    "sigmoid": _holomorphic(lambda x, y: y * (1 - y)),
    "sin": _holomorphic(lambda x, y: fn.cos(x)),
    "cos": _holomorphic(lambda x, y: -fn.sin(x)),
    "tan": _holomorphic(lambda x, y: y * y + 1),
    "asin": _holomorphic(lambda x, y: fn.rsqrt(fn.one_minus_square(x))),
    "acos": _holomorphic(lambda x, y: -fn.rsqrt(fn.one_minus_square(x))),
    "atan": _holomorphic(lambda x, y: 1 / (x * x + 1)),
    "sinh": _holomorphic(lambda x, y: fn.cosh(x)),
    "cosh": _holomorphic(lambda x, y: fn.sinh(x)),
    "tanh": _holomorphic(lambda x, y: fn.one_minus_square(y)),
    "asinh": _holomorphic(lambda x, y: fn.rsqrt(x * x + 1)),
    "acosh": _holomorphic(lambda x, y: fn.rsqrt(x - 1) * fn.rsqrt(x + 1)),
    "atanh": _holomorphic(lambda x, y: 1 / fn.one_minus_square(x)),
    "erf": _holomorphic(lambda x, y: _TWO_OVER_SQRT_PI * fn.exp(-(x * x))),
    "erfc": _holomorphic(lambda x, y: -_TWO_OVER_SQRT_PI * fn.exp(-(x * x))),
    "erfinv": _holomorphic(lambda x, y: (1 / _TWO_OVER_SQRT_PI) * fn.exp(y * y)),
    "one_minus_square": _holomorphic(lambda x, y: -2 * x),
    "softplus": _holomorphic(lambda x, y: fn.sigmoid(x)),
    "normal_cdf": _holomorphic(lambda x, y: _normal_density(x)),
    "gelu_slope": _holomorphic(lambda x, y: (2 - x * x) * _normal_density(x)),
    "gelu_tanh": _holomorphic(lambda x, y: fn.gelu_tanh_slope(x)),
    "gelu_tanh_slope": _holomorphic(lambda x, y: _gelu_tanh_curve(x)),
    "lgamma": _holomorphic(lambda x, y: fn.digamma(x)),
    "digamma": _holomorphic(lambda x, y: fn.polygamma(1, x)),
    "igamma": lambda g, y, a, x: (None, g * _gamma_density(a, x)),
    "igammac": lambda g, y, a, x: (None, -(g * _gamma_density(a, x))),
    "zeta": lambda g, y, s, q: (None, -(g * (s * fn.zeta(s + 1, q)))),
    "cast": lambda g, y, x: (g,),
    "sign": lambda g, y, x: (_turned(g, y, x),),
    **dict.fromkeys(("floor", "ceil", "trunc", "round", "floordiv", "truncdiv"), _ZERO),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "shl", "shr"), _ZERO),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), _ZERO),
}


def _turned(g: Expr, y: Expr, x: Expr) -> Expr:
    """What ``sign(x) = x / |x|`` passes on: the part of ``g`` across ``x``, over ``|x|``. A real number has none."""
    along = fn.conj(y) * g
    across = fn.where(fn.eq(along, fn.real(along)), 0, along - fn.real(along))
    return y * across / fn.where(fn.eq(x, 0), 1, fn.abs(x))


def _safe_square(x: Expr) -> Expr:
    squared = fn.real(x) * fn.real(x) + fn.imag(x) * fn.imag(x)
    return fn.where(fn.eq(squared, 0), 1, squared)


def vector_jacobian(outputs: Sequence[Expr], seeds: Sequence[Expr], wrt: Sequence[int]) -> list[Expr | None]:
    """What the inputs numbered ``wrt`` receive when the outputs receive ``seeds``; None where nothing flows."""
    received: dict[Expr, Expr] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        received[output] = received[output] + seed if output in received else seed
    wanted = {symbol(index) for index in wrt}
    order = topological(outputs)
    leads_to_wanted: dict[Expr, bool] = {}
    for node in order:
        leads_to_wanted[node] = node in wanted or any(leads_to_wanted[arg] for arg in node.args)
    for node in reversed(order):
        g = received.get(node)
        if g is None or not node.args or not leads_to_wanted[node]:
            continue
        if node.op == "polygamma":
            parts = (g * fn.polygamma(node.value + 1, node.args[0]),)
        else:
            parts = RULES[node.op](g, node, *node.args)
            if node.op in _UNKNOWN_IN_FIRST and leads_to_wanted[node.args[0]]:
                raise AutogradError(
                    f"the derivative of {node.op} with respect to its first argument is not implemented."
                )
        for arg, part in zip(node.args, parts, strict=True):
            if part is not None and leads_to_wanted[arg]:
                received[arg] = received[arg] + part if arg in received else part
    return [received.get(symbol(index)) for index in wrt]
