"""Random streams in C++ against the reference over NumPy: the same numbers, for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads

from tensorgrad.backends.generic.random import RandomKernels, philox_words
from tensorgrad.dtypes import numpy_dtype

C = pytest.importorskip("tensorgrad._C")
DTYPES = ("float16", "bfloat16", "float32", "float64")
STREAMS = ((0, 0), (0x123456789ABCDEF0, 0xFEDCBA9876543210), (2**64 - 1, 2**64 - 1))


class Reference(RandomKernels):
    xp = np


class Fixed:
    """A generator whose next draw is this stream."""

    def __init__(self, stream: tuple[int, int]):
        self.stream = stream

    def take(self, count: int = 1) -> tuple[int, int]:
        return self.stream


def state(seed: int, offset: int) -> Any:
    """A generator's state, for one draw."""
    return np.array((seed, offset), np.uint64)


def test_known_answer() -> None:
    assert [f"{word:08x}" for word in C.random_bits(4, 0, 0)] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("count", [0, 1, 5, 256, 1003, 70_001])
def test_words(stream: tuple[int, int], count: int) -> None:
    expected = philox_words(np, *stream, 0, -(-count // 4))[:count]
    np.testing.assert_array_equal(C.random_bits(count, *stream), expected.astype(np.int64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5, 11), (257, 301)])
def test_draws(dtype: str, shape: tuple[int, ...]) -> None:
    for stream in STREAMS:
        how: dict[str, Any] = {"shape": shape, "dtype": numpy_dtype(dtype), "generator": Fixed(stream)}
        got, expected = C.random_uniform(shape, dtype, state(*stream)), Reference().random_uniform(**how)
        assert got.dtype == expected.dtype
        assert got.shape == shape
        np.testing.assert_array_equal(got.astype(float), expected.astype(float))
        got, expected = C.random_normal(shape, dtype, state(*stream)), Reference().random_normal(**how)
        assert got.dtype == expected.dtype
        # logarithm and cosine are ours here and NumPy's there: in double they may differ in the last bits
        tolerance = 2e-15 if dtype == "float64" else 0.0
        if dtype == "float32":
            assert np.count_nonzero(got != expected) <= got.size * 1e-4
            tolerance = 1e-6
        np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_dropout(dtype: str, p: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((129, 301)).astype(numpy_dtype(dtype))
    for given in (x, x.T, x[::2, ::-1], x[:0], np.asarray(x[0, 0])):
        y, mask = C.dropout(given, p, state(5, 9))
        expected, kept = Reference().dropout(given, p=p, generator=Fixed((5, 9)))
        assert y.dtype == expected.dtype
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, kept)
        # float16 multiplies in float32 here
        np.testing.assert_allclose(y.astype(float), expected.astype(float), rtol=2e-3 if dtype == "float16" else 0)


def test_any_number_of_threads() -> None:
    x = np.linspace(-1, 1, 200_003).astype(np.float32)
    same_for_any_threads(lambda: C.random_uniform((200_003,), "float32", state(1, 2)))
    same_for_any_threads(lambda: C.random_uniform((100_003,), "float64", state(1, 2)))
    same_for_any_threads(lambda: C.random_normal((200_003,), "float32", state(1, 2)))
    same_for_any_threads(lambda: C.dropout(x, 0.1, state(1, 2)))


def test_each_draw_moves_the_state_on_by_one_stream() -> None:
    moving = state(3, 2**64 - 1)
    first, second = (C.random_uniform((5,), "float32", moving) for _ in range(2))
    assert moving.tolist() == [3, 1]
    np.testing.assert_array_equal(first, C.random_uniform((5,), "float32", state(3, 2**64 - 1)))
    np.testing.assert_array_equal(second, C.random_uniform((5,), "float32", state(3, 0)))
    for wrong in (np.zeros(2), np.zeros(3, np.uint64), np.zeros(4, np.uint64)[::2], (3, 1)):
        with pytest.raises(TypeError, match="a generator's state is an array of two uint64 numbers"):
            C.random_normal((1,), "float32", wrong)


def test_moments() -> None:
    uniform = C.random_uniform((400_000,), "float64", state(3, 4))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 2e-3
    normal = C.random_normal((400_000,), "float64", state(3, 5))
    assert abs(normal.mean()) < 6e-3
    assert abs(normal.std() - 1) < 6e-3
    assert abs((normal**4).mean() - 3) < 0.1


def test_errors() -> None:
    with pytest.raises(ValueError, match="random_uniform: not defined for int32"):
        C.random_uniform((3,), "int32", state(0, 0))
    with pytest.raises(ValueError, match="unknown dtype float31"):
        C.random_normal((3,), "float31", state(0, 0))
    with pytest.raises(ValueError, match="negative size"):
        C.random_bits(-1, 0, 0)
    with pytest.raises(ValueError, match=r"p must be between 0 and 1, got 1\.5"):
        C.dropout(np.ones(3), 1.5, state(0, 0))
    with pytest.raises(ValueError, match="dropout: not defined for int64"):
        C.dropout(np.ones(3, np.int64), 0.5, state(0, 0))
    with pytest.raises(TypeError, match=r"dropout: x must be a numpy\.ndarray"):
        C.dropout([1.0], 0.5, state(0, 0))
