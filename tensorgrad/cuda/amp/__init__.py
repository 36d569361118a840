"""``torch.cuda.amp``: mixed precision under its older names, for "cuda"."""

from __future__ import annotations

import functools
from typing import Any

from ... import amp as _amp
from ...amp import autocast_mode as _mode
from ...dtypes import DType, float16

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]


class autocast(_amp.autocast):
    """``amp.autocast("cuda", ...)``."""

    def __init__(self, enabled: bool = True, dtype: DType = float16, cache_enabled: bool = True):
        super().__init__("cuda", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(_amp.GradScaler):
    """``amp.GradScaler("cuda", ...)``."""

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ):  # fmt: skip
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


custom_bwd: Any = functools.partial(_mode.custom_bwd, device_type="cuda")
custom_fwd: Any = functools.partial(_mode.custom_fwd, device_type="cuda")
