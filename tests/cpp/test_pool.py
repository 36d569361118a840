"""Pools of the C++ kernels against plain loops over windows, with PyTorch's rules for edges, counts and NaN."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from numpy.random import default_rng

_C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)


@pytest.fixture(autouse=True)
def threads_restored():
    before = _C.num_threads()
    yield
    _C.set_num_threads(before)


def out_length(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    room = n + 2 * p - d * (k - 1) - 1
    length = (math.ceil(room / s) if ceil_mode else room // s) + 1
    return length - 1 if ceil_mode and (length - 1) * s >= n + p else length


def random_case(seed: int, *, dilated: bool) -> tuple[tuple[int, ...], dict]:
    draw = random.Random(seed)
    axes = draw.choice([1, 2, 2, 3])
    kernel = tuple(draw.choice([1, 2, 3, 4]) for _ in range(axes))
    dilation = tuple(draw.choice([1, 1, 2]) if dilated else 1 for _ in range(axes))
    padding = tuple(draw.randint(0, k // 2) for k in kernel)
    size = tuple(draw.randint(d * (k - 1) + 1, 12) for k, d in zip(kernel, dilation, strict=True))
    shape = (draw.choice([1, 3]), draw.choice([1, 4]), *size)
    attributes = {
        "kernel": kernel,
        "stride": tuple(draw.choice([1, 2, 2, 3]) for _ in range(axes)),
        "padding": padding,
        "ceil_mode": draw.random() < 0.4,
    }
    return shape, {**attributes, "dilation": dilation} if dilated else attributes


def windows(shape, *, kernel, stride, padding, ceil_mode, dilation=None):
    """For every output position: its place, and per axis (start, end with padding, positions inside)."""
    dilation = dilation or (1,) * len(kernel)
    sizes = list(zip(shape[2:], kernel, stride, padding, dilation, strict=True))
    for place in itertools.product(*(range(out_length(*size, ceil_mode)) for size in sizes)):
        axes = []
        for o, (n, k, s, p, d) in zip(place, sizes, strict=True):
            start = o * s - p
            axes.append((start, min(start + k, n + p), [i for i in range(start, start + d * k, d) if 0 <= i < n]))
        yield place, axes


def out_shape(shape, attributes):
    a = attributes
    dilation = a.get("dilation") or (1,) * len(a["kernel"])
    sizes = zip(shape[2:], a["kernel"], a["stride"], a["padding"], dilation, strict=True)
    return (*shape[:2], *(out_length(*size, a["ceil_mode"]) for size in sizes))


def flat(place: tuple[int, ...], shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(place, shape[2:]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("seed", range(25))
def test_max_pool(seed, dtype):
    shape, attributes = random_case(seed, dilated=True)
    rng = default_rng(seed)
    x = rng.integers(-5, 5, shape).astype(dtype)  # with ties: the first maximum counts
    values, indices = _C.max_pool(x, **attributes)
    expected, where = np.zeros(out_shape(shape, attributes), dtype), np.zeros(out_shape(shape, attributes), "int64")
    for place, axes in windows(shape, **attributes):
        inside = list(itertools.product(*(positions for _, _, positions in axes)))
        seen = np.stack([x[(..., *i)] for i in inside])
        expected[(..., *place)] = seen.max(0)
        where[(..., *place)] = np.array([flat(i, shape) for i in inside])[seen.argmax(0)]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(_C.max_pool_values(x, **attributes), expected)
    np.testing.assert_array_equal(indices, where)
    assert values.dtype == dtype and indices.dtype == np.int64
    g = rng.standard_normal(values.shape).astype(dtype)
    gx = np.zeros((shape[0], shape[1], math.prod(shape[2:])))
    for n, c in np.ndindex(shape[:2]):
        np.add.at(gx[n, c], indices[n, c].ravel(), g[n, c].astype("float64").ravel())
    got = _C.max_pool_backward(g, indices, input_shape=shape)
    np.testing.assert_allclose(got, gx.reshape(shape), atol=2e-2 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("divisor", [None, 3, -2])
@pytest.mark.parametrize("include_pad", [True, False])
@pytest.mark.parametrize("seed", range(15))
def test_avg_pool(seed, include_pad, divisor):
    shape, attributes = random_case(seed + 100, dilated=False)
    rng = default_rng(seed)
    x = rng.standard_normal(shape)
    options = {**attributes, "count_include_pad": include_pad, "divisor_override": divisor}
    y = np.zeros(out_shape(shape, attributes))
    g, gx = rng.standard_normal(y.shape), np.zeros(shape)
    for place, axes in windows(shape, **attributes):
        count = math.prod(end - start if include_pad else len(positions) for start, end, positions in axes)
        inside = (..., *(slice(p[0], p[-1] + 1) if p else slice(0, 0) for _, _, p in axes))
        by = divisor or count
        y[(..., *place)] = x[inside].sum(tuple(range(2, x.ndim))) / by
        gx[inside] += g[(..., *place)].reshape(*shape[:2], *[1] * len(place)) / by
    np.testing.assert_allclose(_C.avg_pool(x, **options), y, atol=1e-12)
    np.testing.assert_allclose(_C.avg_pool_backward(g, input_shape=shape, **options), gx, atol=1e-12)
    single = _C.avg_pool(x.astype("float32"), **options)
    np.testing.assert_allclose(single, y, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 3, 7), (3,)),
        ((2, 3, 8, 8), (1, 1)),
        ((1, 2, 5, 9), (7, 4)),
        ((2, 1, 4, 6, 5), (2, 3, 4)),
        ((0, 3, 4, 4), (2, 2)),
        ((2, 3, 4, 4), (0, 2)),
    ],
)
def test_adaptive_pools(shape, size):
    rng = default_rng(0)
    x = rng.standard_normal(shape)
    mean, largest = np.zeros((*shape[:2], *size)), np.zeros((*shape[:2], *size))
    g, gx = rng.standard_normal(mean.shape), np.zeros(shape)
    for place in np.ndindex(*size):
        bounds = zip(place, shape[2:], size, strict=True)
        inside = (..., *(slice(o * n // m, -((-(o + 1) * n) // m)) for o, n, m in bounds))
        axes = tuple(range(2, x.ndim))
        count = x[inside][0, 0].size if x.size else 1
        mean[(..., *place)] = x[inside].sum(axes) / count
        largest[(..., *place)] = x[inside].max(axes, initial=-np.inf)
        gx[inside] += g[(..., *place)].reshape(*shape[:2], *[1] * len(size)) / count
    np.testing.assert_allclose(_C.adaptive_avg_pool(x, output_size=size), mean, atol=1e-12)
    np.testing.assert_allclose(_C.adaptive_avg_pool_backward(g, input_shape=shape), gx, atol=1e-12)
    values, indices = _C.adaptive_max_pool(x, output_size=size)
    np.testing.assert_array_equal(values, largest)
    for n, c in np.ndindex(shape[:2]):
        np.testing.assert_array_equal(x[n, c].ravel()[indices[n, c]], values[n, c])


NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "values", "indices"),
    [
        ([1.0, NAN, 2.0, 3.0], [NAN, NAN, 3.0], [1, 1, 3]),
        ([-np.inf] * 4, [-np.inf] * 3, [0, 1, 2]),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0, 1, 2]),
        ([NAN, NAN, 1.0, 1.0], [NAN, NAN, 1.0], [1, 1, 2]),
    ],
)
def test_max_pool_extremes(row, values, indices):
    x = np.array(row, "float32").reshape(1, 1, -1)
    how = {"kernel": (2,), "stride": (1,), "padding": (0,), "dilation": (1,), "ceil_mode": False}
    got = _C.max_pool(x, **how)
    np.testing.assert_array_equal(got[0].ravel(), np.array(values, "float32"))
    np.testing.assert_array_equal(_C.max_pool_values(x, **how).ravel(), np.array(values, "float32"))
    np.testing.assert_array_equal(got[1].ravel(), indices)


@pytest.mark.parametrize("stride", [1, 2, 3, 9])
@pytest.mark.parametrize("kernel", [2, 3, 7, 8, 3000])
def test_values_of_long_rows_are_those_with_places(kernel, stride):
    x = default_rng(1).integers(-9, 9, (2, 2, 7001)).astype("float32")
    x[0, 0, ::50], x[1, 0, 100:200], x[:, 1, 7] = -0.0, -np.inf, NAN
    attributes = {"kernel": (kernel,), "stride": (stride,), "padding": (kernel // 2,), "dilation": (2,)}
    values, _ = _C.max_pool(x, **attributes, ceil_mode=True)
    alone = _C.max_pool_values(x, **attributes, ceil_mode=True)
    np.testing.assert_array_equal(alone, values)
    np.testing.assert_array_equal(np.signbit(alone), np.signbit(values))


def test_layouts_and_threads():
    rng = default_rng(0)
    x = rng.standard_normal((7, 6, 33, 31)).astype("float32")
    attributes = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}
    mean = {**attributes, "count_include_pad": True, "divisor_override": None}
    results = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        for array in (x, np.asfortranarray(x)):
            values, indices = _C.max_pool(array, dilation=(1, 1), **attributes)
            parts = (
                values,
                indices,
                _C.max_pool_backward(values, indices, input_shape=x.shape),
                _C.avg_pool(array, **mean),
                _C.avg_pool_backward(values, input_shape=x.shape, **mean),
                _C.adaptive_avg_pool(array, output_size=(5, 4)),
            )
            results.append(b"".join(p.tobytes() for p in parts))
    assert len(set(results)) == 1


def test_bad_input():
    x = np.zeros((1, 2, 8, 8), "float32")
    good = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    for change, words in [
        ({"padding": (2, 0)}, "half of kernel"),
        ({"kernel": (9, 9)}, "does not fit"),
        ({"stride": (0, 1)}, "stride"),
        ({"kernel": (2,)}, "kernel"),
        ({"dilation": (8, 8)}, "does not fit"),
        ({"kernel": (2**40, 2)}, "kernel"),
    ]:
        with pytest.raises(ValueError, match=words):
            _C.max_pool(x, **{**good, **change})
    with pytest.raises(ValueError, match="spatial axes"):
        _C.max_pool(np.zeros((2, 8), "float32"), **good)
    with pytest.raises(ValueError, match="divisor_override"):
        del good["dilation"]
        _C.avg_pool(x, **good, count_include_pad=True, divisor_override=0)
    g = np.zeros((1, 2, 4, 4), "float32")
    for bad in (64, -1):
        with pytest.raises(IndexError, match="outside the plane"):
            _C.max_pool_backward(g, np.full(g.shape, bad), input_shape=(1, 2, 8, 8))
    with pytest.raises(TypeError, match="int64"):
        _C.max_pool_backward(g, np.zeros(g.shape, "int32"), input_shape=(1, 2, 8, 8))
    with pytest.raises(ValueError, match="batch and channels"):
        _C.max_pool_backward(g, np.zeros(g.shape, "int64"), input_shape=(2, 2, 8, 8))
