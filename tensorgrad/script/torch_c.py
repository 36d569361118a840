"""``torch._C``: PyTorch's compiled core: the few names of it that packages use when they are imported.

It is part of the alias alone: ``tensorgrad._C`` is tensorgrad's own extension.
"""

from __future__ import annotations

from typing import Any

from ..errors import missing_name

__all__ = ["Core"]


class _DispatchKeys:
    """Keys of PyTorch's dispatcher by name: words, since there is no such dispatcher here."""

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class DispatchKeySet:
    """A set of keys of PyTorch's dispatcher."""

    def __init__(self, *keys: Any):
        self.keys = frozenset(keys)

    def __or__(self, other: DispatchKeySet) -> DispatchKeySet:
        return DispatchKeySet(*self.keys, *other.keys)

    def add(self, key: Any) -> DispatchKeySet:
        """With one key more."""
        return DispatchKeySet(*self.keys, key)


class _ExcludeDispatchKeyGuard:
    """A block in which PyTorch's dispatcher would skip some keys; nothing is dispatched by keys here."""

    def __init__(self, keys: DispatchKeySet):
        self.keys = keys

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        pass


class Core:
    """The value of ``torch._C``."""

    DispatchKey = _DispatchKeys()
    DispatchKeySet = DispatchKeySet
    _ExcludeDispatchKeyGuard = _ExcludeDispatchKeyGuard

    @staticmethod
    def _log_api_usage_once(event: str) -> None:
        """Nothing is reported to anybody."""

    @staticmethod
    def _get_tracing_state() -> None:
        """None: nothing is being traced."""
        return None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(missing_name(f"torch._C.{name}"))
