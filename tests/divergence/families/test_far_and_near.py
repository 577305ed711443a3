"""Claims about parameters that are huge, tiny, equal or nearly so; mpmath, to many digits, is the oracle."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch

from kilter.divergence.families import (
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    Logistic,
    LogNormal,
    Normal,
    Pareto,
    Uniform,
    Weibull,
)
from kilter.divergence.families.closed_forms import kl

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
