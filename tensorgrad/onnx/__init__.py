"""``torch.onnx``."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from ..errors import missing_from

__all__ = ["TensorProtoDataType", "register_custom_op_symbolic", "unregister_custom_op_symbolic"]


class TensorProtoDataType(IntEnum):
    """ONNX' numbers of dtypes."""

    UNDEFINED, FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64 = range(8)
    STRING, BOOL, FLOAT16, DOUBLE, UINT32, UINT64, COMPLEX64, COMPLEX128, BFLOAT16 = range(8, 17)


_symbolics: dict[tuple[str, int], Callable[..., Any]] = {}


def register_custom_op_symbolic(symbolic_name: str, symbolic_fn: Callable[..., Any], opset_version: int) -> None:
    """Keeps how an operator of a compiled extension of PyTorch is written: there are none here that could ask."""
    _symbolics[symbolic_name, opset_version] = symbolic_fn


def unregister_custom_op_symbolic(symbolic_name: str, opset_version: int) -> None:
    """Forgets what was registered."""
    _symbolics.pop((symbolic_name, opset_version), None)


__getattr__ = missing_from("torch.onnx")
