"""Pools by one kernel each: a result, or an element's gradient, is a thread's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..generic.pool import PoolKernels, pool_outputs
from .kernels import Kernels
from .names import NAMES

__all__ = ["CupyPools"]

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NO_AXIS = (1, 1, 1, 1, 0, 1)


def _axes(
    sizes: tuple[int, ...], outputs: tuple[int, ...], kernel: Any = None, stride: Any = None, padding: Any = None,
    dilation: Any = None,
) -> tuple[int, ...]:  # fmt: skip
    """What the kernels are told of their three axes; without a kernel, windows that cover them evenly."""
    if kernel is None:
        found = [(size, count, 0, 1, 0, 1) for size, count in zip(sizes, outputs, strict=True)]
    else:
        found = list(zip(sizes, outputs, kernel, stride, padding, dilation, strict=True))
    blank = (1, 1, 0, 1, 0, 1) if kernel is None else _NO_AXIS
    return tuple([number for axis in [blank] * (3 - len(found)) + found for number in axis])


class CupyPools(PoolKernels):
    _kernels: Kernels
    _defined: Callable[..., Any]  # of CupyReductions

    # --- maximum

    def max_pool(
        self, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> tuple[Any, Any]:
        if NAMES[x.dtype] not in _FLOATS:
            return super().max_pool(
                x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
            )
        outputs = pool_outputs(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
        return self._largest(x, outputs, _axes(x.shape[2:], outputs, kernel, stride, padding, dilation), True)

    def max_pool_values(self, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
        if NAMES[x.dtype] not in _FLOATS:
            return super().max_pool(
                x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
            )[0]
        outputs = pool_outputs(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
        return self._largest(x, outputs, _axes(x.shape[2:], outputs, kernel, stride, padding, dilation), False)[0]

    def adaptive_max_pool(self, x: Any, *, output_size: Any) -> tuple[Any, Any]:
        if NAMES[x.dtype] not in _FLOATS:
            return super().adaptive_max_pool(x, output_size=output_size)
        return self._largest(x, tuple(output_size), _axes(x.shape[2:], output_size), True)

    def adaptive_max_pool_values(self, x: Any, *, output_size: Any) -> Any:
        if NAMES[x.dtype] not in _FLOATS:
            return super().adaptive_max_pool(x, output_size=output_size)[0]
        return self._largest(x, tuple(output_size), _axes(x.shape[2:], output_size), False)[0]

    def _largest(self, x: Any, outputs: tuple[int, ...], axes: tuple[int, ...], places: bool) -> tuple[Any, Any]:
        xp, x = self.xp, self.xp.ascontiguousarray(x)
        made = xp.empty((*x.shape[:2], *outputs), dtype=x.dtype)
        found = xp.empty(made.shape, dtype=np.int64) if places else 0
        planes = x.shape[0] * x.shape[1]
        self._kernels.launch(f"maxpool_{NAMES[x.dtype]}", made.size, planes, *axes, x, made, found)
        return made, found

    def max_pool_backward(
        self, g: Any, indices: Any, *, input_shape: Any, window: tuple[int, ...] | None = None
    ) -> Any:
        if NAMES[g.dtype] not in _FLOATS or window is None or not g.size:
            return self._defined("max_pool_backward", g, indices, input_shape=input_shape, window=window)
        xp, dims = self.xp, len(input_shape) - 2
        how = [window[first : first + dims] for first in range(0, len(window), dims)]
        axes = _axes(input_shape[2:], g.shape[2:], *how)
        made = xp.empty(input_shape, dtype=g.dtype)
        places, slopes = xp.ascontiguousarray(indices), xp.ascontiguousarray(g)
        planes = math.prod(input_shape[:2])
        self._kernels.launch(f"maxpoolback_{NAMES[g.dtype]}", made.size, planes, *axes, slopes, places, made)
        return made

    # --- mean

    def avg_pool(
        self, x: Any, *, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:  # fmt: skip
        if NAMES[x.dtype] not in _FLOATS:
            return super().avg_pool(
                x, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode,
                count_include_pad=count_include_pad, divisor_override=divisor_override,
            )  # fmt: skip
        ones = (1,) * len(kernel)
        outputs = pool_outputs(x.shape[2:], kernel, stride, padding, ones, ceil_mode)
        axes = _axes(x.shape[2:], outputs, kernel, stride, padding, ones)
        return self._means("avgpool", x, outputs, axes, count_include_pad, divisor_override)

    def avg_pool_backward(
        self, g: Any, *, input_shape: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
        count_include_pad: bool, divisor_override: int | None,
    ) -> Any:  # fmt: skip
        if NAMES[g.dtype] not in _FLOATS:
            return super().avg_pool_backward(
                g, input_shape=input_shape, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode,
                count_include_pad=count_include_pad, divisor_override=divisor_override,
            )  # fmt: skip
        axes = _axes(input_shape[2:], g.shape[2:], kernel, stride, padding, (1,) * len(kernel))
        return self._means("avgpoolback", g, tuple(input_shape[2:]), axes, count_include_pad, divisor_override)

    def adaptive_avg_pool(self, x: Any, *, output_size: Any) -> Any:
        return self._means("avgpool", x, tuple(output_size), _axes(x.shape[2:], output_size), False, None)

    def adaptive_avg_pool_backward(self, g: Any, *, input_shape: Any) -> Any:
        if not g.size:
            return super().adaptive_avg_pool_backward(g, input_shape=input_shape)
        return self._means("avgpoolback", g, tuple(input_shape[2:]), _axes(input_shape[2:], g.shape[2:]), False, None)

    def _means(
        self, kind: str, x: Any, sizes: tuple[int, ...], axes: tuple[int, ...], padded: bool, divisor: int | None
    ) -> Any:
        x = self.xp.ascontiguousarray(x)
        made = self.xp.empty((*x.shape[:2], *sizes), dtype=x.dtype)
        planes = x.shape[0] * x.shape[1]
        self._kernels.launch(f"{kind}_{NAMES[x.dtype]}", made.size, planes, *axes, int(padded), divisor or 0, x, made)
        return made
