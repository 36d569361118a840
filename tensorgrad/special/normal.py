"""The normal distribution's functions and erfcx, written so that no digit is lost in the tails."""

from __future__ import annotations

import math
from typing import Any

from ..expr import functions as fn
from ..ops.elementwise import elementwise
from ..ops.samples import unary

_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO_PI = math.sqrt(2 * math.pi)


def _erfcx(x: Any) -> Any:
    """Up to 8, ``exp(x**2) erfc(x)``; the square is taken in two parts, of which the first is exact, since the
    exponential multiplies the error of its argument. Above, the asymptotic series (DLMF 7.12.1) has converged."""
    near = fn.maximum(fn.minimum(x, 8.0), -30.0)  # below, the exponential has long overflowed
    head = fn.round(near * 256.0) / 256.0
    grown = fn.exp(head * head) * fn.exp((near - head) * (near + head))
    far = fn.maximum(x, 8.0)
    z = 0.5 / (far * far)
    series: Any = 1.0
    for k in range(16, 0, -1):
        series = 1.0 - (2 * k - 1) * z * series
    return fn.where(fn.lt(x, 8.0) | fn.isnan(x), grown * fn.erfc(near), series / (far * math.sqrt(math.pi)))


def _log_ndtr(x: Any) -> Any:
    t = x * _ROOT_HALF
    tail = fn.log(_erfcx(-fn.minimum(t, 0.0)) / 2) - t * t
    return fn.where(fn.lt(x, -1.0), tail, fn.log1p(-fn.erfc(t) / 2))


def _ndtr(x: Any) -> Any:
    t = x * _ROOT_HALF
    return fn.where(fn.lt(fn.abs(t), _ROOT_HALF), 0.5 + 0.5 * fn.erf(t), 0.5 * fn.erfc(-t))


def _tail_quantile(p: Any) -> Any:
    """The ``x < 0`` with ``ndtr(x) = p``, for small p: a start (Abramowitz & Stegun 26.2.23) and two Halley steps on
    ``log_ndtr(x) = log(p)``, which stays well conditioned however small p is."""
    log_p = fn.log(p)
    t = fn.sqrt(-2.0 * log_p)
    x = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))))
    for _ in range(2):
        scaled = _erfcx(-x * _ROOT_HALF) / 2  # ndtr(x) exp(x**2 / 2)
        excess = fn.log(scaled) - x * x / 2 - log_p
        slope = 1 / (scaled * _ROOT_TWO_PI)  # of log_ndtr; its own slope is -slope (slope + x)
        newton = excess / slope
        x = x - newton / (1 + newton * (slope + x) / 2)
    return x


def _ndtri(p: Any) -> Any:
    small = fn.minimum(p, 1 - p)
    inside = fn.where(fn.gt(small, 0.0), small, 0.25)
    tail = _tail_quantile(fn.minimum(inside, 0.25))
    middle = math.sqrt(2) * fn.erfinv(2 * fn.where(fn.gt(small, 0.125), p, 0.5) - 1)
    value = fn.where(fn.gt(small, 0.125), middle, fn.where(fn.lt(p, 0.5), tail, -tail))
    value = fn.where(fn.eq(p, 0), -math.inf, fn.where(fn.eq(p, 1), math.inf, value))
    return fn.where(fn.ge(p, 0) & fn.le(p, 1), value, math.nan)


erfcx = elementwise(
    _erfcx,
    name="erfcx",
    vjp=lambda g, y, x: (g * (2.0 * x * y - 2 / math.sqrt(math.pi)),),
    samples=unary(-2, 4, few=True),
    doc="``exp(x**2) erfc(x)``.",
)
ndtr = elementwise(
    _ndtr,
    name="ndtr",
    vjp=lambda g, y, x: (g * (fn.exp(-(x * x) / 2) / _ROOT_TWO_PI),),
    samples=unary(-3, 3, few=True),
    doc="The normal distribution function: the integral of its density up to x.",
)
log_ndtr = elementwise(
    _log_ndtr,
    name="log_ndtr",
    vjp=lambda g, y, x: (
        g * fn.where(
            fn.lt(x, -1.0), 2 / (_erfcx(-fn.minimum(x, 0.0) * _ROOT_HALF) * _ROOT_TWO_PI),
            fn.exp(-(x * x) / 2 - y) / _ROOT_TWO_PI,
        ),
    ),
    samples=unary(-6, 3, avoid=(-1, 0), few=True),
    doc="The logarithm of ``ndtr``.",
)  # fmt: skip
ndtri = elementwise(
    _ndtri,
    name="ndtri",
    vjp=lambda g, y, x: (g * (_ROOT_TWO_PI * fn.exp(y * y / 2)),),
    samples=unary(0.2, 0.8, few=True),
    doc="The normal quantile: the x with ``ndtr(x) = p``.",
)
