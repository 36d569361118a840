"""``torch.backends.cudnn``: tensorgrad's convolutions on CUDA use no cuDNN yet, so it is not available, and says so.

The switches keep what they are given: results do not depend on them. Kernels are deterministic whatever
``deterministic`` says, and the same on every run whatever ``benchmark`` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..tensor import Tensor
from ._switches import make_switches

__all__ = ["allow_tf32", "benchmark", "benchmark_limit", "deterministic", "enabled", "flags", "fp32_precision",
           "is_acceptable", "is_available", "set_flags", "version"]  # fmt: skip

enabled = True
benchmark = False
benchmark_limit = 10
deterministic = False
allow_tf32 = True
fp32_precision = "none"


def is_available() -> bool:
    """Whether cuDNN is used: not yet."""
    return False


def version() -> int | None:
    """The version of the cuDNN in use; None without one."""
    return None


def is_acceptable(tensor: Tensor) -> bool:
    """Whether cuDNN would be used for the tensor."""
    return False


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
    allow_tf32: bool = True,
) -> Iterator[None]:
    """The switches within the block."""
    before = set_flags(enabled, benchmark, benchmark_limit, deterministic, allow_tf32)
    try:
        yield
    finally:
        set_flags(*before)


make_switches(__name__, enabled=bool, benchmark=bool, benchmark_limit=int, deterministic=bool, allow_tf32=bool,
              fp32_precision=str)  # fmt: skip
