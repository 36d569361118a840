"""One line per distribution: how to make it, in any library, from parameters of shape (3,)."""

from __future__ import annotations

import numpy as np

_rng = np.random.default_rng(5)


def _matrix(n):
    a = _rng.standard_normal((n, n))
    return a @ a.T + n * np.eye(n)


REAL = {"a": _rng.standard_normal(3), "b": _rng.standard_normal(3)}
POSITIVE = {"p": _rng.uniform(0.5, 3.0, 3), "q": _rng.uniform(0.6, 2.0, 3), "r": _rng.uniform(0.7, 4.0, 3)}
UNIT = {"u": _rng.uniform(0.1, 0.9, 3)}
SIMPLEX = {"s": _rng.dirichlet(np.ones(4), 3)}
OTHER = {
    "logits": _rng.standard_normal((3, 4)), "vector": _rng.standard_normal((3, 4)), "count": np.array([2.0, 5.0, 9.0]),
    "cov": np.stack([_matrix(4) for _ in range(3)]), "factor": _rng.standard_normal((3, 4, 2)),
    "diag": _rng.uniform(0.5, 2.0, (3, 4)), "positive": _rng.uniform(0.5, 3.0, (3, 4)),
}  # fmt: skip
PARAMETERS = REAL | POSITIVE | UNIT | SIMPLEX | OTHER
# a second set, for divergences
OTHERS = {k: v * 1.3 if k in POSITIVE or k in ("positive", "diag", "cov") else v for k, v in PARAMETERS.items()} | {
    "a": PARAMETERS["b"], "b": PARAMETERS["a"], "u": PARAMETERS["u"][::-1].copy(),
    "s": PARAMETERS["s"][::-1].copy(), "logits": -PARAMETERS["logits"], "vector": -PARAMETERS["vector"],
    "factor": -PARAMETERS["factor"][:, ::-1].copy(),
}  # fmt: skip

# name: (constructor of (D, parameters), a value in the support as (values, kind))
MAKE = {
    "Normal": lambda D, v: D.Normal(v.a, v.p),
    "LogNormal": lambda D, v: D.LogNormal(v.a, v.p),
    "HalfNormal": lambda D, v: D.HalfNormal(v.p),
    "Laplace": lambda D, v: D.Laplace(v.a, v.p),
    "Cauchy": lambda D, v: D.Cauchy(v.a, v.p),
    "HalfCauchy": lambda D, v: D.HalfCauchy(v.p),
    "StudentT": lambda D, v: D.StudentT(v.p * 2.5, v.a, v.q),
    "Gumbel": lambda D, v: D.Gumbel(v.a, v.p),
    "Uniform": lambda D, v: D.Uniform(v.a, v.a + v.p),
    "Exponential": lambda D, v: D.Exponential(v.p),
    "Gamma": lambda D, v: D.Gamma(v.p, v.q),
    "InverseGamma": lambda D, v: D.InverseGamma(v.p + 2, v.q),
    "Chi2": lambda D, v: D.Chi2(v.p),
    "FisherSnedecor": lambda D, v: D.FisherSnedecor(v.p, v.q * 4),
    "Beta": lambda D, v: D.Beta(v.p, v.q),
    "Kumaraswamy": lambda D, v: D.Kumaraswamy(v.p, v.q),
    "ContinuousBernoulli": lambda D, v: D.ContinuousBernoulli(v.u),
    "Weibull": lambda D, v: D.Weibull(v.p, v.q),
    "Pareto": lambda D, v: D.Pareto(v.p, v.q + 2),
    "GeneralizedPareto": lambda D, v: D.GeneralizedPareto(v.a, v.p, v.u / 3),
    "GeneralizedPareto bounded": lambda D, v: D.GeneralizedPareto(v.a, v.p, -v.u / 2),
    "VonMises": lambda D, v: D.VonMises(v.a, v.p),
    "Bernoulli": lambda D, v: D.Bernoulli(v.u),
    "Bernoulli logits": lambda D, v: D.Bernoulli(logits=v.a),
    "Geometric": lambda D, v: D.Geometric(v.u),
    "Geometric logits": lambda D, v: D.Geometric(logits=v.a),
    "Poisson": lambda D, v: D.Poisson(v.p),
    "Binomial": lambda D, v: D.Binomial(7, v.u),
    "Binomial counts": lambda D, v: D.Binomial(v.count, logits=v.a),
    "NegativeBinomial": lambda D, v: D.NegativeBinomial(v.count, v.u),
    "Categorical": lambda D, v: D.Categorical(v.s),
    "Categorical logits": lambda D, v: D.Categorical(logits=v.logits),
    "OneHotCategorical": lambda D, v: D.OneHotCategorical(v.s),
    "OneHotCategoricalStraightThrough": lambda D, v: D.OneHotCategoricalStraightThrough(logits=v.logits),
    "Multinomial": lambda D, v: D.Multinomial(6, v.s),
    "Dirichlet": lambda D, v: D.Dirichlet(v.positive),
    "MultivariateNormal": lambda D, v: D.MultivariateNormal(v.vector, v.cov),
    "MultivariateNormal precision": lambda D, v: D.MultivariateNormal(v.vector, precision_matrix=v.cov),
    "MultivariateNormal tril": lambda D, v: D.MultivariateNormal(v.vector, scale_tril=v.cov.tril()),
    "LKJCholesky": lambda D, v: D.LKJCholesky(3, v.p),
    "Wishart": lambda D, v: D.Wishart(v.count + 3, v.cov),
    "Wishart precision": lambda D, v: D.Wishart(v.count + 3, precision_matrix=v.cov),
    "LowRankMultivariateNormal": lambda D, v: D.LowRankMultivariateNormal(v.vector, v.factor, v.diag),
    "LogisticNormal": lambda D, v: D.LogisticNormal(v.vector, v.diag),
    "RelaxedBernoulli": lambda D, v: D.RelaxedBernoulli(v.p[0], v.u),
    "LogitRelaxedBernoulli": lambda D, v: D.relaxed_bernoulli.LogitRelaxedBernoulli(v.p[0], logits=v.a),
    "RelaxedOneHotCategorical": lambda D, v: D.RelaxedOneHotCategorical(v.p[0], logits=v.logits),
    "Independent": lambda D, v: D.Independent(D.Normal(v.vector, v.diag), 1),
    "MixtureSameFamily": lambda D, v: D.MixtureSameFamily(D.Categorical(logits=v.a), D.Normal(v.a, v.p)),
    "MixtureSameFamily vectors": lambda D, v: D.MixtureSameFamily(
        D.Categorical(logits=v.a), D.Independent(D.Normal(v.vector, v.diag), 1)
    ),
    "Transformed": lambda D, v: D.TransformedDistribution(
        D.Normal(v.a, v.p), [D.AffineTransform(v.b, -v.q), D.SigmoidTransform(), D.AffineTransform(1, 2)]
    ),
}  # fmt: skip

