"""``torch.backends.mps``: there is no backend for Apple's GPUs."""

from __future__ import annotations

__all__ = ["is_available", "is_built", "is_macos13_or_newer", "is_macos_or_newer"]


def is_available() -> bool:
    """False: no backend serves device ``mps``."""
    return False


def is_built() -> bool:
    """False: no backend serves device ``mps``."""
    return False


def is_macos_or_newer(major: int, minor: int) -> bool:
    """Whether this is macOS of that version or a later one."""
    import platform

    release = platform.mac_ver()[0]
    return bool(release) and tuple(int(part) for part in release.split(".")[:2]) >= (major, minor)


def is_macos13_or_newer(minor: int = 0) -> bool:
    """Whether this is macOS 13 or later."""
    return is_macos_or_newer(13, minor)
