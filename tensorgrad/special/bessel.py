"""Bessel functions as formulas: near zero a series, far out an amplitude times what it multiplies.

Each half is a Chebyshev series (``bessel_series``), so a kernel is some sixty multiplications on any backend. In
float64 the relative error is a few 1e-16 times the condition: the distance to a zero for the oscillating ones, which
near their first two zeros keep all digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..expr import functions as fn
from ..ops.elementwise import elementwise
from ..ops.samples import unary
from . import bessel_series as series


def _chebyshev(coefficients: Sequence[float], t: Any) -> Any:
    """The sum of ``c_k T_k(t)``. Source: Clenshaw 1955."""
    twice = 2.0 * t
    last: Any = 0.0
    now: Any = coefficients[-1]
    for c in reversed(coefficients[1:-1]):
        last, now = now, twice * now - last + c
    return t * now - last + coefficients[0]


# --- modified, of the first kind
def _scaled_i(x: Any, near: Sequence[float], far: Sequence[float]) -> tuple[Any, Any, Any]:
    """(|x|, the series for |x| <= 8, ``exp(-|x|) I(|x|)`` for greater ones)."""
    z = fn.abs(x)
    inside = fn.minimum(z, 8.0)
    outside = fn.maximum(z, 8.0)
    return z, _chebyshev(near, inside / 4.0 - 1.0), _chebyshev(far, 16.0 / outside - 1.0) * fn.rsqrt(outside)


def _i0e(x: Any) -> Any:
    z, near, far = _scaled_i(x, series.I0E_NEAR, series.I0E_FAR)
    return fn.where(fn.le(z, 8.0), near, far)


def _i1e(x: Any) -> Any:
    z, near, far = _scaled_i(x, series.I1E_NEAR, series.I1E_FAR)
    return fn.where(fn.le(z, 8.0), near * x, far * fn.sign(x))


def _grown(scaled: Any, x: Any) -> Any:
    half = fn.exp(fn.abs(x) / 2)  # in two steps: exp(x) overflows before the function does
    return scaled * half * half


def _over_x(i1: Any, x: Any) -> Any:
    return fn.where(fn.eq(x, 0), 0.5, i1 / fn.where(fn.eq(x, 0), 1.0, x))


i0e: Any = elementwise(
    _i0e,
    name="i0e",
    vjp=lambda g, y, x: (g * (i1e(x) - fn.sign(x) * y),),
    samples=unary(0.3, 12, avoid=(8,), few=True),
    doc="``exp(-|x|) I0(x)``, the scaled modified Bessel function of the first kind.",
)
i1e: Any = elementwise(
    _i1e,
    name="i1e",
    vjp=lambda g, y, x: (g * (i0e(x) - y * fn.sign(x) - _over_x(y, x)),),
    samples=unary(0.3, 12, avoid=(8,), few=True),
    doc="``exp(-|x|) I1(x)``.",
)
i0: Any = elementwise(
    lambda input: _grown(_i0e(input), input),
    name="i0",
    vjp=lambda g, y, x: (g * i1(x),),
    samples=unary(-3, 3, few=True),
    doc="The modified Bessel function of the first kind and order 0.",
)
i1: Any = elementwise(
    lambda input: _grown(_i1e(input), input),
    name="i1",
    vjp=lambda g, y, x: (g * (i0(x) - _over_x(y, x)),),
    samples=unary(0.3, 3, few=True),
    doc="The modified Bessel function of the first kind and order 1.",
)


# --- modified, of the second kind
def _k(x: Any, order: int, *, scaled: bool) -> Any:
    small, large = fn.minimum(x, 2.0), fn.maximum(x, 2.0)
    t = small * small / 2.0 - 1.0
    if order == 0:
        near = _chebyshev(series.K0_NEAR, t) - fn.log(small / 2) * _grown(_i0e(small), small)
    else:
        near = fn.log(small / 2) * _grown(_i1e(small), small) + _chebyshev(series.K1_NEAR, t) / small
    far = _chebyshev((series.K0E_FAR, series.K1E_FAR)[order], 4.0 / large - 1.0) * fn.rsqrt(large)
    near, far = (near * fn.exp(small), far) if scaled else (near, far * fn.exp(-large))
    return fn.where(fn.lt(x, 0), math.nan, fn.where(fn.eq(x, 0), math.inf, fn.where(fn.le(x, 2.0), near, far)))


modified_bessel_k0: Any = elementwise(
    lambda input: _k(input, 0, scaled=False),
    name="modified_bessel_k0",
    vjp=lambda g, y, x: (-(g * modified_bessel_k1(x)),),
    samples=unary(0.3, 6, avoid=(2,), few=True),
    doc="The modified Bessel function of the second kind and order 0.",
)
modified_bessel_k1: Any = elementwise(
    lambda input: _k(input, 1, scaled=False),
    name="modified_bessel_k1",
    vjp=lambda g, y, x: (-(g * (modified_bessel_k0(x) + y / x)),),
    samples=unary(0.3, 6, avoid=(2,), few=True),
    doc="The modified Bessel function of the second kind and order 1.",
)
scaled_modified_bessel_k0: Any = elementwise(
    lambda input: _k(input, 0, scaled=True),
    name="scaled_modified_bessel_k0",
    vjp=lambda g, y, x: (g * (y - scaled_modified_bessel_k1(x)),),
    samples=unary(0.3, 6, avoid=(2,), few=True),
    doc="``exp(x) K0(x)``.",
)
scaled_modified_bessel_k1: Any = elementwise(
    lambda input: _k(input, 1, scaled=True),
    name="scaled_modified_bessel_k1",
    vjp=lambda g, y, x: (g * (y - y / x - scaled_modified_bessel_k0(x)),),
    samples=unary(0.3, 6, avoid=(2,), few=True),
    doc="``exp(x) K1(x)``.",
)

# --- of the first and second kind
# the first two zeros of J0 and of J1, each as a sum of two numbers: x minus a zero keeps its digits
_ZEROS = (
    ((2.404825557695773, -1.176691651530894e-16), (5.520078110286311, 8.088597146146722e-17)),
    ((3.8317059702075125, -1.5269184090088067e-16), (7.015586669815619, -9.414165653410389e-17)),
)


def _waves(z: Any, order: int) -> tuple[Any, Any, Any]:
    """``sqrt(1 / (pi z))`` and the two sums that far out make J and Y of it (DLMF 10.17.3):
    ``J = root * (P cos - Q sin)``, ``Y = root * (P sin + Q cos)`` of ``z - (2 order + 1) pi / 4``."""
    u = 8.0 / z
    t = 2.0 * (u * u) - 1.0
    p = _chebyshev((series.P0, series.P1)[order], t)
    q = _chebyshev((series.Q0, series.Q1)[order], t) * u
    s, c = fn.sin(z), fn.cos(z)
    cosine, sine = (c + s, s - c) if order == 0 else (s - c, -(s + c))  # times sqrt(2)
    return fn.rsqrt(math.pi * z), p * cosine - q * sine, p * sine + q * cosine


def _near_j(x: Any, z: Any, order: int) -> Any:
    value = _chebyshev((series.J0_NEAR, series.J1_NEAR)[order], z * z / 32.0 - 1.0)
    for zero, rest in _ZEROS[order]:
        value = value * (((z - zero) - rest) * (z + zero))
    return value * x if order else value


def _j(x: Any, order: int) -> Any:
    z = fn.abs(x)
    small, large = fn.minimum(z, 8.0), fn.maximum(z, 8.0)
    root, far, _ = _waves(large, order)
    far = root * far
    if order:
        far = far * fn.sign(x)
    return fn.where(fn.le(z, 8.0), _near_j(x, small, order), far)


def _y(x: Any, order: int) -> Any:
    small, large = fn.minimum(x, 8.0), fn.maximum(x, 8.0)
    w = small * small / 32.0 - 1.0
    j = _near_j(small, small, order)
    if order == 0:
        near = (2 / math.pi) * (fn.log(small) * j) + _chebyshev(series.Y0_NEAR, w)
    else:
        near = (2 / math.pi) * (fn.log(small) * j - 1.0 / small) + small * _chebyshev(series.Y1_NEAR, w)
    root, _, far = _waves(large, order)
    value = fn.where(fn.le(x, 8.0), near, root * far)
    return fn.where(fn.lt(x, 0), math.nan, fn.where(fn.eq(x, 0), -math.inf, value))


bessel_j0: Any = elementwise(
    lambda input: _j(input, 0),
    name="bessel_j0",
    vjp=lambda g, y, x: (-(g * bessel_j1(x)),),
    samples=unary(-12, 12, avoid=(-8, 8), few=True),
    doc="The Bessel function of the first kind and order 0.",
)
bessel_j1: Any = elementwise(
    lambda input: _j(input, 1),
    name="bessel_j1",
    vjp=lambda g, y, x: (g * (bessel_j0(x) - _over_x(y, x)),),
    samples=unary(-12, 12, avoid=(-8, 8), few=True),
    doc="The Bessel function of the first kind and order 1.",
)
bessel_y0: Any = elementwise(
    lambda input: _y(input, 0),
    name="bessel_y0",
    vjp=lambda g, y, x: (-(g * bessel_y1(x)),),
    samples=unary(0.2, 12, avoid=(8,), few=True),
    doc="The Bessel function of the second kind and order 0.",
)
bessel_y1: Any = elementwise(
    lambda input: _y(input, 1),
    name="bessel_y1",
    vjp=lambda g, y, x: (g * (bessel_y0(x) - y / x),),
    samples=unary(0.2, 12, avoid=(8,), few=True),
    doc="The Bessel function of the second kind and order 1.",
)


def _spherical_j0(x: Any) -> Any:
    z = x * x
    near = 1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110))))
    far = fn.sin(x) / fn.where(fn.eq(x, 0), 1.0, x)
    return fn.where(fn.isinf(x), 0.0, fn.where(fn.lt(fn.abs(x), 0.5), near, far))


spherical_bessel_j0 = elementwise(
    _spherical_j0,
    name="spherical_bessel_j0",
    vjp=lambda g, y, x: (g * fn.where(fn.eq(x, 0), 0.0, (fn.cos(x) - y) / fn.where(fn.eq(x, 0), 1.0, x)),),
    samples=unary(-6, 6, avoid=(-0.5, 0, 0.5), few=True),
    doc="The spherical Bessel function of order 0, ``sin(x) / x``.",
)
