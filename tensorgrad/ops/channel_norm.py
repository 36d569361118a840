"""Normalization per channel: over a batch, by given statistics, over groups of channels."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from .checks import np_dtype, product, require_float, reshaped, statistic_dtype
from .elementwise import elementwise
from .norm import check_affine, fitted, plus, through, through_statistics
from .record import Spec, op
from .samples import Arg, Sample, binary


def column(F: Any, p: Any, x: Any) -> Any:
    """A vector of channels in the shape that broadcasts against x (n, c, ...)."""
    return reshaped(F, p, (x.shape[1], *(1,) * (x.ndim - 2)))


def batch_axes(x: Any) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _needed(needs: tuple[bool, ...], *specs: Spec) -> tuple[Any, ...]:
    return tuple(spec if needed else None for spec, needed in zip(specs, needs, strict=True))


# --- batch_norm


def _batch_infer(x: Any, w: Any, b: Any, *, eps: float) -> tuple[Spec, ...]:
    if x.dtype.kind != "f":
        require_float("batch_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: expected at least 2 dimensions (n, c, ...), got shape {tuple(x.shape)}.")
    channels = (x.shape[1],)
    check_affine("batch_norm", x, channels, weight=w, bias=b)
    statistic = Spec(channels, statistic_dtype(x.dtype))
    return Spec(tuple(x.shape), x.dtype), statistic, statistic, statistic


def _batch_define(F: Any, x: Any, w: Any, b: Any, *, eps: float) -> tuple[Any, ...]:
    axes, dtype, channels = batch_axes(x), np_dtype(x), (x.shape[1],)
    source = fitted(F, x, statistic_dtype(dtype))
    mean = F.mean(source, dim=axes, keepdim=True)
    shifted = F.sub(source, mean)
    variance = F.mean(F.square(shifted), dim=axes, keepdim=True)
    rstd = F.rsqrt(F.add(variance, eps))
    y = F.mul(shifted, rstd)
    if w is not None:
        y = F.mul(y, column(F, w, x))
    if b is not None:
        y = F.add(y, column(F, b, x))
    flat = [reshaped(F, statistic, channels) for statistic in (mean, rstd, variance)]
    return (fitted(F, y, dtype), *flat)


def _batch_rule(
    F: Any, g: Any, x: Any, w: Any, b: Any, *, mean: Any, rstd: Any, needs: Any, eps: float
) -> tuple[Any, ...]:
    to_y, to_mean, to_rstd, _ = g
    to_x = to_w = to_b = None
    if to_y is not None:
        to_x, to_w, to_b = F.batch_norm_backward(to_y, x, mean, rstd, w, needs=needs)
    if needs[0] and (to_mean is not None or to_rstd is not None):
        m, r, to_m, to_r = (None if p is None else column(F, p, x) for p in (mean, rstd, to_mean, to_rstd))
        extra = through_statistics(F, x, m, r, to_m, to_r, product(x.shape) // max(1, x.shape[1]))
        to_x = plus(F, to_x, fitted(F, extra, np_dtype(x)))
    return to_x, to_w, to_b


batch_norm = op(
    "batch_norm",
    infer=_batch_infer,
    define=_batch_define,
    rule=_batch_rule,
    keeps=("x", "w", "mean", "rstd"),
    reads={"w": ("x",)},
    held=("w",),
    outputs=("y", "mean", "rstd", "variance"),
    nondiff=("variance",),
    samples=lambda: [
        Sample((Arg((4, 3)), Arg((3,)), Arg((3,))), {"eps": 1e-5}, name="rows"),
        Sample((Arg((2, 3, 4, 2), layout="T"), Arg((3,)), Arg((3,))), {"eps": 1e-5}, name="images"),
        Sample((Arg((4, 3, 2)), None, None), {"eps": 1e-5}, name="plain"),
    ],
    doc="Each channel (axis 1) brought to mean 0 and variance 1 over all other axes, times w, plus b.",
)


def _batch_backward_infer(g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    parameter = Spec((x.shape[1],), x.dtype if w is None else w.dtype)
    return _needed(needs, Spec(tuple(x.shape), x.dtype), parameter, parameter)


def _batch_backward_define(
    F: Any, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    axes, dtype, kept = batch_axes(x), np_dtype(x), np_dtype(mean)
    parameter = dtype if w is None else np_dtype(w)
    g, rstd = fitted(F, g, kept), column(F, rstd, x)
    normal = F.mul(F.sub(fitted(F, x, kept), column(F, mean, x)), rstd)
    to_x = to_w = to_b = None
    if needs[0]:
        inner = g if w is None else F.mul(g, column(F, w, x))
        to_x = fitted(F, through(F, inner, normal, rstd, axes), dtype)
    if needs[1]:
        to_w = fitted(F, F.sum(F.mul(g, normal), dim=axes, keepdim=False), parameter)
    if needs[2]:
        to_b = fitted(F, F.sum(g, dim=axes, keepdim=False), parameter)
    return to_x, to_w, to_b


def _channel_backward_samples() -> list[Sample]:
    statistics = (Arg((3,), -1.0, 1.0, kind="s"), Arg((3,), 0.5, 1.0, kind="s"))
    every = {"needs": (True, True, True)}
    return [
        Sample((Arg((4, 3, 2)), Arg((4, 3, 2)), *statistics, Arg((3,))), every, name="affine"),
        Sample((Arg((4, 3)), Arg((4, 3)), *statistics, None), {"needs": (True, False, False)}, name="plain"),
    ]


batch_norm_backward = op(
    "batch_norm_backward",
    infer=_batch_backward_infer,
    define=_batch_backward_define,
    outputs=("gx", "gw", "gb"),
    apart=True,
    samples=_channel_backward_samples,
    doc="The gradients of ``batch_norm``'s inputs that are needed.",
)


# --- batch_norm followed by ReLU


def _relu_infer(x: Any, w: Any, b: Any, *, eps: float) -> tuple[Spec, ...]:
    outputs = _batch_infer(x, w, b, eps=eps)
    return (*outputs, outputs[1])


def _relu_define(F: Any, x: Any, w: Any, b: Any, *, eps: float) -> tuple[Any, ...]:
    y, mean, rstd, variance = F.batch_norm(x, w, b, eps=eps)
    kept = np_dtype(mean)
    shift = F.zeros_as(mean, shape=(x.shape[1],)) if b is None else fitted(F, b, kept)
    return F.relu(y), mean, rstd, variance, shift


def _relu_rule(
    F: Any, g: Any, x: Any, w: Any, b: Any, *, mean: Any, rstd: Any, shift: Any, needs: Any, eps: float
) -> tuple[Any, ...]:
    to_y, *to_statistics, _ = g
    grads: tuple[Any, ...] = (None, None, None)
    if to_y is not None:
        grads = F.batch_norm_relu_backward(to_y, x, mean, rstd, w, shift, needs=needs)
    if any(part is not None for part in to_statistics):
        more = _batch_rule(F, (None, *to_statistics), x, w, b, mean=mean, rstd=rstd, needs=needs, eps=eps)
        grads = (plus(F, grads[0], more[0]), *grads[1:])
    return grads


batch_norm_relu = op(
    "batch_norm_relu",
    infer=_relu_infer,
    define=_relu_define,
    rule=_relu_rule,
    keeps=("x", "w", "mean", "rstd", "shift"),
    outputs=("y", "mean", "rstd", "variance", "shift"),
    nondiff=("variance", "shift"),
    samples=lambda: [
        Sample((Arg((4, 3)), Arg((3,)), Arg((3,))), {"eps": 1e-5}, name="rows"),
        Sample((Arg((2, 3, 4, 3), layout="T"), Arg((3,)), Arg((3,))), {"eps": 1e-5}, name="images"),
        Sample((Arg((4, 3, 2)), None, None), {"eps": 1e-5}, name="plain"),
    ],
    doc="ReLU of ``batch_norm``: what is kept for backward is the same, the result of batch norm is never stored.",
)


def _relu_backward_infer(
    g: Any, x: Any, mean: Any, rstd: Any, w: Any, shift: Any, *, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    return _batch_backward_infer(g, x, mean, rstd, w, needs=needs)


def _relu_backward_define(
    F: Any, g: Any, x: Any, mean: Any, rstd: Any, w: Any, shift: Any, *, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    scale = rstd if w is None else F.mul(rstd, fitted(F, w, np_dtype(rstd)))
    apart = F.sub(fitted(F, x, np_dtype(mean)), column(F, mean, x))
    passes = F.gt(F.add(F.mul(apart, column(F, scale, x)), column(F, shift, x)), 0)
    return _batch_backward_define(F, F.where(passes, g, 0.0), x, mean, rstd, w, needs=needs)


batch_norm_relu_backward = op(
    "batch_norm_relu_backward",
    infer=_relu_backward_infer,
    define=_relu_backward_define,
    outputs=("gx", "gw", "gb"),
    apart=True,
    samples=lambda: [
        Sample((*call.inputs, Arg((3,), kind="s")), call.attrs, name=call.name) for call in _channel_backward_samples()
    ],
    doc="``batch_norm_backward`` of the elements that the ReLU let pass, found again from x.",
)


# --- batch_norm by given statistics

scale_shift = elementwise(
    lambda input, scale, shift: input * scale + shift, name="scale_shift", samples=binary(count=3)
)


def _eval_infer(x: Any, w: Any, b: Any, mean: Any, var: Any, *, eps: float) -> Spec:
    if x.dtype.kind != "f":
        require_float("batch_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: expected at least 2 dimensions (n, c, ...), got shape {tuple(x.shape)}.")
    channels = (x.shape[1],)
    check_affine("batch_norm", x, channels, weight=w, bias=b, running_mean=mean, running_var=var)
    return Spec(tuple(x.shape), x.dtype)


def _eval_define(F: Any, x: Any, w: Any, b: Any, mean: Any, var: Any, *, eps: float) -> Any:
    # per channel: y = x * scale + shift
    kept = statistic_dtype(np_dtype(x))
    scale = F.rsqrt(F.add(fitted(F, var, kept), eps))
    if w is not None:
        scale = F.mul(scale, w)
    shift = F.neg(F.mul(mean, scale))
    if b is not None:
        shift = F.add(shift, b)
    return fitted(F, F.scale_shift(x, column(F, scale, x), column(F, shift, x)), np_dtype(x))


def _eval_rule(
    F: Any, g: Any, x: Any, w: Any, b: Any, mean: Any, var: Any, *, needs: Any, eps: float
) -> tuple[Any, ...]:
    grads: tuple[Any, ...] = F.batch_norm_eval_backward(g, x, w, mean, var, eps=eps, needs=needs)
    return grads


batch_norm_eval = op(
    "batch_norm_eval",
    infer=_eval_infer,
    define=_eval_define,
    rule=_eval_rule,
    keeps=("x", "w", "mean", "var"),
    samples=lambda: [
        Sample((Arg((4, 3, 2)), Arg((3,)), Arg((3,)), Arg((3,)), Arg((3,), 0.5, 2.0)), {"eps": 1e-5}, name="affine"),
        Sample((Arg((4, 3)), None, None, Arg((3,)), Arg((3,), 0.5, 2.0)), {"eps": 1e-5}, name="plain"),
    ],
    doc="Each channel normalized by the given mean and variance, times w, plus b.",
)


def _eval_backward_infer(
    g: Any, x: Any, w: Any, mean: Any, var: Any, *, eps: float, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    channels = (x.shape[1],)
    parameter = Spec(channels, x.dtype if w is None else w.dtype)
    specs = (Spec(tuple(x.shape), x.dtype), parameter, parameter, Spec(channels, mean.dtype), Spec(channels, var.dtype))
    return _needed(needs, *specs)


def _eval_backward_define(
    F: Any, g: Any, x: Any, w: Any, mean: Any, var: Any, *, eps: float, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    axes, dtype, kept = batch_axes(x), np_dtype(x), statistic_dtype(np_dtype(x))
    parameter = dtype if w is None else np_dtype(w)
    rstd = F.rsqrt(F.add(fitted(F, var, kept), eps))
    scale = rstd if w is None else F.mul(rstd, w)
    to_x = to_w = to_b = to_mean = to_var = None
    total = F.sum(fitted(F, g, kept), dim=axes, keepdim=False) if needs[2] or needs[3] else None
    if needs[0]:
        to_x = fitted(F, F.mul(g, fitted(F, column(F, scale, x), dtype)), dtype)
    if needs[1] or needs[4]:
        along = F.sum(F.mul(fitted(F, g, kept), F.sub(fitted(F, x, kept), column(F, mean, x))), dim=axes, keepdim=False)
        if needs[1]:
            to_w = fitted(F, F.mul(along, rstd), parameter)
        if needs[4]:
            to_var = fitted(F, F.mul(F.mul(along, F.mul(scale, F.square(rstd))), -0.5), np_dtype(var))
    if needs[2]:
        to_b = fitted(F, total, parameter)
    if needs[3]:
        to_mean = fitted(F, F.neg(F.mul(total, scale)), np_dtype(mean))
    return to_x, to_w, to_b, to_mean, to_var


def _eval_backward_samples() -> list[Sample]:
    statistics = (Arg((3,), kind="s"), Arg((3,), 0.5, 2.0, kind="s"))
    every = {"eps": 1e-5, "needs": (True, True, True, True, True)}
    return [
        Sample((Arg((4, 3, 2)), Arg((4, 3, 2)), Arg((3,)), *statistics), every, name="affine"),
        Sample(
            (Arg((4, 3, 9)), Arg((4, 3, 9)), None, *statistics), {**every, "needs": (True, *(False,) * 4)}, name="plain"
        ),
        Sample((Arg((4, 3)), Arg((4, 3)), Arg((3,)), *statistics), every, name="rows"),
    ]


batch_norm_eval_backward = op(
    "batch_norm_eval_backward",
    infer=_eval_backward_infer,
    define=_eval_backward_define,
    outputs=("gx", "gw", "gb", "gmean", "gvar"),
    apart=True,
    samples=_eval_backward_samples,
    doc="The gradients of ``batch_norm_eval``'s inputs that are needed.",
)


# --- group_norm


def _group_infer(x: Any, w: Any, b: Any, *, groups: int, eps: float) -> tuple[Spec, ...]:
    if x.dtype.kind != "f":
        require_float("group_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"group_norm: expected at least 2 dimensions (n, c, ...), got shape {tuple(x.shape)}.")
    if groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"group_norm: {x.shape[1]} channels can't be split in {groups} groups.")
    check_affine("group_norm", x, (x.shape[1],), weight=w, bias=b)
    statistic = Spec((x.shape[0], groups), statistic_dtype(x.dtype))
    return Spec(tuple(x.shape), x.dtype), statistic, statistic


def _rows(x: Any, groups: int) -> tuple[int, int, int]:
    return (x.shape[0], groups, product(x.shape[1:]) // groups)


def _group_define(F: Any, x: Any, w: Any, b: Any, *, groups: int, eps: float) -> tuple[Any, ...]:
    dtype, flat = np_dtype(x), (x.shape[0], groups)
    source = fitted(F, reshaped(F, x, _rows(x, groups)), statistic_dtype(dtype))
    mean = F.mean(source, dim=(2,), keepdim=True)
    shifted = F.sub(source, mean)
    rstd = F.rsqrt(F.add(F.mean(F.square(shifted), dim=(2,), keepdim=True), eps))
    y = reshaped(F, F.mul(shifted, rstd), tuple(x.shape))
    if w is not None:
        y = F.mul(y, column(F, w, x))
    if b is not None:
        y = F.add(y, column(F, b, x))
    return fitted(F, y, dtype), reshaped(F, mean, flat), reshaped(F, rstd, flat)


def _group_rule(
    F: Any, g: Any, x: Any, w: Any, b: Any, *, mean: Any, rstd: Any, needs: Any, groups: int, eps: float
) -> tuple[Any, ...]:
    to_y, to_mean, to_rstd = g
    to_x = to_w = to_b = None
    if to_y is not None:
        to_x, to_w, to_b = F.group_norm_backward(to_y, x, mean, rstd, w, groups=groups, needs=needs)
    if needs[0] and (to_mean is not None or to_rstd is not None):
        shape = (x.shape[0], groups, 1)
        m, r, to_m, to_r = (None if p is None else reshaped(F, p, shape) for p in (mean, rstd, to_mean, to_rstd))
        rows = _rows(x, groups)
        extra = through_statistics(F, reshaped(F, x, rows), m, r, to_m, to_r, rows[2])
        to_x = plus(F, to_x, fitted(F, reshaped(F, extra, tuple(x.shape)), np_dtype(x)))
    return to_x, to_w, to_b


group_norm = op(
    "group_norm",
    infer=_group_infer,
    define=_group_define,
    rule=_group_rule,
    keeps=("x", "w", "mean", "rstd"),
    reads={"w": ("x",)},
    held=("w",),
    outputs=("y", "mean", "rstd"),
    samples=lambda: [
        Sample((Arg((2, 4, 3)), Arg((4,)), Arg((4,))), {"groups": 2, "eps": 1e-5}, name="two groups"),
        Sample((Arg((2, 4, 2, 3), layout="T"), Arg((4,)), Arg((4,))), {"groups": 1, "eps": 1e-5}, name="one group"),
        Sample((Arg((2, 4, 3)), None, None), {"groups": 4, "eps": 1e-5}, name="plain"),
    ],
    doc="The channels of each group of each sample brought to mean 0 and variance 1 together. Source: Wu and He 2018.",
)


def _group_backward_infer(
    g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, groups: int, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    parameter = Spec((x.shape[1],), x.dtype if w is None else w.dtype)
    return _needed(needs, Spec(tuple(x.shape), x.dtype), parameter, parameter)


def _group_backward_define(
    F: Any, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, groups: int, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    dtype, kept, rows, axes = np_dtype(x), np_dtype(mean), _rows(x, groups), batch_axes(x)
    parameter = dtype if w is None else np_dtype(w)
    g, rstd = fitted(F, g, kept), reshaped(F, rstd, (*rows[:2], 1))
    normal = F.mul(F.sub(fitted(F, reshaped(F, x, rows), kept), reshaped(F, mean, (*rows[:2], 1))), rstd)
    to_x = to_w = to_b = None
    if needs[0]:
        inner = reshaped(F, g if w is None else F.mul(g, column(F, w, x)), rows)
        to_x = fitted(F, reshaped(F, through(F, inner, normal, rstd, (2,)), tuple(x.shape)), dtype)
    if needs[1]:
        spread = F.mul(g, reshaped(F, normal, tuple(x.shape)))
        to_w = fitted(F, F.sum(spread, dim=axes, keepdim=False), parameter)
    if needs[2]:
        to_b = fitted(F, F.sum(g, dim=axes, keepdim=False), parameter)
    return to_x, to_w, to_b


def _group_backward_samples() -> list[Sample]:
    statistics = (Arg((2, 2), -1.0, 1.0, kind="s"), Arg((2, 2), 0.5, 1.0, kind="s"))
    every = {"groups": 2, "needs": (True, True, True)}
    return [Sample((Arg((2, 4, 3)), Arg((2, 4, 3)), *statistics, Arg((4,))), every, name="affine")]


group_norm_backward = op(
    "group_norm_backward",
    infer=_group_backward_infer,
    define=_group_backward_define,
    outputs=("gx", "gw", "gb"),
    apart=True,
    samples=_group_backward_samples,
    doc="The gradients of ``group_norm``'s inputs that are needed.",
)
