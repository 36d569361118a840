"""``torch.onnx.symbolic_opset11``: PyTorch's exporter's own functions, of which there are none here."""

from __future__ import annotations

from ..errors import missing_from

__all__: list[str] = []

__getattr__ = missing_from("torch.onnx.symbolic_opset11")
