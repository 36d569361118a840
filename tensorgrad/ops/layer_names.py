"""Functions of layers that PyTorch also has in its main namespace, there with arguments in another order."""

from __future__ import annotations

from collections.abc import Sequence

from ..tensor import Tensor
from . import embedding as tables
from . import normalize as norms
from .rearrange import pad as padded

__all__ = ["batch_norm", "constant_pad_nd", "embedding", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

rms_norm = norms.rms_norm


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.layer_norm``; ``cudnn_enable`` chooses among PyTorch's kernels and nothing here."""
    return norms.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.group_norm``; ``cudnn_enabled`` chooses among PyTorch's kernels and nothing here."""
    return norms.group_norm(input, num_groups, weight, bias, eps)


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """``nn.functional.batch_norm`` with the weights first."""
    return norms.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """``nn.functional.instance_norm`` with the weights first."""
    return norms.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """``nn.functional.embedding`` with the table first; -1 stands for no ``padding_idx``."""
    padding = None if padding_idx < 0 else padding_idx
    return tables.embedding(indices, weight, padding, None, 2.0, scale_grad_by_freq, sparse)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """``nn.functional.pad`` with a constant."""
    return padded(input, pad, "constant", value)
