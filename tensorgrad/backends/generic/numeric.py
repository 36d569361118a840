"""Divisors of integers, parts and neighbours of floating-point numbers, over ``xp``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import key_of, numpy_dtype, result_name
from .reduce import wide


class NumericKernels:
    xp: Any

    def gcd(self, input: Any, other: Any) -> Any:
        a, b = self._alike(input, other)
        return self.xp.asarray(self.xp.gcd(a, b))

    def lcm(self, input: Any, other: Any) -> Any:
        a, b = self._alike(input, other)
        kind = a.dtype
        if kind.itemsize < 4:  # wraps once, as a whole
            a, b = a.astype(np.int32), b.astype(np.int32)
        return self.xp.asarray(self.xp.absolute(self.xp.lcm(a, b)).astype(kind))

    def nextafter(self, input: Any, other: Any) -> Any:
        a, b = self._alike(input, other)
        if a.dtype.itemsize > 2:
            return self.xp.asarray(self.xp.nextafter(a, b))
        return self._next_half(*self.xp.broadcast_arrays(a, b))

    def _next_half(self, a: Any, b: Any) -> Any:
        """The bits of a float, sign aside, count its magnitude: its neighbours have the numbers next to its own."""
        xp = self.xp
        bits = a.view(np.int16)
        from_, to = wide(a), wide(b)
        outward = xp.where(to > from_, ~xp.signbit(from_), xp.signbit(from_))
        moved = xp.where(outward, bits + np.int16(1), bits - np.int16(1))
        tiny = xp.where(to > 0, np.int16(1), np.int16(-0x7FFF))  # the smallest number of either sign
        moved = xp.where(from_ == 0, tiny, moved)
        result = xp.where(from_ == to, b.view(np.int16), moved).view(a.dtype)
        unknown = xp.isnan(from_) | xp.isnan(to)
        return xp.where(unknown, xp.asarray(np.nan, dtype=a.dtype), result).astype(a.dtype, copy=False)

    def frexp(self, input: Any) -> Any:
        mantissa, exponent = self.xp.frexp(wide(input))
        asarray = self.xp.asarray
        return asarray(mantissa).astype(input.dtype, copy=False), asarray(exponent).astype(np.int32, copy=False)

    def _alike(self, a: Any, b: Any) -> tuple[Any, Any]:
        dtype = numpy_dtype(result_name((key_of(a), key_of(b))))
        return a.astype(dtype, copy=False), b.astype(dtype, copy=False)