# values in the support, of shape (2, 3, event)
_uniform = _rng.uniform(0.05, 0.95, (2, 3))
_counts = _rng.integers(0, 3, (2, 3)).astype(float)
_simplex = _rng.dirichlet(np.ones(4), (2, 3))
_hot = np.eye(4)[_rng.integers(0, 4, (2, 3))]
_vectors = _rng.standard_normal((2, 3, 4))


def values(name):
    kind = name.split()[0]
    if kind in ("Normal", "Laplace", "Cauchy", "StudentT", "Gumbel", "VonMises", "LogitRelaxedBernoulli"):
        return 2 * _uniform - 1
    if kind == "Uniform":
        return PARAMETERS["a"] + _uniform * PARAMETERS["p"]
    if kind == "GeneralizedPareto":
        return PARAMETERS["a"] + _uniform * PARAMETERS["p"]
    if kind == "Pareto":
        return PARAMETERS["p"] * (1 + _uniform)
    if name == "Transformed":
        return 1 + 2 * _uniform
    if name == "MixtureSameFamily":
        return _uniform[:, 0]
    if name == "MixtureSameFamily vectors":
        return _vectors[:, 0]
    if kind == "Categorical":
        return _counts
    if kind == "Bernoulli":
        return np.minimum(_counts, 1)
    if kind in ("Geometric", "Poisson", "Binomial", "NegativeBinomial"):
        return _counts
    if kind.startswith("OneHot"):
        return _hot
    if kind == "Multinomial":
        return 4 * _hot + 2 * np.roll(_hot, 1, axis=-1)
    if kind in ("Dirichlet", "RelaxedOneHotCategorical"):
        return _simplex
    if kind == "Wishart":
        return OTHERS["cov"] + np.zeros((2, 1, 1, 1))
    if kind == "LKJCholesky":
        return np.linalg.cholesky(_correlations)
    if kind == "LogisticNormal":
        return _rng_simplex5
    if kind in ("MultivariateNormal", "LowRankMultivariateNormal", "Independent"):
        return _vectors
    return _uniform


_covariances = np.stack([[_matrix(3) for _ in range(3)] for _ in range(2)])
_lengths = np.sqrt(np.einsum("...ii->...i", _covariances))
_correlations = _covariances / (_lengths[..., None] * _lengths[..., None, :])
_rng_simplex5 = np.random.default_rng(9).dirichlet(np.ones(5), (2, 3))


class Given:
    """The parameters as float64 leaves of a library."""

    def __init__(self, library, parameters=PARAMETERS):
        for key, value in parameters.items():
            setattr(self, key, library.tensor(value, dtype=library.float64, requires_grad=key != "count"))

    def leaves(self):
        return [x for key, x in vars(self).items() if key != "count"]
