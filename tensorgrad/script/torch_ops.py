"""``torch.ops``: where PyTorch's extensions put their compiled operators. There are none here.

Packages name them at import and call them, if at all, in a few functions; so naming one is free and calling one raises.
"""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import missing_name

__all__ = ["Ops"]


class _Missing:
    """An operator, an overload of one, or a namespace of them, by its path."""

    def __init__(self, path: str):
        self._path = path

    def __getattr__(self, name: str) -> _Missing:
        if name.startswith("__"):
            raise AttributeError(missing_name(f"{self._path}.{name}"))
        return _Missing(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AttributeError(missing_name(self._path))

    def __repr__(self) -> str:
        return f"<{self._path}, which is not there>"


class Ops(_Missing):
    """The value of ``torch.ops``."""

    def __init__(self) -> None:
        super().__init__("torch.ops")

    def load_library(self, path: Any) -> NoReturn:
        """Raises OSError: a compiled library of PyTorch needs PyTorch."""
        raise OSError(f"{path}: a compiled extension of PyTorch can't be loaded by tensorgrad.")
