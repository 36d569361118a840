"""Normalization: over the last axes, over a batch, over groups of channels.

Mean and ``rstd`` (1 / deviation) are outputs of the forward ops that carry gradients, though users never see them.
So the definitions of the backward ops may use them as they come: what flows through them is added by the forward
op's rule, and derivatives are right to any order without computing statistics twice.
"""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError, ShapeError
from .checks import np_dtype, product, require_float, statistic_dtype
from .record import Spec, op
from .samples import Arg, Sample

# --- shared by the rules


def through(F: Any, g: Any, normal: Any, rstd: Any, axes: tuple[int, ...]) -> Any:
    """The gradient in x when ``g`` reaches ``normal = (x - mean) * rstd``, mean and rstd depending on x."""
    middle = F.mean(g, dim=axes, keepdim=True)
    along = F.mean(F.mul(g, normal), dim=axes, keepdim=True)
    return F.mul(F.sub(F.sub(g, middle), F.mul(normal, along)), rstd)


def through_statistics(F: Any, x: Any, mean: Any, rstd: Any, to_mean: Any, to_rstd: Any, count: int) -> Any:
    """What reaches x through its mean and rstd (in shapes that broadcast against x); None if nothing does.

    ``d mean / d x = 1 / n`` and ``d rstd / d x = -rstd**3 (x - mean) / n``.
    """
    total = None
    if to_mean is not None:
        total = F.expand(F.div(to_mean, float(count)), shape=tuple(x.shape))
    if to_rstd is not None:
        slope = F.div(F.mul(to_rstd, F.cube(rstd)), -float(count))
        part = F.mul(F.sub(x, mean), slope)
        total = part if total is None else F.add(total, part)
    return total


def plus(F: Any, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return F.add(a, b)


def fitted(F: Any, x: Any, dtype: Any) -> Any:
    """``x`` in this dtype: definitions compute half precision in float32 and round once."""
    return x if np_dtype(x) == dtype else F.cast(x, dtype=dtype)


def check_affine(name: str, x: Any, shape: tuple[int, ...], **parameters: Any) -> None:
    """Raises unless weight and bias (None is fine) have this shape, and the dtype of x or of its statistics."""
    for label, p in parameters.items():
        if p is None:
            continue
        if p.shape != shape:
            raise ShapeError(f"{name}: {label} has shape {tuple(p.shape)}, expected {shape}.")
        if p.dtype is not x.dtype and p.dtype != x.dtype and p.dtype != statistic_dtype(x.dtype):
            raise DTypeError(f"{name}: {label} is {p.dtype.name}, the input {x.dtype.name}; convert one of them.")


# --- layer_norm


def _last_axes(x: Any, ndim: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - ndim, x.ndim))


def _row_statistic(x: Any, ndim: int) -> Spec:
    return Spec((*x.shape[: x.ndim - ndim], *(1,) * ndim), statistic_dtype(x.dtype))


