"""``torch.backends.cudnn``: whether convolutions and attention on CUDA are cuDNN's, and what it may do.

``enabled`` chooses between cuDNN and kernels of tensorgrad's own. ``allow_tf32``, or ``fp32_precision = "tf32"``, lets
convolutions of float32 round their factors to TF32; unlike in PyTorch that has to be asked for. The other switches
keep what they are given: kernels are deterministic whatever ``deterministic`` says, and chosen by cuDNN's heuristics
whatever ``benchmark`` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import BackendError, DeviceError
from ..tensor import Tensor
from . import registry
from ._switches import make_switches

__all__ = ["allow_tf32", "benchmark", "benchmark_limit", "deterministic", "enabled", "flags", "fp32_precision",
           "is_acceptable", "is_available", "permitted", "set_flags", "tf32_allowed", "version"]  # fmt: skip

enabled = True
benchmark = False
benchmark_limit = 10
deterministic = False
allow_tf32 = False
fp32_precision = "none"


def tf32_allowed() -> bool:
    """Whether float32 convolutions may round their factors to TF32."""
    return allow_tf32 or fp32_precision == "tf32"


def permitted() -> tuple[Any, ...]:
    """What is chosen here of how kernels compute."""
    return enabled, tf32_allowed()


def _in_use() -> Any:
    """The binding of device ``cuda``'s backend to cuDNN; None without a device or without the library."""
    try:
        backend = registry.on_device("cuda")
    except (BackendError, DeviceError):
        return None
    return getattr(backend, "_cudnn", None)


def is_available() -> bool:
    """Whether there are a CUDA device and a cuDNN for its convolutions."""
    return _in_use() is not None


def version() -> int | None:
    """The version of the cuDNN in use, e.g. 91900 for 9.19; None without one."""
    found = _in_use()
    return None if found is None else int(found.frontend.backend_version())


def is_acceptable(tensor: Tensor) -> bool:
    """Whether cuDNN would be used for the tensor."""
    if not enabled or tensor.device.type != "cuda":
        return False
    found = _in_use()
    return found is not None and bool(found.takes(tensor._data.dtype))


def set_flags(
    _enabled: bool | None = None,
    _benchmark: bool | None = None,
    _benchmark_limit: int | None = None,
    _deterministic: bool | None = None,
    _allow_tf32: bool | None = None,
) -> tuple[bool, bool, int, bool, bool]:
    """Set several switches (None leaves one as it is) and return what they were."""
    import sys

    module = sys.modules[__name__]
    before = (enabled, benchmark, benchmark_limit, deterministic, allow_tf32)
    for name, value in (
        ("enabled", _enabled),
        ("benchmark", _benchmark),
        ("benchmark_limit", _benchmark_limit),
        ("deterministic", _deterministic),
        ("allow_tf32", _allow_tf32),
    ):
        if value is not None:
            setattr(module, name, value)
    return before


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int = 10,
    deterministic: bool = False,
    allow_tf32: bool = False,
) -> Iterator[None]:
    """The switches within the block."""
    before = set_flags(enabled, benchmark, benchmark_limit, deterministic, allow_tf32)
    try:
        yield
    finally:
        set_flags(*before)


make_switches(__name__, enabled=bool, benchmark=bool, benchmark_limit=int, deterministic=bool, allow_tf32=bool,
              fp32_precision=str)  # fmt: skip
