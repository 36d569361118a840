"""Reductions, extremes and scans beside PyTorch: semantics, derivatives, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg

from .beside_torch import same, same_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 2))
POSITIVE = np.abs(X) + 0.3
TIES = np.array([[1.0, 3.0, 3.0, -2.0], [0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 2.0, 2.0]])
ZEROS = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0], [1.5, 2.0, -1.0]])
NAN = np.array([[1.0, np.nan, 3.0], [-np.inf, 2.0, 0.0], [np.nan, np.nan, np.nan]])
INTS = np.array([[3, -1, 2], [0, 5, 5]])
COMPLEX = RNG.standard_normal((2, 3)) + 1j * RNG.standard_normal((2, 3))

NAMES = ("sum", "prod", "mean", "var", "std", "amax", "amin", "nansum", "nanmean", "norm")
DIMS = ({}, {"dim": 1}, {"dim": -1, "keepdim": True}, {"dim": (0, 2)})


@pytest.mark.parametrize("kwargs", DIMS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_reductions(name, kwargs):
    if name == "prod" and isinstance(kwargs.get("dim"), tuple):
        pytest.skip("PyTorch's prod takes one dim")
    same(lambda lib, x: getattr(x, name)(**kwargs) if name != "nanmean" else lib.nanmean(x, **kwargs), POSITIVE)


@pytest.mark.parametrize("name", ("sum", "mean", "amax", "any", "all"))
def test_no_dims(name):
    same(lambda lib, x: [getattr(x, name)(dim=()), getattr(x, name)(dim=(), keepdim=True)], ZEROS, order=0)


@pytest.mark.parametrize("name", ("sum", "prod", "mean", "nansum", "any", "all", "count_nonzero"))
@pytest.mark.parametrize("array", (np.zeros((0, 3)), np.zeros((2, 0)), np.zeros(())), ids=("rows", "columns", "0-d"))
def test_of_little(name, array):
    same(lambda lib, x: [getattr(x, name)(), getattr(x, name)(dim=0)], array, order=1)


@pytest.mark.parametrize("dtype", ("bool", "uint8", "int8", "int32", "int64", "float32", "complex64"))
@pytest.mark.parametrize("name", ("sum", "prod", "any", "all", "cumsum", "cumprod"))
def test_dtypes(name, dtype):
    args = (0,) if name.startswith("cum") else ()
    same(lambda lib, x: getattr(x, name)(*args), np.abs(INTS).astype(dtype), order=0, rtol=1e-6)


def test_dtype_argument():
    same(lambda lib, x: [x.sum(dtype=lib.float64), x.mean(dtype=lib.float64), x.cumsum(0, dtype=lib.int32)],
         INTS, order=0)  # fmt: skip


@pytest.mark.parametrize("name", ("sum", "mean", "prod", "cumsum", "cumprod", "var", "std", "norm"))
def test_complex(name):
    args = (0,) if name.startswith("cum") else ()
    same(lambda lib, x: getattr(x, name)(*args), COMPLEX, order=1)


@pytest.mark.parametrize("length", (2, 3, 4, 5))
def test_products_of_short_rows(length):
    """They overflow in double only, like those of longer rows."""
    x = RNG.standard_normal((2001, length)).astype(np.float32)
    x[0] = 1e30
    x[0, -1] = 1e-30 if length < 4 else 1e-38
    expected = x.astype(np.float64).prod(1)
    np.testing.assert_array_max_ulp(tg.from_numpy(x).prod(1).numpy()[1:], expected[1:].astype(np.float32), 1)
    columns = tg.from_numpy(np.ascontiguousarray(x.T)).prod(0)
    np.testing.assert_array_max_ulp(tg.from_numpy(x).prod(1).numpy(), columns.numpy(), 1)
    same(lambda lib, x: x.prod(-1), x[1:9].astype(np.float64))


def test_products_with_zeros():
    same(lambda lib, x: [x.prod(), x.prod(1), x.prod(0, keepdim=True)], ZEROS)
    same(lambda lib, x: [x.cumprod(1), x.cumprod(0)], ZEROS)


def test_variance_arguments():
    same(lambda lib, x: [x.var(0, correction=0), x.var(unbiased=False), x.var(False), x.std(1, False),
                         *lib.var_mean(x, 1), *lib.std_mean(x, dim=(0, 1), correction=2, keepdim=True)], X)  # fmt: skip
    same(lambda lib, x: [x.var(0), x.std(0), x.std()], np.ones((1, 2)), order=1)


def test_extremes_share_or_choose():
    same(lambda lib, x: [x.max(), x.min(), x.amax(1), x.amin((0, 1)), *lib.aminmax(x)], TIES)
    same(lambda lib, x: [*x.max(1), *x.min(0, keepdim=True), *lib.aminmax(x, dim=1)], TIES)
    same(lambda lib, x, y: [lib.max(x, y), lib.min(x, other=y), lib.maximum(x, y)], TIES, TIES[::-1].copy())


def test_extremes_name_their_fields():
    found = tg.tensor([[1.0, 5.0], [4.0, 2.0]]).max(dim=1)
    assert found.values.tolist() == [5.0, 4.0]
    assert found.indices.tolist() == [1, 0]


def test_nan_is_largest():
    same(lambda lib, x: [x.amax(1), x.amin(1), x.argmax(1), x.argmin(1), *x.max(1), *x.min(1), x.max(),
                         *x.cummax(1), *x.cummin(1)], NAN, order=0)  # fmt: skip


def test_positions():
    same(lambda lib, x: [x.argmax(), x.argmin(1), x.argmax(0, keepdim=True), x.argmax(keepdim=True)], X, order=0)
    same(lambda lib, x: [x.argmax(), x.argmax(0), *x.max(0), *x.median(0), *x.sort(0)], np.array(2.0), order=0)


@pytest.mark.parametrize("shape", ((5,), (6,), (3, 4)))
def test_median(shape):
    x = RNG.permutation(int(np.prod(shape))).reshape(shape).astype(float)
    same(lambda lib, x: [x.median(), *x.median(0), *x.median(-1, keepdim=True), x.nanmedian(), *x.kthvalue(2, 0)], x)


def test_median_of_nan():
    same(lambda lib, x: [x.median(), x.nanmedian(), x.median(1).values, x.nanmedian(1).values], NAN, order=0)


@pytest.mark.parametrize("p", (0, 0.5, 1, 2, 3, float("inf"), -float("inf"), "fro"))
def test_norms(p):
    same(lambda lib, x: [lib.norm(x, p), lib.norm(x, p, dim=1), lib.norm(x, p, dim=(0, 1), keepdim=True)], X)


def test_an_order_beyond_float32_is_infinity():
    for norm in (tg.norm, tg.linalg.vector_norm):
        assert [norm(tg.tensor([-8.0, 2.0]), p).item() for p in (1e300, -1e300)] == [8.0, 2.0]


def test_norm_at_zero():
    same(lambda lib, x: [x.norm(), x.norm(1), x.norm(3)], np.zeros((2, 2)), order=1)


@pytest.mark.parametrize("p", (math.inf, -math.inf, -1, -2))
def test_norms_of_nothing_that_do_not_exist(p):
    same_error(lambda lib, x: x.norm(p), np.zeros((2, 0)))
    same_error(lambda lib, x: x.norm(p, dim=1), np.zeros((2, 0)))
    same(lambda lib, x: x.norm(p, dim=0), np.zeros((2, 0)))
    if p == math.inf:
        same_error(lambda lib, x: x.renorm(p, 0, 1.0), np.zeros((2, 0)))


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
@pytest.mark.parametrize("scale", (1e-30, 1e-23, 1e-22))
def test_a_variance_whose_squares_vanish_is_not_negative(backend, scale):
    x = np.random.default_rng(0).standard_normal((6, 40)) * scale
    with tg.backend(backend):
        for y in (tg.tensor(x, dtype=tg.float32), tg.tensor(x.T, dtype=tg.float32).t()):
            for dim in (0, 1, None):
                assert (y.var(dim) >= 0).all()
                assert (y.std(dim) >= 0).all()


def test_logsumexp():
    same(lambda lib, x: [x.logsumexp(1), x.logsumexp((0, 1), keepdim=True), lib.logsumexp(100 * x, 0)], X)
    same(lambda lib, x: x.logsumexp(1), np.array([[-np.inf, 0.0], [np.inf, 1.0], [-np.inf, -np.inf]]), order=0)
    same(lambda lib, x: x.logcumsumexp(1), X)
    same(lambda lib, x: x.logcumsumexp(0), np.array([-np.inf, -np.inf, 0.0, 1.0, -np.inf]), order=0)


@pytest.mark.parametrize("dim", (0, 1, -1))
def test_scans(dim):
    same(lambda lib, x: [x.cumsum(dim), x.cumprod(dim), *x.cummax(dim), *x.cummin(dim)], X)
    same(lambda lib, x: [*x.cummax(1), *x.cummin(1)], TIES)


def test_diff():
    same(lambda lib, x: [x.diff(), x.diff(dim=0), x.diff(n=2, dim=1), x.diff(n=9, dim=1)], X)
    same(lambda lib, x, y: lib.diff(x, dim=0, prepend=y, append=y), X, X[:1].copy())
    same(lambda lib, x: x.diff(), np.array([True, False, False]), order=0)


@pytest.mark.parametrize(
    "call",
    (
        lambda lib, x: x.sum(5), lambda lib, x: x.amax(), lambda lib, x: x.max(),
        lambda lib, x: x.max(0), lambda lib, x: x.argmax(), lambda lib, x: x.argmax(0), lambda lib, x: x.kthvalue(1, 0),
        lambda lib, x: lib.sum([1, 2]), lambda lib, x: x.long().mean(), lambda lib, x: x.long().var(),
        lambda lib, x: x.median(7),
    ),
)  # fmt: skip
def test_refused(call):
    same_error(call, np.zeros((0, 2)))


def test_errors_say_what_was_seen():
    with pytest.raises(IndexError, match=r"sum: .*dim is 3, a tensor with 2 dimensions has -2 to 1"):
        tg.zeros(2, 2).sum(3)
    with pytest.raises(RuntimeError, match=r"mean: .*int64.*\.float\(\)"):
        tg.arange(3).mean()


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision_accumulates_in_float32(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x = tg.ones(100, 100).to(getattr(tg, dtype))
    assert x.sum().item() == tg.tensor(1e4).to(getattr(tg, dtype)).item()
    assert x.mean().item() == 1.0


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_roots_of_squares_beyond_half_precision(backend):
    x = tg.tensor([3000.0, -3000.0], dtype=tg.float16)
    with tg.backend(backend):
        assert x.std().item() == 4244 and x.norm().item() == 4244 and x.norm(3).item() == 3780


def test_nansum_keeps_the_dtype_asked_for():
    same(lambda lib, x: lib.nansum(x, dtype=lib.int32), np.abs(INTS).astype("float32"), order=0)


def test_out():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    out = tg.empty(0)
    assert tg.sum(x, 0, out=out) is out
    assert out.tolist() == [4.0, 6.0]


def test_in_place_scans():
    same(lambda lib, x: (x * 1).cumsum_(0), X)
    same(lambda lib, x: (x * 1).cumprod_(1), X)


def test_logsumexp_of_nothing():
    """Where another array's memory was before."""
    for dtype in (tg.float32, tg.float64):
        for shape, dim in (((0, 3), 0), ((2, 0, 3), 1), ((3, 0), 1), ((0,), 0)):
            (tg.full((2, 3), 7.0, dtype=dtype) + 1).sum()
            assert (tg.zeros(shape, dtype=dtype).logsumexp(dim) == -float("inf")).all()