def _layer_infer(x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> tuple[Any, ...]:
    if x.dtype.kind != "f":
        require_float("layer_norm", x)
    check_affine("layer_norm", x, x.shape[x.ndim - ndim :], weight=w, bias=b)
    statistic = _row_statistic(x, ndim)
    return x, statistic, statistic  # the first: shape and dtype are the input's


def _layer_define(F: Any, x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> tuple[Any, ...]:
    axes, dtype = _last_axes(x, ndim), np_dtype(x)
    source = fitted(F, x, statistic_dtype(dtype))
    mean = F.mean(source, dim=axes, keepdim=True)
    shifted = F.sub(source, mean)
    rstd = F.rsqrt(F.add(F.mean(F.square(shifted), dim=axes, keepdim=True), eps))
    y = F.mul(shifted, rstd)
    if w is not None:
        y = F.mul(y, w)
    if b is not None:
        y = F.add(y, b)
    return fitted(F, y, dtype), mean, rstd


def _layer_rule(
    F: Any, g: Any, x: Any, w: Any, b: Any, *, mean: Any, rstd: Any, needs: Any, ndim: int, eps: float
) -> tuple[Any, ...]:
    to_y, to_mean, to_rstd = g
    to_x = to_w = to_b = None
    if to_y is not None:
        to_x, to_w, to_b = F.layer_norm_backward(to_y, x, mean, rstd, w, ndim=ndim, needs=needs)
        if needs[0] and product(x.shape[x.ndim - ndim :]) == 1:  # one element is its own mean, whatever it is
            to_x = F.zeros_as(to_x, shape=tuple(x.shape))
    if needs[0] and (to_mean is not None or to_rstd is not None):
        count = product(x.shape[x.ndim - ndim :])
        extra = through_statistics(F, x, mean, rstd, to_mean, to_rstd, count)
        to_x = plus(F, to_x, fitted(F, extra, np_dtype(x)))
    return to_x, to_w, to_b


def _layer_samples() -> list[Sample]:
    one, two = {"ndim": 1, "eps": 1e-5}, {"ndim": 2, "eps": 1e-5}
    return [
        Sample((Arg((3, 5)), Arg((5,)), Arg((5,))), one, name="rows"),
        Sample((Arg((2, 3, 4), layout="T"), Arg((3, 4)), Arg((3, 4))), two, name="planes"),
        Sample((Arg((3, 5)), None, None), one, name="plain"),
        Sample((Arg((3, 5), layout="step"), Arg((5,)), None), one, name="no bias"),
        Sample((Arg((0, 5)), Arg((5,)), Arg((5,))), one, name="no rows"),
    ]


layer_norm = op(
    "layer_norm",
    infer=_layer_infer,
    define=_layer_define,
    rule=_layer_rule,
    keeps=("x", "w", "mean", "rstd"),
    reads={"w": ("x",)},
    held=("w",),
    outputs=("y", "mean", "rstd"),
    samples=_layer_samples,
    doc="The last ``ndim`` axes brought to mean 0 and variance 1, times w, plus b.",
)


def _rows_backward_infer(
    g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    shape = tuple(x.shape[x.ndim - ndim :])
    parameter = Spec(shape, x.dtype if w is None else w.dtype)
    return tuple(
        spec if needed else None
        for spec, needed in zip((Spec(tuple(x.shape), x.dtype), parameter, parameter), needs, strict=True)
    )


def _layer_backward_define(
    F: Any, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    axes, lead = _last_axes(x, ndim), tuple(range(x.ndim - ndim))
    dtype, kept = np_dtype(x), np_dtype(mean)
    g = fitted(F, g, kept)
    normal = F.mul(F.sub(fitted(F, x, kept), mean), rstd)
    to_x = to_w = to_b = None
    parameter = dtype if w is None else np_dtype(w)
    if needs[0]:
        to_x = fitted(F, through(F, g if w is None else F.mul(g, w), normal, rstd, axes), dtype)
    if needs[1]:
        to_w = fitted(F, F.sum(F.mul(g, normal), dim=lead, keepdim=False) if lead else F.mul(g, normal), parameter)
    if needs[2]:
        to_b = fitted(F, F.sum(g, dim=lead, keepdim=False) if lead else g, parameter)
    return to_x, to_w, to_b


def _rows_backward_samples(*extra: Any, needs: tuple[bool, ...]) -> Any:
    def make() -> list[Sample]:
        statistics = tuple(Arg((3, 1), low, 1.0, kind="s") for low in extra)
        shared = (Arg((3, 5)), Arg((3, 5)), *statistics)
        first = (True, *(False,) * (len(needs) - 1))
        return [
            Sample((*shared, Arg((5,))), {"ndim": 1, "needs": needs}, name="rows"),
            Sample((*shared, None), {"ndim": 1, "needs": first}, name="plain"),
        ]

    return make


layer_norm_backward = op(
    "layer_norm_backward",
    infer=_rows_backward_infer,
    define=_layer_backward_define,
    outputs=("gx", "gw", "gb"),
    apart=True,
    samples=_rows_backward_samples(-1.0, 0.5, needs=(True, True, True)),
    doc="The gradients of ``layer_norm``'s inputs that are needed.",
)


# --- rms_norm


def _rms_infer(x: Any, w: Any, *, ndim: int, eps: float) -> tuple[Spec, ...]:
    require_float("rms_norm", x)
    check_affine("rms_norm", x, tuple(x.shape[x.ndim - ndim :]), weight=w)
    return Spec(tuple(x.shape), x.dtype), _row_statistic(x, ndim)


def _rms_define(F: Any, x: Any, w: Any, *, ndim: int, eps: float) -> tuple[Any, ...]:
    dtype = np_dtype(x)
    source = fitted(F, x, statistic_dtype(dtype))
    rstd = F.rsqrt(F.add(F.mean(F.square(source), dim=_last_axes(x, ndim), keepdim=True), eps))
    y = F.mul(source, rstd)
    return fitted(F, y if w is None else F.mul(y, w), dtype), rstd


def _rms_rule(F: Any, g: Any, x: Any, w: Any, *, rstd: Any, needs: Any, ndim: int, eps: float) -> tuple[Any, ...]:
    to_y, to_rstd = g
    to_x = to_w = None
    if to_y is not None:
        to_x, to_w = F.rms_norm_backward(to_y, x, rstd, w, ndim=ndim, needs=needs)
    if needs[0] and to_rstd is not None:
        slope = F.mul(F.mul(to_rstd, F.cube(rstd)), -1.0 / max(1, product(x.shape[x.ndim - ndim :])))
        to_x = plus(F, to_x, fitted(F, F.mul(x, slope), np_dtype(x)))
    return to_x, to_w


rms_norm = op(
    "rms_norm",
    infer=_rms_infer,
    define=_rms_define,
    rule=_rms_rule,
    keeps=("x", "w", "rstd"),
    reads={"w": ("x",)},
    held=("w",),
    outputs=("y", "rstd"),
    samples=lambda: [
        Sample((Arg((3, 5)), Arg((5,))), {"ndim": 1, "eps": 1e-6}, name="rows"),
        Sample((Arg((2, 3, 4), layout="T"), Arg((3, 4))), {"ndim": 2, "eps": 1e-6}, name="planes"),
        Sample((Arg((3, 5)), None), {"ndim": 1, "eps": 1e-6}, name="plain"),
        Sample((Arg((0, 5)), Arg((5,))), {"ndim": 1, "eps": 1e-6}, name="no rows"),
    ],
    doc="The last ``ndim`` axes divided by the root of their mean square, times w. Source: Zhang and Sennrich 2019.",
)


def _rms_backward_infer(g: Any, x: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    return _rows_backward_infer(g, x, rstd, rstd, w, ndim=ndim, needs=(*needs, False))[:2]


def _rms_backward_define(
    F: Any, g: Any, x: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    axes, lead = _last_axes(x, ndim), tuple(range(x.ndim - ndim))
    dtype, kept = np_dtype(x), np_dtype(rstd)
    g = fitted(F, g, kept)
    normal = F.mul(fitted(F, x, kept), rstd)
    to_x = to_w = None
    if needs[0]:
        inner = g if w is None else F.mul(g, w)
        along = F.mean(F.mul(inner, normal), dim=axes, keepdim=True)
        to_x = fitted(F, F.mul(F.sub(inner, F.mul(normal, along)), rstd), dtype)
    if needs[1]:
        parameter = dtype if w is None else np_dtype(w)
        to_w = fitted(F, F.sum(F.mul(g, normal), dim=lead, keepdim=False) if lead else F.mul(g, normal), parameter)
    return to_x, to_w


rms_norm_backward = op(
    "rms_norm_backward",
    infer=_rms_backward_infer,
    define=_rms_backward_define,
    outputs=("gx", "gw"),
    apart=True,
    samples=_rows_backward_samples(0.5, needs=(True, True)),
    doc="The gradients of ``rms_norm``'s inputs that are needed.",
)
