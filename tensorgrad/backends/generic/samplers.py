"""Gamma, Poisson and binomial numbers over ``xp``, by rejection, from the streams of ``random``.

Attempt ``k`` of element ``i`` reads Philox block ``i + k * 2**40`` of the draw, whatever other elements did: the
numbers depend on seed, offset and position alone. Everything is computed in float64.

Sources: Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; Hoermann 1993, "The transformed
rejection method for generating Poisson random variables" (PTRS), and 1993, "The generation of binomial random variates"
(BTRS); below a mean of 10 both invert the distribution function.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from .random import philox_blocks

_ATTEMPT = 1 << 40
_INVERSION_BELOW = 10.0
_INVERSION_STEPS = 64  # no count of a mean below 10 has a probability above 2**-53 beyond
_LOG_FLOOR = 40.0  # exp(-40) is below the rounding of 1


def _two_uniforms(xp: Any, words: Any) -> tuple[Any, Any]:
    """Two numbers of 53 bits, in (0, 1), from four words each."""
    u = np.uint64

    def one(high: Any, low: Any) -> Any:
        bits = ((high >> u(5)) << u(26)) | (low >> u(6))
        return (bits.astype(np.float64) + 0.5) * 2.0**-53

    return one(words[0], words[1]), one(words[2], words[3])


def _log_factorial(xp: Any, k: Any) -> Any:
    """``log(k!)`` by Stirling's series at ``k + 8``."""
    z = k + 1.0
    product = z * (z + 1) * (z + 2) * (z + 3) * (z + 4) * (z + 5) * (z + 6)
    x = z + 7.0
    inverse = 1.0 / (x * x)
    series = (1.0 / 12 - inverse * (1.0 / 360 - inverse * (1.0 / 1260 - inverse / 1680))) / x
    return (x - 0.5) * xp.log(x) - x + 0.5 * math.log(2 * math.pi) + series - xp.log(product)


def _digamma(xp: Any, x: Any) -> Any:
    """The digamma function of positive numbers: recurrence to 8 and beyond, then the asymptotic series."""
    shift = xp.zeros_like(x)
    for k in range(8):
        shift = shift - 1.0 / (x + k)
    z = x + 8.0
    inverse = 1.0 / (z * z)
    series = inverse * (
        1.0 / 12
        - inverse
        * (1.0 / 120 - inverse * (1.0 / 252 - inverse * (1.0 / 240 - inverse * (1.0 / 132 - inverse * 691 / 32760))))
    )
    return xp.log(z) - 0.5 / z - series + shift


@lru_cache(maxsize=1)
def _legendre() -> tuple[tuple[float, float], ...]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    return tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


