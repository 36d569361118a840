"""Philox 4x32-10 over ``xp``: the reference of the random streams that every backend reproduces.

A draw has a 64-bit seed (the key: low word, high word) and a 64-bit offset. Block ``b`` is Philox of the counter
``(b low, b high, offset low, offset high)`` and holds the words ``4 b`` to ``4 b + 3`` of the stream.

- uniform float32: ``(word_i >> 8) * 2**-24``; float16 and bfloat16 take their 11 and 8 highest bits instead, so that
  no element rounds up to 1; float64: 53 bits of the words ``2 i`` and ``2 i + 1``.
- normal: Box and Muller in float64 from pairs of words, ``u = (word + 0.5) * 2**-32``: element ``2 j`` is
  ``sqrt(-2 ln u0) cos(2 pi u1)``, element ``2 j + 1`` the same with sin.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_STEPS = (0x9E3779B9, 0xBB67AE85)
_BLOCKS_AT_ONCE = 1 << 15  # the ten rounds of a piece stay in cache


def philox_blocks(xp: Any, seed: int, offset: int, numbers: Any) -> tuple[Any, Any, Any, Any]:
    """The four words of each block, as uint64 arrays below 2**32, of the blocks ``numbers`` (uint64)."""
    u = np.uint64
    c0, c1 = numbers & u(_LOW), numbers >> u(32)
    c2 = xp.full(numbers.shape, offset & _LOW, dtype=np.uint64)
    c3 = xp.full(numbers.shape, offset >> 32, dtype=np.uint64)
    k0, k1 = seed & _LOW, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * u(_MULTIPLIERS[0]), c2 * u(_MULTIPLIERS[1])
        c0, c1, c2, c3 = (p1 >> u(32)) ^ c1 ^ u(k0), p1 & u(_LOW), (p0 >> u(32)) ^ c3 ^ u(k1), p0 & u(_LOW)
        k0, k1 = (k0 + _STEPS[0]) & _LOW, (k1 + _STEPS[1]) & _LOW
    return c0, c1, c2, c3


def philox_words(xp: Any, seed: int, offset: int, first: int, blocks: int) -> Any:
    """The words of ``blocks`` blocks from number ``first`` on, as uint64 (4 * blocks,) below 2**32."""
    words = philox_blocks(xp, seed, offset, xp.arange(first, first + blocks, dtype=np.uint64))
    return xp.stack(words, axis=1).reshape(4 * blocks)


def _fill(xp: Any, count: int, words_each: int, dtype: Any, seed: int, offset: int, convert: Any) -> Any:
    """``count`` elements made piece by piece by ``convert(words)``, each from ``words_each`` words."""
    out = xp.empty(count, dtype=dtype)
    blocks = -(-count * words_each // 4)
    for first in range(0, blocks, _BLOCKS_AT_ONCE):
        words = philox_words(xp, seed, offset, first, min(_BLOCKS_AT_ONCE, blocks - first))
        start = first * 4 // words_each
        stop = min(count, start + words.shape[0] // words_each)
        out[start:stop] = convert(words)[: stop - start]
    return out


def _uniform_bits(dtype: Any) -> int:
    """How many random bits an element of this dtype holds without rounding."""
    return {"float32": 24, "float16": 11, "bfloat16": 8}[dtype.name]


class RandomKernels:
    xp: Any

    def random_uniform(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        """Uniform in [0, 1)."""
        count = math.prod(shape)
        seed, offset = generator.take(count)
        if dtype.name == "float64":

            def convert(words: Any) -> Any:
                high, low = words[0::2] >> np.uint64(5), words[1::2] >> np.uint64(6)
                return (high.astype(np.float64) * 2.0**26 + low.astype(np.float64)) * 2.0**-53

            return _fill(self.xp, count, 2, dtype, seed, offset, convert).reshape(shape)
        bits = _uniform_bits(dtype)

        def convert_single(words: Any) -> Any:
            return ((words >> np.uint64(32 - bits)).astype(np.float32) * np.float32(2.0**-bits)).astype(dtype)

        return _fill(self.xp, count, 1, dtype, seed, offset, convert_single).reshape(shape)

    def random_normal(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        """Normal with mean 0 and variance 1."""
        xp = self.xp
        count = math.prod(shape)
        seed, offset = generator.take(count)

        def convert(words: Any) -> Any:
            u = (words.astype(np.float64) + 0.5) * 2.0**-32
            radius, angle = xp.sqrt(-2 * xp.log(u[0::2])), 2 * math.pi * u[1::2]
            return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1).reshape(-1).astype(dtype)

        return _fill(xp, count, 1, dtype, seed, offset, convert).reshape(shape)

    def random_integers(self, *, shape: tuple[int, ...], low: int, high: int, dtype: Any, generator: Any) -> Any:
        """Integers from ``low`` to ``high`` (excluded): 64 random bits modulo the range."""
        count = math.prod(shape)
        seed, offset = generator.take(count)

        def convert(words: Any) -> Any:
            wide = (words[0::2] << np.uint64(32)) | words[1::2]
            if high - low < 2**64:
                wide = wide % np.uint64(high - low)
            return (wide + np.uint64(low % 2**64)).astype(np.int64).astype(dtype)

        return _fill(self.xp, count, 2, dtype, seed, offset, convert).reshape(shape)

    def random_permutation(self, *, n: int, dtype: Any, generator: Any) -> Any:
        """The numbers below ``n`` in random order: the order of 64 random bits each."""
        seed, offset = generator.take(n)

        def convert(words: Any) -> Any:
            return (words[0::2] << np.uint64(32)) | words[1::2]

        keys = _fill(self.xp, n, 2, np.uint64, seed, offset, convert)
        return self.xp.argsort(keys, kind="stable").astype(dtype)

    def random_place(self, *, count: int, generator: Any) -> Any:
        return self.xp.array(generator.take(count), dtype=np.uint64).view(np.int64)

    def dropout_mask(self, place: Any, *, shape: tuple[int, ...], p: float) -> Any:
        return self._stays(shape, p, *[word % 2**64 for word in place.tolist()])

    def _stays(self, shape: tuple[int, ...], p: float, seed: int, offset: int) -> Any:
        """Which elements dropout keeps: those whose uniform number is at least ``p``."""
        threshold = np.float32(p)

        def convert(words: Any) -> Any:
            return (words >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24) >= threshold

        return _fill(self.xp, math.prod(shape), 1, np.bool_, seed, offset, convert).reshape(shape)

    def dropout(self, x: Any, *, p: float, generator: Any) -> Any:
        mask = self._stays(x.shape, p, *generator.take(x.size))
        scale = 1.0 / (1.0 - p) if p < 1 else 0.0
        factor = self.xp.where(mask, scale, 0.0).astype(x.dtype if x.dtype.kind == "f" else np.float32)
        return (x * factor).astype(x.dtype, copy=False), mask  # NaN stays
