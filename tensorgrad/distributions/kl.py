"""Kullback-Leibler divergences, by the types of the two distributions.

Most are ``- entropy(p) - mean under p of log q``, with the means that the densities' logarithms ask for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import tensorgrad as tg

from ..tensor import Tensor
from .bernoulli import Bernoulli
from .beta import Beta
from .binomial import Binomial
from .categorical import Categorical
from .cauchy import Cauchy
from .continuous_bernoulli import ContinuousBernoulli
from .dirichlet import Dirichlet
from .distribution import Distribution
from .exp_family import ExponentialFamily
from .exponential import Exponential
from .gamma import Gamma
from .geometric import Geometric
from .gumbel import Gumbel
from .half_normal import HalfNormal
from .independent import Independent
from .laplace import Laplace
from .lowrank_multivariate_normal import LowRankMultivariateNormal
from .multivariate_normal import MultivariateNormal, mahalanobis
from .normal import Normal
from .one_hot_categorical import OneHotCategorical
from .pareto import Pareto
from .poisson import Poisson
from .transformed_distribution import TransformedDistribution
from .uniform import Uniform
from .utils import euler_constant, sum_rightmost

__all__ = ["kl_divergence", "register_kl"]

_registry: dict[tuple[type, type], Callable[..., Any]] = {}
_found: dict[tuple[type, type], Callable[..., Any]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates the function that computes ``kl_divergence(p, q)`` of these types; later ones win.

    Raises: TypeError for what are no Distribution types.
    """
    for kind, label in ((type_p, "type_p"), (type_q, "type_q")):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"Expected {label} to be a Distribution subclass but got {kind}")

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        _registry[type_p, type_q] = function
        _found.clear()
        return function

    return keep


def _lookup(type_p: type, type_q: type) -> Callable[..., Any] | None:
    """The function of the nearest types: nearest in p first; ambiguity, where nearest in q differs, warns."""
    key = (type_p, type_q)
    if key in _found:
        return _found[key]
    matches = [(p, q) for p, q in _registry if issubclass(type_p, p) and issubclass(type_q, q)]
    if not matches:
        return None

    def near(pair: tuple[type, type]) -> tuple[int, int]:
        return type_p.__mro__.index(pair[0]), type_q.__mro__.index(pair[1])

    left = min(matches, key=near)
    right = min(matches, key=lambda pair: near(pair)[::-1])
    chosen = _registry[left]
    if chosen is not _registry[right]:
        warnings.warn(
            f"Ambiguous kl_divergence({type_p.__name__}, {type_q.__name__}). Please register_kl({left[0].__name__}, "
            f"{right[1].__name__})",
            RuntimeWarning,
            stacklevel=3,
        )
    _found[key] = chosen
    return chosen


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """``KL(p || q)``, the mean under ``p`` of ``log p(x) - log q(x)``: one value for each element of the batch.

    Raises: NotImplementedError for types that no function is registered for.
    Example:
        >>> import tensorgrad as tg
        >>> from tensorgrad.distributions import Normal, kl_divergence
        >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0)).item()
        0.5
    """
    function = _lookup(type(p), type(q))
    if function is None:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
        )
    return function(p, q)


# --- means under p that logarithms of densities ask for


def _mean_log(p: Any) -> Tensor:
    """The mean of ``log x``."""
    if isinstance(p, Gamma):
        return tg.digamma(p.concentration) - p.rate.log()
    if isinstance(p, Exponential):
        return -euler_constant - p.rate.log()
    if isinstance(p, Beta):
        return tg.digamma(p.concentration1) - tg.digamma(p.concentration1 + p.concentration0)
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    assert isinstance(p, Uniform)
    return (tg.xlogy(p.high, p.high) - tg.xlogy(p.low, p.low)) / (p.high - p.low) - 1


def _mean_log_of_rest(p: Any) -> Tensor:
    """The mean of ``log(1 - x)``."""
    if isinstance(p, Beta):
        return tg.digamma(p.concentration0) - tg.digamma(p.concentration1 + p.concentration0)
    assert isinstance(p, Uniform)
    low, high = 1 - p.high, 1 - p.low
    return (tg.xlogy(high, high) - tg.xlogy(low, low)) / (high - low) - 1


