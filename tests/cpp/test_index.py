"""Indexing, copies and casts against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, shapes, strided

import tensorgrad._C as C
from tensorgrad.backends.numpy.convert import converted

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def index_for(rng: np.random.Generator, shape: list[int], dim: int) -> np.ndarray:
    """An index no larger than shape along all axes but dim."""
    size = [int(rng.integers(1, n + 1)) if n else 0 for n in shape]
    size[dim] = int(rng.integers(0, 9)) if shape[dim] else 0
    return rng.integers(0, max(1, shape[dim]), size)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64", "complex128", "int64"])
def test_gather_and_scatter(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in [*shapes(rng, 60, least=1), [300, 70], [30, 5, 600]]:
        x = strided(rng, shape, dtype)
        dim = int(rng.integers(len(shape)))
        index = index_for(rng, shape, dim)
        where = tuple(slice(0, n) if axis != dim else slice(None) for axis, n in enumerate(index.shape))
        assert np.array_equal(C.gather(x, index, dim), np.take_along_axis(x[where], index, dim))
        src = strided(rng, [n + int(rng.integers(0, 2)) for n in index.shape], dtype)
        part = src[tuple(slice(0, n) for n in index.shape)]
        expected = x.copy()
        np.put_along_axis(expected[where], index, part, dim)
        before = x.copy()
        assert np.array_equal(C.scatter(x, index, src, dim), expected)
        # one position of the index after another, in order
        total = x.astype({"float16": "float32"}.get(dtype, dtype))
        for k in range(index.shape[dim]):
            one = tuple(slice(None) if axis != dim else slice(k, k + 1) for axis in range(x.ndim))
            view, at = total[where], index[one]
            np.put_along_axis(view, at, np.take_along_axis(view, at, dim) + part[one], dim)
        assert np.array_equal(C.scatter_add(x, index, src, dim), total.astype(dtype))
        assert np.array_equal(x, before)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64", "complex64"])
def test_select_add_and_embedding(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for shape in [*shapes(rng, 60, least=1, zeros=False), [3000, 40], [4, 900, 30]]:
        x = strided(rng, shape, dtype)
        dim = int(rng.integers(len(shape)))
        index = rng.integers(0, shape[dim], int(rng.integers(0, 3 * shape[dim])))
        assert np.array_equal(C.index_select(x, index, dim), np.take(x, index, dim))
        grown = [*shape]
        grown[dim] = index.size
        src = strided(rng, grown, dtype)
        total = np.moveaxis(x.astype({"float16": "float32"}.get(dtype, dtype)), dim, 0).copy()
        np.add.at(total, index, np.moveaxis(src, dim, 0).astype(total.dtype))
        assert np.array_equal(C.index_add(x, index, src, dim), np.moveaxis(total, 0, dim).astype(dtype))
    weight = strided(rng, [50, 7], dtype)
    index = rng.integers(0, 50, (3, 4))
    assert np.array_equal(C.embedding(weight, index), weight[index])
    g = strided(rng, [3, 4, 7], dtype)
    expected = np.zeros((50, 7), {"float16": "float32"}.get(dtype, dtype))
    np.add.at(expected, index, g)
    assert np.array_equal(C.embedding_backward(g, index, 50, None), expected.astype(dtype))
    expected[index[1, 2]] = 0
    assert np.array_equal(C.embedding_backward(g, index, 50, int(index[1, 2]) - 50), expected.astype(dtype))


def test_additions_keep_their_order_on_any_threads() -> None:
    rng = np.random.default_rng(2)
    index, g = rng.integers(0, 1000, 20_000), rng.standard_normal((20_000, 64)).astype("float32")
    got = same_for_any_threads(lambda: C.embedding_backward(g, index, 1000, None))
    expected = np.zeros((1000, 64), "float32")
    np.add.at(expected, index, g)
    assert np.array_equal(got, expected)
    x, at = np.zeros((1000, 64), "float32"), rng.integers(0, 1000, (20_000, 64))
    same_for_any_threads(lambda: C.scatter_add(x, at, g, 0))


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64", "complex64"])
@pytest.mark.parametrize("length", [1, 64, 1024])
def test_many_numbers_are_added_to_a_little_table(dtype: str, length: int) -> None:
    rng = np.random.default_rng(8)
    index, x, src = rng.integers(0, length, 40_003), strided(rng, [length], dtype), strided(rng, [40_003], dtype)
    got = same_for_any_threads(lambda: C.index_add(x, index, src, 0))
    total = x.astype({"int8": "int8", "complex64": "complex128"}.get(dtype, "float64"))
    np.add.at(total, index, src.astype(total.dtype))
    size = np.bincount(index, np.abs(src.astype("complex128")), length) + np.abs(x.astype("complex128"))
    assert got.dtype == x.dtype
    if dtype == "int8":
        assert np.array_equal(got, total)
    else:
        assert (np.abs(got - total) <= 20 * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("width", [15, 16, 17, 100])  # from 64 bytes on each row is written once
@pytest.mark.parametrize("outer", [1, 3])
def test_of_rows_written_over_the_last_stays(outer: int, width: int) -> None:
    rng = np.random.default_rng(9)
    x, src = (rng.standard_normal((outer, n, width)).astype("float32") for n in (40, 200))
    index = rng.integers(0, 37, 200)
    expected = x.copy()
    for m, row in enumerate(index):
        expected[:, row] = src[:, m]
    spread = np.broadcast_to(index[:, None], src.shape)
    assert np.array_equal(same_for_any_threads(lambda: C.scatter(x, spread, src, 1)), expected)
    assert np.array_equal(C.scatter_into(x.copy(), spread, src, 1), expected)


@pytest.mark.parametrize("shape", [(3_000_000,), (50, 4), (2, 90, 300)])  # beyond the caches, within, along the middle
def test_one_index_along_one_dimension(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    dim = len(shape) // 2
    x = rng.standard_normal(shape).astype("float32")
    index = rng.integers(-shape[dim], shape[dim], (40, 1000))
    assert np.array_equal(same_for_any_threads(lambda: C.index(x, index, spec=(dim,))), np.take(x, index, dim))
    value = rng.standard_normal(np.take(x, index, dim).shape).astype("float32")
    got = same_for_any_threads(lambda: C.index_put_into(x.copy(), value, index, spec=(dim,), accumulate=True))
    expected = x.copy()
    np.add.at(expected, (*(slice(None),) * dim, index), value)
    assert np.array_equal(got, expected)
    count = same_for_any_threads(lambda: C.bincount(index.ravel() % shape[dim], None, 0))
    assert np.array_equal(count, np.bincount(index.ravel() % shape[dim]))


@pytest.mark.parametrize("length", [1, 3, 32, 33])
def test_many_rows_of_few_indices(length: int) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((12, 700, 40)).astype("float32")
    for rows in (700, 650):  # not as many as x has: the axes before dim differ
        index = rng.integers(0, 40, (11, rows, length))
        src = rng.standard_normal((11, rows, length + 1)).astype("float32")
        part, source = x[:11, :rows], np.ascontiguousarray(src[..., :length])
        assert np.array_equal(
            same_for_any_threads(lambda i=index: C.gather(x, i, 2)), np.take_along_axis(part, index, 2)
        )
        expected = x.copy()
        np.put_along_axis(expected[:11, :rows], index, source, 2)
        assert np.array_equal(same_for_any_threads(lambda i=index, v=src: C.scatter(x, i, v, 2)), expected)
        for bad in (-1, 40):
            index[10, 649, length - 1] = bad
            with pytest.raises(IndexError, match=str(bad)):
                C.gather(x, index, 2)
            with pytest.raises(IndexError, match=str(bad)):
                C.scatter(x, index, src, 2)


def test_refusals_name_the_bad_index() -> None:
    x, index = np.zeros((3, 4), "float32"), np.zeros((3, 2), np.int64)
    for bad, value in ((-1, "-1"), (4, "4")):
        wrong = index.copy()
        wrong[1, 1] = bad
        with pytest.raises(IndexError, match=f"index {value} is out of range for an axis of length 4; valid: 0 to 3"):
            C.gather(x, wrong, 1)
        with pytest.raises(IndexError, match="out of range"):
            C.scatter_add(x, wrong, np.ones((3, 2), "float32"), 1)
        with pytest.raises(IndexError, match="out of range"):
            C.embedding(x.T, wrong[0:2])
    assert not x.any()
    with pytest.raises(ValueError, match="index has shape"):
        C.gather(x, np.zeros((4, 2), np.int64), 1)
    with pytest.raises(ValueError, match="index has shape"):
        C.scatter(x, index, np.ones((3, 1), "float32"), 1)
    with pytest.raises(TypeError, match="index is float32, expected int64"):
        C.gather(x, index.astype("float32"), 1)
    with pytest.raises(ValueError, match="expected one axis"):
        C.index_select(x, index, 0)
    with pytest.raises(IndexError, match="length 0"):
        C.embedding(np.ones((0, 3)), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"src has shape \(3, 4\), expected \(2, 4\)"):
        C.index_add(x, index[0], x, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_contiguous_cat_and_pad(dtype: str) -> None:
    rng = np.random.default_rng(3)
    for shape in [*shapes(rng, 60), [300, 500], [40, 50, 60], [500, 3]]:
        x = strided(rng, shape, dtype)
        for view in (x, x.T, np.broadcast_to(x, (3, *shape)) if x.ndim < 4 else x):
            got = C.contiguous(view)
            assert got.flags.c_contiguous and not np.shares_memory(got, view)
            assert got.dtype == dtype and np.array_equal(got, view)
        if not shape:
            continue
        dim = int(rng.integers(len(shape)))
        others = [strided(rng, [*shape[:dim], n, *shape[dim + 1 :]], dtype) for n in (2, 0, 5)]
        assert np.array_equal(C.cat(x, *others, dim=dim), np.concatenate([x, *others], dim))
        pads = [(int(rng.integers(0, 4)), int(rng.integers(0, 4))) for _ in shape]
        value = 1 if dtype == "bool" else 3
        assert np.array_equal(C.pad(x, tuple(pads), "constant", value), np.pad(x, pads, constant_values=value))
        for mode, theirs, most in (("reflect", "reflect", 1), ("replicate", "edge", 0), ("circular", "wrap", 0)):
            fits = tuple(
                [(max(0, min(a, n - most)), max(0, min(b, n - most))) for (a, b), n in zip(pads, shape, strict=True)]
            )
            assert np.array_equal(C.pad(x, fits, mode, 0), np.pad(x, fits, mode=theirs))  # type: ignore[call-overload]
        shifts, dims = tuple([b - 2 * a for a, b in pads]), tuple(range(len(shape)))
        assert np.array_equal(C.roll(x, shifts, dims), np.roll(x, shifts, dims))
        assert np.array_equal(C.flip(x, dims[::2]), np.flip(x, dims[::2]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_rolls_of_rows(dtype):
    rng = np.random.default_rng(0)
    for shape in ((300,), (3, 70), (2, 5, 33), (40, 3), (70, 1000)):
        x = rng.integers(0, 2 if dtype == "bool" else 10**6, shape).astype(dtype)
        for shift in (0, 1, -1, 2, -8, 9, 150, -35):
            for dim in range(len(shape)):
                assert np.array_equal(C.roll(x, (shift,), (dim,)), np.roll(x, shift, dim))
            every = tuple(range(len(shape)))
            assert np.array_equal(C.roll(x, (shift,) * len(shape), every), np.roll(x, (shift,) * len(shape), every))


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_cast(target: str, source: str) -> None:
    rng = np.random.default_rng(4)
    for shape in [[], [0, 3], [7, 5], [5000]]:
        x = np.asarray(np.abs(strided(rng, shape, source, 20))).astype(source)
        if np.dtype(source).kind == "c":
            x = np.asarray(x + 1j).astype(source)
        expected = (x.real if np.dtype(source).kind == "c" and np.dtype(target).kind not in "bc" else x).astype(target)
        for name in (target, np.dtype(target)):
            got = C.cast(x, name)
            assert got.dtype == target and got.shape == x.shape and not np.shares_memory(got, x)
            assert np.array_equal(got, expected)


def test_cast_is_defined_for_what_does_not_fit() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 1e20, 2147483520.0, -2147483648.0, -1.9, 300.7])
    for dtype in ("float32", "float64"):
        least = np.iinfo(np.int32).min
        got = C.cast(x.astype(dtype), "int32").tolist()
        assert got == [least] * 6 + [2147483520, least, -1, 300]
        assert C.cast(x.astype(dtype), "int64").tolist()[:6] == [np.iinfo(np.int64).min] * 3 + [
            3000000000, -3000000000, np.iinfo(np.int64).min]  # fmt: skip
        assert C.cast(x.astype(dtype), "uint8").tolist()[-2:] == [255, 44]
        assert C.cast(x.astype(dtype), "bool").all()
        for target in ("uint8", "int8", "int16", "int32", "int64"):
            assert np.array_equal(converted(np, x.astype(dtype), np.dtype(target)), C.cast(x.astype(dtype), target))


def test_casts_through_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(5).standard_normal(3000).astype("float32")
    x[:3] = np.nan, np.inf, 1.00390625
    got = C.cast(x, np.dtype(ml_dtypes.bfloat16))
    expected = x.astype(ml_dtypes.bfloat16)
    assert got.dtype == expected.dtype
    assert np.array_equal(got.view("uint16")[1:], expected.view("uint16")[1:])
    back = C.cast(got, "float32")
    assert np.isnan(back[0]) and np.array_equal(back[1:], expected.astype("float32")[1:])
    total, exact = C.sum(got[3:], (0,)), float(back[3:].sum())
    assert total.dtype == got.dtype and abs(float(total) - exact) <= 0.01 * abs(exact) + 0.01


def test_copy_refusals() -> None:
    x = np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match=r"array 1 has shape \(3, 3\), array 0 has \(2, 3\)"):
        C.cat(x, np.ones((3, 3), "float32"), dim=1)
    with pytest.raises(TypeError, match="array 1 is float64, expected float32"):
        C.cat(x, np.ones((2, 3)), dim=0)
    with pytest.raises(ValueError, match="at least one"):
        C.cat(dim=0)
    with pytest.raises(ValueError, match="for every axis"):
        C.pad(x, ((1, 1),), "constant", 0)
    with pytest.raises(ValueError, match=r"can't be padded by -2 and -1"):
        C.pad(x, ((-2, -1), (0, 0)), "constant", 0)
    with pytest.raises(ValueError, match=r"can't be padded by 2 and 0"):
        C.pad(x, ((2, 0), (0, 0)), "reflect", 0)
    with pytest.raises(MemoryError):
        C.pad(x, ((2**62, 2**62), (0, 0)), "constant", 0)
    with pytest.raises(TypeError, match="dtype uint16 is not supported"):
        C.cast(x, "uint16")
