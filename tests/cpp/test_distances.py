"""Distances between rows and their gradients, against NumPy in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

from tensorgrad.linalg.distances import cdist_backward, cdist_op

C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

TOLERANCE = {"float32": 2e-5, "float64": 2e-13}
ORDERS = [0.0, 0.5, 0.7, 1.0, 1.3, 1.5, 2.0, 2.7, 3.0, 8.0, 12.0, math.inf]
SIZES = [  # batches, rows of a and of b, columns
    ((), 1, 1, 1), ((), 3, 20, 2), ((), 20, 3, 5), ((4,), 7, 9, 3), ((2, 3), 5, 17, 16), ((), 65, 33, 7),
    ((), 70, 300, 130), ((), 9, 260, 1), ((2,), 17, 5, 300), ((), 2, 1, 1000), ((3, 1), 1, 150, 4),
]  # fmt: skip
EMPTY = [((), 0, 3, 2), ((), 3, 0, 2), ((), 3, 4, 0), ((0,), 3, 4, 2), ((2,), 0, 0, 0)]


def numpys(a: np.ndarray, b: np.ndarray, p: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(cdist_op.kernel(np, a.astype("float64"), b.astype("float64"), p=p, product=False))


def numpys_backward(*inputs: np.ndarray, p: float) -> np.ndarray:
    # the largest differences are those that are equal to the distance, in the dtype it has
    wide = inputs if math.isinf(p) else tuple(x.astype("float64") for x in inputs)
    return np.asarray(cdist_backward.kernel(np, *wide, p=p, product=False))


def drawn(sizes: Any, dtype: str) -> list[np.ndarray]:
    """g, a and b, of which rows and elements are equal here and there."""
    batch, n, k, m = sizes
    rng = np.random.default_rng(n + k + m)
    a, b = (strided(rng, (*batch, rows, m), dtype) for rows in (n, k))
    if a.size and b.size:
        b[..., -1, :] = a[..., 0, :]
        b[..., 0, m // 2] = a[..., -1, m // 2]
    return [strided(rng, (*batch, n, k), dtype), a, b]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("sizes", SIZES + EMPTY, ids=str)
def test_distances_and_gradients(sizes: Any, p: float, dtype: str) -> None:
    g, a, b = drawn(sizes, dtype)
    y = same_for_any_threads(lambda: C.cdist(a, b, p))
    expected = numpys(a, b, p)
    assert y.dtype == dtype and y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE[dtype])
    dx = same_for_any_threads(lambda: C.cdist_backward(g, a, b, y, p))
    wanted = numpys_backward(g, a, b, y, p=p)
    assert dx.dtype == dtype and dx.shape == a.shape
    scale = abs(wanted).max(initial=1)
    np.testing.assert_allclose(dx / scale, wanted / scale, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("p", ORDERS)
def test_what_is_not_finite_goes_as_in_numpy(p: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((rows, 40)).astype(dtype) for rows in (20, 19))
    a[2, 3], a[5, 0], a[6, 39], b[7, 1], b[8, 0], b[9, 5] = np.nan, np.inf, -np.inf, np.nan, np.inf, -np.inf
    y, expected = C.cdist(a, b, p), numpys(a, b, p)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE[dtype])
    g = rng.standard_normal(y.shape).astype(dtype)
    g[3, 4], g[4, 4] = np.nan, np.inf
    np.testing.assert_allclose(
        C.cdist_backward(g, a, b, y, p),
        numpys_backward(g, a, b, y, p=p),
        rtol=TOLERANCE[dtype],
        atol=20 * TOLERANCE[dtype],
    )


@pytest.mark.parametrize("p", ORDERS)
def test_nothing_flows_between_equal_rows(p: float) -> None:
    a = np.repeat(np.random.default_rng(0).standard_normal((1, 9)), 21, 0)
    y = C.cdist(a, a[:18], p)
    assert not y.any()
    assert not C.cdist_backward(np.ones_like(y), a, a[:18], y, p).any()


def test_sums_of_many_terms_keep_their_digits() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((rows, 100_000)).astype("float32") for rows in (2, 3))
    for p in (1.0, 2.0, 1.5):
        np.testing.assert_allclose(C.cdist(a, b, p), numpys(a, b, p), rtol=3e-6)


def test_small_and_large_numbers() -> None:
    a, b = np.array([[1e-30, 3e-30]], "float32"), np.array([[-2e-30, 1e-30], [1e30, 1e30]], "float32")
    for p in (1.0, 2.0, 3.0, math.inf):
        with np.errstate(over="ignore"):
            expected = cdist_op.kernel(np, a, b, p=p, product=False)
        np.testing.assert_allclose(C.cdist(a, b, p), expected, rtol=1e-5)
    # too near for squares: the distance is 0, the gradient what the definition says
    y = C.cdist(a, b[:1], 2.0)
    assert y == 0
    np.testing.assert_allclose(C.cdist_backward(np.ones_like(y), a, b[:1], y, 2.0), a - b[:1])


A, B, G = np.ones((2, 3, 4)), np.ones((2, 5, 4)), np.ones((2, 3, 5))
REFUSED = [
    ((A.astype("int64"), B, 2.0), TypeError, "float32 or float64"),
    ((A.astype("float16"), B, 2.0), TypeError, "float32 or float64"),
    ((A, B.astype("float32"), 2.0), TypeError, "b is float32"),
    ((A.tolist(), B, 2.0), TypeError, None),
    ((A[0, 0], B, 2.0), ValueError, "needs a"),
    ((A, B[0], 2.0), ValueError, "b has shape"),
    ((A, B[:1], 2.0), ValueError, "b has shape"),
    ((A, B[..., :3], 2.0), ValueError, "b has shape"),
    ((A, B, -1.0), ValueError, "p must"),
    ((A, B, math.nan), ValueError, "p must"),
    ((A, B, "2"), TypeError, None),
    ((A, B), TypeError, None),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_refused(case: int) -> None:
    given, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        C.cdist(*given)
    with pytest.raises(kind, match=text):
        C.cdist_backward(G, *given[:2], G, *given[2:])


def test_gradients_of_another_shape_are_refused() -> None:
    for g, y in ((G[:1], G), (G, G[..., :4]), (G.transpose(0, 2, 1), G)):
        with pytest.raises(ValueError, match="has shape"):
            C.cdist_backward(g, A, B, y, 2.0)
    with pytest.raises(TypeError, match="y is float32"):
        C.cdist_backward(G, A, B, G.astype("float32"), 2.0)
