"""Divergences between two distributions of one family, as tables of formulas.

Each formula takes the array library and two records whose parameters are arrays of it. KL divergences are sums of terms
none of which is negative, wherever such a form is known: they are exactly 0 for equal parameters, and keep their digits
where the parameters hardly differ. Sources: Gil, Alajaji and Linder 2013 (Renyi divergence measures for commonly used
univariate continuous distributions) for exponential families and Pareto, Bauckhage 2013 for Weibull, Chyzak and Nielsen
2019 for Cauchy, Kitagawa and Rowley 2022 for von Mises; forms were rearranged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kilter.divergence.families.bessel import bessel_ratio, log_hyp0f1_excess
from kilter.divergence.families.family import Family
from kilter.divergence.families.special import (
    excess,
    exp_excess,
    gamma_excess,
    log_cosh,
    log_excess,
    log_gamma,
    log_ratio,
    root,
)
from kilter.divergence.families.univariate import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    ContinuousBernoulli,
    Exponential,
    Gamma,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    InverseGaussian,
    Kumaraswamy,
    Laplace,
    Logistic,
    LogNormal,
    NegativeBinomial,
    Normal,
    Pareto,
    Poisson,
    Rayleigh,
    Uniform,
    VonMises,
    Weibull,
    log_sinhc,
)
from kilter.divergence.namespaces import array_namespace

Array = Any
Formula = Callable[[Any, Any, Any], Array]


class Pair(NamedTuple):
    """A formula, and the parameters that must be equal for it to hold."""

    formula: Formula
    equal: tuple[str, ...] = ()


# KL(p, q).


def kl_normal(xp: Any, p: Normal, q: Normal) -> Array:
    return square_excess(q.sd, p.sd) / 2 + ((p.mean - q.mean) / q.sd) ** 2 / 2


def square_excess(of: Array, to: Array) -> Array:
    """u^2 - 1 - log u^2 of u = to / of: twice (u - 1 - log u) and (u - 1)^2."""
    return 2 * log_excess(of, to) + ((to - of) / of) ** 2


def kl_laplace(xp: Any, p: Laplace, q: Laplace) -> Array:
    away = xp.abs(p.location - q.location) / p.scale
    return log_excess(q.scale, p.scale) + p.scale / q.scale * exp_excess(-away)


def kl_gumbel(xp: Any, p: Gumbel, q: Gumbel) -> Array:
    change = (p.scale - q.scale) / q.scale
    exponent = log_gamma(2 + change) - (p.location - q.location) / q.scale
    return log_excess(q.scale, p.scale) + gamma_excess(2 + 0 * change, 2 + change) + exp_excess(exponent)


def kl_logistic(xp: Any, p: Logistic, q: Logistic) -> Array:
    # d coth(d / 2) - 2, by Taylor's series where d is small.
    d = xp.abs(p.location - q.location) / p.scale
    near = d < 0.5
    square = xp.where(near, d, xp.zeros_like(d)) ** 2
    series = square * (1 / 6 - square * (1 / 360 - square * (1 / 15120 - square * (1 / 604800 - square / 23950080))))
    far = xp.where(near, xp.ones_like(d), d)
    return xp.where(near, series, far / xp.tanh(far / 2) - 2)


def kl_cauchy(xp: Any, p: Cauchy, q: Cauchy) -> Array:
    return xp.log1p(((p.scale - q.scale) ** 2 + (p.location - q.location) ** 2) / (4 * p.scale * q.scale))


def kl_half_cauchy(xp: Any, p: HalfCauchy, q: HalfCauchy) -> Array:
    return xp.log1p((p.scale - q.scale) ** 2 / (4 * p.scale * q.scale))


def kl_half_normal(xp: Any, p: HalfNormal, q: HalfNormal) -> Array:
    return square_excess(q.scale, p.scale) / 2


def kl_rayleigh(xp: Any, p: Rayleigh, q: Rayleigh) -> Array:
    return square_excess(q.scale, p.scale)


def kl_exponential(xp: Any, p: Exponential, q: Exponential) -> Array:
    return log_excess(p.rate, q.rate)


def kl_gamma(xp: Any, p: Gamma, q: Gamma) -> Array:
    rates = p.shape * log_excess(p.rate, q.rate) + (p.shape - q.shape) * log_ratio(p.rate, q.rate)
    return gamma_excess(p.shape, q.shape) + rates


def kl_inverse_gaussian(xp: Any, p: InverseGaussian, q: InverseGaussian) -> Array:
    return 0.5 * (log_excess(p.shape, q.shape) + q.shape / p.mean * ((p.mean - q.mean) / q.mean) ** 2)


def kl_pareto(xp: Any, p: Pareto, q: Pareto) -> Array:
    inside = p.scale >= q.scale
    start = log_ratio(q.scale, xp.where(inside, p.scale + 0 * q.scale, q.scale + 0 * p.scale))
    value = log_excess(p.shape, q.shape) + q.shape * start
    return xp.where(inside, value, xp.full_like(value, math.inf))


def kl_uniform(xp: Any, p: Uniform, q: Uniform) -> Array:
    inside = (q.low <= p.low) & (p.high <= q.high)
    width = p.high - p.low
    more = xp.where(inside, (q.high - p.high) + (p.low - q.low), 0 * width)
    value = xp.log1p(more / width)
    return xp.where(inside, value, xp.full_like(value, math.inf))


def kl_beta(xp: Any, p: Beta, q: Beta) -> Array:
    return gamma_excess(p.a, q.a) + gamma_excess(p.b, q.b) - gamma_excess(p.a + p.b, q.a + q.b)


def kl_kumaraswamy(xp: Any, p: Kumaraswamy, q: Kumaraswamy) -> Array:
    return log_excess(p.b, q.b)  # 1 - X^a is to the power b uniform


def kl_continuous_bernoulli(xp: Any, p: ContinuousBernoulli, q: ContinuousBernoulli) -> Array:
    return log_sinhc_excess(p.logit(xp), q.logit(xp))


def log_sinhc_excess(eta: Array, to: Array) -> Array:
    """The Bregman divergence of log(sinh(eta / 2) / (eta / 2)), the log-normaliser of continuous Bernoullis."""
    xp = array_namespace(eta, to)
    near = xp.abs(to - eta) < 0.5 * (1 + xp.abs(eta))
    return excess(lambda x: log_sinhc(x / 2), centred_mean, centred_variance, eta, to, near)


def centred_mean(eta: Array) -> Array:
    """E[x] - 1/2 of a continuous Bernoulli with logit eta: coth(eta / 2) / 2 - 1 / eta."""
    xp = array_namespace(eta)
    near = xp.abs(eta) < 0.5
    small = xp.where(near, eta, xp.zeros_like(eta))
    square = small * small
    series = small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160))))
    far = xp.where(near, xp.ones_like(eta), eta)
    return xp.where(near, series, 0.5 / xp.tanh(far / 2) - 1 / far)


def centred_variance(eta: Array) -> Array:
    """The variance of a continuous Bernoulli with logit eta: 1 / eta^2 - 1 / (2 sinh(eta / 2))^2."""
    xp = array_namespace(eta)
    near = xp.abs(eta) < 0.5
    square = xp.where(near, eta, xp.zeros_like(eta)) ** 2
    series = 1 / 12 - square * (1 / 240 - square * (1 / 6048 - square * (1 / 172800 - square / 5322240)))
    far = xp.where(near, xp.ones_like(eta), eta)
    return xp.where(near, series, 1 / far**2 - 0.25 / xp.sinh(far / 2) ** 2)


def kl_von_mises(xp: Any, p: VonMises, q: VonMises) -> Array:
    turn = 2 * xp.sin((p.location - q.location) / 2) ** 2
    return kl_of_directions(0, p.concentration, q.concentration, turn)


def kl_of_directions(order: float, p: Array, q: Array, turn: Array) -> Array:
    """KL of von Mises-Fisher distributions of an order d / 2 - 1 with these concentrations; turn is 1 - cosine."""
    return log_hyp0f1_excess(order, p, q) + q * bessel_ratio(order, p) * turn


def kl_of_probabilities(xp: Any, p: Array, q: Array) -> Array:
    """The terms p log(p / q) - p + q, none of them negative; inf where p > 0 = q, q where p is 0."""
    nothing, one = p == 0, xp.ones_like(p + q)
    of, to = xp.where(nothing, one, p + 0 * q), xp.where(nothing, one, q + 0 * p)
    return xp.where(nothing, q + 0 * p, p * log_excess(of, to))


def kl_bernoulli(xp: Any, p: Any, q: Any) -> Array:
    success = kl_of_probabilities(xp, p.probability, q.probability)
    return success + kl_of_probabilities(xp, 1 - p.probability, 1 - q.probability)


def kl_categorical(xp: Any, p: Categorical, q: Categorical) -> Array:
    return xp.sum(kl_of_probabilities(xp, p.probabilities, q.probabilities), axis=-1)


def kl_binomial(xp: Any, p: Binomial, q: Binomial) -> Array:
    return times(xp, p.n, kl_bernoulli(xp, p, q))


def times(xp: Any, n: Array, each: Array) -> Array:
    """What n draws add together; none add 0, even of what is inf."""
    none = n == 0
    return n * xp.where(none, xp.zeros_like(each), each)


def kl_poisson(xp: Any, p: Poisson, q: Poisson) -> Array:
    return kl_of_probabilities(xp, p.rate, q.rate)


def kl_geometric(xp: Any, p: Geometric, q: Geometric) -> Array:
    return kl_bernoulli(xp, p, q) / p.probability


def kl_negative_binomial(xp: Any, p: NegativeBinomial, q: NegativeBinomial) -> Array:
    return p.n * kl_bernoulli(xp, p, q) / p.probability


KL: dict[type[Family], Pair] = {
    Normal: Pair(kl_normal),
    Laplace: Pair(kl_laplace),
    Gumbel: Pair(kl_gumbel),
    Logistic: Pair(kl_logistic, equal=("scale",)),
    Cauchy: Pair(kl_cauchy),
    HalfCauchy: Pair(kl_half_cauchy),
    HalfNormal: Pair(kl_half_normal),
    Rayleigh: Pair(kl_rayleigh),
    Exponential: Pair(kl_exponential),
    Gamma: Pair(kl_gamma),
    InverseGaussian: Pair(kl_inverse_gaussian),
    Pareto: Pair(kl_pareto),
    Uniform: Pair(kl_uniform),
    Beta: Pair(kl_beta),
    Kumaraswamy: Pair(kl_kumaraswamy, equal=("a",)),
    ContinuousBernoulli: Pair(kl_continuous_bernoulli),
    VonMises: Pair(kl_von_mises),
    Bernoulli: Pair(kl_bernoulli),
    Binomial: Pair(kl_binomial, equal=("n",)),
    Categorical: Pair(kl_categorical),
    Poisson: Pair(kl_poisson),
    Geometric: Pair(kl_geometric),
    NegativeBinomial: Pair(kl_negative_binomial, equal=("n",)),
}


# Bhattacharyya distance -log int sqrt(p q).


def bhattacharyya_normal(xp: Any, p: Normal, q: Normal) -> Array:
    spread = (p.sd - q.sd) ** 2 / (2 * p.sd * q.sd)
    return 0.25 * (p.mean - q.mean) ** 2 / (p.sd**2 + q.sd**2) + 0.5 * xp.log1p(spread)


def bhattacharyya_laplace(xp: Any, p: Laplace, q: Laplace) -> Array:
    # sqrt(p q) integrated left of, between and right of the locations, d apart; a and b are half the rates.
    # With s = (a + b) d / 2 and w = |a - b| d / 2 it is s - log(cosh w + s sinh(w) / w), beside what the scales add.
    a, b, d = 0.5 / p.scale, 0.5 / q.scale, xp.abs(p.location - q.location)
    s, w = (a + b) * d / 2, xp.abs(a - b) * d / 2
    near = w < 1
    small = xp.where(near, w, xp.zeros_like(w))
    bent = (2 * xp.sinh(small / 2) ** 2 + s * xp.expm1(log_sinhc(small))) / (1 + s)
    far = xp.where(near, xp.ones_like(w), w)
    direct = s - far - xp.log((1 + xp.exp(-2 * far)) / 2 - s * xp.expm1(-2 * far) / (2 * far))
    apart = xp.where(near, log_excess(xp.ones_like(s), 1 + s) - xp.log1p(bent), direct)
    return apart + ratio_of_means(xp, p.scale, q.scale)


def ratio_of_means(xp: Any, a: Array, b: Array) -> Array:
    """The logarithm of the arithmetic over the geometric mean of two positive numbers, never negative."""
    return 0.5 * xp.log1p((a - b) ** 2 / (4 * a * b))


def bhattacharyya_gumbel(xp: Any, p: Gumbel, q: Gumbel) -> Array:
    return log_cosh((p.location - q.location) / (2 * p.scale))


def bhattacharyya_logistic(xp: Any, p: Logistic, q: Logistic) -> Array:
    return log_sinhc((p.location - q.location) / (2 * p.scale))


def bhattacharyya_exponential(xp: Any, p: Exponential, q: Exponential) -> Array:
    return ratio_of_means(xp, p.rate, q.rate)


def bhattacharyya_gamma(xp: Any, p: Gamma, q: Gamma) -> Array:
    rate = (p.rate + q.rate) / 2
    rates = p.shape * log_excess(rate, p.rate) + q.shape * log_excess(rate, q.rate)
    crossed = (p.shape - q.shape) * (p.rate - q.rate) / (p.rate + q.rate)
    return gamma_gap(p.shape, q.shape) + (rates - crossed) / 2


def gamma_gap(a: Array, b: Array) -> Array:
    """(log Gamma(a) + log Gamma(b)) / 2 - log Gamma((a + b) / 2), never negative."""
    middle = (a + b) / 2
    return (gamma_excess(middle, a) + gamma_excess(middle, b)) / 2


def bhattacharyya_inverse_gaussian(xp: Any, p: InverseGaussian, q: InverseGaussian) -> Array:
    # The log-normaliser -log(b) / 2 - sqrt(a b) of a = shape / mean^2 and b = shape, at p, q and between.
    between = 0.5 * xp.sqrt((p.shape / p.mean**2 + q.shape / q.mean**2) * (p.shape + q.shape))
    beside = (p.shape / p.mean + q.shape / q.mean) / 2
    means = p.shape / p.mean * (q.shape / q.mean) * (p.mean - q.mean) ** 2 / (p.mean * q.mean)
    return 0.5 * ratio_of_means(xp, p.shape, q.shape) + means / (4 * (between + beside))


def bhattacharyya_beta(xp: Any, p: Beta, q: Beta) -> Array:
    return gamma_gap(p.a, q.a) + gamma_gap(p.b, q.b) - gamma_gap(p.a + p.b, q.a + q.b)


def bhattacharyya_kumaraswamy(xp: Any, p: Kumaraswamy, q: Kumaraswamy) -> Array:
    return ratio_of_means(xp, p.b, q.b)


def bhattacharyya_continuous_bernoulli(xp: Any, p: ContinuousBernoulli, q: ContinuousBernoulli) -> Array:
    eta, to = p.logit(xp), q.logit(xp)
    middle = (eta + to) / 2
    return (log_sinhc_excess(middle, eta) + log_sinhc_excess(middle, to)) / 2


def bhattacharyya_half_normal(xp: Any, p: HalfNormal, q: HalfNormal) -> Array:
    return 0.5 * xp.log1p((p.scale - q.scale) ** 2 / (2 * p.scale * q.scale))


def bhattacharyya_rayleigh(xp: Any, p: Rayleigh, q: Rayleigh) -> Array:
    return xp.log1p((p.scale - q.scale) ** 2 / (2 * p.scale * q.scale))


def bhattacharyya_pareto(xp: Any, p: Pareto, q: Pareto) -> Array:
    start = xp.maximum(p.scale, q.scale)
    late = (p.shape * log_ratio(p.scale, start) + q.shape * log_ratio(q.scale, start)) / 2
    return late + ratio_of_means(xp, p.shape, q.shape)


def bhattacharyya_uniform(xp: Any, p: Uniform, q: Uniform) -> Array:
    low, high = xp.maximum(p.low, q.low), xp.minimum(p.high, q.high)
    apart = high <= low
    common = xp.where(apart, xp.ones_like(high), high - low)
    value = sum(xp.log1p(((of.high - high) + (low - of.low)) / common) for of in (p, q)) / 2
    return xp.where(apart, xp.full_like(value, math.inf), value)


def bhattacharyya_weibull(xp: Any, p: Weibull, q: Weibull) -> Array:
    return log_cosh(p.shape * log_ratio(q.scale, p.scale) / 2)  # X^shape is exponential


def bhattacharyya_von_mises(xp: Any, p: VonMises, q: VonMises) -> Array:
    half = (p.location - q.location) / 2
    return bhattacharyya_of_directions(0, p.concentration, q.concentration, xp.sin(half) ** 2, xp.cos(half) ** 2)


def bhattacharyya_of_directions(order: float, p: Array, q: Array, sine: Array, cosine: Array) -> Array:
    """As `kl_of_directions`, given the squares of sine and cosine of half the angle between the directions."""
    # Half the sum of both vectors is as long as their mean length less what is lost by the angle.
    middle = root(((p - q) / 2) ** 2 + p * q * cosine)
    lengths = (p + q) / 2 + middle
    lost = p * q * sine / (lengths + (lengths == 0))
    apart = (log_hyp0f1_excess(order, middle, p) + log_hyp0f1_excess(order, middle, q)) / 2
    return apart + lost * bessel_ratio(order, middle)


def squared_hellinger(xp: Any, p: Array, q: Array, apart: Array) -> Array:
    """The terms (sqrt p - sqrt q)^2 / 2 of numbers so far apart."""
    neither = (p == 0) & (q == 0)
    one = xp.ones_like(p + q)
    roots = xp.sqrt(xp.where(neither, one, p + 0 * q)) + xp.sqrt(xp.where(neither, one, q + 0 * p))
    return xp.where(neither, (p + q) / 2, (apart / roots) ** 2 / 2)


def bhattacharyya_of_probabilities(xp: Any, p: Array, q: Array) -> Array:
    """-log sum sqrt(p q) over the last axis, inf where no outcome is common to both."""
    common = (p > 0) & (q > 0)
    one = xp.ones_like(p + q)
    roots = xp.sqrt(xp.where(common, p + 0 * q, one)) * xp.sqrt(xp.where(common, q + 0 * p, one))
    overlap = xp.sum(xp.where(common, roots, 0 * one), axis=-1)
    return _from_overlap(xp, xp.sum(squared_hellinger(xp, p, q, p - q), axis=-1), overlap)


def _from_overlap(xp: Any, squared: Array, overlap: Array) -> Array:
    """-log(overlap) from the squared Hellinger distance 1 - overlap where that is small."""
    near = squared < 0.5
    small, large = xp.where(near, squared, 0 * squared), xp.where(near, xp.ones_like(overlap), overlap)
    return xp.where(near, -xp.log1p(-small), -xp.log(large))


def bhattacharyya_bernoulli(xp: Any, p: Any, q: Any) -> Array:
    a, b = p.probability, q.probability
    overlap = root(a * b) + root((1 - a) * (1 - b))
    return _from_overlap(xp, _squared_hellinger_bernoulli(xp, a, b), overlap)


def _squared_hellinger_bernoulli(xp: Any, p: Array, q: Array) -> Array:
    return squared_hellinger(xp, p, q, p - q) + squared_hellinger(xp, 1 - p, 1 - q, q - p)


def bhattacharyya_categorical(xp: Any, p: Categorical, q: Categorical) -> Array:
    return bhattacharyya_of_probabilities(xp, p.probabilities, q.probabilities)


def bhattacharyya_binomial(xp: Any, p: Binomial, q: Binomial) -> Array:
    return times(xp, p.n, bhattacharyya_bernoulli(xp, p, q))


def bhattacharyya_poisson(xp: Any, p: Poisson, q: Poisson) -> Array:
    return squared_hellinger(xp, p.rate, q.rate, p.rate - q.rate)


def bhattacharyya_geometric(xp: Any, p: Geometric, q: Geometric) -> Array:
    squared = _squared_hellinger_bernoulli(xp, p.probability, q.probability)
    return xp.log1p(squared / xp.sqrt(p.probability * q.probability))


def bhattacharyya_negative_binomial(xp: Any, p: NegativeBinomial, q: NegativeBinomial) -> Array:
    return p.n * bhattacharyya_geometric(xp, p, q)  # type: ignore[arg-type]


BHATTACHARYYA: dict[type[Family], Pair] = {
    Normal: Pair(bhattacharyya_normal),
    Laplace: Pair(bhattacharyya_laplace),
    Gumbel: Pair(bhattacharyya_gumbel, equal=("scale",)),
    Logistic: Pair(bhattacharyya_logistic, equal=("scale",)),
    Exponential: Pair(bhattacharyya_exponential),
    Gamma: Pair(bhattacharyya_gamma),
    InverseGaussian: Pair(bhattacharyya_inverse_gaussian),
    Beta: Pair(bhattacharyya_beta),
    Kumaraswamy: Pair(bhattacharyya_kumaraswamy, equal=("a",)),
    ContinuousBernoulli: Pair(bhattacharyya_continuous_bernoulli),
    HalfNormal: Pair(bhattacharyya_half_normal),
    Rayleigh: Pair(bhattacharyya_rayleigh),
    Pareto: Pair(bhattacharyya_pareto),
    Uniform: Pair(bhattacharyya_uniform),
    Weibull: Pair(bhattacharyya_weibull, equal=("shape",)),
    VonMises: Pair(bhattacharyya_von_mises),
    Bernoulli: Pair(bhattacharyya_bernoulli),
    Categorical: Pair(bhattacharyya_categorical),
    Binomial: Pair(bhattacharyya_binomial, equal=("n",)),
    Poisson: Pair(bhattacharyya_poisson),
    Geometric: Pair(bhattacharyya_geometric),
    NegativeBinomial: Pair(bhattacharyya_negative_binomial, equal=("n",)),
}


# 2-Wasserstein distance.


def wasserstein2_normal(xp: Any, p: Normal, q: Normal) -> Array:
    means, sds = p.mean - q.mean, p.sd - q.sd
    same = (means == 0) & (sds == 0)
    apart = xp.hypot(xp.where(same, xp.ones_like(means), means), sds)
    return xp.where(same, xp.zeros_like(apart), apart)


WASSERSTEIN2: dict[type[Family], Pair] = {Normal: Pair(wasserstein2_normal)}


def made(family: type[Family], *values: Array) -> Any:
    """A record of arrays that need no checking."""
    made = object.__new__(family)
    for name, value in zip(family.parameter_names(), values, strict=True):
        object.__setattr__(made, name, value)
    return made


# A change of variable that takes both distributions of a family to another family leaves divergences as they are.
SAME_UP_TO_A_CHANGE_OF_VARIABLE: dict[type[Family], Callable[[Any, Any], Family]] = {
    LogNormal: lambda xp, p: made(Normal, p.log_mean, p.log_sd),
    InverseGamma: lambda xp, p: made(Gamma, p.shape, p.scale),
    Weibull: lambda xp, p: made(Gumbel, -xp.log(p.scale), 1 / p.shape),
}
