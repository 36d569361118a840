"""Convolution layers, also transposed, over 1 to 3 spatial dimensions."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ..ops import conv as ops
from ..ops.checks import integer, integers_of
from ..ops.create import empty
from ..ops.rearrange import pad
from ..tensor import Tensor
from . import init
from .linear import uniform_by_fan_in
from .module import Module
from .parameter import Parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_PADDINGS = ("zeros", "reflect", "replicate", "circular")


def per_dim(name: str, value: Any, dims: int) -> tuple[int, ...]:
    """One number per spatial dimension. Raises ShapeError if there are more or fewer."""
    several = integers_of(name, value)
    values = (integer(name, "the number", value),) * dims if several is None else several
    if len(values) == 1:
        values = values * dims
    if len(values) != dims:
        raise ShapeError(f"{name} needs 1 or {dims} numbers, got {value!r}.")
    return values


class _Conv(Module):
    """What all convolutions share: the weight (out, in/groups, *kernel), or (in, out/groups, *kernel) if transposed.

    Initial values: uniform in ``±1/sqrt(fan_in)``.
    """

    dims: int
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, output_padding: Any,
        dilation: Any, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        groups = integer(name, "groups", groups)
        in_channels = integer(name, "in_channels", in_channels)
        out_channels = integer(name, "out_channels", out_channels)
        if groups <= 0:
            raise ValueError(f"{name}: groups must be a positive integer, got {groups}.")
        for label, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name}: {label} ({channels}) must be divisible by groups ({groups}).")
        if padding_mode not in _PADDINGS:
            raise ValueError(f"{name}: padding_mode must be one of {', '.join(_PADDINGS)}, got {padding_mode!r}.")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding must be numbers, 'same' or 'valid', got {padding!r}.")
        if padding == "same" and any(s != 1 for s in per_dim("stride", stride, self.dims)):
            raise ValueError(f"{name}: padding='same' is not supported for strided convolutions.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_dim("kernel_size", kernel_size, self.dims)
        self.stride = per_dim("stride", stride, self.dims)
        self.padding = padding if isinstance(padding, str) else per_dim("padding", padding, self.dims)
        self.dilation = per_dim("dilation", dilation, self.dims)
        self.output_padding = per_dim("output_padding", output_padding, self.dims)
        self.groups = groups
        self.padding_mode = padding_mode
        outer, inner = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(empty((outer, inner // groups, *self.kernel_size), dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        uniform_by_fan_in(self.bias, self.weight.shape[1] * math.prod(self.kernel_size))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Forward(_Conv):
    function: Any

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, 0, dilation, groups, bias,
                         padding_mode, device, dtype)  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = pad(input, self._both_sides(), mode=self.padding_mode), 0
        return type(self).function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _both_sides(self) -> tuple[int, ...]:
        """The padding as ``pad`` takes it: before and after, the last dimension first."""
        if self.padding == "valid":
            return (0,) * (2 * self.dims)
        sides: list[int] = []
        for i in reversed(range(self.dims)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                sides += [total // 2, total - total // 2]
            else:
                sides += [int(self.padding[i])] * 2
        return tuple(sides)


class Conv1d(_Forward):
    """Convolution over (n, in_channels, length); see ``Conv2d``."""

    dims = 1
    function = ops.conv1d


class Conv2d(_Forward):
    """Convolution (cross-correlation) over (n, in_channels, h, w).

    Args:
        in_channels, out_channels: of the input and the output.
        kernel_size, stride, padding, dilation: one number, or one per spatial dimension; padding also "same", "valid".
        groups: channels are split in this many independent groups.
        bias: whether a bias is added.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
    Shapes: weight (out_channels, in_channels / groups, kh, kw).
    """

    dims = 2
    function = ops.conv2d


class Conv3d(_Forward):
    """Convolution over (n, in_channels, d, h, w); see ``Conv2d``."""

    dims = 3
    function = ops.conv3d


class _Transposed(_Conv):
    function: Any
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise ValueError(f"{type(self).__name__}: only padding_mode='zeros' is supported, got {padding_mode!r}.")
        if isinstance(padding, str):
            raise ValueError(f"{type(self).__name__}: padding must be numbers, got {padding!r}.")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, dilation, groups,
                         bias, padding_mode, device, dtype)  # fmt: skip

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """``output_size``: the spatial sizes of the result, where the stride leaves a choice."""
        extra = self.output_padding if output_size is None else self._extra_for(input, output_size)
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra_for(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        sizes = tuple(output_size)[-self.dims :]
        extra = []
        for i, (wanted, size) in enumerate(zip(sizes, input.shape[-self.dims :], strict=True)):
            least = (size - 1) * self.stride[i] - 2 * self.padding[i] + self.dilation[i] * (self.kernel_size[i] - 1) + 1
            if not least <= wanted < least + self.stride[i]:
                raise ShapeError(
                    f"{type(self).__name__}: output_size {wanted} in spatial dimension {i} is not possible; "
                    f"it must be from {least} to {least + self.stride[i] - 1}."
                )
            extra.append(wanted - least)
        return tuple(extra)


class ConvTranspose1d(_Transposed):
    """The transpose (gradient) of a convolution over (n, in_channels, length)."""

    dims = 1
    function = ops.conv_transpose1d


class ConvTranspose2d(_Transposed):
    """The transpose (gradient) of a convolution, over (n, in_channels, h, w).

    Args:
        output_padding: added to one side of the result, where the stride leaves its size open.
    Shapes: weight (in_channels, out_channels / groups, kh, kw).
    """

    dims = 2
    function = ops.conv_transpose2d


class ConvTranspose3d(_Transposed):
    """The transpose (gradient) of a convolution over (n, in_channels, d, h, w)."""

    dims = 3
    function = ops.conv_transpose3d
