"""Claims about parameters that are huge, tiny, equal or nearly so; mpmath, to many digits, is the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from kilter.divergence.families import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiagonalNormal,
    Dirichlet,
    DirichletMultinomial,
    Exponential,
    Family,
    Gamma,
    Geometric,
    Gumbel,
    HalfNormal,
    InverseGamma,
    InverseGaussian,
    Kumaraswamy,
    Laplace,
    Logistic,
    LogNormal,
    LowRankNormal,
    Multinomial,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Pareto,
    Poisson,
    Rayleigh,
    StudentT,
    Uniform,
    VonMises,
    VonMisesFisher,
    Weibull,
)
from kilter.divergence.families.closed_forms import bhattacharyya, entropy, hellinger, kl, wasserstein2
from kilter.errors import DistributionError

mp = mpmath.mp.clone()
mp.dps = 50


def by_quadrature(p: Any, q: Any, low: float, high: float) -> float:
    """KL of two log-densities of mpmath, between ends that leave nothing out."""
    ends = mp.linspace(mp.mpf(low), mp.mpf(high), 24)
    return float(mp.quad(lambda x: mp.exp(p(x)) * (p(x) - q(x)), ends))


def gumbel(m: float, s: float) -> Any:
    return lambda x: -(x - m) / s - mp.exp(-(x - m) / s) - mp.log(s)


def weibull(k: float, s: float) -> Any:
    return lambda x: mp.log(mp.mpf(k) / s) + (k - 1) * mp.log(x / s) - (x / s) ** k


def gamma(a: float, rate: float) -> Any:
    a, rate = mp.mpf(a), mp.mpf(rate)
    return lambda x: a * mp.log(rate) + (a - 1) * mp.log(x) - rate * x - mp.loggamma(a)


# Far from 0.


@pytest.mark.parametrize("centre", [-1000.0, 0.0, 1000.0, 1e5])
def test_kl_to_a_gumbel_is_the_same_wherever_both_lie(centre: float) -> None:
    by_hand = 0.5 * (1 - math.log(2 * math.pi) - 1) - 0.5 + math.exp(0.5)
    assert float(kl(Normal(centre, 1), Gumbel(centre, 1))) == pytest.approx(by_hand, rel=1e-10)
    for p in (lambda m: Laplace(m, 0.5), lambda m: Logistic(m, 0.5), lambda m: Uniform(m - 1, m + 1)):
        wanted = float(kl(p(0.0), Gumbel(0.3, 1)))
        assert float(kl(p(centre), Gumbel(centre + 0.3, 1))) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("p", "q", "log_p", "log_q", "low", "high"),
    [
        (Gamma(1e6, 1e3), Gumbel(1000, 1), gamma(1e6, 1e3), gumbel(1000, 1), 985, 1015),
        (Gamma(1e4, 1e-2), Weibull(60, 1e6), gamma(1e4, 1e-2), weibull(60, 1e6), 9e5, 1.1e6),
        (
            LogNormal(math.log(1100), 0.01),
            Weibull(150, 1100),
            lambda x: -(((mp.log(x) - math.log(1100)) / 0.01) ** 2) / 2 - mp.log(0.01 * x) - mp.log(2 * mp.pi) / 2,
            weibull(150, 1100),
            950,
            1270,
        ),
        (
            Uniform(1e4, 1.01e4),
            Weibull(100, 1e4),
            lambda x: -mp.log(100),
            weibull(100, 1e4),
            1e4,
            1.01e4,
        ),
    ],
)
def test_powers_that_overflow_make_no_nan(p: Any, q: Any, log_p: Any, log_q: Any, low: float, high: float) -> None:
    assert float(kl(p, q)) == pytest.approx(by_quadrature(log_p, log_q, low, high), rel=1e-8)


def test_the_unit_of_measurement_changes_no_divergence() -> None:
    for p, q in [
        (HalfNormal, lambda u: Weibull(90, 3 * u)),
        (lambda u: Pareto(200, u), lambda u: Weibull(90, 1.1 * u)),
    ]:
        wanted = float(kl(p(1.0), q(1.0)))
        assert math.isfinite(wanted)
        for unit in (1e-9, 1e4, 1e12):
            assert float(kl(p(unit), q(unit))) == pytest.approx(wanted, rel=1e-9)


def test_kl_to_a_gumbel_in_single_precision_is_that_in_double() -> None:
    location = torch.tensor(90.0, requires_grad=True)
    found = kl(Normal(location, torch.tensor(1.0)), Gumbel(torch.tensor(90.0), torch.tensor(1.0)))
    assert found.item() == pytest.approx(float(kl(Normal(0, 1), Gumbel(0, 1))), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, location)
    assert gradient.item() == pytest.approx(1 - math.exp(0.5), rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4, 1e7])
def test_kl_between_families_that_are_nearly_normal_keeps_its_digits(size: float) -> None:
    """A large gamma is nearly inverse Gaussian; what they differ by is of third order."""
    m = mp.mpf(size)
    shape = m * m
    mean_log, log_gap = mp.digamma(shape) - mp.log(m), mp.log(shape) - mp.digamma(shape)
    entropy = shape - mp.log(m) + mp.loggamma(shape) + (1 - shape) * mp.digamma(shape)
    if size > 1:
        away = m**3 / 2 * (m / shape + m / (shape * (shape - 1)) - 1 / m)
        wanted = away + 1.5 * mean_log - (mp.log(m**3) - mp.log(2 * mp.pi)) / 2 - entropy
        found = kl(Gamma(size**2, size), InverseGaussian(size, size**3))
        assert float(found) == pytest.approx(float(wanted), rel=1e-7, abs=2e-14)
    to_log_normal = mp.log(2 * mp.pi * shape**-1) / 2 + mean_log + shape / 2 * (mp.polygamma(1, shape) + log_gap**2)
    found = kl(Gamma(size**2, size), LogNormal(math.log(size), 1 / size))
    assert float(found) == pytest.approx(float(to_log_normal - entropy), rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("m", [0.1, 3.0, 1e3, 1e5, 1e8])
def test_kl_of_a_narrow_uniform_keeps_its_digits(m: float) -> None:
    low = mp.mpf(m)

    def mean(antiderivative: Any) -> Any:
        return antiderivative(low + 1) - antiderivative(low)

    mean_log, inverse = mean(lambda x: x * mp.log(x) - x), mean(mp.log)
    to_gamma = (1 - low**2) * mean_log + low * (low + 0.5) - low**2 * mp.log(low) + mp.loggamma(low**2)
    assert float(kl(Uniform(m, m + 1), Gamma(m * m, m))) == pytest.approx(float(to_gamma), rel=1e-9)
    a, b = low**2 + 2, low**3
    to_inverse_gamma = (1 + a) * mean_log + b * inverse - a * mp.log(b) + mp.loggamma(a)
    found = kl(Uniform(m, m + 1), InverseGamma(float(a), float(b)))
    assert float(found) == pytest.approx(float(to_inverse_gamma), rel=1e-5)


def test_the_variances_of_narrow_distributions_keep_their_digits() -> None:
    a = mp.mpf(10) ** 7
    mean, square = (2 * mp.beta(1 + k / a, 2) for k in (1, 2))
    entropy = (1 - mp.mpf(1) / 2) + (1 - 1 / a) * mp.harmonic(2) - mp.log(2 * a)
    cross = (mp.log(2 * mp.pi * mp.mpf(1e-7) ** 2) + (square - mean**2 + (mean - 1) ** 2) / mp.mpf(1e-7) ** 2) / 2
    assert float(kl(Kumaraswamy(1e7, 2), Normal(1, 1e-7))) == pytest.approx(float(cross - entropy), rel=1e-7)


def test_what_is_lost_to_rounding_is_said() -> None:
    p, q = Normal(0.0, 1e-9), Laplace(1e9, 1e9)
    assert float(kl(p, q)) > 0
    from kilter.divergence.families.closed_forms import _difference

    assert float(_difference(np, np.asarray(1.0), np.asarray(1.0 + 1e-15))) == 0
    with pytest.raises(DistributionError, match="lost all its digits"):
        _difference(np, np.asarray(1.0), np.asarray(1.0 + 1e-9))


@pytest.mark.parametrize("size", [0.3, 5.0, 40.0, 1e6, 1e12, 1e15])
def test_entropies_and_densities_of_large_parameters_keep_their_digits(size: float) -> None:
    a = mp.mpf(size)
    gamma_entropy = a + mp.loggamma(a) + (1 - a) * mp.digamma(a)
    assert float(entropy(Gamma(size, 1))) == pytest.approx(float(gamma_entropy), rel=1e-13)
    inverse_gamma = a + mp.loggamma(a) - (1 + a) * mp.digamma(a)
    assert float(entropy(InverseGamma(size, 1))) == pytest.approx(float(inverse_gamma), rel=1e-13, abs=1e-13)
    beta = mp.log(mp.beta(a, 2 * a)) - (a - 1) * mp.digamma(a) - (2 * a - 1) * mp.digamma(2 * a)
    beta += (3 * a - 2) * mp.digamma(3 * a)
    assert float(entropy(Beta(size, 2 * size))) == pytest.approx(float(beta), rel=1e-12, abs=1e-13)
    assert float(entropy(Dirichlet([size, 2 * size]))) == pytest.approx(float(beta), rel=1e-12, abs=1e-13)
    half = a / 2
    log_beta = mp.loggamma(half) + mp.loggamma(0.5) - mp.loggamma(half + 0.5)
    student = (a + 1) / 2 * (mp.digamma(half + 0.5) - mp.digamma(half)) + mp.log(a) / 2 + log_beta
    assert float(entropy(StudentT(size, 0, 1))) == pytest.approx(float(student), rel=1e-13)
    assert float(StudentT(size, 0, 1).log_density(0.0)) == pytest.approx(float(-log_beta - mp.log(a) / 2), rel=1e-13)
    for x in (size, size * 1.25):
        x_ = mp.mpf(x)
        pmf = mp.floor(x_) * mp.log(a) - a - mp.loggamma(mp.floor(x_) + 1)
        assert float(Poisson(size).log_density(math.floor(x))) == pytest.approx(float(pmf), rel=1e-12, abs=1e-13)
        density = (a - 1) * mp.log(x_) - x_ - mp.loggamma(a)
        assert float(Gamma(size, 1).log_density(x)) == pytest.approx(float(density), rel=1e-12, abs=1e-13)
        found = InverseGamma(size, size).log_density(x / size)
        inverse = a * mp.log(a) - (a + 1) * mp.log(mp.mpf(x / size)) - a / mp.mpf(x / size) - mp.loggamma(a)
        assert float(found) == pytest.approx(float(inverse), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("n", [3.0, 50.0, 1e6, 1e12])
def test_log_probabilities_of_many_trials_keep_their_digits(n: float) -> None:
    p, k = mp.mpf(0.3), mp.floor(0.31 * mp.mpf(n))
    ways = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
    wanted = ways + k * mp.log(p) + (n - k) * mp.log(1 - p)
    assert float(Binomial(n, 0.3).log_density(float(k))) == pytest.approx(float(wanted), rel=1e-11)
    ways = mp.loggamma(n + k) - mp.loggamma(n) - mp.loggamma(k + 1)
    wanted = ways + n * mp.log(1 - mp.mpf(0.3)) + k * mp.log(mp.mpf(0.3))
    assert float(NegativeBinomial(n, 0.7).log_density(float(k))) == pytest.approx(float(wanted), rel=1e-10)
    x = mp.mpf(0.31)
    wanted = (n - 1) * mp.log(x) + 2 * n * mp.log(1 - x) - mp.loggamma(n) - mp.loggamma(2 * mp.mpf(n) + 1)
    wanted += mp.loggamma(3 * mp.mpf(n) + 1)
    assert float(Beta(n, 2 * n + 1).log_density(0.31)) == pytest.approx(float(wanted), rel=1e-11)


# Equal, or nearly so.

# Of each family, made of an x, and mpmath's Bhattacharyya distance between those of two x.
NEAR: list[tuple[Callable[[Any], Family], Callable[[Any, Any], Any]]] = [
    (lambda x: Normal(0, x), lambda x, y: mp.log((x * x + y * y) / (2 * x * y)) / 2),
    (lambda x: Laplace(0, x), lambda x, y: mp.log((x + y) / (2 * mp.sqrt(x * y)))),
    (lambda x: Laplace(x, 1), lambda x, y: abs(x - y) / 2 - mp.log(1 + abs(x - y) / 2)),
    (lambda x: Gumbel(x, 1), lambda x, y: mp.log(mp.cosh((x - y) / 2))),
    (lambda x: Logistic(x, 1), lambda x, y: mp.log(mp.sinh((x - y) / 2) / ((x - y) / 2))),
    (Exponential, lambda x, y: mp.log((x + y) / (2 * mp.sqrt(x * y)))),
    (lambda x: Gamma(x, 2), lambda x, y: _middle(mp.loggamma, x, y)),
    (lambda x: Gamma(2, x), lambda x, y: -_middle(mp.log, x, y) * 2),
    (lambda x: InverseGamma(x, 2), lambda x, y: _middle(mp.loggamma, x, y)),
    (lambda x: Beta(x, 2), lambda x, y: _middle(lambda a: mp.loggamma(a) - mp.loggamma(a + 2), x, y)),
    (lambda x: Kumaraswamy(2, x), lambda x, y: mp.log((x + y) / (2 * mp.sqrt(x * y)))),
    (lambda x: InverseGaussian(x, 2), lambda x, y: _middle(lambda a: -mp.sqrt(a), 4 / x**2, 4 / y**2)),
    (lambda x: InverseGaussian(1, x), lambda x, y: _middle(lambda a: -mp.log(a) / 2, x, y)),
    (lambda x: ContinuousBernoulli(x / 4), lambda x, y: _middle(_log_sinhc, _logit(x / 4), _logit(y / 4))),
    (lambda x: Pareto(x, 1), lambda x, y: mp.log((x + y) / (2 * mp.sqrt(x * y)))),
    (Rayleigh, lambda x, y: mp.log((x * x + y * y) / (2 * x * y))),
    (lambda x: Weibull(2, x), lambda x, y: mp.log(mp.cosh(mp.log(x / y)))),
    (lambda x: Uniform(0, x), lambda x, y: abs(mp.log(x / y)) / 2),
    (lambda x: VonMises(0, x), lambda x, y: _middle(lambda k: mp.log(mp.besseli(0, k)), x, y)),
    (lambda x: VonMisesFisher([0.0, 0.6, 0.8], x), lambda x, y: _middle(lambda k: mp.log(mp.sinh(k) / k), x, y)),
    (lambda x: Bernoulli(x / 4), lambda x, y: -mp.log(_overlap([x / 4, 1 - x / 4], [y / 4, 1 - y / 4]))),
    (lambda x: Binomial(9, x / 4), lambda x, y: -9 * mp.log(_overlap([x / 4, 1 - x / 4], [y / 4, 1 - y / 4]))),
    (Poisson, lambda x, y: (mp.sqrt(x) - mp.sqrt(y)) ** 2 / 2),
    (lambda x: Geometric(x / 4), lambda x, y: _of_geometric(x / 4, y / 4)),
    (lambda x: NegativeBinomial(3, x / 4), lambda x, y: 3 * _of_geometric(x / 4, y / 4)),
    (lambda x: Dirichlet([x, 1.0]), lambda x, y: _middle(lambda a: mp.loggamma(a) - mp.loggamma(a + 1), x, y)),
]


def _middle(normaliser: Any, x: Any, y: Any) -> Any:
    return (normaliser(x) + normaliser(y)) / 2 - normaliser((x + y) / 2)


def _logit(x: Any) -> Any:
    return mp.log(x / (1 - x))


def _log_sinhc(eta: Any) -> Any:
    return mp.log(mp.sinh(eta / 2) / (eta / 2))


def _overlap(p: list[Any], q: list[Any]) -> Any:
    return sum(mp.sqrt(a * b) for a, b in zip(p, q, strict=True))


def _of_geometric(x: Any, y: Any) -> Any:
    return mp.log((1 - mp.sqrt((1 - x) * (1 - y))) / mp.sqrt(x * y))


@pytest.mark.parametrize(("family", "wanted"), NEAR)
@pytest.mark.parametrize("change", [2.0**-1, 2.0**-6, 2.0**-20])
def test_bhattacharyya_keeps_its_digits_near_equality(family: Any, wanted: Any, change: float) -> None:
    x = 1.5
    y = x * (1 + change)
    expected = wanted(mp.mpf(x), mp.mpf(y))
    assert float(bhattacharyya(family(x), family(y))) == pytest.approx(float(expected), rel=1e-8)
    assert float(hellinger(family(x), family(y))) == pytest.approx(float(mp.sqrt(-mp.expm1(-expected))), rel=1e-8)


@pytest.mark.parametrize("family", [family for family, _ in NEAR])
def test_hellinger_of_equal_distributions_is_zero_and_so_is_its_gradient(family: Any) -> None:
    for value in (0.1, 1.5, 3.7):
        assert float(hellinger(family(value), family(value))) == 0
    if isinstance(family(1.5), VonMisesFisher | Dirichlet):
        return
    x = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    found = hellinger(family(x), family(1.5))
    (gradient,) = torch.autograd.grad(found, x)
    assert (found.item(), gradient.item()) == (0, 0)


def test_w2_of_equal_normals_is_zero_and_so_is_its_gradient() -> None:
    mean, sd = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([1.0, 2.0], [1.0, 3.0]))
    for p, q in [
        (Normal(mean, sd), Normal(mean.detach(), sd.detach())),
        (DiagonalNormal(mean, sd), DiagonalNormal(mean.detach(), sd.detach())),
        (MultivariateNormal(mean, torch.diag(sd)), MultivariateNormal(mean.detach(), torch.diag(sd.detach()))),
    ]:
        found = wasserstein2(p, q).sum()
        gradients = torch.autograd.grad(found, [mean, sd])
        assert found.item() == pytest.approx(0, abs=1e-7)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


# Second derivatives of log-normalisers: KL is half of one times the squared step, for a small step.
@pytest.mark.parametrize("change", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 5.0, 39.0, 700.0, 1e6, 1e9])
def test_kl_of_directions_keeps_its_digits_near_equality(kappa: float, change: float) -> None:
    other = kappa * (1 + change) if kappa else change
    with mpmath.workdps(60):
        for family, order in (
            (lambda k: VonMises(0.5, k), 0),
            (lambda k: VonMisesFisher([0.6, 0.0, 0.8], k), mpmath.mpf(1) / 2),
        ):
            a, b = mpmath.mpf(kappa), mpmath.mpf(other)

            def normaliser(k: Any, order: Any = order) -> Any:
                return mpmath.log(mpmath.hyp0f1(order + 1, k * k / 4))

            ratio = mpmath.besseli(order + 1, a) / mpmath.besseli(order, a) if kappa else 0
            wanted = float(normaliser(b) - normaliser(a) - (b - a) * ratio)
            assert float(kl(family(kappa), family(other))) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("change", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("p", [1e-9, 0.2, 0.499, 0.9])
def test_kl_of_continuous_bernoullis_keeps_its_digits_near_equality(p: float, change: float) -> None:
    q = p * (1 + change)
    # What the logits lose by the rounding of 1 - p is not the formula's: log p - log1p(-p) as it is computed.
    eta, to = (float(np.log(v) - np.log1p(-v)) for v in (p, q))
    with mpmath.workdps(60):
        a, b = mpmath.mpf(eta), mpmath.mpf(to)
        mean = mpmath.coth(a / 2) / 2 - 1 / a
        wanted = mpmath.log(mpmath.sinh(b / 2) / b) - mpmath.log(mpmath.sinh(a / 2) / a) - (b - a) * mean
        assert float(kl(ContinuousBernoulli(p), ContinuousBernoulli(q))) == pytest.approx(float(wanted), rel=1e-8)


# Zeros.


def test_distributions_with_no_outcome_in_common_are_infinitely_far_apart() -> None:
    apart = [
        (Categorical([0.3, 0.7, 0.0, 0.0]), Categorical([0.0, 0.0, 0.1, 0.9])),
        (Bernoulli(0.0), Bernoulli(1.0)),
        (Binomial(3, 0.0), Binomial(3, 1.0)),
        (Multinomial(3, [0.3, 0.7, 0.0]), Multinomial(3, [0.0, 0.0, 1.0])),
        (Multinomial(3, [0.3, 0.7]), Multinomial(4, [0.3, 0.7])),
    ]
    for p, q in apart:
        assert float(bhattacharyya(p, q)) == math.inf
        assert float(hellinger(p, q)) == 1
    almost = bhattacharyya(Categorical([1 - 1e-30, 1e-30]), Categorical([0.0, 1.0]))
    assert float(almost) == pytest.approx(15 * math.log(10), rel=1e-14)


def test_no_draws_are_alike_whatever_they_are_drawn_from() -> None:
    for p, q in [
        (Binomial(0, 0.5), Binomial(0, 0.0)),
        (Multinomial(0, [0.5, 0.5]), Multinomial(0, [1.0, 0.0])),
        (DirichletMultinomial(0, [1.0, 2.0]), DirichletMultinomial(0, [3.0, 2.0])),
    ]:
        assert float(kl(p, q)) == 0
    assert float(bhattacharyya(Multinomial(0, [0.0, 1.0]), Multinomial(0, [1.0, 0.0]))) == 0


def test_counts_of_different_totals_rule_each_other_out() -> None:
    assert float(kl(Multinomial(2, [0.5, 0.5]), Multinomial(3, [0.5, 0.5]))) == math.inf
    assert float(kl(DirichletMultinomial(2, [1.0, 2.0]), DirichletMultinomial(3, [1.0, 2.0]))) == math.inf
    assert float(kl(Binomial(4, 0.5), Binomial(3, 0.5))) == math.inf
    p, q = stats.binom(3, 0.5), stats.binom(4, 0.3)
    wanted = sum(p.pmf(k) * (p.logpmf(k) - q.logpmf(k)) for k in range(4))
    assert float(kl(Binomial(3, 0.5), Binomial(4, 0.3))) == pytest.approx(wanted, rel=1e-13)
    found = kl(Multinomial(np.array([2.0, 3.0]), [0.5, 0.5]), Multinomial(3, [0.2, 0.8]))
    assert found[0] == math.inf
    assert found[1] == pytest.approx(3 * math.log(1.25), rel=1e-14)


@pytest.mark.parametrize("divergence", [kl, bhattacharyya, hellinger])
def test_an_outcome_that_neither_has_leaves_gradients_finite(divergence: Any) -> None:
    p, q = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, 0.5, 0.0], [0.3, 0.7, 0.0]))
    gradients = torch.autograd.grad(divergence(Categorical(p), Categorical(q)), [p, q])
    short = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, 0.5], [0.3, 0.7])]
    wanted = torch.autograd.grad(divergence(Categorical(short[0]), Categorical(short[1])), short)
    for found, expected in zip(gradients, wanted, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found[:2], expected)
    for family in (Bernoulli, Poisson, lambda x: VonMises(0.0, x)):
        x, y = (torch.tensor(0.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
        gradients = torch.autograd.grad(divergence(family(x), family(y)), [x, y], materialize_grads=True)
        assert all(torch.isfinite(gradient) for gradient in gradients)


def test_the_entropy_of_a_binomial_that_never_succeeds_has_a_finite_gradient() -> None:
    probability = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy(Binomial(5, probability)).sum(), probability)
    assert torch.isfinite(gradient).all()
    assert gradient[2].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("p", [Poisson(0), Geometric(1), NegativeBinomial(2, 1)])
def test_what_is_always_0_costs_what_q_says_of_0(p: Family) -> None:
    assert float(kl(p, Bernoulli(0.3))) == pytest.approx(-math.log(0.7), rel=1e-15)
    assert float(kl(p, Binomial(3, 0.3))) == pytest.approx(-3 * math.log(0.7), rel=1e-14)
    assert float(kl(p, Categorical([0.0, 1.0]))) == math.inf


def test_counts_without_a_greatest_are_infinitely_far_from_what_has_one() -> None:
    found = kl(Poisson(np.array([0.0, 1e-20, 2.0])), Binomial(3, 0.5))
    assert found.tolist() == [pytest.approx(3 * math.log(2)), math.inf, math.inf]


# Vectors.


def low_rank_kl(p: LowRankNormal, q: LowRankNormal) -> float:
    """KL of normals with mean 0, by dense matrices of 60 digits."""
    with mpmath.workdps(60):
        of_p, of_q = (
            mpmath.diag([mpmath.mpf(float(v)) for v in n.diagonal])
            + mpmath.matrix(n.factor.tolist()) * mpmath.matrix(n.factor.tolist()).T
            for n in (p, q)
        )
        both = of_q**-1 * of_p
        trace = sum(both[i, i] for i in range(both.rows))
        return float((trace - both.rows - mpmath.log(mpmath.det(of_p)) + mpmath.log(mpmath.det(of_q))) / 2)


@pytest.mark.parametrize(("size", "noise"), [(1.0, 1.0), (1.0, 1e-3), (1e4, 1e-8)])
@pytest.mark.parametrize("change", [0.01, 0.5])
def test_low_rank_normals_keep_their_digits_where_the_factor_is_all(size: float, noise: float, change: float) -> None:
    random = np.random.default_rng(0)
    factor, diagonal = size * random.normal(size=(6, 2)), noise * random.uniform(0.5, 2, size=6)
    q = LowRankNormal(np.zeros(6), factor, diagonal)
    p = LowRankNormal(np.zeros(6), factor * (1 + change), diagonal * (1 + change / 2))
    assert float(kl(p, q)) == pytest.approx(low_rank_kl(p, q), rel=1e-9)
    assert float(kl(p, p)) == 0


def test_low_rank_normals_in_single_precision_are_near_those_in_double() -> None:
    random = np.random.default_rng(0)
    for size in (50, 200):
        values = [np.zeros(size), random.normal(size=(size, 2)), np.full(size, 1e-3)]
        p, q = (
            LowRankNormal(*(np.float32(v) for v in (values[0], scale * values[1], values[2]))) for scale in (1.01, 1)
        )
        exact = (LowRankNormal(*(np.float64(v) for v in n.parameters())) for n in (p, q))
        assert float(kl(p, q)) == pytest.approx(float(kl(*exact)), abs=1e-5)
        assert float(kl(q, q)) == 0


def test_a_normal_too_wide_for_single_precision_has_no_divergence_of_zero() -> None:
    wide = DiagonalNormal(np.zeros(2, np.float32), np.full(2, 1e20, np.float32))
    narrow = MultivariateNormal(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    assert not float(kl(wide, narrow)) < 1e20
    point = MultivariateNormal(np.zeros(2, np.float32), np.eye(2, dtype=np.float32) * np.float32(1e-25))
    assert not float(kl(narrow, point)) < 1e20


# Many outcomes.


def test_a_binomial_of_many_trials_is_summed_about_its_mean() -> None:
    n = 1e7
    entropy_of_normal = 0.5 * math.log(2 * math.pi * math.e * n * 0.25)  # to 1 / n
    assert float(entropy(Binomial(n, 0.5))) == pytest.approx(entropy_of_normal, rel=1e-8)
    assert float(entropy(Binomial(1e9, 1e-9))) == pytest.approx(stats.poisson(1).entropy(), rel=1e-7)
    assert float(entropy(Binomial(5000, 0.3))) == pytest.approx(stats.binom(5000, 0.3).entropy(), rel=1e-12)


def test_more_outcomes_than_are_summed_are_refused() -> None:
    with pytest.raises(DistributionError, match="outcomes to sum over; at most 4,194,304 are"):
        entropy(Binomial(np.array([1e9, 1e9]), np.array([0.1, 0.9])))
    with pytest.raises(DistributionError, match="terms to sum; at most 16,777,216 are"):
        entropy(Multinomial(1e9, [0.5, 0.5]))


def test_many_draws_of_a_dirichlet_multinomial_take_no_square_of_memory() -> None:
    a, b, n = [mp.mpf(2), mp.mpf(3)], [mp.mpf(4), mp.mpf(1)], 3000

    def log_pmf(c: Any, k: int) -> Any:
        ways = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
        return ways + mp.log(mp.beta(c[0] + k, c[1] + n - k)) - mp.log(mp.beta(*c))

    with mp.workdps(20):
        wanted = mp.fsum(mp.exp(log_pmf(a, k)) * (log_pmf(a, k) - log_pmf(b, k)) for k in range(n + 1))
    p, q = DirichletMultinomial(n, [2.0, 3.0]), DirichletMultinomial(n, [4.0, 1.0])
    assert float(kl(p, q)) == pytest.approx(float(wanted), rel=1e-9)
