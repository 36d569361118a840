"""Sliding windows as columns (``unfold``), and columns added up where they lie (``fold``): each other's transpose."""

from __future__ import annotations

from typing import Any

from ..backends.generic.conv import conv_outputs
from ..errors import ShapeError
from ..tensor import Tensor
from .calls import calls
from .checks import product, require_tensors, shaped
from .conv import batched, per_axis, unbatched
from .record import Spec, op
from .samples import Arg, Sample

__all__: list[str] = []  # users know them as functions of nn.functional


def _unfold_infer(x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Spec:
    outputs = conv_outputs(x.shape[2:], kernel, stride, padding, dilation)
    if min(outputs) < 1:
        raise ShapeError(
            f"unfold: a window of {kernel} with dilation {dilation} is larger than the input {tuple(x.shape[2:])} with "
            f"padding {padding}."
        )
    return Spec((x.shape[0], x.shape[1] * product(kernel), product(outputs)), x.dtype)


def _windows(**changed: Any) -> dict[str, Any]:
    return {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)} | changed


unfold_windows = op(
    "unfold_windows",
    infer=_unfold_infer,
    rule=lambda F, g, x, *, needs, **how: (F.fold_windows(g, sizes=tuple(x.shape[2:]), **how),),
    samples=lambda: [
        Sample((Arg((2, 3, 4, 5)),), _windows(stride=(2, 1), padding=(1, 0)), name="image"),
        Sample((Arg((1, 2, 5, 5), layout="T"),), _windows(kernel=(3, 2), dilation=(2, 3)), name="dilated"),
        Sample((Arg((0, 2, 3, 3)),), _windows(), name="no samples"),
    ],
    checked=True,
    doc="(n, c, h, w) as columns: what each window reads, (n, c * taps, windows).",
)


def _fold_infer(x: Any, *, sizes: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Spec:
    taps = product(kernel)
    outputs = conv_outputs(sizes, kernel, stride, padding, dilation)
    if x.shape[1] % taps:
        raise ShapeError(f"fold: the columns' {x.shape[1]} rows are not a multiple of the {taps} taps of {kernel}.")
    if min(outputs) < 1 or product(outputs) != x.shape[2]:
        raise ShapeError(
            f"fold: an output of {tuple(sizes)} has {outputs} windows of {kernel} with stride {stride}, padding "
            f"{padding} and dilation {dilation}; got columns for {x.shape[2]}."
        )
    return Spec((x.shape[0], x.shape[1] // taps, *sizes), x.dtype)


fold_windows = op(
    "fold_windows",
    infer=_fold_infer,
    rule=lambda F, g, x, *, needs, sizes, **how: (F.unfold_windows(g, **how),),
    samples=lambda: [
        Sample((Arg((2, 12, 10)),), _windows(sizes=(5, 6), stride=(4, 1), padding=(1, 0)), name="image"),
        Sample((Arg((1, 4, 9), layout="T"),), _windows(sizes=(4, 4)), name="overlapping"),
    ],
    checked=True,
    doc="Columns (n, c * taps, windows) added up at the places of (n, c, *sizes) they were read from.",
)


def _how(name: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> dict[str, Any]:
    return {
        "kernel": per_axis(name, "kernel_size", kernel_size, 2, 1),
        "stride": per_axis(name, "stride", stride, 2, 1),
        "padding": per_axis(name, "padding", padding, 2, 0),
        "dilation": per_axis(name, "dilation", dilation, 2, 1),
    }


@calls(unfold_windows, "x pair:kernel pair pair pair")
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The elements under each sliding window as a column (im2col).

    Args:
        input: (n, c, h, w) or (c, h, w).
        kernel_size, dilation, padding, stride: a number, or one per axis.
    Returns: (n, c * kernel_h * kernel_w, windows), without n for a single image.
    Raises: ShapeError if no window fits; ArgumentError for sizes that have no meaning.
    Example:
        >>> import tensorgrad as tg
        >>> tg.nn.functional.unfold(tg.ones(1, 3, 4, 4), 2).shape
        torch.Size([1, 12, 9])
    """
    require_tensors("unfold", input=input)
    how = _how("unfold", kernel_size, dilation, padding, stride)
    x, added = batched("unfold", input, 2)
    if min(x.shape[1:]) < 1:
        raise ShapeError(f"unfold: only the batch may be empty, got shape {tuple(input.shape)}.")
    return unbatched(unfold_windows(x, **how), added)


@calls(fold_windows, "x pair:sizes pair:kernel pair pair pair")
def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns of windows added up where ``unfold`` would have read them (col2im).

    Args:
        input: (n, c * kernel_h * kernel_w, windows), or without n.
        output_size: (h, w), or a number for both.
        kernel_size, dilation, padding, stride: as given to ``unfold``.
    Returns: (n, c, h, w). ``fold(unfold(x))`` is ``x`` times the number of windows over each element.
    Raises: ShapeError if the columns do not fit the output; ArgumentError for sizes that have no meaning.
    """
    require_tensors("fold", input=input)
    how = _how("fold", kernel_size, dilation, padding, stride)
    sizes = per_axis("fold", "output_size", output_size, 2, 1)
    if input._data.ndim not in (2, 3):
        raise ShapeError(f"fold: expected (n, c * taps, windows) or (c * taps, windows), got {tuple(input.shape)}.")
    added = input._data.ndim == 2
    x = shaped(input, (1, *input.shape)) if added else input
    if min(x.shape[1:]) < 1:
        raise ShapeError(f"fold: only the batch may be empty, got shape {tuple(input.shape)}.")
    return unbatched(fold_windows(x, sizes=sizes, **how), added)
