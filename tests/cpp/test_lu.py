"""LU factors, and systems, inverses and determinants by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

import tensorgrad as tg

C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

TOLERANCE = {"float32": 3e-5, "float64": 1e-13}
SQUARE = [(1, 1), (5, 5), (2, 3, 7, 7), (17, 17), (70, 70), (300, 300), (3, 0, 0), (0, 4, 4)]
OTHERS = [(6, 3), (3, 6), (40, 17), (17, 90), (2, 150, 40), (2, 0, 3), (3, 0)]


def drawn(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    a = np.random.default_rng(sum(shape)).standard_normal(shape)
    return (a + 2 * np.sqrt(max(shape)) * np.eye(*shape[-2:])[::-1]).astype(dtype)  # all rows change their places


def numpys(name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    with tg.backend("numpy"):
        return tuple(result.numpy() for result in getattr(tg.linalg, name)(*map(tg.tensor, inputs)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SQUARE + OTHERS, ids=str)
def test_factors(shape: tuple[int, ...], dtype: str) -> None:
    a = drawn(shape, dtype)
    m, n = shape[-2:]
    k = min(m, n)
    lu, pivots, info = C.linalg_lu_factor(a)
    assert lu.dtype == dtype and pivots.dtype == info.dtype == "int32" and not info.any()
    assert pivots.shape == (*shape[:-2], k) and info.shape == shape[:-2]
    wide = lu.astype("float64")
    lower, upper = np.tril(wide[..., :k], -1) + np.eye(m, k), np.triu(wide[..., :k, :])
    assert not lower.size or abs(lower).max() <= 1
    count = int(np.prod(shape[:-2]))
    rows = a.astype("float64").reshape(count, m, n)
    for matrix, exchanges in zip(rows, pivots.reshape(count, k), strict=True):
        for j, at in enumerate(exchanges):
            matrix[[j, at - 1]] = matrix[[at - 1, j]]
    np.testing.assert_allclose((lower @ upper).reshape(rows.shape), rows, atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(pivots, numpys("lu_factor_ex", a)[1])
    same_for_any_threads(lambda: C.linalg_lu_factor(a))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SQUARE, ids=str)
def test_solve(shape: tuple[int, ...], dtype: str) -> None:
    a = drawn(shape, dtype)
    for columns in (0, 3, 130) if shape[-1] < 300 else (130,):
        b = np.random.default_rng(columns).standard_normal((*shape[:-1], columns)).astype(dtype)
        x, info = C.linalg_solve(a, b)
        assert x.dtype == dtype and x.shape == b.shape and info.shape == shape[:-2] and not info.any()
        expected = np.linalg.solve(a.astype("float64"), b) if b.size else b
        np.testing.assert_allclose(x, expected, atol=TOLERANCE[dtype])
        same_for_any_threads(lambda b=b: C.linalg_solve(a, b))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SQUARE, ids=str)
def test_inverses_and_determinants(shape: tuple[int, ...], dtype: str) -> None:
    a = drawn(shape, dtype)
    wide = a.astype("float64") if a.size else np.empty((*shape[:-2], 0, 0))
    inverse, info = C.linalg_inv(a)
    assert inverse.dtype == dtype and info.shape == shape[:-2] and not info.any()
    np.testing.assert_allclose(inverse, np.linalg.inv(wide) if a.size else a, atol=TOLERANCE[dtype])
    same_for_any_threads(lambda: C.linalg_inv(a))
    sign, size = C.linalg_slogdet(a)
    signs, sizes = np.linalg.slogdet(wide)
    assert sign.dtype == size.dtype == dtype and sign.shape == size.shape == shape[:-2]
    np.testing.assert_array_equal(sign, signs)
    np.testing.assert_allclose(size, sizes, rtol=TOLERANCE[dtype])
    if shape[-1] < 70:  # larger ones have too large determinants for float32
        found = C.linalg_det(a)
        assert found.dtype == dtype and found.shape == shape[:-2]
        np.testing.assert_allclose(found, np.linalg.det(wide), rtol=20 * TOLERANCE[dtype])


def test_elements_may_lie_anywhere() -> None:
    rng = np.random.default_rng(3)
    for n in (2, 6, 20):
        for _ in range(8):
            a = strided(rng, (2, n, n), "float64")
            b = strided(rng, (2, n, 3), "float64")
            given = a.copy(), b.copy()
            together = np.ascontiguousarray(a), np.ascontiguousarray(b)
            for found, same in [
                (C.linalg_solve(a, b), C.linalg_solve(*together)),
                *[(f(a), f(together[0])) for f in (C.linalg_inv, C.linalg_lu_factor, C.linalg_slogdet)],
            ]:
                for x, y in zip(found, same, strict=True):
                    np.testing.assert_array_equal(x, y)
            assert (a == given[0]).all() and (b == given[1]).all()


def test_exponents_of_determinants_are_apart() -> None:
    for dtype, size in (("float32", 1e30), ("float64", 1e200)):
        for order in ([size, size, 1 / size, 1 / size, 3], [1 / size, 1 / size, size, size, -3]):
            np.testing.assert_allclose(C.linalg_det(np.diag(order).astype(dtype)), order[-1], rtol=1e-6)
        assert C.linalg_det(np.diag([size, -size, 1]).astype(dtype)) == -np.inf
        assert C.linalg_det(np.diag([1 / size, 1 / size, 1]).astype(dtype)) == 0
        assert np.isnan(C.linalg_det(np.full((2, 2), np.nan, dtype)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_singular_matrices(n: int, dtype: str) -> None:
    """What LAPACK and NumPy's backend say of them, and the other matrices of the batch as without them."""
    at = n // 2
    bad = np.eye(n, dtype=dtype)
    bad[at, at] = 0
    a = np.stack([2 * np.eye(n, dtype=dtype), bad, np.zeros((n, n), dtype)])
    b = np.ones((3, n, 2), dtype)
    for name, inputs in (("solve_ex", (a, b)), ("inv_ex", (a,))):
        found, expected = getattr(C, f"linalg_{name[:-3]}")(*inputs), numpys(name, *inputs)
        assert found[1].tolist() == expected[1].tolist() == [0, at + 1, 1]
        np.testing.assert_array_equal(found[0][0], expected[0][0])
        assert not np.isfinite(found[0][1:]).all(axis=(1, 2)).any()
    assert C.linalg_lu_factor(a)[2].tolist() == [0, at + 1, 1]
    assert C.linalg_det(a).tolist() == [2.0**n, 0, 0]
    sign, size = C.linalg_slogdet(a)
    assert sign.tolist() == [1, 0, 0] and not np.signbit(sign).any()
    np.testing.assert_allclose(size, [n * np.log(2), -np.inf, -np.inf], rtol=1e-6)


