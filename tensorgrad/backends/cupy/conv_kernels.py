"""Convolutions: by cuDNN, and where it is missing or has no plan by kernels of our own.

Ours make columns of what windows read, as many at a time as a bounded workspace holds, and let cuBLAS multiply; groups
of few channels (depthwise) are summed directly. The gradient in the input is the same product over the columns of who
has read a position. Tiles depend on shapes alone, and so do the bits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import BackendError
from .. import cudnn as permissions
from ..generic.conv import ConvKernels, conv_outputs
from ..generic.reduce import wide
from .cudnn import ALIGNMENT, Convolution, Cudnn, Operand, load
from .kernels import Kernels
from .names import NAMES

__all__ = ["CupyConvolutions"]

_COLUMNS = 128 << 20  # bytes of columns at a time
_THIN = 8  # channels of a group on one side, up to which sums are made without columns
_MOST_INT = 2**30  # of sizes and paddings: their sums have to fit in the kernels' 32 bits
_BLOCK = 256


class CupyConvolutions(ConvKernels):
    _kernels: Kernels

    @cached_property
    def _cudnn(self) -> Cudnn | None:
        try:
            return Cudnn(self.xp, load())
        except BackendError as error:
            warnings.warn(f"cuDNN is not used: {error} tensorgrad's own kernels convolve and attend.", stacklevel=2)
            return None

    def conv(self, x: Any, w: Any, b: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        how = {"stride": stride, "padding": padding, "dilation": dilation}
        outputs = conv_outputs(x.shape[2:], w.shape[2:], stride, padding, dilation)
        shape = (x.shape[0], w.shape[0], *outputs)
        if not _known(x, w, shape, how):
            return super().conv(x, w, b, **how, groups=groups)
        if b is not None:
            y = self._by_cudnn("conv", (x, w, b), shape, how)
            if y is not None:
                return y
        y = self._by_cudnn("conv", (x, w), shape, how)
        if y is None:
            y = self._ours(x, w, shape, how, groups, back=False)
        if b is not None:
            y += b.reshape(b.size, *(1,) * len(outputs))
        return y

    def conv_input_grad(
        self, g: Any, w: Any, *, input_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        how = {"stride": stride, "padding": padding, "dilation": dilation}
        shape = tuple(input_shape)
        if not _known(g, w, shape, how):
            return super().conv_input_grad(g, w, input_shape=input_shape, **how, groups=groups)
        made = self._by_cudnn("input_grad", (g, w), shape, how)
        return made if made is not None else self._ours(g, w, shape, how, groups, back=True)

    def conv_weight_grad(
        self, g: Any, x: Any, *, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        how = {"stride": stride, "padding": padding, "dilation": dilation}
        shape = tuple(weight_shape)
        if not _known(g, x, shape, how):
            return super().conv_weight_grad(g, x, weight_shape=weight_shape, **how, groups=groups)
        made = self._by_cudnn("weight_grad", (x, g), shape, how)
        return made if made is not None else self._our_weight_grad(g, x, shape, how, groups)

    # ---- cuDNN

    def _by_cudnn(self, kind: str, arrays: tuple[Any, ...], shape: tuple[int, ...], how: dict[str, Any]) -> Any:
        """The result by cuDNN, or None. Where an operand's channels lie side by side, all others' and the result's do,
        but a gradient in the weight, which goes to a parameter in C's order."""
        if not permissions.enabled:
            return None
        cudnn = self._cudnn
        if cudnn is None or not cudnn.takes(arrays[0].dtype):
            return None
        ndim = len(shape)
        images = arrays[:2] if kind == "weight_grad" else arrays[:1]  # how a weight lies decides nothing
        last = any(_channels_last(x) for x in images)
        xp = self.xp
        operands = [self._lying(x, last and x.ndim > 1) for x in arrays]
        operands = [xp.array(x, order="K") if x.data.ptr % ALIGNMENT else x for x in operands]
        dtype = NAMES[arrays[0].dtype]
        what = Convolution(
            kind,
            dtype,
            tuple([_operand(x.shape if x.ndim > 1 else (1, x.size, *(1,) * (ndim - 2)), last) for x in operands]),
            _operand(shape, last),
            _over_two_axes(how["stride"], 1),
            _over_two_axes(how["padding"], 0),
            _over_two_axes(how["dilation"], 1),
            dtype == "float32" and permissions.tf32_allowed(),
        )
        graph = cudnn.plan(what)
        if graph is None:
            return None
        out = self._room(shape, arrays[0].dtype, last)
        cudnn.run(graph, operands, out)
        return xp.ascontiguousarray(out) if last and kind == "weight_grad" else out

    def _lying(self, x: Any, last: bool) -> Any:
        """``x`` dense in C's order, or with channels last."""
        xp = self.xp
        if not last:
            return xp.ascontiguousarray(x)
        return xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(x, 1, -1)), -1, 1)

    def _room(self, shape: tuple[int, ...], dtype: Any, last: bool) -> Any:
        if not last:
            return self.xp.empty(shape, dtype=dtype)
        n, c, *sizes = shape
        return self.xp.moveaxis(self.xp.empty((n, *sizes, c), dtype=dtype), -1, 1)

    # ---- ours

    def _ours(self, x: Any, w: Any, shape: tuple[int, ...], how: dict[str, Any], groups: int, back: bool) -> Any:
        """``conv`` of images x into ``shape``, or with ``back`` its gradient in the input from slopes x."""
        xp = self.xp
        x, w = xp.ascontiguousarray(x), xp.ascontiguousarray(w)
        samples, kernel = x.shape[0], w.shape[2:]
        taps, positions = math.prod(kernel), math.prod(shape[2:])
        made, read = shape[1] // groups, x.shape[1] // groups
        windows = _windows(x.shape[2:], kernel, shape[2:], how)
        if groups > 1 and min(made, read) <= _THIN:
            y = xp.empty(shape, dtype=x.dtype)
            name = f"{'directback' if back else 'direct'}_{NAMES[x.dtype]}"
            self._kernels.launch(name, y.size, *windows, samples, groups, read, made, x, w, y)
            return y
        name = f"{'unfoldback' if back else 'unfold'}_{NAMES[x.dtype]}"
        factor = w.reshape(groups, -1, *w.shape[1:2], taps)  # (groups, outputs, inputs of a group, taps)
        if back:
            factor = xp.ascontiguousarray(factor.swapaxes(1, 2))
        factor = factor.reshape(groups, made, read * taps)
        if groups == 1:
            factor = factor[0]  # one matrix for all samples
        tiles = list(_tiles(samples, x.shape[1] * taps * x.itemsize, positions))
        y = None if len(tiles) == 1 else xp.empty(shape, dtype=x.dtype)
        for (at, end), (first, last) in tiles:
            n, count = end - at, last - first
            columns = xp.empty((n, *(groups,) * (groups > 1), read * taps, count), dtype=x.dtype)
            by_sample = x.shape[1] * taps * count
            threads = _threads(n * x.shape[1] * taps, count, x.itemsize)
            self._kernels.launch(
                name, threads, *windows, n, x.shape[1], by_sample, count, first, count, x[at:end], columns
            )
            part = self._product(factor, columns).reshape(n, shape[1], count)
            if y is None:
                return part.reshape(shape)
            y.reshape(samples, shape[1], positions)[at:end, :, first:last] = part
        return y

    def _our_weight_grad(self, g: Any, x: Any, shape: tuple[int, ...], how: dict[str, Any], groups: int) -> Any:
        xp = self.xp
        g, x = xp.ascontiguousarray(g), xp.ascontiguousarray(x)
        samples, kernel = x.shape[0], shape[2:]
        taps, positions = math.prod(kernel), math.prod(g.shape[2:])
        made, read = shape[0] // groups, shape[1]
        windows = _windows(x.shape[2:], kernel, g.shape[2:], how)
        if groups > 1 and min(made, read) <= _THIN:
            out = xp.empty(shape, dtype=x.dtype)
            name = f"directweight_{NAMES[x.dtype]}"
            self._kernels.launch(name, out.size * _BLOCK, *windows, samples, groups, read, made, g, x, out)
            return out
        dtype = x.dtype
        tiles = list(_tiles(samples, x.shape[1] * taps * wide(x[:0]).itemsize, positions))
        if len(tiles) > 1:  # a sum of products, rounded once
            g, x = wide(g), wide(x)
        total = None
        for (at, end), (first, last) in tiles:
            n, count = end - at, last - first
            columns = xp.empty((groups, read * taps, n * count), dtype=x.dtype)
            threads = _threads(n * x.shape[1] * taps, count, x.itemsize)
            self._kernels.launch(
                f"unfold_{NAMES[x.dtype]}", threads, *windows, n, x.shape[1], count, n * count, first, count, x[at:end],
                columns,
            )  # fmt: skip
            slopes = g[at:end].reshape(n, groups, made, positions)[..., first:last].transpose(1, 2, 0, 3)
            slopes = xp.ascontiguousarray(slopes).reshape(groups, made, n * count)
            part = self._product(slopes, columns.swapaxes(1, 2))
            total = part if total is None else xp.add(total, part, out=total)
        assert total is not None
        return total.reshape(shape).astype(dtype, copy=False)


