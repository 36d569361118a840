"""``torch.utils.model_zoo``: the old name of ``hub``'s download, refused as there, and the bar its users draw."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import missing_from
from ..hub import load_state_dict_from_url as load_url

__all__ = ["load_url", "tqdm"]


class _Quiet:
    """What stands for a progress bar where the package tqdm is not installed: it draws nothing."""

    def __init__(self, iterable: Iterable[Any] = (), *args: Any, **kwargs: Any):
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def update(self, n: int = 1) -> None:
        """Draws nothing."""

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


tqdm: Any = _Quiet
if importlib.util.find_spec("tqdm") is not None:
    tqdm = importlib.import_module("tqdm").tqdm

__getattr__ = missing_from("torch.utils.model_zoo")
