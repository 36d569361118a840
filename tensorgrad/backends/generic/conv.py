"""Convolution over ``xp``: columns of window taps, and one matrix product per group.

The batch is worked on in pieces, so that the columns of a piece stay small; pieces depend on shapes alone, and so do
the bits of the result. Half precision is summed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .products import Products
from .reduce import wide
from .windows import taps

_COLUMN_ELEMENTS = 1 << 22  # of one piece: 16 MB of float32


def _pieces(batch: int, per_sample: int) -> Iterator[tuple[int, int]]:
    step = max(1, _COLUMN_ELEMENTS // max(1, per_sample))
    for first in range(0, batch, step):
        yield first, min(batch, first + step)


class ConvKernels(Products):
    def _columns(self, x: Any, kernel: Any, outputs: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        """(groups, channels per group * taps, samples * positions): what each window reads."""
        n, c = x.shape[:2]
        columns = self.xp.zeros((groups, c // groups, *kernel, n, *outputs), dtype=x.dtype)
        # (n, groups, c/groups, ...) -> (groups, c/groups, n, ...): a view that matches the columns' order
        source = x.reshape(n, groups, c // groups, *x.shape[2:])
        source = source.transpose(1, 2, 0, *range(3, source.ndim))
        for tap, at, read in taps(kernel, x.shape[2:], outputs, stride, padding, dilation):
            columns[(slice(None), slice(None), *tap, slice(None), *at)] = source[(..., *read)]
        return columns.reshape(groups, c // groups * math.prod(kernel), n * math.prod(outputs))

    def conv(self, x: Any, w: Any, b: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        n, o, kernel = x.shape[0], w.shape[0], w.shape[2:]
        outputs = conv_outputs(x.shape[2:], kernel, stride, padding, dilation)
        y = self.xp.empty((n, o, *outputs), dtype=x.dtype)
        weight = wide(w).reshape(groups, o // groups, math.prod(w.shape[1:]))
        for first, last in _pieces(n, x.shape[1] * math.prod(kernel) * math.prod(outputs)):
            columns = self._columns(wide(x[first:last]), kernel, outputs, stride, padding, dilation, groups)
            part = self._product(weight, columns).reshape(o, last - first, *outputs)
            y[first:last] = part.swapaxes(0, 1)
        if b is not None:
            y += b.reshape(o, *(1,) * len(kernel))
        return y

    def conv_input_grad(
        self, g: Any, w: Any, *, input_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        n, c = input_shape[:2]
        o, kernel, outputs = w.shape[0], w.shape[2:], g.shape[2:]
        out = self.xp.zeros(input_shape, dtype=wide(g[:0]).dtype)
        weight = wide(w).reshape(groups, o // groups, math.prod(w.shape[1:])).swapaxes(1, 2)
        for first, last in _pieces(n, c * math.prod(kernel) * math.prod(outputs)):
            columns = self._product(weight, self._by_group(g[first:last], groups))
            columns = columns.reshape(groups, c // groups, *kernel, last - first, *outputs)
            target = out[first:last].reshape(last - first, groups, c // groups, *input_shape[2:])
            target = target.transpose(1, 2, 0, *range(3, target.ndim))
            for tap, at, read in taps(kernel, input_shape[2:], outputs, stride, padding, dilation):
                target[(..., *read)] += columns[(slice(None), slice(None), *tap, slice(None), *at)]
        return out.astype(g.dtype, copy=False)

    def conv_weight_grad(
        self, g: Any, x: Any, *, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        n, o, kernel, outputs = x.shape[0], weight_shape[0], weight_shape[2:], g.shape[2:]
        total = self.xp.zeros((groups, o // groups, math.prod(weight_shape[1:])), dtype=wide(g[:0]).dtype)
        for first, last in _pieces(n, x.shape[1] * math.prod(kernel) * math.prod(outputs)):
            columns = self._columns(wide(x[first:last]), kernel, outputs, stride, padding, dilation, groups)
            total += self._product(self._by_group(g[first:last], groups), columns.swapaxes(1, 2))
        return total.reshape(weight_shape).astype(g.dtype, copy=False)

    def _by_group(self, g: Any, groups: int) -> Any:
        """(n, o, positions) as (groups, o per group, n * positions)."""
        n, o = g.shape[:2]
        positions = math.prod(g.shape[2:])
        moved = wide(g).reshape(n, groups, o // groups, positions).transpose(1, 2, 0, 3)
        return moved.reshape(groups, o // groups, n * positions)


def conv_outputs(sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    """How many windows fit along each axis."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    )
