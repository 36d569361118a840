"""``torch.ao.quantization``: the marks that models carry. Converting a model is refused, since there are no quantized
tensors."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import DTypeError, missing_from
from ..nn.module import Module
from ..tensor import Tensor

__all__ = ["DeQuantStub", "QuantStub", "convert", "prepare", "prepare_qat"]


class QuantStub(Module):
    """Where a converted model would quantize its input: the identity before.

    Args:
        qconfig: kept for the conversion.
    """

    def __init__(self, qconfig: Any = None):
        super().__init__()
        if qconfig:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return x


class DeQuantStub(QuantStub):
    """Where a converted model would go back to floating point: the identity before."""


def _refuse(name: str) -> NoReturn:
    raise DTypeError(f"ao.quantization.{name}: there are no quantized tensors (see docs/differences.md).")


def prepare(model: Module, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises DTypeError."""
    _refuse("prepare")


def prepare_qat(model: Module, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises DTypeError."""
    _refuse("prepare_qat")


def convert(module: Module, *args: Any, **kwargs: Any) -> NoReturn:
    """Raises DTypeError."""
    _refuse("convert")


__getattr__ = missing_from("torch.ao.quantization")
