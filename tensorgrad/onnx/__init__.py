"""``torch.onnx``: ``export`` writes a module's forward pass as an ONNX file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ..errors import missing_from

if TYPE_CHECKING:
    from .exporter import ONNXProgram, export
    from .sizes import OnnxExporterError

__all__ = [
    "ONNXProgram", "OnnxExporterError", "OperatorExportTypes", "TensorProtoDataType", "TrainingMode", "export",
    "is_in_onnx_export", "register_custom_op_symbolic", "unregister_custom_op_symbolic",
]  # fmt: skip


class TensorProtoDataType(IntEnum):
    """ONNX' numbers of dtypes."""

    UNDEFINED, FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64 = range(8)
    STRING, BOOL, FLOAT16, DOUBLE, UINT32, UINT64, COMPLEX64, COMPLEX128, BFLOAT16 = range(8, 17)


class TrainingMode(IntEnum):
    """Which mode modules are exported in."""

    EVAL, PRESERVE, TRAINING = range(3)


class OperatorExportTypes(IntEnum):
    """PyTorch's kinds of operators; everything is exported as ONNX' own."""

    ONNX, ONNX_ATEN, ONNX_ATEN_FALLBACK, ONNX_FALLTHROUGH = range(4)


def is_in_onnx_export() -> bool:
    """False: models need not know that they are exported; what they compute is written down."""
    return False


_symbolics: dict[tuple[str, int], Callable[..., Any]] = {}


def register_custom_op_symbolic(symbolic_name: str, symbolic_fn: Callable[..., Any], opset_version: int) -> None:
    """Keeps how an operator of a compiled extension of PyTorch is written: there are none here that could ask."""
    _symbolics[symbolic_name, opset_version] = symbolic_fn


def unregister_custom_op_symbolic(symbolic_name: str, opset_version: int) -> None:
    """Forgets what was registered."""
    _symbolics.pop((symbolic_name, opset_version), None)


_missing = missing_from("torch.onnx")
_HOMES = {"export": "exporter", "ONNXProgram": "exporter", "OnnxExporterError": "sizes"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value
    return _missing(name)
