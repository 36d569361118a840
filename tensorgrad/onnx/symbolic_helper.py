"""``torch.onnx.symbolic_helper``: a decorator of functions that only PyTorch's exporter calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import missing_from

__all__ = ["parse_args"]

_F = TypeVar("_F", bound=Callable[..., Any])


def parse_args(*arg_descriptors: str) -> Callable[[_F], _F]:
    """The function itself: its arguments would be converted by PyTorch's exporter."""
    return lambda function: function


__getattr__ = missing_from("torch.onnx.symbolic_helper")
