"""The Fisher-Snedecor distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorgrad as tg

from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .gamma import _at_least
from .utils import batch_of, broadcast_all, tiny_of

__all__ = ["FisherSnedecor"]


class FisherSnedecor(Distribution):
    """The ratio of two chi-squared variables over their degrees of freedom, ``df1`` and ``df2``."""

    arg_constraints: ClassVar[dict[str, Any]] = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(batch_of(df1, df2, like=self.df1), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return tg.where(self.df2 > 2, self.df2 / tg.where(self.df2 > 2, self.df2 - 2, 1.0), math.nan)

    @property
    def mode(self) -> Tensor:
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return tg.where(self.df1 > 2, mode, math.nan)

    @property
    def variance(self) -> Tensor:
        df2 = tg.where(self.df2 > 4, self.df2, 5.0)
        finite = 2 * df2.pow(2) * (self.df1 + df2 - 2) / (self.df1 * (df2 - 2).pow(2) * (df2 - 4))
        return tg.where(self.df2 > 4, finite, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        x1, x2 = (tg._standard_gamma((df / 2).expand(shape)) * 2 / df for df in (self.df1, self.df2))
        y = _at_least(x1, tiny_of(x1)) / _at_least(x2, tiny_of(x2))
        return _at_least(y, tiny_of(y))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        half1, half2 = self.df1 * 0.5, self.df2 * 0.5
        ratio = self.df1 / self.df2
        return (
            (half1 + half2).lgamma()
            - half1.lgamma()
            - half2.lgamma()
            + half1 * ratio.log()
            + (half1 - 1) * value.log()
            - (half1 + half2) * tg.log1p(ratio * value)
        )
