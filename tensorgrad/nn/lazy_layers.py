"""Layers whose input width is that of the first input they see: ``LazyLinear(10)`` becomes ``Linear(width, 10)``."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..ops.create import tensor
from ..tensor import Tensor
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .lazy import LazyModuleMixin
from .linear import Linear
from .module import Module
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from .parameter import UninitializedBuffer, UninitializedParameter

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d",
    "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip


class LazyLinear(LazyModuleMixin, Linear):
    """``Linear`` whose ``in_features`` is the last size of the first input."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, False, device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new initial values, once there are parameters."""
        if self.in_features and not self.has_uninitialized_params():
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Give the parameters the shapes that this input asks for."""
        self.in_features = input.shape[-1]
        if not self.has_uninitialized_params():  # a state dict was loaded
            return
        lazy: Any = self
        lazy.weight.materialize((self.out_features, self.in_features))
        if lazy.bias is not None:
            lazy.bias.materialize((self.out_features,))
        self.reset_parameters()


def _channels(name: str, input: Tensor, dims: int) -> int:
    """How many channels an input with or without a batch has."""
    if input._data.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name}: expected {dims + 1} or {dims + 2} dimensions, got shape {tuple(input.shape)}.")
    return int(input.shape[-dims - 1])


class _LazyConv(LazyModuleMixin):
    """What lazy convolutions share; the layer stands behind it among the base classes."""

    def _begin(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        layer: Any = self
        layer.out_channels = out_channels
        layer.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            layer.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new initial values, once there are parameters."""
        layer: Any = self
        if layer.in_channels and not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Give the parameters the shapes that this input asks for."""
        layer: Any = self
        name = type(self).__name__
        channels, groups = _channels(name, input, layer.dims), layer.groups
        if channels % groups:
            raise ValueError(f"{name}: in_channels ({channels}) must be divisible by groups ({groups}).")
        layer.in_channels = channels
        if not self.has_uninitialized_params():  # a state dict was loaded
            return
        outer, inner = (channels, layer.out_channels) if layer.transposed else (layer.out_channels, channels)
        layer.weight.materialize((outer, inner // groups, *layer.kernel_size))
        if layer.bias is not None:
            layer.bias.materialize((layer.out_channels,))
        layer.reset_parameters()


class _LazyForward(_LazyConv):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype)
        self._begin(out_channels, bias, device, dtype)


class _LazyTransposed(_LazyConv):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
        groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode,
                         device, dtype)  # fmt: skip
        self._begin(out_channels, bias, device, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """``Conv1d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """``Conv2d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """``Conv3d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """``ConvTranspose1d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """``ConvTranspose2d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """``ConvTranspose3d`` whose ``in_channels`` is that of the first input."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    """What lazy norms per channel share; the layer stands behind it among the base classes."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        # without weights and statistics at first: they would have no elements
        super().__init__(0, eps, momentum, False, False, device, dtype)
        layer: Any = self
        layer.affine = affine
        layer.track_running_stats = track_running_stats
        like = {"device": device, "dtype": dtype}
        if affine:
            layer.weight = UninitializedParameter(**like)
            if bias:
                layer.bias = UninitializedParameter(**like)
        if track_running_stats:
            layer.register_buffer("running_mean", UninitializedBuffer(**like))
            layer.register_buffer("running_var", UninitializedBuffer(**like))
            layer.register_buffer("num_batches_tracked", tensor(0, dtype="int64", device=device))

    def reset_parameters(self) -> None:
        """Forget what was seen and learned, once there are parameters."""
        layer: Any = self
        if layer.num_features and not self.has_uninitialized_params():
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Give the parameters and statistics the shapes that this input asks for."""
        layer: Any = self
        layer.num_features = int(input.shape[1])
        if not self.has_uninitialized_params():  # a state dict was loaded
            return
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(layer, name)
            if value is not None:
                value.materialize((layer.num_features,))
        layer.reset_parameters()


class _LazyInstance(_LazyNorm):
    def initialize_parameters(self, input: Tensor) -> None:
        layer: Any = self
        if input._data.ndim == max(layer.ranks) - 1:  # no batch
            input = input.unsqueeze(0)
        super().initialize_parameters(input)


def _family(base: type, layers: tuple[type[Module], ...]) -> tuple[type[Module], ...]:
    made = []
    for layer in layers:
        body = {"cls_to_become": layer, "__module__": __name__, "__qualname__": f"Lazy{layer.__name__}",
                "__doc__": f"``{layer.__name__}`` whose ``num_features`` is that of the first input."}  # fmt: skip
        made.append(type(f"Lazy{layer.__name__}", (base, layer), body))
    return tuple(made)


LazyBatchNorm1d, LazyBatchNorm2d, LazyBatchNorm3d = _family(_LazyNorm, (BatchNorm1d, BatchNorm2d, BatchNorm3d))
LazyInstanceNorm1d, LazyInstanceNorm2d, LazyInstanceNorm3d = _family(
    _LazyInstance, (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
)
