"""Windows as columns and back, over ``xp``, one tap of all windows at a time; half precision is summed in float32."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ArgumentError
from .conv import conv_outputs
from .reduce import wide
from .windows import taps


def _check(kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    """Raises ArgumentError for numbers of a window that have no meaning: the loops would read backwards, or nothing."""
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ArgumentError(
            f"fold: no window has kernel {kernel}, stride {stride}, padding {padding} and dilation {dilation}."
        )


class FoldKernels:
    xp: Any

    def unfold_windows(self, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        _check(kernel, stride, padding, dilation)
        n, c = x.shape[:2]
        outputs = conv_outputs(x.shape[2:], kernel, stride, padding, dilation)
        columns = self.xp.zeros((n, c, *kernel, *outputs), dtype=x.dtype)
        for tap, at, read in taps(kernel, x.shape[2:], outputs, stride, padding, dilation):
            columns[(slice(None), slice(None), *tap, *at)] = x[(..., *read)]
        return columns.reshape(n, c * math.prod(kernel), math.prod(outputs))

    def fold_windows(self, x: Any, *, sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        _check(kernel, stride, padding, dilation)
        n, c = x.shape[0], x.shape[1] // math.prod(kernel)
        outputs = conv_outputs(sizes, kernel, stride, padding, dilation)
        columns = wide(x).reshape(n, c, *kernel, *outputs)
        out = self.xp.zeros((n, c, *sizes), dtype=columns.dtype)
        for tap, at, read in taps(kernel, sizes, outputs, stride, padding, dilation):
            out[(..., *read)] += columns[(slice(None), slice(None), *tap, *at)]
        return out.astype(x.dtype, copy=False)
