"""Normalizations and their gradients against the formulas in double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

import tensorgrad._C as C

TOLERANCE = {"float16": 4e-3, "float32": 1e-5, "float64": 1e-11}
EPS = 1e-5
ALL = (True, True, True)
STATISTICS = {"float16": "float32", "float32": "float32", "float64": "float64"}
PLANES = [(4, 6), (64, 33), (3, 4, 5), (2, 6, 3, 4), (1, 2, 300, 300), (70, 8, 31), (9, 12, 1, 1), (2000, 3)]


def normalize(x: np.ndarray, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    mean = x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + EPS)
    return (x - mean) * rstd, mean, rstd


def gradient(d: np.ndarray, xhat: np.ndarray, rstd: np.ndarray, axes: tuple[int, ...], centered: bool = True) -> Any:
    inner = (d * xhat).mean(axes, keepdims=True) * xhat
    return rstd * (d - inner - (d.mean(axes, keepdims=True) if centered else 0))


def close(got: np.ndarray, expected: Any, dtype: str, size: float = 1.0) -> None:
    assert got.dtype == dtype
    limit = TOLERANCE[dtype] * size
    np.testing.assert_allclose(got, expected, rtol=limit, atol=limit)


def inputs(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    offset = np.asarray(2.0 if dtype == "float16" else 50.0, dtype)  # means far from zero
    return np.asarray(strided(rng, shape, dtype) + offset), strided(rng, shape, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("shape", "ndim"), [((4, 6), 1), ((3, 4, 5), 2), ((700, 64), 1), ((5, 3000), 1), ((7,), 1)])
def test_layer_norm(shape: tuple[int, ...], ndim: int, affine: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g = inputs(rng, shape, dtype)
    inside = shape[-ndim:]
    w, b = (strided(rng, inside, dtype), strided(rng, inside, dtype)) if affine else (None, None)
    axes, rows = tuple(range(len(shape) - ndim, len(shape))), tuple(range(len(shape) - ndim))
    xhat, mean, rstd = normalize(x.astype(np.float64), axes)
    weight = w.astype(np.float64) if w is not None else 1.0
    y, got_mean, got_rstd = C.layer_norm(x, w, b, ndim, EPS)
    close(y, xhat * weight + (b.astype(np.float64) if b is not None else 0), dtype, 4)
    close(got_mean, mean, STATISTICS[dtype])
    close(got_rstd, rstd, STATISTICS[dtype])
    g64 = g.astype(np.float64)
    gx, gw, gb = C.layer_norm_backward(g, x, got_mean, got_rstd, w, ndim, ALL)
    close(gx, gradient(g64 * weight, xhat, rstd, axes), dtype, 10)
    scale = float(np.sqrt(x.size)) * 4
    close(gw, (g64 * xhat).sum(rows), dtype, scale)
    close(gb, g64.sum(rows), dtype, scale)
    assert C.layer_norm_backward(g, x, got_mean, got_rstd, w, ndim, (False, True, False))[0] is None
    assert np.array_equal(C.layer_norm_backward(g, x, got_mean, got_rstd, w, ndim, (True, False, False))[0], gx)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(4, 6), (700, 64), (5, 3000)])
def test_rms_norm(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g, w = strided(rng, shape, dtype), strided(rng, shape, dtype), strided(rng, shape[-1:], dtype)
    exact = x.astype(np.float64)
    rstd = 1 / np.sqrt((exact**2).mean(-1, keepdims=True) + EPS)
    y, got_rstd = C.rms_norm(x, w, 1, EPS)
    close(y, exact * rstd * w, dtype, 4)
    close(got_rstd, rstd, STATISTICS[dtype])
    rstd = got_rstd.astype(np.float64)
    g64, xhat = g.astype(np.float64), exact * rstd
    gx, gw = C.rms_norm_backward(g, x, got_rstd, w, 1, (True, True))
    close(gx, gradient(g64 * w, xhat, rstd, (1,), centered=False), dtype, 10)
    close(gw, (g64 * xhat).sum(0), dtype, 4 * float(np.sqrt(x.size)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", PLANES)
def test_batch_norm(shape: tuple[int, ...], affine: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g = inputs(rng, shape, dtype)
    channels = shape[1:2]
    w, b = (strided(rng, channels, dtype), strided(rng, channels, dtype)) if affine else (None, None)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    column = (1, -1) + (1,) * (len(shape) - 2)
    exact, g64 = x.astype(np.float64), g.astype(np.float64)
    xhat, mean, rstd = normalize(exact, axes)
    weight = w.astype(np.float64).reshape(column) if w is not None else 1.0
    bias = b.astype(np.float64).reshape(column) if b is not None else 0.0
    y, got_mean, got_rstd, got_var = C.batch_norm(x, w, b, EPS)
    close(y, xhat * weight + bias, dtype, 4)
    close(got_mean, mean.ravel(), STATISTICS[dtype])
    close(got_rstd, rstd.ravel(), STATISTICS[dtype])
    close(got_var, exact.var(axes), STATISTICS[dtype])
    gx, gw, gb = C.batch_norm_backward(g, x, got_mean, got_rstd, w, ALL)
    close(gx, gradient(g64 * weight, xhat, rstd, axes), dtype, 10)
    close(gw, (g64 * xhat).sum(axes), dtype, 4 * float(np.sqrt(x.size)))
    close(gb, g64.sum(axes), dtype, 4 * float(np.sqrt(x.size)))
    running = (rng.random(channels) + 0.5).astype(dtype)
    got = C.batch_norm_eval(x, w, b, got_mean, running, EPS)
    expected = (exact - mean) / np.sqrt(running.astype(np.float64).reshape(column) + EPS) * weight + bias
    close(got, expected, dtype, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "groups"), [((4, 6), 3), ((2, 6, 3, 4), 2), ((3, 4, 50, 50), 4), ((2, 4, 7), 1)])
def test_group_norm(shape: tuple[int, ...], groups: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, g = inputs(rng, shape, dtype)
    w, b = strided(rng, shape[1:2], dtype), strided(rng, shape[1:2], dtype)
    column = (1, -1) + (1,) * (len(shape) - 2)
    exact, g64 = x.astype(np.float64), g.astype(np.float64)
    xhat, mean, rstd = normalize(exact.reshape(shape[0], groups, -1), (2,))
    y, got_mean, got_rstd = C.group_norm(x, w, b, groups, EPS)
    whole = xhat.reshape(shape)
    close(y, whole * w.reshape(column) + b.reshape(column), dtype, 6)
    close(got_mean, mean[..., 0], STATISTICS[dtype])
    close(got_rstd, rstd[..., 0], STATISTICS[dtype])
    gx, gw, gb = C.group_norm_backward(g, x, got_mean, got_rstd, w, groups, ALL)
    d = (g64 * w.reshape(column)).reshape(xhat.shape)
    close(gx, gradient(d, xhat, rstd, (2,)).reshape(shape), dtype, 10)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    close(gw, (g64 * whole).sum(axes), dtype, 4 * float(np.sqrt(x.size)))
    close(gb, g64.sum(axes), dtype, 4 * float(np.sqrt(x.size)))


def test_constant_data_far_from_zero() -> None:
    x = np.full((8, 100), 1e4 + 0.1, "float32")
    y, mean, rstd = C.layer_norm(x, None, None, 1, EPS)
    assert np.abs(y).max() < 1e-3 and (mean == x[0, 0]).all()
    np.testing.assert_allclose(rstd, 1 / np.sqrt(EPS), rtol=1e-5)


def test_no_samples() -> None:
    empty = np.ones((0, 3, 2), "float32")
    y, mean, _, _ = C.batch_norm(empty, None, None, EPS)
    assert y.shape == (0, 3, 2) and np.isnan(mean).all()
    one = np.ones(3, "float32")
    gx, gw, gb = C.batch_norm_backward(empty, empty, one, one, None, ALL)
    assert gx.shape == (0, 3, 2) and not gw.any() and not gb.any()
    rows = np.ones((0, 3), "float32")
    assert C.layer_norm(rows, None, None, 1, EPS)[0].shape == (0, 3)
    gw = C.layer_norm_backward(rows, rows, np.ones((0, 1), "float32"), np.ones((0, 1), "float32"), None, 1, ALL)[1]
    assert gw.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(500, 300), (16, 3, 100, 100), (32, 16, 20, 20)])
def test_same_bits_for_any_threads(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal(shape).astype("float32"), rng.standard_normal(shape).astype("float32")
    _, mean, rstd, _ = same_for_any_threads(lambda: C.batch_norm(x, None, None, EPS))
    same_for_any_threads(lambda: C.batch_norm_backward(g, x, mean, rstd, None, ALL))
    _, mean, rstd = same_for_any_threads(lambda: C.layer_norm(x, None, None, 1, EPS))
    same_for_any_threads(lambda: C.layer_norm_backward(g, x, mean, rstd, None, 1, ALL))
    _, mean, rstd = same_for_any_threads(lambda: C.group_norm(x, None, None, 1, EPS))
    same_for_any_threads(lambda: C.group_norm_backward(g, x, mean, rstd, None, 1, ALL))


def test_refusals() -> None:
    x = np.ones((2, 4), "float32")
    with pytest.raises(ValueError, match=r"weight has shape \(3,\), expected \(4,\)"):
        C.layer_norm(x, np.ones(3, "float32"), None, 1, EPS)
    with pytest.raises(ValueError, match="valid: 1 to 2"):
        C.layer_norm(x, None, None, 3, EPS)
    with pytest.raises(ValueError, match="4 channels do not divide into 3 groups"):
        C.group_norm(x, None, None, 3, EPS)
    with pytest.raises(ValueError, match="no channel axis"):
        C.batch_norm(np.ones(3, "float32"), None, None, EPS)
    with pytest.raises(TypeError, match="weight is float64, expected float32"):
        C.batch_norm(x, np.ones(4), None, EPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("far", [0.0, 3000.0])
def test_short_rows_of_layer_norm(far, dtype):
    rng = np.random.default_rng(9)
    for length in (1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32, 33):
        x = (rng.standard_normal((131, length)) + far).astype(dtype)
        w, b = (rng.standard_normal(length).astype(dtype) for _ in range(2))
        exact = x.astype(np.longdouble)
        center = exact - exact.mean(1, keepdims=True)
        scaled = center / np.sqrt((center**2).mean(1, keepdims=True) + 1e-5)
        close = {"rtol": 2e-5, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}
        for weight, bias in ((w, b), (w, None), (None, b), (None, None)):
            y, mean, rstd = C.layer_norm(x, weight, bias, 1, 1e-5)
            expected = scaled * (1 if weight is None else w) + (0 if bias is None else b)
            np.testing.assert_allclose(y, expected, **close)
            for row in (0, 17, 130):  # a row's results are its own
                alone = C.layer_norm(x[row : row + 1].copy(), weight, bias, 1, 1e-5)
                assert all((one == many[row : row + 1]).all() for one, many in zip(alone, (y, mean, rstd), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_short_rows(dtype: str) -> None:
    rng = np.random.default_rng(10)
    for length in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 33, 127):
        x, g = (rng.standard_normal((37, length)).astype(dtype) for _ in range(2))
        w = rng.standard_normal(length).astype(dtype)
        for weight in (w, None):
            given = g.astype(np.float64) * (1 if weight is None else w)
            _, mean, rstd = C.layer_norm(x, weight, None, 1, EPS)
            xhat, _, exact = normalize(x.astype(np.float64), (1,))
            layer = C.layer_norm_backward(g, x, mean, rstd, weight, 1, (True, False, False))[0]
            scale = float(exact.max())  # of rows of two, whose numbers may lie side by side
            close(layer, gradient(given, xhat, exact, (1,)), dtype, 20 * scale)
            _, size = C.rms_norm(x, weight, 1, EPS)
            rms = C.rms_norm_backward(g, x, size, weight, 1, (True, False))[0]
            hat = x.astype(np.float64) * size
            close(rms, size * (given - hat * (given * hat).mean(1, keepdims=True)), dtype, 20 * float(size.max()))
            for row in (0, 17, 36):  # a row's gradient is its own
                of = slice(row, row + 1)
                alone = C.layer_norm_backward(
                    g[of].copy(), x[of].copy(), mean[of], rstd[of], weight, 1, (True, False, False)
                )
                assert np.array_equal(alone[0], layer[of])
                alone = C.rms_norm_backward(g[of].copy(), x[of].copy(), size[of], weight, 1, (True, False))
                assert np.array_equal(alone[0], rms[of])
