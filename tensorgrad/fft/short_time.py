"""The short-time Fourier transform and its inverse."""

from __future__ import annotations

import warnings
from typing import Any

from ..dispatch import recorded
from ..errors import DTypeError, ShapeError
from ..ops import pointwise as pw
from ..ops.checks import integer, require_optional, shaped
from ..tensor import Tensor
from .transforms import fft_c2c, fft_c2r, fft_r2c

__all__ = ["istft", "stft"]


def _ones(n: int, like: Tensor) -> Tensor:
    from ..ops.create import ones

    real = {"complex64": "float32", "complex128": "float64"}.get(like.dtype.name, like.dtype.name)
    return ones(n, dtype=real, device=like.device)


def _window_of(name: str, window: Any, win_length: int, n_fft: int, like: Tensor) -> Tensor:
    """The window in the middle of ``n_fft`` points."""
    if window is None:
        window = _ones(win_length, like)
    elif window._data.ndim != 1 or window.shape[0] != win_length:
        raise ShapeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, but got window with size "
            f"{tuple(window.shape)}."
        )
    if win_length == n_fft:
        return window
    before = (n_fft - win_length) // 2
    return recorded.pad(window, pads=((before, n_fft - win_length - before),), mode="constant", value=0.0)


def _lengths(name: str, n_fft: int, hop_length: Any, win_length: Any) -> tuple[int, int]:
    hop = n_fft // 4 if hop_length is None else integer(name, "hop_length", hop_length)
    win = n_fft if win_length is None else integer(name, "win_length", win_length)
    if hop <= 0:
        raise ShapeError(f"{name}: expected hop_length > 0, but got hop_length={hop}.")
    if not 0 < win <= n_fft:
        raise ShapeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={win}, n_fft={n_fft}.")
    return hop, win


