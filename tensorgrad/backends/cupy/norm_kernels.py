"""Norms and their gradients by kernels of our own, wherever all is of one dtype (parameters may be wide)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..generic.norm import NormKernels
from .kernels import Kernels
from .names import NAMES
from .row_kernels import laid, team_for

__all__ = ["CupyNorms"]

_PACK_BYTES = 16
_WARP = 32
_COLUMN_THREADS = 1 << 17  # keep enough loads under way
_LEAST_ROWS = 16  # of a part of columns: what is written of it is little beside what was read
_CHANNEL_BLOCKS = 2048
_LEAST_OF_A_PART = 4096  # elements of a channel
_PART_UNIT = 1024  # parts begin where packs do


def _is_wide(x: Any, *parameters: Any) -> bool | None:
    """Whether the parameters that are there are stored wider than x; None if they differ in that."""
    kinds = {p.dtype != x.dtype for p in parameters if p is not None}
    return kinds.pop() if len(kinds) == 1 else None if kinds else False


def _or_null(array: Any) -> Any:
    return 0 if array is None else array


def _wide_dtype(x: Any) -> Any:
    return np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype


class CupyNorms(NormKernels):
    _kernels: Kernels
    _defined: Callable[..., Any]  # of CupyReductions

    def _laid(self, array: Any) -> Any:
        return laid(self.xp, array)

    # --- rows

    def layer_norm(self, x: Any, w: Any, b: Any, *, ndim: int, eps: float) -> Any:
        is_wide = _is_wide(x, w, b)
        if not x.size or is_wide is None:
            return super().layer_norm(x, w, b, ndim=ndim, eps=eps)
        mean = self._row_statistic(x, ndim)
        y, rstd = self._row_norm(x, w, b, mean, ndim, eps, is_wide)
        return y, mean, rstd

    def rms_norm(self, x: Any, w: Any, *, ndim: int, eps: float) -> Any:
        is_wide = _is_wide(x, w)
        if not x.size or is_wide is None:
            return super().rms_norm(x, w, ndim=ndim, eps=eps)
        return self._row_norm(x, w, None, None, ndim, eps, is_wide)

    def layer_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, bool, bool]
    ) -> Any:
        if not x.size or g.dtype != x.dtype:
            return super().layer_norm_backward(g, x, mean, rstd, w, ndim=ndim, needs=needs)
        return self._row_norm_backward(g, x, mean, rstd, w, ndim, needs)

    def rms_norm_backward(self, g: Any, x: Any, rstd: Any, w: Any, *, ndim: int, needs: tuple[bool, bool]) -> Any:
        if not x.size or g.dtype != x.dtype:
            return super().rms_norm_backward(g, x, rstd, w, ndim=ndim, needs=needs)
        return self._row_norm_backward(g, x, None, rstd, w, ndim, (*needs, False))[:2]

    def _row_statistic(self, x: Any, ndim: int) -> Any:
        return self.xp.empty((*x.shape[: x.ndim - ndim], *(1,) * ndim), dtype=_wide_dtype(x))

    def _row_norm(self, x: Any, w: Any, b: Any, mean: Any, ndim: int, eps: float, is_wide: bool) -> tuple[Any, Any]:
        rows, length = math.prod(x.shape[: x.ndim - ndim]), math.prod(x.shape[x.ndim - ndim :])
        y, rstd = self.xp.empty(x.shape, dtype=x.dtype), self._row_statistic(x, ndim)
        block, threads = team_for(length)
        self._kernels.launch(
            f"rownorm_{NAMES[x.dtype]}", rows * threads, block, rows, length, rstd.dtype.type(eps), is_wide,
            self._laid(x), self._laid(w), self._laid(b), y, _or_null(mean), rstd,
        )  # fmt: skip
        return y, rstd

    def _row_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, ndim: int, needs: tuple[bool, bool, bool]
    ) -> tuple[Any, Any, Any]:
        xp = self.xp
        rows, length = math.prod(x.shape[: x.ndim - ndim]), math.prod(x.shape[x.ndim - ndim :])
        g, source, mean, rstd = self._laid(g), self._laid(x), self._laid(mean), self._laid(rstd)
        to_x = to_w = to_b = None
        if needs[0]:
            to_x = xp.empty(x.shape, dtype=x.dtype)
            block, threads = team_for(length)
            self._kernels.launch(
                f"rownormgrad_{NAMES[x.dtype]}", rows * threads, block, rows, length, bool(_is_wide(x, w)), g, source,
                mean, rstd, self._laid(w), to_x,
            )  # fmt: skip
        if needs[1] or needs[2]:
            sums = self._column_sums(g, source, mean, rstd, rows, length, needs[1:], by_column=False)
            shape, dtype = x.shape[x.ndim - ndim :], x.dtype if w is None else w.dtype
            to_w, to_b = self._column_totals(*sums, shape, dtype)
        return to_x, to_w, to_b

    # --- columns of (rows, length)

    def _stretches(self, dtype: Any, rows: int, length: int) -> tuple[int, int]:
        """(parts, rows of a part) that columns are added up in."""
        packs = length * dtype.itemsize // _PACK_BYTES if length * dtype.itemsize % _PACK_BYTES == 0 else length
        parts = max(1, min(_COLUMN_THREADS // packs, -(-rows // _LEAST_ROWS)))
        per_part = -(-rows // parts)
        return -(-rows // per_part), per_part

    def _column_threads(self, parts: int, length: int, dtype: Any) -> int:
        packed = length * dtype.itemsize % _PACK_BYTES == 0
        return parts * (length * dtype.itemsize // _PACK_BYTES if packed else length)

    def _column_sums(
        self, g: Any, x: Any, mean: Any, rstd: Any, rows: int, length: int, needs: tuple[bool, ...],
        relu: tuple[Any, ...] = (), *, by_column: bool,
    ) -> tuple[Any, Any]:  # fmt: skip
        """The (parts, length) sums of g times the standardized x and of g, each None unless needed.

        relu: of a ReLU behind, which g has to pass, ``_passing``.
        """
        parts, per_part = self._stretches(x.dtype, rows, length)
        kept = _wide_dtype(x)
        along, plain = [self.xp.empty((parts, length), dtype=kept) if needed else None for needed in needs]
        self._kernels.launch(
            f"columnsums{'relu' if relu else ''}_{NAMES[x.dtype]}", self._column_threads(parts, length, x.dtype), rows,
            length, parts, per_part, by_column, g, x, mean, rstd, _or_null(along), _or_null(plain), *relu,
        )  # fmt: skip
        return along, plain

    def _column_totals(self, along: Any, plain: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
        """Down the parts; in ``shape`` and ``dtype``, None for None."""
        parts, length = (plain if along is None else along).shape
        to_along, to_plain = [None if x is None else self.xp.empty(shape, dtype=dtype) for x in (along, plain)]
        self._kernels.launch(
            f"columntotals_{NAMES[dtype]}", length * _WARP, parts, length, _or_null(along), _or_null(plain),
            _or_null(to_along), _or_null(to_plain),
        )  # fmt: skip
        return to_along, to_plain

    # --- channels of (batch, channels, plane)

    def _parts(self, channels: int, count: int) -> tuple[int, int]:
        """(parts, elements of a part) that the ``count`` elements of a channel are added up in."""
        parts = max(1, min(_CHANNEL_BLOCKS // channels, -(-count // _LEAST_OF_A_PART)))
        per_part = -(-count // (parts * _PART_UNIT)) * _PART_UNIT
        return -(-count // per_part), per_part

    def _statistics(
        self, x: Any, batch: int, channels: int, plane: int, eps: float, *, variance: bool, b: Any = None,
        shift: Any = None,
    ) -> Any:  # fmt: skip
        """(mean, 1 / deviation, biased variance if wanted) of each channel; ``shift``, if any, gets b or zeros."""
        xp, kept, name = self.xp, _wide_dtype(x), NAMES[x.dtype]
        if plane == 1:
            parts, per_part = self._stretches(x.dtype, batch, channels)
        else:
            parts, per_part = self._parts(channels, batch * plane)
        means, squares = xp.empty((parts, channels), dtype=kept), xp.empty((parts, channels), dtype=kept)
        if plane == 1:
            threads = self._column_threads(parts, channels, x.dtype)
            self._kernels.launch(f"columnstats_{name}", threads, batch, channels, parts, per_part, x, means, squares)
        else:
            block, threads = team_for(min(per_part, batch * plane))
            self._kernels.launch(
                f"channelstats_{name}", channels * parts * threads, block, batch, channels, plane, parts, per_part, x,
                means, squares,
            )  # fmt: skip
        mean, rstd = xp.empty(channels, dtype=kept), xp.empty(channels, dtype=kept)
        variances = xp.empty(channels, dtype=kept) if variance else None
        self._kernels.launch(
            f"statistics_{name}", channels * _WARP, batch * plane, channels, plane, parts, per_part, kept.type(eps),
            x, means, squares, mean, rstd, _or_null(variances), bool(_is_wide(x, b)), self._laid(b), _or_null(shift),
        )  # fmt: skip
        return mean, rstd, variances

    def _channel_norm(
        self, x: Any, mean: Any, rstd: Any, w: Any, b: Any, per: int, is_wide: bool, relu: str = ""
    ) -> Any:
        """Every element by the statistics of its channel, or of its ``per`` channels; then w and b; then ``relu``."""
        y = self.xp.empty(x.shape, dtype=x.dtype)
        n, channels, plane = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        self._kernels.launch(
            f"channelnorm{relu}_{NAMES[x.dtype]}", self._column_threads(1, x.size, x.dtype), n, channels, plane, per,
            is_wide, x, mean, rstd, self._laid(w), self._laid(b), y,
        )  # fmt: skip
        return y

    def _channel_sums(
        self, g: Any, x: Any, mean: Any, rstd: Any, batch: int, channels: int, plane: int, per: int,
        relu: tuple[Any, ...] = (),
    ) -> tuple[Any, Any]:  # fmt: skip
        """Of each channel, the sum of g times the standardized x, and of g, in the wide dtype."""
        kept = _wide_dtype(x)
        if plane == 1 and per == 1:
            sums = self._column_sums(g, x, mean, rstd, batch, channels, (True, True), relu, by_column=True)
        else:
            parts, per_part = self._parts(channels, batch * plane)
            sums = self.xp.empty((parts, channels), dtype=kept), self.xp.empty((parts, channels), dtype=kept)
            block, threads = team_for(min(per_part, batch * plane))
            self._kernels.launch(
                f"channelsums{'relu' if relu else ''}_{NAMES[x.dtype]}", channels * parts * threads, block, batch,
                channels, plane, parts, per_part, per, g, x, mean, rstd, *sums, *relu,
            )  # fmt: skip
        if sums[0].shape[0] == 1:
            return sums[0].reshape(channels), sums[1].reshape(channels)
        return self._column_totals(*sums, (channels,), kept)

    def _channel_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, along: Any, plain: Any, per: int, shift: Any = None
    ) -> Any:
        relu, shifts = ("", ()) if shift is None else ("relu", (shift,))
        to_x = self.xp.empty(x.shape, dtype=x.dtype)
        n, channels, plane = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        self._kernels.launch(
            f"channelnormgrad{relu}_{NAMES[x.dtype]}", self._column_threads(1, x.size, x.dtype), n, channels, plane,
            per, bool(_is_wide(x, w)), g, x, mean, rstd, self._laid(w), along, plain, to_x, *shifts,
        )  # fmt: skip
        return to_x

    def batch_norm(self, x: Any, w: Any, b: Any, *, eps: float) -> Any:
        is_wide = _is_wide(x, w, b)
        if not x.size or is_wide is None:
            return super().batch_norm(x, w, b, eps=eps)
        x, plane = self._laid(x), math.prod(x.shape[2:])
        mean, rstd, variance = self._statistics(x, x.shape[0], x.shape[1], plane, eps, variance=True)
        return self._channel_norm(x, mean, rstd, w, b, 0, is_wide), mean, rstd, variance

    def batch_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, needs: tuple[bool, bool, bool]
    ) -> Any:
        if not x.size or g.dtype != x.dtype:
            return super().batch_norm_backward(g, x, mean, rstd, w, needs=needs)
        return self._batch_norm_backward(g, x, mean, rstd, w, None, needs)

    def _batch_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, shift: Any, needs: tuple[bool, bool, bool]
    ) -> tuple[Any, Any, Any]:
        """``shift``: of the ReLU behind; None for none."""
        g, x, mean, rstd = self._laid(g), self._laid(x), self._laid(mean), self._laid(rstd)
        relu: tuple[Any, ...] = ()
        if shift is not None:
            shift = self._laid(shift)
            relu = (bool(_is_wide(x, w)), self._laid(w), shift)
        plane = math.prod(x.shape[2:])
        along, plain = self._channel_sums(g, x, mean, rstd, x.shape[0], x.shape[1], plane, 1, relu)
        return (
            self._channel_norm_backward(g, x, mean, rstd, w, along, plain, 0, shift) if needs[0] else None,
            self._for_parameter(along, x, w) if needs[1] else None,
            self._for_parameter(plain, x, w) if needs[2] else None,
        )

    def batch_norm_relu(self, x: Any, w: Any, b: Any, *, eps: float) -> Any:
        is_wide = _is_wide(x, w, b)
        if not x.size or is_wide is None:
            return self._defined("batch_norm_relu", x, w, b, eps=eps)
        x, plane = self._laid(x), math.prod(x.shape[2:])
        shift = self.xp.empty(x.shape[1], dtype=_wide_dtype(x))
        mean, rstd, variance = self._statistics(x, x.shape[0], x.shape[1], plane, eps, variance=True, b=b, shift=shift)
        return self._channel_norm(x, mean, rstd, w, b, 0, is_wide, "relu"), mean, rstd, variance, shift

    def batch_norm_relu_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, shift: Any, *, needs: tuple[bool, bool, bool]
    ) -> Any:
        if not x.size or g.dtype != x.dtype:
            return self._defined("batch_norm_relu_backward", g, x, mean, rstd, w, shift, needs=needs)
        return self._batch_norm_backward(g, x, mean, rstd, w, shift, needs)

    # --- by given statistics

    def batch_norm_eval(self, x: Any, w: Any, b: Any, mean: Any, var: Any, *, eps: float) -> Any:
        is_wide, wide_given = _is_wide(x, w, b), _is_wide(x, mean, var)
        if not x.size or is_wide is None or wide_given is None:
            return self._defined("batch_norm_eval", x, w, b, mean, var, eps=eps)
        x, y = self._laid(x), self.xp.empty(x.shape, dtype=x.dtype)
        self._kernels.launch(
            f"givennorm_{NAMES[x.dtype]}", self._column_threads(1, x.size, x.dtype), *x.shape[:2],
            math.prod(x.shape[2:]), is_wide, wide_given, _wide_dtype(x).type(eps), x, self._laid(mean), self._laid(var),
            self._laid(w), self._laid(b), y,
        )  # fmt: skip
        return y

    def batch_norm_eval_backward(
        self, g: Any, x: Any, w: Any, mean: Any, var: Any, *, eps: float, needs: tuple[bool, ...]
    ) -> Any:
        wide_given = _is_wide(x, mean, var)
        if not x.size or g.dtype != x.dtype or wide_given is None:
            return self._defined("batch_norm_eval_backward", g, x, w, mean, var, eps=eps, needs=needs)
        xp, kept, name = self.xp, _wide_dtype(x), NAMES[x.dtype]
        (n, channels), plane, g, var = x.shape[:2], math.prod(x.shape[2:]), self._laid(g), self._laid(var)
        to_x = to_w = to_b = to_mean = to_var = None
        if needs[0]:
            to_x = xp.empty(x.shape, dtype=x.dtype)
            self._kernels.launch(
                f"givennormgrad_{name}", self._column_threads(1, x.size, x.dtype), n, channels, plane,
                bool(_is_wide(x, w)), wide_given, kept.type(eps), g, var, self._laid(w), to_x,
            )  # fmt: skip
        if any(needs[1:]):
            middle, rstd = xp.empty(channels, dtype=kept), xp.empty(channels, dtype=kept)
            self._kernels.launch(
                f"givenstats_{name}", channels, channels, wide_given, kept.type(eps), self._laid(mean), var, middle,
                rstd,
            )  # fmt: skip
            along, plain = self._channel_sums(g, self._laid(x), middle, rstd, n, channels, plane, 1)
            to_w = self._for_parameter(along, x, w) if needs[1] else None
            to_b = self._for_parameter(plain, x, w) if needs[2] else None
            scale = rstd if w is None or not any(needs[3:]) else rstd * w.astype(kept, copy=False)
            if needs[3]:
                to_mean = (-plain * scale).astype(mean.dtype, copy=False)
            if needs[4]:  # y's derivative in the variance is -1/2 (x - mean) rstd**3 w
                to_var = (along * scale * rstd * kept.type(-0.5)).astype(var.dtype, copy=False)
        return to_x, to_w, to_b, to_mean, to_var

    # --- over groups of channels

    def group_norm(self, x: Any, w: Any, b: Any, *, groups: int, eps: float) -> Any:
        is_wide = _is_wide(x, w, b)
        if not x.size or is_wide is None:
            return super().group_norm(x, w, b, groups=groups, eps=eps)
        x, n, per = self._laid(x), x.shape[0], x.shape[1] // groups
        length = per * math.prod(x.shape[2:])
        mean, rstd, _ = self._statistics(x, 1, n * groups, length, eps, variance=False)
        y = self._channel_norm(x, mean, rstd, w, b, per, is_wide)
        return y, mean.reshape(n, groups), rstd.reshape(n, groups)

    def group_norm_backward(
        self, g: Any, x: Any, mean: Any, rstd: Any, w: Any, *, groups: int, needs: tuple[bool, bool, bool]
    ) -> Any:
        if not x.size or g.dtype != x.dtype:
            return super().group_norm_backward(g, x, mean, rstd, w, groups=groups, needs=needs)
        g, x, mean, rstd = self._laid(g), self._laid(x), self._laid(mean), self._laid(rstd)
        (n, channels), plane = x.shape[:2], math.prod(x.shape[2:])
        per = channels // groups
        along, plain = self._channel_sums(g, x, mean, rstd, 1, n * channels, plane, per)
        to_x = to_w = to_b = None
        if needs[0]:
            of_groups = self.xp.empty(n * groups, dtype=along.dtype), self.xp.empty(n * groups, dtype=along.dtype)
            self._kernels.launch(
                f"groupsums_{NAMES[x.dtype]}", n * groups * _WARP, n * groups, per, channels, bool(_is_wide(x, w)),
                self._laid(w), along, plain, *of_groups,
            )  # fmt: skip
            to_x = self._channel_norm_backward(g, x, mean, rstd, w, *of_groups, per)
        if needs[1] or needs[2]:
            to_w, to_b = self._column_totals(
                along.reshape(n, channels) if needs[1] else None, plain.reshape(n, channels) if needs[2] else None,
                (channels,), x.dtype if w is None else w.dtype,
            )  # fmt: skip
        return to_x, to_w, to_b
