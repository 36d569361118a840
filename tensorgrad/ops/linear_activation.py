"""``linear`` and the activation behind it as one op, which the compiler makes for backends with kernels for it."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from .matmul import _linear_infer
from .record import Spec, op
from .samples import Arg, Sample

__all__ = ["ACTIVATIONS"]

ACTIVATIONS = ("relu", "gelu_tanh")  # ops


def _infer(x: Any, w: Any, b: Any, *, activation: str, keeps: bool) -> tuple[Spec | None, ...]:
    if activation not in ACTIVATIONS:  # a program's file may say anything
        raise ArgumentError(
            f"linear_activation: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )
    y = _linear_infer(x, w, b)
    return y, y if keeps else None


def _define(F: Any, x: Any, w: Any, b: Any, *, activation: str, keeps: bool) -> tuple[Any, ...]:
    before = F.linear(x, w, b)
    return F.relu(before) if activation == "relu" else F.gelu_tanh(before), before if keeps else None


def _samples() -> list[Sample]:
    inputs = Arg((3, 4)), Arg((8, 4)), Arg((8,))
    batch = Arg((2, 3, 4), layout="T"), Arg((5, 4), layout="T"), Arg((5,))
    return [
        Sample(inputs, {"activation": "relu", "keeps": False}, name="relu"),
        Sample(inputs, {"activation": "gelu_tanh", "keeps": False}, name="gelu"),
        Sample(inputs, {"activation": "gelu_tanh", "keeps": True}, name="gelu, kept"),
        Sample(batch, {"activation": "gelu_tanh", "keeps": True}, name="batch, kept"),
        Sample((*inputs[:2], None), {"activation": "relu", "keeps": True}, name="no bias"),
        Sample((Arg((0, 4)), *inputs[1:]), {"activation": "relu", "keeps": False}, name="empty"),
    ]


linear_activation = op(
    "linear_activation",
    infer=_infer,
    define=_define,
    outputs=("y", "before"),
    samples=_samples,
    doc="``activation`` (relu or gelu_tanh) of ``linear``; with ``keeps`` what it is taken of as well.",
)
