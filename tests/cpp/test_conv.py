"""Convolution kernels against a plain sum over taps in float64, over one to three axes and every attribute."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.random import default_rng

from tensorgrad.dtypes import numpy_dtype

_C = pytest.importorskip("tensorgrad._C", exc_type=ImportError)


@pytest.fixture(autouse=True)
def threads_restored():
    before = _C.num_threads()
    yield
    _C.set_num_threads(before)


@dataclass(frozen=True)
class Case:
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def attributes(self) -> dict[str, object]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def out(self) -> tuple[int, ...]:
        sizes = zip(self.x[2:], self.w[2:], self.stride, self.padding, self.dilation, strict=True)
        return (self.x[0], self.w[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes))

    def taps(self):
        """For each tap of the kernel, the slices of the padded input that it meets."""
        out = self.out()[2:]
        for tap in itertools.product(*(range(k) for k in self.w[2:])):
            starts = [t * d for t, d in zip(tap, self.dilation, strict=True)]
            yield tap, tuple(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(starts, out, self.stride, strict=True))

    def pad(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])

    def unpad(self, x: np.ndarray) -> np.ndarray:
        return x[(..., *(slice(p, p + n) for p, n in zip(self.padding, self.x[2:], strict=True)))]


def split(x: np.ndarray, axis: int, groups: int) -> np.ndarray:
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def reference(case: Case, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The convolution and its two gradients, tap by tap, in float64."""
    groups = case.groups
    wide = case.pad(x.astype("float64"))
    xs, ws, gs = split(wide, 1, groups), split(w.astype("float64"), 0, groups), split(g.astype("float64"), 1, groups)
    y, gx, gw = np.zeros_like(gs), np.zeros_like(xs), np.zeros_like(ws)
    for tap, place in case.taps():
        seen, by = xs[(..., *place)], ws[(..., *tap)]
        y += np.einsum("ngc...,goc->ngo...", seen, by)
        gx[(..., *place)] += np.einsum("ngo...,goc->ngc...", gs, by)
        for i in range(groups):
            gw[(i, ..., *tap)] = np.tensordot(gs[:, i], seen[:, i], ([0, *range(2, gs.ndim - 1)],) * 2)
    return y.reshape(g.shape), case.unpad(gx.reshape(wide.shape)), gw.reshape(w.shape)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-3)) if expected.size else 0.0


