"""Automatic mixed precision: matrix products in bfloat16 or float16, losses in float32."""

from __future__ import annotations

from .autocast_mode import autocast, autocast_decorator, custom_bwd, custom_fwd, is_autocast_available
from .grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "autocast_decorator", "custom_bwd", "custom_fwd", "is_autocast_available"]
