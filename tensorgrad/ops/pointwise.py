"""The elementwise functions, each a formula; tests take their samples from the ranges named here."""

from __future__ import annotations

import math
from typing import Any

from ..expr import functions as fn
from .elementwise import elementwise
from .samples import binary, unary

# The public functions, with PyTorch's signatures, are in `public.py`; here every op is reached by its record.

# --- arithmetic
add = elementwise(lambda input, other: input + other, name="add", samples=binary())
sub = elementwise(lambda input, other: input - other, name="sub", samples=binary())
mul = elementwise(lambda input, other: input * other, name="mul", samples=binary())
div = elementwise(lambda input, other: input / other, name="div", samples=binary(other=(0.5, 2)))


def _zeros(g: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
    """The gradients of a step function: PyTorch's are there, so that an optimizer's step decays what gets them."""
    return tuple([fn.alike(0, g) for _ in inputs])


floor_divide = elementwise(
    fn.floor_divide, name="floor_divide", vjp=_zeros, samples=binary(other=(0.6, 2), smooth=False)
)
trunc_divide = elementwise(fn.truncdiv, name="trunc_divide", vjp=_zeros, samples=binary(other=(0.6, 2), smooth=False))
remainder = elementwise(
    fn.remainder,
    name="remainder",
    vjp=lambda g, y, a, b: (g, -(g * fn.floor_divide(a, b))),
    samples=binary(input=(2.1, 2.9), other=(1.1, 1.9)),
)
fmod = elementwise(fn.fmod, name="fmod", samples=binary(input=(2.1, 2.9), other=(1.1, 1.9)))
pow = elementwise(lambda input, exponent: input**exponent, name="pow", samples=binary(input=(0.3, 2), other=(-2, 2)))
neg = elementwise(lambda input: -input, name="neg", samples=unary())
abs = elementwise(lambda input: fn.abs(input), name="abs", samples=unary(avoid=(0,)))
reciprocal = elementwise(fn.reciprocal, name="reciprocal", samples=unary(0.5, 2))
square = elementwise(lambda input: input * input, name="square", samples=unary())
cube = elementwise(lambda input: input * input * input, name="cube", samples=unary())


def _inverse_square(input: Any) -> Any:
    inverse = fn.reciprocal(input)  # 1 / x**2 would be 0 where x**2 is infinite
    return inverse * inverse


inverse_square = elementwise(_inverse_square, name="inverse_square", samples=unary(0.5, 2))
sign = elementwise(
    lambda input: fn.where(fn.isnan(input), False, fn.sign(input)),  # False promotes nothing
    name="sign",
    samples=unary(avoid=(0,), smooth=False),
    doc="-1, 0 or 1 for real numbers; 0 for NaN.",
)
direction = elementwise(
    lambda input: fn.sign(input), name="direction", samples=unary(0.5, 2, kinds="c"), doc="``z / |z|``, and 0 at 0."
)
equal_or_both_nan = elementwise(
    lambda input, other: fn.eq(input, other) | (fn.isnan(input) & fn.isnan(other)),
    name="equal_or_both_nan",
    samples=binary(smooth=False),
    doc="Where elements are equal, NaN to NaN too: which ones a reduction has chosen.",
)
maximum = elementwise(lambda input, other: fn.maximum(input, other), name="maximum", samples=binary())
minimum = elementwise(lambda input, other: fn.minimum(input, other), name="minimum", samples=binary())


def _at_least(x: Any, low: Any) -> Any:
    return fn.maximum(x, low)


# the gradient passes where the value is within bounds, bounds included: not max's half at ties
clamp_min = elementwise(
    _at_least,
    name="clamp_min",
    vjp=lambda g, y, x, low: (fn.where(fn.ge(x, low), g, 0), fn.where(fn.lt(x, low), g, 0)),
    samples=binary(),
)
clamp_max = elementwise(
    lambda x, high: fn.minimum(x, high),
    name="clamp_max",
    vjp=lambda g, y, x, high: (fn.where(fn.le(x, high), g, 0), fn.where(fn.gt(x, high), g, 0)),
    samples=binary(),
)
clamp_both = elementwise(
    lambda x, low, high: fn.minimum(fn.maximum(x, low), high),
    name="clamp_both",
    vjp=lambda g, y, x, low, high: (
        fn.where(fn.ge(x, low) & fn.le(x, high), g, 0),
        fn.where(fn.lt(x, low) & fn.lt(low, high), g, 0),
        fn.where(fn.gt(x, high) | fn.gt(low, high), g, 0),
    ),
    samples=binary(third=(1.0, 2.0)),
)


def _lerp(input: Any, end: Any, weight: Any) -> Any:
    # from the nearer end; where the weight is one number, so are what is chosen by it and its difference
    weight = fn.alike(weight, end)
    near = fn.lt(fn.abs(weight), 0.5)
    return fn.where(near, input, end) + fn.where(near, weight, weight - 1) * (end - input)


lerp = elementwise(
    _lerp,
    name="lerp",
    vjp=lambda g, y, a, b, w: (g * fn.conj(1 - w), g * fn.conj(w), g * fn.conj(b - a)),
    samples=binary(third=(0.1, 0.4)),
)
addcmul = elementwise(
    # the number is of no weight in promotion, so it multiplies what has the result's dtype
    lambda input, tensor1, tensor2, value: input + value * fn.alike(fn.alike(tensor1, tensor2), input) * tensor2,
    name="addcmul",
    # ``g`` has the result's dtype: no gradient reads an input for its dtype alone
    vjp=lambda g, y, input, a, b, value: (
        g,
        g * fn.conj(value) * fn.conj(b),
        g * fn.conj(value) * fn.conj(a),
        g * fn.conj(a * b),
    ),
    samples=binary(count=4),
)
addcdiv = elementwise(
    lambda input, tensor1, tensor2, value: input + value * (fn.alike(tensor1, input) / fn.alike(tensor2, input)),
    name="addcdiv",
    vjp=lambda g, y, input, a, b, value: (
        g,
        g * fn.conj(value) / fn.conj(b),
        -(g * fn.conj(value) * fn.conj(a / b / b)),
        g * fn.conj(a / b),
    ),
    samples=binary(count=4, third=(0.5, 2)),
)
# the product in the result's dtype: three times 200 is no uint8
add_scaled = elementwise(
    lambda input, other, alpha: input + alpha * fn.alike(other, input), name="add_scaled", samples=binary(count=3)
)
sub_scaled = elementwise(
    lambda input, other, alpha: input - alpha * fn.alike(other, input), name="sub_scaled", samples=binary(count=3)
)

# --- exponentials, powers, roots
exp = elementwise(fn.exp, name="exp", samples=unary())
exp2 = elementwise(fn.exp2, name="exp2", samples=unary())
expm1 = elementwise(fn.expm1, name="expm1", samples=unary())
log = elementwise(fn.log, name="log", samples=unary(0.1, 4))
log2 = elementwise(fn.log2, name="log2", samples=unary(0.1, 4))
log10 = elementwise(fn.log10, name="log10", samples=unary(0.1, 4))
log1p = elementwise(fn.log1p, name="log1p", samples=unary(-0.6, 4))
sqrt = elementwise(fn.sqrt, name="sqrt", samples=unary(0.2, 4))
rsqrt = elementwise(fn.rsqrt, name="rsqrt", samples=unary(0.3, 4))


def _logaddexp(a: Any, b: Any) -> Any:
    first = fn.ge(fn.real(a), fn.real(b))
    large, small = fn.where(first, a, b), fn.where(first, b, a)
    return fn.where(fn.eq(a, b) & fn.isinf(a), a, large + fn.log1p(fn.exp(small - large)))


def _share(a: Any, b: Any) -> Any:
    """``exp(a) / (exp(a) + exp(b))``. Only where both are infinite is it unknown, and taken as a half; elsewhere equal
    ones have a second derivative."""
    return fn.where(fn.eq(a, b) & fn.isinf(a), 0.5, fn.sigmoid(a - b))


logaddexp = elementwise(
    _logaddexp,
    name="logaddexp",
    vjp=lambda g, y, a, b: (g * fn.conj(_share(a, b)), g * fn.conj(_share(b, a))),
    samples=binary(),
)


def _xlogy(a: Any, b: Any) -> Any:
    b = fn.alike(b, a)  # an integer is promoted before its logarithm is taken, not after
    return fn.where(fn.eq(a, 0) & ~fn.isnan(b), 0.0, a * fn.log(b))


xlogy = elementwise(
    _xlogy,
    name="xlogy",
    vjp=lambda g, y, a, b: (
        g * fn.where(fn.eq(a, 0) & fn.le(b, 0), 0.0, fn.log(fn.alike(b, g))), g * (a / fn.alike(b, g))
    ),
    samples=binary(input=(0.3, 2), other=(0.3, 2)),
    doc="``input * log(other)``, and 0 where ``input`` is 0.",
)  # fmt: skip

# --- trigonometry
sin = elementwise(fn.sin, name="sin", samples=unary())
cos = elementwise(fn.cos, name="cos", samples=unary())
tan = elementwise(fn.tan, name="tan", samples=unary(-1.2, 1.2))
asin = elementwise(fn.asin, name="asin", samples=unary(-0.9, 0.9))
acos = elementwise(fn.acos, name="acos", samples=unary(-0.9, 0.9))
atan = elementwise(fn.atan, name="atan", samples=unary())
sinh = elementwise(fn.sinh, name="sinh", samples=unary())
cosh = elementwise(fn.cosh, name="cosh", samples=unary())
tanh = elementwise(fn.tanh, name="tanh", samples=unary())
asinh = elementwise(fn.asinh, name="asinh", samples=unary())
acosh = elementwise(fn.acosh, name="acosh", samples=unary(1.2, 4))
atanh = elementwise(fn.atanh, name="atanh", samples=unary(-0.9, 0.9))
atan2 = elementwise(fn.atan2, name="atan2", samples=binary(input=(0.3, 2), other=(0.3, 2)))
sinc = elementwise(
    lambda input: fn.where(fn.eq(input, 0), 1.0, fn.sin(math.pi * input) / (math.pi * input)),
    name="sinc",
    vjp=lambda g, y, x: (
        fn.where(fn.eq(x, 0), 0.0, g * fn.conj((fn.cos(math.pi * x) - fn.sin(math.pi * x) / (math.pi * x)) / x)),
    ),
    samples=unary(0.2, 2),
)

# --- special functions
erf = elementwise(fn.erf, name="erf", samples=unary())
erfc = elementwise(fn.erfc, name="erfc", samples=unary())
erfinv = elementwise(fn.erfinv, name="erfinv", samples=unary(-0.8, 0.8))
lgamma = elementwise(fn.lgamma, name="lgamma", samples=unary(0.4, 4))
digamma = elementwise(fn.digamma, name="digamma", samples=unary(0.4, 4))
sigmoid = elementwise(fn.sigmoid, name="sigmoid", samples=unary())


def _logit(x: Any) -> Any:
    x = fn.alike(x, 1.0)  # an unsigned integer would wrap below
    return fn.log(x / (1 - x))


def _logit_slope(g: Any, x: Any, low: Any, otherwise: float) -> Any:
    x = fn.alike(x, g)
    return fn.where(fn.lt(x, low) | fn.gt(x, 1 - low), otherwise, g / (x * (1 - x)))  # NaN stays


logit = elementwise(
    _logit, name="logit", vjp=lambda g, y, x: (_logit_slope(g, x, 0, float("nan")),), samples=unary(0.1, 0.9)
)


def _logit_within(x: Any, eps: Any) -> Any:
    inside = fn.where(fn.lt(x, eps), eps, fn.where(fn.gt(x, 1 - eps), 1 - eps, x))
    return _logit(inside)


logit_within = elementwise(
    _logit_within,
    name="logit_within",
    vjp=lambda g, y, x, eps: (_logit_slope(g, x, eps, 0.0), None),
    samples=unary(0.1, 0.9, avoid=(0.3, 0.7), extra=(0.3,)),
    doc="``logit`` of what is limited to ``[eps, 1 - eps]``.",
)

# --- rounding
floor = elementwise(fn.floor, name="floor", vjp=_zeros, samples=unary(avoid=(-2, -1, 0, 1, 2), smooth=False))
ceil = elementwise(fn.ceil, name="ceil", vjp=_zeros, samples=unary(avoid=(-2, -1, 0, 1, 2), smooth=False))
trunc = elementwise(fn.trunc, name="trunc", vjp=_zeros, samples=unary(avoid=(-2, -1, 0, 1, 2), smooth=False))
round = elementwise(fn.round, name="round", vjp=_zeros, samples=unary(avoid=(-1.5, -0.5, 0.5, 1.5), smooth=False))

# --- complex numbers
conj = elementwise(fn.conj, name="conj", samples=unary(kinds="c"))
real = elementwise(fn.real, name="real", samples=unary(kinds="c"))
imag = elementwise(fn.imag, name="imag", samples=unary(kinds="c"))
angle = elementwise(fn.angle, name="angle", samples=unary(0.5, 2, kinds="c"))
angle_of_real = elementwise(  # apart, because the derivative of ``angle`` is complex
    lambda input: fn.where(input < 0, math.pi, fn.where(fn.isnan(input), input, 0)),
    name="angle_of_real",
    vjp=lambda g, y, x: (fn.where(fn.isnan(x), 0, fn.sign(x) * 0),),
    samples=unary(0.5, 2),
)
complex_ = elementwise(fn.complex_, name="complex", samples=binary())

# --- comparison, logic, bits
eq = elementwise(lambda input, other: fn.eq(input, other), name="eq", samples=binary(smooth=False))
ne = elementwise(lambda input, other: fn.ne(input, other), name="ne", samples=binary(smooth=False))
lt = elementwise(lambda input, other: fn.lt(input, other), name="lt", samples=binary(smooth=False))
le = elementwise(lambda input, other: fn.le(input, other), name="le", samples=binary(smooth=False))
gt = elementwise(lambda input, other: fn.gt(input, other), name="gt", samples=binary(smooth=False))
ge = elementwise(lambda input, other: fn.ge(input, other), name="ge", samples=binary(smooth=False))
isnan = elementwise(fn.isnan, name="isnan", samples=unary(smooth=False))
isinf = elementwise(fn.isinf, name="isinf", samples=unary(smooth=False))
isfinite = elementwise(fn.isfinite, name="isfinite", samples=unary(smooth=False))
logical_not = elementwise(fn.logical_not, name="logical_not", samples=unary(smooth=False))
logical_and = elementwise(fn.logical_and, name="logical_and", samples=binary(smooth=False))
logical_or = elementwise(fn.logical_or, name="logical_or", samples=binary(smooth=False))
logical_xor = elementwise(fn.logical_xor, name="logical_xor", samples=binary(smooth=False))
bitwise_and = elementwise(lambda input, other: input & other, name="bitwise_and", samples=binary(kinds="i"))
bitwise_or = elementwise(lambda input, other: input | other, name="bitwise_or", samples=binary(kinds="i"))
bitwise_xor = elementwise(lambda input, other: input ^ other, name="bitwise_xor", samples=binary(kinds="i"))
bitwise_not = elementwise(lambda input: ~input, name="bitwise_not", samples=unary(kinds="i"))
bitwise_left_shift = elementwise(
    lambda input, other: fn.shl(input, other), name="bitwise_left_shift", samples=binary(kinds="i", other=(0, 4))
)
bitwise_right_shift = elementwise(
    lambda input, other: fn.shr(input, other), name="bitwise_right_shift", samples=binary(kinds="i", other=(0, 4))
)

# --- selection
where = elementwise(
    lambda condition, input, other: fn.where(condition, input, other), name="where", samples=binary(mask_first=True)
)
masked_fill = elementwise(
    lambda input, mask, value: fn.where(mask, value, input),
    name="masked_fill",
    vjp=lambda g, y, x, mask, value: (fn.where(mask, 0, g), None, fn.where(mask, g, 0)),
    samples=binary(mask_second=True),
)
nan_to_num = elementwise(
    lambda input, nan, posinf, neginf: fn.where(
        fn.isnan(input), nan, fn.where(fn.isinf(input), fn.where(fn.gt(input, 0), posinf, neginf), input)
    ),
    name="nan_to_num",
    vjp=lambda g, y, x, nan, posinf, neginf: (fn.where(fn.isfinite(x), g, 0), None, None, None),
    samples=unary(extra=(0.0, 1.0, -1.0)),
)

# --- activations
relu = elementwise(
    lambda input: fn.maximum(input, 0),
    name="relu",
    vjp=lambda g, y, x: (fn.where(y > 0, g, 0),),
    samples=unary(avoid=(0,)),
)
leaky_relu = elementwise(
    lambda input, negative_slope: fn.where(input > 0, input, negative_slope * input),
    name="leaky_relu",
    vjp=lambda g, y, x, slope: (fn.where(x > 0, g, slope * g), None),
    samples=unary(avoid=(0,), extra=(0.1,)),
)
elu = elementwise(
    lambda input, alpha, scale, input_scale: fn.where(
        input > 0, scale * input, (alpha * scale) * fn.expm1(input_scale * fn.minimum(input, 0.0))
    ),
    name="elu",
    vjp=lambda g, y, x, alpha, scale, input_scale: (
        fn.where(x > 0, g * scale, g * (scale * alpha * input_scale) * fn.exp(input_scale * fn.minimum(x, 0.0))),
        None,
        None,
        None,
    ),
    samples=unary(avoid=(0,), extra=(1.2, 1.0, 1.0)),
)


def _silu_slope(x: Any) -> Any:
    s = fn.sigmoid(x)
    return s * (1 + x * (1 - s))


silu = elementwise(
    lambda input: input * fn.sigmoid(input),
    name="silu",
    vjp=lambda g, y, x: (g * _silu_slope(x),),
    samples=unary(),
)

softplus = elementwise(
    lambda input, beta, threshold: fn.where(input * beta > threshold, input, fn.softplus(input * beta) / beta),
    name="softplus",
    vjp=lambda g, y, x, beta, threshold: (
        g * fn.where(x * beta > threshold, 1.0, fn.sigmoid(x * beta)),
        None,
        None,
    ),
    samples=unary(extra=(1.0, 20.0)),
)


def _mish_parts(x: Any) -> tuple[Any, Any]:
    """e = exp(x) and n = e (e + 2), of which tanh(log(1 + e)) is n / (n + 2); it is 1 from x = 20 on."""
    e = fn.exp(fn.minimum(x, 20.0))
    return e, e * e + 2 * e


def _mish(x: Any) -> Any:
    _, n = _mish_parts(x)
    return x * (n / (n + 2))


def _mish_slope(x: Any) -> Any:
    e, n = _mish_parts(x)
    share = 1 / (n + 2)
    return share * (n + fn.minimum(x, 20.0) * (4 * (e * e + e) * share))


mish = elementwise(_mish, name="mish", vjp=lambda g, y, x: (g * _mish_slope(x),), samples=unary())
gelu = elementwise(
    lambda input: input * fn.normal_cdf(input),
    name="gelu",
    vjp=lambda g, y, x: (g * fn.gelu_slope(x),),
    samples=unary(),
    doc="``x * Phi(x)`` with the normal distribution function Phi. Source: Hendrycks and Gimpel 2016.",
)
gelu_tanh = elementwise(
    lambda input: fn.gelu_tanh(input),
    name="gelu_tanh",
    samples=unary(),
    doc="The tanh approximation of GELU. Source: Hendrycks and Gimpel 2016.",
)

hardtanh = elementwise(
    lambda input, low, high: fn.minimum(fn.maximum(input, low), high),
    name="hardtanh",
    vjp=lambda g, y, x, low, high: (fn.where((x > low) & (x < high), g, 0), None, None),
    samples=unary(avoid=(-1, 1), extra=(-1.0, 1.0)),
)
hardsigmoid = elementwise(
    lambda input: fn.minimum(fn.maximum(input + 3, 0), 6) / 6,
    name="hardsigmoid",
    vjp=lambda g, y, x: (fn.where((x > -3) & (x < 3), g / 6, 0),),
    samples=unary(),
)
hardswish = elementwise(
    lambda input: input * fn.minimum(fn.maximum(input + 3, 0), 6) / 6,
    name="hardswish",
    vjp=lambda g, y, x: (fn.where(fn.le(x, -3), 0, fn.where(x < 3, g * (x / 3 + 0.5), g)),),
    samples=unary(),
)
softsign = elementwise(lambda input: input / (1 + fn.abs(input)), name="softsign", samples=unary(avoid=(0,)))
logsigmoid = elementwise(
    lambda input: -fn.softplus(-input),
    name="logsigmoid",
    vjp=lambda g, y, x: (g * fn.sigmoid(-x),),
    samples=unary(),
)
prelu = elementwise(
    lambda input, weight: fn.where(input > 0, input, weight * input),
    name="prelu",
    # by hand: the weight's is 0 where x is above 0, also where that is infinite
    vjp=lambda g, y, x, w: (fn.where(x > 0, g, g * w), fn.where(x > 0, 0, g * x)),
    samples=binary(avoid=(0,)),
)
threshold = elementwise(
    lambda input, threshold, value: fn.where(input <= threshold, value, input),  # so that NaN stays
    name="threshold",
    vjp=lambda g, y, x, threshold, value: (fn.where(x <= threshold, 0, g), None, None),
    samples=unary(avoid=(0,), extra=(0.0, 0.5)),
)
hardshrink = elementwise(
    lambda input, lambd: fn.where(fn.abs(input) <= lambd, 0, input),  # so that NaN stays
    name="hardshrink",
    samples=unary(avoid=(-0.5, 0.5), extra=(0.5,)),
)
softshrink = elementwise(
    lambda input, lambd: fn.where(  # so that NaN stays
        fn.abs(input) <= lambd, 0, fn.where(input > lambd, input - lambd, input + lambd)
    ),
    name="softshrink",
    samples=unary(avoid=(-0.5, 0.5), extra=(0.5,)),
)
