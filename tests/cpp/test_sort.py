"""sort, topk, kthvalue and medians against NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, shapes, strided

import tensorgrad._C as C

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def order(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """Stable in both directions; NaN is the largest."""
    if not descending:
        return np.argsort(x, dim, kind="stable")
    flipped = np.flip(x, dim)
    return np.flip(x.shape[dim] - 1 - np.argsort(flipped, dim, kind="stable"), dim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_sort(descending: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in [*shapes(rng, 40, least=1), [100], [3, 600], [700, 4], [20_000]]:
        x = strided(rng, shape, dtype)
        if x.dtype.kind == "f" and x.size > 3:
            x = x.copy()
            x.reshape(-1)[::3] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
        dim = int(rng.integers(len(shape)))
        values, indices = C.sort(x, dim, descending, True)
        expected = order(x, dim, descending)
        assert values.dtype == x.dtype and indices.dtype == np.int64
        assert np.array_equal(indices, expected)
        np.testing.assert_array_equal(values, np.take_along_axis(x, expected, dim))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_short_lines_are_sorted_stably(dtype: str) -> None:
    rng = np.random.default_rng(2)
    for length in range(1, 11):
        x = rng.integers(-2, 3, (97, length)).astype(dtype)
        if x.dtype.kind == "f":
            x = x * np.where(rng.random(x.shape) < 0.1, np.nan, 1).astype(dtype)  # zeros of both signs
        for descending in (False, True):
            values, indices = C.sort(x, 1, descending, True)
            expected = order(x, 1, descending)
            np.testing.assert_array_equal(indices, expected)
            assert values.tobytes() == np.take_along_axis(x, expected, 1).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("largest", [False, True])
def test_topk(largest: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for shape in [*shapes(rng, 40, least=1), [100], [3, 600], [700, 4]]:
        x = strided(rng, shape, dtype)
        dim = int(rng.integers(len(shape)))
        for k in {0, min(1, shape[dim]), min(3, shape[dim]), shape[dim]}:
            values, indices = C.topk(x, k, dim, largest, True)
            expected = np.take(order(x, dim, largest), range(k), dim)
            assert np.array_equal(indices, expected)
            assert np.array_equal(values, np.take_along_axis(x, expected, dim))


def long_lines(dtype: str) -> list[np.ndarray]:
    """Lines that are sorted on all threads: of any values, of few, of one, with an outlier and what has no number."""
    rng = np.random.default_rng(3)
    n = 150_000
    spread = rng.standard_normal(n) * 100
    lines = [spread, rng.integers(0, 4, n), np.full(n, 3), np.arange(n)[::-1] % 100]
    made = [
        np.asarray(line).astype(np.int64 if np.dtype(dtype).kind in "iu" else dtype).astype(dtype) for line in lines
    ]
    if np.dtype(dtype).kind == "f":
        odd = made[0].copy()
        odd[::7], odd[::11], odd[::13], odd[5] = np.nan, 0.0, -0.0, np.inf
        made.append(odd)
    elif dtype == "int64":
        far = made[1].copy()
        far[-1] = 2**62
        made += [far, rng.integers(-(2**63), 2**63 - 1, n)]
    return made


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64"])
def test_long_lines(dtype: str) -> None:
    for x in long_lines(dtype):
        for descending in (False, True):
            expected = order(x, 0, descending)
            values, indices = C.sort(x, 0, descending, True)
            assert np.array_equal(indices, expected)
            np.testing.assert_array_equal(values, x[expected])
            for k in (1, 100, 5000):
                values, indices = C.topk(x, k, 0, descending, True)
                assert np.array_equal(indices, expected[:k])
                np.testing.assert_array_equal(values, x[expected[:k]])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_places(dtype: str) -> None:
    rng = np.random.default_rng(4)
    lines = long_lines(dtype) if dtype != "int32" and dtype != "float16" else []
    for x in [*(strided(rng, shape, dtype) for shape in [[1], [90], [5, 700], [700, 5], [3, 9000]]), *lines]:
        for dim in range(x.ndim):
            ordered = order(x, dim, False)
            for k in {1, (x.shape[dim] + 1) // 2, x.shape[dim]}:
                values, indices = C.kthvalue(x, k, dim, True)
                assert np.array_equal(indices, np.take(ordered, [k - 1], dim))
                np.testing.assert_array_equal(values, np.take_along_axis(x, indices, dim))
            middle = np.take(ordered, [(x.shape[dim] - 1) // 2], dim)
            bad = np.isnan(x).any(dim, keepdims=True)
            first_bad = np.expand_dims(np.isnan(x).argmax(dim), dim)
            assert np.array_equal(C.median_dim(x, dim, True)[1], np.where(bad, first_bad, middle))
            numbers = np.maximum((~np.isnan(x)).sum(dim, keepdims=True) - 1, 0) // 2
            assert np.array_equal(C.nanmedian_dim(x, dim, True)[1], np.take_along_axis(ordered, numbers, dim))


def test_zero_dimensions() -> None:
    x = np.asarray(np.float32(3))
    assert [part.item() for part in C.sort(x, 0)] == [3, 0]
    assert [part.item() for part in C.topk(x, 1, 0)] == [3, 0]


def test_same_bits_for_any_threads() -> None:
    x = np.random.default_rng(2).standard_normal((50, 3000)).astype("float32")
    for dim in (0, 1):
        same_for_any_threads(lambda d=dim: C.sort(x, d) + C.topk(x, 5, d) + C.kthvalue(x, 7, d) + C.median_dim(x, d))
    line = x.reshape(-1)
    same_for_any_threads(lambda: C.sort(line, 0) + C.topk(line, 5, 0) + C.kthvalue(line, 7, 0) + C.median_dim(line, 0))


def test_refusals() -> None:
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="k is 4, valid: 0 to 3"):
        C.topk(x, 4, 1)
    with pytest.raises(ValueError, match="k is 0, valid: 1 to 1"):
        C.topk(np.asarray(1.0), 0, 0)
    with pytest.raises(IndexError, match="valid: 0 to 1"):
        C.sort(x, 2)
    with pytest.raises(TypeError, match="no order"):
        C.sort(np.ones(3, "complex64"), 0)
