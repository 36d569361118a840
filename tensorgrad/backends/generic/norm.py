"""Normalization over ``xp``. Statistics of half precision are computed and returned in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .reduce import wide


class NormKernels:
    xp: Any

    def _standardized(self, x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
        """(x with mean 0 and variance 1 over ``axes``, mean, 1 / deviation, biased variance), in the wide dtype."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._in_range(wide(x), axes, eps)

    def _in_range(self, x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
        """``_standardized`` of wide elements, in float64 where the squares of float32 leave its range."""
        mean = self.xp.asarray(x.mean(axis=axes, keepdims=True))
        centred = x - mean
        variance = self.xp.asarray((centred * centred).mean(axis=axes, keepdims=True))
        if self._beyond(variance):
            once_more = self._in_range(x.astype(np.float64), axes, eps)
            return tuple([part.astype(np.float32) for part in once_more])
        rstd = self.xp.asarray(1 / self.xp.sqrt(variance + x.dtype.type(eps)))
        centred *= rstd
        return centred, mean, rstd, variance

    def _beyond(self, squares: Any) -> bool:
        """Whether sums of squares are infinite that float64 has room for. Of a device nothing is asked: that would
        wait."""
        return self.xp is np and squares.dtype == np.float32 and not bool(np.isfinite(squares).all())

    def _through(self, g: Any, normal: Any, rstd: Any, axes: tuple[int, ...]) -> Any:
        """The gradient in x, when ``g`` reaches the standardized elements ``normal``."""
        middle = g.mean(axis=axes, keepdims=True)
        along = (g * normal).mean(axis=axes, keepdims=True)
        return (g - middle - normal * along) * rstd

    def _for_parameter(self, g: Any, x: Any, w: Any) -> Any:
        """A parameter's gradient in the parameter's dtype."""
        return self.xp.asarray(g).astype(x.dtype if w is None else w.dtype, copy=False)

    # --- over the last axes

    def layer_norm(self, x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> Any:
        axes = tuple(range(x.ndim - ndim, x.ndim))
        y, mean, rstd, _ = self._standardized(x, axes, eps)
        if w is not None:
            y = y * wide(w)
        if b is not None:
            y = y + wide(b)
        return y.astype(x.dtype, copy=False), mean, rstd

    def layer_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, bool, bool]
    ) -> Any:
        split = x.ndim - ndim
        axes, lead = tuple(range(split, x.ndim)), tuple(range(split))
        wide_g = wide(g)
        normal = (wide(x) - mean) * rstd
        to_x = to_w = to_b = None
        if needs[0]:
            inner = wide_g if w is None else wide_g * wide(w)
            to_x = self._through(inner, normal, rstd, axes).astype(x.dtype, copy=False)
        if needs[1]:
            to_w = self._for_parameter((wide_g * normal).sum(axis=lead), x, w)
        if needs[2]:
            to_b = self._for_parameter(wide_g.sum(axis=lead), x, w)
        return to_x, to_w, to_b

    def rms_norm(self, x: Any, w: Any, *, ndim: int, eps: float) -> Any:
        axes = tuple(range(x.ndim - ndim, x.ndim))
        source = wide(x)
        with np.errstate(over="ignore", invalid="ignore"):
            power = self.xp.asarray((source * source).mean(axis=axes, keepdims=True))
            if self._beyond(power):
                power = np.square(source, dtype=np.float64).mean(axis=axes, keepdims=True)
            rstd = self.xp.asarray(1 / self.xp.sqrt(power + power.dtype.type(eps))).astype(source.dtype, copy=False)
            y = source * rstd
        if w is not None:
            y = y * wide(w)
        return y.astype(x.dtype, copy=False), rstd

    def rms_norm_backward(self, g: Any, x: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, bool]) -> Any:
        split = x.ndim - ndim
        axes, lead = tuple(range(split, x.ndim)), tuple(range(split))
        wide_g = wide(g)
        normal = wide(x) * rstd
        to_x = to_w = None
        if needs[0]:
            inner = wide_g if w is None else wide_g * wide(w)
            along = (inner * normal).mean(axis=axes, keepdims=True)
            to_x = ((inner - normal * along) * rstd).astype(x.dtype, copy=False)
        if needs[1]:
            to_w = self._for_parameter((wide_g * normal).sum(axis=lead), x, w)
        return to_x, to_w

    # --- over all axes but the channels

    def batch_norm(self, x: Any, w: Any, b: Any, *, eps: float) -> Any:
        channels = x.shape[1]
        column = (channels, *(1,) * (x.ndim - 2))
        y, mean, rstd, variance = self._standardized(x, (0, *range(2, x.ndim)), eps)
        if w is not None:
            y = y * wide(w).reshape(column)
        if b is not None:
            y = y + wide(b).reshape(column)
        flat = (channels,)
        return y.astype(x.dtype, copy=False), mean.reshape(flat), rstd.reshape(flat), variance.reshape(flat)

    def batch_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, needs: tuple[bool, bool, bool]
    ) -> Any:
        axes = (0, *range(2, x.ndim))
        column = (x.shape[1], *(1,) * (x.ndim - 2))
        wide_g, rstd = wide(g), rstd.reshape(column)
        normal = (wide(x) - mean.reshape(column)) * rstd
        to_x = to_w = to_b = None
        if needs[0]:
            to_x = self._through(wide_g, normal, rstd, axes)
            if w is not None:
                to_x = to_x * wide(w).reshape(column)
            to_x = to_x.astype(x.dtype, copy=False)
        if needs[1]:
            to_w = self._for_parameter((wide_g * normal).sum(axis=axes), x, w)
        if needs[2]:
            to_b = self._for_parameter(wide_g.sum(axis=axes), x, w)
        return to_x, to_w, to_b

    # --- over groups of channels

    def group_norm(self, x: Any, w: Any, b: Any, *, groups: int, eps: float) -> Any:
        n, channels = x.shape[:2]
        column = (channels, *(1,) * (x.ndim - 2))
        rows = x.reshape(n, groups, math.prod(x.shape[1:]) // groups)
        y, mean, rstd, _ = self._standardized(rows, (2,), eps)
        y = y.reshape(x.shape)
        if w is not None:
            y = y * wide(w).reshape(column)
        if b is not None:
            y = y + wide(b).reshape(column)
        return y.astype(x.dtype, copy=False), mean.reshape(n, groups), rstd.reshape(n, groups)

    def group_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, groups: int, needs: tuple[bool, bool, bool]
    ) -> Any:
        n, channels = x.shape[:2]
        column, axes = (channels, *(1,) * (x.ndim - 2)), (0, *range(2, x.ndim))
        rows = (n, groups, math.prod(x.shape[1:]) // groups)
        wide_g, rstd = wide(g), rstd.reshape(n, groups, 1)
        normal = (wide(x).reshape(rows) - mean.reshape(n, groups, 1)) * rstd
        to_x = to_w = to_b = None
        if needs[0]:
            inner = wide_g if w is None else wide_g * wide(w).reshape(column)
            to_x = self._through(inner.reshape(rows), normal, rstd, (2,)).reshape(x.shape).astype(x.dtype, copy=False)
        if needs[1]:
            to_w = self._for_parameter((wide_g * normal.reshape(x.shape)).sum(axis=axes), x, w)
        if needs[2]:
            to_b = self._for_parameter(wide_g.sum(axis=axes), x, w)
        return to_x, to_w, to_b