def _mean_decay(p: Any, scale: Tensor) -> Tensor:
    """The mean of ``exp(-x / scale)``."""
    if isinstance(p, Gamma):
        return (1 + (p.rate * scale).reciprocal()) ** (-p.concentration)
    if isinstance(p, Exponential):
        return p.rate * scale / (p.rate * scale + 1)
    if isinstance(p, Normal):
        return (-p.loc / scale + 0.5 * (p.scale / scale) ** 2).exp()
    if isinstance(p, Gumbel):
        return (-p.loc / scale + (1 + p.scale / scale).lgamma()).exp()
    assert isinstance(p, Uniform)
    return scale * ((-p.low / scale).exp() - (-p.high / scale).exp()) / (p.high - p.low)


# --- means of log q


def _under_exponential(p: Any, q: Exponential) -> Tensor:
    return q.rate.log() - q.rate * p.mean


def _under_gamma(p: Any, q: Gamma) -> Tensor:
    a, b = q.concentration, q.rate
    return a * b.log() - a.lgamma() + (a - 1) * _mean_log(p) - b * p.mean


def _under_normal(p: Any, q: Normal) -> Tensor:
    spread = (p.variance + (p.mean - q.loc) ** 2) / q.scale**2
    return -0.5 * spread - q.scale.log() - 0.5 * math.log(2 * math.pi)


def _under_gumbel(p: Any, q: Gumbel) -> Tensor:
    return (q.loc - p.mean) / q.scale - _mean_decay(p, q.scale) * (q.loc / q.scale).exp() - q.scale.log()


def _under_pareto(p: Any, q: Pareto) -> Tensor:
    return q.alpha.log() + q.alpha * q.scale.log() - (q.alpha + 1) * _mean_log(p)


def _under_beta(p: Any, q: Beta) -> Tensor:
    one, zero = q.concentration1, q.concentration0
    normalizer = one.lgamma() + zero.lgamma() - (one + zero).lgamma()
    return (one - 1) * _mean_log(p) + (zero - 1) * _mean_log_of_rest(p) - normalizer


def _under_uniform(p: Any, q: Uniform) -> Tensor:
    return -(q.high - q.low).log()


def _under_continuous_bernoulli(p: Any, q: ContinuousBernoulli) -> Tensor:
    return p.mean * q.logits + tg.log1p(-q.probs) + q._cont_bern_log_norm()


def _inside(p: Any, q: Any, low: Any, high: Any) -> Tensor:
    """Where the support of ``p``, from ``low`` to ``high``, is not within that of ``q``."""
    bounds = {Beta: (0.0, 1.0), ContinuousBernoulli: (0.0, 1.0), Exponential: (0.0, math.inf), Gamma: (0.0, math.inf)}
    start: Any
    end: Any
    if isinstance(q, Uniform):
        start, end = q.low, q.high
    elif isinstance(q, Pareto):
        start, end = q.scale, math.inf
    else:
        start, end = next((b for kind, b in bounds.items() if isinstance(q, kind)), (-math.inf, math.inf))
    return tg.as_tensor(low < start) | tg.as_tensor(high > end)


_BOUNDS: dict[type, Callable[[Any], tuple[Any, Any]]] = {
    Beta: lambda p: (0.0, 1.0),
    ContinuousBernoulli: lambda p: (0.0, 1.0),
    Exponential: lambda p: (0.0, math.inf),
    Gamma: lambda p: (0.0, math.inf),
    Gumbel: lambda p: (-math.inf, math.inf),
    Laplace: lambda p: (-math.inf, math.inf),
    Normal: lambda p: (-math.inf, math.inf),
    Pareto: lambda p: (p.scale, math.inf),
    Uniform: lambda p: (p.low, p.high),
}
_UNDER: dict[type, Callable[[Any, Any], Tensor]] = {
    Beta: _under_beta,
    ContinuousBernoulli: _under_continuous_bernoulli,
    Exponential: _under_exponential,
    Gamma: _under_gamma,
    Gumbel: _under_gumbel,
    Normal: _under_normal,
    Pareto: _under_pareto,
    Uniform: _under_uniform,
}
# pairs whose mean of log q is known; the rest of the table is infinite: the support of p reaches beyond that of q
_KNOWN: dict[type, tuple[type, ...]] = {
    Beta: (Beta, ContinuousBernoulli, Exponential, Gamma, Normal, Uniform),
    ContinuousBernoulli: (ContinuousBernoulli, Exponential, Normal, Uniform),
    Exponential: (Exponential, Gamma, Gumbel, Normal),
    Gamma: (Exponential, Gamma, Gumbel, Normal),
    Gumbel: (Gumbel, Normal),
    Laplace: (Normal,),
    Normal: (Gumbel, Normal),
    Pareto: (Exponential, Gamma, Normal, Pareto),
    Uniform: (Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Normal, Pareto, Uniform),
}
_INFINITE: dict[type, tuple[type, ...]] = {
    Beta: (Pareto,),
    ContinuousBernoulli: (Pareto,),
    Exponential: (Beta, ContinuousBernoulli, Pareto, Uniform),
    Gamma: (Beta, ContinuousBernoulli, Pareto, Uniform),
    Gumbel: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Laplace: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Normal: (Beta, ContinuousBernoulli, Exponential, Gamma, Pareto, Uniform),
    Pareto: (Beta, ContinuousBernoulli, Uniform),
}


