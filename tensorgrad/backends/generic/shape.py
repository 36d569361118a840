"""Views, copies and casts over ``xp``."""

from __future__ import annotations

from typing import Any


class ShapeKernels:
    xp: Any

    def reshape(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        return x.reshape(shape)

    def permute(self, x: Any, *, dims: tuple[int, ...]) -> Any:
        return x.transpose(dims)

    def expand(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        # where nothing grows the result can be written to; NumPy's broadcast_to is read-only
        return x[...] if x.shape == shape else self.xp.broadcast_to(x, shape)

    def slice(self, x: Any, *, key: tuple[Any, ...]) -> Any:
        # the Ellipsis keeps a fully indexed array a 0-d view where NumPy would give a scalar
        return x[(*key, Ellipsis)]

    def slice_add_into(self, x: Any, g: Any, *, key: tuple[Any, ...]) -> Any:
        part = x[(*key, Ellipsis)]
        part += g
        return x

    def contiguous(self, x: Any) -> Any:
        return x if x.flags.c_contiguous else self.contiguous_copy(x)

    def zeros_as(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        return self.xp.zeros(shape, dtype=x.dtype)

    def empty_as(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        return self.xp.empty(shape, dtype=x.dtype)

    def full_as(self, x: Any, *, value: Any) -> Any:
        out = self.xp.empty(x.shape, dtype=x.dtype)  # what full does, at half its cost
        out[...] = value
        return out

    def contiguous_copy(self, x: Any) -> Any:
        """A fresh C-contiguous array with the same elements."""
        out = self.xp.empty(x.shape, dtype=x.dtype)
        out[...] = x
        return out

    def converted(self, x: Any, dtype: Any) -> Any:
        """A fresh array of this dtype; complex numbers become no others here."""
        return x.astype(dtype)

    def cast(self, x: Any, *, dtype: Any) -> Any:
        if x.dtype.kind == "c" and dtype.kind != "c":
            x = x.real
        return self.converted(x, dtype)

    def copy_into(self, target: Any, source: Any) -> Any:
        """Write ``source``, broadcast and cast, over ``target``; returns ``target``."""
        if source.dtype.kind == "c" and target.dtype.kind != "c":
            source = source.real
        target[...] = source if source.dtype == target.dtype else self.converted(source, target.dtype)
        return target

    def sum_to(self, x: Any, *, shape: tuple[int, ...]) -> Any:
        """``x`` summed over the axes along which ``shape`` was broadcast to ``x.shape``."""
        lead = x.ndim - len(shape)
        axes = tuple(range(lead)) + tuple(i + lead for i, size in enumerate(shape) if size == 1 != x.shape[i + lead])
        summed = self.sum(x, dim=axes, keepdim=False) if axes else x  # type: ignore[attr-defined]
        return summed.reshape(shape)

    def ramp(self, *, first: int, by: int, count: int) -> Any:
        made = self.xp.arange(count, dtype="int64")
        if by != 1:
            made *= by
        if first:
            made += first
        return made

    def full(self, *, shape: tuple[int, ...], value: Any, dtype: Any) -> Any:
        return self.xp.full(shape, value, dtype=dtype)
