"""Pooling layers: maxima and averages of windows."""

from __future__ import annotations

from typing import Any

from ..ops import pool as ops
from ..ops import unpool
from ..ops.checks import real
from ..ops.fractional_pool import fractional_max_pool2d, fractional_max_pool3d
from ..tensor import Tensor
from .conv import per_dim
from .module import Module

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
    "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d",
]  # fmt: skip


class _MaxPool(Module):
    function: Any

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of (n, c, length); see ``MaxPool2d``."""

    function = ops.max_pool1d


class MaxPool2d(_MaxPool):
    """The largest element of each window of (n, c, h, w).

    Args:
        kernel_size, stride, padding, dilation: one number, or one per spatial dimension; stride is the kernel by
            default, padding is with -inf.
        return_indices: also return where each maximum was, as a flat index of the plane.
        ceil_mode: also take windows that reach over the end.
    """

    function = ops.max_pool2d


class MaxPool3d(_MaxPool):
    """The largest element of each window of (n, c, d, h, w); see ``MaxPool2d``."""

    function = ops.max_pool3d


class _AvgPool(Module):
    function: Any

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The average of each window of (n, c, length); see ``AvgPool2d``."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        kernel, step, pad = (v[0] if isinstance(v, tuple) else v for v in (kernel_size, stride, padding))
        super().__init__(kernel, step, pad, ceil_mode, count_include_pad)
        for name in ("kernel_size", "stride", "padding"):
            setattr(self, name, (getattr(self, name),))

    def forward(self, input: Tensor) -> Tensor:
        return ops.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


class AvgPool2d(_AvgPool):
    """The average of each window of (n, c, h, w).

    Args:
        count_include_pad: padding counts as elements of value 0.
        divisor_override: divide by this instead of the number of elements.
    """

    function = ops.avg_pool2d


class AvgPool3d(_AvgPool):
    """The average of each window of (n, c, d, h, w); see ``AvgPool2d``."""

    function = ops.avg_pool3d


class _AdaptiveAvg(Module):
    function: Any

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvg):
    """Averages of windows chosen so that the result has length ``output_size``."""

    function = ops.adaptive_avg_pool1d


class AdaptiveAvgPool2d(_AdaptiveAvg):
    """Averages of windows chosen so that the result has size ``output_size``; None keeps a dimension's size."""

    function = ops.adaptive_avg_pool2d


class AdaptiveAvgPool3d(_AdaptiveAvg):
    """Averages of windows chosen so that the result has size ``output_size``; None keeps a dimension's size."""

    function = ops.adaptive_avg_pool3d


class _AdaptiveMax(Module):
    function: Any

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self).function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMax):
    """Maxima of windows chosen so that the result has length ``output_size``."""

    function = ops.adaptive_max_pool1d


class AdaptiveMaxPool2d(_AdaptiveMax):
    """Maxima of windows chosen so that the result has size ``output_size``."""

    function = ops.adaptive_max_pool2d


class AdaptiveMaxPool3d(_AdaptiveMax):
    """Maxima of windows chosen so that the result has size ``output_size``."""

    function = ops.adaptive_max_pool3d


class _LPPool(Module):
    function: Any

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` of each window of (n, c, length), with ``p = norm_type``."""

    function = ops.lp_pool1d


class LPPool2d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` of each window of (n, c, h, w), with ``p = norm_type``."""

    function = ops.lp_pool2d


class LPPool3d(_LPPool):
    """``(sum of x ** p) ** (1 / p)`` of each window of (n, c, d, h, w), with ``p = norm_type``."""

    function = ops.lp_pool3d


class _MaxUnpool(Module):
    function: Any
    dims: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = per_dim("kernel_size", kernel_size, self.dims)
        self.stride = per_dim("stride", kernel_size if stride is None else stride, self.dims)
        self.padding = per_dim("padding", padding, self.dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        """``indices`` are those of the pooling; ``output_size`` where the stride leaves a choice."""
        return type(self).function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Zeros, and the maxima of ``MaxPool1d`` where they were found."""

    function = unpool.max_unpool1d
    dims = 1


class MaxUnpool2d(_MaxUnpool):
    """Zeros, and the maxima of ``MaxPool2d`` where they were found."""

    function = unpool.max_unpool2d
    dims = 2


class MaxUnpool3d(_MaxUnpool):
    """Zeros, and the maxima of ``MaxPool3d`` where they were found."""

    function = unpool.max_unpool3d
    dims = 3


class _Fractional(Module):
    function: Any
    dims: int

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.kernel_size = per_dim("kernel_size", kernel_size, self.dims)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else per_dim("output_size", output_size, self.dims)
        ratio = output_ratio
        if ratio is not None:
            each = (ratio,) * self.dims if isinstance(ratio, str) or not hasattr(ratio, "__iter__") else ratio
            ratio = tuple([real(name, "output_ratio", r) for r in each])
        self.output_ratio = ratio
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{name} requires specifying either an output size, or a pooling ratio, and not both.")
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_Fractional):
    """Maxima of randomly placed windows of (n, c, h, w), so many that the result has a given size, or ratio of it.

    Source: Graham 2014.
    """

    function = fractional_max_pool2d
    dims = 2


class FractionalMaxPool3d(_Fractional):
    """Maxima of randomly placed windows of (n, c, d, h, w); see ``FractionalMaxPool2d``."""

    function = fractional_max_pool3d
    dims = 3
