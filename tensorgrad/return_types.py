"""The named tuples that functions with several results return: ``tensorgrad.return_types.max`` and the like."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

__all__ = ["named"]


def _text(self: Any) -> str:
    parts = ",\n".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
    return f"tensorgrad.return_types.{type(self).__name__}(\n{parts})"


def _plain(name: str, fields: str) -> Any:
    return namedtuple(name, fields, module=__name__)


def named(name: str, fields: str) -> Any:
    """The named tuple that ``name`` returns, of this module, so that it can be pickled; it prints as PyTorch's."""
    made = _plain(name, fields)
    made.__repr__ = _text
    globals()[name] = made
    return made