def _by_entropy(type_p: type, type_q: type) -> Callable[[Any, Any], Tensor]:
    under, bounds = _UNDER[type_q], _BOUNDS[type_p]

    def divergence(p: Any, q: Any) -> Tensor:
        outside = _inside(p, q, *bounds(p))
        return tg.where(outside, math.inf, -p.entropy() - under(p, q))

    return divergence


def _infinite(p: Any, q: Any) -> Tensor:
    like = p.mean if not isinstance(p, Gumbel) else p.loc
    return tg.full_like(like, math.inf)


for _p, _many in _KNOWN.items():
    for _q in _many:
        register_kl(_p, _q)(_by_entropy(_p, _q))
for _p, _many in _INFINITE.items():
    for _q in _many:
        register_kl(_p, _q)(_infinite)


# --- those with a form of their own


@register_kl(Normal, Normal)
def _normal_normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    away = p.loc - q.loc
    z = away / p.scale
    distance = math.sqrt(2 / math.pi) * p.scale * (-0.5 * z**2).exp() + away * tg.erf(z / math.sqrt(2))
    return -p.entropy() + (2 * q.scale).log() + distance / q.scale


@register_kl(HalfNormal, HalfNormal)
def _half_normals(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal_normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplaces(p: Laplace, q: Laplace) -> Tensor:
    away = (p.loc - q.loc).abs()
    ratio = p.scale / q.scale
    return -ratio.log() + away / q.scale + ratio * (-away / p.scale).exp() - 1


@register_kl(Cauchy, Cauchy)
def _cauchys(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log() - (4 * p.scale * q.scale).log()


@register_kl(Pareto, Pareto)
def _paretos(p: Pareto, q: Pareto) -> Tensor:
    ratio = q.alpha / p.alpha
    result = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return tg.where(p.scale < q.scale, math.inf, result)


@register_kl(Uniform, Uniform)
def _uniforms(p: Uniform, q: Uniform) -> Tensor:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return tg.where((q.low > p.low) | (q.high < p.high), math.inf, result)


@register_kl(Bernoulli, Bernoulli)
def _bernoullis(p: Bernoulli, q: Bernoulli) -> Tensor:
    def half(a: Tensor, log_a: Tensor, log_b: Tensor, b: Tensor) -> Tensor:
        term = tg.where(a == 0, 0.0, a * (log_a - log_b))
        return tg.where((b == 0) & (a != 0), math.inf, term)

    softplus = tg.nn.functional.softplus
    yes = half(p.probs, -softplus(-p.logits), -softplus(-q.logits), q.probs)
    return yes + half(1 - p.probs, -softplus(p.logits), -softplus(q.logits), 1 - q.probs)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Binomial, Binomial)
def _binomials(p: Binomial, q: Binomial) -> Tensor:
    """Infinite where p can count higher; for equal counts that of so many Bernoulli variables."""
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    per_trial = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    result = p.total_count * per_trial
    return tg.where((p.total_count > q.total_count).expand(result.shape), math.inf, result)


@register_kl(Poisson, Bernoulli)
@register_kl(Poisson, Binomial)
def _poisson_beyond(p: Poisson, q: Any) -> Tensor:
    return tg.full_like(p.rate, math.inf)


@register_kl(Poisson, Poisson)
def _poissons(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometrics(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - tg.log1p(-q.probs) / p.probs - q.logits


@register_kl(Categorical, Categorical)
def _categoricals(p: Categorical, q: Categorical) -> Tensor:
    term = p.probs * (p.logits - q.logits)
    term = tg.where((q.probs == 0).expand(term.shape), math.inf, term)
    return tg.where((p.probs == 0).expand(term.shape), 0.0, term).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hots(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categoricals(p._categorical, q._categorical)


@register_kl(Dirichlet, Dirichlet)
def _dirichlets(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    normalizers = a.sum(-1).lgamma() - b.sum(-1).lgamma() + (b.lgamma() - a.lgamma()).sum(-1)
    return normalizers + ((a - b) * (a.digamma() - a.sum(-1, True).digamma())).sum(-1)


def _log_det(factor: Tensor) -> Tensor:
    """Of ``L L^T``."""
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _trace_of_solved(factor: Tensor, other: Tensor) -> Tensor:
    """``trace((L L^T)^-1 M M^T)``."""
    solved = tg.linalg.solve_triangular(factor, other, upper=False)
    return solved.pow(2).sum((-2, -1))


def _same_event(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        raise ValueError(f"KL-divergence between two {type(p).__name__} with different event shapes cannot be computed")


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normals(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    _same_event(p, q)
    mine, theirs = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    shape = tg.broadcast_shapes(mine.shape, theirs.shape)
    trace = _trace_of_solved(theirs.expand(shape), mine.expand(shape))
    distance = mahalanobis(theirs, q.loc - p.loc)
    return 0.5 * (_log_det(theirs) - _log_det(mine) + trace + distance - p.event_shape[0])


def _dense_of(p: Any) -> Tensor:
    """A matrix M with covariance ``M M^T``."""
    if isinstance(p, MultivariateNormal):
        return p._unbroadcasted_scale_tril
    root = tg.diag_embed(p._unbroadcasted_cov_diag.sqrt())
    factor = p._unbroadcasted_cov_factor
    batch = tg.broadcast_shapes(factor.shape[:-2], root.shape[:-2])
    return tg.cat([factor.expand((*batch, *factor.shape[-2:])), root.expand((*batch, *root.shape[-2:]))], -1)


def _log_det_of(p: Any) -> Tensor:
    return _log_det(p._unbroadcasted_scale_tril) if isinstance(p, MultivariateNormal) else p._log_det()


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _to_low_rank(p: Any, q: LowRankMultivariateNormal) -> Tensor:
    """Woodbury: the trace is that under the diagonal, less what the capacitance takes."""
    _same_event(p, q)
    dense = _dense_of(p)
    own = (dense.pow(2) / q._unbroadcasted_cov_diag.unsqueeze(-1)).sum((-2, -1))
    scaled = q._unbroadcasted_cov_factor.mT / q._unbroadcasted_cov_diag.unsqueeze(-2)
    projected = scaled @ dense
    capacitance = q._capacitance_tril
    batch = tg.broadcast_shapes(capacitance.shape[:-2], projected.shape[:-2])
    taken = _trace_of_solved(
        capacitance.expand((*batch, *capacitance.shape[-2:])), projected.expand((*batch, *projected.shape[-2:]))
    )
    distance = q._distance(q.loc - p.loc)
    return 0.5 * (q._log_det() - _log_det_of(p) + own - taken + distance - p.event_shape[0])


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _low_rank_to_dense(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    _same_event(p, q)
    theirs, dense = q._unbroadcasted_scale_tril, _dense_of(p)
    batch = tg.broadcast_shapes(theirs.shape[:-2], dense.shape[:-2])
    trace = _trace_of_solved(theirs.expand((*batch, *theirs.shape[-2:])), dense.expand((*batch, *dense.shape[-2:])))
    distance = mahalanobis(theirs, q.loc - p.loc)
    return 0.5 * (_log_det(theirs) - p._log_det() + trace + distance - p.event_shape[0])


@register_kl(ExponentialFamily, ExponentialFamily)
def _of_one_family(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    """The Bregman divergence of the log normalizer."""
    if type(p) is not type(q):
        raise NotImplementedError(
            f"The cross KL-divergence between different exponential families cannot be computed: {type(p).__name__} "
            f"and {type(q).__name__}"
        )
    params, normalizer, slopes = p._slopes()
    others = q._natural_params
    result = q._log_normalizer(*others) - normalizer
    for mine, theirs, slope in zip(params, others, slopes, strict=True):
        result = result - sum_rightmost((theirs - mine) * slope, len(q.event_shape))
    return result


@register_kl(Independent, Independent)
def _independents(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("KL between Independents of different reinterpreted_batch_ndims")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL between TransformedDistributions of different transforms")
    return kl_divergence(p.base_dist, q.base_dist)