@pytest.mark.parametrize("name", ["inv_ex", "solve_ex"])
def test_results_too_large_are_singular_and_nan_is_not(name: str) -> None:
    a = np.stack([np.full((1, 1), value, "float32") for value in (1e-45, np.nan, np.inf, 1.0)])
    inputs = (a, np.ones_like(a)) if name == "solve_ex" else (a,)
    found, info = getattr(C, f"linalg_{name[:-3]}")(*inputs)
    np.testing.assert_array_equal(found[:, 0, 0], np.array([np.inf, np.nan, 0, 1]))
    assert info.tolist() == [1, 0, 0, 0]


def test_what_does_not_fit_is_refused() -> None:
    square, wide = np.eye(3, dtype="float32"), np.ones((3, 4), "float32")
    for name in ("inv", "det", "slogdet"):
        with pytest.raises(ValueError, match="last two dimensions must be equal"):
            getattr(C, f"linalg_{name}")(wide)
        assert getattr(C, f"linalg_{name}")(square.astype(complex)) is NotImplemented
    with pytest.raises(ValueError, match="linalg_lu_factor: expected matrices"):
        C.linalg_lu_factor(square[0])
    with pytest.raises(ValueError, match="linalg_solve: b has shape"):
        C.linalg_solve(square, np.ones((4, 2), "float32"))
    with pytest.raises(TypeError, match="linalg_solve: b is float64"):
        C.linalg_solve(square, wide.astype("float64"))


def test_bounds() -> None:
    for dtype in ("int32", "int64"):
        x = np.arange(6, dtype=dtype).reshape(2, 3)
        found = C.require_between(x.T, 0, 5, IndexError, "")
        assert found == 0 and found.shape == () and found.dtype == "int32"
        with pytest.raises(IndexError, match=r"^\(Batch element 1\): 3, so 3$"):
            C.require_between(x.T, 0, 2, IndexError, "{where}{value}, so {value}")
        with pytest.raises(ZeroDivisionError, match=r"^-7 is too low$"):
            C.require_between(np.array(-7, dtype), 0, 2, ZeroDivisionError, "{where}{value} is too low")
        assert C.require_between(x[:0], 1, 0, IndexError, "") == 0
    with pytest.raises(TypeError, match="int32 or int64"):
        C.require_between(np.ones(2), 0, 1, IndexError, "")
    with pytest.raises(TypeError, match="class of exceptions"):
        C.require_between(x, 0, 1, "index", "")


def test_compiled_steps_have_no_calls_in_python() -> None:
    def loss(a: Any, b: Any) -> Any:
        right = tg.linalg.solve(a, b.mT, left=False)
        return (tg.linalg.solve(a, b) ** 2).sum() + tg.logdet(a @ a.mT) + tg.linalg.inv(a).sum() + right.sum()

    step = tg.compile(tg.func.grad(loss, argnums=(0, 1)))
    a, b = tg.tensor(drawn((4, 4), "float32")), tg.ones(4, 2)
    with tg.backend("cpp"):
        for given in (a, a + 1):
            for found, expected in zip(step(given, b), tg.func.grad(loss, argnums=(0, 1))(given, b), strict=True):
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)
        assert "(Python)" not in step.explain()
        with pytest.raises(tg.linalg.LinAlgError, match=r"pivot 1 is zero(?s:.*)in loss"):
            step(tg.zeros(4, 4), b)