class SamplerKernels:
    xp: Any

    def _flat(self, x: Any) -> Any:
        return self.xp.ascontiguousarray(x).reshape(-1).astype(np.float64)

    def _rejected(self, count: int, ready: Any, generator: Any, attempt: Any) -> Any:
        """Zeros with ``attempt(where, words)``'s (accepted, values) filled in for the elements that are ``ready``."""
        xp = self.xp
        seed, offset = generator.take(count)
        out = xp.zeros(count, dtype=np.float64)
        where = xp.nonzero(ready)[0].astype(np.int64)
        number = 0
        with np.errstate(all="ignore"):
            while where.shape[0]:
                number += 1
                words = philox_blocks(xp, seed, offset, where.astype(np.uint64) + np.uint64(number * _ATTEMPT))
                accepted, values = attempt(where, words)
                out[where[accepted]] = values[accepted]
                where = where[xp.logical_not(accepted)]
        return out, seed, offset

    def standard_gamma(self, alpha: Any, *, generator: Any) -> Any:
        """Gamma numbers of shape ``alpha`` and rate 1, never below the dtype's smallest normal number."""
        xp = self.xp
        a = self._flat(alpha)
        with np.errstate(all="ignore"):
            shape = xp.where(a < 1, a + 1.0, a)
            d = shape - 1.0 / 3
            c = 1.0 / xp.sqrt(9.0 * d)
            ready = xp.isfinite(a) & (a > 0)

        def attempt(where: Any, words: Any) -> tuple[Any, Any]:
            u0, u1 = [(w.astype(np.float64) + 0.5) * 2.0**-32 for w in words[:2]]
            normal = xp.sqrt(-2 * xp.log(u0)) * xp.cos(2 * math.pi * u1)
            u = ((words[2] << np.uint64(21)) | (words[3] >> np.uint64(11))).astype(np.float64)
            u = (u + 0.5) * 2.0**-53
            v = (1.0 + c[where] * normal) ** 3
            size = d[where]
            accepted = (v > 0) & (xp.log(u) < 0.5 * normal * normal + size - size * v + size * xp.log(v))
            return accepted, size * v

        out, seed, offset = self._rejected(a.shape[0], ready, generator, attempt)
        with np.errstate(all="ignore"):
            # a shape below 1 is one above, times a power of a uniform number
            words = philox_blocks(xp, seed, offset, xp.arange(a.shape[0], dtype=np.uint64))
            u = _two_uniforms(xp, words)[0]
            out = xp.where(a < 1, out * xp.exp(xp.log(u) / a), out)
            out = xp.where(ready, xp.maximum(out, _smallest(alpha.dtype)), xp.where(a == np.inf, np.inf, np.nan))
            out = xp.where(a == 0, _smallest(alpha.dtype), out)
            return out.astype(alpha.dtype).reshape(alpha.shape)

    def standard_gamma_grad(self, alpha: Any, sample: Any) -> Any:
        """``d x / d alpha`` at a fixed value of the distribution function ``P(alpha, x)``.

        ``- (dP / d alpha) / (dP / d x)``, of which three forms without cancellation cover the plane. With
        ``log x < digamma(alpha)``, ``int_0^x (t / x)^(a-1) e^(x-t) (digamma(a) - log t) dt``, and above
        ``int_x^inf (t / x)^(a-1) e^(x-t) (log t - digamma(a)) dt`` have integrands of one sign; for small ``alpha`` the
        first one is the series ``x / a sum_n x^n / ((a+1) ... (a+n)) (digamma(a+n+1) - log x)``.
        """
        xp = self.xp
        a, x = self._flat(alpha), self._flat(sample)
        with np.errstate(all="ignore"):
            psi, log_x = _digamma(xp, a), xp.log(x)
            use_series = (a < 10) & (x <= xp.maximum(2.0, a + 3.0 * xp.sqrt(a)))
            below = log_x < psi
            forms = (
                (_series, use_series),
                (_below, below & xp.logical_not(use_series)),
                (_above, xp.logical_not(below | use_series)),
            )
            result = xp.zeros_like(a)
            for form, chosen in forms:
                where = xp.nonzero(chosen)[0]
                if where.shape[0]:
                    result[where] = form(xp, a[where], x[where], psi[where], log_x[where])
            return result.astype(alpha.dtype).reshape(alpha.shape)

    def poisson(self, rate: Any, *, generator: Any) -> Any:
        """Poisson numbers of these means; NaN where the mean is negative or not finite."""
        xp = self.xp
        mean = self._flat(rate)
        valid = xp.isfinite(mean) & (mean >= 0)
        few = mean < _INVERSION_BELOW
        with np.errstate(all="ignore"):
            b = 0.931 + 2.53 * xp.sqrt(mean)
            a = -0.059 + 0.02483 * b
            inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
            v_r = 0.9277 - 3.6224 / (b - 2)
            log_mean = xp.log(mean)

        def attempt(where: Any, words: Any) -> tuple[Any, Any]:
            u, v = _two_uniforms(xp, words)
            u = u - 0.5
            us = 0.5 - xp.abs(u)
            m, mine_a, mine_b = mean[where], a[where], b[where]
            k = xp.floor((2 * mine_a / us + mine_b) * u + m + 0.43)
            sure = (us >= 0.07) & (v <= v_r[where])
            possible = (k >= 0) & ((us >= 0.013) | (v <= us))
            left = xp.log(v) + xp.log(inverse_alpha[where]) - xp.log(mine_a / (us * us) + mine_b)
            held = left <= -m + k * log_mean[where] - _log_factorial(xp, xp.maximum(k, 0.0))
            return sure | (possible & held), k

        out, seed, offset = self._rejected(mean.shape[0], valid & xp.logical_not(few), generator, attempt)
        with np.errstate(all="ignore"):
            u = _two_uniforms(xp, philox_blocks(xp, seed, offset, xp.arange(mean.shape[0], dtype=np.uint64)))[0]
            small = xp.where(few & valid, mean, 0.0)
            counted = _inverted(xp, u, xp.exp(-small), lambda k: small / k)
        out = xp.where(few, counted, out)
        return xp.where(valid, out, np.nan).astype(rate.dtype).reshape(rate.shape)

    def binomial(self, count: Any, prob: Any, *, generator: Any) -> Any:
        """How many of ``count`` trials succeed, each with probability ``prob``; NaN for what is none."""
        xp = self.xp
        shape = np.broadcast_shapes(count.shape, prob.shape)
        n, p = self._flat(xp.broadcast_to(count, shape)), self._flat(xp.broadcast_to(prob, shape))
        valid = xp.isfinite(n) & (n >= 0) & (p >= 0) & (p <= 1)
        n = xp.where(valid, xp.floor(n), 0.0)
        q = xp.where(valid, xp.minimum(p, 1.0 - p), 0.0)  # the rarer outcome is counted
        few = n * q < _INVERSION_BELOW
        with np.errstate(all="ignore"):
            spread = xp.sqrt(n * q * (1.0 - q))
            b = 1.15 + 2.53 * spread
            a = -0.0873 + 0.0248 * b + 0.01 * q
            alpha = (2.83 + 5.1 / b) * spread
            v_r = 0.92 - 4.2 / b
            mode = xp.floor((n + 1) * q)
            odds = xp.log(q / (1.0 - q))
            at_mode = _log_factorial(xp, mode) + _log_factorial(xp, n - mode)

        def attempt(where: Any, words: Any) -> tuple[Any, Any]:
            u, v = _two_uniforms(xp, words)
            u = u - 0.5
            us = 0.5 - xp.abs(u)
            size, mine_a, mine_b = n[where], a[where], b[where]
            k = xp.floor((2 * mine_a / us + mine_b) * u + size * q[where] + 0.5)
            sure = (us >= 0.07) & (v <= v_r[where])
            possible = (k >= 0) & (k <= size)
            inside = xp.minimum(xp.maximum(k, 0.0), size)
            left = xp.log(v * alpha[where] / (mine_a / (us * us) + mine_b))
            ways = at_mode[where] - _log_factorial(xp, inside) - _log_factorial(xp, size - inside)
            return possible & (sure | (left <= ways + (k - mode[where]) * odds[where])), k

        out, seed, offset = self._rejected(n.shape[0], valid & xp.logical_not(few), generator, attempt)
        with np.errstate(all="ignore"):
            u = _two_uniforms(xp, philox_blocks(xp, seed, offset, xp.arange(n.shape[0], dtype=np.uint64)))[0]
            trials, rare = xp.where(few, n, 0.0), xp.where(few, q, 0.0)
            ratio = rare / (1.0 - rare)
            none = xp.exp(trials * xp.log1p(-rare))
            counted = _inverted(xp, u, none, lambda k: xp.maximum(trials - k + 1, 0.0) / k * ratio)
        out = xp.where(few, counted, out)
        out = xp.where(p > 0.5, n - out, out)
        return xp.where(valid, out, np.nan).astype(prob.dtype).reshape(shape)


