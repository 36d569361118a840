"""PyTorch's own inputs and error inputs, module by module, and our table of layers (see ``moduleinfo``)."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from . import moduleinfo
from .layer_table import LAYERS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("expecttest") is None,
    reason="PyTorch and expecttest are needed for PyTorch's table of modules",
)

LIMIT = int(os.environ.get("TENSORGRAD_PARITY_SAMPLES", "2"))
"""Inputs of each module, dtype and mode; CI runs every n-th of them."""

MODULES = (
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d",
    "BatchNorm2d", "BatchNorm3d", "Bilinear", "CELU", "CTCLoss", "CircularPad1d", "CircularPad2d", "CircularPad3d",
    "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "ConvTranspose3d", "CosineEmbeddingLoss", "CrossEntropyLoss", "ELU", "Embedding",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "GELU", "GLU", "GRU", "GRUCell", "GaussianNLLLoss", "GroupNorm",
    "Hardshrink", "Hardswish", "Hardtanh", "HingeEmbeddingLoss", "HuberLoss", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "KLDivLoss", "L1Loss", "LPPool1d", "LPPool2d", "LPPool3d", "LSTM", "LSTMCell", "LayerNorm",
    "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
    "LeakyReLU", "Linear", "LocalResponseNorm", "LogSigmoid", "LogSoftmax", "MSELoss", "MarginRankingLoss",
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "Mish", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss",
    "MultiMarginLoss", "MultiheadAttention", "NLLLoss", "PReLU", "PoissonNLLLoss", "RMSNorm", "RNN", "RNNCell",
    "ReLU", "ReLU6", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "SELU", "SiLU", "Sigmoid", "SmoothL1Loss", "SoftMarginLoss", "Softmax", "Softmax2d",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold", "Transformer",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
)  # fmt: skip


@pytest.fixture(scope="module")
def table() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for info in moduleinfo.database():
        found.setdefault(info.module_cls.__name__, []).append(info)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_module(table: dict[str, list[Any]], name: str) -> None:
    if name not in table:
        pytest.skip(f"this PyTorch has no inputs for {name}")
    lines = [
        line
        for info in table[name]
        for line in (*moduleinfo.differences(info, ["float64", "float32"], LIMIT), *moduleinfo.error_differences(info))
    ]
    assert not lines, "\n".join(lines[:20])


@pytest.mark.parametrize("row", LAYERS, ids=[f"{row[0]}-{i}" for i, row in enumerate(LAYERS)])
def test_layer(row: Any) -> None:
    lines = list(moduleinfo.layer_differences(row))
    assert not lines, "\n".join(lines)
