"""Batching rules of what reads and writes at positions: an index per sample is an index with one more coordinate."""

from __future__ import annotations

from typing import Any

import numpy as np

from .batched import aligned
from .rules import every, rule

_INT64 = np.dtype(np.int64)


def numbers(F: Any, like: Any, n: int, rank: int) -> Any:
    """0 to n (excluded), int64, shaped (n, 1, ..., 1) so as to go with n indices of ``rank`` dimensions."""
    ones = F.full_as(F.cast(F.zeros_as(like, shape=(n,)), dtype=_INT64), value=1)
    counted = F.sub(F.cumsum(ones, dim=0), 1)
    return F.reshape(counted, shape=(n, *(1,) * rank))


def _whole(n: int, x: Any, indices: list[Any], mapped: tuple[bool, ...]) -> bool:
    """Whether only the indexed tensor is mapped, and the indices are shared."""
    return not any(mapped)


def _common_rank(indices: list[Any], mapped: tuple[bool, ...]) -> int:
    return max(len(i.shape) - m for i, m in zip(indices, mapped, strict=True))


def _neighbours(spec: tuple[int, ...]) -> bool:
    return spec[-1] - spec[0] == len(spec) - 1


@rule("index")
def _index(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, spec: tuple[int, ...]) -> Any:
    x, indices = xs[0], xs[1:]
    rank = _common_rank(indices, mapped[1:])
    if not any(mapped[1:]):
        y = F.index(x, *indices, spec=tuple([d + 1 for d in spec]))
        if _neighbours(spec):
            return y  # the indices' shape takes the place of the indexed dimensions
        return F.permute(y, dims=(rank, *range(rank), *range(rank + 1, len(y.shape))))
    ready = [aligned(F, i, rank) if m else i for i, m in zip(indices, mapped[1:], strict=True)]
    if not mapped[0]:
        y = F.index(x, *ready, spec=spec)
        first = spec[0] if _neighbours(spec) else 0
        return F.permute(y, dims=(first, *range(first), *range(first + 1, len(y.shape))))
    first = spec[0] if _neighbours(spec) else 0
    y = F.index(x, numbers(F, x, n, rank), *ready, spec=(0, *[d + 1 for d in spec]))
    # the sample's number and the indices are neighbours only if the first dimension is indexed; they come first else
    if not first or _neighbours((0, *[d + 1 for d in spec])):
        return y
    order = (0, *range(1 + rank, 1 + rank + first), *range(1, 1 + rank), *range(1 + rank + first, len(y.shape)))
    return F.permute(y, dims=order)


@rule("index_put")
def _index_put(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, **attrs: Any) -> Any:
    x = every(F, n, xs[:1], mapped[:1])[0]
    return _put_into(door, F, n, [F.contiguous_copy(x), *xs[1:]], (True, *mapped[1:]), **attrs)


@rule("index_put_into")
def _put_into(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, spec: tuple[int, ...], accumulate: bool) -> Any:
    from .batched import unmapped_target

    if not mapped[0]:
        raise unmapped_target("index_put_")
    x, value, indices = xs[0], xs[1], xs[2:]
    rank = _common_rank(indices, mapped[2:])
    ready = [aligned(F, i, rank) if m else i for i, m in zip(indices, mapped[2:], strict=True)]
    first = spec[0] if _neighbours(spec) else 0
    rest = len(x.shape) - 1 - len(spec)
    moved = (0, *[d + 1 for d in spec])
    if first and not _neighbours(moved):
        # the value has the indices' dimensions after ``first`` others; with the sample's number they come first
        full = (
            aligned(F, value, rest + rank)
            if mapped[1]
            else F.slice(value, key=(None,) * (rest + rank + 1 - len(value.shape)))
        )
        value = F.permute(
            full,
            dims=(
                0,
                *range(1 + first, 1 + first + rank),
                *range(1, 1 + first),
                *range(1 + first + rank, len(full.shape)),
            ),
        )
    elif mapped[1]:
        value = aligned(F, value, rest + rank)
    return F.index_put_into(x, value, numbers(F, x, n, rank), *ready, spec=moved, accumulate=accumulate)


