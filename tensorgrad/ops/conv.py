"""Convolutions in one to three dimensions, and their transposes.

Three records, closed under differentiation: ``conv``, its gradient in the input (which is the transposed convolution)
and its gradient in the weight. Each is linear in both arguments, and the rule of each uses the other two.
"""

from __future__ import annotations

from typing import Any

from ..backends.generic.conv import conv_outputs
from ..dispatch import recorded
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from .calls import calls
from .checks import conjugate, integer, require_optional, require_same_dtype, require_tensors, shaped
from .rearrange import pad
from .record import Spec, op
from .samples import Arg, Sample
from .shape_core import as_index

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def _require_number(name: str, x: Any) -> None:
    if x.dtype.kind == "b":
        raise DTypeError(f"{name}: not defined for bool. Convert it with .float().")


def _check_weight(name: str, x: Any, w: Any, groups: int) -> None:
    """Raises ShapeError unless the channels of ``x`` (n, c, ...) and ``w`` (o, c / groups, ...) fit."""
    if w.ndim != x.ndim:
        raise ShapeError(
            f"{name}: an input of shape {tuple(x.shape)} needs a weight of {x.ndim} dimensions (out, in / groups, "
            f"kernel), got {tuple(w.shape)}."
        )
    if groups < 1 or w.shape[0] % groups:
        raise ShapeError(f"{name}: the weight's {w.shape[0]} output channels can't be split in {groups} groups.")
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"{name}: input has {x.shape[1]} channels, weight {tuple(w.shape)} with groups={groups} expects "
            f"{w.shape[1] * groups}."
        )


