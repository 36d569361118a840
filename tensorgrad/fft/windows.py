"""Window functions, computed in float64 on the host.

``periodic`` windows leave the last of n + 1 symmetric points away, so that their copies join: what a spectrum needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import as_dtype, get_default_dtype
from ..errors import DTypeError, ShapeError
from ..ops.checks import integer
from ..tensor import Tensor

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def _window(
    name: str, length: int, periodic: bool, shape: Callable[[Any], Any], dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    """``shape`` of the points from -1 to 1."""
    from ..ops.create import tensor

    length = integer(name, "window_length", length)
    if length < 0:
        raise ShapeError(f"{name} requires non-negative window_length, got window_length={length}.")
    wanted = as_dtype(dtype) if dtype is not None else get_default_dtype()
    if wanted.category != 2:
        raise DTypeError(f"{name} expects floating point dtypes, got: {wanted}.")
    if length <= 1:
        values = np.ones(length)
    else:
        last = length if periodic else length - 1
        values = shape(2.0 * np.arange(length) / last - 1.0)
    return tensor(values, dtype=wanted, device=device, requires_grad=requires_grad)


def _cosines(*factors: float) -> Callable[[Any], Any]:
    def shape(at: Any) -> Any:
        turn = np.pi * (at + 1.0)
        return sum(factor * np.cos(k * turn) for k, factor in enumerate(factors))

    return shape


def hann_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``0.5 - 0.5 cos(2 pi k / N)``, N the length (one less if not ``periodic``).

    Raises: ShapeError for a negative length; DTypeError for dtypes that are not floating point.
    """
    shape = _cosines(0.5, -0.5)
    return _window("hann_window", window_length, periodic, shape, dtype, device, requires_grad)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None,
    layout: Any = None, device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``alpha - beta cos(2 pi k / N)``; otherwise as ``hann_window``."""
    shape = _cosines(alpha, -beta)
    return _window("hamming_window", window_length, periodic, shape, dtype, device, requires_grad)


def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)``; otherwise as ``hann_window``."""

    def shape(at: Any) -> Any:
        return np.abs(_cosines(0.42, -0.5, 0.08)(at))  # its ends are 0, and not rounding errors of either sign

    return _window("blackman_window", window_length, periodic, shape, dtype, device, requires_grad)


def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, layout: Any = None, device: Any = None,
    pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A triangle, ``1 - |2 k / N - 1|``; otherwise as ``hann_window``."""

    def shape(at: Any) -> Any:
        return 1.0 - np.abs(at)

    return _window("bartlett_window", window_length, periodic, shape, dtype, device, requires_grad)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, layout: Any = None,
    device: Any = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``I0(beta sqrt(1 - (2 k / N - 1)^2)) / I0(beta)`` with the Bessel function I0; otherwise as ``hann_window``."""

    def shape(at: Any) -> Any:
        return np.i0(beta * np.sqrt(np.maximum(1.0 - at * at, 0.0))) / np.i0(beta)

    return _window("kaiser_window", window_length, periodic, shape, dtype, device, requires_grad)
