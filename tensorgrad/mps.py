"""``torch.mps``: there is no backend for Apple's GPUs; what can be asked without one is answered."""

from __future__ import annotations

from .errors import missing_from

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "synchronize"]


def is_available() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: there is no device whose generator could be seeded."""


def empty_cache() -> None:
    """Nothing: there is no memory to give back."""


def synchronize() -> None:
    """Raises DeviceError: there is no device to wait for."""
    from .errors import DeviceError

    raise DeviceError("no backend serves device 'mps'; use 'cpu' or 'cuda'.")


__getattr__ = missing_from("torch.mps")
