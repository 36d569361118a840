"""Pooling over ``xp``, one tap of all windows at a time; half precision is averaged in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .reduce import wide
from .windows import taps


def pool_outputs(sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple[int, ...]:
    """How many windows there are along each axis; with ``ceil_mode`` also those that begin inside but end outside."""
    counts = []
    for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:  # the last window must begin inside the input or its left padding
            count -= 1
        counts.append(count)
    return tuple(counts)


def lowest(dtype: Any) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -math.inf


def _window_sizes(
    sizes: Any, kernel: Any, stride: Any, padding: Any, outputs: Any, count_include_pad: bool
) -> list[Any]:
    """Along each axis, how many elements the average of each window divides by, as NumPy vectors."""
    counts = []
    for n, k, s, p, o in zip(sizes, kernel, stride, padding, outputs, strict=True):
        start = np.arange(o) * s - p
        stop = np.minimum(start + k, n + p)
        counts.append(stop - start if count_include_pad else np.minimum(stop, n) - np.maximum(start, 0))
    return counts


def adaptive_bounds(size: int, outputs: int) -> list[tuple[int, int]]:
    """(start, stop) of each window: they cover the axis, and overlap where its size is no multiple."""
    return [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]


class PoolKernels:
    xp: Any

    def max_pool(
        self, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> tuple[Any, Any]:
        xp, sizes = self.xp, x.shape[2:]
        outputs = pool_outputs(sizes, kernel, stride, padding, dilation, ceil_mode)
        source = wide(x)
        values = xp.full((*x.shape[:2], *outputs), lowest(source.dtype), dtype=source.dtype)
        indices = xp.full(values.shape, -1, dtype=np.int64)
        places = xp.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
        for _, at, read in taps(kernel, sizes, outputs, stride, padding, dilation):
            part, best, where = source[(..., *read)], values[(..., *at)], indices[(..., *at)]
            # the first of equals wins; NaN wins over all; an index is set even where everything is -inf
            better = (part > best) | (part != part) | (where < 0)
            values[(..., *at)] = xp.where(better, part, best)
            indices[(..., *at)] = xp.where(better, places[read], where)
        return values.astype(x.dtype, copy=False), indices

    def avg_pool(
        self, x: Any, *, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:  # fmt: skip
        sizes, ones = x.shape[2:], (1,) * len(kernel)
        outputs = pool_outputs(sizes, kernel, stride, padding, ones, ceil_mode)
        source = wide(x)
        whole = source.dtype.kind in "iu"
        source = source.astype(np.int64, copy=False) if whole else source
        divisor = self._divisor(
            source.dtype, sizes, kernel, stride, padding, outputs, count_include_pad, divisor_override
        )
        total = self.xp.zeros((*x.shape[:2], *outputs), dtype=source.dtype)
        if whole:  # divided before they are summed, since a sum may not fit
            counts, rest = self.xp.zeros(outputs, dtype=source.dtype) + divisor, self.xp.zeros_like(total)
            for _, at, read in taps(kernel, sizes, outputs, stride, padding, ones):
                part, count = source[(..., *read)], counts[at]
                total[(..., *at)] += part // count
                rest[(..., *at)] += part % count
            total += rest // counts
            total += (total < 0) & (rest % counts != 0)  # towards zero
            return total.astype(x.dtype, copy=False)
        for _, at, read in taps(kernel, sizes, outputs, stride, padding, ones):
            total[(..., *at)] += source[(..., *read)]
        total /= divisor
        return total.astype(x.dtype, copy=False)

    def avg_pool_backward(
        self, g: Any, *, input_shape: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
        count_include_pad: bool, divisor_override: int | None,
    ) -> Any:  # fmt: skip
        sizes, outputs, ones = input_shape[2:], g.shape[2:], (1,) * len(kernel)
        share = wide(g)
        share = share / self._divisor(
            share.dtype, sizes, kernel, stride, padding, outputs, count_include_pad, divisor_override
        )
        out = self.xp.zeros(input_shape, dtype=share.dtype)
        for _, at, read in taps(kernel, sizes, outputs, stride, padding, ones):
            out[(..., *read)] += share[(..., *at)]
        return out.astype(g.dtype, copy=False)

    def _divisor(
        self, dtype: Any, sizes: Any, kernel: Any, stride: Any, padding: Any, outputs: Any, count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:  # fmt: skip
        if divisor_override is not None:
            return dtype.type(divisor_override)
        counts = _window_sizes(sizes, kernel, stride, padding, outputs, count_include_pad)
        product: Any = np.ones((), dtype=np.int64)
        for axis, along in enumerate(counts):
            product = product * along.reshape(-1, *(1,) * (len(counts) - 1 - axis))
        product = product.astype(dtype)
        if product.size and (product == product.flat[0]).all():
            return product.flat[0]  # a number: nothing has to be copied to a device
        return self.xp.asarray(product)

    def adaptive_avg_pool(self, x: Any, *, output_size: Any) -> Any:
        # windows are boxes, so the mean over one is a mean of means, axis by axis
        y = wide(x)
        for axis, outputs in enumerate(output_size, 2):
            bounds = adaptive_bounds(y.shape[axis], outputs)
            lead = (slice(None),) * axis
            parts = [y[(*lead, slice(a, b))].mean(axis=axis, keepdims=True) for a, b in bounds]
            shape = (*y.shape[:axis], 0, *y.shape[axis + 1 :])
            y = self.xp.concatenate(parts, axis=axis) if parts else self.xp.empty(shape, dtype=y.dtype)
        return y.astype(x.dtype, copy=y is x)

    def adaptive_avg_pool_backward(self, g: Any, *, input_shape: Any) -> Any:
        out = wide(g)
        for axis in range(2, len(input_shape)):
            lead = (slice(None),) * axis
            grown = self.xp.zeros((*out.shape[:axis], input_shape[axis], *out.shape[axis + 1 :]), dtype=out.dtype)
            for i, (a, b) in enumerate(adaptive_bounds(input_shape[axis], out.shape[axis])):
                grown[(*lead, slice(a, b))] += out[(*lead, slice(i, i + 1))] / (b - a)
            out = grown
        return out.astype(g.dtype, copy=out is g)

    def adaptive_max_pool(self, x: Any, *, output_size: Any) -> tuple[Any, Any]:
        xp, sizes = self.xp, x.shape[2:]
        values = xp.empty((*x.shape[:2], *output_size), dtype=x.dtype)
        indices = xp.empty(values.shape, dtype=np.int64)
        places = xp.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
        bounds = [adaptive_bounds(n, o) for n, o in zip(sizes, output_size, strict=True)]
        source = wide(x)
        for cell in np.ndindex(*output_size):
            box = tuple(slice(*along[i]) for along, i in zip(bounds, cell, strict=True))
            within = places[box].reshape(-1)
            window = source[(..., *box)].reshape(*x.shape[:2], within.size)
            best = window.argmax(axis=2)  # the first NaN, if there is one
            values[(..., *cell)] = xp.take_along_axis(window, best[..., None], axis=2)[..., 0]
            indices[(..., *cell)] = within[best]
        return values, indices
