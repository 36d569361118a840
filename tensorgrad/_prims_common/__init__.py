"""``torch._prims_common``: one check that packages make before an operator that is not deterministic in PyTorch."""

from __future__ import annotations

from ..errors import missing_from

__all__ = ["alert_not_deterministic"]


def alert_not_deterministic(caller: str) -> None:
    """Nothing to warn of: kernels give the same bits run after run."""


__getattr__ = missing_from("torch._prims_common")
