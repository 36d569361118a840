"""Views by diagonal and window, joining, padding, flipping over ``xp``."""

from __future__ import annotations

from typing import Any


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

    def flip(self, x: Any, *, dims: tuple[int, ...]) -> Any:
        key = tuple([slice(None, None, -1) if d in dims else slice(None) for d in range(x.ndim)])
        return x[(*key, Ellipsis)].copy()

    def roll(self, x: Any, *, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Any:
        return self.xp.roll(x, shifts, dims)

    def tril(self, x: Any, *, diagonal: int) -> Any:
        return self._triangle(x, lambda row, column: column - row <= diagonal)

    def triu(self, x: Any, *, diagonal: int) -> Any:
        return self._triangle(x, lambda row, column: column - row >= diagonal)

    def _triangle(self, x: Any, inside: Any) -> Any:
        xp = self.xp
        rows, columns = x.shape[-2:]
        keep = inside(xp.arange(rows).reshape(rows, 1), xp.arange(columns).reshape(1, columns))
        return xp.where(keep, x, xp.zeros((), dtype=x.dtype))

    def pad(self, x: Any, *, pads: tuple[tuple[int, int], ...], mode: str, value: float) -> Any:
        if mode != "constant":
            return self.xp.pad(x, pads, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])
        shape = tuple([before + size + after for size, (before, after) in zip(x.shape, pads, strict=True)])
        out = self.xp.full(shape, value, dtype=x.dtype)
        key = tuple([slice(before, before + size) for size, (before, _) in zip(x.shape, pads, strict=True)])
        out[(*key, Ellipsis)] = x
        return out
