"""Dropout layers: they act in training only."""

from __future__ import annotations

from typing import Any

from ..ops.checks import number
from ..tensor import Tensor
from . import functional as F
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    function: Any

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= number(type(self).__name__, "p", p) <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeroes each element with probability ``p`` and divides the others by ``1 - p``.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014.
    """

    function = F.dropout


class Dropout1d(_Dropout):
    """Zeroes whole channels of (n, c, length)."""

    function = F.dropout1d


class Dropout2d(_Dropout):
    """Zeroes whole channels of (n, c, h, w). Source: Tompson, Goroshin, Jain, LeCun, Bregler 2015."""

    function = F.dropout2d


class Dropout3d(_Dropout):
    """Zeroes whole channels of (n, c, d, h, w)."""

    function = F.dropout3d


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1 behind SELU. Source: Klambauer et al. 2017."""

    function = F.alpha_dropout


class FeatureAlphaDropout(_Dropout):
    """``AlphaDropout`` of whole channels."""

    function = F.feature_alpha_dropout
