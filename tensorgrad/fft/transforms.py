"""The three discrete Fourier transforms that all others are made of: complex, real to half of one, and back.

``norm`` says where the factor 1/n is: ``"backward"`` on inverse transforms, ``"forward"`` on the others, ``"ortho"``
its root on both. The adjoint of a transform is the opposite one with the factor on the other side.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import numpy_dtype
from ..ops.record import Spec, op
from ..ops.samples import Arg, Sample

SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}
_COMPLEX = {"float32": "complex64", "float64": "complex128"}
_REAL = {"complex64": "float32", "complex128": "float64"}


def _c2c_kernel(xp: Any, x: Any, *, dims: tuple[int, ...], inverse: bool, norm: str) -> Any:
    if not dims or x.size == 0:
        return x.copy()
    transform = xp.fft.ifftn if inverse else xp.fft.fftn
    return transform(x, axes=dims, norm=norm).astype(x.dtype, copy=False)


def _c2c_rule(
    F: Any, g: Any, x: Any, *, needs: Any, dims: tuple[int, ...], inverse: bool, norm: str
) -> tuple[Any, ...]:
    return (F.fft_c2c(g, dims=dims, inverse=not inverse, norm=SWAPPED[norm]),)


fft_c2c = op(
    "fft_c2c",
    infer=lambda x, *, dims, inverse, norm: Spec(tuple(x.shape), x.dtype),
    rule=_c2c_rule,
    kernel=_c2c_kernel,
    samples=lambda: [
        Sample((Arg((5,), kind="c"),), {"dims": (0,), "inverse": False, "norm": "backward"}, name="vector"),
        Sample((Arg((4, 3), kind="c"),), {"dims": (0,), "inverse": True, "norm": "ortho"}, name="columns"),
        Sample((Arg((2, 3, 4), kind="c"),), {"dims": (2, 0), "inverse": False, "norm": "forward"}, name="two"),
        Sample((Arg((3, 4), kind="c", layout="T"),), {"dims": (0, 1), "inverse": True, "norm": "backward"}, name="T"),
    ],
    doc="The discrete Fourier transform of complex numbers over ``dims``, or its inverse.",
)


def _r2c_kernel(xp: Any, x: Any, *, dim: int, norm: str) -> Any:
    y = xp.fft.rfft(x, axis=dim, norm=norm)
    return y.astype(numpy_dtype(_COMPLEX[x.dtype.name]), copy=False)


def _half(shape: Any, dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _mirrored(F: Any, half: Any, dim: int, size: int, factor: float) -> Any:
    """Half a transform of ``size`` values, with the factor on those that stand for their mirror image too."""
    count = size - (size // 2 + 1)
    if count == 0:
        return half

    def stretch(start: int, stop: int) -> Any:
        return F.slice(half, key=(*(slice(0, s, 1) for s in half.shape[:dim]), slice(start, stop, 1)))

    parts = [stretch(0, 1), F.mul(stretch(1, count + 1), factor)]
    if count + 1 < half.shape[dim]:
        parts.append(stretch(count + 1, half.shape[dim]))
    return F.cat(*parts, dim=dim)


def _r2c_rule(F: Any, g: Any, x: Any, *, needs: Any, dim: int, norm: str) -> tuple[Any, ...]:
    """The real part of the opposite transform of ``g`` and zeros: what ``fft_c2r`` makes of it, which counts twice."""
    n = x.shape[dim]
    return (F.fft_c2r(_mirrored(F, g, dim, n, 0.5), dim=dim, size=n, norm=SWAPPED[norm]),)


fft_r2c = op(
    "fft_r2c",
    infer=lambda x, *, dim, norm: Spec(
        _half(tuple(x.shape), dim, x.shape[dim] // 2 + 1), numpy_dtype(_COMPLEX[x.dtype.name])
    ),
    rule=_r2c_rule,
    kernel=_r2c_kernel,
    samples=lambda: [
        Sample((Arg((5,), kind="s"),), {"dim": 0, "norm": "backward"}, name="odd"),
        Sample((Arg((2, 6), kind="s"),), {"dim": 1, "norm": "ortho"}, name="even"),
        Sample((Arg((4, 3), kind="s", layout="T"),), {"dim": 0, "norm": "forward"}, name="columns"),
    ],
    doc="The transform of real numbers along ``dim``: the n // 2 + 1 values that the others mirror.",
)


def _c2r_kernel(xp: Any, x: Any, *, dim: int, size: int, norm: str) -> Any:
    y = xp.fft.irfft(x, size, axis=dim, norm=norm)
    return y.astype(numpy_dtype(_REAL[x.dtype.name]), copy=False)


def _c2r_rule(F: Any, g: Any, x: Any, *, needs: Any, dim: int, size: int, norm: str) -> tuple[Any, ...]:
    """Values that stand for their mirror image too count twice."""
    return (_mirrored(F, F.fft_r2c(g, dim=dim, norm=SWAPPED[norm]), dim, size, 2.0),)


fft_c2r = op(
    "fft_c2r",
    infer=lambda x, *, dim, size, norm: Spec(_half(tuple(x.shape), dim, size), numpy_dtype(_REAL[x.dtype.name])),
    rule=_c2r_rule,
    kernel=_c2r_kernel,
    samples=lambda: [
        Sample((Arg((3,), kind="c"),), {"dim": 0, "size": 5, "norm": "backward"}, name="odd"),
        Sample((Arg((2, 4), kind="c"),), {"dim": 1, "size": 6, "norm": "ortho"}, name="even"),
        Sample((Arg((1, 3), kind="c"),), {"dim": 0, "size": 1, "norm": "forward"}, name="one"),
    ],
    doc="``size`` real numbers from the half of their transform that ``fft_r2c`` gives.",
)
