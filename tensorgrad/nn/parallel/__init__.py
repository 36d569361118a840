"""Wrappers of a model for several devices, with PyTorch's keys (``module.``): here they run the model on its device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ... import cuda
from ...errors import missing_from
from ..module import Module

__all__ = ["DataParallel", "DistributedDataParallel"]


class DataParallel(Module):
    """Runs ``module`` on one device; its state dict has the prefix ``module.``, as PyTorch's.

    Args:
        module: the model.
        device_ids: at most one device; ValueError for more, since batches are not split yet. None takes the model as it
            stands.
        output_device, dim: where and along what outputs would be gathered; with one device there is nothing to gather.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0):
        super().__init__()
        if device_ids is not None and len(device_ids) > 1:
            raise ValueError(
                f"DataParallel: {len(device_ids)} devices were given, and batches are not split over devices. "
                "Give one, or wrap nothing."
            )
        self.module = module
        self.dim = dim
        self.device_ids = list(device_ids) if device_ids else list(range(min(1, cuda.device_count())))

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """Runs ``module`` in a group of one process; its state dict has the prefix ``module.``, as PyTorch's.

    Raises ValueError before ``distributed.init_process_group``, which refuses more than one process.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, **options: Any):
        super().__init__()
        from ... import distributed

        if not distributed.is_initialized():
            raise ValueError("DistributedDataParallel: call distributed.init_process_group first.")
        unknown = set(options) - _OPTIONS
        if unknown:
            raise TypeError(f"DistributedDataParallel: unexpected argument {sorted(unknown)[0]!r}.")
        self.module = module
        self.device_ids = device_ids
        self.require_backward_grad_sync = True

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        return self.module(*inputs, **kwargs)

    def no_sync(self) -> AbstractContextManager[None]:
        """A block in which gradients are not exchanged: nor are they outside of it, with one process."""
        return nullcontext()

    def register_comm_hook(self, state: Any, hook: Callable[..., Any]) -> None:
        """Nothing is communicated by one process, so the hook is never called."""


# how gradients would be exchanged between processes: of no effect for one
_OPTIONS = frozenset(
    ("broadcast_buffers", "bucket_cap_mb", "check_reduction", "delay_all_reduce_named_params", "dim",
     "find_unused_parameters", "forward_prefetch", "gradient_as_bucket_view", "init_sync", "mixed_precision",
     "param_to_hook_all_reduce", "process_group", "skip_all_reduce_unused_params", "static_graph")
)  # fmt: skip

__getattr__ = missing_from("torch.nn.parallel")
