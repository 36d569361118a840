"""The settings by which PyTorch chooses between its implementations of one step."""

from __future__ import annotations

__all__ = ["check_fused"]


def check_fused(fused: bool | None, foreach: bool | None, differentiable: bool) -> None:
    """Raises RuntimeError for settings that contradict each other. There is one implementation here, so that ``fused``
    and ``foreach`` change nothing."""
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
