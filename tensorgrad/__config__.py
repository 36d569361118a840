"""``torch.__config__``: how this package was built."""

from __future__ import annotations

from .errors import missing_from

__all__ = ["parallel_info", "show"]


def show() -> str:
    """What ``tensorgrad info`` prints."""
    from .cli import report

    return "\n".join(report())


def parallel_info() -> str:
    """Which threads compute."""
    from .threads import get_num_threads

    return f"CPU kernels: {get_num_threads()} threads"


__getattr__ = missing_from("torch.__config__")