def random_case(seed: int) -> Case:
    draw = random.Random(seed)
    axes = draw.choice([1, 2, 2, 2, 3])
    if draw.random() < 0.25:
        groups = channels = draw.choice([3, 20])
        out_channels = groups * draw.choice([1, 2, 5])
    else:
        groups = draw.choice([1, 1, 2, 3])
        channels, out_channels = groups * draw.choice([1, 2, 5, 17, 33]), groups * draw.choice([1, 3, 16, 20, 40, 70])
    kernel = tuple(draw.choice([1, 2, 3, 3, 5]) for _ in range(axes))
    stride = tuple(draw.choice([1, 1, 2, 3]) for _ in range(axes))
    dilation = tuple(draw.choice([1, 1, 2]) for _ in range(axes))
    padding = tuple(draw.choice([0, 1, 1, 2, 3]) for _ in range(axes))
    largest = {1: [5, 50, 1500], 2: [1, 4, 9, 14, 33], 3: [1, 4, 7]}[axes]
    size = tuple(
        max(draw.choice(largest), d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    batch = draw.choice([1, 2, 5, 9])
    weight = (out_channels, channels // groups, *kernel)
    return Case((batch, channels, *size), weight, stride, padding, dilation, groups)


CASES = [
    *(random_case(seed) for seed in range(60)),
    Case((0, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((2, 0, 8, 8), (4, 0, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((2, 3, 8, 8), (0, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((2, 3, 0, 4), (4, 3, 1, 3), (1, 1), (1, 1), (1, 1)),
    Case((3, 5, 7, 7), (6, 5, 1, 1), (1, 1), (0, 0), (1, 1)),
    Case((3, 6, 7, 7), (4, 3, 1, 1), (1, 1), (0, 0), (1, 1), 2),
    Case((2, 40, 61, 53), (33, 40, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((1, 2, 21), (3, 2, 2), (1,), (0,), (20,)),
    Case((2, 3, 12, 12), (8, 3, 4, 4), (4, 4), (0, 0), (1, 1)),
    Case((2, 3, 9, 9), (8, 3, 2, 2), (5, 5), (1, 1), (1, 1)),
    # Winograd's tiles: odd maps, every padding, channels off the vector, groups, rows cut in columns, many channels
    Case((1, 16, 7, 7), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((3, 17, 13, 6), (37, 17, 3, 3), (1, 1), (0, 2), (1, 1)),
    Case((2, 40, 5, 9), (48, 20, 3, 3), (1, 1), (2, 0), (1, 1), 2),
    Case((2, 16, 3, 3), (24, 16, 3, 3), (1, 1), (0, 0), (1, 1)),
    Case((1, 16, 5, 391), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((9, 70, 4, 4), (150, 70, 3, 3), (1, 1), (1, 1), (1, 1)),
    Case((2, 300, 6, 5), (90, 300, 3, 3), (1, 1), (1, 1), (1, 1)),
    # 1x1 with a stride, groups, an input the stride does not reach the end of
    Case((3, 12, 9, 8), (10, 6, 1, 1), (2, 3), (0, 0), (1, 1), 2),
    Case((2, 5, 5, 6, 7), (4, 5, 1, 1, 1), (2, 1, 3), (0, 0, 0), (1, 1, 1)),
    # depthwise: several bands of rows, short rows, strides, two outputs a channel, volumes
    Case((2, 19, 70, 75), (19, 1, 3, 3), (1, 1), (1, 1), (1, 1), 19),
    Case((3, 11, 7, 3), (22, 1, 3, 3), (2, 2), (1, 1), (1, 1), 11),
    Case((1, 24, 90, 61), (48, 1, 5, 5), (3, 2), (2, 2), (1, 2), 24),
    Case((2, 9, 6, 5, 7), (9, 1, 3, 2, 3), (2, 1, 2), (1, 0, 1), (1, 1, 2), 9),
    Case((2, 4, 9, 9), (4, 1, 1, 1), (3, 3), (0, 0), (1, 1), 4),
    # few of these: several bands of rows, a kernel beyond the map, outputs, strides, dilation, volumes, lines
    Case((5, 3, 70, 65), (3, 1, 11, 11), (1, 1), (5, 5), (1, 1), 3),
    Case((3, 2, 5, 6), (2, 1, 7, 9), (1, 1), (3, 4), (1, 1), 2),
    Case((3, 3, 33, 27), (9, 1, 4, 3), (1, 1), (2, 0), (1, 3), 3),
    Case((2, 9, 61, 30), (9, 1, 2, 5), (1, 1), (1, 3), (2, 1), 9),
    Case((3, 2, 21, 34), (8, 1, 5, 5), (2, 1), (2, 2), (1, 2), 2),
    Case((2, 5, 7, 9, 11), (10, 1, 3, 2, 3), (1, 1, 1), (1, 0, 2), (1, 2, 1), 5),
    Case((3, 3, 700), (3, 1, 25), (1,), (12,), (1,), 3),
    # few channels of one side: one to four, several images and bands of rows, strides, groups, dilation, volumes
    *(Case((5, c, 31, 29), (70, c, 3, 3), (1, 1), (1, 1), (1, 1)) for c in (1, 2, 3, 4)),
    Case((2, 3, 70, 65), (40, 3, 7, 7), (2, 2), (3, 3), (1, 1)),
    Case((3, 70, 40, 60), (3, 70, 3, 3), (1, 1), (2, 1), (1, 2)),
    Case((2, 6, 21, 22), (40, 3, 4, 4), (2, 2), (1, 1), (1, 1), 2),
    Case((2, 2, 9, 10, 11), (20, 2, 3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1)),
    # 1x1: panels of several images, rows and terms beyond a stretch, a bias (test_bias), strides that skip
    Case((9, 300, 7, 7), (270, 300, 1, 1), (1, 1), (0, 0), (1, 1)),
    Case((2, 30, 41, 37), (70, 30, 1, 1), (1, 1), (0, 0), (1, 1)),
    Case((4, 40, 12, 13), (300, 20, 1, 1), (2, 3), (0, 0), (1, 1), 2),
    Case((70, 5, 1, 1), (7, 5, 1, 1), (1, 1), (0, 0), (1, 1)),
    # of images that don't come out even the first stretch has fewer than others
    Case((5, 6, 5, 5), (4, 6, 1, 1), (1, 1), (0, 0), (1, 1)),
    *(Case((11, 20, n), (18, 20, 1), (1,), (0,), (1,)) for n in (3, 4, 8, 13, 16, 22, 30)),
    # rows that are shorter than a vector, or little longer: what is left of it turns like a whole one
    *(Case((9, 24, n), (40, 24, 3), (1,), (1,), (1,)) for n in (3, 7, 12, 19)),
    # one position that sees the whole input
    Case((30, 50, 4, 3), (70, 50, 4, 3), (2, 1), (0, 0), (1, 1)),
]


def arrays(case: Case, dtype: str) -> tuple[np.ndarray, ...]:
    rng = default_rng(0)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in (case.x, case.w, case.out()))


def kernels(case: Case, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, ...]:
    return (
        _C.conv(x, w, None, **case.attributes()),
        _C.conv_input_grad(g, w, input_shape=case.x, **case.attributes()),
        _C.conv_weight_grad(g, x, weight_shape=case.w, **case.attributes()),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_gradients(case, dtype, tolerance):
    x, w, g = arrays(case, dtype)
    for got, expected in zip(kernels(case, x, w, g), reference(case, x, w, g), strict=True):
        assert got.dtype == dtype
        assert relative_error(got, expected) < tolerance


def test_bias():
    for case in (*CASES[:20], *CASES[-13:]):
        x, w, g = arrays(case, "float32")
        b = default_rng(1).standard_normal(case.w[0]).astype("float32")
        expected = reference(case, x, w, g)[0] + b.reshape(-1, *[1] * (len(case.x) - 2))
        assert relative_error(_C.conv(x, w, b, **case.attributes()), expected) < 5e-6


@pytest.mark.parametrize("case", [CASES[0], CASES[5], CASES[66]], ids=str)
def test_any_layout(case):
    x, w, g = arrays(case, "float32")
    plain = kernels(case, x, w, g)
    last = [np.asfortranarray(a) for a in (x, w, g)]
    gaps = [np.repeat(a, 2, axis=1)[:, ::2] for a in (x, w, g)]
    for moved in (last, gaps):
        for got, expected in zip(kernels(case, *moved), plain, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_float16_computes_in_float32():
    case = Case((2, 5, 9, 9), (7, 5, 3, 3), (1, 1), (1, 1), (1, 1))
    x, w, g = arrays(case, "float16")
    for got, expected in zip(kernels(case, x, w, g), reference(case, x, w, g), strict=True):
        assert got.dtype == np.float16
        assert relative_error(got.astype("float64"), expected) < 1e-3


@pytest.mark.parametrize(
    "case",
    [
        Case((9, 1, 28, 28), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1)),
        Case((4, 64, 16, 16), (64, 64, 3, 3), (2, 2), (1, 1), (1, 1)),
        Case((16, 160, 4, 4), (96, 160, 3, 3), (1, 1), (1, 1), (1, 1)),
        Case((4, 40, 19, 19), (40, 1, 3, 3), (1, 1), (1, 1), (1, 1), 40),
        Case((4, 3, 70, 70), (6, 1, 7, 7), (1, 1), (3, 3), (1, 1), 3),
        Case((4, 64, 14, 14), (96, 64, 1, 1), (1, 1), (0, 0), (1, 1)),
        Case((9, 300, 7, 7), (270, 300, 1, 1), (1, 1), (0, 0), (1, 1)),
        Case((9, 3, 33, 33), (70, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
        Case((5, 64, 15, 15), (96, 64, 3, 3), (1, 1), (1, 1), (1, 1)),
    ],
    ids=str,
)
def test_same_bits_for_any_number_of_threads(case):
    x, w, g = arrays(case, "float32")
    results = []
    for count in (1, 2, 8):
        _C.set_num_threads(count)
        results.append(b"".join(a.tobytes() for a in (*kernels(case, x, w, g), _C.channel_sum(g))))
    assert len(set(results)) == 1


@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize("channels", [16, 256])
def test_error_is_not_above_pytorchs(channels, mean):
    torch = pytest.importorskip("torch")
    case = Case((2, channels, 14, 14), (channels, channels, 3, 3), (1, 1), (1, 1), (1, 1))
    x, w, g = arrays(case, "float32")
    x, w, g = x + np.float32(mean), w / np.float32(3 * channels**0.5), g + np.float32(mean)
    mine, exact = kernels(case, x, w, g), reference(case, x, w, g)
    tensors = [torch.tensor(a) for a in (g, x, w)]
    how = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    gx, gw, _ = torch.ops.aten.convolution_backward(*tensors, *how, (True, True, False))
    theirs = [torch.nn.functional.conv2d(tensors[1], tensors[2], padding=1), gx, gw]
    for ours, other, right in zip(mine, theirs, exact, strict=True):
        rms = [float(np.sqrt(((y - right) ** 2).mean())) for y in (ours, other.numpy())]
        assert rms[0] <= 1.25 * rms[1]  # the same within what a draw of numbers changes


def test_nan_stays_where_it_is_seen():
    x = np.ones((1, 2, 6, 6), "float32")
    x[0, 1, 3, 3] = np.nan
    y = _C.conv(x, np.ones((4, 2, 3, 3), "float32"), None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    expected = np.zeros((4, 4), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(expected, y.shape))


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (2, 70, 1), (3, 4), (0, 3, 2), (300, 5, 40)], ids=str)
def test_channel_sum(shape):
    g = default_rng(0).standard_normal(shape).astype("float32")
    axes = tuple(i for i in range(g.ndim) if i != 1)
    np.testing.assert_allclose(_C.channel_sum(g), g.astype("float64").sum(axes), rtol=1e-5, atol=2e-5)


BASE = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize(
    ("x", "w", "change", "words"),
    [
        ((1, 3, 8, 8), (4, 2, 3, 3), {}, "expects 2 input channels, input has 3"),
        ((1, 4, 8, 8), (3, 2, 3, 3), {"groups": 2}, "groups=2"),
        ((1, 3, 2, 2), (4, 3, 3, 3), {}, "larger than the padded input"),
        ((1, 3, 8, 8), (4, 3, 3), {}, "same number of axes"),
        ((1, 3), (4, 3), {}, "spatial axes"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"stride": (0, 1)}, "stride"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"padding": (-1, 0)}, "padding"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"dilation": (1,)}, "dilation"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"groups": 0}, "groups"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"padding": (2**29, 2**29)}, "2\\^30"),
        ((1, 3, 8, 8), (4, 3, 3, 3), {"padding": (2**62, 0)}, "padding"),
    ],
)
def test_bad_input(x, w, change, words):
    with pytest.raises(ValueError, match=words):
        _C.conv(np.zeros(x, "float32"), np.zeros(w, "float32"), None, **{**BASE, **change})


def test_bad_gradients():
    g, w = np.zeros((1, 4, 5, 6), "float32"), np.zeros((4, 3, 3, 3), "float32")
    with pytest.raises(ValueError, match=r"expected \(1, 4, 6, 6\)"):
        _C.conv_input_grad(g, w, input_shape=(1, 3, 8, 8), **BASE)
    with pytest.raises(ValueError, match=r"expected \(1, 4, 6, 6\)"):
        _C.conv_weight_grad(g, np.zeros((1, 3, 8, 8), "float32"), weight_shape=(4, 3, 3, 3), **BASE)
    with pytest.raises(TypeError, match="float64"):
        _C.conv(np.zeros((1, 3, 8, 8), "float32"), np.zeros((4, 3, 3, 3)), None, **BASE)


ONE_TAP_SHAPES = [(2, 16, 40, 35), (3, 33, 12, 17), (1, 5, 64, 200), (4, 130, 13, 49), (2, 600, 24, 64), (0, 32, 9, 64)]


@pytest.mark.usefixtures("multiplied_by")
@pytest.mark.parametrize("sizes", ONE_TAP_SHAPES)
def test_one_tap_of_bfloat16(sizes: tuple[int, int, int, int]):
    """Sums of float32, rounded once, the same for any number of threads."""
    batch, channels, filters, plane = sizes
    bfloat16 = numpy_dtype("bfloat16")
    rng = default_rng(plane)
    x, w, g = (
        rng.standard_normal(shape).astype(bfloat16)
        for shape in ((batch, channels, plane), (filters, channels, 1), (batch, filters, plane))
    )
    x64, w64, g64 = (a.astype("float64") for a in (x, w[:, :, 0], g))
    attributes = {"stride": (1,), "padding": (0,), "dilation": (1,), "groups": 1}
    turned = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    bias = rng.standard_normal(filters).astype(bfloat16)
    plus = bias.astype("float64")[:, None]
    weight_grad = np.einsum("nop,nip->oi", g64, x64)[:, :, None]
    weight_sums = np.einsum("nop,nip->oi", np.abs(g64), np.abs(x64))[:, :, None]
    for made, expected, sums in (
        (lambda: _C.conv(turned, w, None, **attributes), w64 @ x64, np.abs(w64) @ np.abs(x64)),
        (lambda: _C.conv(x, w, bias, **attributes), w64 @ x64 + plus, np.abs(w64) @ np.abs(x64) + np.abs(plus)),
        (lambda: _C.conv_input_grad(g, w, x.shape, **attributes), w64.T @ g64, np.abs(w64.T) @ np.abs(g64)),
        (lambda: _C.conv_weight_grad(g, turned, w.shape, **attributes), weight_grad, weight_sums),
    ):
        _C.set_num_threads(2)
        got = made()
        assert got.dtype == bfloat16
        assert (np.abs(got.astype("float64") - expected) <= np.abs(expected) * 2.0**-8 + sums * 2e-6).all()
        _C.set_num_threads(3)
        np.testing.assert_array_equal(made().view("uint16"), got.view("uint16"))


@pytest.mark.parametrize("padding", [(1, 1), (0, 2)])
@pytest.mark.parametrize("sizes", [(2, 16, 33, 9, 12), (3, 40, 16, 13, 37), (1, 70, 20, 6, 200), (0, 16, 16, 8, 8)])
def test_three_by_three_of_bfloat16(sizes: tuple[int, int, int, int, int], padding: tuple[int, int]):
    """bfloat16 is read as it is stored, and gives the bits of its copy in float32."""
    batch, channels, filters, height, width = sizes
    bfloat16 = numpy_dtype("bfloat16")
    rng = default_rng(width)
    whole = rng.standard_normal(1 + batch * channels * height * width).astype(bfloat16)
    x = whole[1:].reshape(batch, channels, height, width)
    w, b = (rng.standard_normal(shape).astype(bfloat16) for shape in ((filters, channels, 3, 3), (filters,)))
    attributes = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    x32, w32, b32 = (a.astype("float32") for a in (x, w, b))
    y = _C.conv(x, w, b, **attributes)
    g = rng.standard_normal(y.shape).astype(bfloat16)
    turned, g32 = np.ascontiguousarray(g.swapaxes(2, 3)).swapaxes(2, 3), g.astype("float32")
    for got, expected in (
        (y, _C.conv(x32, w32, b32, **attributes)),
        (_C.conv_input_grad(turned, w, x.shape, **attributes), _C.conv_input_grad(g32, w32, x.shape, **attributes)),
        (_C.conv_weight_grad(turned, x, w.shape, **attributes), _C.conv_weight_grad(g32, x32, w.shape, **attributes)),
    ):
        assert got.dtype == bfloat16
        np.testing.assert_array_equal(got.view("uint16"), expected.astype(bfloat16).view("uint16"))