def _smallest(dtype: Any) -> float:
    return {"float64": 2.2250738585072014e-308, "float16": 6.103515625e-05}.get(dtype.name, 1.1754943508222875e-38)


def _inverted(xp: Any, u: Any, first: Any, ratio: Any) -> Any:
    """The smallest k at which the sum of probabilities reaches u; ``ratio(k)`` is that of the k-th to the last."""
    probability, total = first, first
    found = xp.zeros_like(u)
    for k in range(1, _INVERSION_STEPS):
        found = found + (u > total)
        probability = probability * ratio(float(k))
        total = total + probability
    return found


def _series(xp: Any, a: Any, x: Any, psi: Any, log_x: Any) -> Any:
    term = xp.ones_like(a)
    psi = psi + 1.0 / a
    total = psi - log_x
    for n in range(1, 80):
        term = term * x / (a + n)
        psi = psi + 1.0 / (a + n)
        total = total + term * (psi - log_x)
    return x / a * total


def _integral(xp: Any, end: Any, integrand: Any) -> Any:
    total = xp.zeros_like(end)
    for node, weight in _legendre():
        total = total + weight * integrand(end * node)
    return end * total


def _below(xp: Any, a: Any, x: Any, psi: Any, log_x: Any) -> Any:
    """``t = x e^(-v)``, until the integrand has fallen to e^-40."""
    end = xp.where(x >= 3 * _LOG_FLOOR, xp.sqrt(3 * _LOG_FLOOR / x), (_LOG_FLOOR + x) / a)
    for _ in range(8):
        fallen = -a * end - x * xp.expm1(-end) + _LOG_FLOOR
        end = end - fallen / (x * xp.exp(-end) - a)
    return x * _integral(xp, end, lambda v: xp.exp(-a * v - x * xp.expm1(-v)) * (psi - log_x + v))


def _above(xp: Any, a: Any, x: Any, psi: Any, log_x: Any) -> Any:
    """``t = x e^v``, until the integrand has fallen to e^-40."""
    rise = a - x
    end = (rise + xp.sqrt(rise * rise + 2 * _LOG_FLOOR * x)) / x
    for _ in range(8):
        grown = x * xp.expm1(end)
        end = end - (a * end - grown + _LOG_FLOOR) / (a - x - grown)
    return x * _integral(xp, end, lambda v: xp.exp(a * v - x * xp.expm1(v)) * (log_x + v - psi))
