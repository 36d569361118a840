"""Densities, moments, entropies and divergences beside PyTorch's, with gradients, in float64."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import distributions as D

from .table import MAKE, OTHERS, PARAMETERS, Given, values

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")
LIBRARIES = (tg, torch)


def gradients(library, result, given):
    weights = library.tensor(np.cos(np.arange(result.numel())).reshape(tuple(result.shape)), dtype=library.float64)
    finite = library.where(library.isfinite(result), result, library.zeros_like(result))
    found = library.autograd.grad((finite * weights).sum(), given.leaves(), allow_unused=True)
    return [None if g is None else g.detach().numpy() for g in found]


def compare(compute, parameters=PARAMETERS, rtol=1e-9, gradients_too=True):
    """The results of both libraries for ``compute(library, D, given)``, and their gradients."""
    results = []
    for library in LIBRARIES:
        given = Given(library, parameters)
        try:
            result = compute(library, library.distributions, given)
        except NotImplementedError:
            results.append(None)
            continue
        try:
            grads = gradients(library, result, given) if result.requires_grad else None
        except RuntimeError as error:
            assert "not implemented" in str(error)  # gammainc in its first argument
            grads = "unknown"
        results.append((result.detach().numpy(), grads))
    mine, theirs = results
    assert (mine is None) == (theirs is None), "only one of the two implements it"
    if mine is None:
        return
    assert mine[0].shape == theirs[0].shape
    np.testing.assert_allclose(mine[0], theirs[0], rtol=rtol, atol=1e-11)
    if theirs[1] == "unknown" or not gradients_too:
        return
    if theirs[1] is None:
        assert mine[1] is None
        return
    for a, b in zip(mine[1], theirs[1], strict=True):
        a, b = (np.zeros(1) if g is None else g for g in (a, b))
        a, b = np.broadcast_arrays(a, b)
        known = ~np.isnan(b)  # PyTorch's gradient of a moment that is not defined, through where
        np.testing.assert_allclose(a[known], b[known], rtol=10 * rtol, atol=1e-10)


ALIKE = [n for n in MAKE if not n.startswith("GeneralizedPareto")]  # takes float32 alone in PyTorch; see test_samples


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("what", ["log_prob", "cdf"])
def test_of_values(name, what):
    compare(
        lambda T, d, given: getattr(MAKE[name](d, given), what)(T.tensor(values(name), dtype=T.float64)),
        rtol=1e-6 if name == "VonMises" else 1e-9,  # PyTorch's Bessel functions have seven digits
    )


@pytest.mark.parametrize("name", MAKE)
def test_icdf(name):
    u = np.linspace(0.1, 0.9, 6).reshape(2, 3)
    compare(lambda T, d, given: MAKE[name](d, given).icdf(T.tensor(u)))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("what", ["entropy", "mean", "variance", "stddev", "mode"])
def test_moments_and_entropy(name, what):
    def compute(T, d, given):
        found = getattr(MAKE[name](d, given), what)
        found = found() if what == "entropy" else found
        return found.double() if found.dtype == T.int64 else found

    if (name, what) == ("Kumaraswamy", "mode"):
        return  # NaN in PyTorch; see test_samples
    # seven digits in PyTorch: Bessel functions, a factorial in float32, the derivative of digamma
    compare(compute, rtol={"VonMises": 1e-5, "Multinomial": 1e-7, "Dirichlet": 1e-6}.get(name, 1e-9))


@pytest.mark.parametrize("name", ALIKE)
def test_shapes_printing_and_expansion(name):
    seen = []
    for library in LIBRARIES:
        d = MAKE[name](library.distributions, Given(library))
        wide = d.expand((2, *d.batch_shape))
        value = library.tensor(values(name), dtype=library.float64)
        facts = [
            tuple(d.batch_shape), tuple(d.event_shape), d.has_rsample, d.has_enumerate_support,
            tuple(wide.batch_shape), tuple(wide.event_shape), tuple(wide.log_prob(value).shape),
            tuple(wide.sample((5,)).shape), tuple(d.sample().shape), d.sample().dtype == library.float64,
            repr(d).replace("torch.", "").replace("tensorgrad.", ""), type(d).__name__, type(wide).__name__,
        ]  # fmt: skip
        if d.has_enumerate_support and "counts" not in name:
            facts += [d.enumerate_support().tolist(), d.enumerate_support(expand=False).tolist()]
        if name not in ("MixtureSameFamily", "MixtureSameFamily vectors", "Transformed"):
            facts.append(repr(d.support).replace("torch.", "").replace("tensorgrad.", "").split("(")[0])
        if name == "LogitRelaxedBernoulli":
            facts[2] = None  # has rsample in both, but says so here only
        elif d.has_rsample:
            facts.append(d.rsample((2,)).requires_grad)
        seen.append(facts)
    assert seen[0] == seen[1]
    wide = MAKE[name](D, Given(tg)).expand((2, *MAKE[name](D, Given(tg)).batch_shape))
    one = MAKE[name](D, Given(tg))
    value = tg.tensor(values(name))
    np.testing.assert_allclose(wide.log_prob(value).detach().numpy(), one.log_prob(value).detach().numpy(), rtol=1e-12)


_SINGLE = [n for n in MAKE if " " not in n and not n.startswith(("Mixture", "Transformed"))]


@functools.cache
def _types():
    return [{n: type(make(T.distributions, Given(T))) for n, make in MAKE.items()} for T in LIBRARIES]


@pytest.mark.parametrize("p", [n for n in MAKE if n not in ("Binomial counts",)])
def test_divergences(p):
    """From each to itself with other parameters, and to every other that PyTorch has a formula for."""
    kind = p.split()[0]
    kinds = _types()
    for q in [n for n in MAKE if n.split()[0] == kind and n != "Binomial counts"] + [n for n in _SINGLE if n != p]:
        types = [kinds[0][name] for name in (p, q)], [kinds[1][name] for name in (p, q)]
        known = (
            D.kl._lookup(*types[0]) is not None,
            torch.distributions.kl._dispatch_kl(*types[1]) is not NotImplemented,
        )
        assert known[0] == known[1], f"KL({p}, {q})"
        if not known[0]:
            continue

        def compute(T, d, given, q=q):
            other = Given(T, OTHERS)
            first, second = MAKE[p](d, given), MAKE[q](d, other)
            if first.event_shape != second.event_shape:
                raise NotImplementedError
            return d.kl_divergence(first, second)

        try:
            compare(compute, gradients_too=p.split()[0] != "Wishart")  # PyTorch's is not recorded in p's parameters
        except AssertionError as error:
            raise AssertionError(f"KL({p}, {q}): {error}") from None


WRONG = {
    "scale": lambda T, d: d.Normal(0.0, -1.0),
    "nan": lambda T, d: d.Normal(float("nan"), 1.0),
    "no tensor": lambda T, d: d.Normal("a", 1.0),
    "value type": lambda T, d: d.Normal(0.0, 1.0).log_prob(0.5),
    "value shape": lambda T, d: d.Normal(T.zeros(3), T.ones(3)).log_prob(T.zeros(2)),
    "event shape": lambda T, d: d.Dirichlet(T.ones(3)).log_prob(T.ones(2) / 2),
    "support": lambda T, d: d.Exponential(1.0).log_prob(T.tensor(-1.0)),
    "not a count": lambda T, d: d.Poisson(1.0).log_prob(T.tensor(0.5)),
    "class out of range": lambda T, d: d.Categorical(T.ones(3)).log_prob(T.tensor(3)),
    "both forms": lambda T, d: d.Bernoulli(0.5, 0.5),
    "no form": lambda T, d: d.Categorical(),
    "probability": lambda T, d: d.Bernoulli(1.5),
    "scalar categorical": lambda T, d: d.Categorical(T.tensor(1.0)),
    "uniform": lambda T, d: d.Uniform(1.0, 0.0),
    "covariance": lambda T, d: d.MultivariateNormal(T.zeros(2), T.tensor([[1.0, 2.0], [0.0, 1.0]])),
    "two matrices": lambda T, d: d.MultivariateNormal(T.zeros(2), T.eye(2), T.eye(2)),
    "too many dims": lambda T, d: d.Independent(d.Normal(0.0, 1.0), 1),
    "no transform": lambda T, d: d.TransformedDistribution(d.Normal(0.0, 1.0), ["exp"]),
    "mixture": lambda T, d: d.MixtureSameFamily(d.Categorical(T.ones(2)), d.Normal(T.zeros(3), T.ones(3))),
    "no kl": lambda T, d: d.kl_divergence(d.Normal(0.0, 1.0), d.Poisson(1.0)),
    "no rsample": lambda T, d: d.Bernoulli(0.5).rsample(),
    "validate": lambda T, d: d.Distribution.set_default_validate_args(3),
    "register": lambda T, d: d.register_kl(3, d.Normal),
    "geometric": lambda T, d: d.Geometric(0.0),
    "many counts": lambda T, d: d.Binomial(T.tensor([1.0, 2.0]), T.tensor([0.5, 0.5])).enumerate_support(),
    "no registry": lambda T, d: d.biject_to(d.constraints.boolean),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name):
    kinds = []
    for library in LIBRARIES:
        with pytest.raises(Exception) as caught:
            WRONG[name](library, library.distributions)
        kinds.append(caught.value)
    assert isinstance(kinds[0], type(kinds[1])), kinds


POINTS = np.random.default_rng(3).uniform(0.1, 0.8, (2, 3))
TRANSFORMS = {
    "Exp": lambda T, d: d.ExpTransform(),
    "Sigmoid": lambda T, d: d.SigmoidTransform(),
    "Tanh": lambda T, d: d.TanhTransform(),
    "Softplus": lambda T, d: d.SoftplusTransform(),
    "Power": lambda T, d: d.PowerTransform(T.tensor(2.5).double()),
    "Affine": lambda T, d: d.AffineTransform(T.tensor([1.0, 2.0, 3.0]).double(), T.tensor([2.0, -1.0, 0.5]).double()),
    "Affine event": lambda T, d: d.AffineTransform(1.0, -2.0, event_dim=1),
    "inverse": lambda T, d: d.SigmoidTransform().inv,
    "Compose": lambda T, d: d.ComposeTransform([d.ExpTransform(), d.AffineTransform(1.0, 2.0)]),
    "Compose dims": lambda T, d: d.ComposeTransform([d.AffineTransform(0.0, 2.0), d.StickBreakingTransform()]),
    "StickBreaking": lambda T, d: d.StickBreakingTransform(),
    "CorrCholesky": lambda T, d: d.CorrCholeskyTransform(),
    "Independent": lambda T, d: d.IndependentTransform(d.ExpTransform(), 1),
    "Reshape": lambda T, d: d.ReshapeTransform((3,), (1, 3)),
    "Cat": lambda T, d: d.CatTransform([d.ExpTransform(), d.SigmoidTransform()], dim=-1, lengths=[1, 2]),
    "Stack": lambda T, d: d.StackTransform([d.ExpTransform(), d.SigmoidTransform(), d.TanhTransform()], dim=-1),
    "cdf": lambda T, d: d.CumulativeDistributionTransform(d.Normal(T.zeros(3).double(), T.ones(3).double())),
    "Abs": lambda T, d: d.AbsTransform(),
    "Softmax": lambda T, d: d.SoftmaxTransform(),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name):
    seen = []
    for library in LIBRARIES:
        d = library.distributions
        t = TRANSFORMS[name](library, d)
        x = library.tensor(POINTS, requires_grad=True)
        y = t(x)
        parts = [y, t.inv(y.detach())]
        if t.bijective:
            parts.append(t.log_abs_det_jacobian(x, y))
        total = sum((p * library.tensor(np.cos(np.arange(p.numel())).reshape(tuple(p.shape)))).sum() for p in parts)
        (slope,) = library.autograd.grad(total, x)
        shapes = [tuple(t.forward_shape((5, 3))), tuple(t.inverse_shape(tuple(y.shape)))]
        facts = [t.bijective, t.domain.event_dim, t.codomain.event_dim, repr(t).replace("\n", ""), shapes]
        if name in ("Affine", "Power"):
            facts[3] = None
        seen.append((facts, [p.detach().numpy() for p in [*parts, slope]]))
    assert seen[0][0] == seen[1][0]
    for a, b in zip(seen[0][1], seen[1][1], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_matrix_transforms():
    x = np.random.default_rng(4).standard_normal((2, 3, 3))
    for make in (lambda d: d.LowerCholeskyTransform(), lambda d: d.PositiveDefiniteTransform()):
        a, b = (make(T.distributions)(T.tensor(x)) for T in LIBRARIES)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
        np.testing.assert_allclose(make(D).inv(a).numpy(), make(torch.distributions).inv(b).numpy(), rtol=1e-9)


CONSTRAINTS = {
    "real": lambda c: c.real, "real_vector": lambda c: c.real_vector, "positive": lambda c: c.positive,
    "nonnegative": lambda c: c.nonnegative, "greater_than": lambda c: c.greater_than(0.3),
    "greater_than_eq": lambda c: c.greater_than_eq(0.3), "less_than": lambda c: c.less_than(0.5),
    "interval": lambda c: c.interval(-1.0, 0.5), "half_open": lambda c: c.half_open_interval(0.0, 1.0),
    "unit": lambda c: c.unit_interval, "boolean": lambda c: c.boolean, "one_hot": lambda c: c.one_hot,
    "integers": lambda c: c.integer_interval(0, 2), "counts": lambda c: c.nonnegative_integer,
    "simplex": lambda c: c.simplex, "independent": lambda c: c.independent(c.positive, 1),
    "multinomial": lambda c: c.multinomial(3), "lower_triangular": lambda c: c.lower_triangular,
    "lower_cholesky": lambda c: c.lower_cholesky, "corr_cholesky": lambda c: c.corr_cholesky,
    "square": lambda c: c.square, "symmetric": lambda c: c.symmetric, "definite": lambda c: c.positive_definite,
    "semidefinite": lambda c: c.positive_semidefinite,
    "cat": lambda c: c.cat([c.positive, c.unit_interval], -1, [1, 2]),
    "stack": lambda c: c.stack([c.positive, c.real, c.unit_interval], -1),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_and_their_transforms(name):
    rng = np.random.default_rng(8)
    a = rng.standard_normal((3, 3))
    candidates = [
        np.eye(3), a, a @ a.T, np.tril(a), np.tril(np.abs(a)) + np.eye(3), np.ones((3, 3)), np.full((3, 3), 1 / 3),
        -a @ a.T,
        np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [2.0, 0.5, 1.0]]), np.diag([1.0, 0.0, 2.0]),
    ]  # fmt: skip
    mine, theirs = (CONSTRAINTS[name](T.distributions.constraints) for T in LIBRARIES)
    assert repr(mine) == repr(theirs) or name in ("cat", "stack", "independent", "real_vector")
    assert (mine.event_dim, mine.is_discrete) == (theirs.event_dim, theirs.is_discrete)
    for x in candidates:
        got, want = (c.check(T.tensor(x)) for c, T in zip((mine, theirs), LIBRARIES, strict=True))
        if name == "semidefinite" and (x == x[0, 0]).all():  # whether eigenvalues of zero come out negative is rounding
            least = tg.linalg.eigvalsh(tg.tensor(x))[0]
            assert abs(least) < 1e-14
            want = least >= 0
        assert got.tolist() == want.tolist()
    for registry in ("biject_to", "transform_to"):
        made = []
        for constraint, library in zip((mine, theirs), LIBRARIES, strict=True):
            try:
                made.append(getattr(library.distributions, registry)(constraint)(library.tensor(a)).numpy())
            except NotImplementedError:
                made.append(None)
        assert (made[0] is None) == (made[1] is None)
        if made[0] is not None:
            np.testing.assert_allclose(made[0], made[1], rtol=1e-9)


def test_nothing_is_missing():
    for module in ("", ".constraints", ".transforms"):
        names = torch.distributions if not module else getattr(torch.distributions, module[1:])
        mine = D if not module else getattr(D, module[1:])
        missing = {n for n in names.__all__ if not hasattr(mine, n)}
        assert not missing, missing
    assert len(list(itertools.chain(MAKE))) > 40