def stft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect", normalized: bool = False,
    onesided: bool | None = None, return_complex: bool | None = None, align_to_window: bool | None = None,
) -> Tensor:  # fmt: skip
    """Transforms of windowed frames: (..., frequencies, frames), complex.

    Args:
        input: (time,) or (batch, time), real or complex.
        n_fft: points per transform.
        hop_length: points from one frame to the next, ``n_fft // 4`` by default.
        win_length, window: the window, ones by default, in the middle of each frame.
        center: pad the input by ``n_fft // 2`` on both sides in ``pad_mode``, so that frame t is around t * hop_length.
        normalized: divide by the root of ``n_fft``.
        onesided: the first n_fft // 2 + 1 frequencies alone; by default where input and window are real.
        return_complex: False gives real and imaginary parts in a last dimension instead; must be said for real input.
        align_to_window: not ``center`` only: frames are as long as the window, and padded afterwards.
    Raises: ShapeError or DTypeError if the arguments do not fit.
    """
    name = "stft"
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(input).__name__}.")
    if input.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise DTypeError(f"{name}: expected a tensor of float32, float64 or complex numbers, got {input.dtype}.")
    require_optional(name, window=window)
    n_fft = integer(name, "n_fft", n_fft)
    if input._data.ndim not in (1, 2):
        raise ShapeError(f"{name}: expected a tensor with 1 or 2 dimensions, got shape {tuple(input.shape)}.")
    if center and align_to_window is not None:
        raise ShapeError(f"{name}: align_to_window should only be set when center = False.")
    complex_in = input.dtype.is_complex or (window is not None and window.dtype.is_complex)
    if return_complex is None:
        if not complex_in:
            raise ShapeError(f"{name} requires the return_complex parameter be given for real inputs; use True.")
        return_complex = True
    hop, win = _lengths(name, n_fft, hop_length, win_length)
    if onesided is None:
        onesided = not complex_in
    if onesided and complex_in:
        raise ShapeError(f"{name}: Cannot have onesided output if window or input is complex.")
    x = shaped(input, (1, *input.shape)) if input._data.ndim == 1 else input
    if center:
        half = n_fft // 2
        if pad_mode not in ("constant", "reflect", "replicate", "circular"):
            raise ShapeError(f"{name}: pad_mode must be constant, reflect, replicate or circular, got {pad_mode!r}.")
        if pad_mode == "reflect" and half >= x.shape[-1]:
            raise ShapeError(f"{name}: reflecting {half} points needs more than that; the input has {x.shape[-1]}.")
        if half:
            x = recorded.pad(x, pads=((0, 0), (half, half)), mode=pad_mode, value=0.0)
    size = x.shape[-1]
    if not 0 < n_fft <= size:
        raise ShapeError(f"{name}: expected 0 < n_fft <= {size}, but got n_fft={n_fft}.")
    if align_to_window:
        # as many frames as there are windows: the padding around the window reaches over the ends
        extra = n_fft - win
        x = recorded.pad(x, pads=((0, 0), (extra // 2, extra - extra // 2)), mode="constant", value=0.0)
    frames = recorded.unfold_dim(x, dim=1, size=n_fft, step=hop)
    if window is not None or win < n_fft:
        frames = pw.mul(frames, _window_of(name, window, win, n_fft, input))
    norm = "ortho" if normalized else "backward"
    if not complex_in:
        y = fft_r2c(frames, dim=2, norm=norm)
        if not onesided:
            whole = recorded.cast(frames, dtype=y._data.dtype)
            y = fft_c2c(whole, dims=(2,), inverse=False, norm=norm)
    else:
        if not frames.dtype.is_complex:
            frames = recorded.cast(frames, dtype=_complex(frames))
        y = fft_c2c(frames, dims=(2,), inverse=False, norm=norm)
    y = y.transpose(1, 2)
    if input._data.ndim == 1:
        y = y.squeeze(0)
    return y if return_complex else _as_real(y)


def _complex(x: Tensor) -> Any:
    from ..dtypes import numpy_dtype

    return numpy_dtype({"float32": "complex64", "float64": "complex128"}[x.dtype.name])


def _as_real(y: Tensor) -> Tensor:
    from ..ops.join import stack

    return stack([pw.real(y), pw.imag(y)], -1)


def istft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, normalized: bool = False, onesided: bool | None = None,
    length: int | None = None, return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """The signal whose ``stft`` is nearest to ``input``: frames overlapped, added, and divided by the windows' squares.

    Args:
        input: (frequencies, frames) or (batch, frequencies, frames), complex.
        length: of the signal; by default what the frames cover.
        return_complex: the signal is complex; needs all frequencies (``onesided=False``).
    Raises: ShapeError or DTypeError if the arguments do not fit, or the windows leave a point uncovered.
    Source: Griffin and Lim 1984.
    """
    name = "istft"
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(input).__name__}.")
    if not input.dtype.is_complex:
        raise DTypeError(f"{name} requires a complex-valued input tensor matching the output from stft.")
    if input._data.ndim not in (2, 3):
        raise ShapeError(f"{name}: expected a tensor with 2 or 3 dimensions, got shape {tuple(input.shape)}.")
    if input._data.size == 0:
        raise ShapeError(f"{name}: input tensor cannot be empty, got shape {tuple(input.shape)}.")
    n_fft = integer(name, "n_fft", n_fft)
    hop, win = _lengths(name, n_fft, hop_length, win_length)
    if hop > win:
        raise ShapeError(
            f"{name}: expected 0 < hop_length <= win_length, but got {hop} and {win}: points are left out."
        )
    x = shaped(input, (1, *input.shape)) if input._data.ndim == 2 else input
    size, count = x.shape[1], x.shape[2]
    if onesided is None:
        onesided = size != n_fft
    if onesided and n_fft // 2 + 1 != size:
        raise ShapeError(
            f"{name}: expected the frequency dimension to match n_fft / 2 + 1 = {n_fft // 2 + 1}, got {size}."
        )
    if not onesided and n_fft != size:
        raise ShapeError(f"{name}: expected the frequency dimension to match n_fft = {n_fft}, got {size}.")
    if return_complex and onesided:
        raise ShapeError(f"{name}: cannot have onesided input if the output is complex; pass onesided=False.")
    require_optional(name, window=window)
    if window is not None and window.dtype.is_complex and not return_complex:
        raise ShapeError(f"{name}: complex windows are incompatible with return_complex=False.")
    w = _window_of(name, window, win, n_fft, x)
    norm = "ortho" if normalized else "backward"
    x = x.transpose(1, 2)
    if return_complex:
        frames = fft_c2c(x, dims=(2,), inverse=True, norm=norm)
    else:
        half = (
            x
            if onesided
            else recorded.slice(x, key=(slice(0, x.shape[0], 1), slice(0, count, 1), slice(0, n_fft // 2 + 1, 1)))
        )
        frames = fft_c2r(half, dim=2, size=n_fft, norm=norm)
    total = n_fft + hop * (count - 1)
    y = recorded.unfold_dim_backward(pw.mul(frames, w), shape=(x.shape[0], total), dim=1, size=n_fft, step=hop)
    squares = pw.square(w) if not w.dtype.is_complex else pw.mul(w, w)
    envelope = recorded.unfold_dim_backward(squares.expand(count, n_fft), shape=(total,), dim=0, size=n_fft, step=hop)
    start = n_fft // 2 if center else 0
    end = total
    if length is not None:
        end = start + length
    elif center:
        end = total - n_fft // 2
    stop = min(end, total)
    y, envelope = y[:, start:stop], envelope[start:stop]
    if float(pw.abs(envelope).min()) <= 1e-11:
        raise ShapeError(
            f"{name}: window overlap add min: a point of the signal is covered by no window, or by zeros alone; choose "
            "another window or hop_length, or center=True."
        )
    y = pw.div(y, envelope)
    if end > total:
        warnings.warn(
            f"{name}: the length of the signal is shorter than the length parameter; it is filled up with zeros.",
            stacklevel=2,
        )
        y = recorded.pad(y, pads=((0, 0), (0, end - total)), mode="constant", value=0.0)
    return y.squeeze(0) if input._data.ndim == 2 else y
