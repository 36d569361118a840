"""A convolution and what often follows it as one op, which the compiler makes where nobody reads what lies between."""

from __future__ import annotations

from typing import Any

from .channel_norm import column
from .conv import _conv_infer
from .record import Spec, op
from .samples import Arg, Sample

__all__: list[str] = []


def _infer(
    x: Any, w: Any, b: Any, scale: Any, shift: Any, mean: Any, var: Any, other: Any, *, input_shape: Any, stride: Any,
    padding: Any, dilation: Any, groups: int, eps: float, clamps: bool, low: float, high: float,
) -> Spec:  # fmt: skip
    if input_shape is not None:
        return Spec(tuple(input_shape), x.dtype)
    return _conv_infer(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _define(
    F: Any, x: Any, w: Any, b: Any, scale: Any, shift: Any, mean: Any, var: Any, other: Any, *, input_shape: Any,
    stride: Any, padding: Any, dilation: Any, groups: int, eps: float, clamps: bool, low: float, high: float,
) -> Any:  # fmt: skip
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if input_shape is None:
        y = F.conv(x, w, b, **how)
    else:
        y = F.conv_input_grad(x, w, input_shape=input_shape, **how)
        if b is not None:
            y = F.add(y, column(F, b, y))
    if mean is not None:
        y = F.batch_norm_eval(y, scale, shift, mean, var, eps=eps)
    if other is not None:
        y = F.add(y, other)
    return F.hardtanh(y, low, high) if clamps else y


def _samples() -> list[Sample]:
    rest = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "eps": 1e-5}
    plain = {"input_shape": None, "clamps": False, "low": 0.0, "high": 0.0}
    norm = (Arg((4,)), Arg((4,)), Arg((4,)), Arg((4,), 0.5, 2.0))
    none = (None,) * 4
    x, w, y = Arg((2, 3, 5, 4)), Arg((4, 3, 3, 3)), Arg((2, 4, 5, 4))
    return [
        Sample((x, w, Arg((4,)), *norm, y), rest | plain, name="all"),
        Sample((x, w, None, *none, y), rest | plain, name="sum"),
        # more channels than go along rows, planes that are no multiple of a vector
        Sample((x, Arg((6, 3, 3, 3)), None, *none, Arg((2, 6, 5, 4))), rest | plain, name="sum of six channels"),
        Sample((x, w, None, *norm, None), rest | plain | {"clamps": True, "low": -0.9, "high": 1.1}, name="clamped"),
        Sample((Arg((2, 3, 5, 4)), Arg((3, 4, 3, 3)), Arg((4,)), *norm, None),
               rest | plain | {"input_shape": (2, 4, 5, 4)}, name="transposed"),
    ]  # fmt: skip


conv_norm = op(
    "conv_norm",
    infer=_infer,
    define=_define,
    samples=_samples,
    doc="A convolution, transposed if ``input_shape`` is given; normalized by statistics, plus ``other``, clamped.",
)
