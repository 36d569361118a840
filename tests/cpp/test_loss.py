"""Cross-entropy and its gradient against the formula in double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

import tensorgrad._C as C

TOLERANCE = {"float16": 3e-3, "float32": 2e-6, "float64": 1e-12}


def reference(x: Any, t: Any, w: Any, ignore: int, reduction: str, smooth: float) -> tuple[Any, Any]:
    """The loss, and its gradient for an upstream gradient of ones."""
    rows, classes = x.shape
    lse = np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1)
    kept = t != ignore
    safe = np.where(kept, t, 0)
    at = np.where(kept, w[safe], 0.0)
    share = np.where(kept, 1.0, 0.0)
    loss = (1 - smooth) * at * (lse - x[np.arange(rows), safe])
    loss = loss + smooth / classes * share * (w * (lse[:, None] - x)).sum(1)
    p = np.exp(x - lse[:, None])
    hot = np.eye(classes)[safe]
    grad = (1 - smooth) * at[:, None] * (p - hot) + smooth / classes * share[:, None] * (p * w.sum() - w)
    if reduction == "none":
        return loss, grad
    scale = 1 / at.sum() if reduction == "mean" else 1.0
    return loss.sum() * scale, grad * scale


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(1, 1), (8, 10), (150, 7), (300, 50), (20, 3000)])
def test_value_and_gradient(shape: tuple[int, int], smooth: float, weighted: bool, reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = strided(rng, shape, dtype)
    t = rng.integers(0, shape[1], shape[0])
    t[1::5] = -100
    w = (rng.random(shape[1]) + 0.5).astype(dtype) if weighted else None
    wide = w.astype(np.float64) if w is not None else np.ones(shape[1])
    loss, grad = reference(x.astype(np.float64), t, wide, -100, reduction, smooth)
    got, lse = C.cross_entropy(x, t, w, -100, reduction, smooth)
    assert lse.dtype == ("float32" if dtype == "float16" else dtype)  # it stands for a whole row
    assert got.dtype == x.dtype and got.shape == np.shape(loss) and lse.shape == shape[:1]
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got, loss, rtol=tolerance, atol=tolerance)
    up = np.ones(got.shape, dtype)
    gx = C.cross_entropy_backward(up, x, t, w, lse, -100, reduction, smooth)
    np.testing.assert_allclose(gx, grad, rtol=4 * tolerance, atol=tolerance * (4 if reduction != "mean" else 1))
    if reduction == "none":
        assert not gx[1::5].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(3, 5, 1), (4, 21, 80), (1, 2, 300), (40, 3, 7), (2, 70, 66)])
def test_classes_apart_in_memory(shape: tuple[int, int, int], smooth: float, reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    n, classes, inner = shape
    x = (4 * rng.standard_normal(shape)).astype(dtype)
    t = rng.integers(0, classes, (n, inner))
    t[0, ::3] = -100
    w = (rng.random(classes) + 0.5).astype(dtype)
    rows = x.swapaxes(1, 2).reshape(-1, classes).astype(np.float64)
    loss, grad = reference(rows, t.reshape(-1), w.astype(np.float64), -100, reduction, smooth)
    got, lse = same_for_any_threads(lambda: C.cross_entropy(x, t, w, -100, reduction, smooth))
    assert lse.shape == t.shape and got.shape == (t.shape if reduction == "none" else ())
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got.reshape(np.shape(loss)), loss, rtol=tolerance, atol=2 * tolerance)
    how = (-100, reduction, smooth)
    gx = same_for_any_threads(lambda: C.cross_entropy_backward(np.ones(got.shape, dtype), x, t, w, lse, *how))
    expected = grad.reshape(n, inner, classes).swapaxes(1, 2)
    np.testing.assert_allclose(gx, expected, rtol=4 * tolerance, atol=4 * tolerance)
    assert not gx.swapaxes(1, 2)[t == -100].any()


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("shape", [(3, 5, 1), (4, 21, 800), (1, 2, 5000)])
def test_likelihood_of_classes_apart_in_memory(shape: tuple[int, int, int], reduction: str) -> None:
    rng = np.random.default_rng(3)
    n, classes, inner = shape
    x, w = rng.standard_normal(shape).astype("float32"), rng.random(classes).astype("float32")
    t = rng.integers(0, classes, (n, inner))
    t[0, ::3] = -100
    rows, targets = x.swapaxes(1, 2).reshape(-1, classes), t.reshape(-1)
    got = same_for_any_threads(lambda: C.nll_loss(x, t, w, -100, reduction))
    assert np.array_equal(got.reshape(-1), C.nll_loss(rows, targets, w, -100, reduction).reshape(-1))
    up = np.ones(got.shape, "float32")
    gx = same_for_any_threads(lambda: C.nll_loss_backward(up, t, w, classes, -100, reduction))
    expected = C.nll_loss_backward(up.reshape(-1) if up.ndim else up, targets, w, classes, -100, reduction)
    assert np.array_equal(gx.swapaxes(1, 2).reshape(-1, classes), expected)


def test_large_logits_keep_their_digits() -> None:
    x = np.array([[10000.0, 10000.5, 9999.0]], "float32")
    loss, lse = C.cross_entropy(x, np.array([0]), None, -100, "mean", 0.0)
    expected, grad = reference(x.astype(np.float64), np.array([0]), np.ones(3), -100, "mean", 0.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    got = C.cross_entropy_backward(np.ones((), "float32"), x, np.array([0]), None, lse, -100, "mean", 0.0)
    np.testing.assert_allclose(got, grad, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 40])
def test_rows_with_infinite_and_missing_logits(classes: int) -> None:
    x = np.zeros((70, classes), "float32")
    x[3], x[5, 1], x[65, 0] = -np.inf, np.inf, np.nan
    t = np.zeros(70, np.int64)
    loss, lse = C.cross_entropy(x, t, None, -100, "none", 0.0)
    expected = np.full(70, np.log(classes))
    expected[[3, 5, 65]] = -np.inf, np.inf, np.nan
    np.testing.assert_allclose(lse, expected, rtol=1e-6)
    gx = C.cross_entropy_backward(np.ones(70, "float32"), x, t, None, lse, -100, "none", 0.0)
    assert np.flatnonzero(np.isnan(gx).any(1)).tolist() == [3, 5, 65]
    assert np.flatnonzero(np.isnan(loss)).tolist() == [3, 65]


USUAL = (None, -100, "mean", 0.0)  # weight, ignore_index, reduction, label_smoothing


def test_nothing_left_to_average_is_nan() -> None:
    x = np.ones((3, 4), "float32")
    ignored = np.full(3, -100)
    assert np.isnan(C.cross_entropy(x, ignored, *USUAL)[0])
    assert C.cross_entropy(x, ignored, None, -100, "sum", 0.0)[0] == 0
    assert np.isnan(C.cross_entropy(np.ones((0, 4)), np.zeros(0, np.int64), *USUAL)[0])


def test_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((5000, 90)).astype("float32"), rng.integers(0, 90, 5000)
    loss, lse = same_for_any_threads(lambda: C.cross_entropy(x, t, None, -100, "mean", 0.1))
    same_for_any_threads(lambda: C.cross_entropy_backward(np.ones_like(loss), x, t, None, lse, -100, "mean", 0.1))
    x, t = x[:, :10].copy(), t % 10
    loss, lse = same_for_any_threads(lambda: C.cross_entropy(x, t, None, -100, "mean", 0.0))
    same_for_any_threads(lambda: C.cross_entropy_backward(np.ones_like(loss), x, t, None, lse, -100, "mean", 0.0))


def test_refusals() -> None:
    x, t = np.ones((2, 3), "float32"), np.array([0, 1])
    with pytest.raises(IndexError, match=r"target\[1\] is 3, valid: 0 to 2"):
        C.cross_entropy(x, np.array([0, 3]), *USUAL)
    with pytest.raises(IndexError, match=r"target\[0\] is -1"):
        C.cross_entropy_backward(np.ones((), "float32"), x, np.array([-1, 0]), None, np.ones(2, "float32"), *USUAL[1:])
    with pytest.raises(TypeError, match="target is int32, expected int64"):
        C.cross_entropy(x, t.astype("int32"), *USUAL)
    with pytest.raises(ValueError, match="valid: 'none', 'mean', 'sum'"):
        C.cross_entropy(x, t, None, -100, "average", 0.0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        C.cross_entropy(x, t, None, -100, "mean", 1.5)
    with pytest.raises(ValueError, match=r"weight has shape \(2,\), expected \(3,\)"):
        C.cross_entropy(x, t, np.ones(2, "float32"), *USUAL[1:])
    with pytest.raises(ValueError, match=r"expected \(rows, classes\)"):
        C.cross_entropy(np.ones((2, 3, 4, 5), "float32"), t, *USUAL)
    with pytest.raises(ValueError, match=r"target has shape \(2,\), expected \(2, 4\)"):
        C.cross_entropy(np.ones((2, 3, 4), "float32"), t, *USUAL)
    with pytest.raises(ValueError, match=r"shape \(\), expected \(rows, classes\)"):  # and its sizes are not read
        C.cross_entropy_backward(
            np.ones((), "float32"), np.ones((), "float32"), t, None, np.ones(2, "float32"), *USUAL[1:]
        )
