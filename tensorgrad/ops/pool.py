"""Pooling: the maximum or mean under a sliding window, and under windows that cover the input evenly."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..backends.generic.pool import pool_outputs
from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from . import pointwise as pw
from .calls import calls
from .checks import integer, product, real, require_float, require_tensors, reshaped
from .conv import batched, per_axis, require_window, unbatched
from .record import Spec, op
from .samples import Arg, Sample

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
]  # fmt: skip

_INT64 = np.dtype(np.int64)


@lru_cache(maxsize=1024)  # layers ask the same again and again
def _outputs(name: str, sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    require_window(name, kernel, stride, padding, dilation)
    _check_padding(name, padding, kernel)
    outputs = pool_outputs(sizes, kernel, stride, padding, dilation, ceil_mode)
    if min(outputs) < 1:
        raise ShapeError(
            f"{name}: a window of {kernel} with dilation {dilation} is larger than the input {sizes} "
            f"with padding {padding}."
        )
    return outputs


# --- maximum


def _max_infer(x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple[Spec, Spec]:
    if x.dtype.kind in "bc":
        raise DTypeError(f"max_pool: not defined for {x.dtype.name}.")
    shape = (*x.shape[:2], *_outputs("max_pool", tuple(x.shape[2:]), kernel, stride, padding, dilation, ceil_mode))
    return Spec(shape, x.dtype), Spec(shape, _INT64)


def _max_rule(F: Any, g: Any, x: Any, *, needs: Any, indices: Any, **how: Any) -> tuple[Any, ...]:
    gradient = g[0]
    if how.get("dilation") and _misses(x.shape[2:], **how):  # a window between whose taps the input lies has no place
        inside = F.logical_and(F.ge(indices, 0), F.lt(indices, product(x.shape[2:])))
        gradient, indices = F.where(inside, gradient, 0.0), F.where(inside, indices, 0)
    window = tuple([n for key in ("kernel", "stride", "padding", "dilation") for n in how.get(key, ())])
    return (F.max_pool_backward(gradient, indices, input_shape=tuple(x.shape), window=window),)


def _misses(sizes: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> bool:
    """Whether some window has no tap inside the input."""
    outputs = pool_outputs(sizes, kernel, stride, padding, dilation, ceil_mode)
    return any(
        p > 0 and d > 1 and any(not any(0 <= o * s - p + t * d < n for t in range(k)) for o in range(count))
        for n, count, k, s, p, d in zip(sizes, outputs, kernel, stride, padding, dilation, strict=True)
    )


def _window(dims: int, kernel: Any, **changed: Any) -> dict[str, Any]:
    how = {"kernel": kernel, "stride": kernel, "padding": (0,) * dims, "dilation": (1,) * dims, "ceil_mode": False}
    return how | changed


def _distinct(shape: tuple[int, ...]) -> Arg:
    """Elements no two of which are equal: where two meet, the maximum has no derivative."""
    count = product(shape)
    order = np.random.default_rng(0).permutation(count)
    return Arg(shape, values=tuple((order * (4.0 / count) - 2.0).tolist()))


max_pool_op = op(
    "max_pool",
    infer=_max_infer,
    rule=_max_rule,
    keeps=("indices",),
    outputs=("y", "indices"),
    nondiff=("indices",),
    checked=True,
    samples=lambda: [
        Sample((_distinct((2, 3, 7)),), _window(1, (3,), stride=(2,), padding=(1,)), name="1d"),
        Sample((_distinct((2, 3, 6, 5)),), _window(2, (2, 2)), name="2d"),
        Sample((_distinct((1, 2, 6, 5)),), _window(2, (2, 3), stride=(2, 2), ceil_mode=True), name="ceil"),
        Sample((_distinct((1, 2, 7, 7)),), _window(2, (2, 2), stride=(1, 2), dilation=(2, 3)), name="dilated"),
        Sample((_distinct((1, 2, 4, 4, 4)),), _window(3, (2, 2, 2)), name="3d"),
        Sample((Arg((0, 2, 4, 4)),), _window(2, (2, 2)), name="no samples"),
    ],
    doc="The maximum under each window, and its flat place in the plane of x.",
)


def _max_backward_infer(g: Any, indices: Any, *, input_shape: Any, window: Any = None) -> Spec:
    if window:
        dims = len(input_shape) - 2
        if len(window) != 4 * dims or min(window[: 2 * dims]) < 1 or min(window[3 * dims :]) < 1:
            raise ShapeError(f"max_pool_backward: {window} tells of no windows over {dims} axes.")
    return Spec(input_shape, g.dtype)


def _flat(x: Any) -> tuple[int, ...]:
    return (x.shape[0], x.shape[1], product(x.shape[2:]))


def _max_backward_define(F: Any, g: Any, indices: Any, *, input_shape: Any, window: Any = None) -> Any:
    zeros = F.zeros_as(g, shape=(*input_shape[:2], product(input_shape[2:])))
    spread = F.scatter_add(zeros, reshaped(F, indices, _flat(indices)), reshaped(F, g, _flat(g)), dim=2)
    return reshaped(F, spread, input_shape)


def _max_backward_rule(
    F: Any, h: Any, g: Any, indices: Any, *, needs: Any, input_shape: Any, window: Any = None
) -> tuple[Any, ...]:
    flat = reshaped(F, h, (*input_shape[:2], product(input_shape[2:])))
    picked = F.gather(flat, reshaped(F, indices, _flat(indices)), dim=2)
    return reshaped(F, picked, tuple(g.shape)), None


max_pool_backward = op(
    "max_pool_backward",
    raises=True,
    infer=_max_backward_infer,
    define=_max_backward_define,
    rule=_max_backward_rule,
    keeps=("indices",),
    samples=lambda: [
        Sample((Arg((1, 1, 2, 2)), Arg((1, 1, 2, 2), kind="i", values=(0, 2, 6, 6))), {"input_shape": (1, 1, 3, 3)}),
        Sample(
            (Arg((1, 1, 2, 2)), Arg((1, 1, 2, 2), kind="i", values=(4, 2, 4, 4))),
            {"input_shape": (1, 1, 3, 3), "window": (2, 2, 1, 1, 0, 0, 1, 1)},
            name="window",
        ),
    ],
    doc="``g`` added up at the places that ``max_pool`` found. ``window``: its kernel, stride, padding and dilation, "
    "by which a kernel may look from elements; empty for windows that cover the input evenly, None if nobody knows.",
)


# --- mean


def _avg_infer(
    x: Any, *, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Spec:  # fmt: skip
    if x.dtype.kind == "b":
        raise DTypeError("avg_pool: not defined for bool.")
    ones = (1,) * len(kernel)
    return Spec(
        (*x.shape[:2], *_outputs("avg_pool", tuple(x.shape[2:]), kernel, stride, padding, ones, ceil_mode)), x.dtype
    )


def _average(dims: int, kernel: Any, **changed: Any) -> dict[str, Any]:
    how = {"kernel": kernel, "stride": kernel, "padding": (0,) * dims, "ceil_mode": False}
    return how | {"count_include_pad": True, "divisor_override": None} | changed


def _avg_samples() -> list[Sample]:
    padded = {"stride": (2, 1), "padding": (1, 1)}
    return [
        Sample((Arg((2, 3, 7)),), _average(1, (3,), stride=(2,), padding=(1,)), name="1d"),
        Sample((Arg((2, 3, 6, 5), layout="T"),), _average(2, (2, 2)), name="2d"),
        Sample((Arg((1, 2, 6, 5)),), _average(2, (2, 3), **padded, count_include_pad=False), name="padding left out"),
        Sample((Arg((1, 2, 6, 5)),), _average(2, (2, 3), **padded, ceil_mode=True), name="ceil"),
        Sample((Arg((1, 2, 6, 5)),), _average(2, (2, 3), divisor_override=5), name="divisor"),
        Sample((Arg((1, 2, 4, 4, 4)),), _average(3, (2, 2, 2)), name="3d"),
        Sample((Arg((0, 2, 4, 4)),), _average(2, (2, 2)), name="no samples"),
    ]


avg_pool_op = op(
    "avg_pool",
    infer=_avg_infer,
    rule=lambda F, g, x, *, needs, **how: (F.avg_pool_backward(g, input_shape=tuple(x.shape), **how),),
    checked=True,
    samples=_avg_samples,
    doc="The mean under each window.",
)


def _avg_backward_infer(
    g: Any, *, input_shape: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Spec:  # fmt: skip
    return Spec(input_shape, g.dtype)


avg_pool_backward = op(
    "avg_pool_backward",
    infer=_avg_backward_infer,
    rule=lambda F, h, g, *, needs, input_shape, **how: (F.avg_pool(h, **how),),
    samples=lambda: [
        Sample((Arg((2, 3, 4)),), _average(1, (3,), stride=(2,), padding=(1,), input_shape=(2, 3, 7)), name="1d"),
        Sample((Arg((2, 3, 3, 2)),), _average(2, (2, 2), input_shape=(2, 3, 6, 5)), name="2d"),
    ],
    doc="Every window's gradient shared out evenly among its elements.",
)


# --- windows that cover the input evenly


def _adaptive_shape(name: str, x: Any, output_size: Any) -> tuple[int, ...]:
    if 0 in x.shape[1:]:
        raise ShapeError(f"{name}: only the batch may be empty, got shape {tuple(x.shape)}.")
    return (*x.shape[:2], *output_size)


def _adaptive_infer(x: Any, *, output_size: Any) -> Spec:
    if x.dtype.kind != "f":
        require_float("adaptive_avg_pool", x)
    return Spec(_adaptive_shape("adaptive_avg_pool", x, output_size), x.dtype)


adaptive_avg_pool = op(
    "adaptive_avg_pool",
    infer=_adaptive_infer,
    rule=lambda F, g, x, *, needs, output_size: (F.adaptive_avg_pool_backward(g, input_shape=tuple(x.shape)),),
    checked=True,
    samples=lambda: [
        Sample((Arg((2, 3, 7)),), {"output_size": (3,)}, name="1d"),
        Sample((Arg((2, 3, 6, 5), layout="T"),), {"output_size": (3, 2)}, name="2d"),
        Sample((Arg((2, 3, 4, 4)),), {"output_size": (1, 1)}, name="global"),
        Sample((Arg((1, 2, 3, 2)),), {"output_size": (5, 4)}, name="larger"),
        Sample((Arg((1, 2, 3, 4, 5)),), {"output_size": (2, 2, 2)}, name="3d"),
    ],
    doc="The mean under windows from ``floor(i n / o)`` to ``ceil((i + 1) n / o)``.",
)
adaptive_avg_pool_backward = op(
    "adaptive_avg_pool_backward",
    infer=lambda g, *, input_shape: Spec(input_shape, g.dtype),
    rule=lambda F, h, g, *, needs, input_shape: (F.adaptive_avg_pool(h, output_size=tuple(g.shape[2:])),),
    samples=lambda: [Sample((Arg((2, 3, 3)),), {"input_shape": (2, 3, 7)}, name="1d")],
    doc="Every window's gradient shared out evenly among its elements.",
)


def _adaptive_max_infer(x: Any, *, output_size: Any) -> tuple[Spec, Spec]:
    if x.dtype.kind in "bc":
        raise DTypeError(f"adaptive_max_pool: not defined for {x.dtype.name}.")
    shape = _adaptive_shape("adaptive_max_pool", x, output_size)
    return Spec(shape, x.dtype), Spec(shape, _INT64)


adaptive_max_pool = op(
    "adaptive_max_pool",
    infer=_adaptive_max_infer,
    rule=_max_rule,
    keeps=("indices",),
    outputs=("y", "indices"),
    nondiff=("indices",),
    checked=True,
    samples=lambda: [
        Sample((_distinct((2, 3, 7)),), {"output_size": (3,)}, name="1d"),
        Sample((_distinct((2, 3, 6, 5)),), {"output_size": (3, 2)}, name="2d"),
    ],
    doc="The maximum under evenly spread windows, and its flat place in the plane of x.",
)


# the maxima alone, where nobody reads the places


def _max_values_infer(x: Any, **how: Any) -> Spec:
    return _max_infer(x, **how)[0]


def _adaptive_max_values_infer(x: Any, *, output_size: Any) -> Spec:
    return _adaptive_max_infer(x, output_size=output_size)[0]


max_pool_values = op(
    "max_pool_values",
    infer=_max_values_infer,
    define=lambda F, x, **how: F.max_pool(x, **how)[0],
    checked=True,
    samples=lambda: [
        Sample((_distinct((2, 3, 7)),), _window(1, (3,), stride=(2,), padding=(1,)), name="1d"),
        Sample((_distinct((2, 3, 6, 25)),), _window(2, (2, 2)), name="2d"),
        Sample((_distinct((1, 2, 6, 19)),), _window(2, (3, 3), stride=(1, 1), padding=(1, 1)), name="overlapping"),
        Sample((_distinct((1, 2, 6, 17)),), _window(2, (2, 3), stride=(2, 3), ceil_mode=True), name="ceil"),
        Sample((_distinct((1, 2, 4, 4, 4)),), _window(3, (2, 2, 2)), name="3d"),
    ],
    doc="The maximum under each window.",
)
adaptive_max_pool_values = op(
    "adaptive_max_pool_values",
    infer=_adaptive_max_values_infer,
    define=lambda F, x, *, output_size: F.adaptive_max_pool(x, output_size=output_size)[0],
    checked=True,
    samples=lambda: [
        Sample((_distinct((2, 3, 7)),), {"output_size": (3,)}, name="1d"),
        Sample((_distinct((2, 3, 6, 5)),), {"output_size": (3, 2)}, name="2d"),
    ],
    doc="The maximum under evenly spread windows.",
)


# --- the public functions


def _settled(make: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """``make(*given)``, the attributes that a user's arguments mean; kept where the arguments are plain numbers."""
    try:
        return _kept(make, *given)
    except TypeError:  # lists, tensors, and what is wrong
        return make(*given)


