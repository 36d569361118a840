"""Window functions with the names and arguments of ``torch.signal.windows``.

``sym`` windows (the default) are symmetric, for filters; the others are the first M of M + 1 symmetric points, so that
copies join: for spectra. All are computed in float64 on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..dtypes import as_dtype, get_default_dtype
from ..errors import ArgumentError
from ..ops.checks import integer, real
from ..tensor import Tensor

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
    "kaiser", "nuttall",
]  # fmt: skip


def _window(name: str, M: int, sym: bool, shape: Callable[[Any, int], Any], options: dict[str, Any]) -> Tensor:
    """``shape`` of the points 0 to M - 1 and the number of points of the symmetric window."""
    from ..ops.create import tensor

    M = integer(name, "M", M)
    if M >= 2**60:
        raise ArgumentError(f"{name}: a window of M={M} points is more than can be addressed.")
    if M < 0:
        raise ArgumentError(f"{name}: requires non-negative window length, got M={M}.")
    dtype = options.pop("dtype", None)
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    if wanted.name not in ("float32", "float64"):
        raise ArgumentError(f"{name}: expects float32 or float64 dtypes, got: {wanted}.")
    layout = options.pop("layout", None)
    if layout is not None and "strided" not in str(layout):
        raise ArgumentError(f"{name}: is implemented for strided tensors only, got: {layout}.")
    device, requires_grad = options.pop("device", None), options.pop("requires_grad", False)
    if options:
        raise TypeError(f"{name}() got an unexpected keyword argument {next(iter(options))!r}")
    points = M if sym or M <= 1 else M + 1
    values = shape(np.arange(M, dtype=np.float64), points) if M else np.zeros(0)
    return tensor(values, dtype=wanted, device=device, requires_grad=bool(requires_grad))


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, **options: Any) -> Tensor:
    """``sum_i (-1)^i a_i cos(2 pi i k / N)``, with N one less than the symmetric window's points.

    Args:
        M: the number of points.
        a: the coefficients.
        options: ``dtype`` (float32 or float64), ``layout``, ``device``, ``requires_grad``.
    Raises: ArgumentError (a ValueError) for a negative M, no coefficients, or another dtype.
    """
    return _cosines("general_cosine", M, a, sym, options)


def _cosines(name: str, M: int, a: Any, sym: bool, options: dict[str, Any]) -> Tensor:
    if not isinstance(a, Iterable):
        raise TypeError(f"{name}: coefficients must be a list or tuple, got {type(a).__name__}.")
    factors = [real(name, "each coefficient", one) for one in a]
    if not factors:
        raise ArgumentError(f"{name}: coefficients cannot be empty.")

    def shape(k: Any, points: int) -> Any:
        turn = 2.0 * np.pi * k / max(points - 1, 1)
        if points == 1:
            return np.ones(1)
        return sum((-1) ** i * factor * np.cos(i * turn) for i, factor in enumerate(factors))

    return _window(name, M, sym, shape, options)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, **options: Any) -> Tensor:
    """``alpha - (1 - alpha) cos(2 pi k / N)``; otherwise as ``general_cosine``."""
    alpha = real("general_hamming", "alpha", alpha)
    return _cosines("general_hamming", M, (alpha, 1.0 - alpha), sym, options)


def hamming(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """``0.54 - 0.46 cos(2 pi k / N)``; otherwise as ``general_cosine``."""
    return _cosines("hamming", M, (0.54, 0.46), sym, options)


def hann(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """``0.5 - 0.5 cos(2 pi k / N)``; otherwise as ``general_cosine``."""
    return _cosines("hann", M, (0.5, 0.5), sym, options)


def blackman(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """``0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)``; otherwise as ``general_cosine``."""
    return _cosines("blackman", M, (0.42, 0.5, 0.08), sym, options)


def nuttall(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """The minimum 4-term window; otherwise as ``general_cosine``. Source: Nuttall 1981."""
    return _cosines("nuttall", M, (0.3635819, 0.4891775, 0.1365995, 0.0106411), sym, options)


def bartlett(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """A triangle, ``1 - |2 k / N - 1|``; otherwise as ``general_cosine``."""
    return _window("bartlett", M, sym, lambda k, n: np.ones(1) if n == 1 else 1 - abs(2 * k / (n - 1) - 1), options)


def cosine(M: int, *, sym: bool = True, **options: Any) -> Tensor:
    """``sin(pi (k + 1/2) / n)`` of n symmetric points; otherwise as ``general_cosine``."""
    return _window("cosine", M, sym, lambda k, n: np.sin(np.pi * (k + 0.5) / n), options)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, **options: Any) -> Tensor:
    """``exp(-|k - center| / tau)``, the center in the middle by default; otherwise as ``general_cosine``.

    Raises: ArgumentError if tau is not positive, or a center is given for a symmetric window.
    """
    tau = real("exponential", "tau", tau)
    if tau <= 0:
        raise ArgumentError(f"exponential: tau must be positive, got {tau}.")
    if sym and center is not None:
        raise ArgumentError("exponential: center must be None for symmetric windows.")

    def shape(k: Any, points: int) -> Any:
        return np.exp(-abs(k - ((points - 1) / 2 if center is None else center)) / tau)

    return _window("exponential", M, sym, shape, options)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, **options: Any) -> Tensor:
    """``exp(-(k - center)^2 / (2 std^2))``; otherwise as ``general_cosine``.

    Raises: ArgumentError if ``std`` is not positive.
    """
    std = real("gaussian", "std", std)
    if std <= 0:
        raise ArgumentError(f"gaussian: standard deviation must be positive, got {std}.")
    return _window("gaussian", M, sym, lambda k, n: np.exp(-(((k - (n - 1) / 2) / std) ** 2) / 2), options)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, **options: Any) -> Tensor:
    """``I0(beta sqrt(1 - (2 k / N - 1)^2)) / I0(beta)`` with the Bessel function I0; otherwise as ``general_cosine``.

    Raises: ArgumentError for a negative ``beta``.
    """
    beta = real("kaiser", "beta", beta)
    if beta < 0:
        raise ArgumentError(f"kaiser: beta must be non-negative, got {beta}.")

    def shape(k: Any, points: int) -> Any:
        at = 2 * k / max(points - 1, 1) - 1
        return np.ones(1) if points == 1 else np.i0(beta * np.sqrt(np.maximum(1 - at * at, 0))) / np.i0(beta)

    return _window("kaiser", M, sym, shape, options)
