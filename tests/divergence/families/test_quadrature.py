"""Claims about quadrature: closed forms and long sums are the oracles, and the stated error covers the true one."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from kilter.divergence import Probs, closed_forms, quadrature
from kilter.divergence import js as discrete_js
from kilter.divergence import total_variation as discrete_total_variation
from kilter.divergence.families import (
    Bernoulli,
    Beta,
    Categorical,
    Cauchy,
    Exponential,
    Family,
    Gamma,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Kumaraswamy,
    Laplace,
    Logistic,
    LogNormal,
    Normal,
    Pareto,
    Poisson,
    Rayleigh,
    StudentT,
    Uniform,
    VonMises,
    Weibull,
)
from kilter.divergence.families.describe import describe
from kilter.divergence.families.multivariate import Dirichlet
from kilter.divergence.families.quadrature import Density
from kilter.errors import DistributionError

HARD: list[tuple[Family, Family]] = [
    (Normal(0, 1e-6), Normal(5, 1)),
    (Normal(0, 1), Normal(5, 1e-3)),
    (Normal(0, 1), Normal(1e-6, 1)),
    (Normal(1e5, 1), Normal(1e5, 2)),
    (Cauchy(0, 1), Cauchy(100, 3)),
    (StudentT(2.5, 0, 1), Normal(0, 3)),
    (Laplace(0, 1), Gumbel(0.3, 2)),
    (Gamma(0.05, 1), Gamma(2, 5)),
    (Gamma(1e4, 1), Gamma(1.01e4, 1)),
    (Gamma(2, 1e8), Normal(0, 1)),
    (LogNormal(0, 5), LogNormal(1, 3)),
    (Weibull(0.1, 1), Weibull(0.2, 3)),
    (Pareto(1.5, 2), Exponential(0.3)),
    (HalfCauchy(1), LogNormal(0, 2)),
    (Beta(0.3, 0.4), Beta(2, 3)),
    (Beta(0.5, 0.1), Beta(0.5, 0.2)),
    (Beta(0.3, 0.4), Normal(0, 1)),
    (Uniform(0, 1), Uniform(-1, 3)),
    (VonMises(1, 200), VonMises(1.3, 2)),
    (Poisson(3), Poisson(5)),
    (Poisson(2000), Poisson(2100)),
    (Poisson(1e5), Poisson(1)),
    (Geometric(1e-5), Geometric(0.5)),
    (Cauchy(0, 1), Cauchy(1e4, 1e-3)),
    (Geometric(0.001), Geometric(0.002)),
]


@pytest.mark.parametrize(("p", "q"), HARD, ids=repr)
def test_kl_is_the_closed_form_within_the_stated_error(p: Family, q: Family) -> None:
    found, wanted = quadrature.kl(p, q), float(closed_forms.kl(p, q))
    assert abs(found.value - wanted) <= found.error + 1e-11 * abs(wanted)
    assert found.error <= 1e-5 * max(1.0, wanted)
    assert found.value == pytest.approx(wanted, rel=1e-8, abs=1e-14)


def _student_to_normal(df: float) -> float:
    """-h(t) + (log 2 pi + E x^2) / 2, and E x^2 = df / (df - 2)."""
    entropy = float(stats.t(df).entropy())
    return -entropy + (math.log(2 * math.pi) + df / (df - 2)) / 2


@pytest.mark.parametrize("df", [2.05, 2.08, 2.09, 2.1, 2.5])
def test_where_squares_overflow_within_the_tails_kl_is_finite(df: float) -> None:
    found = quadrature.kl(StudentT(df, 0, 1), Normal(0, 1))
    assert abs(found.value - _student_to_normal(df)) <= found.error + 1e-9
    assert quadrature.cross_entropy(StudentT(df, 0, 1), Normal(0, 1)).value < math.inf


def test_where_too_much_is_left_beyond_the_overflow_that_is_told() -> None:
    for df in (2.001, 2.02):
        with pytest.raises(DistributionError, match="does not settle"):
            quadrature.kl(StudentT(df, 0, 1), Normal(0, 1))
    for df in (0.05, 1.9, 2.0):
        assert quadrature.kl(StudentT(df, 0, 1), Normal(0, 1)).value == math.inf
    # E x^2 of Pareto(a, 1) is a / (a - 2), and E log x is 1 / a.
    wanted = math.log(2.05) - 3.05 / 2.05 - 1 / 2.05 + 2.05 / 0.05 / 2
    found = quadrature.kl(Pareto(2.05, 1), Rayleigh(1))
    assert abs(found.value - wanted) <= found.error


def test_bounded_divergences_are_never_inf() -> None:
    """Half of gamma(0.001, 1) lies below 1e-275, where no panel is."""
    for divergence in (quadrature.kl, quadrature.js, quadrature.total_variation, quadrature.hellinger):
        with pytest.raises(DistributionError, match=r"p integrates to 0.47.* closer to an end than numbers reach"):
            divergence(Gamma(0.001, 1), Gamma(1, 1))
    found = quadrature.total_variation(LogNormal(0, 100), Rayleigh(1))
    assert found.value == pytest.approx(_by_distribution_functions(), abs=1e-6)


def _by_distribution_functions() -> float:
    """Total variation of LogNormal(0, 100) and Rayleigh(1), whose density is the greater within one interval."""
    log_x = np.linspace(-60, 5, 1_000_001)
    excess = stats.norm.cdf(log_x / 100) - stats.rayleigh.cdf(np.exp(log_x))
    return float(excess.max() - excess.min())


def test_outcomes_that_q_rules_out_make_kl_inf_however_unlikely_they_are() -> None:
    assert quadrature.kl(HalfNormal(0.18), Uniform(-2.8, 9)).value == math.inf
    assert quadrature.cross_entropy(Normal(0, 1e-3), Uniform(-1, 1)).value == math.inf
    assert quadrature.js(HalfNormal(0.18), Uniform(-2.8, 9)).value < math.log(2)


def test_a_family_of_which_a_millionth_is_out_of_reach_is_refused() -> None:
    """Beta(0.28, 0.02) has 1e-6 within 1e-300 of 1, where log p/q is large; the sum was off by 700 times its bound."""
    with pytest.raises(DistributionError, match=r"p integrates to 0.999999.* closer to an end"):
        quadrature.kl(Beta(0.28022, 0.019933), Weibull(1.97374, 0.52796))


def test_no_tolerance_makes_a_density_of_what_integrates_to_0_6() -> None:
    with pytest.raises(DistributionError, match=r"p integrates to 0\.6"):
        quadrature.kl(lambda x: 0.6 * stats.norm.pdf(x), Normal(0, 1), tolerance=1e-2)


def test_sums_of_too_many_outcomes_are_refused() -> None:
    with pytest.raises(DistributionError, match=r"over 0 to 4,194,303, and sums end there"):
        quadrature.js(Geometric(1e-8), Geometric(1e-7))


@pytest.mark.parametrize(("p", "q"), HARD[:12], ids=repr)
def test_entropies_are_the_closed_forms(p: Family, q: Family) -> None:
    assert quadrature.entropy(p).value == pytest.approx(float(closed_forms.entropy(p)), rel=1e-8, abs=1e-9)
    wanted = float(closed_forms.cross_entropy(p, q))
    assert quadrature.cross_entropy(p, q).value == pytest.approx(wanted, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Cauchy(0, 1), Normal(0, 1)),
        (Normal(0, 1), Uniform(-1, 1)),
        (Exponential(1), Pareto(2, 0.5)),
        (HalfCauchy(1), Exponential(1)),
        (StudentT(1.0, 0, 1), Logistic(0, 1)),
        (Poisson(1), Bernoulli(0.5)),
    ],
    ids=repr,
)
def test_an_integral_that_diverges_is_inf(p: Family, q: Family) -> None:
    assert quadrature.kl(p, q).value == math.inf
    assert math.isfinite(quadrature.js(p, q).value)


def test_pairs_without_a_closed_form_are_those_of_mpmath() -> None:
    with mpmath.workdps(30):
        normal, cauchy = (
            lambda x: mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi),
            lambda x: 1 / (mpmath.pi * (1 + x * x)),
        )
        places = [-40, -10, -3, 0, 3, 10, 40]
        wanted = float(mpmath.quad(lambda x: normal(x) * mpmath.log(normal(x) / cauchy(x)), places))
    found = quadrature.kl(Normal(0, 1), Cauchy(0, 1))
    assert abs(found.value - wanted) < 1e-13
    assert quadrature.kl(Poisson(3), Geometric(0.75)).value == pytest.approx(_poisson_to_geometric(3, 0.75), rel=1e-13)


def _poisson_to_geometric(rate: float, chance: float) -> float:
    with mpmath.workdps(30):
        total = mpmath.mpf(0)
        for k in range(100):
            p = mpmath.exp(-rate) * mpmath.mpf(rate) ** k / mpmath.factorial(k)
            total += p * mpmath.log(p / (mpmath.mpf(chance) * (1 - mpmath.mpf(chance)) ** k))
        return float(total)


def test_total_variation_and_js_of_two_normals_are_those_known() -> None:
    p, q = Normal(0, 1), Normal(1, 1)
    assert quadrature.total_variation(p, q).value == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=1e-10)
    assert quadrature.hellinger(p, q).value == pytest.approx(math.sqrt(-math.expm1(-1 / 8)), abs=1e-10)
    assert quadrature.js(p, p).value == 0
    assert quadrature.js(Uniform(0, 1), Uniform(2, 3)).value == pytest.approx(math.log(2))
    assert quadrature.total_variation(Uniform(0, 1), Uniform(2, 3)).value == pytest.approx(1)


def test_sums_are_those_of_the_discrete_functions() -> None:
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.1, 0.5])
    ours = describe(Categorical(p), Categorical(q))
    assert ours["js"] == pytest.approx(float(discrete_js(Probs(p), Probs(q))), rel=1e-12)
    assert ours["total_variation"] == pytest.approx(float(discrete_total_variation(Probs(p), Probs(q))), rel=1e-12)
    assert ours["kl"] != pytest.approx(ours["reverse_kl"])
    assert ours["cross_entropy"] == pytest.approx(ours["entropy_p"] + ours["kl"])
    assert ours["reverse_cross_entropy"] == pytest.approx(ours["entropy_q"] + ours["reverse_kl"])


# Functions.


def test_functions_and_logarithms_and_frozen_distributions_are_densities() -> None:
    exponential = Density(lambda x: np.exp(-x), low=0)
    faster = Density(lambda x: math.log(2) - 2 * x, low=0, is_log=True)
    wanted = float(closed_forms.kl(Exponential(1), Exponential(2)))
    assert quadrature.kl(exponential, faster).value == pytest.approx(wanted, rel=1e-9)
    assert quadrature.kl(faster, exponential).value == pytest.approx(math.log(2) - 0.5, rel=1e-9)
    assert quadrature.kl(stats.norm.pdf, Normal(1, 1)).value == pytest.approx(0.5, rel=1e-9)
    skewed = stats.skewnorm(3)
    x = np.linspace(-12, 12, 400_001)
    wanted = float(np.trapezoid(skewed.pdf(x) * (skewed.logpdf(x) - stats.norm.logpdf(x)), x))
    assert quadrature.kl(skewed, stats.norm()).value == pytest.approx(wanted, rel=1e-9)


def test_a_narrow_peak_that_is_pointed_out_is_found() -> None:
    narrow = stats.norm(1e4, 1e-3)
    found = quadrature.kl(Density(narrow.logpdf, is_log=True, points=(1e4,)), Normal(1e4, 1e-2))
    assert found.value == pytest.approx(math.log(10) + 0.005 - 0.5, rel=1e-7)
    with pytest.raises(DistributionError, match=r"p integrates to .* it must integrate to 1"):
        quadrature.kl(Density(narrow.logpdf, is_log=True), Normal(0, 1))


@pytest.mark.parametrize("sd", [1e-3, 1e-4, 1e-6, 1e-8])
def test_a_peak_however_narrow_is_found_at_its_point(sd: float) -> None:
    """Of a narrow peak only its own entropy and place matter: int over it of w n log(w n / q) + the rest."""
    at, weight = 1.2345, 0.01
    p = Density(lambda x: (1 - weight) * stats.norm.pdf(x) + weight * stats.norm.pdf(x, at, sd), points=(at,))
    under = (1 - weight) * stats.norm.pdf(at)

    def terms(z: float) -> float:
        peak = weight * stats.norm.pdf(z)
        log_p = math.log(under * sd + peak) - math.log(sd)
        return (under * sd + peak) * (log_p - stats.norm.logpdf(at)) - under * sd * math.log(1 - weight)

    within = integrate.quad(terms, -40, 40, points=[-8, -3, 0, 3, 8], epsabs=1e-14, limit=500)[0]
    wanted = (1 - weight) * math.log(1 - weight) + within
    assert quadrature.kl(p, Normal(0, 1)).value == pytest.approx(wanted, abs=30 * sd * weight + 1e-9)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (lambda x: 0.5 * stats.norm.pdf(x), Normal(0, 1), "p integrates to 0.5 between -inf and inf; it must"),
        (Normal(0, 1), lambda x: stats.norm.pdf(x) - 0.01, "a density is .* somewhere; densities are never negative"),
        (lambda x: np.full_like(x, math.nan), Normal(0, 1), "a density is inf or not a number at"),
        (Poisson(1), Normal(0, 1), "they cannot be compared"),
        (Dirichlet([1.0, 2.0]), Dirichlet([1.0, 2.0]), "p is Dirichlet, which is not of one number"),
        (Normal(np.zeros(3), 1), Normal(0, 1), "quadrature takes one distribution at a time"),
        ("normal", Normal(0, 1), "found str; give a family"),
    ],
)
def test_what_is_no_density_is_refused(p: Any, q: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        quadrature.kl(p, q)


# Gradients.


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (Normal, Gumbel(0.2, 2.0)),
        (lambda a, b: Gamma(1 + a, b), LogNormal(0.3, 1.0)),
        (Laplace, Normal(0.0, 1.0)),
        (Beta, Beta(2.0, 3.0)),
    ],
)
def test_gradients_are_those_of_the_closed_form(make: Any, other: Family) -> None:
    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 1.5)]
    for direction in (lambda f, p, q: f(p, q), lambda f, p, q: f(q, p)):
        found = direction(quadrature.kl, make(*parameters), other).value
        wanted = direction(closed_forms.kl, make(*parameters), other)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
        gradients = (torch.autograd.grad(value, parameters) for value in (found, wanted))
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)


def test_students_t_is_differentiated_where_there_is_no_closed_form() -> None:
    df = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quadrature.kl(StudentT(df, 0, 1), StudentT(5, 1, 2)).value, df)
    ahead, behind = (quadrature.kl(StudentT(3 + step, 0, 1), StudentT(5, 1, 2)).value for step in (1e-4, -1e-4))
    assert float(gradient) == pytest.approx((ahead - behind) / 2e-4, rel=1e-6)


def test_kumaraswamy_is_integrated_up_to_its_singular_ends() -> None:
    found = quadrature.kl(Kumaraswamy(0.4, 0.3), Kumaraswamy(0.4, 0.6))
    assert found.value == pytest.approx(float(closed_forms.kl(Kumaraswamy(0.4, 0.3), Kumaraswamy(0.4, 0.6))), rel=1e-9)


# Probabilities of no family.


def test_frozen_probabilities_of_no_family_are_summed() -> None:
    p, q = stats.hypergeom(50, 20, 10), stats.binom(10, 0.4)
    k = np.arange(11)
    wanted = float(p.pmf(k) @ (p.logpmf(k) - q.logpmf(k)))
    assert quadrature.kl(p, q).value == pytest.approx(wanted, rel=1e-12)
    assert quadrature.entropy(p).value == pytest.approx(float(p.entropy()), rel=1e-12)
    assert quadrature.js(p, q).value == pytest.approx(float(discrete_js(Probs(p.pmf(k)), Probs(q.pmf(k)))), rel=1e-9)
    # From 1 on; KL of two geometric distributions does not depend on where they begin.
    wanted = float(closed_forms.kl(Geometric(0.3), Geometric(0.6)))
    assert quadrature.kl(stats.geom(0.3), stats.geom(0.6)).value == pytest.approx(wanted, rel=1e-12)
    assert quadrature.kl(stats.randint(-5, 5), stats.randint(-5, 15)).value == pytest.approx(math.log(2), rel=1e-12)
    assert quadrature.kl(stats.geom(0.3, loc=-1), stats.geom(0.6)).value == math.inf


def test_probabilities_of_power_tails_are_those_of_zeta() -> None:
    """log p/q of zipf(4) and zipf(5) is log k + log zeta(5) / zeta(4), and E log k is -zeta'(4) / zeta(4)."""
    wanted = float(-mpmath.zeta(4, derivative=1) / mpmath.zeta(4) + mpmath.log(mpmath.zeta(5) / mpmath.zeta(4)))
    found = quadrature.kl(stats.zipf(4.0), stats.zipf(5.0))
    assert abs(found.value - wanted) <= found.error
    with pytest.raises(DistributionError, match="sums end there"):
        quadrature.entropy(stats.zipf(1.5))
    with pytest.raises(DistributionError, match="without a least one"):
        quadrature.entropy(stats.skellam(1, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Density(np.exp, low=1, high=0), "from 1 to 0; its low end must be below"),
        (lambda: Density(np.exp, low=math.nan), "its low end must be below"),
        (lambda: Density(np.exp, points=1.5), "points=1.5; wanted a tuple of finite numbers"),
        (lambda: Density(np.exp, points=(math.inf,)), "wanted a tuple of finite numbers"),
        (lambda: quadrature.entropy(lambda x: math.exp(-x * x)), "failed: .*; write it with NumPy .* np.vectorize"),
        (lambda: quadrature.entropy(lambda x: 1.0 if 0 < x < 1 else 0.0), "failed: .*; write it with NumPy"),
        (lambda: quadrature.entropy(lambda x: np.ones(3)), r"values of shape \(3,\) at points of shape"),
    ],
)
def test_functions_that_cannot_be_integrated_say_how_to_write_them(make: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        make()
    uniform = Density(np.vectorize(lambda x: 1.0 if 0 < x < 1 else 0.0), 0, 1)
    assert quadrature.entropy(uniform).value == pytest.approx(0, abs=1e-12)
