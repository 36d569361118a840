"""Pooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry
from tensorgrad.errors import DTypeError, ShapeError
from tensorgrad.nn import functional as F

from .beside_torch import same
from .parity import between, compare, normal

SIZES = (7, 6, 5)
BEYOND = [
    ("max_pool", (2,), {"kernel_size": 3, "return_indices": True}),
    ("max_pool", (3, 1), {"kernel_size": (3, 2)}),
    ("max_pool", (2, 3), {"kernel_size": 3, "stride": 4, "padding": 1, "dilation": 2}),
    ("avg_pool", (2,), {"kernel_size": 3}),
    ("avg_pool", (1, 2), {"kernel_size": 5, "stride": 3, "padding": 1}),
    ("avg_pool", (1, 2), {"kernel_size": 5, "stride": 3, "padding": 1, "count_include_pad": False}),
]
MAX = [
    {"kernel_size": 2}, {"kernel_size": 2, "stride": 1}, {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, {"kernel_size": 2, "dilation": 2, "stride": 1},
]  # fmt: skip
AVERAGE = [
    {"kernel_size": 2}, {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 1, "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
]  # fmt: skip


def pair(name, dims, **options):
    functional = pytest.importorskip("torch").nn.functional
    mine, theirs = getattr(F, f"{name}{dims}d"), getattr(functional, f"{name}{dims}d")
    return (lambda x: mine(x, **options)), (lambda x: theirs(x, **options))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", MAX, ids=str)
def test_max_pool(dims, options):
    compare(*pair("max_pool", dims, **options, return_indices=True), [normal(2, 3, *SIZES[:dims])])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", AVERAGE, ids=str)
def test_avg_pool(dims, options):
    compare(*pair("avg_pool", dims, **options), [normal(2, 3, *SIZES[:dims])])


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
@pytest.mark.parametrize(("name", "sizes", "options"), BEYOND, ids=str)
def test_ceil_mode_takes_a_window_larger_than_the_input(name, sizes, options, backend):
    with tg.backend(backend):
        compare(*pair(name, len(sizes), **options, ceil_mode=True), [normal(2, 3, *sizes)])
        with pytest.raises(ValueError):
            getattr(F, f"{name}{len(sizes)}d")(tg.ones(2, 3, *sizes), **options)


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_adaptive_of_an_empty_batch(backend):
    with tg.backend(backend):
        compare(*pair("adaptive_max_pool", 2, output_size=2, return_indices=True), [normal(0, 3, 4, 5)])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_adaptive(dims, size):
    compare(*pair("adaptive_avg_pool", dims, output_size=size), [normal(2, 3, *SIZES[:dims])])
    options = {"output_size": size, "return_indices": True}
    compare(*pair("adaptive_max_pool", dims, **options), [normal(2, 3, *SIZES[:dims])])


@pytest.mark.parametrize("options", [*AVERAGE, {"kernel_size": 25, "stride": 1}, {"kernel_size": 4}], ids=str)
def test_rows_long_enough_to_be_averaged_side_by_side(options):
    mine, theirs = pair("avg_pool", 1, **options)
    for length in (25, 40, 83):
        compare(mine, theirs, [normal(2, 3, length)])


def test_adaptive_means_of_long_rows():
    for size in (8, 13, 41):
        compare(*pair("adaptive_avg_pool", 1, output_size=size), [normal(2, 3, 41)])


def test_lp_pool_and_divisor():
    compare(*pair("lp_pool", 2, norm_type=2, kernel_size=2), [between(2, 3, 6, 6)])
    compare(*pair("avg_pool", 2, kernel_size=2, divisor_override=3), [normal(2, 3, 6, 6)])
    for norm in (float("inf"), -float("inf")):
        compare(*pair("lp_pool", 2, norm_type=norm, kernel_size=2, ceil_mode=True), [normal(2, 3, 5, 6)])


def test_nan_wins_and_infinite_windows_have_a_place():
    x = normal(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    x[0, 0, 2:, 2:] = -np.inf
    compare(*pair("max_pool", 2, kernel_size=2, return_indices=True), [x], wrt=[])


def test_integers_have_a_maximum():
    assert F.max_pool1d(tg.tensor([[[1, -5, -7, -6]]]), 2, padding=1).tolist() == [[[1, -5, -6]]]


def test_integers_are_averaged_towards_zero():
    assert F.avg_pool1d(tg.tensor([[[1, -4, -7, -6, 3, 4]]]), 2).tolist() == [[[-1, -6, 3]]]


@pytest.mark.parametrize("backend", ["numpy", "cpp"])
def test_integers_near_the_limits_of_int64_have_a_mean(backend):
    if registry.class_of(backend).why_not() is not None:
        pytest.skip("no C++ kernels here")
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**63), 2**63 - 1, (1, 1, 7))
    with tg.backend(backend):
        got = F.avg_pool1d(tg.tensor(x), 3, stride=2, padding=1, count_include_pad=False)
        assert F.avg_pool1d(tg.full((1, 1, 2), 2**62), 2).tolist() == [[[2**62]]]
    windows = [x[0, 0, max(2 * i - 1, 0) : 2 * i + 2].tolist() for i in range(4)]
    assert got[0, 0].tolist() == [abs(sum(w)) // len(w) * (1 if sum(w) > 0 else -1) for w in windows]


def test_a_window_around_the_input_is_minus_infinity_without_a_gradient():
    x = tg.tensor([[[2.0]]], requires_grad=True)
    y = F.max_pool1d(x, 2, stride=1, padding=1, dilation=2)
    assert y.tolist() == [[[float("-inf")]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[0.0]]]


def test_errors():
    with pytest.raises(ShapeError, match="larger than the input"):
        F.max_pool2d(tg.ones(1, 1, 2, 2), 3)
    with pytest.raises(ValueError, match="at most half"):
        F.avg_pool2d(tg.ones(1, 1, 4, 4), 2, padding=2)
    with pytest.raises(DTypeError, match="bool"):
        F.avg_pool2d(tg.ones(1, 1, 4, 4).bool(), 2)
    with pytest.raises(ShapeError, match="expected 4 or 3"):
        F.max_pool2d(tg.ones(4), 2)


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_adaptive_means_of_nothing(dims):
    """The mean of no positions is NaN."""
    for shape in ((2, *(0,) * dims), (2, 2, *(0,) * dims), (2, 0, *(4,) * dims), (0, 2, *(0,) * dims)):
        same(lambda lib, x: [getattr(lib.nn.functional, f"adaptive_avg_pool{dims}d")(x, 1)], np.zeros(shape), order=1)
    with pytest.raises(ShapeError, match="only the batch"):
        getattr(tg.nn.functional, f"adaptive_avg_pool{dims}d")(tg.zeros(2, 2, *(0,) * dims), 2)


@pytest.mark.parametrize("size", (1, 2))
@pytest.mark.parametrize("name", [f"adaptive_{kind}_pool{dims}d" for kind in ("avg", "max") for dims in (1, 2, 3)])
def test_adaptive_pools_of_no_channels(name, size):
    """An input without a batch may have no channels, as a batch no samples."""
    shape = (0, *(4,) * int(name[-2]))
    same(lambda lib, x: [getattr(lib.nn.functional, name)(x, size)], np.zeros(shape), order=1)


@pytest.mark.parametrize("options", MAX)
def test_maxima_that_nobody_records(options):
    x = tg.randn(2, 3, 40, requires_grad=True)
    expected = F.max_pool1d(x, **options)
    with tg.no_grad():
        alone = F.max_pool1d(x, **options)
        values, places = F.max_pool1d(x, **options, return_indices=True)
    assert expected.requires_grad and not alone.requires_grad
    assert alone.tolist() == values.tolist() == expected.tolist()
    assert places.shape == values.shape
    with pytest.raises(ShapeError, match="at most half"):
        F.max_pool1d(x.detach(), 2, padding=2)
