"""Any positions read and written, long scatters, searches: against NumPy, which does one after another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

import tensorgrad._C as C

LONG = 200_000


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "complex128", "int64"])
def test_positions_of_any_axes(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape, count in (((4, 3, 5), 7), ((30, 20, 64), 900), ((2, 3, 2000), 5)):
        for spec in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]:
            x = strided(rng, shape, dtype)
            indices = [rng.integers(-shape[d], shape[d], (count,)) for d in spec]
            key = tuple(indices[spec.index(d)] if d in spec else slice(None) for d in range(3))
            assert np.array_equal(C.index(x, *indices, spec=spec), x[key])
            value = strided(rng, x[key].shape, dtype)
            for given in (value, value[..., :1]):
                expected, got = x.copy(), x.copy()
                expected[key] = given
                assert C.index_put_into(got, given, *indices, spec=spec, accumulate=False) is got
                assert np.array_equal(got, expected)
            total = x.astype({"float16": "float32"}.get(dtype, dtype))
            np.add.at(total, key, value)
            backwards = x.copy()[::-1, :, ::-1]  # written in place, whatever its strides
            backwards[...] = x
            C.index_put_into(backwards, value, *indices, spec=spec, accumulate=True)
            assert np.array_equal(backwards, total.astype(dtype))


def test_positions_that_broadcast_or_are_none() -> None:
    x = np.random.default_rng(1).standard_normal((4, 5, 6))
    rows, columns = np.array([[0], [3]]), np.array([1, 1, -1])
    assert np.array_equal(C.index(x, rows, columns, spec=(0, 2)), x[rows, :, columns])
    assert C.index(x, np.zeros((0, 2), np.int64), spec=(1,)).shape == (4, 0, 2, 6)
    with pytest.raises(IndexError, match="4 is out of bounds for dimension 0 with size 4; it must be from -4 to 3"):
        C.index(x, np.array([4]), spec=(0,))
    with pytest.raises(ValueError, match="do not broadcast"):
        C.index(x, np.array([0, 1, 2]), np.array([0, 1]), spec=(0, 1))
    with pytest.raises(ValueError, match="rising"):
        C.index(x, rows, rows, spec=(1, 0))
    untouched = x.copy()
    with pytest.raises(IndexError):
        C.index_put_into(untouched, x[:1], np.array([-5]), spec=(0,), accumulate=True)
    assert np.array_equal(untouched, x)


@pytest.mark.parametrize("dtype", ["float32", "int32", "float16"])
@pytest.mark.parametrize("places", [3, 1000, LONG])
def test_long_writes_keep_their_order(dtype: str, places: int) -> None:
    rng = np.random.default_rng(2)
    x, src = (rng.integers(-9, 9, n).astype(dtype) for n in (places, LONG))
    index = rng.integers(0, places, LONG)
    for ufunc, got in (
        (np.add, C.scatter_add(x, index, src, 0)),
        (np.add, C.index_add(x, index, src, 0)),
        (np.maximum, C.scatter_reduce(x, index, src, 0, "amax")),
        (np.minimum, C.scatter_reduce(x, index, src, 0, "amin")),
    ):
        expected = x.astype({"float16": "float32"}.get(dtype, dtype))
        ufunc.at(expected, index, src)
        assert np.array_equal(got, expected.astype(dtype))
    expected = x.copy()
    expected[index] = src
    assert np.array_equal(C.scatter(x, index, src, 0), expected)
    two = np.stack([index, index[::-1]])
    pair = C.scatter_add(np.stack([x, x]), two, np.stack([src, src]), 1)
    assert np.array_equal(pair[0], C.scatter_add(x, index, src, 0))
    columns = C.scatter_add(np.stack([x, x], 1), two.T, np.stack([src, src], 1), 0)
    assert np.array_equal(columns.T, pair)


def test_counts() -> None:
    rng = np.random.default_rng(3)
    for n, most in itertools.product((0, 50, LONG), (1, 60, LONG)):
        x = rng.integers(0, most, n)
        assert np.array_equal(C.bincount(x, None, 3), np.bincount(x, minlength=3))
        weights = rng.standard_normal(n)
        assert np.array_equal(C.bincount(x, weights, 0), np.bincount(x, weights))
        values, inverse, counts = C.unique_values(x.reshape(-1, 1), True)
        expected = np.unique(x, return_inverse=True, return_counts=True)
        assert all(np.array_equal(a.reshape(-1), b) for a, b in zip((values, inverse, counts), expected, strict=True))
    with pytest.raises(IndexError, match="negative element, -1"):
        C.bincount(np.array([2, -1]), None, 0)


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float64", "complex64"])
def test_nonzero(dtype: str) -> None:
    rng = np.random.default_rng(4)
    for shape in ([0], [7], [3, 0, 2], [5, 4, 9], [LONG], [300, 700]):
        x = strided(rng, shape, dtype)
        x = np.where(rng.random(shape) < 0.5, x, np.zeros((), x.dtype))
        assert np.array_equal(C.nonzero(x), np.argwhere(x))


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool) -> None:
    rng = np.random.default_rng(5)
    side = "right" if right else "left"
    for length in (0, 1, 2, 37, 5000):
        bounds = np.sort(rng.integers(-50, 50, length)).astype("float32")
        values = np.append(rng.integers(-60, 60, 9001), np.inf).astype("float32")
        assert np.array_equal(C.searchsorted(bounds, values, right), np.searchsorted(bounds, values, side))
    rows, values = np.sort(rng.standard_normal((4, 9))), rng.standard_normal((4, 33))
    expected = np.stack([np.searchsorted(a, b, side) for a, b in zip(rows, values, strict=True)])
    assert np.array_equal(C.searchsorted(rows, values, right), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_places_that_are_nowhere_read_zero(dtype: str) -> None:
    image = np.arange(1, 13, dtype=dtype).reshape(1, 1, 3, 4)
    each = (np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0, 0.0)
    grid = np.array([[[(a, b) for a in each for b in each] * 6]], dtype)  # more than are found at once
    for mode in ("bilinear", "nearest"):
        y = C.grid_sample(image, grid, mode=mode, padding="zeros", align_corners=True)
        there = (grid == 0).all(-1)[:, None]
        assert np.array_equal(y[there], np.full(6, 6.5 if mode == "bilinear" else 7.0, dtype))
        told = mode == "nearest" or np.isfinite(grid).all(-1)[:, None]  # the weights of the others are NaN
        assert not y[~there & told].any()


def test_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(6)
    x, src = rng.standard_normal(1000).astype("float32"), rng.standard_normal(LONG).astype("float32")
    index = rng.integers(0, 1000, LONG)
    table, rows = x.reshape(50, 20), src.reshape(-1, 20)
    at = index[: len(rows)] % 50
    image, grid = rng.standard_normal((2, 3, 40, 40)), rng.uniform(-1.2, 1.2, (2, 50, 60, 2))
    g = rng.standard_normal((2, 3, 50, 60))
    how = {"mode": "bilinear", "padding": "border", "align_corners": False}
    same_for_any_threads(lambda: (
        C.scatter_add(x, index, src, 0), C.index_add(table, at, rows, 0), C.bincount(index, src.astype("float64"), 0),
        C.index_put_into(x.copy(), src, index, spec=(0,), accumulate=True), C.cumsum(src, 0), C.nonzero(src > 0),
        C.vector_norm(src, (0,), 2.0), C.histc(src, 30, -2.0, 2.0), *C.unique_values(index.reshape(-1, 1), True),
        *C.grid_sample_backward(g, image, grid, needs=(True, True), **how),
    ))  # fmt: skip
