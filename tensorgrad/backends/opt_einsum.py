"""``torch.backends.opt_einsum``: how ``einsum`` of many operands chooses its order."""

from __future__ import annotations

import importlib.util

from ._switches import make_switches

__all__ = ["enabled", "is_available", "strategy"]

enabled = False
strategy: str | None = None


def is_available() -> bool:
    """Whether the package opt_einsum is installed. It is not used: ``einsum`` finds an order of its own, greedily."""
    return importlib.util.find_spec("opt_einsum") is not None


make_switches(__name__, enabled=bool, strategy=(str, type(None)))
