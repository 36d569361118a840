"""Matrix products of the C++ kernels against NumPy in float64, over layouts, dtypes and thread counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, default_rng

from tensorgrad.dtypes import numpy_dtype

_C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)

TOLERANCE = {"float32": 3e-6, "float64": 1e-13, "complex64": 5e-6, "complex128": 1e-13, "float16": 2e-3}


@pytest.fixture(autouse=True)
def threads_restored():
    before = _C.num_threads()
    yield
    _C.set_num_threads(before)


def draw(rng: Generator, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    x = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        x = x + 1j * rng.standard_normal(shape)
    if dtype.startswith(("int", "uint")):
        x = rng.integers(-100, 100, shape)
    return np.asarray(x).astype(dtype)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    if expected.size == 0:
        return 0.0
    wide = "complex128" if np.iscomplexobj(expected) else "float64"
    return float(np.abs(got.astype(wide) - expected).max() / max(np.abs(expected).max(), 1e-3))


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype("complex128" if np.iscomplexobj(x) else "float64")


SHAPES = [
    ((3, 4), (4, 5)),
    ((8, 16), (16, 32)),
    ((1, 7), (7, 1)),
    ((1, 1), (1, 1)),
    ((5, 1), (1, 5)),
    ((130, 257), (257, 190)),
    ((300, 64), (64, 1000)),
    ((40, 5000), (5000, 24)),
    ((20, 2000), (2000, 20)),
    ((12, 3000), (3000, 9)),
    ((3, 70000), (70000, 40)),
    ((50, 700), (700, 2)),
    ((7, 600), (600, 45)),
    ((97, 1025), (1025, 301)),
    ((9, 20, 30), (9, 30, 40)),
    ((2, 3, 4), (2, 4, 5)),
    ((6, 1, 3, 4), (5, 4, 2)),
    ((4, 33, 70), (70, 65)),
    ((3, 4), (7, 4, 2)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
    ((2, 0, 4), (2, 4, 5)),
    ((0, 3, 4), (1, 4, 5)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "float16"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(shapes, dtype):
    rng = default_rng(0)
    a, b = (draw(rng, shape, dtype) for shape in shapes)
    got = _C.matmul(a, b)
    assert got.dtype == a.dtype
    assert relative_error(got, wide(a) @ wide(b)) < TOLERANCE[dtype]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k"), [(12, 1024), (77, 1024), (29, 300), (40, 17), (25, 16), (300, 1000), (13, 5)])
def test_rows_of_one_cache_set(m, k, dtype, threads):
    """Rows that lie 4096 bytes apart are copied where tiles are high; their products have the bits of any others."""
    _C.set_num_threads(threads)
    rng = default_rng(0)
    step = 4096 // np.dtype(dtype).itemsize * (-(-k // 512))
    a, b = draw(rng, (m, step), dtype)[:, :k], draw(rng, (k, 259), dtype)
    got = _C.matmul(a, b)
    assert relative_error(got, wide(a) @ wide(b)) < TOLERANCE[dtype]
    elsewhere = np.zeros((m, step + 8), dtype)[:, :k]
    elsewhere[...] = a
    np.testing.assert_array_equal(_C.matmul(elsewhere, b), got)


def bfloat_layouts(x: np.ndarray) -> list[np.ndarray]:
    """As bfloat16: contiguous, transposed, rows apart and from the last to the first, elements apart."""
    bfloat16 = numpy_dtype("bfloat16")
    x = x.astype(bfloat16)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 3), bfloat16)
    wide[..., : x.shape[-1]] = x
    apart = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), bfloat16)
    apart[..., ::2] = x
    turned = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    back = np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    return [x, turned, wide[..., : x.shape[-1]], back, apart[..., ::2]]


def assert_rounded_once(got: np.ndarray, expected: np.ndarray, magnitude: np.ndarray) -> None:
    """Half a unit in bfloat16's last place, and what float32 adds to sums of that magnitude."""
    assert got.dtype.name == "bfloat16"
    assert got.shape == expected.shape
    assert (np.abs(got.astype("float64") - expected) <= np.abs(expected) * 2.0**-8 + magnitude * 2e-6).all()


def same_on_three_threads(call: Callable[[], Any], got: np.ndarray) -> None:
    _C.set_num_threads(3)
    np.testing.assert_array_equal(call().view("uint16"), got.view("uint16"))
    _C.set_num_threads(2)


# few rows, rows that fill no tile, columns that fill no panel, odd numbers of terms, several stretches of them
BFLOAT_SHAPES = [
    (1, 70, 530), (3, 33, 1025), (9, 12, 40), (5, 600, 96), (12, 16, 260), (13, 31, 1027), (25, 33, 71), (37, 300, 512),
    (300, 17, 129), (530, 45, 1030), (33, 70, 64), (100, 300, 800),
]  # fmt: skip


