"""Reductions, arg-reductions and scans against NumPy in double, over layouts, dtypes and extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, shapes, strided

import tensorgrad._C as C
from tensorgrad.backends.numpy.backend import NumpyBackend

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["bool", "uint8", "int8", "int16", "int32", "int64"]
COMPLEX = ["complex64", "complex128"]
RELATIVE = {"float16": 1e-3, "float32": 3e-7, "complex64": 3e-7}


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype({"f": np.float64, "c": np.complex128}.get(x.dtype.kind, x.dtype))


def reference(name: str, x: np.ndarray, dim: tuple[int, ...], keepdim: bool) -> Any:
    if name == "logsumexp":
        top = np.max(x, axis=dim, keepdims=True, initial=-np.inf)
        with np.errstate(all="ignore"):
            total = np.log(np.sum(np.exp(x - np.where(np.isinf(top), 0, top)), axis=dim, keepdims=True))
        total = total + np.where(np.isinf(top), 0, top)
        return total if keepdim else np.squeeze(total, axis=dim)
    function = {"sum": np.sum, "prod": np.prod, "amax": np.max, "amin": np.min, "any": np.any, "all": np.all,
                "mean": np.mean}[name]  # fmt: skip
    return function(x, axis=dim, keepdims=keepdim)


def allowed(name: str, x: np.ndarray) -> bool:
    if name in ("mean", "logsumexp", "var") and x.dtype.kind in "iub":
        return False
    if x.dtype.kind == "c" and name in ("amax", "amin", "logsumexp", "var"):
        return False
    return x.size > 0 or name not in ("amax", "amin", "mean")


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS + COMPLEX)
@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "any", "all", "mean", "logsumexp"])
def test_value(name: str, dtype: str) -> None:
    rng = np.random.default_rng(7)
    for shape in [*shapes(rng, 60), [3000, 70], [70, 3000], [3, 9000, 5], [150000]]:
        x = strided(rng, shape, dtype, scale=1.0 if name == "prod" else 3.0)
        if not allowed(name, x):
            continue
        dim = tuple(axis for axis in range(len(shape)) if rng.random() < 0.5)
        keepdim = bool(rng.random() < 0.5)
        got = getattr(C, name)(x, dim, keepdim)
        expected = np.asarray(reference(name, wide(x), dim, keepdim))
        assert got.shape == expected.shape
        if x.dtype.kind in "iub" or name in ("amax", "amin", "any", "all"):
            truth = "uint8" if dtype == "uint8" else "bool"  # as in PyTorch
            assert got.dtype == (truth if name in ("any", "all") else x.dtype if name[0] == "a" else np.int64)
            assert np.array_equal(got, expected.astype(got.dtype)), (shape, dim, x.strides)
            continue
        assert got.dtype == x.dtype
        # a sum may cancel: its error is measured against the sum of magnitudes
        size = np.sum(np.abs(wide(x)), axis=dim, keepdims=keepdim) if name == "sum" else np.abs(expected)
        with np.errstate(over="ignore"):
            finite = np.isfinite(expected.astype(dtype))
        with np.errstate(invalid="ignore"):
            error = np.abs(wide(np.asarray(got)) - expected)
        tolerance = RELATIVE.get(dtype, 1e-13) * (np.asarray(size) + 1)
        assert (error <= tolerance)[finite].all(), (shape, dim, x.strides)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_var(dtype: str, correction: float) -> None:
    rng = np.random.default_rng(8)
    for shape in [*shapes(rng, 60, zeros=False), [3000, 70], [70, 3000], [150000]]:
        x = strided(rng, shape, dtype)
        if dtype != "float16":
            x = np.asarray(x + np.asarray(100, dtype))  # far from zero, where the one-pass formula fails
        dim = tuple(axis for axis in range(len(shape)) if rng.random() < 0.5)
        count = int(np.prod([shape[axis] for axis in dim]))
        exact = wide(x)
        squares = np.sum((exact - exact.mean(dim, keepdims=True)) ** 2, axis=dim)
        got = C.var(x, dim, correction, False)
        if count - correction <= 0:
            assert not np.isfinite(got).any()
            continue
        np.testing.assert_allclose(got, squares / (count - correction), rtol=3 * RELATIVE.get(dtype, 1e-11), atol=1e-12)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dim", [(0,), (1,), (0, 1)])
def test_extremes_travel(value: float, dim: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((4, 70)).astype("float32")
    x[1, 5] = value
    x[2] = value
    for name in ("sum", "mean", "amax", "amin"):
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(getattr(C, name)(x, dim, False), reference(name, wide(x), dim, False), rtol=1e-5)
    got = C.logsumexp(x, dim, False)
    finite = x if value != value else np.nan_to_num(x, posinf=1e30, neginf=-1e30)
    with np.errstate(invalid="ignore"):
        expected = np.asarray(reference("logsumexp", wide(finite), dim, False))
    expected = np.where(expected > 1e29, np.inf, np.where(expected < -1e29, -np.inf, expected))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(1, 3, 2), (32, 16, 16), (5, 7, 9), (3, 130, 70), (4, 65, 129), (2, 64, 8), (1, 20_000, 5)], ids=str
)
def test_logsumexp_of_columns(shape: tuple[int, int, int], dtype: str) -> None:
    x = (30 * np.random.default_rng(3).standard_normal(shape)).astype(dtype)
    x[0, 1, 0] = 80.0
    whole = C.logsumexp(x, (1,), False)
    expected = np.asarray(reference("logsumexp", wide(x), (1,), False))
    np.testing.assert_allclose(whole, expected, rtol=2 * np.finfo(dtype).eps)
    # a column's value is its own: neither the columns beside it nor the threads change its bits
    np.testing.assert_array_equal(C.logsumexp(x[:1].copy(), (1,), False), whole[:1])
    for value in (np.inf, -np.inf, np.nan):
        odd = x.copy()
        odd[0, :, 1] = -np.inf
        odd[0, -1, 1] = value
        got = C.logsumexp(odd, (1,), False)
        if shape[1] <= 32:  # short rows are turned columns
            np.testing.assert_array_equal(C.logsumexp(odd.swapaxes(1, 2).copy(), (2,), False), got)
        np.testing.assert_array_equal(got[0, 1], value)
        got[0, 1] = whole[0, 1]
        np.testing.assert_array_equal(got, whole)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [*range(2, 18), 23, 31, 32, 33, 47, 63, 64, 65])
def test_short_rows_have_the_bits_they_have_alone(length: int, dtype: str) -> None:
    x = np.random.default_rng(length).standard_normal((1035, length)).astype(dtype)
    x[3, 1], x[12, length - 1] = np.inf, np.nan
    for name in ("sum", "mean"):
        whole = getattr(C, name)(x, (1,), False)
        expected = reference(name, wide(x), (1,), False)
        np.testing.assert_allclose(whole, expected, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-5)
        for row in (0, 3, 7, 8, 12, 500, 1034):
            np.testing.assert_array_equal(getattr(C, name)(x[row : row + 1].copy(), (1,), False), whole[row : row + 1])
            # nor do they depend on what is reduced: all of one row is summed as a formula sums its results
            np.testing.assert_array_equal(getattr(C, name)(x[row].copy(), (0,), False), whole[row])
            np.testing.assert_array_equal(getattr(C, name)(np.repeat(x[row], 2)[::2], (0,), False), whole[row])


def test_long_sums_are_at_least_as_accurate_as_numpy() -> None:
    rng = np.random.default_rng(1)
    for make in (rng.random, rng.standard_normal):
        ours, theirs = [], []
        for _ in range(100):
            x = make(40_000).astype("float32")
            exact, size = x.astype(np.float64).sum(), np.abs(x).sum()
            ours.append((float(C.sum(x, (0,))) - exact) / size)
            theirs.append((float(x.sum()) - exact) / size)
        assert np.std(ours) <= 1.2 * np.std(theirs)  # a hundred samples know it to a tenth
    tenth = np.full(10_000_019, 0.1)
    assert float(C.sum(tenth, (0,))) == pytest.approx(1000001.9, rel=1e-15)
    half = np.ones(100_000, "float16") / 4
    assert C.sum(half, (0,)) == np.float16(25000)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_arg_extremes(dtype: str) -> None:
    rng = np.random.default_rng(9)
    for shape in [*shapes(rng, 60, least=1, zeros=False), [200000], [5, 70000], [900, 80]]:
        x = strided(rng, shape, dtype)
        assert int(C.argmax(x, None)) == int(np.argmax(x))
        dim = int(rng.integers(len(shape)))
        for name, values in (("max", np.max), ("min", np.min)):
            expected = getattr(np, f"arg{name}")(x, axis=dim, keepdims=True)
            assert np.array_equal(getattr(C, f"arg{name}")(x, dim, True), expected)
            best, at = getattr(C, f"{name}_dim")(x, dim, False)
            assert best.dtype == x.dtype and np.array_equal(best, values(x, axis=dim))
            assert np.array_equal(at, np.squeeze(expected, dim))


@pytest.mark.parametrize("rows", [1, 63, 64, 131])
def test_extremes_of_short_rows(rows: int) -> None:
    """Up to 32 floats long they are turned, a tile of rows at a time: ties, NaN and what is not aligned as anywhere."""
    rng = np.random.default_rng(rows)
    for length in range(1, 36):
        x = rng.integers(-4, 5, rows * length + 1).astype("float32")[1:].reshape(rows, length)
        x[rng.random(x.shape) < 0.02] = np.nan
        for name, values, places in (("max", np.max, np.argmax), ("min", np.min, np.argmin)):
            with np.errstate(invalid="ignore"):
                expected = values(x, 1)
            np.testing.assert_array_equal(getattr(C, f"a{name}")(x, (1,), False), expected)
            best, at = getattr(C, f"{name}_dim")(x, 1, False)
            np.testing.assert_array_equal(best, expected)
            np.testing.assert_array_equal(at, places(x, 1))
            np.testing.assert_array_equal(getattr(C, f"arg{name}")(x, 1, False), places(x, 1))


def test_arg_extremes_take_the_first_nan() -> None:
    x = np.array([1.0, np.nan, np.inf, np.nan], "float32")
    assert int(C.argmax(x, 0)) == 1 and int(C.argmin(x, 0)) == 1
    columns = np.stack([x, x[::-1]], 1)
    assert C.argmax(columns, 0).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
def test_scans(dtype: str) -> None:
    rng = np.random.default_rng(10)
    for shape in [*shapes(rng, 40, least=1), [200000], [3, 70000], [90, 700]]:
        x = strided(rng, shape, dtype, scale=1.0)
        dim = int(rng.integers(len(shape)))
        exact = wide(x)
        got = C.cumsum(x, dim)
        expected = np.cumsum(exact, axis=dim)
        assert got.dtype == (np.int64 if x.dtype.kind in "ib" else x.dtype)
        size = np.cumsum(np.abs(exact), axis=dim) if exact.dtype.kind == "f" else 0
        assert (np.abs(got - expected) <= RELATIVE.get(dtype, 1e-12) * (size + 1)).all()
        if x.size < 1000:
            np.testing.assert_allclose(C.cumprod(x, dim), np.cumprod(exact, axis=dim), rtol=RELATIVE.get(dtype, 1e-12),
                                       atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
def test_steps_along_lines(dtype: str) -> None:
    rng, numpy = np.random.default_rng(11), NumpyBackend()
    for shape in [*shapes(rng, 30, least=1), [3, 7000], [90, 700], [2, 5, 200]]:
        x = strided(rng, shape, dtype, scale=2.0)
        if x.dtype.kind == "f" and x.size:
            x.flat[int(rng.integers(x.size))] = rng.choice([np.nan, np.inf, -np.inf])
        dim = int(rng.integers(len(shape)))
        for name in ("cummax", "cummin"):
            for got, expected in zip(getattr(C, name)(x, dim), getattr(numpy, name)(x, dim=dim), strict=True):
                assert got.dtype == expected.dtype
                np.testing.assert_array_equal(got, expected)
        if x.dtype.kind != "f":
            continue
        close = {"rtol": RELATIVE.get(dtype, 1e-12) * 4, "atol": RELATIVE.get(dtype, 1e-12) * 4}
        np.testing.assert_allclose(C.logcumsumexp(x, dim), numpy.logcumsumexp(x, dim=dim), **close)
        a = np.asarray(rng.uniform(-0.9, 0.9, shape).astype(dtype))
        b = np.asarray(rng.standard_normal(shape).astype(dtype))
        np.testing.assert_allclose(C.linear_recurrence(a, b, dim), numpy.linear_recurrence(a, b, dim=dim), **close)
        same_for_any_threads(lambda x=x, d=dim: (C.logcumsumexp(x, d), *C.cummax(x, d)))


def test_steps_along_no_lines() -> None:
    x = np.empty((1 << 22, 0))  # so long that what is wrongly written as a line leaves the heap
    for got in (*C.cummax(x, 0), C.logcumsumexp(x, 0), C.linear_recurrence(x, x, 0)):
        assert got.shape == x.shape


# many matrices of a few narrow rows, which fill a tile together; the last ones have rows too many or too wide for that
NARROW = [
    (300, 2, 2),
    (1, 5, 3),
    (7, 11, 5),
    (530, 3, 1),
    (65, 17, 8),
    (40, 9, 20),
    (3, 8, 130),
    (5, 2, 256),
    (3, 9, 257),
    (2, 900, 5),
]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool", "complex64"])
def test_narrow_columns_of_many_matrices(dtype: str) -> None:
    rng = np.random.default_rng(12)
    for outer, rows, width in NARROW:
        base = rng.integers(-3, 4, (outer, rows, width, 2)).astype(dtype)
        swapped = base[:, ::-1].transpose(3, 0, 2, 1)[:, ::-1].transpose(0, 1, 3, 2)
        for x, dim in (
            (base[..., 0].copy(), (1,)),
            (base[..., 0], (1,)),
            (base, (1,)),
            (swapped, (2,)),
            (base, (1, 3)),
        ):
            for name in ("sum", "mean", "prod", "amax", "any"):
                if not allowed(name, x) or (name == "prod" and rows > 20):
                    continue
                got = getattr(C, name)(x, dim, False)
                expected = reference(name, wide(x), dim, False)
                with np.errstate(over="ignore"):
                    np.testing.assert_allclose(got, expected.astype(got.dtype), rtol=RELATIVE.get(dtype, 1e-12))
            if dtype in FLOATS and (x.ndim == 3 or len(dim) == 2):
                same_for_any_threads(lambda x=x, dim=dim: C.sum(x * np.asarray(0.37, dtype), dim, False))
                close = {"rtol": 3 * RELATIVE.get(dtype, 1e-11), "atol": 1e-6}
                np.testing.assert_allclose(C.var(x, dim, 0, False), wide(x).var(dim), **close)


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_extremes_of_rows_that_share_a_vector(name: str) -> None:
    """Of any length and number, with NaN and infinities anywhere; a row's zero has the sign that it has alone."""
    rng = np.random.default_rng(0)
    function = getattr(C, name)
    for length in range(1, 160):
        x = rng.standard_normal((int(rng.integers(1, 70)), length)).astype("float32")
        for value in (np.nan, np.inf, -np.inf):
            x[rng.random(x.shape) < 0.2 / length] = value
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(function(x, (1,), False), reference(name, x, (1,), False))
        zeros = np.where(rng.random((37, length)) < 0.5, np.float32(0), np.float32(-0.0))
        signs = np.signbit(function(zeros, (1,), False))
        np.testing.assert_array_equal(signs[5:], np.signbit(function(zeros[5:], (1,), False)))


