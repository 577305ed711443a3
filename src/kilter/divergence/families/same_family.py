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

from kilter.divergence.families.bessel import bessel_ratio, log_hyp0f1
from kilter.divergence.families.special import exp_excess, gamma_excess, log_beta, log_excess, log_gamma, log_ratio
from kilter.divergence.families.univariate import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    ContinuousBernoulli,
    Exponential,
    Family,
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
    eta, to = p.logit(xp), q.logit(xp)
    return log_sinhc(to / 2) - log_sinhc(eta / 2) - (to - eta) * centred_mean(eta)


def centred_mean(eta: Array) -> Array:
    """E[x] - 1/2 of a continuous Bernoulli with logit eta: coth(eta / 2) / 2 - 1 / eta."""
    xp = array_namespace(eta)
    near = xp.abs(eta) < 0.5
    small = xp.where(near, eta, xp.zeros_like(eta))
    square = small * small
    series = small * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160))))
    far = xp.where(near, xp.ones_like(eta), eta)
    return xp.where(near, series, 0.5 / xp.tanh(far / 2) - 1 / far)


def kl_von_mises(xp: Any, p: VonMises, q: VonMises) -> Array:
    ratio = bessel_ratio(0, p.concentration)
    turn = 2 * xp.sin((p.location - q.location) / 2) ** 2
    step = q.concentration - p.concentration
    normaliser = log_hyp0f1(0, q.concentration) - log_hyp0f1(0, p.concentration) - step * ratio
    return normaliser + q.concentration * ratio * turn


def kl_of_probabilities(xp: Any, p: Array, q: Array) -> Array:
    """The terms p log(p / q) - p + q, none of them negative; inf where p > 0 = q, q where p is 0."""
    nothing = p == 0
    least = xp.where(nothing, xp.ones_like(p), p)
    return xp.where(nothing, q + 0 * p, p * log_excess(least, q))


def kl_bernoulli(xp: Any, p: Any, q: Any) -> Array:
    success = kl_of_probabilities(xp, p.probability, q.probability)
    return success + kl_of_probabilities(xp, 1 - p.probability, 1 - q.probability)


def kl_categorical(xp: Any, p: Categorical, q: Categorical) -> Array:
    return xp.sum(kl_of_probabilities(xp, p.probabilities, q.probabilities), axis=-1)


def kl_binomial(xp: Any, p: Binomial, q: Binomial) -> Array:
    return p.n * kl_bernoulli(xp, p, q)


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
    a, b, d = 0.5 / p.scale, 0.5 / q.scale, xp.abs(p.location - q.location)
    less, more = xp.where(a < b, a + 0 * b, b + 0 * a), xp.where(a < b, b + 0 * a, a + 0 * b)
    w = (more - less) * d
    safe = xp.where(w == 0, xp.ones_like(w), w)
    between = d * xp.where(w == 0, xp.ones_like(w), -xp.expm1(-safe) / safe)
    outside = (1 + xp.exp(-w)) / (less + more)
    return less * d - xp.log(xp.sqrt(a * b) * (outside + between))


def bhattacharyya_exponential(xp: Any, p: Exponential, q: Exponential) -> Array:
    return 0.5 * xp.log1p((p.rate - q.rate) ** 2 / (4 * p.rate * q.rate))


def bhattacharyya_gamma(xp: Any, p: Gamma, q: Gamma) -> Array:
    shape, rate = (p.shape + q.shape) / 2, (p.rate + q.rate) / 2
    shapes = (gamma_excess(shape, p.shape) + gamma_excess(shape, q.shape)) / 2
    return shapes - (p.shape * log_ratio(rate, p.rate) + q.shape * log_ratio(rate, q.rate)) / 2


def bhattacharyya_beta(xp: Any, p: Beta, q: Beta) -> Array:
    return (log_beta(p.a, p.b) + log_beta(q.a, q.b)) / 2 - log_beta((p.a + q.a) / 2, (p.b + q.b) / 2)


