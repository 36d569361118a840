"""Samples follow their densities; gradients through samples are those of the inverse distribution function."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import distributions as D

from .table import MAKE, Given

COUNT = 8000


def given():
    return Given(tg)


def samples(name, count=COUNT):
    tg.manual_seed(17)
    d = MAKE[name](D, given())
    return d, d.sample((count,)).numpy()


HEAVY = {"Cauchy", "HalfCauchy", "StudentT", "FisherSnedecor", "InverseGamma", "VonMises", "Categorical", "Pareto"}


@pytest.mark.parametrize("name", [n for n in MAKE if n.split()[0] not in HEAVY])
def test_moments(name):
    """Within six standard errors, estimated from the samples themselves."""
    d, x = samples(name)
    try:
        mean, variance = d.mean.detach().numpy(), d.variance.detach().numpy()
    except NotImplementedError:
        pytest.skip("its moments have no closed form")
    x = x.astype(np.float64)
    away = x - mean
    assert (np.abs(x.mean(0) - mean) < 6 * x.std(0) / math.sqrt(COUNT) + 1e-12).all()
    assert (np.abs((away**2).mean(0) - variance) < 6 * (away**2).std(0) / math.sqrt(COUNT) + 1e-12).all()


CONTINUOUS = [
    "Normal", "LogNormal", "HalfNormal", "Laplace", "Cauchy", "HalfCauchy", "Gumbel", "Uniform", "Exponential", "Gamma",
    "Chi2", "InverseGamma", "Kumaraswamy", "ContinuousBernoulli", "Weibull", "Pareto", "Transformed",
    "GeneralizedPareto", "GeneralizedPareto bounded",
    "MixtureSameFamily",
]  # fmt: skip


@pytest.mark.parametrize("name", CONTINUOUS)
def test_distribution_functions(name):
    """Kolmogorov and Smirnov: the distribution function of samples is uniform."""
    d, x = samples(name)
    u = np.sort(d.cdf(tg.tensor(x)).detach().numpy().reshape(COUNT, -1), axis=0)
    ranks = (np.arange(COUNT) + 0.5)[:, None] / COUNT
    assert np.abs(u - ranks).max() < 2.0 / math.sqrt(COUNT)  # passed over with probability 7e-4


@pytest.mark.parametrize("name", ["StudentT", "FisherSnedecor", "Beta", "VonMises"])
def test_those_without_a_distribution_function_beside_scipy(name):
    stats = pytest.importorskip("scipy.stats")
    d, x = samples(name)
    for i in range(3):
        v = {key: getattr(d, key)[i].item() for key in d.arg_constraints}
        reference = {
            "StudentT": lambda v=v: stats.t(v["df"], v["loc"], v["scale"]),
            "FisherSnedecor": lambda v=v: stats.f(v["df1"], v["df2"]),
            "Beta": lambda v=v: stats.beta(v["concentration1"], v["concentration0"]),
            "VonMises": lambda v=v: stats.vonmises(v["concentration"], v["loc"]),
        }[name]()
        values = x[:, i]
        if name == "VonMises":
            at = d.log_prob(tg.tensor(0.3, dtype=tg.float64)).detach().numpy()[i]
            np.testing.assert_allclose(at, reference.logpdf(0.3), rtol=1e-12)
            values = np.sort((values - v["loc"] + np.pi) % (2 * np.pi) - np.pi)
            reference = stats.vonmises(v["concentration"])
        assert stats.kstest(values, reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["Categorical", "Binomial", "Geometric", "Poisson", "NegativeBinomial", "Bernoulli"])
def test_probabilities_of_counts(name):
    d, x = samples(name)
    for k in range(4 if name != "Bernoulli" else 2):
        p = d.log_prob(tg.tensor(float(k))).exp().detach().numpy()
        assert (np.abs((x == k).mean(0) - p) < 6 * np.sqrt(p * (1 - p) / COUNT)).all()


@pytest.mark.parametrize("name", [n for n in CONTINUOUS if n not in ("MixtureSameFamily", "Transformed", "Gumbel")])
def test_gradients_through_samples(name):
    """``dx = - dF / density`` at a fixed value of the distribution function F, by central differences of F."""
    tg.manual_seed(3)
    parameters = given()
    d = MAKE[name](D, parameters)
    x = d.rsample((50,))
    u = d.cdf(x.detach()).detach()
    for key in ("a", "p", "q", "u"):
        (slope,) = tg.autograd.grad(x.sum(), getattr(parameters, key), retain_graph=True, allow_unused=True)
        if slope is None:
            continue
        ends = []
        for sign in (1, -1):
            moved = given()
            shifted = getattr(moved, key).detach() + sign * 1e-5
            setattr(moved, key, shifted)
            ends.append(MAKE[name](D, moved).cdf(x.detach()).detach())
        density = d.log_prob(x.detach()).exp().detach()
        want = -((ends[0] - ends[1]) / 2e-5 / density).sum(0)
        np.testing.assert_allclose(slope.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
    assert bool((u >= 0).all())


def test_gradients_through_beta_and_dirichlet_samples():
    """The mean of the gradient is the gradient of the mean; that of a sum that is always one is zero."""
    tg.manual_seed(5)
    a = tg.tensor([0.7, 2.0, 4.0], dtype=tg.float64, requires_grad=True)
    x = D.Dirichlet(a).rsample((10_000,))
    for i in range(3):
        (got,) = tg.autograd.grad(x[:, i].mean(), a, retain_graph=True)
        (want,) = tg.autograd.grad(D.Dirichlet(a).mean[i], a)
        np.testing.assert_allclose(got.numpy(), want.numpy(), atol=8e-3)
    (zero,) = tg.autograd.grad(x.sum(), a)
    np.testing.assert_allclose(zero.numpy(), 0, atol=1e-8)
    one, zero = (tg.full((10_000,), v, dtype=tg.float64, requires_grad=True) for v in (2.0, 3.0))
    y = D.Beta(one, zero).rsample()
    grads = tg.autograd.grad((y * y).mean() * 10_000, (one, zero))
    b = [tg.tensor(v, dtype=tg.float64, requires_grad=True) for v in (2.0, 3.0)]
    d = D.Beta(*b)
    want = tg.autograd.grad(d.variance + d.mean**2, b)
    for got, reference in zip(grads, want, strict=True):
        assert abs(got.mean().item() - reference.item()) < 4e-3


def test_straight_through_and_relaxed_samples():
    tg.manual_seed(1)
    logits = tg.randn(4, requires_grad=True)
    x = D.OneHotCategoricalStraightThrough(logits=logits).rsample()
    assert sorted(x.detach().round().tolist()) == [0, 0, 0, 1]
    (x * tg.arange(4)).sum().backward()
    assert logits.grad.abs().sum() > 0
    soft = D.RelaxedOneHotCategorical(0.5, logits=logits).rsample((1000,))
    assert (soft.sum(-1) - 1).abs().max() < 1e-5
    hard = D.RelaxedOneHotCategorical(0.01, logits=logits).rsample((20_000,)).argmax(-1)
    share = tg.nn.functional.one_hot(hard, 4).double().mean(0)
    np.testing.assert_allclose(share.numpy(), logits.softmax(0).detach().numpy(), atol=0.02)


def test_the_mode_of_kumaraswamy_is_where_the_density_is_highest():
    d = D.Kumaraswamy(tg.tensor(2.0), tg.tensor(3.0))
    x = tg.linspace(0.001, 0.999, 999)
    assert abs(d.mode.item() - x[d.log_prob(x).argmax()].item()) < 2e-3


def test_low_rank_is_the_full_matrix():
    v = given()
    low = D.LowRankMultivariateNormal(v.vector, v.factor, v.diag)
    full = D.MultivariateNormal(v.vector, low.covariance_matrix)
    x = tg.randn(5, 3, 4, dtype=tg.float64)
    for a, b in (
        (low.log_prob(x), full.log_prob(x)), (low.entropy(), full.entropy()), (low.variance, full.variance),
        (low.precision_matrix, full.precision_matrix), (low.scale_tril, full.scale_tril),
        (D.kl_divergence(low, full), tg.zeros(3)), (D.kl_divergence(full, low), tg.zeros(3)),
    ):  # fmt: skip
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-9)


def test_divergence_of_wishart_is_recorded_in_both():
    def divergence(a, b, df):
        one = tg.eye(3, dtype=tg.float64)
        return D.kl_divergence(D.Wishart(df + 4, a @ a.mT + one), D.Wishart(5.0, b @ b.mT + one))

    tg.manual_seed(2)
    point = [tg.randn(3, 3, dtype=tg.float64, requires_grad=True) for _ in range(2)]
    assert tg.autograd.gradcheck(divergence, (*point, tg.tensor(1.5, dtype=tg.float64, requires_grad=True)))


def test_distributions_are_mapped():
    """Log densities and samples within vmap, with arguments checked."""
    loc, scale = tg.randn(4, 3), tg.rand(4, 3) + 0.5
    x = tg.randn(4, 3)
    got = tg.vmap(lambda m, s, v: D.Normal(m, s).log_prob(v))(loc, scale, x)
    np.testing.assert_allclose(got.numpy(), D.Normal(loc, scale).log_prob(x).numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match="GreaterThan"):
        tg.vmap(lambda m, s: D.Normal(m, s).mean)(loc, -scale)
    for make in (D.Normal, D.Gamma, D.Beta):
        drawn = tg.vmap(lambda s, make=make: make(s, s).sample(), randomness="different")(tg.ones(4, 3))
        assert drawn.shape == (4, 3)
        assert not bool((drawn[0] == drawn[1]).any())


def test_validation_can_be_switched_off():
    assert D.Normal(tg.tensor(0.0), tg.tensor(-1.0), validate_args=False).scale.item() == -1
    before = D.Distribution._validate_args
    D.Distribution.set_default_validate_args(False)
    try:
        D.Exponential(1.0).log_prob(tg.tensor(-1.0))
    finally:
        D.Distribution.set_default_validate_args(before)


def test_kl_of_registered_types():
    class Mine(D.Normal):
        pass

    @D.register_kl(Mine, D.Normal)
    def _mine(p, q):
        return tg.tensor(42.0)

    assert D.kl_divergence(Mine(0.0, 1.0), D.Normal(0.0, 1.0)).item() == 42
    assert D.kl_divergence(D.Normal(0.0, 1.0), Mine(0.0, 1.0)).item() == 0


def test_transforms_keep_their_last_pair():
    t = D.SigmoidTransform(cache_size=1)
    x = tg.randn(3)
    y = t(x)
    assert t.inv(y) is x
    assert D.SigmoidTransform().inv.inv == D.SigmoidTransform()
    assert D.AffineTransform(1.0, 2.0) == D.AffineTransform(1.0, 2.0)
    assert t.with_cache(0).inv(y) is not x


def test_generalized_pareto_beside_scipy():
    stats = pytest.importorskip("scipy.stats")
    c = np.array([0.0, 0.4, -0.3])
    mine, theirs = D.GeneralizedPareto(tg.tensor(1.0).double(), 2.0, tg.tensor(c)), stats.genpareto(c, 1.0, 2.0)
    x = np.array([1.5, 3.0, 4.0])
    for name, reference in (("log_prob", "logpdf"), ("cdf", "cdf"), ("log_survival_function", "logsf")):
        np.testing.assert_allclose(getattr(mine, name)(tg.tensor(x)), getattr(theirs, reference)(x), rtol=1e-12)
    np.testing.assert_allclose(mine.icdf(tg.tensor(0.3).double()), theirs.ppf(np.float32(0.3)), rtol=1e-12)
    for got, want in ((mine.mean, theirs.mean()), (mine.variance, theirs.var()), (mine.entropy(), theirs.entropy())):
        np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Poisson", "Categorical", "MultivariateNormal", "VonMises"])
def test_one_seed_the_same_samples(name):
    np.testing.assert_array_equal(samples(name, 50)[1], samples(name, 50)[1])
