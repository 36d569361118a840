"""The backends, each in a folder of its own; and, under PyTorch's names, what scripts ask of PyTorch's.

``backends.cudnn``, ``backends.cuda``, ``backends.mps``, ``backends.mkl`` ... answer for this machine. Switches choose
between ways to the same result, so what has one way here keeps the value it is given and reports it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from ..errors import missing_name


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(missing_name(f"torch.backends.{name}"))
