"""``torch.ao``: quantization is out of scope; its marks in a model are identities until a model is converted."""

from __future__ import annotations

from ..errors import missing_from
from . import quantization

__all__ = ["quantization"]

__getattr__ = missing_from("torch.ao")
