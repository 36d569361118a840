"""Random arrays on the device: the streams of ``generic/random.py``, one kernel a draw.

Kernels are given seed and offset, and where both are in device memory instead while they are captured into a graph.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..generic.random import RandomKernels
from .kernels import Kernels
from .names import NAMES
from .words import CapturedGenerator

_NOWHERE = np.uint64(0)  # the null pointer

__all__ = ["CupyRandomKernels"]


class CupyRandomKernels(RandomKernels):
    _kernels: Kernels

    def random_uniform(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        return self._drawn("uniform", shape, dtype, generator)

    def random_normal(self, *, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        return self._drawn("normal", shape, dtype, generator)

    def _place(self, count: int, generator: Any) -> tuple[Any, Any, Any]:
        """Seed, offset, and the address of both or null, of a draw of ``count`` elements."""
        if isinstance(generator, CapturedGenerator):
            return 0, 0, generator.place(count)
        return (*generator.take(count), _NOWHERE)

    def _drawn(self, kind: str, shape: tuple[int, ...], dtype: Any, generator: Any) -> Any:
        count = math.prod(shape)
        place = self._place(count, generator)
        out = self.xp.empty(shape, dtype=dtype)
        per_block = 2 if kind == "uniform" and NAMES[dtype] == "float64" else 4
        self._kernels.launch(f"{kind}_{NAMES[dtype]}", -(-count // per_block), count, *place, out)
        return out

    def _longs(self, count: int, generator: Any) -> Any:
        """64 random bits for each of ``count`` elements."""
        place = self._place(count, generator)
        words = self.xp.empty(2 * count, dtype=np.uint32)
        self._kernels.launch("words", -(-count // 2), 2 * count, *place, words)
        words = words.astype(np.uint64)
        return (words[0::2] << np.uint64(32)) | words[1::2]

    def random_integers(self, *, shape: tuple[int, ...], low: int, high: int, dtype: Any, generator: Any) -> Any:
        wide = self._longs(math.prod(shape), generator)
        if high - low < 2**64:
            wide = wide % np.uint64(high - low)
        return (wide + np.uint64(low % 2**64)).astype(np.int64).astype(dtype).reshape(shape)

    def random_permutation(self, *, n: int, dtype: Any, generator: Any) -> Any:
        return self.xp.argsort(self._longs(n, generator), kind="stable").astype(dtype)

    def random_place(self, *, count: int, generator: Any) -> Any:
        place = self._place(count, generator)
        made = self.xp.empty((2,), dtype=np.int64)
        self._kernels.launch("place", 1, *place, made)
        return made

    def dropout_mask(self, place: Any, *, shape: tuple[int, ...], p: float) -> Any:
        mask, count = self.xp.empty(shape, dtype=np.bool_), math.prod(shape)
        self._kernels.launch("stays", -(-count // 4), count, self.xp.ascontiguousarray(place), np.float32(p), mask)
        return mask

    def dropout(self, x: Any, *, p: float, generator: Any) -> Any:
        if x.dtype.kind == "c":
            return super().dropout(x, p=p, generator=generator)
        place = self._place(x.size, generator)
        x = self.xp.ascontiguousarray(x).reshape(x.shape)
        y, mask = self.xp.empty(x.shape, dtype=x.dtype), self.xp.empty(x.shape, dtype=np.bool_)
        scale = np.float64(1.0 / (1.0 - p) if p < 1 else 0.0)
        threads = -(-x.size // 4)
        self._kernels.launch(f"dropout_{NAMES[x.dtype]}", threads, x.size, *place, np.float32(p), scale, x, y, mask)
        return y, mask
