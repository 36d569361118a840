"""Triangular systems and Cholesky factors."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads

import tensorgrad as tg

C = pytest.importorskip("tensorgrad._C")

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
SHAPES = [(1, 1), (5, 5), (2, 3, 7, 7), (40, 40), (193, 193), (450, 450), (3, 0, 0), (0, 4, 4)]


def positive(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    a = np.random.default_rng(len(shape) + shape[-1]).standard_normal(shape)
    return (a @ a.swapaxes(-1, -2) / max(shape[-1], 1) + np.eye(shape[-1])).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cholesky(shape: tuple[int, ...], upper: bool, dtype: str) -> None:
    a = positive(shape, dtype)
    read = np.triu(a) if upper else np.tril(a)  # the other triangle is not looked at
    found, info = C.linalg_cholesky(read, upper)
    expected = np.linalg.cholesky(a.astype("float64")) if a.size else a
    assert found.dtype == dtype and info.dtype == "int32" and info.shape == shape[:-2] and not info.any()
    np.testing.assert_allclose(found, expected.swapaxes(-1, -2) if upper else expected, atol=TOLERANCE[dtype])
    same_for_any_threads(lambda: C.linalg_cholesky(read, upper)[0])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan, -np.inf])
@pytest.mark.parametrize("at", [0, 2, 200])
def test_cholesky_says_which_minor_is_at_fault(at: int, value: float, dtype: str) -> None:
    a = np.stack([np.eye(at + 3), np.eye(at + 3)]).astype(dtype)
    a[1, at, at] = value
    for upper in (False, True):
        found, info = C.linalg_cholesky(a, upper)
        assert info.tolist() == [0, at + 1]
        np.testing.assert_array_equal(found[0], a[0])
        np.testing.assert_array_equal(found[1, :at, :at], np.eye(at))
        with tg.backend("numpy"):
            np.testing.assert_array_equal(found, tg.linalg.cholesky_ex(tg.tensor(a), upper=upper).L.numpy())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("columns", [1, 5, 130])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_solve_triangular(shape: tuple[int, ...], upper: bool, unit: bool, columns: int, dtype: str) -> None:
    n, rng = shape[-1], np.random.default_rng(0)
    a = (0.3 * rng.standard_normal(shape) / max(n, 1) + 2 * np.eye(n)).astype(dtype)
    b = rng.standard_normal((*shape[:-1], columns)).astype(dtype)
    found = C.linalg_solve_triangular(a, b, upper, unit)
    used = (np.triu(a) if upper else np.tril(a)).astype("float64")
    if unit:
        used = used - used * np.eye(n) + np.eye(n)
    assert found.dtype == dtype and found.shape == b.shape
    np.testing.assert_allclose(used @ found, b, atol=10 * TOLERANCE[dtype])
    by_columns = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_allclose(C.linalg_solve_triangular(by_columns, b, upper, unit), found, atol=TOLERANCE[dtype])
    apart = np.repeat(b, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(C.linalg_solve_triangular(a, apart, upper, unit), found)
    same_for_any_threads(lambda: C.linalg_solve_triangular(a, b, upper, unit))


def test_a_zero_on_the_diagonal_is_no_error() -> None:
    a = np.diag([2.0, 0.0, 1.0]).astype("float32")
    found = C.linalg_solve_triangular(a, np.ones((3, 2), "float32"), False, False)
    assert found[0].tolist() == [0.5, 0.5] and not np.isfinite(found[1]).any()


def test_what_does_not_fit_is_refused() -> None:
    square, wide = np.eye(3, dtype="float32"), np.ones((3, 4), "float32")
    with pytest.raises(ValueError, match="last two dimensions must be equal"):
        C.linalg_cholesky(wide, False)
    with pytest.raises(ValueError, match="linalg_solve_triangular"):
        C.linalg_solve_triangular(square, np.ones((4, 2), "float32"), False, False)
    with pytest.raises(TypeError, match="linalg_solve_triangular"):
        C.linalg_solve_triangular(square, wide.astype("float64"), False, False)
    assert C.linalg_cholesky(square.astype(complex), False) is NotImplemented
