"""Tiled attention against its formula in float64: masks, causality, strides, empty rows, both gradients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

_C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)


@pytest.fixture(autouse=True)
def threads_restored():
    before = _C.num_threads()
    yield
    _C.set_num_threads(before)


def reference(q, k, v, mask, causal, scale, g):
    """out, logsumexp and the three gradients, with every score in memory."""
    q, k, v, g = (a.astype("float64") for a in (q, k, v, g))
    times = q.shape[1] // k.shape[1] if k.shape[1] else 1
    k, v = (np.repeat(a, times, axis=1) for a in (k, v))
    s = scale * q @ k.swapaxes(-1, -2)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype("float64")
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isinf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    out = p @ v
    gp = g @ v.swapaxes(-1, -2)
    ds = p * (gp - (gp * p).sum(-1, keepdims=True)) * scale
    gk, gv = (x.swapaxes(-1, -2) @ y for x, y in ((ds, q), (p, g)))
    gk, gv = (x.reshape(x.shape[0], -1, times, *x.shape[2:]).sum(2) if times > 1 else x for x in (gk, gv))
    return out, lse, ds @ k, gk, gv


def error(got, expected):
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    return (
        float(np.abs(got[finite] - expected[finite]).max() / max(np.abs(expected[finite]).max(), 0.1))
        if finite.any()
        else 0.0
    )


def compare(q, k, v, mask=None, causal=False, tolerance=1e-5):
    scale = q.shape[-1] ** -0.5
    g = default_rng(9).standard_normal((*q.shape[:3], v.shape[3])).astype(q.dtype)
    out, lse = _C.attention(q, k, v, mask, causal=causal, scale=scale)
    grads = _C.attention_backward(g, q, k, v, mask, out, lse, causal=causal, scale=scale)
    for got, expected in zip((out, lse, *grads), reference(q, k, v, mask, causal, scale, g), strict=True):
        assert error(got, expected) < tolerance
    return (out, lse, *grads)


def draw(batch, heads, queries, keys, dim, value_dim=None, dtype="float32"):
    rng = default_rng(0)
    shapes = (batch, heads, queries, dim), (batch, heads, keys, dim), (batch, heads, keys, value_dim or dim)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


SIZES = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 5, 7, 8, 4),
    (1, 2, 64, 256, 16, 16),
    (2, 5, 65, 257, 33, 33),
    (1, 2, 200, 600, 8, 8),
    (1, 1, 600, 40, 24, 24),
    (0, 2, 3, 4, 5, 5),
    (2, 2, 0, 4, 5, 5),
    (2, 2, 3, 0, 5, 5),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, causal, dtype, tolerance):
    compare(*draw(*sizes, dtype), causal=causal, tolerance=tolerance)


@pytest.mark.parametrize(
    "shape", [(70, 300), (2, 3, 70, 300), (1, 3, 1, 300), (2, 1, 70, 1), (300,), (3, 1, 1)], ids=str
)
@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_masks(shape, kind):
    rng = default_rng(1)
    mask = rng.random(shape) > 0.4
    if kind == "float32":
        mask = np.where(mask, rng.standard_normal(shape), -np.inf).astype("float32")
    compare(*draw(2, 3, 70, 300, 16), mask)
    compare(*draw(2, 3, 70, 300, 16), mask, causal=True)


# (batch, heads, heads of keys, queries, keys, width, width of values): few heads of keys and many, blocks and one block
SHARED = [(1, 6, 2, 150, 300, 16, 24), (2, 12, 6, 100, 130, 9, 8), (3, 4, 1, 5, 7, 8, 8)]


@pytest.mark.parametrize("sizes", SHARED, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys(sizes, causal):
    batch, heads, shared, queries, keys, dim, value_dim = sizes
    rng = default_rng(4)
    q = rng.standard_normal((batch, heads, queries, dim)).astype("float32")
    k, v = (rng.standard_normal((batch, keys, shared, n)).astype("float32").swapaxes(1, 2) for n in (dim, value_dim))
    for mask in (None, rng.random((heads, queries, keys)) > 0.4, np.arange(keys) < 4):
        bits = []
        for count in (1, 3):
            _C.set_num_threads(count)
            bits.append(b"".join(a.tobytes() for a in compare(q, k, v, mask, causal)))
        assert bits[0] == bits[1]


def test_a_row_that_sees_nothing_is_zero():
    q, k, v = draw(1, 1, 3, 300, 4)
    mask = np.ones((3, 300), bool)
    mask[1] = False
    mask[2, :299] = False
    out, lse, gq, _, _ = compare(q, k, v, mask)
    assert not out[0, 0, 1].any() and not gq[0, 0, 1].any()
    assert lse[0, 0, 1] == -np.inf


def test_nan_and_infinity_come_through():
    q, k, v = draw(1, 1, 4, 300, 4)
    q[0, 0, 1, 0] = np.nan
    out, _ = _C.attention(q, k, v, None, causal=False, scale=0.5)
    assert np.isnan(out[0, 0, 1]).all() and np.isfinite(out[0, 0, [0, 2, 3]]).all()
    k[0, 0, 299, 0] = np.inf
    out, _ = _C.attention(np.abs(q), k, v, None, causal=False, scale=0.5)
    assert np.isnan(out).all()


def test_large_scores_do_not_overflow():
    q, k, v = (1000 * a for a in draw(1, 2, 40, 500, 16))
    out, lse = _C.attention(q, k, v, None, causal=False, scale=1.0)
    grads = _C.attention_backward(out, q, k, v, None, out, lse, causal=False, scale=1.0)
    assert all(np.isfinite(a).all() for a in (out, lse, *grads))
    best = (q.astype("float64") @ k.astype("float64").swapaxes(-1, -2)).argmax(-1)  # scores of 1e6: one key takes all
    assert error(out, np.take_along_axis(v, best[..., None], 2)) < 1e-6


def test_layouts():
    rng = default_rng(2)
    q, k, v = (rng.standard_normal((2, 90, 3, 16)).astype("float32").transpose(0, 2, 1, 3) for _ in range(3))
    out, _, *grads = compare(q, k, v, causal=True)
    for made in (out, *grads):  # heads can be merged without a copy
        assert made.transpose(0, 2, 1, 3).flags.c_contiguous
    compare(*(np.asfortranarray(a) for a in (q, k, v)))
    compare(*(np.repeat(a, 2, axis=3)[..., ::2] for a in (q, k, v)))
    compare(*(a[:, :, ::-1] for a in (q, k, v)))
    fused = rng.standard_normal((2, 90, 3, 3, 16)).astype("float32")  # as a projection to q, k and v at once leaves it
    compare(*(fused[:, :, i].transpose(0, 2, 1, 3) for i in range(3)))
    compare(np.broadcast_to(q[:1], q.shape), k, np.broadcast_to(v[:, :1], v.shape))


def test_float16():
    q, k, v = draw(2, 3, 20, 30, 8, dtype="float16")
    out, *_ = compare(q, k, v, tolerance=3e-3)
    assert out.dtype == np.float16


@pytest.mark.parametrize("sizes", [(2, 8, 150, 300, 16), (1, 2, 300, 700, 16)], ids=str)
def test_same_bits_for_any_number_of_threads(sizes):
    q, k, v = draw(*sizes)
    results = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        results.append(b"".join(a.tobytes() for a in compare(q, k, v, causal=True)))
    assert len(set(results)) == 1


@pytest.mark.parametrize("causal", [False, True])
def test_memory_is_linear_in_the_length(causal):
    q, k, v = draw(1, 1, 2048, 2048, 16)
    _C.trim_memory()
    before = _C.memory_stats()["in_use"]
    out, lse = _C.attention(q, k, v, None, causal=causal, scale=0.25)
    grads = _C.attention_backward(out, q, k, v, None, out, lse, causal=causal, scale=0.25)
    # results are 0.6 MB, tiles a few hundred KB per thread; all scores would be 16 MB
    assert _C.memory_stats()["peak"] - before < 6 << 20
    assert len(grads) == 3


@pytest.mark.parametrize(
    "sizes", [(1, 2, 1, 300, 16), (1, 2, 97, 129, 8, 24), (2, 1, 13, 260, 40), (1, 9, 100, 300, 16, 48)], ids=str
)
@pytest.mark.parametrize("causal", [False, True])
def test_edges_of_tiles(sizes, causal):
    q, k, v = draw(*sizes)
    compare(q, k, v, causal=causal)
    padding = np.arange(sizes[3]) < 100  # whole blocks of keys hidden
    compare(q, k, v, mask=padding.reshape(1, 1, 1, -1), causal=causal)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)), "batch, heads, length, dim"),
        (((1, 2, 3, 4), (1, 2, 5, 6), (1, 2, 5, 6)), "same last axis"),
        (((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 6, 4)), "same length"),
        (((1, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "batch and heads"),
        (((1, 3, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)), "multiple of the heads"),
        (((1, 4, 3, 4), (1, 2, 5, 4), (1, 4, 5, 4)), "multiple of the heads"),
        (((1, 0, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)), "multiple of the heads"),
    ],
)
def test_bad_shapes(shapes, words):
    q, k, v = (np.zeros(shape, "float32") for shape in shapes)
    with pytest.raises(ValueError, match=words):
        _C.attention(q, k, v, None, causal=False, scale=1.0)


def test_bad_masks_and_types():
    q, k, v = draw(1, 2, 3, 5, 4)
    with pytest.raises(ValueError, match="does not broadcast"):
        _C.attention(q, k, v, np.ones((3, 4), bool), causal=False, scale=1.0)
    with pytest.raises(TypeError, match="float64"):
        _C.attention(q, k, v, np.ones((3, 5)), causal=False, scale=1.0)
    with pytest.raises(TypeError, match="float64"):
        _C.attention(q, k.astype("float64"), v, None, causal=False, scale=1.0)
    out, lse = _C.attention(q, k, v, None, causal=False, scale=1.0)
    with pytest.raises(ValueError, match="lse"):
        _C.attention_backward(out, q, k, v, None, out, lse[:, :1], causal=False, scale=1.0)
