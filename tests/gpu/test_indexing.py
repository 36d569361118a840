"""The kernels that sort, add and move at integer positions, on the CPU by the backend's own Python, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad.backends.cupy.accumulate_kernels import _RANKED, tile_of
from tensorgrad.backends.cupy.index_kernels import CupyIndexing
from tensorgrad.backends.cupy.kernels import SOURCES
from tensorgrad.backends.cupy.place_kernels import grouped, lying
from tensorgrad.dtypes import numpy_dtype
from tensorgrad.errors import IndexOutOfRange

from .host_kernels import HostKernels

JOINED = (
    *(("prod", name) for name in ("uint8", "int64", "float16", "float32", "complex64")),
    *((how, name) for how in ("amax", "amin") for name in ("uint8", "int16", "bfloat16", "float32", "float64")),
)
SUMMED = ("uint8", "int64", "float16", "float32", "complex64")
COMPILED = (
    *(name for source in SOURCES if source.file in ("sort.cu", "index.cu") for name in source.names),
    *(f"sumtiles_{name}" for name in SUMMED),
    *(f"{how}tiles_{name}" for how, name in JOINED),
)


class HostIndexing(CupyIndexing):
    xp = np

    def __init__(self) -> None:
        self._kernels = HostKernels(*COMPILED)

    def _address(self, x: Any) -> int:
        return x.ctypes.data  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def indexing() -> HostIndexing:
    return HostIndexing()


def elements(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 20).astype(numpy_dtype(dtype))


# fewer keys than are ranked, one chunk, several chunks that end anywhere; rows of one digit and of three
@pytest.mark.parametrize(("count", "rows"), [(1, 1), (77, 9), (_RANKED + 1, 3), (5000, 300), (4096, 1 << 17)])
def test_sorts_are_stable(count: int, rows: int, indexing: HostIndexing) -> None:
    place = np.random.default_rng(count).integers(-1, rows + 1, count)
    keys = np.where((place < 0) | (place >= rows), rows, place)
    want = keys.argsort(kind="stable")
    for grid in (1, 3):
        indexing._kernels.grid = grid
        got = indexing._in_order(place, rows)
        assert np.array_equal(got[1], want)
        assert np.array_equal(got[0], keys[want])
    indexing._kernels.grid = 2


def added(target: Any, place: Any, values: Any) -> Any:
    """``values`` (outer, places, inner) added to ``target`` (outer, rows, inner), in the widest type of their kind."""
    wide = np.int64 if target.dtype.kind in "iu" else np.complex128 if target.dtype.kind == "c" else np.float64
    total = target.astype(wide)
    for p, row in enumerate(place):
        total[:, row] += values[:, p].astype(wide)
    return total


@pytest.mark.parametrize("dtype", SUMMED)
@pytest.mark.parametrize(("outer", "rows", "count", "inner"), [(3, 7, 50, 4), (1, 5, 300, 1), (1, 4, 90, 40)])
def test_sums_at_repeated_places(
    dtype: str, outer: int, rows: int, count: int, inner: int, indexing: HostIndexing
) -> None:
    rng = np.random.default_rng(1)
    place = np.where(rng.uniform(size=count) < 0.5, 2, rng.integers(0, rows, count))  # one run over many tiles
    target, values = elements((outer, rows, inner), dtype), elements((outer, count, inner), dtype, 1)
    want = added(target, place, values).astype(target.dtype)
    found = []
    for grid in (1, 4):
        indexing._kernels.grid = grid
        found.append(indexing.index_add_into(target.copy(), place, values, dim=1))
    indexing._kernels.grid = 2
    assert found[0].tobytes() == found[1].tobytes(), "the bits depend on the grid"
    if target.dtype.kind in "iu":
        assert np.array_equal(found[0], want)
    else:
        digits = {"float16": 1e-3, "complex64": 1e-6}.get(dtype, 1.2e-7)
        assert np.allclose(found[0], want, rtol=digits, atol=digits * 50)


REDUCE = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


@pytest.mark.parametrize(("how", "dtype"), JOINED)
@pytest.mark.parametrize(("shape", "count", "dim"), [((3, 7, 4), 50, 1), ((5,), 300, 0), ((4, 40), 90, 0)], ids=str)
def test_products_and_extremes_at_repeated_places(
    how: str, dtype: str, shape: tuple[int, ...], count: int, dim: int, indexing: HostIndexing
) -> None:
    rng = np.random.default_rng(1)
    size = (*shape[:dim], count, *shape[dim + 1 :])
    index = np.where(rng.uniform(size=size) < 0.5, 2, rng.integers(0, shape[dim], size))
    target, values = elements(shape, dtype), elements(size, dtype, 1)
    if how == "prod" and target.dtype.kind in "fc":  # neither too large nor too small
        target, values = [(x / np.abs(x) * rng.uniform(0.97, 1.03, x.shape)).astype(x.dtype) for x in (target, values)]
    if how != "prod" and target.dtype.kind in "fV":
        values[(0,) * len(shape)] = np.nan
        values[(-1,) * len(shape)] = np.inf
    wide = np.int64 if target.dtype.kind in "iu" else np.complex128 if target.dtype.kind == "c" else np.float64
    want = target.astype(wide)
    for place, at in np.ndenumerate(index):
        to = (*place[:dim], at, *place[dim + 1 :])
        want[to] = REDUCE[how](want[to], values[place].astype(wide))
    found = []
    for grid in (1, 4):
        indexing._kernels.grid = grid
        found.append(indexing.scatter_reduce_into(target.copy(), index, values, dim=dim, reduce=how))
    indexing._kernels.grid = 2
    assert found[0].tobytes() == found[1].tobytes(), "the bits depend on the grid"
    if how == "prod" and target.dtype.kind in "fc":
        assert np.allclose(found[0], want, rtol={"float16": 2e-3}.get(dtype, 2e-5), atol=0)
    else:
        assert np.array_equal(found[0], want.astype(target.dtype), equal_nan=target.dtype.kind in "fV")


def test_truths_at_repeated_places(indexing: HostIndexing) -> None:
    index, src = np.array([0, 0, 1, 1, 2, 2]), np.array([True, False, False, False, True, True])
    start = np.array([True, False, True, True])
    want = {"prod": [0, 0, 1, 1], "amax": [1, 0, 1, 1], "amin": [0, 0, 1, 1], "sum": [1, 0, 1, 1]}
    for how, truths in want.items():
        got = (
            indexing.scatter_add_into(start.copy(), index, src, dim=0)
            if how == "sum"
            else indexing.scatter_reduce_into(start.copy(), index, src, dim=0, reduce=how)
        )
        assert got.dtype == bool and got.tolist() == [bool(x) for x in truths], how


def test_what_is_no_row_is_left_out(indexing: HostIndexing) -> None:
    place = np.array([3, -1, 0, 5, 3, -9, 0])
    target, values = elements((5, 2)), elements((7, 2), seed=1)
    kept = [0, 2, 4, 6]
    want = added(target[None], place[kept], values[None, kept])[0]
    got = indexing._joined("sum", target, target, ((), (0,), (1,)), place, values)
    assert np.allclose(got, want, rtol=1e-6)


def test_scatter_add_where_the_index_is_smaller(indexing: HostIndexing) -> None:
    for shape, smaller in (((4, 6, 3), (4, 9, 3)), ((4, 6, 3), (2, 5, 3))):
        index = np.random.default_rng(0).integers(0, 6, smaller)
        src = elements(smaller, seed=2)
        got, want = elements(shape), elements(shape)
        for (i, j, k), at in np.ndenumerate(index):
            want[i, at, k] += src[i, j, k]
        assert np.allclose(indexing.scatter_add_into(got, index, src, dim=1), want, rtol=1e-5, atol=1e-5)


def test_axes_apart_and_arrays_that_are_not_dense(indexing: HostIndexing) -> None:
    i, j = np.array([[1], [0]]), np.array([3, 3, 0])
    target, value = elements((2, 3, 4)).transpose(0, 2, 1)[:, ::-1], elements((2, 3, 4), seed=1)
    for accumulate in (True, False):
        got, want = target.copy(order="K"), target.copy(order="K")
        indexing.index_put_into(got, value[..., :3], i, j - 4, spec=(0, 1), accumulate=accumulate)
        if accumulate:
            np.add.at(want, (i, j), value[..., :3])
        else:
            want[i, j] = value[..., :3]
        assert np.allclose(got, want, rtol=1e-6)
        got, want = target.copy(order="K"), target.copy(order="K")
        indexing.index_put_into(got, value[..., 0].T[:3, :1], i % 2, j % 3, spec=(0, 2), accumulate=accumulate)
        spread = np.broadcast_to(value[..., 0].T[:3, :1], (2, 3, 4))
        if accumulate:
            np.add.at(want, (i % 2, slice(None), j % 3), spread)
        else:
            want[i % 2, :, j % 3] = spread
        assert np.allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "float64", "complex128"])
def test_reading(dtype: str, indexing: HostIndexing) -> None:
    x = elements((3, 5, 6), dtype)
    index = np.array([[4, 0], [1, 4]])
    assert np.array_equal(indexing.index_select(x, index[0], dim=1), x[:, index[0]])
    assert np.array_equal(indexing.index(x, index - 5, spec=(1,)), x[:, index])
    assert np.array_equal(indexing.index(x, index - 5, index, spec=(1, 2)), x[:, index, index])
    assert np.array_equal(indexing.index(x, index % 3, index, spec=(0, 1)), x[index % 3, index])
    assert np.array_equal(indexing.embedding(x[0], index.astype(np.int32)), x[0][index])
    for dim in range(3):
        at = np.random.default_rng(dim).integers(0, x.shape[dim], (2, 4, 5))
        part = tuple(slice(None) if d == dim else slice(0, n) for d, n in enumerate(at.shape))
        assert np.array_equal(indexing.gather(x, at, dim=dim), np.take_along_axis(x[part], at, dim))
    odd = np.zeros(x.size + 1, x.dtype)[1:].reshape(x.shape)  # begins where no 16 bytes begin
    odd[...] = x
    assert np.array_equal(indexing.index(odd, index, spec=(1,)), x[:, index])


def test_a_position_out_of_range_reads_zero_and_writes_nothing(
    indexing: HostIndexing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostIndexing, "check_index", lambda *_, **__: None)
    x, index = elements((4, 3)), np.array([1, 7, -6, 0])
    inside = np.array([1, 0, 0, 1])[:, None]
    assert np.array_equal(indexing.index(x, index, spec=(0,)), x[index % 4] * inside)
    assert np.array_equal(indexing.gather(x, index[:, None] + np.zeros((4, 3), int), dim=0), x[index % 4] * inside)
    got, want = x.copy(), x.copy()
    want[[1, 0]] = 1
    assert np.array_equal(
        indexing.index_put_into(got, np.ones((4, 3), np.float32), index, spec=(0,), accumulate=False), want
    )


def test_rows_without_elements_are_no_rows_of_one(indexing: HostIndexing) -> None:
    # of a slice: what is left of a dense array has steps of zero
    wide = elements((5, 6, 8))
    for x in (wide[:, 0:0], wide[1:4, :, 3:3], wide[0:0], wide[::2, 2:2, ::3]):
        place = lying(x.shape, x.strides, x.itemsize, grouped(3, (1,)), 16)
        assert place is not None and place.outer * place.rows * place.inner == 0
    for x in (wide[:, :, 0:0], wide[::2, :, 3:3]):
        place = lying(x.shape, x.strides, x.itemsize, grouped(3, (1,)), 16)
        assert place is not None and place.inner == 0  # else a kernel writes to memory of nobody
        for at in ([1, 3], [4]):
            assert indexing.index_select(x, np.array(at), dim=1).shape == (len(x), len(at), 0)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_positions_out_of_range_are_refused_by_name(wrong: int, indexing: HostIndexing) -> None:
    x, line = elements((4, 3)), np.array([1, wrong, 0] * 200)
    index = np.stack((line,) * 3, axis=1)
    src = elements(index.shape)
    calls: dict[str, Callable[[], Any]] = {
        "gather": lambda: indexing.gather(x, index, dim=0),
        "index_select": lambda: indexing.index_select(x, line[::2], dim=0),
        "embedding": lambda: indexing.embedding(x, line.astype(np.int32)),
        "scatter": lambda: indexing.scatter_into(x, index, src, dim=0),
        "scatter_add": lambda: indexing.scatter_add_into(x, index, src, dim=0),
        "scatter_reduce": lambda: indexing.scatter_reduce_into(x, index, src, dim=0, reduce="prod"),
        "index_add": lambda: indexing.index_add_into(x, line, src, dim=0),
    }
    for name, call in calls.items():
        with pytest.raises(IndexOutOfRange, match=f"^{name}: index {wrong} is out of bounds for dimension 0 with"):
            call()
    assert np.array_equal(x, elements((4, 3))), "something was written"
    indexing.check_index("index", np.array([-4, 3]), 4, 0, negative=True)
    with pytest.raises(IndexOutOfRange, match="-5"):
        indexing.check_index("index", np.array([-5, 3]), 4, 0, negative=True)


def test_the_last_of_equal_places_stays(indexing: HostIndexing) -> None:
    index = np.random.default_rng(3).integers(0, 6, 400)
    value = elements((400, 3))
    want = np.zeros((6, 3), np.float32)
    for p, row in enumerate(index):
        want[row] = value[p]
    got = indexing.index_put_into(np.zeros((6, 3), np.float32), value, index, spec=(0,), accumulate=False)
    assert np.array_equal(got, want)
    columns = indexing.scatter_into(np.zeros((3, 6), np.float32).T, index[:, None] + np.zeros(3, int), value, dim=0)
    assert np.array_equal(columns, want)
    one = np.full((1,), 7, np.float32)
    assert np.array_equal(
        indexing.index_put_into(want.copy(), one, index[:1], spec=(0,), accumulate=False)[index[0]], [7] * 3
    )


@pytest.mark.parametrize("padding", [None, 2])
def test_rows_of_a_table_get_what_was_read_from_them(padding: int | None, indexing: HostIndexing) -> None:
    index = np.random.default_rng(0).integers(0, 5, (6, 7))
    g = elements((6, 7, 8))
    got = indexing.embedding_backward(g, index, num_embeddings=5, padding_idx=padding)
    want = added(np.zeros((1, 5, 8)), index.reshape(-1), g.reshape(1, -1, 8))[0]
    if padding is not None:
        want[padding] = 0
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_tiles_leave_enough_threads() -> None:
    assert tile_of(100, 1) == 16
    assert tile_of(1 << 16, 768) == 256
    assert (1 << 20) // tile_of(1 << 20, 1) >= 1 << 16
