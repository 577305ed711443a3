"""What closed forms between different families are made of: entropies, and expectations of terms of log-densities.

-log q(x) of most families is linear in a few functions of x: x, log x, |x - m|, x^k, exp(t x). `CROSS_ENTROPIES` says
which expectations under p the cross-entropy H(p, q) takes, and how; `EXPECTATIONS` says which of them are known in
closed form for p. Every pair that fits has a closed form. Where an integral diverges, the expectation is inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kilter.divergence.families.bessel import bessel_ratio, log_hyp0f1
from kilter.divergence.families.family import Family
from kilter.divergence.families.same_family import centred_mean, centred_variance, made
from kilter.divergence.families.special import (
    EULER,
    LOG_2PI,
    digamma,
    erf,
    exp1_scaled,
    gamma_entropy,
    gamma_excess,
    log_beta,
    log_excess,
    log_gamma,
    log_less_digamma,
    log_ratio,
    log_rising,
    second_difference,
    stirling_remainder,
    trigamma,
    xlogy,
)
from kilter.divergence.families.univariate import (
    Bernoulli,
    Beta,
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
    Normal,
    Pareto,
    Rayleigh,
    StudentT,
    Uniform,
    VonMises,
    Weibull,
    log_sinhc,
)

Array = Any
INF = math.inf

# Entropies, in nats.


def _entropy_student(xp: Any, p: StudentT) -> Array:
    rise = xp.log1p(1 / p.df) + log_less_digamma(p.df / 2) - log_less_digamma((p.df + 1) / 2)
    return (p.df + 1) / 2 * rise + 0.5 * xp.log(p.df) + log_beta(p.df / 2, 0.5 + 0 * p.df) + xp.log(p.scale)


def _entropy_gamma(xp: Any, p: Gamma) -> Array:
    return gamma_entropy(p.shape, 1) - xp.log(p.rate)


def _entropy_inverse_gamma(xp: Any, p: InverseGamma) -> Array:
    return gamma_entropy(p.shape, -1) + xp.log(p.scale) - 2 * xp.log(p.shape)


def _entropy_weibull(xp: Any, p: Weibull) -> Array:
    return EULER * (1 - 1 / p.shape) + xp.log(p.scale / p.shape) + 1


def _entropy_inverse_gaussian(xp: Any, p: InverseGaussian) -> Array:
    return 0.5 * (LOG_2PI - xp.log(p.shape) + 1) + 1.5 * _mean_log_inverse_gaussian(xp, p)


def _entropy_beta(xp: Any, p: Beta) -> Array:
    total = p.a + p.b
    return gamma_entropy(p.a, 1) + gamma_entropy(p.b, 1) - gamma_entropy(total, 2) - xp.log(total)


def _entropy_kumaraswamy(xp: Any, p: Kumaraswamy) -> Array:
    return (1 - 1 / p.b) + (1 - 1 / p.a) * (digamma(p.b + 1) + EULER) - xp.log(p.a * p.b)


def _entropy_continuous_bernoulli(xp: Any, p: ContinuousBernoulli) -> Array:
    eta = p.logit(xp)
    return log_sinhc(eta / 2) - eta * centred_mean(eta)


def _entropy_von_mises(xp: Any, p: VonMises) -> Array:
    return LOG_2PI + log_hyp0f1(0, p.concentration) - p.concentration * bessel_ratio(0, p.concentration)


def _entropy_bernoulli(xp: Any, p: Bernoulli) -> Array:
    return -xlogy(p.probability, p.probability) - xlogy(1 - p.probability, 1 - p.probability)


def _entropy_geometric(xp: Any, p: Geometric) -> Array:
    return _entropy_bernoulli(xp, p) / p.probability  # type: ignore[arg-type]


ENTROPIES: dict[type[Family], Callable[[Any, Any], Array]] = {
    Normal: lambda xp, p: xp.log(p.sd) + 0.5 * (LOG_2PI + 1) + 0 * p.mean,
    Laplace: lambda xp, p: xp.log(2 * p.scale) + 1 + 0 * p.location,
    Gumbel: lambda xp, p: xp.log(p.scale) + 1 + EULER + 0 * p.location,
    Logistic: lambda xp, p: xp.log(p.scale) + 2 + 0 * p.location,
    Cauchy: lambda xp, p: xp.log(4 * math.pi * p.scale) + 0 * p.location,
    StudentT: _entropy_student,
    Exponential: lambda xp, p: 1 - xp.log(p.rate),
    Gamma: _entropy_gamma,
    InverseGamma: _entropy_inverse_gamma,
    LogNormal: lambda xp, p: p.log_mean + xp.log(p.log_sd) + 0.5 * (LOG_2PI + 1),
    Weibull: _entropy_weibull,
    HalfNormal: lambda xp, p: 0.5 * math.log(math.pi / 2) + xp.log(p.scale) + 0.5,
    HalfCauchy: lambda xp, p: xp.log(2 * math.pi * p.scale),
    InverseGaussian: _entropy_inverse_gaussian,
    Pareto: lambda xp, p: xp.log(p.scale / p.shape) + 1 + 1 / p.shape,
    Uniform: lambda xp, p: xp.log(p.high - p.low),
    Beta: _entropy_beta,
    Kumaraswamy: _entropy_kumaraswamy,
    ContinuousBernoulli: _entropy_continuous_bernoulli,
    VonMises: _entropy_von_mises,
    Bernoulli: _entropy_bernoulli,
    Categorical: lambda xp, p: -xp.sum(xlogy(p.probabilities, p.probabilities), axis=-1),
    Geometric: _entropy_geometric,
}  # fmt: skip

# Expectations. `mean` of a heavy tail is its centre: wherever it is used with such a tail, another term is inf.


def _finite(xp: Any, exists: Array, value: Array) -> Array:
    """The value where the integral converges, else inf."""
    return xp.where(exists, value, xp.full_like(value, INF))


def _log_power_gamma(xp: Any, p: Gamma, s: Array, unit: Array) -> Array:
    exists = p.shape + s > 0
    safe = xp.where(exists, p.shape + s, xp.ones_like(p.shape + s))
    return _finite(xp, exists, log_rising(p.shape, safe - p.shape) + s * log_ratio(p.rate * unit, p.shape))


def _log_power_inverse_gamma(xp: Any, p: InverseGamma, s: Array, unit: Array) -> Array:
    return _log_power_gamma(xp, made(Gamma, p.shape, p.scale), -s, 1 / unit)


def _variance_inverse_gamma(xp: Any, p: InverseGamma) -> Array:
    exists = p.shape > 2
    a = xp.where(exists, p.shape, 3 * xp.ones_like(p.shape))
    return _finite(xp, exists, p.scale**2 / ((a - 1) ** 2 * (a - 2)))


def _mean_inverse_gamma(xp: Any, p: InverseGamma) -> Array:
    exists = p.shape > 1
    return _finite(xp, exists, p.scale / (xp.where(exists, p.shape, 2 * xp.ones_like(p.shape)) - 1))


def _log_power_weibull(xp: Any, p: Weibull, s: Array, unit: Array) -> Array:
    exists = p.shape + s > 0
    safe = xp.where(exists, 1 + s / p.shape, xp.ones_like(p.shape + s))
    return _finite(xp, exists, s * log_ratio(unit, p.scale) + log_gamma(safe))


def _mean_weibull(xp: Any, p: Weibull) -> Array:
    return p.scale * xp.exp(log_gamma(1 + 1 / p.shape))


def _variance_weibull(xp: Any, p: Weibull) -> Array:
    mean, step = _mean_weibull(xp, p), 1 / p.shape
    return mean**2 * xp.expm1(second_difference(xp.ones_like(step), step))


def _log_power_half_normal(xp: Any, p: HalfNormal, s: Array, unit: Array) -> Array:
    exists = s > -1 + 0 * p.scale
    safe = xp.where(exists, (s + 1) / 2 + 0 * p.scale, xp.ones_like(s + p.scale))
    ratio = log_ratio(unit, math.sqrt(2) * p.scale)
    return _finite(xp, exists, s * ratio + log_gamma(safe) - 0.5 * math.log(math.pi))


def _log_power_beta(xp: Any, p: Beta, s: Array, unit: Array) -> Array:
    exists = p.a + s > 0
    safe = xp.where(exists, p.a + s, xp.ones_like(p.a + s))
    rise = log_rising(p.a, safe - p.a) - log_rising(p.a + p.b, safe - p.a)
    return _finite(xp, exists, rise + s * log_ratio((p.a + p.b) * unit, p.a))


def _log_power_kumaraswamy(xp: Any, p: Kumaraswamy, s: Array, unit: Array) -> Array:
    exists = p.a + s > 0
    safe = xp.where(exists, 1 + s / p.a, xp.ones_like(p.a + s))
    return _finite(xp, exists, xp.log(p.b) + log_beta(safe, p.b) - s * xp.log(unit))


def _mean_kumaraswamy(xp: Any, p: Kumaraswamy) -> Array:
    return p.b * xp.exp(log_beta(1 + 1 / p.a, p.b))


def _variance_kumaraswamy(xp: Any, p: Kumaraswamy) -> Array:
    step = 1 / p.a
    return _mean_kumaraswamy(xp, p) ** 2 * xp.expm1(
        second_difference(xp.ones_like(p.b), step) - second_difference(p.b + 1, step)
    )


def _log_power_pareto(xp: Any, p: Pareto, s: Array, unit: Array) -> Array:
    exists = p.shape > s
    tail = xp.where(exists, 1 - s / p.shape, xp.ones_like(p.shape - s))
    return _finite(xp, exists, s * log_ratio(unit, p.scale) - xp.log(tail))


def _mean_pareto(xp: Any, p: Pareto) -> Array:
    exists = p.shape > 1
    a = xp.where(exists, p.shape, 2 * xp.ones_like(p.shape))
    return _finite(xp, exists, a * p.scale / (a - 1))


def _variance_pareto(xp: Any, p: Pareto) -> Array:
    exists = p.shape > 2
    a = xp.where(exists, p.shape, 3 * xp.ones_like(p.shape))
    return _finite(xp, exists, p.scale**2 * a / ((a - 1) ** 2 * (a - 2)))


def _log_power_uniform(xp: Any, p: Uniform, s: Array, unit: Array) -> Array:
    # The integral of x^s is that of exp((s + 1) y) over y = log x, in which s = -1 is no exception.
    low, high = p.low / unit, p.high / unit
    up, start = s + 1 + 0 * low, xp.where(low > 0, low, xp.ones_like(low))
    width = log_ratio(start, xp.where(low > 0, high, 2 * start))
    from_low = up * (xp.log(start) + width / 2) + log_sinhc(up * width / 2) + xp.log(width / (high - low))
    from_zero = s * xp.log(high) - xp.log(xp.where(up > 0, up, xp.ones_like(up)))
    return _finite(xp, (low > 0) | (up > 0), xp.where(low > 0, from_low, from_zero))


def _mean_log_uniform(xp: Any, p: Uniform) -> Array:
    return xp.log((p.low + p.high) / 2) - _log_gap_uniform(xp, p)


def _mean_log1m_uniform(xp: Any, p: Uniform) -> Array:
    return _mean_log_uniform(xp, made(Uniform, 1 - p.high, 1 - p.low))


def _log_gap_uniform(xp: Any, p: Uniform) -> Array:
    # Of half the width by the centre w it is the sum of w^2k / (2k (2k + 1)), about w^2 / 6.
    w = (p.high - p.low) / (p.high + p.low)
    near = w < 0.2
    square, series = xp.where(near, w, xp.zeros_like(w)) ** 2, xp.zeros_like(w)
    for k in range(12, 0, -1):
        series = (series + 1 / (2 * k * (2 * k + 1))) * square
    far = xp.where(near, xp.ones_like(w), w)
    return xp.where(near, series, 1 - (xlogy(1 + far, 1 + far) - xlogy(1 - far, 1 - far)) / (2 * far))


def _inverse_excess_uniform(xp: Any, p: Uniform) -> Array:
    # E[1/x] is artanh(w) / w by the centre: the sum of w^2k / (2k + 1), without its first term.
    w = (p.high - p.low) / (p.high + p.low)
    near = w < 0.2
    square, series = xp.where(near, w, xp.zeros_like(w)) ** 2, xp.zeros_like(w)
    for k in range(12, 0, -1):
        series = (series + 1 / (2 * k + 1)) * square
    far = xp.where(near, 0.5 * xp.ones_like(w), w)
    return xp.where(near, series, xp.atanh(far) / far - 1) * 2 / (p.low + p.high)


def _inverse_log_gap_uniform(xp: Any, p: Uniform) -> Array:
    return xp.log1p((p.low + p.high) / 2 * _inverse_excess_uniform(xp, p)) - _log_gap_uniform(xp, p)


def _log_gap_inverse(xp: Any, shape: Array) -> Array:
    """log E[1/x] + E[log x] of a gamma distribution, and log E[x] - E[log x] of an inverse gamma one."""
    exists = shape > 1
    a = xp.where(exists, shape - 1, xp.ones_like(shape))
    return _finite(xp, exists, 1 / a - log_less_digamma(a))


def _log_gap_pareto(xp: Any, p: Pareto) -> Array:
    exists = p.shape > 1
    a = xp.where(exists, p.shape, 2 * xp.ones_like(p.shape))
    return _finite(xp, exists, log_excess(a, a - 1))


def _inverse_excess_gamma(xp: Any, p: Gamma) -> Array:
    exists = p.shape > 1
    a = xp.where(exists, p.shape, 2 * xp.ones_like(p.shape))
    return _finite(xp, exists, p.rate / (a * (a - 1)))


def _mean_log_inverse_gaussian(xp: Any, p: InverseGaussian) -> Array:
    return xp.log(p.mean) - _log_gap_inverse_gaussian(xp, p)


def _log_gap_inverse_gaussian(xp: Any, p: InverseGaussian) -> Array:
    return exp1_scaled(2 * p.shape / p.mean)


def _absolute_normal(xp: Any, p: Normal, m: Array) -> Array:
    away = (p.mean - m) / p.sd
    return p.sd * (math.sqrt(2 / math.pi) * xp.exp(-away * away / 2) + away * erf(away / math.sqrt(2)))


def _absolute_laplace(xp: Any, p: Laplace, m: Array) -> Array:
    away = xp.abs(p.location - m)
    return away + p.scale * xp.exp(-away / p.scale)


def _absolute_gumbel(xp: Any, p: Gumbel, m: Array) -> Array:
    # 2 E[max(m - X, 0)] is 2 scale E1(exp(log_z)), by parts; E1(z) is -log z - Euler's constant + z for a tiny z.
    log_z = (p.location - m) / p.scale
    far, gone = log_z < -25, log_z > 6
    z = xp.exp(xp.where(far | gone, xp.zeros_like(log_z), log_z))
    below = xp.where(far, -EULER - log_z, xp.where(gone, xp.zeros_like(z), xp.exp(-z) * exp1_scaled(z)))
    return p.scale * (log_z + EULER + 2 * below)


def _absolute_logistic(xp: Any, p: Logistic, m: Array) -> Array:
    away = xp.abs(p.location - m)
    return away + 2 * p.scale * xp.log1p(xp.exp(-away / p.scale))


def _absolute_exponential(xp: Any, p: Exponential, m: Array) -> Array:
    above = xp.where(m > 0, m, xp.zeros_like(m))
    return 1 / p.rate - m + 2 * (above + xp.expm1(-p.rate * above) / p.rate)


def _absolute_half_normal(xp: Any, p: HalfNormal, m: Array) -> Array:
    above = xp.where(m > 0, m, xp.zeros_like(m)) + 0 * p.scale
    mean, z = math.sqrt(2 / math.pi) * p.scale, above / (math.sqrt(2) * p.scale)
    return mean - m + 2 * (above * erf(z) + mean * xp.expm1(-z * z))


def _absolute_uniform(xp: Any, p: Uniform, m: Array) -> Array:
    return ((p.high - m) * xp.abs(p.high - m) + (m - p.low) * xp.abs(m - p.low)) / (2 * (p.high - p.low))


def _absolute_log_normal(xp: Any, p: LogNormal, m: Array) -> Array:
    mean, above = _mean_log_normal(xp, p), m > 0
    z = (xp.log(xp.where(above, m, xp.ones_like(m))) - p.log_mean) / p.log_sd
    value = m * erf(z / math.sqrt(2)) - mean * erf((z - p.log_sd) / math.sqrt(2))
    return xp.where(above, value, mean - m)


def _absolute_pareto(xp: Any, p: Pareto, m: Array) -> Array:
    exists = p.shape > 1
    a = xp.where(exists, p.shape, 2 * xp.ones_like(p.shape))
    mean = a * p.scale / (a - 1)
    above = xp.where(m > p.scale, m + 0 * p.scale, p.scale + 0 * m)
    below = (above - p.scale) + p.scale * xp.expm1((a - 1) * xp.log(p.scale / above)) / (a - 1)
    return _finite(xp, exists, mean - m + 2 * below)


def _mean_log_normal(xp: Any, p: LogNormal) -> Array:
    return xp.exp(p.log_mean + p.log_sd**2 / 2)


def _log_mgf_gamma(xp: Any, p: Gamma, t: Array, m: Array) -> Array:
    exists = t < p.rate
    part = xp.where(exists, t / p.rate, xp.zeros_like(t / p.rate))
    return _finite(xp, exists, -p.shape * xp.log1p(-part) - m * t)


def _log_mgf_laplace(xp: Any, p: Laplace, t: Array, m: Array) -> Array:
    square = (p.scale * t) ** 2
    exists = square < 1
    return _finite(xp, exists, (p.location - m) * t - xp.log1p(-xp.where(exists, square, xp.zeros_like(square))))


def _log_mgf_gumbel(xp: Any, p: Gumbel, t: Array, m: Array) -> Array:
    exists = p.scale * t < 1
    return _finite(xp, exists, (p.location - m) * t + log_gamma(1 - xp.where(exists, p.scale * t, 0 * p.scale * t)))


def _log_mgf_logistic(xp: Any, p: Logistic, t: Array, m: Array) -> Array:
    exists = xp.abs(p.scale * t) < 1
    w = xp.where(exists, p.scale * t, 0 * p.scale * t)
    return _finite(xp, exists, (p.location - m) * t + log_gamma(1 - w) + log_gamma(1 + w))


def _log_mgf_inverse_gaussian(xp: Any, p: InverseGaussian, t: Array, m: Array) -> Array:
    # With r = sqrt(1 - 2 mean^2 t / shape) it is shape / mean (1 - r) = 2 mean t / (1 + r), less m t.
    inside = 1 - 2 * p.mean**2 * t / p.shape
    exists = inside >= 0
    root = xp.sqrt(xp.where(exists, inside, xp.ones_like(inside)))
    return _finite(xp, exists, (2 * p.mean / (1 + root) - m) * t)


def _log_mgf_uniform(xp: Any, p: Uniform, t: Array, m: Array) -> Array:
    return t * ((p.low - m) / 2 + (p.high - m) / 2) + log_sinhc(t * (p.high - p.low) / 2)


def _log_mgf_continuous_bernoulli(xp: Any, p: ContinuousBernoulli, t: Array, m: Array) -> Array:
    eta = p.logit(xp)
    return t * (0.5 - m) + log_sinhc((eta + t) / 2) - log_sinhc(eta / 2)


def _variance_student(xp: Any, p: StudentT) -> Array:
    exists = p.df > 2
    return _finite(xp, exists, p.scale**2 * p.df / (xp.where(exists, p.df, 3 * xp.ones_like(p.df)) - 2))


def _always(value: float) -> Callable[..., Array]:
    def constant(xp: Any, p: Any, *at: Array) -> Array:
        shape = p.parameters()[0] + sum(0 * x for x in at)
        return xp.full_like(shape, value)

    return constant


# Of each family, the expectations E[x], Var[x], E[log x], Var[log x], E[log(1 - x)] and E|x - m|; as logarithms, for
# they overflow easily, E[(x / unit)^s] and E[exp(t (x - m))]; and by how much Jensen's inequalities fall short of
# equality, where that would be lost by subtraction: log E[x] - E[log x], E[1/x] - 1/E[x] and log E[1/x] + E[log x].
EXPECTATIONS: dict[type[Family], dict[str, Callable[..., Array]]] = {
    Normal: {
        "mean": lambda xp, p: p.mean,
        "variance": lambda xp, p: p.sd**2,
        "absolute": _absolute_normal,
        "log_mgf": lambda xp, p, t, m: (p.mean - m) * t + (p.sd * t) ** 2 / 2,
    },
    Laplace: {
        "mean": lambda xp, p: p.location,
        "variance": lambda xp, p: 2 * p.scale**2,
        "absolute": _absolute_laplace,
        "log_mgf": _log_mgf_laplace,
    },
    Gumbel: {
        "mean": lambda xp, p: p.location + EULER * p.scale,
        "variance": lambda xp, p: (math.pi * p.scale) ** 2 / 6,
        "absolute": _absolute_gumbel,
        "log_mgf": _log_mgf_gumbel,
    },
    Logistic: {
        "mean": lambda xp, p: p.location,
        "variance": lambda xp, p: (math.pi * p.scale) ** 2 / 3,
        "absolute": _absolute_logistic,
        "log_mgf": _log_mgf_logistic,
    },
    Cauchy: {
        "mean": lambda xp, p: p.location,
        "variance": _always(INF),
        "absolute": _always(INF),
        "log_mgf": _always(INF),
    },
    StudentT: {
        "mean": lambda xp, p: p.location,
        "variance": _variance_student,
        "log_mgf": _always(INF),
    },
    Exponential: {
        "absolute": _absolute_exponential,
    },
    Gamma: {
        "mean": lambda xp, p: p.shape / p.rate,
        "variance": lambda xp, p: p.shape / p.rate**2,
        "mean_log": lambda xp, p: digamma(p.shape) - xp.log(p.rate),
        "variance_log": lambda xp, p: trigamma(p.shape),
        "log_gap": lambda xp, p: log_less_digamma(p.shape),
        "inverse_excess": _inverse_excess_gamma,
        "inverse_log_gap": lambda xp, p: _log_gap_inverse(xp, p.shape),
        "log_power": _log_power_gamma,
        "log_mgf": _log_mgf_gamma,
    },
    InverseGamma: {
        "mean": _mean_inverse_gamma,
        "variance": _variance_inverse_gamma,
        "mean_log": lambda xp, p: xp.log(p.scale) - digamma(p.shape),
        "variance_log": lambda xp, p: trigamma(p.shape),
        "log_gap": lambda xp, p: _log_gap_inverse(xp, p.shape),
        "inverse_excess": lambda xp, p: 1 / p.scale,
        "inverse_log_gap": lambda xp, p: log_less_digamma(p.shape),
        "log_power": _log_power_inverse_gamma,
    },
    LogNormal: {
        "mean": _mean_log_normal,
        "variance": lambda xp, p: xp.expm1(p.log_sd**2) * xp.exp(2 * p.log_mean + p.log_sd**2),
        "mean_log": lambda xp, p: p.log_mean,
        "variance_log": lambda xp, p: p.log_sd**2,
        "log_gap": lambda xp, p: p.log_sd**2 / 2,
        "inverse_excess": lambda xp, p: 2 * xp.exp(-p.log_mean) * xp.sinh(p.log_sd**2 / 2),
        "inverse_log_gap": lambda xp, p: p.log_sd**2 / 2,
        "log_power": lambda xp, p, s, unit: s * (p.log_mean - xp.log(unit)) + (s * p.log_sd) ** 2 / 2,
        "absolute": _absolute_log_normal,
    },
    Weibull: {
        "mean": _mean_weibull,
        "variance": _variance_weibull,
        "mean_log": lambda xp, p: xp.log(p.scale) - EULER / p.shape,
        "variance_log": lambda xp, p: (math.pi / p.shape) ** 2 / 6,
        "log_gap": lambda xp, p: gamma_excess(xp.ones_like(p.shape), 1 + 1 / p.shape),
        "log_power": _log_power_weibull,
    },
    HalfNormal: {
        "mean": lambda xp, p: math.sqrt(2 / math.pi) * p.scale,
        "variance": lambda xp, p: (1 - 2 / math.pi) * p.scale**2,
        "mean_log": lambda xp, p: xp.log(p.scale) - (EULER + math.log(2)) / 2,
        "variance_log": lambda xp, p: xp.full_like(p.scale, math.pi**2 / 8),
        "log_power": _log_power_half_normal,
        "absolute": _absolute_half_normal,
    },
    HalfCauchy: {
        "mean": _always(INF),
        "variance": _always(INF),
        "mean_log": lambda xp, p: xp.log(p.scale),
        "variance_log": lambda xp, p: xp.full_like(p.scale, math.pi**2 / 4),
        "absolute": _always(INF),
    },
    InverseGaussian: {
        "mean": lambda xp, p: p.mean,
        "variance": lambda xp, p: p.mean**3 / p.shape,
        "mean_log": _mean_log_inverse_gaussian,
        "log_gap": _log_gap_inverse_gaussian,
        "inverse": lambda xp, p: 1 / p.mean + 1 / p.shape,
        "inverse_excess": lambda xp, p: 1 / p.shape,
        "log_mgf": _log_mgf_inverse_gaussian,
    },
    Pareto: {
        "mean": _mean_pareto,
        "variance": _variance_pareto,
        "mean_log": lambda xp, p: xp.log(p.scale) + 1 / p.shape,
        "variance_log": lambda xp, p: 1 / p.shape**2,
        "log_gap": _log_gap_pareto,
        "log_power": _log_power_pareto,
        "absolute": _absolute_pareto,
    },
    Uniform: {
        "mean": lambda xp, p: (p.low + p.high) / 2,
        "variance": lambda xp, p: (p.high - p.low) ** 2 / 12,
        "mean_log": _mean_log_uniform,
        "mean_log1m": _mean_log1m_uniform,
        "log_gap": _log_gap_uniform,
        "inverse": lambda xp, p: 2 / (p.low + p.high) + _inverse_excess_uniform(xp, p),
        "inverse_excess": _inverse_excess_uniform,
        "inverse_log_gap": _inverse_log_gap_uniform,
        "log_power": _log_power_uniform,
        "absolute": _absolute_uniform,
        "log_mgf": _log_mgf_uniform,
    },
    Beta: {
        "mean": lambda xp, p: p.a / (p.a + p.b),
        "variance": lambda xp, p: p.a * p.b / ((p.a + p.b) ** 2 * (p.a + p.b + 1)),
        "mean_log": lambda xp, p: xp.log(p.a / (p.a + p.b)) - log_less_digamma(p.a) + log_less_digamma(p.a + p.b),
        "variance_log": lambda xp, p: trigamma(p.a) - trigamma(p.a + p.b),
        "mean_log1m": lambda xp, p: xp.log(p.b / (p.a + p.b)) - log_less_digamma(p.b) + log_less_digamma(p.a + p.b),
        "log_gap": lambda xp, p: log_less_digamma(p.a) - log_less_digamma(p.a + p.b),
        "log_power": _log_power_beta,
    },
    Kumaraswamy: {
        "mean": _mean_kumaraswamy,
        "variance": _variance_kumaraswamy,
        "mean_log": lambda xp, p: -(digamma(p.b + 1) + EULER) / p.a,
        "log_gap": lambda xp, p: (
            gamma_excess(xp.ones_like(p.b), 1 + 1 / p.a) - gamma_excess(p.b + 1, p.b + 1 + 1 / p.a)
        ),
        "log_power": _log_power_kumaraswamy,
    },
    ContinuousBernoulli: {
        "mean": lambda xp, p: centred_mean(p.logit(xp)) + 0.5,
        "variance": lambda xp, p: centred_variance(p.logit(xp)),
        "log_mgf": _log_mgf_continuous_bernoulli,
    },
    Bernoulli: {"mean": lambda xp, p: p.probability},
    Geometric: {"mean": lambda xp, p: (1 - p.probability) / p.probability},
}


# Cross-entropies H(p, q) = -E_p[log q], given the expectations under p.


class CrossEntropy(NamedTuple):
    """The expectations that it takes, and the formula: of the array library, the expectations by name, and q."""

    takes: tuple[str, ...]
    formula: Callable[[Any, Any, Any], Array]


def _to_half_normal(xp: Any, e: Any, q: HalfNormal) -> Array:
    square = (e.variance() + e.mean() ** 2) / q.scale**2
    return 0.5 * (math.log(math.pi / 2) + square) + xp.log(q.scale)


def _to_log_normal(xp: Any, e: Any, q: LogNormal) -> Array:
    square = (e.variance_log() + (e.mean_log() - q.log_mean) ** 2) / q.log_sd**2
    return 0.5 * (LOG_2PI + square) + xp.log(q.log_sd) + e.mean_log()


def _to_normal(xp: Any, e: Any, q: Normal) -> Array:
    return 0.5 * (LOG_2PI + (e.variance() + (e.mean() - q.mean) ** 2) / q.sd**2) + xp.log(q.sd)


def _to_gumbel(xp: Any, e: Any, q: Gumbel) -> Array:
    tail = xp.exp(e.log_mgf(-1 / q.scale, q.location))
    return (e.mean() - q.location) / q.scale + tail + xp.log(q.scale)


def _to_gamma(xp: Any, e: Any, q: Gamma) -> Array:
    # By Stirling's formula for Gamma(shape), so that no shape log shape is left.
    about = q.shape * (log_excess(q.shape / q.rate, e.mean()) + e.log_gap())
    return about + e.mean_log() + 0.5 * (LOG_2PI - xp.log(q.shape)) + stirling_remainder(q.shape)


def _to_inverse_gamma(xp: Any, e: Any, q: InverseGamma) -> Array:
    about = q.shape * (log_excess(q.shape / q.scale, e.inverse()) + e.inverse_log_gap())
    return about + e.mean_log() + 0.5 * (LOG_2PI - xp.log(q.shape)) + stirling_remainder(q.shape)


def _to_inverse_gaussian(xp: Any, e: Any, q: InverseGaussian) -> Array:
    mean = e.mean()
    away = _finite(xp, mean < INF, ((mean - q.mean) / q.mean) ** 2 / mean) + e.inverse_excess()
    return q.shape / 2 * away + 1.5 * e.mean_log() - 0.5 * (xp.log(q.shape) - LOG_2PI)


def _to_weibull(xp: Any, e: Any, q: Weibull) -> Array:
    tail = xp.exp(e.log_power(q.shape, q.scale))
    return tail - (q.shape - 1) * (e.mean_log() - xp.log(q.scale)) - xp.log(q.shape / q.scale)


def _to_rayleigh(xp: Any, e: Any, q: Rayleigh) -> Array:
    return 2 * xp.log(q.scale) - e.mean_log() + (e.variance() + e.mean() ** 2) / (2 * q.scale**2)


def _to_pareto(xp: Any, e: Any, q: Pareto) -> Array:
    return (1 + q.shape) * e.mean_log() - xp.log(q.shape) - q.shape * xp.log(q.scale)


def _to_beta(xp: Any, e: Any, q: Beta) -> Array:
    return log_beta(q.a, q.b) + (1 - q.a) * e.mean_log() + (1 - q.b) * e.mean_log1m()


def _to_continuous_bernoulli(xp: Any, e: Any, q: ContinuousBernoulli) -> Array:
    return log_sinhc(q.logit(xp) / 2) - q.logit(xp) * (e.mean() - 0.5)


def _to_geometric(xp: Any, e: Any, q: Geometric) -> Array:
    return -xlogy(e.mean(), 1 - q.probability) - xp.log(q.probability)


CROSS_ENTROPIES: dict[type[Family], CrossEntropy] = {
    Normal: CrossEntropy(("mean", "variance"), _to_normal),
    HalfNormal: CrossEntropy(("mean", "variance"), _to_half_normal),
    LogNormal: CrossEntropy(("mean_log", "variance_log"), _to_log_normal),
    Laplace: CrossEntropy(("absolute",), lambda xp, e, q: e.absolute(q.location) / q.scale + xp.log(2 * q.scale)),
    Gumbel: CrossEntropy(("mean", "log_mgf"), _to_gumbel),
    Exponential: CrossEntropy(("mean",), lambda xp, e, q: q.rate * e.mean() - xp.log(q.rate)),
    Gamma: CrossEntropy(("mean", "mean_log", "log_gap"), _to_gamma),
    InverseGamma: CrossEntropy(("mean_log", "inverse", "inverse_log_gap"), _to_inverse_gamma),
    InverseGaussian: CrossEntropy(("mean", "mean_log", "inverse_excess"), _to_inverse_gaussian),
    Weibull: CrossEntropy(("mean_log", "log_power"), _to_weibull),
    Rayleigh: CrossEntropy(("mean", "variance", "mean_log"), _to_rayleigh),
    Pareto: CrossEntropy(("mean_log",), _to_pareto),
    Uniform: CrossEntropy((), lambda xp, e, q: xp.log(q.high - q.low)),
    Beta: CrossEntropy(("mean_log", "mean_log1m"), _to_beta),
    ContinuousBernoulli: CrossEntropy(("mean",), _to_continuous_bernoulli),
    Geometric: CrossEntropy(("mean",), _to_geometric),
}

# What follows from other expectations, where a family says nothing better: what it takes, and how.
Derived = Callable[[Any, Any], Array]
DERIVED: dict[str, tuple[tuple[str, ...], Derived]] = {
    "inverse": (("log_power",), lambda xp, e: xp.exp(e.log_power(-e.one, e.one))),
    "log_gap": (("mean", "mean_log"), lambda xp, e: xp.log(e.mean()) - e.mean_log()),
    "inverse_excess": (("mean", "inverse"), lambda xp, e: e.inverse() - 1 / e.mean()),
    "inverse_log_gap": (("inverse", "mean_log"), lambda xp, e: xp.log(e.inverse()) + e.mean_log()),
}


def knows(p: type[Family], name: str) -> bool:
    """Whether an expectation is known under a family, perhaps from others."""
    return name in EXPECTATIONS.get(p, {}) or (name in DERIVED and all(knows(p, other) for other in DERIVED[name][0]))


class Expectations:
    """The expectations under p by name, each a function of what it takes besides."""

    def __init__(self, xp: Any, p: Family, one: Array) -> None:
        self._xp, self._p, self.one = xp, p, one

    def __getattr__(self, name: str) -> Callable[..., Array]:
        known = EXPECTATIONS[type(self._p)]
        if name in known:
            return lambda *at: known[name](self._xp, self._p, *at)
        return lambda: DERIVED[name][1](self._xp, self)
