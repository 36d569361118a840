"""The handwritten digits that come with scikit-learn: a fixed split, and small shifts and rotations of the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.errors import require_extra

__all__ = ["augmented", "load"]

_MEAN, _SPREAD = 0.305, 0.376  # of the pixels, which are scaled to [0, 1]
_BORDER = 2  # background pixels added around an image before it is moved

Split = tuple[Any, Any, Any, Any]


def load(digits: range = range(10)) -> Split:
    """(training images, labels, held-out images, labels) of these digits; labels count from the first digit.

    Of each digit every fifth image, in the order of the file, is held out: the same split everywhere, and the digits
    are as frequent in both parts. Images are float32 (n, 1, 8, 8), of mean about 0 and spread about 1.
    """
    source = require_extra("sklearn.datasets", "examples").load_digits()
    images = ((source.images[:, None] / 16.0 - _MEAN) / _SPREAD).astype(np.float32)
    labels = source.target.astype(np.int64)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        held_out[np.flatnonzero(labels == digit)[4::5]] = True
    wanted = (labels >= digits.start) & (labels < digits.stop)
    parts = []
    for chosen in (wanted & ~held_out, wanted & held_out):
        parts += [tg.tensor(images[chosen]), tg.tensor(labels[chosen] - digits.start)]
    return tuple(parts)  # type: ignore[return-value]


def augmented(images: Any, generator: tg.Generator, *, degrees: float = 12.0, pixels: float = 0.9) -> Any:
    """Each image (of (n, 1, h, w)) rotated and shifted at random, up to ``degrees`` and ``pixels``, bilinearly."""
    n, _, h, w = images.shape
    device = images.device
    draw = tg.rand(3, n, 1, generator=generator).to(device) * 2.0 - 1.0
    angle = draw[0] * math.radians(degrees)
    cos, sin = angle.cos(), angle.sin()
    rows = tg.arange(h, dtype=tg.float32, device=device).reshape(h, 1).expand(h, w).reshape(1, h * w) - (h - 1) / 2
    columns = tg.arange(w, dtype=tg.float32, device=device).reshape(1, w).expand(h, w).reshape(1, h * w) - (w - 1) / 2
    y = cos * rows - sin * columns + draw[1] * pixels + ((h - 1) / 2 + _BORDER)
    x = sin * rows + cos * columns + draw[2] * pixels + ((w - 1) / 2 + _BORDER)
    tall, wide = h + 2 * _BORDER, w + 2 * _BORDER
    y, x = y.clamp(0.0, tall - 1.001), x.clamp(0.0, wide - 1.001)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    background = -_MEAN / _SPREAD
    padded = tg.nn.functional.pad(images, (_BORDER,) * 4, value=background).reshape(n, tall * wide)
    corner = (top * wide + left).long()
    above = padded.gather(1, corner) * (1 - right) + padded.gather(1, corner + 1) * right
    below = padded.gather(1, corner + wide) * (1 - right) + padded.gather(1, corner + wide + 1) * right
    return (above * (1 - down) + below * down).reshape(n, 1, h, w)
