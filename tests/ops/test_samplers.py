"""Gamma, Poisson and binomial draws: their distributions, the same on every backend, and the gamma's derivative."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.backends import registry

COUNT = 20_000


def seeded():
    return tg.Generator().manual_seed(11)


def full(value, dtype=tg.float64):
    return tg.full((COUNT,), value, dtype=dtype)


# the mean and variance of a draw, within 5 standard errors; fixed seeds make it a test of one outcome
DRAWS = {
    **{f"gamma {a}": (lambda g, a=a: tg._standard_gamma(full(a), g), a, a, 6 / a) for a in (0.3, 1.0, 2.5, 400.0)},
    **{f"poisson {m}": (lambda g, m=m: tg.poisson(full(m), g), m, m, 1 / m) for m in (0.5, 9.9, 10.0, 5000.0)},
    **{
        f"binomial {n} {p}": (
            lambda g, n=n, p=p: tg.binomial(full(n), full(p), g), n * p, n * p * (1 - p), 1 / (n * p * (1 - p))
        )
        for n, p in ((3.0, 0.5), (50.0, 0.9), (1000.0, 0.001), (1e6, 0.3), (100.0, 0.5))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_moments(name):
    draw, mean, variance, excess = DRAWS[name]
    x = draw(seeded()).numpy()
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / COUNT)
    assert abs(x.var() - variance) < 5 * variance * math.sqrt((2 + excess) / COUNT)
    if not name.startswith("gamma"):
        np.testing.assert_array_equal(x, np.floor(x))


@pytest.mark.parametrize("name", DRAWS)
def test_distribution_functions(name):
    stats = pytest.importorskip("scipy.stats")
    kind, *given = name.split()
    numbers = [float(part) for part in given]
    d = {"gamma": stats.gamma, "poisson": stats.poisson, "binomial": stats.binom}[kind](*numbers)
    x = DRAWS[name][0](seeded()).numpy()
    if kind == "gamma":
        assert stats.kstest(x, d.cdf).pvalue > 1e-3
        return
    values, counts = np.unique(x, return_counts=True)
    expected = d.pmf(values) * COUNT
    enough = expected > 5
    chi = ((counts - expected) ** 2 / expected)[enough].sum()
    assert stats.chi2(enough.sum()).sf(chi) > 1e-3


def test_limits():
    g = seeded()
    nan, inf = math.nan, math.inf
    assert tg.poisson(tg.zeros(3), g).tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="not negative"):
        tg.poisson(tg.tensor([1.0, -1.0]))
    n, p = tg.tensor([5.0, 5.0, 0.0, -1.0, 3.0]), tg.tensor([0.0, 1.0, 0.5, 0.5, 2.0])
    got = tg.binomial(n, p, g).tolist()
    assert got[:3] == [0, 5, 0]
    assert math.isnan(got[3])
    assert math.isnan(got[4])
    drawn = tg._standard_gamma(tg.tensor([nan, -1.0, inf, 1e-4]), g).tolist()
    assert math.isnan(drawn[0])
    assert math.isnan(drawn[1])
    assert drawn[2] == inf
    assert drawn[3] > 0
    assert tg.binomial(tg.full((2, 1), 4.0), tg.full((3,), 0.5)).shape == (2, 3)
    for wrong in (lambda: tg.poisson(tg.tensor([1])), lambda: tg.binomial(tg.ones(1), tg.ones(1).double())):
        with pytest.raises(RuntimeError):
            wrong()


def test_an_element_depends_on_its_place_alone():
    a = tg.tensor([0.2, 3.0, 50.0, 0.7])
    whole = tg._standard_gamma(a, seeded())
    changed = tg._standard_gamma(tg.tensor([9.0, 3.0, 0.1, 0.7]), seeded())
    assert whole[1].item() == changed[1].item()
    assert whole[3].item() == changed[3].item()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_same_numbers_on_every_backend(device):
    from tensorgrad.testing.strict_backend import strict_cuda

    rng = np.random.default_rng(0)
    alpha, rate, prob = rng.uniform(0.05, 30, 500), rng.uniform(0, 40, 500), rng.uniform(0, 1, 500)

    def draw(device="cpu"):
        a, r, p = (tg.tensor(x).to(device) for x in (alpha, rate, prob))
        g = seeded()
        x = tg._standard_gamma(a, g)
        parts = (x, tg.poisson(r, g), tg.binomial((3 * r).floor(), p, g), tg._standard_gamma_grad(a, x))
        return [part.cpu().numpy() for part in parts]

    with tg.backend("numpy"):
        want = draw()
    if device == "cpu":
        got = draw()
    else:
        with strict_cuda() if registry.class_of("cupy").why_not() is not None else nullcontext():
            got = draw("cuda")
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14 if device == "cpu" else 1e-11)


def test_gamma_derivative_is_that_of_the_inverse_distribution_function():
    special = pytest.importorskip("scipy.special")
    u = np.array([1e-4, 0.01, 0.3, 0.5, 0.7, 0.99, 0.9999])
    for a in (0.2, 0.9, 1.0, 3.0, 9.9, 10.5, 60.0, 900.0):
        h = 1e-4 * a
        points = [special.gammaincinv(a + k * h, u) for k in (-2, -1, 1, 2)]
        want = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
        got = tg._standard_gamma_grad(tg.full((7,), a, dtype=tg.float64), tg.tensor(special.gammaincinv(a, u)))
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-8)


def test_gradients_of_draws():
    a = tg.full((COUNT,), 2.0, dtype=tg.float64, requires_grad=True)
    x = tg._standard_gamma(a, seeded())
    x.sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), tg._standard_gamma_grad(a.detach(), x.detach()).numpy())
    assert abs(a.grad.mean().item() - 1) < 0.02  # the mean of a gamma number is its shape
    (first,) = tg.autograd.grad(tg._standard_gamma(a, seeded()).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        first.sum().backward()
    p = tg.full((3,), 0.4, requires_grad=True)
    (tg.poisson(p).sum() + tg.binomial(tg.ones(3), p).sum()).backward()
    assert p.grad.tolist() == [0, 0, 0]


def test_draws_are_mapped():
    a = tg.full((3, 4), 2.0)
    for mode, same in (("different", False), ("same", True)):
        x = tg.vmap(tg._standard_gamma, randomness=mode)(a)
        assert bool((x[0] == x[1]).all()) is same
