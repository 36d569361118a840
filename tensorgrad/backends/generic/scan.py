"""Running sums, products, extremes over ``xp``.

Where the array library has no running form of an operation, neighbours at distance 1, 2, 4, ... are combined: log2(n)
passes over the whole array instead of n steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .reduce import wide


class ScanKernels:
    xp: Any

    def cumsum(self, x: Any, *, dim: int) -> Any:
        return self._running(x, self.xp.cumsum, dim)

    def cumprod(self, x: Any, *, dim: int) -> Any:
        return self._running(x, self.xp.cumprod, dim)

    def _running(self, x: Any, scan: Any, dim: int) -> Any:
        if x.dtype.kind in "bui":
            return scan(x, axis=dim, dtype=np.int64)
        with np.errstate(all="ignore"):
            return scan(wide(x), axis=dim).astype(x.dtype, copy=False)

    def logcumsumexp(self, x: Any, *, dim: int) -> Any:
        out = wide(x).copy()
        if x.dtype.kind == "c":  # one after another: which of the logarithms comes out depends on the order
            with np.errstate(all="ignore"):
                lead = (slice(None),) * dim
                for i in range(1, x.shape[dim]):
                    out[(*lead, i)] = self._complex_logaddexp(out[(*lead, i)], out[(*lead, i - 1)])
            return out
        with np.errstate(all="ignore"):
            for before, after in _distances(out.ndim, dim, out.shape[dim]):
                out[after] = self.xp.logaddexp(out[before], out[after])
        return out.astype(x.dtype, copy=False)

    def _complex_logaddexp(self, a: Any, b: Any) -> Any:
        """``log(exp(a) + exp(b))``, shifted by the larger real part."""
        xp = self.xp
        first = a.real >= b.real
        high, low = xp.where(first, a, b), xp.where(first, b, a)
        return xp.where(xp.isfinite(high.real), high + xp.log(1 + xp.exp(low - high)), high)

    def linear_recurrence(self, a: Any, b: Any, *, dim: int) -> Any:
        """A stretch of the recurrence maps ``h`` to ``a h + b``; two neighbouring stretches make one.

        In double: in single, cumprod's gradient erred 2.5 times as much as PyTorch's.
        """
        double = np.promote_types(wide(b).dtype, np.float64)
        slope, value = wide(a).astype(double), wide(b).astype(double)
        with np.errstate(all="ignore"):
            for before, after in _distances(value.ndim, dim, value.shape[dim]):
                value[after] = value[after] + slope[after] * value[before]
                slope[after] = slope[after] * slope[before]
        return value.astype(b.dtype, copy=False)

    def cummax(self, x: Any, *, dim: int) -> tuple[Any, Any]:
        return self._running_extreme(x, lambda later, earlier: later >= earlier, dim)

    def cummin(self, x: Any, *, dim: int) -> tuple[Any, Any]:
        return self._running_extreme(x, lambda later, earlier: later <= earlier, dim)

    def _running_extreme(self, x: Any, wins: Any, dim: int) -> tuple[Any, Any]:
        """The later of equals wins, and NaN wins over numbers and stays."""
        xp = self.xp
        size = x.shape[dim]
        ramp = (1,) * dim + (size,) + (1,) * (x.ndim - dim - 1)
        values = wide(x).copy()
        indices = xp.broadcast_to(xp.arange(size, dtype=np.int64).reshape(ramp), x.shape).copy()
        for before, after in _distances(x.ndim, dim, size):
            later, earlier = values[after], values[before]
            keep = wins(later, earlier)
            if x.dtype.kind in "fV":
                keep = xp.isnan(later) | (keep & ~xp.isnan(earlier))
            values[after] = xp.where(keep, later, earlier)
            indices[after] = xp.where(keep, indices[after], indices[before])
        return values.astype(x.dtype, copy=False), indices


def _distances(ndim: int, dim: int, size: int) -> list[tuple[Any, Any]]:
    """Pairs of keys (all but the last d, all but the first d) along ``dim`` for d = 1, 2, 4, ... below ``size``."""
    lead = (slice(None),) * dim
    pairs = []
    distance = 1
    while distance < size:
        pairs.append(((*lead, slice(0, size - distance)), (*lead, slice(distance, size))))
        distance *= 2
    return pairs
