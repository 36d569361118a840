"""What PyTorch calls the node that an op records: what ``grad_fn`` prints as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .node import Node

__all__ = ["node_name"]

# ops whose records have other names than PyTorch's functions
_NAMES = {
    "add_scaled": "AddBackward0", "adaptive_avg_pool": "AdaptiveAvgPool2DBackward0", "as_complex":
    "ViewAsComplexBackward0", "as_real": "ViewAsRealBackward0", "attention": "ScaledDotProductAttentionBackward0",
    "attention_dropout": "ScaledDotProductAttentionBackward0",
    "avg_pool": "AvgPool2DBackward0", "batch_norm": "NativeBatchNormBackward0", "batch_norm_relu": "ReluBackward0",
    "cast": "ToCopyBackward0",
    "clamp_both": "ClampBackward1", "contiguous": "CloneBackward0", "contiguous_copy": "CloneBackward0",
    "conv": "ConvolutionBackward0", "cross_entropy": "NllLossBackward0", "cube": "PowBackward0",
    "diagonal_backward": "DiagEmbedBackward0", "group_norm": "NativeGroupNormBackward0", "imag_part": "ImagBackward0",
    "inverse_square": "PowBackward0",
    "layer_norm": "NativeLayerNormBackward0", "log1p": "Log1PBackward0", "max_dim": "MaxBackward0",
    "max_pool": "MaxPool2DWithIndicesBackward0", "median_all": "MedianBackward0",
    "median_dim": "MedianBackward1", "min_dim": "MinBackward0",
    "mode_dim": "ModeBackward0", "nanmedian_all": "NanmedianBackward0",
    "nanmedian_dim": "NanmedianBackward1", "nll_loss": "NllLossBackward0",
    "pad": "ConstantPadNdBackward0", "pow": "PowBackward1", "real_part": "RealBackward0",
    "smooth_l1_loss": "SmoothL1LossBackward0", "square": "PowBackward0", "sub_scaled": "SubBackward0",
    "unfold_dim": "UnfoldBackward0", "vector_norm": "LinalgVectorNormBackward0",
}  # fmt: skip


def node_name(node: Node) -> str:
    """PyTorch's name of the node, ``"AddBackward0"``, as far as the record tells which of its functions was called."""
    name = node.op.name
    special = _BY_ATTRIBUTES.get(name)
    if special is not None:
        return str(special(node, node.attrs))
    return _NAMES.get(name) or "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Backward0"


def _input_shape(node: Node) -> tuple[int, ...] | None:
    saved = node.saved
    return tuple(saved[0].shape) if saved and hasattr(saved[0], "shape") else None


def _slice(node: Node, attrs: dict[str, Any]) -> str:
    for part in reversed(attrs["key"]):
        if part is None:
            return "UnsqueezeBackward0"
        if not isinstance(part, slice):
            return "SelectBackward0"
        if part != slice(None):
            break
    return "SliceBackward0"


def _reshape(node: Node, attrs: dict[str, Any]) -> str:
    before, after = _input_shape(node), attrs["shape"]
    if before is not None and before != after and [n for n in before if n != 1] == [n for n in after if n != 1]:
        if len(after) == len(before) + 1:
            return "UnsqueezeBackward0"
        if len(after) < len(before):
            return "SqueezeBackward1" if 1 in after or len(before) - len(after) == 1 else "SqueezeBackward0"
    return "ViewBackward0"


def _permute(node: Node, attrs: dict[str, Any]) -> str:
    dims = attrs["dims"]
    moved = [d for d, at in enumerate(dims) if d != at]
    if len(dims) == 2:
        return "TBackward0"
    return "TransposeBackward0" if len(moved) == 2 else "PermuteBackward0"


def _reduction(name: str) -> Any:
    def of(node: Node, attrs: dict[str, Any]) -> str:
        before = _input_shape(node)
        over_all = not attrs["keepdim"] and (before is None or len(attrs["dim"]) == len(before))
        return f"{name}Backward{0 if over_all else 1}"

    return of


def _extreme(whole: str, along: str) -> Any:
    def of(node: Node, attrs: dict[str, Any]) -> str:
        before = _input_shape(node)
        over_all = not attrs["keepdim"] and before is not None and len(attrs["dim"]) == len(before)
        return whole if over_all else along

    return of


def _matmul(node: Node, attrs: dict[str, Any]) -> str:
    ranks = [len(part.shape) for part in node.saved if hasattr(part, "shape")]
    for name, known in (("DotBackward0", [1, 1]), ("MvBackward0", [2, 1]), ("MmBackward0", [2, 2])):
        if ranks == known:
            return name
    return "UnsafeViewBackward0"


def _linear(node: Node, attrs: dict[str, Any]) -> str:
    before = _input_shape(node)
    if before is not None and len(before) != 2:
        return "ViewBackward0"
    return "AddmmBackward0" if len(node.edges) > 2 and node.edges[2] is not None else "MmBackward0"


_BY_ATTRIBUTES = {
    "amax": _extreme("MaxBackward1", "AmaxBackward0"), "amin": _extreme("MinBackward1", "AminBackward0"),
    "linear": _linear, "matmul": _matmul, "mean": _reduction("Mean"), "permute": _permute, "prod": _reduction("Prod"),
    "reshape": _reshape, "slice": _slice, "sum": _reduction("Sum"),
}  # fmt: skip