@pytest.mark.parametrize("shape", [(1_000_003,), (100_000, 7), (30_001, 40), (7, 100_000), (300, 400, 11), (2, 3)])
def test_same_bits_for_any_threads(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).standard_normal(shape).astype("float32")
    for dim in [(axis,) for axis in range(len(shape))] + [tuple(range(len(shape)))]:
        for name in ("sum", "prod", "mean", "logsumexp", "amax"):
            same_for_any_threads(lambda n=name, d=dim: getattr(C, n)(x, d, False))
        same_for_any_threads(lambda d=dim: C.var(x, d, 1, False))
    for axis in range(len(shape)):
        same_for_any_threads(lambda a=axis: (C.cumsum(x, a), C.argmax(x, a)))


def test_refusals_say_what_would_work() -> None:
    x = np.ones((2, 3), "float32")
    with pytest.raises(IndexError, match=r"dim 2 is out of range for shape \(2, 3\); valid: 0 to 1"):
        C.sum(x, (2,))
    with pytest.raises(ValueError, match="twice"):
        C.sum(x, (0, 0))
    with pytest.raises(ValueError, match="no elements"):
        C.amax(np.ones((0, 3)), (0,))
    with pytest.raises(ValueError, match="no elements"):
        C.argmax(np.ones((0, 3)), None)
    with pytest.raises(TypeError, match="float32 first"):
        C.mean(np.ones(3, "int64"), (0,))
    with pytest.raises(TypeError, match="no order"):
        C.amax(np.ones(3, "complex64"), (0,))
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        C.sum([1.0], (0,))
    with pytest.raises(TypeError, match="tuple"):
        C.sum(x, None)


def test_nothing_reduced_and_nothing_there() -> None:
    assert C.sum(np.ones((0, 3), "float32"), (0,)).tolist() == [0, 0, 0]
    assert C.prod(np.ones((3, 0), "int32"), (1,)).tolist() == [1, 1, 1]
    assert C.sum(np.ones((0, 3)), (1,)).shape == (0,)
    assert C.any(np.ones((0,)), (0,)).item() is False and C.all(np.ones((0,)), (0,)).item() is True
    assert np.isnan(C.mean(np.ones((0,)), (0,)))
    assert C.logsumexp(np.ones((0,)), (0,)) == -np.inf
    x = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(C.sum(x, ()), x)
    expanded = np.broadcast_to(np.float32(2), (1000, 30))
    assert C.sum(expanded, (0,)).tolist() == [2000.0] * 30
