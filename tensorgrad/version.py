"""``torch.version``: what this package is and what it was made for."""

from __future__ import annotations

from ._version import __version__

__all__ = ["cuda", "debug", "git_version", "hip", "xpu"]

debug = False
git_version = __version__
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