@pytest.mark.usefixtures("multiplied_by")
@pytest.mark.parametrize(("m", "n", "k"), BFLOAT_SHAPES)
def test_matmul_bfloat16(m: int, n: int, k: int):
    rng = default_rng(0)
    for batch in ((), (3,)):
        layouts_a = bfloat_layouts(rng.standard_normal((*batch, m, k)))
        layouts_b = bfloat_layouts(rng.standard_normal((k, n)))
        a64, b64 = layouts_a[0].astype("float64"), layouts_b[0].astype("float64")
        for i, a in enumerate(layouts_a):
            b = layouts_b[(i + m) % len(layouts_b)]
            got = _C.matmul(a, b)
            assert_rounded_once(got, a64 @ b64, np.abs(a64) @ np.abs(b64))
            same_on_three_threads(lambda a=a, b=b: _C.matmul(a, b), got)


@pytest.mark.usefixtures("multiplied_by")
@pytest.mark.parametrize(("m", "n", "k"), BFLOAT_SHAPES)
def test_linear_bfloat16(m: int, n: int, k: int):
    rng = default_rng(1)
    xs, ws = bfloat_layouts(rng.standard_normal((m, k))), bfloat_layouts(rng.standard_normal((n, k)))
    gs, bias = bfloat_layouts(rng.standard_normal((m, n))), bfloat_layouts(rng.standard_normal((1, n)))[0][0]
    x64, w64, g64 = (all_[0].astype("float64") for all_ in (xs, ws, gs))
    for i, x in enumerate(xs):
        w, g, b = ws[(i + m) % len(ws)], gs[(i + n) % len(gs)], bias if i % 2 else None
        made = _C.linear(x, w, b)
        added = 0.0 if b is None else b.astype("float64")
        assert_rounded_once(made, x64 @ w64.T + added, np.abs(x64) @ np.abs(w64.T) + np.abs(added))
        same_on_three_threads(lambda x=x, w=w, b=b: _C.linear(x, w, b), made)
        needs = (i != 1, i != 2, i != 3)
        found = _C.linear_backward(g, x, w, needs)
        expected = (g64 @ w64, g64.T @ x64, g64.sum(0))
        magnitudes = (np.abs(g64) @ np.abs(w64), np.abs(g64.T) @ np.abs(x64), np.abs(g64).sum(0))
        for at, grad in enumerate(found):
            assert (grad is not None) == needs[at]
            if grad is not None:
                assert_rounded_once(grad, expected[at], magnitudes[at])
                same_on_three_threads(lambda g=g, x=x, w=w, n=needs, at=at: _C.linear_backward(g, x, w, n)[at], grad)


@pytest.mark.parametrize("asked", ["avx512", "amx"])
def test_tiles_are_used_where_they_are_asked_for(asked: str):
    if _C.isa() not in ("avx512", "amx") or sys.platform != "linux":
        pytest.skip("the kernels that use tiles are those for AVX-512, on Linux")
    code = "from tensorgrad import _C; print(_C.isa())"
    environment = {**os.environ, "TENSORGRAD_CPU": asked}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    flags = Path("/proc/cpuinfo").read_text().split()
    assert made.stdout.strip() == ("amx" if asked == "amx" and "amx_bf16" in flags else "avx512")