def test_derivatives_of_what_has_no_elements():
    def derivatives(call, x):
        v = tg.ones_like(call(x)).requires_grad_()
        (first,) = tg.autograd.grad(call(x), x, v, create_graph=True)
        return first, *tg.autograd.grad(first.sum(), (x, v), allow_unused=True)

    for call in (lambda x: x.mean(), lambda x: tg.nn.functional.mse_loss(x, x.detach() * 2)):
        first, _, by_seed = derivatives(call, tg.ones(0, 3, requires_grad=True))
        assert first.shape == (0, 3) and by_seed.item() == 0.0
    for norm in (tg.nn.functional.rms_norm, tg.nn.functional.layer_norm):
        first, second, by_seed = derivatives(lambda x, norm=norm: norm(x, (0,)), tg.ones(3, 0, requires_grad=True))
        assert first.shape == second.shape == by_seed.shape == (3, 0)


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
def test_gradients_of_what_is_chosen_of_all(backend):
    """Elements that equal the result share the gradient, NaNs too: a NaN does not make the others' gradients NaN."""
    nan = np.array([[1.0, np.nan, 3.0], [np.nan, 0.0, 3.0]])
    tied = np.array([[1.0, 2.0, 2.0], [2.0, 3.0, 0.0]])
    with tg.backend(backend):
        for array in (nan, tied, np.array(np.nan), np.full((2, 2), np.nan)):
            same(lambda lib, x: [x.max(), x.min(), x.median(), x.nanmedian()], array, order=1)
        x = tg.tensor(nan, requires_grad=True)
        x.amax(1).sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("backend", ("numpy", "cpp"))
@pytest.mark.parametrize("shape", ((3,), (40,), (3000,), (40, 3), (3, 40), (2000, 17)))
@pytest.mark.parametrize("size", (1e-38, 1e-25, 1e-19, 1.0, 5e18, 3e19, 1e30))
def test_deviations_near_the_ends_of_the_range(size, shape, backend):
    """Squares that are sums, beyond the range of float32 or below it."""
    x = (np.random.default_rng(0).standard_normal(shape) * size).astype(np.float32)
    exact = x.astype(np.float64)
    with tg.backend(backend), np.errstate(all="ignore"):
        for dim in (None, 0, -1):
            std, var = (tg.from_numpy(x).std(dim), tg.from_numpy(x).var(dim))
            np.testing.assert_allclose(std.numpy(), exact.std(dim, ddof=1), rtol=2e-6, atol=3e-45)
            want = exact.var(dim, ddof=1).astype(np.float32)
            np.testing.assert_allclose(var.numpy(), want, rtol=2e-6, atol=3e-45)