def _conv_infer(x: Any, w: Any, b: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    _require_number("conv", x)
    require_same_dtype("conv", x, weight=w, bias=b)
    _check_weight("conv", x, w, groups)
    if b is not None and tuple(b.shape) != (w.shape[0],):
        raise ShapeError(f"conv: bias has shape {tuple(b.shape)}, weight {tuple(w.shape)} expects ({w.shape[0]},).")
    require_window("conv", (1,), stride, padding, dilation)
    outputs = conv_outputs(x.shape[2:], w.shape[2:], stride, padding, dilation)
    if min(outputs, default=1) < 1 or min(w.shape[2:], default=1) < 1:
        raise ShapeError(
            f"conv: a kernel of {tuple(w.shape[2:])} with dilation {dilation} is larger than the input "
            f"{tuple(x.shape[2:])} with padding {padding}."
        )
    return Spec((x.shape[0], w.shape[0], *outputs), x.dtype)


def _conv_rule(F: Any, g: Any, x: Any, w: Any, b: Any, *, needs: tuple[bool, ...], **how: Any) -> tuple[Any, ...]:
    to_x = to_w = to_b = None
    if needs[0]:
        to_x = F.conv_input_grad(g, conjugate(F, w), input_shape=tuple(x.shape), **how)
    if needs[1]:
        to_w = F.conv_weight_grad(g, conjugate(F, x), weight_shape=tuple(w.shape), **how)
    if needs[2]:
        to_b = F.sum(g, dim=(0, *range(2, g.ndim)), keepdim=False)
    return to_x, to_w, to_b


def _how(dims: int, **changed: Any) -> dict[str, Any]:
    how = {"stride": (1,) * dims, "padding": (0,) * dims, "dilation": (1,) * dims, "groups": 1}
    return how | changed


def _conv_samples() -> list[Sample]:
    return [
        Sample((Arg((2, 3, 7)), Arg((4, 3, 3)), Arg((4,))), _how(1, stride=(2,), padding=(1,)), name="1d"),
        Sample((Arg((2, 3, 5, 6)), Arg((4, 3, 3, 2)), Arg((4,))), _how(2, padding=(1, 0)), name="2d"),
        Sample((Arg((2, 4, 5, 5), layout="T"), Arg((4, 2, 2, 2), layout="T"), None), _how(2, groups=2), name="groups"),
        Sample((Arg((1, 3, 5, 5)), Arg((3, 1, 3, 3)), None), _how(2, groups=3, padding=(1, 1)), name="depthwise"),
        Sample((Arg((2, 2, 7, 6)), Arg((3, 2, 3, 2)), None), _how(2, stride=(3, 2), dilation=(2, 1)), name="dilated"),
        Sample((Arg((1, 2, 3, 4, 3)), Arg((2, 2, 2, 2, 2)), Arg((2,))), _how(3, padding=(1, 0, 1)), name="3d"),
        Sample((Arg((0, 2, 4, 4)), Arg((3, 2, 3, 3)), Arg((3,))), _how(2), name="no samples"),
    ]


conv_op = op(
    "conv",
    infer=_conv_infer,
    rule=_conv_rule,
    keeps=("x", "w"),
    reads={"x": ("w",), "w": ("x",)},
    checked=True,
    samples=_conv_samples,
    doc="Cross-correlation: x (n, c, sizes), w (o, c / groups, kernel), b (o,) or None.",
)


def _input_grad_infer(
    g: Any, w: Any, *, input_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Spec:
    return Spec(input_shape, g.dtype)


def _input_grad_rule(
    F: Any, h: Any, g: Any, w: Any, *, needs: tuple[bool, ...], input_shape: Any, **how: Any
) -> tuple[Any, ...]:
    to_g = F.conv(h, conjugate(F, w), None, **how) if needs[0] else None
    to_w = F.conv_weight_grad(conjugate(F, g), h, weight_shape=tuple(w.shape), **how) if needs[1] else None
    return to_g, to_w


conv_input_grad = op(
    "conv_input_grad",
    infer=_input_grad_infer,
    rule=_input_grad_rule,
    keeps=("g", "w"),
    reads={"g": ("w",), "w": ("g",)},
    samples=lambda: [
        Sample((Arg((2, 4, 4)), Arg((4, 3, 3))), _how(1, stride=(2,), padding=(1,), input_shape=(2, 3, 7)), name="1d"),
        Sample((Arg((2, 4, 2, 3)), Arg((4, 1, 2, 2))), _how(2, groups=2, stride=(2, 1), input_shape=(2, 2, 5, 4))),
    ],
    doc="The gradient of ``conv`` in its input; also the transposed convolution.",
)


def _weight_grad_infer(
    g: Any, x: Any, *, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Spec:
    return Spec(weight_shape, g.dtype)


def _weight_grad_rule(
    F: Any, h: Any, g: Any, x: Any, *, needs: tuple[bool, ...], weight_shape: Any, **how: Any
) -> tuple[Any, ...]:
    to_g = F.conv(conjugate(F, x), h, None, **how) if needs[0] else None
    to_x = F.conv_input_grad(conjugate(F, g), h, input_shape=tuple(x.shape), **how) if needs[1] else None
    return to_g, to_x


conv_weight_grad = op(
    "conv_weight_grad",
    infer=_weight_grad_infer,
    rule=_weight_grad_rule,
    keeps=("g", "x"),
    reads={"g": ("x",), "x": ("g",)},
    samples=lambda: [
        Sample((Arg((2, 4, 4)), Arg((2, 3, 7))), _how(1, stride=(2,), padding=(1,), weight_shape=(4, 3, 3)), name="1d"),
        Sample((Arg((2, 4, 2, 3)), Arg((2, 2, 5, 4))), _how(2, groups=2, stride=(2, 1), weight_shape=(4, 1, 2, 2))),
    ],
    doc="The gradient of ``conv`` in its weight.",
)


# --- the public functions


def require_window(name: str, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    """Raises ArgumentError for numbers of a window that are too small, or so large that sums of positions could
    overflow. What came by a public function has been looked at; calls from C come here at once."""
    parts = (("kernel_size", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    for label, given, least in parts:
        if min(given, default=least) < least or max(given, default=least) >= 2**31:
            raise ArgumentError(f"{name}: {label} must be at least {least} and below 2**31, got {given!r}.")


def per_axis(name: str, label: str, given: Any, dims: int, least: int) -> tuple[int, ...]:
    """A number or one per axis, as a tuple.

    Raises: ShapeError for a wrong count, ArgumentError below ``least`` or where sums of positions could overflow.
    """
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,) * dims
    if len(values) == 1 and dims > 1:
        values = values * dims
    if len(values) != dims:
        raise ShapeError(f"{name}: {label} has {len(values)} numbers, expected one or {dims}: {given!r}.")
    numbers = []
    for value in values:
        whole = as_index(value)
        if whole is None:
            raise TypeError(f"{name}: {label} must be made of integers, got {given!r}.")
        if not least <= whole < 2**31:
            raise ArgumentError(f"{name}: {label} must be at least {least} and below 2**31, got {given!r}.")
        numbers.append(whole)
    return tuple(numbers)


def batched(name: str, x: Tensor, dims: int, channels: bool = True) -> tuple[Tensor, bool]:
    """(x with a batch dimension, whether one was added). Raises ShapeError for a rank that fits neither."""
    have, want = x._data.ndim, dims + 2
    if have == want:
        return x, False
    if have == want - 1:
        return shaped(x, (1, *x.shape)), True
    form = "(n, c, ...) or (c, ...)"
    raise ShapeError(f"{name}: expected {want} or {want - 1} dimensions {form}, got shape {tuple(x.shape)}.")


def unbatched(y: Tensor, added: bool) -> Tensor:
    return shaped(y, tuple(y.shape[1:])) if added else y


def _same_padding(name: str, x: Tensor, kernel: Any, stride: Any, dilation: Any) -> tuple[Tensor, tuple[int, ...]]:
    """The padding that keeps the size; where its total is odd, the extra element goes behind the input."""
    if any(s != 1 for s in stride):
        raise ArgumentError(f"{name}: padding='same' is not defined for a stride other than 1, got {stride}.")
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(total % 2 for total in totals):
        pads = ((0, 0), (0, 0), *((0, total % 2) for total in totals))
        x = recorded.pad(x, pads=pads, mode="constant", value=0.0)
    return x, tuple(total // 2 for total in totals)


def _conv(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    name = f"conv{dims}d"
    require_tensors(name, input=input, weight=weight)
    require_optional(name, bias=bias)
    if weight._data.ndim != dims + 2:
        raise ShapeError(f"{name}: expected a weight of {dims + 2} dimensions, got shape {tuple(weight.shape)}.")
    x, added = batched(name, input, dims)
    steps = per_axis(name, "stride", stride, dims, 1)
    spread = per_axis(name, "dilation", dilation, dims, 1)
    if padding == "same":
        x, pads = _same_padding(name, x, weight.shape[2:], steps, spread)
    elif padding == "valid":
        pads = (0,) * dims
    elif isinstance(padding, str):
        raise ArgumentError(f"{name}: padding must be integers, 'same' or 'valid', got {padding!r}.")
    else:
        pads = per_axis(name, "padding", padding, dims, 0)
    split = integer(name, "groups", groups)
    y = conv_op(x, weight, bias, stride=steps, padding=pads, dilation=spread, groups=split)
    return unbatched(y, added)


@calls(conv_op, "x3 x3 x sizes sizes sizes int")
def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation along one axis; see ``conv2d``."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


@calls(conv_op, "x4 x4 x sizes sizes sizes int")
def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of images with a bank of filters.

    Args:
        input: (n, c, h, w), or (c, h, w) for a single image.
        weight: (o, c / groups, kh, kw).
        bias: (o,) or None.
        stride, dilation: a number, or one per axis.
        padding: zeros at both ends of each axis; a number, one per axis, "valid" (none) or "same" (as many as keep the
            size, for stride 1).
        groups: channels are split in so many groups, each with filters of its own.
    Returns: (n, o, oh, ow) with ``oh = (h + 2 * padding - dilation * (kh - 1) - 1) // stride + 1``.
    Raises: ShapeError if sizes or channels do not fit; DTypeError for bool or unequal dtypes.
    Example:
        >>> import tensorgrad as tg
        >>> tg.conv2d(tg.ones(1, 1, 4, 4), tg.ones(2, 1, 3, 3), padding=1).shape
        torch.Size([1, 2, 4, 4])
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


@calls(conv_op, "x5 x5 x sizes sizes sizes int")
def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of volumes; see ``conv2d``."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    name = f"conv_transpose{dims}d"
    require_tensors(name, input=input, weight=weight)
    require_optional(name, bias=bias)
    if weight._data.ndim != dims + 2:
        raise ShapeError(f"{name}: expected a weight of {dims + 2} dimensions, got shape {tuple(weight.shape)}.")
    x, added = batched(name, input, dims)
    _require_number(name, x._data)
    if input.dtype != weight.dtype:
        from ..amp.casting import lowered

        x, weight = lowered(x), lowered(weight)  # within autocast, one dtype
        bias = lowered(bias)
    require_same_dtype(name, x._data, weight=weight._data, bias=None if bias is None else bias._data)
    steps = per_axis(name, "stride", stride, dims, 1)
    pads = per_axis(name, "padding", padding, dims, 0)
    spread = per_axis(name, "dilation", dilation, dims, 1)
    extra = per_axis(name, "output_padding", output_padding, dims, 0)
    groups = integer(name, "groups", groups)
    if groups < 1 or x._data.shape[1] % groups:
        raise ShapeError(f"{name}: the input's {x.shape[1]} channels can't be split in {groups} groups.")
    if x.shape[1] != weight.shape[0]:
        raise ShapeError(
            f"{name}: input has {x.shape[1]} channels, weight {tuple(weight.shape)} expects {weight.shape[0]}."
        )
    if 0 in weight.shape[2:]:
        raise ShapeError(f"{name}: the kernel's sizes must be positive, the weight has shape {tuple(weight.shape)}.")
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread, strict=True)):
        raise ArgumentError(f"{name}: output_padding {extra} must be smaller than stride {steps} or dilation {spread}.")
    kernel = weight.shape[2:]
    sizes = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], steps, pads, spread, kernel, extra, strict=True)
    )
    if min(sizes) < 1:
        raise ShapeError(f"{name}: the output would have sizes {sizes}; input {tuple(x.shape)} is too small.")
    channels = weight.shape[1] * groups
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(f"{name}: bias has shape {tuple(bias.shape)}, expected ({channels},).")
    # A convolution of stride s maps inputs that are up to s - 1 longer to one size, and no longer ones. Where dilation
    # lets the output be longer than that, it is cut from the whole transposed convolution, with zeros behind it.
    cut = any(e >= s for e, s in zip(extra, steps, strict=True))
    inner = sizes
    if cut:
        inner = tuple(size - e + 2 * p for size, e, p in zip(sizes, extra, pads, strict=True))
    y: Any = conv_input_grad(
        x, weight, input_shape=(x.shape[0], channels, *inner), stride=steps, padding=(0,) * dims if cut else pads,
        dilation=spread, groups=groups,
    )  # fmt: skip
    if cut:
        y = pad(y, [end for p, e in zip(reversed(pads), reversed(extra), strict=True) for end in (-p, e - p)])
    if bias is not None:
        y = recorded.add(y, shaped(bias, (channels, *(1,) * dims)))
    return unbatched(y, added)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution along one axis; see ``conv_transpose2d``."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of ``conv2d`` as a linear map: its gradient in the input, used forwards.

    Args:
        input: (n, c, h, w) or (c, h, w).
        weight: (c, o / groups, kh, kw).
        bias: (o,) or None.
        output_padding: rows and columns added behind the output, to choose among the sizes that a strided
            convolution maps to the input's.
    Returns: (n, o, oh, ow) with ``oh = (h - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``.
    Raises: ShapeError if sizes or channels do not fit; DTypeError for bool or unequal dtypes.
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution of volumes; see ``conv_transpose2d``."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