@pytest.mark.usefixtures("multiplied_by")
def test_bfloat16_carries_infinities_and_nans():
    bfloat16 = numpy_dtype("bfloat16")
    x, w = np.ones((40, 64), bfloat16), np.ones((48, 64), bfloat16)
    x[0, 3], x[1, 5], x[2, 7], w[4, 9] = np.inf, -np.inf, np.nan, 0
    x[3, 9] = np.inf
    with np.errstate(invalid="ignore"):
        expected = x.astype("float32") @ w.astype("float32").T
    np.testing.assert_array_equal(_C.linear(x, w, None).astype("float32"), expected)
    np.testing.assert_array_equal(_C.linear(x[:4], w, None).astype("float32"), expected[:4])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_integers_wrap(dtype):
    rng = default_rng(0)
    limits = np.iinfo(dtype)
    # a tile's rows, panels and stretches of terms that are whole and not, and few columns
    for m, n, k in [(6, 7, 30), (37, 70, 300), (4, 32, 256), (5, 1, 700), (1, 3, 9), (3, 40, 0)]:
        a = rng.integers(limits.min, limits.max, (m, k), dtype, endpoint=True)
        b = rng.integers(limits.min, limits.max, (k, n), dtype, endpoint=True)
        exact = (a.astype("int64") @ b.astype("int64")).astype(dtype)
        got = _C.matmul(a, b)
        np.testing.assert_array_equal(got, exact)
        np.testing.assert_array_equal(_C.matmul(b.T, a.T), exact.T)
        both = _C.matmul(np.stack((a, a[::-1])), np.asfortranarray(b))
        np.testing.assert_array_equal(both, np.stack((exact, exact[::-1])))
        same = _C.matmul(np.ascontiguousarray(b.T).T, np.eye(n, dtype=dtype)[:, ::-1])
        np.testing.assert_array_equal(same, b[:, ::-1])


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values in memory in every way a product can or can't take."""
    gap = np.zeros((*x.shape[:-2], 2 * x.shape[-2], 3 * x.shape[-1]), x.dtype)
    gap[..., ::2, ::3] = x
    wide_rows = np.zeros((*x.shape[:-1], x.shape[-1] + 5), x.dtype)
    wide_rows[..., 2:-3] = x
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    odd[...] = x
    return {
        "rows apart": wide_rows[..., 2:-3],
        "transposed": np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2),
        "both strided": gap[..., ::2, ::3],
        "reversed": np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1],
        "unaligned": odd,
    }


@pytest.mark.parametrize(
    "shapes",
    [
        ((37, 20), (20, 45)),
        ((3, 9, 8), (3, 8, 11)),
        ((1, 20), (20, 1)),
        ((2, 40), (40, 90)),
        ((7, 40), (40, 90)),
        ((200, 300), (300, 700)),
        ((200, 700), (700, 100)),
        ((130, 300), (300, 240)),
        # few terms for few rows, and columns that are done as rows
        ((9, 4, 1), (9, 1, 21)),
        ((20, 2, 8), (20, 8, 19)),
        ((9, 30, 5), (9, 5, 1)),
        ((30000, 20), (20, 1)),
        # few columns by a long matrix
        ((3, 9000), (9000, 45)),
        ((45, 9000), (9000, 3)),
        # more of its columns than are summed at once
        ((12, 300), (300, 3001)),
        ((3001, 300), (300, 12)),
    ],
    ids=str,
)
def test_matmul_reads_any_layout(shapes):
    rng = default_rng(1)
    a, b = (draw(rng, shape) for shape in shapes)
    expected = wide(a) @ wide(b)
    for name, x in layouts(a).items():
        assert relative_error(_C.matmul(x, b), expected) < 3e-6, name
    for name, x in layouts(b).items():
        assert relative_error(_C.matmul(a, x), expected) < 3e-6, name


