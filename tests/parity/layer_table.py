"""Layers and how to call them: constructor arguments and inputs, beyond those of PyTorch's own table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Draw:
    """A tensor to be drawn: normal float64 that requires grad, or what ``kind`` says: int64 below ``high``, ``bool``,
    ``unit`` for the unit interval, ``logs`` for log-probabilities along the last dimension, ``sign`` for 1 and -1."""

    shape: tuple[int, ...]
    kind: str = "normal"
    high: int = 4

    def tensor(self, torch: Any) -> Any:
        rng = np.random.default_rng(sum(self.shape) + len(self.kind))
        if self.kind == "int":
            return torch.tensor(rng.integers(0, self.high, self.shape))
        if self.kind == "sign":
            return torch.tensor(rng.integers(0, 2, self.shape) * 2.0 - 1)
        if self.kind in ("unit", "plain"):
            return torch.tensor(rng.uniform(0.05, 0.95, self.shape))
        x = torch.tensor(rng.standard_normal(self.shape))
        return (x.log_softmax(-1) if self.kind == "logs" else x).requires_grad_()


def _i(*shape: int, high: int = 4) -> Draw:
    return Draw(shape, "int", high)


X1, X2, X3 = Draw((2, 4, 7)), Draw((2, 4, 6, 8)), Draw((2, 4, 4, 6, 4))
ROWS = Draw((5, 6))

Row = tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]

LAYERS: tuple[Row, ...] = (
    ("Identity", (1,), {"anything": 2}, (X1,)),
    ("Flatten", (), {}, (X2,)),
    ("Flatten", (0, 1), {}, (X2,)),
    ("Unflatten", (1, (2, 2)), {}, (X1,)),
    ("Linear", (6, 3), {"bias": False}, (ROWS,)),
    ("LazyLinear", (3,), {}, (ROWS,)),
    ("LazyLinear", (3,), {"bias": False}, (Draw((6,)),)),
    ("Bilinear", (6, 3, 2), {"bias": False}, (ROWS, Draw((5, 3)))),
    ("Conv1d", (4, 6, 3), {"padding": "same", "padding_mode": "reflect", "bias": False}, (X1,)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}, (X2,)),
    ("Conv2d", (4, 4, 3), {"padding": 1, "padding_mode": "circular"}, (X2,)),
    ("Conv2d", (4, 4, 3), {"padding": "valid", "padding_mode": "replicate"}, (Draw((4, 6, 8)),)),
    ("Conv3d", (4, 2, 2), {}, (X3,)),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1), {"groups": 2}, (X1,)),
    ("ConvTranspose2d", (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 2}, (X2,)),
    ("LazyConv1d", (5, 3), {}, (X1,)),
    ("LazyConv2d", (6, 3), {"padding": 1, "bias": False}, (Draw((4, 6, 8)),)),
    ("LazyConv3d", (2, 2), {}, (X3,)),
    ("LazyConvTranspose1d", (5, 3), {"stride": 2}, (X1,)),
    ("LazyConvTranspose2d", (6, 3), {"groups": 2}, (X2,)),
    ("LazyConvTranspose3d", (2, 2), {"bias": False}, (X3,)),
    ("Unfold", (2,), {"dilation": 2, "padding": 1, "stride": (1, 2)}, (X2,)),
    ("Fold", ((4, 5), (2, 2)), {"padding": 1}, (Draw((2, 8, 30)),)),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (X1,)),
    ("MaxPool2d", ((2, 3),), {"return_indices": True, "ceil_mode": True}, (X2,)),
    ("MaxPool3d", (2,), {"dilation": 2}, (X3,)),
    ("MaxUnpool1d", (2,), {}, (Draw((2, 3)), _i(2, 3, high=1))),
    ("MaxUnpool2d", (2,), {"stride": (2, 1)}, (Draw((1, 1, 1)), _i(1, 1, 1))),
    ("MaxUnpool3d", ((1, 2, 2),), {}, (Draw((1, 1, 1, 1)), _i(1, 1, 1, 1))),
    ("AvgPool1d", (3,), {"padding": 1}, (X1,)),
    ("AvgPool2d", (2,), {"ceil_mode": True, "count_include_pad": False}, (X2,)),
    ("AvgPool3d", ((2, 1, 2),), {"divisor_override": 3}, (X3,)),
    ("FractionalMaxPool2d", (2,), {"output_size": (3, 2), "_random_samples": Draw((2, 4, 2), "plain")}, (X2,)),
    ("FractionalMaxPool3d", (2,), {"output_ratio": 0.5, "_random_samples": Draw((2, 4, 3), "plain")}, (X3,)),
    ("FractionalMaxPool2d", ((2, 3),), {"output_ratio": (0.5, 0.4), "return_indices": True}, (X2,)),
    ("LPPool1d", (2, 3), {"stride": 2}, (X1,)),
    ("LPPool2d", (3, (2, 3)), {"ceil_mode": True}, (X2,)),
    ("LPPool3d", (2, 2), {}, (X3,)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (X2,)),
    ("AdaptiveMaxPool1d", (3,), {"return_indices": True}, (X1,)),
    ("AdaptiveMaxPool2d", ((2, None),), {}, (X2,)),
    ("AdaptiveMaxPool3d", (2,), {}, (X3,)),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, (X2,)),
    ("ReplicationPad3d", (1,), {}, (X3,)),
    ("ZeroPad2d", ((1, -2, 0, 1),), {}, (X2,)),
    ("ConstantPad1d", (2, 1.5), {}, (X1,)),
    ("CircularPad2d", ((1, 2, 0, 1),), {}, (X2,)),
    ("BatchNorm1d", (6,), {"momentum": None}, (ROWS,)),
    ("BatchNorm2d", (4, 1e-3), {"affine": False}, (X2,)),
    ("BatchNorm3d", (4,), {"track_running_stats": False}, (X3,)),
    ("SyncBatchNorm", (4,), {"momentum": 0.3}, (X2,)),
    ("LazyBatchNorm1d", (), {}, (ROWS,)),
    ("LazyBatchNorm2d", (), {"affine": False}, (X2,)),
    ("LazyBatchNorm3d", (1e-3,), {"track_running_stats": False}, (X3,)),
    ("LayerNorm", ((6, 8),), {"bias": False}, (X2,)),
    ("LayerNorm", (8, 1e-3, False), {}, (X2,)),
    ("GroupNorm", (2, 4), {"affine": False}, (X2,)),
    ("InstanceNorm1d", (4,), {"affine": True, "track_running_stats": True}, (X1,)),
    ("InstanceNorm2d", (4,), {}, (Draw((4, 6, 8)),)),
    ("LazyInstanceNorm1d", (), {}, (X1,)),
    ("LazyInstanceNorm2d", (), {"affine": False}, (X2,)),
    ("LazyInstanceNorm3d", (), {"track_running_stats": False}, (X3,)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1, "k": 2.0}, (X2,)),
    ("RMSNorm", ((6, 8),), {"eps": 1e-3}, (X2,)),
    ("Embedding", (5, 3), {"padding_idx": -1}, (_i(2, 3),)),
    ("Embedding", (5, 3), {"max_norm": 0.7, "norm_type": 1.0}, (_i(2, 3),)),
    ("Embedding", (5, 3), {"scale_grad_by_freq": True}, (_i(2, 3),)),
    ("EmbeddingBag", (5, 3), {}, (_i(2, 3),)),
    ("EmbeddingBag", (5, 3), {"mode": "max"}, (_i(4, 2),)),
    ("EmbeddingBag", (5, 3), {"mode": "sum", "padding_idx": 2, "max_norm": 0.5}, (_i(4, 2),)),
    ("EmbeddingBag", (5, 3), {"norm_type": 1.0}, (_i(4, 2),)),
    ("Dropout", (0.3,), {}, (X1,)),
    ("Dropout", (0.0,), {"inplace": False}, (X1,)),
    ("Dropout1d", (0.2,), {}, (X1,)),
    ("Dropout2d", (), {}, (X2,)),
    ("Dropout3d", (), {}, (X3,)),
    ("AlphaDropout", (0.1,), {}, (X1,)),
    ("FeatureAlphaDropout", (), {}, (X2,)),
    ("ELU", (0.7,), {}, (X1,)),
    ("Hardshrink", (0.3,), {}, (X1,)),
    ("Hardsigmoid", (), {}, (X1,)),
    ("Hardtanh", (-0.5, 2), {}, (X1,)),
    ("LeakyReLU", (0.2,), {}, (X1,)),
    ("PReLU", (4,), {"init": 0.3}, (X2,)),
    ("RReLU", (0.1, 0.3), {}, (X1,)),
    ("SELU", (), {}, (X1,)),
    ("CELU", (1.5,), {}, (X1,)),
    ("GELU", ("tanh",), {}, (X1,)),
    ("GLU", (1,), {}, (X1,)),
    ("Mish", (), {}, (X1,)),
    ("Softplus", (2, 10), {}, (X1,)),
    ("Softshrink", (0.3,), {}, (X1,)),
    ("Threshold", (0.1, 20), {}, (X1,)),
    ("Softmax", (1,), {}, (X1,)),
    ("Softmax2d", (), {}, (X2,)),
    ("LogSoftmax", (-1,), {}, (X1,)),
    ("Softmin", (0,), {}, (X1,)),
    ("AdaptiveLogSoftmaxWithLoss", (6, 12, [3, 7]), {"div_value": 2.0, "head_bias": True}, (ROWS, _i(5, high=12))),
    ("AdaptiveLogSoftmaxWithLoss", (8, 6, [2]), {}, (Draw((8,)), _i(high=6))),
    ("L1Loss", (), {"reduction": "sum"}, (ROWS, Draw((5, 6), "unit"))),
    ("MSELoss", (False,), {}, (ROWS, Draw((5, 6), "unit"))),
    ("MSELoss", (None, False), {}, (ROWS, Draw((5, 6), "unit"))),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.2, "weight": Draw((6,), "plain")}, (ROWS, _i(5, high=6))),
    ("CrossEntropyLoss", (), {"ignore_index": 2, "reduction": "none"}, (X2, _i(2, 6, 8))),
    ("CrossEntropyLoss", (), {}, (ROWS, Draw((5, 6), "unit"))),
    ("NLLLoss", (Draw((6,), "plain"),), {"ignore_index": 1}, (Draw((5, 6), "logs"), _i(5, high=6))),
    ("PoissonNLLLoss", (), {"full": True}, (ROWS, Draw((5, 6), "unit"))),
    ("GaussianNLLLoss", (), {"full": True, "reduction": "sum"}, (ROWS, Draw((5, 6), "unit"), Draw((5, 6), "unit"))),
    ("KLDivLoss", (), {"reduction": "batchmean"}, (Draw((5, 6), "logs"), Draw((5, 6), "unit"))),
    ("KLDivLoss", (), {"log_target": True, "reduction": "sum"}, (Draw((5, 6), "logs"), Draw((5, 6), "logs"))),
    ("BCELoss", (Draw((6,), "plain"),), {}, (Draw((5, 6), "unit"), Draw((5, 6), "plain"))),
    ("BCEWithLogitsLoss", (), {"pos_weight": Draw((6,), "plain")}, (ROWS, Draw((5, 6), "unit"))),
    ("MarginRankingLoss", (0.3,), {}, (Draw((5,)), Draw((5,), "unit"), Draw((5,), "sign"))),
    ("HingeEmbeddingLoss", (0.5,), {"reduction": "sum"}, (ROWS, Draw((5, 6), "sign"))),
    ("MultiLabelMarginLoss", (), {"reduction": "none"}, (ROWS, _i(5, 6, high=6))),
    ("MultiLabelSoftMarginLoss", (Draw((6,), "plain"),), {}, (ROWS, Draw((5, 6), "unit"))),
    ("SoftMarginLoss", (), {"reduction": "none"}, (ROWS, Draw((5, 6), "sign"))),
    ("MultiMarginLoss", (2, 0.5), {"weight": Draw((6,), "plain")}, (ROWS, _i(5, high=6))),
    ("HuberLoss", ("sum", 0.4), {}, (ROWS, Draw((5, 6), "unit"))),
    ("SmoothL1Loss", (), {"beta": 0.4}, (ROWS, Draw((5, 6), "unit"))),
    ("CosineEmbeddingLoss", (0.1,), {}, (ROWS, Draw((5, 6), "unit"), Draw((5,), "sign"))),
    ("TripletMarginLoss", (), {"p": 1.5, "swap": True}, (ROWS, Draw((5, 6), "unit"), Draw((5, 6), "plain"))),
    ("TripletMarginWithDistanceLoss", (), {"margin": 2.0, "distance_function": lambda nn: nn.PairwiseDistance()},
     (ROWS, Draw((5, 6), "unit"), Draw((5, 6), "plain"))),
    ("CTCLoss", (1, "sum"), {}, (Draw((7, 2, 5), "logs"), _i(2, 2, high=1), (7, 6), (2, 1))),
    ("CTCLoss", (1,), {"zero_infinity": True}, (Draw((3, 2, 5), "logs"), _i(2, 3, high=1), (3, 3), (1, 3))),
    ("PixelShuffle", (2,), {}, (X2,)),
    ("PixelUnshuffle", (2,), {}, (X2,)),
    ("ChannelShuffle", (2,), {}, (X2,)),
    ("Upsample", (), {"scale_factor": 2}, (X1,)),
    ("Upsample", ((3, 5),), {"mode": "bicubic", "align_corners": True}, (X2,)),
    ("Upsample", (), {"scale_factor": (1.5, 0.6), "mode": "bilinear"}, (X2,)),
    ("UpsamplingNearest2d", (), {"scale_factor": 3}, (X2,)),
    ("UpsamplingBilinear2d", ((4, 5),), {}, (X2,)),
    ("CosineSimilarity", (1, 1e-6), {}, (ROWS, Draw((5, 6), "unit"))),
    ("PairwiseDistance", (), {"p": 1.0, "keepdim": True}, (ROWS, Draw((5, 6), "unit"))),
    ("RNN", (6, 3, 2), {"nonlinearity": "relu", "bidirectional": True}, (ROWS,)),
    ("LSTM", (7, 5), {"proj_size": 2, "batch_first": True}, (X1,)),
    ("GRU", (7, 5, 2), {"bias": False, "dropout": 0.1}, (X1,)),
    ("RNNCell", (6, 3, False), {"nonlinearity": "relu"}, (ROWS,)),
    ("LSTMCell", (6, 3), {}, (ROWS,)),
    ("GRUCell", (6, 3), {}, (ROWS,)),
    ("MultiheadAttention", (8, 2), {"kdim": 6, "vdim": 5}, (Draw((3, 2, 8)), Draw((4, 2, 6)), Draw((4, 2, 5)))),
    ("TransformerEncoderLayer", (8, 2, 16, 0.0, "gelu"), {"norm_first": True}, (Draw((3, 2, 8)),)),
    ("TransformerDecoderLayer", (8, 2, 16, 0.0), {"batch_first": True}, (Draw((3, 2, 8)), Draw((3, 4, 8)))),
    ("Transformer", (8, 2, 1, 2, 16, 0.0), {}, (Draw((3, 2, 8)), Draw((4, 2, 8)))),
    ("TransformerEncoder", (lambda nn: nn.TransformerEncoderLayer(8, 2, 16, 0.0), 2), {}, (Draw((3, 2, 8)),)),
    ("TransformerDecoder", (lambda nn: nn.TransformerDecoderLayer(8, 2, 16, 0.0), 2), {},
     (Draw((3, 2, 8)), Draw((4, 2, 8)))),
    ("ZeroPad1d", (2,), {}, (X1,)),
    ("ZeroPad3d", ((1, 0, 2, 1, 0, 0),), {}, (X3,)),
    ("ConstantPad2d", ((1, 0, 2, 1), -1), {}, (X2,)),
    ("ConstantPad3d", (1, 0.5), {}, (X3,)),
)  # fmt: skip
"""(layer, arguments, keywords, inputs); a callable argument is called with ``nn``."""
