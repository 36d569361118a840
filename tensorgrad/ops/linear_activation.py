"""``linear`` and the activation behind it as one op, and its gradients with that of the activation ahead of it: the
compiler makes them for backends with kernels for them."""

from __future__ import annotations

from typing import Any

from ..dispatch import OPS
from ..errors import ArgumentError, ShapeError
from .matmul import _linear_backward_infer, _linear_infer
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


def _backward_infer(
    g: Any, x: Any, w: Any, before: Any, *, activation: str, needs: tuple[bool, ...]
) -> tuple[Spec | None, ...]:
    if activation != "gelu_tanh":
        raise ArgumentError(f"linear_activation_backward: activation must be gelu_tanh, got {activation!r}.")
    if tuple(before.shape) != tuple(x.shape) or before.dtype != x.dtype:
        raise ShapeError(
            f"linear_activation_backward: the activation gave {x.dtype} {tuple(x.shape)}, and is said to be of "
            f"{before.dtype} {tuple(before.shape)}."
        )
    made: tuple[Spec | None, ...] = _linear_backward_infer(g, x, w, needs=needs)
    return made


def _backward_define(
    F: Any, g: Any, x: Any, w: Any, before: Any, *, activation: str, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    to_x, to_w, to_b = F.linear_backward(g, x, w, needs=needs)
    formula: Any = OPS[activation]
    slope = formula.plan((True,)).kernel
    return to_x if to_x is None else getattr(F, slope.name)(to_x, before), to_w, to_b


linear_activation_backward = op(
    "linear_activation_backward",
    infer=_backward_infer,
    define=_backward_define,
    outputs=("gbefore", "gw", "gb"),
    apart=True,
    samples=lambda: [
        Sample(
            (Arg((*batch, 5)), Arg((*batch, 8)), Arg((5, 8)), Arg((*batch, 8))),
            {"activation": "gelu_tanh", "needs": needs},
            name=name,
        )
        for name, batch, needs in (
            ("all", (3,), (True, True, True)),
            ("batch", (2, 3), (True, False, False)),
            ("empty", (0,), (True, True, True)),
            ("weight", (3,), (False, True, True)),
        )
    ],
    doc="The gradients of a ``linear`` whose input is ``activation`` of ``before``: in ``before``, weight and bias.",
)
