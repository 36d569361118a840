"""sort and topk against NumPy's stable sort."""

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


def test_zero_dimensions() -> None:
    x = np.asarray(np.float32(3))
    assert [part.item() for part in C.sort(x, 0)] == [3, 0]
    assert [part.item() for part in C.topk(x, 1, 0)] == [3, 0]


def test_same_bits_for_any_threads() -> None:
    x = np.random.default_rng(2).standard_normal((50, 3000)).astype("float32")
    for dim in (0, 1):
        same_for_any_threads(lambda d=dim: C.sort(x, d) + C.topk(x, 5, d))


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