def _known(a: Any, b: Any, shape: tuple[int, ...], how: dict[str, Any]) -> bool:
    """Whether there are kernels for these arrays: some elements of one floating-point type, in numbers of 32 bits."""
    sizes = (*a.shape[2:], *b.shape[2:], *shape[2:])
    return (
        a.dtype == b.dtype
        and NAMES[a.dtype] in ("float16", "bfloat16", "float32", "float64")
        and 3 <= a.ndim <= 5
        and bool(a.size and b.size and math.prod(shape))
        and max(*sizes, *how["stride"], *how["padding"]) < _MOST_INT
        and all(d * k < _MOST_INT for d in how["dilation"] for k in sizes)
    )


def _windows(sizes: Any, kernel: Any, positions: Any, how: dict[str, Any]) -> list[Any]:
    """The kernels' first arguments: six triples of 32-bit numbers."""
    lacking = 3 - len(kernel)
    of_how = ((1, how["stride"]), (0, how["padding"]), (1, how["dilation"]))
    triples = ((1, sizes), (1, kernel), (1, positions), *of_how)
    return [np.int32(number) for one, given in triples for number in (*(one,) * lacking, *given)]


def _threads(rows: int, count: int, itemsize: int) -> int:
    """One for 16 bytes of a row of columns."""
    return rows * -(-count * itemsize // 16)


def _tiles(samples: int, by_position: int, positions: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(samples from, to), (positions from, to): as many samples as fit in the workspace, or parts of one."""
    fitting = max(1, _COLUMNS // by_position)  # positions
    if fitting >= positions:
        step = fitting // positions
        for at in range(0, samples, step):
            yield (at, min(samples, at + step)), (0, positions)
        return
    for at in range(samples):
        for first in range(0, positions, fitting):
            yield (at, at + 1), (first, min(positions, first + fitting))


def _over_two_axes(given: tuple[int, ...], first: int) -> tuple[int, ...]:
    """A number for each axis of space, of which cuDNN has at least two."""
    return (first, *given) if len(given) == 1 else tuple(given)


def _channels_last(x: Any) -> bool:
    return not x.flags.c_contiguous and x.ndim > 3 and x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


def _operand(shape: tuple[int, ...], last: bool) -> Operand:
    """What cuDNN is told of a dense array; a convolution along one axis is one of an image of height 1."""
    whole = (*shape[:2], 1, *shape[2:]) if len(shape) == 3 else tuple(shape)
    order = (0, *range(2, len(whole)), 1) if last else range(len(whole))
    steps, step = [0] * len(whole), 1
    for axis in reversed(order):
        steps[axis] = step
        step *= whole[axis]
    return Operand(whole, tuple(steps))
