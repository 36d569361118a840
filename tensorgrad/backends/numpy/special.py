"""Special functions that NumPy lacks, in double precision over arrays.

Each takes ``(xp, kind, ...)`` as the evaluator calls it. The work is done in float64 and rounded once, so float32
results are correctly rounded up to the stated error. Relative errors against exact values: erf, erfc 1e-15 (from the C
library), erfinv 1e-14, lgamma 1e-14 (from the C library), digamma 1e-14, polygamma 1e-12, away from their zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .gamma import hurwitz_zeta


def _on_host(xp: Any, kind: str, x: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a host function to the elements; arrays of other namespaces bring kernels of their own for speed."""
    host = x if isinstance(x, np.ndarray) else np.asarray(xp.asnumpy(x) if hasattr(xp, "asnumpy") else x)
    out = function(host.astype(np.float64)).astype(host.dtype)
    return xp.asarray(out)


def _from_math(function: Callable[[float], float]) -> Callable[[Any], Any]:
    ufunc = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(ufunc(x), dtype=np.float64)


_erf, _erfc = _from_math(math.erf), _from_math(math.erfc)


def _lgamma_scalar(x: float) -> float:
    if x <= 0 and (math.isinf(x) or x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


_lgamma = _from_math(_lgamma_scalar)


def erf(xp: Any, kind: str, x: Any) -> Any:
    return _on_host(xp, kind, x, _erf)


def erfc(xp: Any, kind: str, x: Any) -> Any:
    return _on_host(xp, kind, x, _erfc)


def lgamma(xp: Any, kind: str, x: Any) -> Any:
    return _on_host(xp, kind, x, _lgamma)


def digamma(xp: Any, kind: str, x: Any) -> Any:
    return _on_host(xp, kind, x, _digamma)


def erfinv(xp: Any, kind: str, x: Any) -> Any:
    return _on_host(xp, kind, x, _erfinv)


def polygamma(xp: Any, kind: str, order: Any, x: Any) -> Any:
    n = int(order)
    return _on_host(xp, kind, x, lambda host: _polygamma(n, host))


def _erfinv(y: Any) -> Any:
    """Giles' 2010 approximation as a start, then two Newton steps on erf (or erfc, near 1) in double precision."""
    with np.errstate(all="ignore"):
        w = -np.log((1 - y) * (1 + y))
        small = w - 2.5
        large = np.sqrt(np.maximum(w, 0)) - 3
        a = 2.81022636e-08
        for c in (3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
                  0.246640727, 1.50140941):  # fmt: skip
            a = c + a * small
        b = -0.000200214257
        for c in (0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
                  1.00167406, 2.83297682):  # fmt: skip
            b = c + b * large
        x = np.where(w < 5, a, b) * y
        inside = np.abs(y) < 1
        for _ in range(2):
            t = np.where(inside, x, 0.0)
            # near 1, 1 - erf(x) = erfc(x) keeps the digits that erf(x) - y loses
            error = np.where(np.abs(y) < 0.5, _erf(t) - y, np.sign(y) * ((1 - np.abs(y)) - _erfc(np.abs(t))))
            slope = 2 / math.sqrt(math.pi) * np.exp(-t * t)
            step = error / slope
            x = np.where(inside, t - step / (1 + t * step), x)
        return np.where(inside, x, np.where(np.abs(y) == 1, np.sign(y) * np.inf, np.nan))


# B_2k / (2k): the asymptotic series of digamma
_DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def _digamma(x: Any) -> Any:
    """Recurrence up to 10, then the asymptotic series (Abramowitz & Stegun 6.3.18); reflection below zero (6.3.7)."""
    with np.errstate(all="ignore"):
        reflect = x < 0
        pole = (x == np.floor(x)) & (x <= 0)
        z = np.where(reflect, 1 - x, x)
        z = np.where(pole | ~np.isfinite(z), 1.0, z)
        total = np.zeros_like(z)
        for _ in range(10):
            low = z < 10
            total = np.where(low, total - 1 / np.where(low, z, 1), total)
            z = np.where(low, z + 1, z)
        series = np.zeros_like(z)
        inverse = 1 / (z * z)
        for coefficient in reversed(_DIGAMMA_SERIES):
            series = (series + coefficient) * inverse
        result = total + np.log(z) - 0.5 / z - series
        fraction = x - np.round(x)  # tan has period 1 in x: reducing first keeps its digits
        result = np.where(reflect, result - math.pi / np.tan(math.pi * fraction), result)
        result = np.where(pole, np.where(x == 0, np.copysign(np.inf, -x), np.nan), result)
        return np.where(np.isposinf(x), np.inf, np.where(np.isnan(x) | np.isneginf(x), np.nan, result))


def _polygamma(n: int, x: Any) -> Any:
    """psi^(n)(x) = (-1)^(n+1) n! zeta(n+1, x), with the Hurwitz zeta function."""
    if n == 0:
        return _digamma(x)
    sign = -1.0 if n % 2 == 0 else 1.0
    factorial = float(math.factorial(n)) if n <= 170 else math.inf
    return sign * factorial * hurwitz_zeta(n + 1, x)
