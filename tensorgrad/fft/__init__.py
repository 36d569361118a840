"""Discrete Fourier transforms, with the names and semantics of ``torch.fft``.

Example:
    >>> import tensorgrad as tg
    >>> x = tg.tensor([1.0, 2.0, 3.0, 4.0])
    >>> tg.fft.irfft(tg.fft.rfft(x)).tolist()
    [1.0, 2.0, 3.0, 4.0]
"""

from __future__ import annotations

from .functions import *  # noqa: F403
