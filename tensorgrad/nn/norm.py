"""Normalizing layers: batch, instance, layer, group and RMS norm."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..ops import normalize as ops
from ..ops import pointwise as pw
from ..ops.checks import integer, integers_of
from ..ops.create import empty, ones, tensor, zeros
from ..ops.inplace import move_buffer
from ..tensor import Tensor
from . import init
from .activation import ReLU
from .containers import joined_by
from .module import Module
from .parameter import Parameter

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm", "LocalResponseNorm", "RMSNorm", "SyncBatchNorm",
]  # fmt: skip


class _Tracking(Module):
    """A norm per channel that keeps running statistics for evaluation.

    Buffers: running_mean, running_var (num_features,) and num_batches_tracked, None unless ``track_running_stats``.
    """

    _version = 2
    ranks: tuple[int, ...]

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: Any, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        like = {"dtype": dtype, "device": device}
        self.register_parameter("weight", Parameter(ones(num_features, **like)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features, **like)) if affine and bias else None)
        keep = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **like) if keep else None)
        self.register_buffer("running_var", ones(num_features, **like) if keep else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype="int64", device=device) if keep else None)

    def reset_running_stats(self) -> None:
        """Forget what was seen: mean 0, variance 1."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.constant_(self.num_batches_tracked, 0)

    def reset_parameters(self) -> None:
        """Forget what was seen and learned: weight 1, bias 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in self.ranks:
            wanted = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ShapeError(f"{type(self).__name__}: expected {wanted} input (got {input.ndim}D input)")

    def _count(self) -> Any:
        """Note that a batch is seen; returns how far the running statistics move towards its own: a number, or a tensor
        that programs compute."""
        move_buffer(pw.add, self.num_batches_tracked, 1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        if local_metadata.get("version", 2) < 2 and self.track_running_stats:
            # saved before batches were counted: go on from the present count
            state_dict.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Tracking):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        return self._through(ops.batch_norm, input)

    def forward_relu(self, input: Tensor) -> Tensor:
        """``relu(self(input))``, for a container that finds a ReLU behind this layer."""
        return self._through(ops.batch_norm_relu, input)

    def _through(self, function: Any, input: Tensor) -> Tensor:
        self._check(input)
        mean, variance = self.running_mean, self.running_var
        by_batch = self.training or mean is None
        if self.training and mean is not None:
            factor = self._count()
        else:
            factor = 0.0 if self.momentum is None else self.momentum
            if by_batch:
                mean = variance = None
        return function(input, mean, variance, self.weight, self.bias, by_batch, factor, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch norm over (n, c) or (n, c, length); see ``BatchNorm2d``."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Each channel of (n, c, h, w) brought to mean 0 and variance 1, then scaled by weight and shifted by bias.

    In training by the batch's statistics, in evaluation by the running ones.

    Args:
        num_features: c.
        momentum: how far the running statistics move towards each batch's; None for their plain average.
        affine: whether there are a weight and a bias.
        track_running_stats: keep running statistics; without them, the batch's serve in evaluation too.
    Source: Ioffe and Szegedy 2015.
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch norm over (n, c, d, h, w); see ``BatchNorm2d``."""

    ranks = (5,)


joined_by.update({kind: {ReLU: "forward_relu"} for kind in (BatchNorm1d, BatchNorm2d, BatchNorm3d)})


class SyncBatchNorm(_BatchNorm):
    """Batch norm over (n, c, ...) of any rank. There is one process, so the batch is whole: it is ``BatchNorm``.

    Args:
        process_group: must be None: there are no other processes.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ShapeError(f"SyncBatchNorm: expected at least 2D input (got {input.ndim}D input)")
        if not input.shape[1]:
            raise ShapeError("SyncBatchNorm: the number of input channels should be non-zero")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with every batch norm in it replaced by a SyncBatchNorm of the same parameters and statistics."""
        converted = module
        if isinstance(module, _BatchNorm):
            made: Any = cls(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                process_group,
            )  # fmt: skip
            made._parameters.update(module._parameters)
            made._buffers.update(module._buffers)
            made.training = module.training
            converted = made
        for name, child in module.named_children():
            converted.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return converted


class _InstanceNorm(_Tracking):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        full = max(self.ranks)
        x: Any = input if input.ndim == full else input.unsqueeze(0)
        if x.shape[1] != self.num_features and self.affine:
            raise ShapeError(
                f"{type(self).__name__}: expected {self.num_features} channels, got input of {tuple(input.shape)}."
            )
        by_sample = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        y: Any = ops.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_sample, momentum, self.eps
        )
        return y if input.ndim == full else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sample of (n, c, length) brought to mean 0 and variance 1; see ``InstanceNorm2d``."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of (n, c, h, w), or (c, h, w), brought to mean 0 and variance 1.

    Source: Ulyanov, Vedaldi, Lempitsky 2016.
    """

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each sample of (n, c, d, h, w) brought to mean 0 and variance 1; see ``InstanceNorm2d``."""

    ranks = (4, 5)


def _shape_of(normalized_shape: Any) -> tuple[int, ...]:
    several = integers_of("normalized_shape", normalized_shape)
    return (integer("normalized_shape", "the size", normalized_shape),) if several is None else several


class LayerNorm(Module):
    """The last dimensions, of shape ``normalized_shape``, brought to mean 0 and variance 1 together, then scaled by
    weight and shifted by bias per element.

    Source: Ba, Kiros, Hinton 2016.
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = _shape_of(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        make = {"dtype": dtype, "device": device}
        affine = elementwise_affine
        self.register_parameter("weight", Parameter(empty(self.normalized_shape, **make)) if affine else None)
        self.register_parameter("bias", Parameter(empty(self.normalized_shape, **make)) if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return ops.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """The last dimensions divided by the root of their mean square, then scaled by weight per element.

    Args:
        eps: added to the mean square; the dtype's machine epsilon if None.
    Source: Zhang and Sennrich 2019.
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = _shape_of(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = Parameter(ones(self.normalized_shape, dtype=dtype, device=device)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return ops.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """The channels of each of ``num_groups`` groups of each sample brought to mean 0 and variance 1 together, then
    scaled by weight and shifted by bias per channel.

    Source: Wu and He 2018.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        num_groups = integer("GroupNorm", "num_groups", num_groups)
        num_channels = integer("GroupNorm", "num_channels", num_channels)
        if num_groups < 1:
            raise ValueError(f"num_groups must be positive, got {num_groups}")
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        like = {"dtype": dtype, "device": device}
        self.register_parameter("weight", Parameter(ones(num_channels, **like)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_channels, **like)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return ops.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """``x / (k + alpha * mean of x**2 over size neighbouring channels) ** beta``."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return ops.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