LITTLE = [(1, 2, 1), (2, 2, 2), (3, 3, 1), (1, 3, 3), (4, 4, 4), (8, 1, 8), (1, 16, 1), (5, 3, 7), (6, 6, 6), (1, 1, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", LITTLE, ids=str)
def test_batches_of_little_products(size, dtype):
    m, k, n = size
    rng = default_rng(5)
    # two vectors of products are the fewest that are taken side by side; the others leave some over
    for batch in (16, 32, 45, 515, 4000):
        a, b = draw(rng, (batch, m, k), dtype), draw(rng, (batch, k, n), dtype)
        pairs = [
            (a, b),
            (
                np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2),
                np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2),
            ),
            (a[::-1], b),
            (a[::2], b[1::2] if batch % 2 == 0 else b[::2]),
            (np.repeat(a, 2, 2)[:, :, ::2], b[:1]),
            (np.broadcast_to(a[0], a.shape), b),
            (a.reshape(1, batch, m, k), b[: 3 * (batch // 3) : max(1, batch // 3)][:3, None]),
        ]
        for left, right in pairs:
            got = _C.matmul(left, right)
            assert relative_error(got, np.matmul(wide(left), wide(right))) < TOLERANCE[dtype], (batch, left.strides)
        whole = _C.matmul(a, b)
        assert np.array_equal(_C.matmul(a[::-1].copy(), b[::-1].copy())[::-1], whole)  # wherever a product stands
        for count in (1, 2, 8):
            _C.set_num_threads(count)
            assert np.array_equal(_C.matmul(a, b), whole)


def test_products_of_batches_with_offsets():
    rng = default_rng(6)
    for m, k, n in ((2, 3, 2), (20, 30, 25)):
        a, b = draw(rng, (6, 7, m, k)), draw(rng, (7, k, n))
        for left, right in (
            (a, b),
            (a.swapaxes(0, 1), b[:, None]),
            (a[:, :1], b),
            (a[::2, ::3], a[1::2, ::3].swapaxes(2, 3)),
        ):
            assert relative_error(_C.matmul(left, right), np.matmul(wide(left), wide(right))) < TOLERANCE["float32"]
    whole = rng.integers(-9, 9, (4, 5, 2, 3))
    assert np.array_equal(_C.matmul(whole, whole[::-1].swapaxes(2, 3)), whole @ whole[::-1].swapaxes(2, 3))


def test_broadcast_operands_are_not_copied_wrongly():
    rng = default_rng(2)
    a, b = draw(rng, (1, 6, 5)), draw(rng, (5, 4))
    spread = np.broadcast_to(a, (7, 6, 5))
    assert relative_error(_C.matmul(spread, b), wide(spread) @ wide(b)) < 3e-6
    rows = np.broadcast_to(draw(rng, (1, 5)), (6, 5))
    assert relative_error(_C.matmul(rows, b), wide(rows) @ wide(b)) < 3e-6
    columns = np.broadcast_to(draw(rng, (6, 1)), (6, 5))
    assert relative_error(_C.matmul(columns, b), wide(columns) @ wide(b)) < 3e-6


@pytest.mark.parametrize(
    "shapes",
    [
        ((512, 300), (300, 700)), ((64, 20000), (20000, 32)), ((40, 60, 70), (40, 70, 50)), ((3, 70000), (70000, 5)),
        ((6, 700), (700, 900)), ((12, 300), (300, 3001)),
    ],
    ids=str,
)  # fmt: skip
def test_same_bits_for_any_number_of_threads(shapes):
    rng = default_rng(3)
    a, b = (draw(rng, shape) for shape in shapes)
    results = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        results.append(_C.matmul(a, b).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_a_weight_of_many_examples_and_few_outputs(dtype):
    rng = default_rng(8)
    tall = draw(rng, (9000, 37), dtype)
    for x, outputs in ((tall, 1), (tall, 11), (tall[:, :33], 5)):  # the last with something else between its rows
        g = draw(rng, (len(x), outputs), dtype)
        w = draw(rng, (outputs, x.shape[1]), dtype)
        results = []
        for count in (1, 2, 8):
            _C.set_num_threads(count)
            _, gw, gb = _C.linear_backward(g, x, w, (False, True, True))
            results.append((gw, gb, _C.matmul(x.T, g)))
        assert len({b"".join(r.tobytes() for r in made) for made in results}) == 1
        for got, exact in zip(results[0], (wide(g).T @ wide(x), wide(g).sum(0), wide(x).T @ wide(g)), strict=True):
            assert relative_error(got, exact) < TOLERANCE[dtype]
        spoiled = x.copy()
        spoiled[5, 0] = np.nan  # no other column is computed of it
        assert np.isnan(_C.matmul(g.T, spoiled)).all(0).tolist() == [True] + [False] * (x.shape[1] - 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [16, 25, 32, 48, 61, 64, 96, 117, 128])
def test_some_dozen_rows_by_a_large_matrix(rows, dtype):
    rng = default_rng(9)
    x, w, bias = draw(rng, (rows, 611), dtype), draw(rng, (397, 611), dtype), draw(rng, (397,), dtype)
    # of so many elements that odd numbers of rows pay; its rows share a set of an L1
    square = draw(rng, (512, 1024), dtype)
    exact = wide(x) @ wide(w).T
    made = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        made.append([_C.matmul(x, w.T), _C.matmul(x, np.ascontiguousarray(w.T)), _C.linear(x, w, bias)])
        made[-1] += [_C.matmul(x[:, :512], square), _C.matmul(x[:, :512].repeat(2, 1), square.T)]
    assert len({b"".join(array.tobytes() for array in each) for each in made}) == 1
    expected = [exact, exact, exact + wide(bias), wide(x[:, :512]) @ wide(square)]
    expected.append(wide(x[:, :512].repeat(2, 1)) @ wide(square).T)
    for got, right in zip(made[0], expected, strict=True):
        assert relative_error(got, right) < TOLERANCE[dtype]
    for left in layouts(x).values():
        assert relative_error(_C.matmul(left, w.T), exact) < TOLERANCE[dtype]
    batch = _C.matmul(np.stack([x, x[::-1]]), np.stack([w.T, 2 * w.T]))
    assert relative_error(batch, np.stack([exact, 2 * exact[::-1]])) < TOLERANCE[dtype]


@pytest.mark.parametrize("length", [16, 17, 31, 45])
def test_infinite_elements_at_the_end_of_a_dot_are_counted_once(length):
    x = np.ones((9, length), "float32")
    x[2, length - 16], x[4, -1] = np.inf, -np.inf
    expected = np.full(9, float(length))
    expected[2], expected[4] = np.inf, -np.inf
    assert _C.matmul(x, np.ones((length, 1), "float32"))[:, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
@pytest.mark.parametrize("x_shape", [(5,), (3, 5), (2, 3, 5), (0, 5), (400, 5)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear(x_shape, dtype, with_bias):
    rng = default_rng(4)
    x, w, b = draw(rng, x_shape, dtype), draw(rng, (7, 5), dtype), draw(rng, (7,), dtype)
    expected = wide(x) @ wide(w).T + (wide(b) if with_bias else 0)
    assert relative_error(_C.linear(x, w, b if with_bias else None), expected) < TOLERANCE[dtype]
    g = draw(rng, (*x_shape[:-1], 7), dtype)
    rows_g, rows_x = wide(g).reshape(-1, 7), wide(x).reshape(-1, 5)
    expected_grads = (wide(g) @ wide(w), rows_g.T @ rows_x, rows_g.sum(0))
    for got, exact in zip(_C.linear_backward(g, x, w, (True, True, True)), expected_grads, strict=True):
        assert relative_error(got, exact) < TOLERANCE[dtype] * 2


@pytest.mark.parametrize("g_contiguous", [True, False])
def test_linear_strided_and_large(g_contiguous):
    rng = default_rng(5)
    x = draw(rng, (300, 8, 64)).transpose(1, 0, 2)  # leading axes that don't fold into rows
    w, b = draw(rng, (64, 96)).T, draw(rng, (96,))
    g = draw(rng, (8, 300, 96)) if g_contiguous else draw(rng, (96, 8, 300)).transpose(1, 2, 0)
    assert relative_error(_C.linear(x, w, b), wide(x) @ wide(w).T + b) < 3e-6
    rows_g, rows_x = wide(g).reshape(-1, 96), wide(x).reshape(-1, 64)
    results = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        gx, gw, gb = _C.linear_backward(g, x, w, (True, True, True))
        results.append(gx.tobytes() + gw.tobytes() + gb.tobytes())
    assert len(set(results)) == 1
    assert relative_error(gx, wide(g) @ wide(w)) < 3e-6
    assert relative_error(gw, rows_g.T @ rows_x) < 3e-6
    assert relative_error(gb, rows_g.sum(0)) < 3e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "features", "outputs"), [(20000, 33, 50), (300, 700, 61), (500, 20, 300)])
def test_linear_backward_sums_the_rows_that_tasks_read(rows, features, outputs, dtype):
    """In stretches of terms that several waves of tasks add up, and rows that fill no vector."""
    rng = default_rng(6)
    sizes = ((rows, outputs), (rows, features), (outputs, features))
    g, x, w = (draw(rng, size, dtype) for size in sizes)
    results = []
    for count in (1, 2, 3):
        _C.set_num_threads(count)
        _, gw, gb = _C.linear_backward(g, x, w, (False, True, True))
        results.append(gw.tobytes() + gb.tobytes())
    assert len(set(results)) == 1
    assert relative_error(gw, wide(g).T @ wide(x)) < TOLERANCE[dtype]
    assert relative_error(gb, wide(g).sum(0)) < TOLERANCE[dtype]


def test_linear_backward_leaves_out_what_nobody_needs():
    g, x, w = np.ones((3, 2), "float32"), np.ones((3, 4), "float32"), np.ones((2, 4), "float32")
    gx, gw, gb = _C.linear_backward(g, x, w, (False, True, False))
    assert gx is None and gb is None
    np.testing.assert_array_equal(gw, np.full((2, 4), 3.0))


@pytest.mark.parametrize(
    ("a", "b", "error", "words"),
    [
        ((3, 4), (5, 6), ValueError, "inner sizes 4 and 5"),
        ((4,), (4, 5), ValueError, "at least 2 axes"),
        ((2, 3, 4), (3, 4, 5), ValueError, "do not broadcast"),
    ],
)
def test_bad_shapes(a, b, error, words):
    with pytest.raises(error, match=words):
        _C.matmul(np.zeros(a, "float32"), np.zeros(b, "float32"))


def test_bad_types():
    with pytest.raises(TypeError, match="float64"):
        _C.matmul(np.zeros((2, 2), "float32"), np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        _C.matmul([[1.0]], np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"784 features.*expects 512"):
        _C.linear(np.zeros((1, 784), "float32"), np.zeros((256, 512), "float32"), None)
    with pytest.raises(ValueError, match="bias"):
        _C.linear(np.zeros((1, 4), "float32"), np.zeros((3, 4), "float32"), np.zeros(4, "float32"))
