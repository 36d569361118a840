"""Views by diagonal and window, joining, padding, flipping over ``xp``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ShapeError


class MoreShapeKernels:
    xp: Any

    def diagonal(self, x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
        view = self.xp.diagonal(x, offset, dim1, dim2)
        if not getattr(view.flags, "writeable", True) and x.flags.writeable:
            view.flags.writeable = True  # NumPy hands diagonals out read-only
        return view

    def diagonal_backward(self, g: Any, *, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
        out = self.xp.zeros(shape, dtype=g.dtype)
        self.diagonal(out, offset=offset, dim1=dim1, dim2=dim2)[...] = g
        return out

    def as_strided(self, x: Any, *, size: Any, stride: Any, offset: int, within: Any) -> Any:
        """A view of the memory that ``x``, of strides ``within``, spans; strides and offset are counted in elements."""
        item = x.dtype.itemsize
        if tuple([step // item for step in x.strides]) != within and x.size > 1:
            if within != _row_major(x.shape):
                raise ValueError(f"as_strided: the memory has strides {x.strides}, {within} elements were expected.")
            x = self.contiguous(x)  # type: ignore[attr-defined]
        cut = self.xp.lib.stride_tricks.as_strided
        span = 1 + sum((n - 1) * step for n, step in zip(x.shape, within, strict=True)) if x.size else 0
        flat = cut(x, (span,), (item,))[min(offset, span) :]
        return cut(flat, size, tuple([step * item for step in stride]))[...]

    def restride(
        self, g: Any, *, size: Any, stride: Any, offset: int, to_size: Any, to_stride: Any, to_offset: int
    ) -> Any:
        """``g`` added into a storage at one set of strides, which is then read at another."""
        xp = self.xp
        into, at = _places(xp, size, stride, offset), _places(xp, to_size, to_stride, to_offset)
        ends = [int(where.max()) + 1 for where in (into, at) if where.size]
        storage = xp.zeros((max(ends, default=0),), dtype=g.dtype)
        if g.size:
            self._combine(xp.add, storage, (0,), (into.reshape(-1),), g.reshape(-1))  # type: ignore[attr-defined]
        return storage[at.reshape(-1)].reshape(to_size)

    def real_part(self, x: Any) -> Any:
        return x.real

    def imag_part(self, x: Any) -> Any:
        return x.imag

    def as_real(self, x: Any) -> Any:
        first = x.real
        strides = (*x.strides, first.dtype.itemsize)
        return self.xp.lib.stride_tricks.as_strided(first, (*x.shape, 2), strides)[...]

    def as_complex(self, x: Any) -> Any:
        if x.dtype.itemsize == 2:  # there are no complex numbers of two halves
            x = x.astype(np.float32)
        return x.view(np.complex64 if x.dtype.itemsize == 4 else np.complex128)[..., 0]

    def unfold_dim(self, x: Any, *, dim: int, size: int, step: int) -> Any:
        count = (x.shape[dim] - size) // step + 1
        stride = x.strides[dim]
        shape = (*x.shape[:dim], count, *x.shape[dim + 1 :], size)
        strides = (*x.strides[:dim], stride * step, *x.strides[dim + 1 :], stride)
        # sliced once more, so that the result's base is an array and it is known for a view
        return self.xp.lib.stride_tricks.as_strided(x, shape, strides)[...]

    def unfold_dim_backward(self, g: Any, *, shape: tuple[int, ...], dim: int, size: int, step: int) -> Any:
        """Windows are added up by their k-th elements, which never overlap among themselves."""
        out = self.xp.zeros(shape, dtype=g.dtype)
        count = g.shape[dim]
        lead = (slice(None),) * dim
        for k in range(size):
            out[(*lead, slice(k, k + count * step, step))] += g[..., k]
        return out

    def cat(self, *xs: Any, dim: int) -> Any:
        return self.xp.concatenate(xs, axis=dim)

    def stack(self, *xs: Any, dim: int) -> Any:
        return self.xp.stack(xs, axis=dim)

    def flip(self, x: Any, *, dims: tuple[int, ...]) -> Any:
        key = tuple([slice(None, None, -1) if d in dims else slice(None) for d in range(x.ndim)])
        return x[(*key, Ellipsis)].copy()

    def roll(self, x: Any, *, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Any:
        if len(shifts) != len(dims):  # NumPy would broadcast one against the other
            raise ShapeError(f"roll: shifts {shifts} and dims {dims} must have the same length.")
        return self.xp.roll(x, shifts, dims)

    def tril(self, x: Any, *, diagonal: int) -> Any:
        return self._triangle(x, lambda row, column: column - row <= diagonal)

    def triu(self, x: Any, *, diagonal: int) -> Any:
        return self._triangle(x, lambda row, column: column - row >= diagonal)

    def _triangle(self, x: Any, inside: Any) -> Any:
        xp = self.xp
        rows, columns = x.shape[-2:]
        keep = inside(xp.arange(rows).reshape(rows, 1), xp.arange(columns).reshape(1, columns))
        return xp.where(keep, x, xp.zeros((), dtype=x.dtype)).astype(x.dtype, copy=False)  # CuPy widens bfloat16

    def pad(self, x: Any, *, pads: tuple[tuple[int, int], ...], mode: str, value: float) -> Any:
        if mode != "constant":
            return self.xp.pad(x, pads, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])
        shape = tuple([before + size + after for size, (before, after) in zip(x.shape, pads, strict=True)])
        out = self.xp.full(shape, value, dtype=x.dtype)
        key = tuple([slice(before, before + size) for size, (before, _) in zip(x.shape, pads, strict=True)])
        out[(*key, Ellipsis)] = x
        return out


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def _places(xp: Any, size: Any, stride: Any, offset: int) -> Any:
    """Where in its storage each element of a tensor of these strides lies."""
    at = xp.full(size, offset, dtype=np.int64)
    for d, (n, step) in enumerate(zip(size, stride, strict=True)):
        at = at + (xp.arange(n, dtype=np.int64) * step).reshape((n,) + (1,) * (len(size) - d - 1))
    return at
