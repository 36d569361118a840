"""Sorting over ``xp``; NaN counts as larger than every number, and equal elements keep their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .reduce import reduced_shape, wide


class SortKernels:
    xp: Any

    def _order(self, x: Any, dim: int, descending: bool) -> Any:
        """Positions along ``dim`` that put the elements in order, stably."""
        w = wide(x)
        if not descending:
            return self.xp.argsort(w, axis=dim, kind="stable").astype(np.int64, copy=False)
        backwards = (*[slice(None)] * dim, slice(None, None, -1))
        ascending = self.xp.argsort(w[backwards], axis=dim, kind="stable")
        return (x.shape[dim] - 1 - ascending[backwards]).astype(np.int64, copy=False)

    def sort(self, x: Any, *, dim: int, descending: bool, stable: bool) -> tuple[Any, Any]:
        indices = self._order(x, dim, descending)
        return self.xp.take_along_axis(x, indices, dim), indices

    def topk(self, x: Any, *, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Any, Any]:
        first = (*[slice(None)] * dim, slice(0, k))
        indices = self._order(x, dim, largest)[first].copy()
        return self.xp.take_along_axis(x, indices, dim), indices

    def kthvalue(self, x: Any, *, k: int, dim: int, keepdim: bool) -> tuple[Any, Any]:
        indices = self._order(x, dim, False)[(*[slice(None)] * dim, slice(k - 1, k))]
        return self._at(x, indices, dim, keepdim)

    def median_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        xp = self.xp
        order = self._order(x, dim, False)
        middle = order[(*[slice(None)] * dim, slice((x.shape[dim] - 1) // 2, (x.shape[dim] + 1) // 2))]
        if x.dtype.kind in "fV":
            bad = xp.isnan(wide(x))
            first_bad = xp.expand_dims(xp.argmax(bad, axis=dim), dim)
            middle = xp.where(xp.any(bad, axis=dim, keepdims=True), first_bad, middle)
        return self._at(x, middle.astype(np.int64, copy=False), dim, keepdim)

    def nanmedian_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        xp = self.xp
        order = self._order(x, dim, False)
        numbers = xp.sum(wide(x) == wide(x), axis=dim, keepdims=True)
        middle = xp.maximum(numbers - 1, 0) // 2
        return self._at(x, xp.take_along_axis(order, middle, dim), dim, keepdim)

    def mode_dim(self, x: Any, *, dim: int, keepdim: bool) -> tuple[Any, Any]:
        """The end of the first of the longest runs of equals among the sorted elements."""
        xp = self.xp
        order = self._order(x, dim, False)
        w = xp.take_along_axis(wide(x), order, dim)
        size = x.shape[dim]
        lead = (slice(None),) * dim
        begins = xp.ones(x.shape, dtype=bool)
        later, earlier = w[(*lead, slice(1, size))], w[(*lead, slice(0, size - 1))]
        begins[(*lead, slice(1, size))] = (later != earlier) & ((later == later) | (earlier == earlier))
        ramp = xp.arange(size, dtype=np.int64).reshape((1,) * dim + (size,) + (1,) * (x.ndim - dim - 1))
        started = self.cummax(xp.where(begins, ramp, 0), dim=dim)[0]  # type: ignore[attr-defined]
        longest = xp.expand_dims(xp.argmax(ramp - started, axis=dim), dim)
        return self._at(x, xp.take_along_axis(order, longest, dim), dim, keepdim)

    def _at(self, x: Any, indices: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
        values = self.xp.take_along_axis(x, indices, dim)
        shape = reduced_shape(x.shape, (dim,), keepdim)
        return values.reshape(shape), indices.reshape(shape)

    def unique(self, rows: Any, *, inverse: bool) -> tuple[Any, Any, Any]:
        """(distinct rows in order, where each row is among them if asked, how often each occurs) of an (n, k) array."""
        xp = self.xp
        x = wide(rows)
        along = {} if rows.shape[1] == 1 else {"axis": 0}
        found = xp.unique(
            x if along else x.reshape(-1), return_inverse=True, return_counts=True, equal_nan=False, **along
        )
        values = found[0] if along else found[0].reshape(-1, 1)
        places, counts = found[1].reshape(-1).astype(np.int64, copy=False), found[2].astype(np.int64, copy=False)
        return values.astype(rows.dtype, copy=False), places if inverse else None, counts
