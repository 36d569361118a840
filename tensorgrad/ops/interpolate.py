"""Resizing images and volumes: nearest, linear, cubic and area interpolation."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..backends.generic.resize import scaled_size
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor
from .checks import integer, is_float, real, require_tensors
from .pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from .record import Spec, op
from .samples import Arg, Sample

__all__: list[str] = []  # users know them as functions of nn.functional


def _infer(x: Any, *, sizes: Any, mode: str, scales: Any, align_corners: bool, antialias: bool) -> Spec:
    if not (is_float(x.dtype) or x.dtype.name == "uint8"):
        raise DTypeError(f"interpolate: expected floating point or uint8, got {x.dtype.name}. Convert with .float().")
    return Spec((*x.shape[:2], *sizes), x.dtype)


def _how(mode: str, sizes: Any, **changed: Any) -> dict[str, Any]:
    how = {"mode": mode, "sizes": sizes, "scales": (None,) * len(sizes), "align_corners": False, "antialias": False}
    return how | changed


def _samples() -> list[Sample]:
    image = Arg((2, 3, 4, 5))
    return [
        Sample((Arg((2, 3, 7)),), _how("nearest", (4,)), name="nearest"),
        Sample((image,), _how("nearest-exact", (7, 3)), name="nearest-exact"),
        Sample((Arg((2, 3, 4), layout="T"),), _how("linear", (7,), align_corners=True), name="linear"),
        Sample((image,), _how("linear", (9, 3), scales=(2.3, None)), name="bilinear"),
        Sample((Arg((1, 2, 3, 2, 3)),), _how("linear", (2, 4, 3)), name="trilinear"),
        Sample((image,), _how("cubic", (7, 3)), name="bicubic"),
        Sample((image,), _how("linear", (2, 8), antialias=True), name="antialiased"),
        Sample((image,), _how("cubic", (2, 3), antialias=True), name="antialiased cubic"),
        Sample((Arg((0, 3, 4)),), _how("linear", (7,)), name="no samples"),
    ]


resize = op(
    "resize",
    infer=_infer,
    rule=lambda F, g, x, *, needs, sizes, **how: (F.resize_backward(g, sizes=tuple(x.shape[2:]), **how),),
    samples=_samples,
    doc="The axes behind the channels interpolated to ``sizes``, one after the other.",
)
resize_backward = op(
    "resize_backward",
    infer=lambda g, *, sizes, mode, scales, align_corners, antialias: Spec((*g.shape[:2], *sizes), g.dtype),
    rule=lambda F, h, g, *, needs, sizes, **how: (F.resize(h, sizes=tuple(g.shape[2:]), **how),),
    samples=lambda: [
        Sample((Arg((2, 3, 9, 3)),), _how("linear", (4, 5)), name="bilinear"),
        Sample((Arg((2, 3, 3, 9)),), _how("cubic", (4, 5)), name="bicubic"),
        Sample((Arg((2, 3, 2, 8)),), _how("nearest", (4, 5)), name="nearest"),
    ],
    doc="The transpose of ``resize``: every output's gradient shared out among the inputs it was made of.",
)

_DIMS = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,), "bilinear": (2,),
         "trilinear": (3,), "bicubic": (2,)}  # fmt: skip
_AREA = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


@lru_cache(maxsize=256, typed=True)
def _planned(
    shape: tuple[int, ...], size: Any, scale_factor: Any, mode: str, align_corners: Any, recompute: Any, antialias: Any
) -> tuple[str, tuple[int, ...], tuple[Any, ...]]:
    """(mode of the record, sizes, scales) for an input of this shape; raises what ``interpolate`` raises."""
    dims = len(shape) - 2
    if mode not in _DIMS:
        raise NotImplementedError(f"interpolate: mode must be one of {', '.join(_DIMS)}; got {mode!r}.")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(f"interpolate: align_corners has no meaning for mode {mode!r}; leave it None.")
    if dims not in _DIMS[mode]:
        wanted = " or ".join(str(d + 2) for d in _DIMS[mode])
        raise NotImplementedError(f"interpolate: mode {mode!r} needs {wanted} dimensions, got shape {shape}.")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias is for modes 'bilinear' and 'bicubic', not {mode!r}.")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: either size or scale_factor should be defined, and not both.")
    scales: list[Any] = [None] * dims
    if size is not None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor is not meaningful with an explicit size.")
        sizes = _per_axis("size", size, dims)
    else:
        factors = [real("interpolate", "scale_factor", s) for s in _per_axis("scale_factor", scale_factor, dims)]
        sizes = [scaled_size(n, s) for n, s in zip(shape[2:], factors, strict=True)]
        if not recompute:
            scales = list(factors)
    if min(shape[1:]) < 1 or min(sizes) < 1:
        raise ArgumentError(
            f"interpolate: input and output sizes should be greater than 0, got {shape} to {tuple(sizes)}."
        )
    kind_of = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return kind_of, tuple(sizes), tuple(scales)


def _per_axis(label: str, given: Any, dims: int) -> list[Any]:
    if not isinstance(given, (tuple, list)):
        return [given] * dims
    if len(given) != dims:
        raise ShapeError(f"interpolate: {label} has {len(given)} numbers, the input {dims} spatial dimensions.")
    return list(given)


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """The input resized to a size, or by a factor.

    Args:
        input: (n, c, w), (n, c, h, w) or (n, c, d, h, w).
        size: of the output: a number, or one per spatial dimension. Give this or ``scale_factor``.
        scale_factor: a factor, or one per spatial dimension; sizes are rounded down.
        mode: "nearest", "nearest-exact", "area" for any; "linear" for 3, "bilinear" and "bicubic" for 4, "trilinear"
            for 5 dimensions.
        align_corners: the centres of the corners of input and output coincide, not their outer edges; for the linear
            modes and "bicubic".
        recompute_scale_factor: the factor becomes what the rounded sizes say, where it was given.
        antialias: smooth before shrinking; for "bilinear" and "bicubic".
    Returns: of the input's dtype; uint8 is rounded.
    Raises: ValueError for arguments that exclude each other; NotImplementedError for a mode that has no meaning for the
        input's dimensions; DTypeError for integers other than uint8.
    Example:
        >>> import tensorgrad as tg
        >>> tg.nn.functional.interpolate(tg.tensor([[[1.0, 2.0]]]), scale_factor=2).tolist()
        [[[1.0, 1.0, 2.0, 2.0]]]
    Source: cubic kernels by Keys 1981, with a = -0.75 (-0.5 with ``antialias``).
    """
    require_tensors("interpolate", input=input)
    if not isinstance(mode, str):
        raise NotImplementedError(f"interpolate: mode must be a word, got {mode!r}.")
    if size is not None:
        several = isinstance(size, (tuple, list))
        size = (
            tuple([integer("interpolate", "size", s) for s in size])
            if several
            else integer("interpolate", "size", size)
        )
    if isinstance(scale_factor, list):
        scale_factor = tuple(scale_factor)
    kind, sizes, scales = _planned(
        tuple(input._data.shape), size, scale_factor, mode, align_corners, recompute_scale_factor, antialias
    )
    if kind == "area":
        return _AREA[len(sizes)](input, sizes)
    return resize(
        input, sizes=sizes, mode=kind, scales=scales, align_corners=bool(align_corners), antialias=bool(antialias)
    )


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """``interpolate`` under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="nearest")`` under its old name."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="bilinear", align_corners=True)`` under its old name."""
    return interpolate(input, size, scale_factor, "bilinear", True)
