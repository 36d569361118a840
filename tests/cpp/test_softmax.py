"""softmax, log_softmax and their gradients against the formulas in double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, shapes, strided

import tensorgrad._C as C

TOLERANCE = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-13}


def log_softmax(x: np.ndarray, dim: int) -> Any:
    shifted = x - x.max(axis=dim, keepdims=True, initial=-np.inf)
    with np.errstate(divide="ignore"):  # rows of no elements
        return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_forward_and_backward(dtype: str) -> None:
    rng = np.random.default_rng(0)
    tolerance = TOLERANCE[dtype]
    for shape in [*shapes(rng, 50, least=1), [4, 5000], [300, 200], [5, 300, 70]]:
        x, g = strided(rng, shape, dtype), strided(rng, shape, dtype)
        dim = int(rng.integers(len(shape)))
        log = log_softmax(x.astype(np.float64), dim)
        y, logy = C.softmax(x, dim), C.log_softmax(x, dim)
        assert y.dtype == logy.dtype == x.dtype
        np.testing.assert_allclose(y, np.exp(log), rtol=4 * tolerance, atol=tolerance * 1e-2)
        np.testing.assert_allclose(logy, log, rtol=tolerance, atol=tolerance)
        exact, wide = np.exp(logy.astype(np.float64)), g.astype(np.float64)
        y64 = y.astype(np.float64)
        total = np.abs(wide).sum(axis=dim, keepdims=True) + 1
        got = C.softmax_backward(g, y, dim)
        expected = y64 * (wide - (wide * y64).sum(axis=dim, keepdims=True))
        assert (np.abs(got - expected) <= tolerance * total).all()
        got = C.log_softmax_backward(g, logy, dim)
        expected = wide - exact * wide.sum(axis=dim, keepdims=True)
        assert (np.abs(got - expected) <= tolerance * total).all()


def test_extremes() -> None:
    infinity = np.inf
    x = np.array([[1e30, -1e30, 0], [-infinity, 0, 0], [-infinity] * 3, [infinity, 0, 0], [np.nan, 0, 0]], "float32")
    for array, dim in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        y = C.softmax(array, dim) if dim else C.softmax(array, dim).T
        assert y[0].tolist() == [1, 0, 0] and y[1].tolist() == [0, 0.5, 0.5]
        assert np.isnan(y[2:]).all(axis=1).tolist() == [True] * 3
    assert C.log_softmax(np.float32([[0, -200]]), 1).tolist() == [[0, -200]]
    assert C.softmax(np.asarray(np.float32(3)), 0).item() == 1


@pytest.mark.parametrize("length", [5, 16, 40, 100])
def test_nan_of_any_bits_and_the_smallest_results(length: int) -> None:
    x = np.zeros((3, length), "float32")
    x.view("uint32")[0, length // 2], x.view("uint32")[1, -1] = 0x7FC00001, 0xFFC001FF
    x[2, 1:] = np.linspace(-104, -87, length - 1)
    for y in (C.softmax(x, 1), C.softmax(x.T.copy(), 0).T):
        assert np.isnan(y[:2]).all()
        np.testing.assert_allclose(y[2], np.exp(x[2].astype("float64")), rtol=1e-6, atol=1e-45)


def test_exponentials_are_within_two_units_in_the_last_place() -> None:
    x = np.linspace(-87, 0, 200_001).astype("float32")
    x[0] = 0
    for dtype, places in (("float32", 2.5), ("float64", 4)):
        row = x.astype(dtype)
        exact = np.exp(row.astype(np.longdouble))
        y = C.log_softmax_backward(np.zeros_like(row), row, 0)
        assert not y.any()
        # a gradient of one in a row of one turns the kernel into 1 - exp(y)
        y = 1 - C.log_softmax_backward(np.ones((row.size, 1), dtype), row[:, None], 1)[:, 0].astype(np.longdouble)
        assert float(np.max(np.abs(y - exact))) <= places * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_are_computed_as_they_are_beside_others(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((67, 140)).astype(dtype), rng.standard_normal((67, 140)).astype(dtype)

    def each(x: np.ndarray, g: np.ndarray) -> list[Any]:
        y, logy = C.softmax(x, 0), C.log_softmax(x, 0)
        return [y, logy, C.softmax_backward(g, y, 0), C.log_softmax_backward(g, logy, 0), C.logsumexp(x, 0)]

    everything = each(x, g)
    np.testing.assert_allclose(everything[4], np.log(np.exp(x.astype(np.float64)).sum(0)), rtol=TOLERANCE[dtype])
    for width in (2, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 79, 100, 128, 131):
        for whole, part in zip(everything, each(x[:, :width].copy(), g[:, :width].copy()), strict=True):
            assert (whole[..., :width] == part).all(), width


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_short_rows_and_narrow_columns_are_computed_as_columns_are(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for length in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32):
        for inner in (1, 2, 3, 4, 7, 15):
            x, g = (rng.standard_normal((131, length, inner)).astype(dtype) for _ in range(2))
            # the same columns, but all in one wide matrix
            columns, gradients = (v.transpose(1, 0, 2).reshape(length, -1).copy() for v in (x, g))
            y, logy = C.softmax(x, 1), C.log_softmax(x, 1)
            got = [y, logy, C.log_softmax_backward(g, logy, 1)]
            wide, logwide = C.softmax(columns, 0), C.log_softmax(columns, 0)
            expected = [wide, logwide, C.log_softmax_backward(gradients, logwide, 0)]
            if inner > 1 or length == 1:  # rows that fill a vector are read as they lie
                got.append(C.softmax_backward(g, y, 1))
                expected.append(C.softmax_backward(gradients, wide, 0))
            for one, other in zip(got, expected, strict=True):
                assert (one == other.reshape(length, 131, inner).transpose(1, 0, 2)).all(), (length, inner)
            assert (C.logsumexp(x, 1).ravel() == C.logsumexp(columns, 0)).all(), (length, inner)
            alone = x[7:8].copy()
            assert (C.softmax_backward(g[7:8].copy(), C.softmax(alone, 1), 1) == C.softmax_backward(g, y, 1)[7:8]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [8, 16, 19, 33, 63, 127, 128, 257, 1500])
def test_rows_are_computed_as_they_are_alone(length: int, dtype: str) -> None:
    rng = np.random.default_rng(5)
    x, g = (rng.standard_normal((37, length)).astype(dtype) for _ in range(2))
    x[5, 1], x[6, 2], x[7] = np.nan, np.inf, -np.inf

    def each(x: np.ndarray, g: np.ndarray) -> list[Any]:
        y, logy = C.softmax(x, 1), C.log_softmax(x, 1)
        return [y, logy, C.softmax_backward(g, y, 1), C.log_softmax_backward(g, logy, 1)]

    together = each(x, g)
    for whole in together:
        assert np.isnan(whole).all(axis=1).nonzero()[0].tolist() == [5, 6, 7]
    for row in range(37):
        of = slice(row, row + 1)
        for whole, alone in zip(together, each(x[of].copy(), g[of].copy()), strict=True):
            assert np.array_equal(alone, whole[of], equal_nan=True), row


@pytest.mark.parametrize("shape", [(3, 100_000), (5000, 77), (9000, 5), (700, 8, 3), (40, 50, 60)])
def test_same_bits_for_any_threads(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal(shape).astype("float32"), rng.standard_normal(shape).astype("float32")
    for dim in range(len(shape)):
        y = same_for_any_threads(lambda d=dim: C.softmax(x, d))
        same_for_any_threads(lambda d=dim: C.log_softmax(x, d))
        same_for_any_threads(lambda d=dim, v=y: (C.softmax_backward(g, v, d), C.log_softmax_backward(g, v, d)))


def test_refusals() -> None:
    x = np.ones((2, 3), "float32")
    with pytest.raises(IndexError, match="valid: 0 to 1"):
        C.softmax(x, 2)
    with pytest.raises(TypeError, match="float32 first"):
        C.softmax(np.ones(3, "int64"), 0)
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(2, 3\)"):
        C.softmax_backward(np.ones((2, 2), "float32"), x, 0)
    with pytest.raises(TypeError, match="float64, expected float32"):
        C.softmax_backward(np.ones((2, 3)), x, 0)
