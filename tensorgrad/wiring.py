"""Connects the settings to what they set: values found at import, and every later ``config.set``."""

from __future__ import annotations

from typing import Any

from . import config, dtypes
from .backends import registry
from .dispatch import set_everywhere


def _anomaly(enabled: Any) -> None:
    from .autograd.anomaly import set_detect_anomaly

    set_detect_anomaly(bool(enabled))


def _backend(name: str) -> None:
    set_everywhere(registry.default_backend() if name == "auto" else registry.get(name))


def _threads(count: Any) -> None:
    found = registry.on_device("cpu")
    found.set_num_threads(count or found.default_threads())


def connect() -> None:
    """Called once, by the package."""
    if config.source("default_dtype") != "default":
        dtypes.set_default_dtype(config.get("default_dtype"))
    if config.get("anomaly"):
        _anomaly(True)
    config.watch("default_dtype", dtypes.set_default_dtype)
    config.watch("anomaly", _anomaly)
    config.watch("backend", _backend)
    config.watch("num_threads", _threads)