def bhattacharyya_half_normal(xp: Any, p: HalfNormal, q: HalfNormal) -> Array:
    return 0.5 * xp.log1p((p.scale - q.scale) ** 2 / (2 * p.scale * q.scale))


def bhattacharyya_rayleigh(xp: Any, p: Rayleigh, q: Rayleigh) -> Array:
    return xp.log1p((p.scale - q.scale) ** 2 / (2 * p.scale * q.scale))


def bhattacharyya_pareto(xp: Any, p: Pareto, q: Pareto) -> Array:
    shape, start = (p.shape + q.shape) / 2, xp.maximum(p.scale, q.scale)
    late = (p.shape * xp.log(start / p.scale) + q.shape * xp.log(start / q.scale)) / 2
    return late + 0.5 * xp.log(shape**2 / (p.shape * q.shape))


def bhattacharyya_uniform(xp: Any, p: Uniform, q: Uniform) -> Array:
    common = xp.minimum(p.high, q.high) - xp.maximum(p.low, q.low)
    apart = common <= 0
    value = 0.5 * xp.log((p.high - p.low) * (q.high - q.low)) - xp.log(xp.where(apart, xp.ones_like(common), common))
    return xp.where(apart, xp.full_like(value, math.inf), value)


def bhattacharyya_weibull(xp: Any, p: Weibull, q: Weibull) -> Array:
    ratio = p.shape * xp.log(p.scale / q.scale)  # X^shape is exponential
    return xp.log(xp.cosh(ratio / 2))


def bhattacharyya_von_mises(xp: Any, p: VonMises, q: VonMises) -> Array:
    between = ((p.concentration - q.concentration) / 2) ** 2
    turn = xp.cos((p.location - q.location) / 2) ** 2
    middle = xp.sqrt(between + p.concentration * q.concentration * turn)
    return (log_hyp0f1(0, p.concentration) + log_hyp0f1(0, q.concentration)) / 2 - log_hyp0f1(0, middle)


def _squared_hellinger(xp: Any, p: Array, q: Array) -> Array:
    """The terms (sqrt p - sqrt q)^2 / 2."""
    return (xp.sqrt(p) - xp.sqrt(q)) ** 2 / 2


def bhattacharyya_bernoulli(xp: Any, p: Any, q: Any) -> Array:
    success = _squared_hellinger(xp, p.probability, q.probability)
    return -xp.log1p(-success - _squared_hellinger(xp, 1 - p.probability, 1 - q.probability))


def bhattacharyya_categorical(xp: Any, p: Categorical, q: Categorical) -> Array:
    return -xp.log1p(-xp.sum(_squared_hellinger(xp, p.probabilities, q.probabilities), axis=-1))


def bhattacharyya_binomial(xp: Any, p: Binomial, q: Binomial) -> Array:
    return p.n * bhattacharyya_bernoulli(xp, p, q)


def bhattacharyya_poisson(xp: Any, p: Poisson, q: Poisson) -> Array:
    return _squared_hellinger(xp, p.rate, q.rate)


def bhattacharyya_geometric(xp: Any, p: Geometric, q: Geometric) -> Array:
    both_fail = xp.sqrt((1 - p.probability) * (1 - q.probability))
    return xp.log1p(-both_fail) - 0.5 * xp.log(p.probability * q.probability)


def bhattacharyya_negative_binomial(xp: Any, p: NegativeBinomial, q: NegativeBinomial) -> Array:
    both_fail = xp.sqrt((1 - p.probability) * (1 - q.probability))
    return p.n * (xp.log1p(-both_fail) - 0.5 * xp.log(p.probability * q.probability))


BHATTACHARYYA: dict[type[Family], Pair] = {
    Normal: Pair(bhattacharyya_normal),
    Laplace: Pair(bhattacharyya_laplace),
    Exponential: Pair(bhattacharyya_exponential),
    Gamma: Pair(bhattacharyya_gamma),
    Beta: Pair(bhattacharyya_beta),
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
    return xp.hypot(p.mean - q.mean, p.sd - q.sd)


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