@rule("index_select")
def _index_select(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int) -> Any:
    x, index = xs
    if not mapped[1]:
        return F.index_select(x, index, dim=dim + 1)
    flat = index if len(index.shape) > 1 else F.slice(index, key=(slice(None), None))
    return _index(door, F, n, [x, flat], mapped, spec=(dim,))


@rule("index_add")
def _index_add(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int) -> Any:
    x = every(F, n, xs[:1], mapped[:1])[0]
    return _add_into(door, F, n, [F.contiguous_copy(x), *xs[1:]], (True, *mapped[1:]), dim=dim)


@rule("index_add_into")
def _add_into(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int) -> Any:
    from .batched import unmapped_target

    if not mapped[0]:
        raise unmapped_target("index_add_")
    if not mapped[1]:
        return F.index_add_into(xs[0], xs[1], every(F, n, xs[2:], mapped[2:])[0], dim=dim + 1)
    src = every(F, n, xs[2:], mapped[2:])[0]
    return _put_into(door, F, n, [xs[0], src, xs[1]], (True, True, True), spec=(dim,), accumulate=True)


@rule("gather")
def _gather(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int) -> Any:
    x, index = every(F, n, xs, mapped)
    return F.gather(x, index, dim=dim + 1)


def _scatter(name: str) -> Any:
    into = f"{name}_into"

    def copied(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int, **attrs: Any) -> Any:
        return getattr(F, name)(*every(F, n, xs, mapped), dim=dim + 1, **attrs)

    def written(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, dim: int, **attrs: Any) -> Any:
        from .batched import unmapped_target

        if not mapped[0]:
            raise unmapped_target(f"{name}_")
        return getattr(F, into)(*every(F, n, xs, mapped), dim=dim + 1, **attrs)

    return copied, written


for _name in ("scatter", "scatter_add", "scatter_reduce"):
    _copied, _written = _scatter(_name)
    rule(_name)(_copied)
    rule(f"{_name}_into")(_written)


@rule("searchsorted")
def _searchsorted(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, right: bool) -> Any:
    boundaries, values = xs
    if not mapped[0] and len(boundaries.shape) == 1:
        return F.searchsorted(boundaries, values, right=right)
    boundaries, values = every(F, n, xs, mapped)
    shape = tuple(values.shape)
    if len(boundaries.shape) == 2:  # one row of boundaries per sample, whatever shape the values have
        rows = F.reshape(F.contiguous(values), shape=(n, int(np.prod(shape[1:]))))
        return F.reshape(F.searchsorted(boundaries, rows, right=right), shape=shape)
    return F.searchsorted(boundaries, values, right=right)


# --- rows of a table


def _per_sample_rows(F: Any, n: int, index: Any, rows: int) -> Any:
    """Indices into n tables as indices into one that holds them all."""
    index = F.cast(index, dtype=_INT64)
    return F.add(index, F.mul(numbers(F, index, n, len(index.shape) - 1), rows))


@rule("embedding", "padded_embedding")
def _embedding(door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, padding_idx: Any = None) -> Any:
    weight, index = xs
    if not mapped[0]:
        return F.embedding(weight, index)
    index = every(F, n, [index], mapped[1:])[0]
    rows, width = weight.shape[1:]
    _check_rows(F, index, rows)
    table = F.reshape(F.contiguous(weight), shape=(n * rows, width))
    return F.embedding(table, _per_sample_rows(F, n, index, rows))


def _check_rows(F: Any, index: Any, rows: int) -> None:
    """Raises as the table of one sample would: in the joined table a wrong row would be another sample's."""
    probe = F.zeros_as(F.cast(index, dtype=np.dtype(np.float32)), shape=(rows, 1))
    F.embedding(probe, index)


@rule("embedding_backward")
def _embedding_backward(
    door: Any, F: Any, n: int, xs: list[Any], mapped: Any, *, num_embeddings: int, padding_idx: int | None
) -> Any:
    g, index = every(F, n, xs, mapped)
    joined = F.embedding_backward(
        g, _per_sample_rows(F, n, index, num_embeddings), num_embeddings=n * num_embeddings, padding_idx=None
    )
    result = F.reshape(joined, shape=(n, num_embeddings, joined.shape[-1]))
    if padding_idx is not None:
        at = padding_idx % num_embeddings
        F.copy_into(F.slice(result, key=(slice(None), at)), F.zeros_as(result, shape=()))
    return result