@lru_cache(maxsize=1024, typed=True)
def _kept(make: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    for value in given:
        for number in value if type(value) is tuple else (value,):
            if number is not None and type(number) not in (int, bool, str):
                raise TypeError("a value that may change")
    return make(*given)


def _max_settings(
    name: str, dims: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
) -> dict[str, Any]:
    kernel = per_axis(name, "kernel_size", kernel_size, dims, 1)
    pads = per_axis(name, "padding", padding, dims, 0)
    _check_padding(name, pads, kernel)
    return {
        "kernel": kernel,
        "stride": kernel
        if stride is None or (isinstance(stride, (list, tuple)) and not stride)
        else per_axis(name, "stride", stride, dims, 1),
        "padding": pads,
        "dilation": per_axis(name, "dilation", dilation, dims, 1),
        "ceil_mode": bool(ceil_mode),
    }


def _max_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{dims}d"
    require_tensors(name, input=input)
    x, added = batched(name, input, dims)
    _check_filled(name, input, added)
    how = _settled(_max_settings, name, dims, kernel_size, stride, padding, dilation, ceil_mode)
    values, indices = max_pool_op(x, **how)
    if not added:
        return (values, indices) if return_indices else values
    y = unbatched(values, added)
    return (y, unbatched(indices, added)) if return_indices else y


def _check_filled(name: str, x: Tensor, single: bool) -> None:
    if 0 in x._data.shape[0 if single else 1 :]:
        raise ShapeError(f"{name}: only the batch may be empty, got shape {tuple(x.shape)}.")


def _check_padding(name: str, padding: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    if any(p > k // 2 for p, k in zip(padding, kernel, strict=True)):
        raise ShapeError(f"{name}: padding {padding} must be at most half of the window {kernel}.")


@calls(max_pool_op, "x3 sizes:kernel sizes sizes sizes flag", returns=0, alone=max_pool_values)
def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum under a window that slides along the last axis; see ``max_pool2d``."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@calls(max_pool_op, "x4 sizes:kernel sizes sizes sizes flag", returns=0, alone=max_pool_values)
def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum under a window that slides over the last two axes.

    Args:
        input: (n, c, h, w) or (c, h, w).
        kernel_size, stride, padding, dilation: a number, or one per axis; the stride is the window's size by default.
            Padding never wins.
        ceil_mode: windows that begin inside but end outside count too.
        return_indices: also return where in the plane (row * w + column) each maximum was found, as int64.
    Raises: ShapeError if no window fits; ValueError for padding of more than half a window.
    Example:
        >>> import tensorgrad as tg
        >>> tg.max_pool2d(tg.tensor([[[[1.0, 2.0], [4.0, 3.0]]]]), 2).tolist()
        [[[[4.0]]]]
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@calls(max_pool_op, "x5 sizes:kernel sizes sizes sizes flag", returns=0, alone=max_pool_values)
def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum under a window that slides over the last three axes; see ``max_pool2d``."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg_settings(
    name: str, dims: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any, count_include_pad: Any,
    divisor_override: int | None,
) -> dict[str, Any]:  # fmt: skip
    if divisor_override is not None:
        divisor_override = integer(name, "divisor_override", divisor_override)
        if divisor_override == 0:
            raise ArgumentError(f"{name}: divisor_override must not be zero.")
    kernel = per_axis(name, "kernel_size", kernel_size, dims, 1)
    pads = per_axis(name, "padding", padding, dims, 0)
    _check_padding(name, pads, kernel)
    return {
        "kernel": kernel,
        "stride": kernel
        if stride is None or (isinstance(stride, (list, tuple)) and not stride)
        else per_axis(name, "stride", stride, dims, 1),
        "padding": pads,
        "ceil_mode": bool(ceil_mode),
        "count_include_pad": bool(count_include_pad),
        "divisor_override": divisor_override,
    }


def _avg_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:  # fmt: skip
    name = f"avg_pool{dims}d"
    require_tensors(name, input=input)
    x, added = batched(name, input, dims)
    how = _settled(
        _avg_settings, name, dims, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
    return unbatched(avg_pool_op(x, **how), added)


@calls(avg_pool_op, "x3 sizes:kernel sizes sizes flag flag", divisor_override=None)
def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean under a window that slides along the last axis; see ``avg_pool2d``."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@calls(avg_pool_op, "x4 sizes:kernel sizes sizes flag flag -:divisor_override=None")
def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean under a window that slides over the last two axes.

    Args:
        input: (n, c, h, w) or (c, h, w).
        kernel_size, stride, padding: a number, or one per axis; the stride is the window's size by default.
        ceil_mode: windows that begin inside but end outside count too.
        count_include_pad: whether padding counts as zeros, or not at all.
        divisor_override: divide the sums by this number instead.
    Raises: ShapeError if no window fits; ValueError for padding of more than half a window.
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@calls(avg_pool_op, "x5 sizes:kernel sizes sizes flag flag -:divisor_override=None")
def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean under a window that slides over the last three axes; see ``avg_pool2d``."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _lp_pool(dims: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    norm_type = real(f"lp_pool{dims}d", "norm_type", norm_type)
    if norm_type == 0:
        raise ArgumentError(f"lp_pool{dims}d: norm_type must not be 0, of which there is no root.")
    if math.isinf(norm_type):  # the limits of the formula: the largest magnitude, and the smallest
        sign = math.copysign(1.0, norm_type)
        largest = _max_pool(dims, pw.mul(pw.abs(input), sign), kernel_size, stride, 0, 1, ceil_mode, False)
        return pw.mul(largest, sign)
    kernel = per_axis(f"lp_pool{dims}d", "kernel_size", kernel_size, dims, 1)
    mean = _avg_pool(dims, pw.pow(input, norm_type), kernel_size, stride, 0, ceil_mode, True, None)
    total = pw.mul(mean, float(math.prod(kernel)))
    return pw.pow(pw.mul(pw.sign(total), pw.relu(pw.abs(total))), 1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum of x ** p) ** (1 / p)`` under a window along the last axis, with ``p = norm_type``."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum of x ** p) ** (1 / p)`` under a window over the last two axes, with ``p = norm_type``."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum of x ** p) ** (1 / p)`` under a window over the last three axes, with ``p = norm_type``."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _adaptive_sizes(name: str, x: Tensor, output_size: Any, dims: int) -> tuple[int, ...]:
    if type(output_size) is int and output_size >= 0:
        return (output_size,) * dims
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(given) != dims:
        raise ShapeError(f"{name}: output_size has {len(given)} numbers, expected one or {dims}.")
    sizes = tuple(x.shape[2 + i] if size is None else size for i, size in enumerate(given))
    return per_axis(name, "output_size", sizes, dims, 0)


def _adaptive_avg(dims: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{dims}d"
    require_tensors(name, input=input)
    x, added = batched(name, input, dims)
    sizes = _adaptive_sizes(name, x, output_size, dims)
    if 0 in x._data.shape[1:] and sizes == (1,) * dims:  # a mean, whatever of: NaN of no positions
        return unbatched(recorded.mean(x, dim=tuple(range(2, 2 + dims)), keepdim=True), added)
    if _of_no_channels(x, added):
        return input.reshape((0, *sizes))
    return unbatched(adaptive_avg_pool(x, output_size=sizes), added)


def _of_no_channels(x: Tensor, added: bool) -> bool:
    """Whether it is an input without a batch and without channels, which gives none as an empty batch does."""
    return added and not x._data.shape[1] and 0 not in x._data.shape[2:]


def _adaptive_max(dims: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{dims}d"
    require_tensors(name, input=input)
    x, added = batched(name, input, dims)
    sizes = _adaptive_sizes(name, x, output_size, dims)
    if _of_no_channels(x, added):
        y = input.reshape((0, *sizes))
        return (y, y.detach().long()) if return_indices else y
    values, indices = adaptive_max_pool(x, output_size=sizes)
    y = unbatched(values, added)
    return (y, unbatched(indices, added)) if return_indices else y


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means under ``output_size`` windows that cover the last axis evenly; see ``adaptive_avg_pool2d``."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means under windows that cover the last two axes evenly, whatever the input's size.

    Args:
        input: (n, c, h, w) or (c, h, w).
        output_size: a number, or one per axis; None keeps the input's size there.
    Returns: (n, c, *output_size). Window i of o along an axis of n goes from ``floor(i n / o)`` to
        ``ceil((i + 1) n / o)``.
    """
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means under windows that cover the last three axes evenly; see ``adaptive_avg_pool2d``."""
    return _adaptive_avg(3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima under windows that cover the last axis evenly; see ``adaptive_max_pool2d``."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima under windows that cover the last two axes evenly, as in ``adaptive_avg_pool2d``."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima under windows that cover the last three axes evenly; see ``adaptive_max_pool2d``."""
    return _adaptive_max(3, input, output_size, return_indices)
