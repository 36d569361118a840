"""Discrete Fourier transforms beside NumPy's in extended precision.

The bar: no value is off by more than TOLERANCE times the rounding of the largest one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_arrays import same_for_any_threads, strided

C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

REAL = {"complex64": "float32", "complex128": "float64"}
TOLERANCE = 12
# All kinds of factors, large primes, lines that go alone (from 512 on), and some that no cache holds with others.
LENGTHS = [*range(1, 201), 211, 343, 500, 512, 729, 999, 1000, 1009, 1024, 1536, 2048, 3125, 5000, 8192]
LONG = [10007, 16384, 19683, 20014, 44100, 65536]
NORMS = ("backward", "ortho", "forward")


def drawn(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(shape[0])
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype in REAL else values).astype(dtype)


def assert_near(got: np.ndarray, want: np.ndarray, dtype: str) -> None:
    assert got.dtype == dtype and got.shape == want.shape and got.flags.c_contiguous
    rounding = float(np.finfo(REAL.get(dtype, dtype)).eps) / 2
    assert np.abs(got - want).max(initial=0) <= TOLERANCE * rounding * np.abs(want).max(initial=0)


def check(x: np.ndarray, dim: int, norm: str) -> None:
    """All transforms of a complex array along one axis."""
    kind, n = str(x.dtype), x.shape[dim]
    wide = x.astype("clongdouble")
    for inverse, numpys in ((False, np.fft.fft), (True, np.fft.ifft)):
        assert_near(C.fft_c2c(x, (dim,), inverse, norm), numpys(wide, axis=dim, norm=norm), kind)
    assert_near(C.fft_r2c(x.real, dim, norm), np.fft.rfft(wide.real, axis=dim, norm=norm), kind)
    size = max(1, 2 * n - 1 - n % 2)  # as many as these are the half of, odd or even
    assert_near(C.fft_c2r(x, dim, size, norm), np.fft.irfft(wide, size, axis=dim, norm=norm), REAL[kind])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("lines", [1, 3, 19])
def test_all_lengths(lines: int, dtype: str) -> None:
    for n in LENGTHS + (LONG if lines < 19 else []):
        x = drawn((lines, n), dtype)
        check(x, 1, NORMS[n % 3])
        check(np.ascontiguousarray(x.T), 0, NORMS[(n + 1) % 3])


@pytest.mark.parametrize("dtype", REAL)
def test_many_long_lines(dtype: str) -> None:
    for n in (16384, 19683):
        check(drawn((17, n), dtype), 1, "backward")


@pytest.mark.parametrize("dtype", REAL)
def test_any_strides(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for trial in range(60):
        shape = [int(rng.choice([1, 2, 5, 6, 8, 12, 600])) for _ in range(3)]
        if np.prod(shape) > 50000:
            continue
        x, dim = strided(rng, shape, dtype), trial % 3
        norm = NORMS[trial // 3 % 3]
        check(x, dim, norm)
        check(np.broadcast_to(x[:, :1], shape), dim, norm)  # strides of zero


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("norm", NORMS)
def test_several_axes(norm: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for dims in [(0, 1), (2, 0), (1, 2, 0), (2,), (3, 1, 0, 2)]:
        x = strided(rng, (3, 4, 5, 6), dtype)
        for inverse, numpys in ((False, np.fft.fftn), (True, np.fft.ifftn)):
            want = numpys(x.astype("clongdouble"), axes=dims, norm=norm)
            assert_near(C.fft_c2c(x, dims, inverse, norm), want, dtype)
    x = strided(rng, (3, 4), dtype)
    np.testing.assert_array_equal(C.fft_c2c(x, (), True, norm), x)


@pytest.mark.parametrize("dtype", REAL)
def test_halves_are_cropped_and_filled_up(dtype: str) -> None:
    for there in (1, 4, 7):
        for size in (*range(1, 18), 600, 601):
            x = drawn((3, there), dtype)
            want = np.fft.irfft(x.astype("clongdouble"), size, axis=1)
            assert_near(C.fft_c2r(x, 1, size, "backward"), want, REAL[dtype])
            assert_near(C.fft_c2r(x[:1], 1, size, "backward"), want[:1], REAL[dtype])
    # the first value and, of an even size, the last are real: their imaginary parts count for nothing
    x = drawn((2, 5), dtype)
    spoilt = x.copy()
    spoilt.imag[:, 0] = np.nan
    spoilt.imag[:, 4] = np.inf
    for size in (8, 6, 5):
        given = spoilt if size == 8 else np.concatenate([spoilt[:, :1], x[:, 1:]], axis=1)
        got = C.fft_c2r(given, 1, size, "ortho")
        np.testing.assert_array_equal(got, C.fft_c2r(x, 1, size, "ortho"))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 60, 97, 211, 1024, 20014])
def test_no_line_meets_another(n: int, dtype: str) -> None:
    x = drawn((11, n), dtype)
    spoilt = x.copy()
    spoilt[3, n // 2] = np.nan
    spoilt[8, 0] = np.inf
    spoilt[9] *= 1e30
    clean = [0, 1, 2, 4, 5, 6, 7, 10]
    for run in (
        lambda x: C.fft_c2c(x, (1,), False, "backward"),
        lambda x: C.fft_r2c(x.real, 1, "backward"),
        lambda x: C.fft_c2r(x, 1, max(1, 2 * n - 2), "backward"),
    ):
        got, want = run(spoilt), run(x)
        np.testing.assert_array_equal(got[clean], want[clean])
        assert np.isnan(got[3]).any() and not np.isfinite(got[8]).any()
        if n < 200:  # nor does it matter how many lines there are, where none goes alone
            np.testing.assert_array_equal(run(x[4:6]), want[4:6])


@pytest.mark.parametrize("shape", [(40, 128), (3, 4096), (1, 65536), (9, 211), (5, 20014)], ids=str)
def test_same_bits_for_any_threads(shape: tuple[int, ...]) -> None:
    x = drawn(shape, "complex64")
    same_for_any_threads(lambda: C.fft_c2c(x, (1,), True, "ortho"))
    same_for_any_threads(lambda: C.fft_c2c(x, (0, 1), False, "ortho"))
    same_for_any_threads(lambda: C.fft_r2c(x.real, 1, "ortho"))
    same_for_any_threads(lambda: C.fft_c2r(x, 1, shape[1], "ortho"))


def test_roots_are_exact_where_they_can_be() -> None:
    for n in (4, 8, 12, 512, 4096):
        x = np.zeros((2, n), "complex128")
        x[:, 1] = 1
        got = C.fft_c2c(x, (1,), False, "backward")
        np.testing.assert_array_equal(got[:, [0, n // 4, n // 2, 3 * n // 4]], [[1, -1j, -1, 1j]] * 2)


def test_more_lengths_than_plans_are_kept() -> None:
    x = drawn((2, 90), "complex128")
    first = C.fft_c2c(x[:, :50], (1,), False, "backward")
    for n in range(2, 90):
        C.fft_c2c(x[:, :n], (1,), False, "backward")
    np.testing.assert_array_equal(C.fft_c2c(x[:, :50], (1,), False, "backward"), first)


def test_nothing_to_transform() -> None:
    assert C.fft_c2c(np.empty((0, 3), "complex64"), (1,), False, "ortho").shape == (0, 3)
    assert C.fft_c2c(np.empty((3, 0), "complex64"), (1,), False, "ortho").shape == (3, 0)
    assert C.fft_r2c(np.empty((0, 6)), 1, "ortho").shape == (0, 4)
    assert C.fft_c2r(np.empty((0, 4), "complex128"), 1, 6, "ortho").shape == (0, 6)


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: C.fft_c2c(np.ones(3), (0,), False, "ortho"), TypeError, "complex64 or complex128, got float64"),
    (lambda: C.fft_r2c(np.ones(3, "complex64"), 0, "ortho"), TypeError, "float32 or float64, got complex64"),
    (lambda: C.fft_c2c(np.ones(3, "complex64"), (1,), False, "ortho"), IndexError, "dim 1 is out of range"),
    (lambda: C.fft_r2c(np.ones(3), 0, "unit"), ValueError, 'got "unit"'),
    (lambda: C.fft_r2c(np.ones((3, 0)), 1, "ortho"), ValueError, "no values"),
    (lambda: C.fft_c2r(np.ones(3, "complex64"), 0, 0, "ortho"), ValueError, "size must be positive, got 0"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_does_not_fit_is_refused(case: int) -> None:
    call, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        call()


def test_no_lines_need_no_plan() -> None:
    """However long they were."""
    for size in (8, 10**12):
        assert C.fft_c2r(np.empty((0, 5), np.complex64), dim=1, size=size, norm="backward").shape == (0, size)
