"""Claims about the table of f-divergences: generators, derivatives, conjugates and domains belong together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kilter import divergence as dv
from kilter.divergence import F_DIVERGENCES, FDivergence, Probs, f_divergence, f_divergence_named
from kilter.errors import DistributionError

# Each, and its formula by hand.
MEMBERS: dict[str, tuple[FDivergence, Callable[[Any], Any]]] = {
    "forward_kl": (f_divergence_named("forward_kl"), lambda t: t * np.log(t) - t + 1),
    "reverse_kl": (f_divergence_named("reverse_kl"), lambda t: t - 1 - np.log(t)),
    "js": (
        f_divergence_named("js"),
        lambda t: (t * np.log(2 * t / (1 + t)) + np.log(2 / (1 + t))) / 2,
    ),
    "js(0.2)": (
        f_divergence_named("js", weight=0.2),
        lambda t: 0.2 * t * np.log(t / (0.2 * t + 0.8)) - 0.8 * np.log(0.2 * t + 0.8),
    ),
    "total_variation": (f_divergence_named("total_variation"), lambda t: abs(t - 1) / 2),
    "squared_hellinger": (f_divergence_named("squared_hellinger"), lambda t: (np.sqrt(t) - 1) ** 2 / 2),
    "chi2": (f_divergence_named("chi2"), lambda t: (t - 1) ** 2),
    "alpha(0.3)": (f_divergence_named("alpha", order=0.3), lambda t: (t**0.3 - 0.3 * t - 0.7) / (0.3 * -0.7)),
    "alpha(3)": (f_divergence_named("alpha", order=3), lambda t: (t**3 - 3 * t + 2) / 6),
    "alpha(-1)": (f_divergence_named("alpha", order=-1), lambda t: (1 / t + t - 2) / 2),
}
members = pytest.mark.parametrize("name", MEMBERS)
ratios = st.floats(1e-3, 1e3)


def test_every_name_of_the_table_is_held_here() -> None:
    assert {name.partition("(")[0] for name in MEMBERS} == set(F_DIVERGENCES)
    assert all(member.name == name.partition("(")[0] for name, (member, _) in MEMBERS.items())


@members
@given(ratios)
def test_generators_are_their_formulas(name: str, t: float) -> None:
    member, formula = MEMBERS[name]
    assert float(member.generator(t)) == pytest.approx(formula(t), rel=1e-9, abs=1e-13)


@members
def test_generators_touch_0_at_1_and_end_as_the_table_says(name: str) -> None:
    member, formula = MEMBERS[name]
    assert float(member.generator(1.0)) == 0
    assert float(member.derivative(1.0)) == 0
    assert float(member.generator(0.0)) == pytest.approx(member.at_zero)
    near_0, far = formula(1e-12), formula(1e12) / 1e12
    assert near_0 == pytest.approx(member.at_zero, rel=0.01) if math.isfinite(member.at_zero) else near_0 > 20
    finite = math.isfinite(member.slope_at_infinity)
    assert far == pytest.approx(member.slope_at_infinity, rel=0.01) if finite else far > 20


@members
@given(ratios.filter(lambda t: abs(t - 1) > 1e-3))
def test_derivatives_are_finite_differences(name: str, t: float) -> None:
    member, formula = MEMBERS[name]
    h = 1e-5 * t
    slope = (formula(t + h) - formula(t - h)) / (2 * h)
    assert float(member.derivative(t)) == pytest.approx(slope, rel=1e-4, abs=1e-5)


@members
@given(ratios)
def test_derivatives_at_a_log_ratio_are_those_at_the_ratio(name: str, t: float) -> None:
    member, _ = MEMBERS[name]
    assert float(member.derivative_at(math.log(t))) == pytest.approx(float(member.derivative(t)), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("log_ratio", [-1000.0, 1000.0])
def test_derivatives_need_no_ratio_that_is_a_number(log_ratio: float) -> None:
    """exp(1000) is none. Closed forms, where they are finite; that of js is w (s - log(1 - w + w exp(s)))."""
    below = log_ratio < 0
    wanted = {
        "forward_kl": log_ratio,
        "js": 0.5 * (log_ratio + math.log(2)) if below else 0.5 * math.log(2),
        "js(0.2)": 0.2 * (log_ratio - math.log(0.8)) if below else -0.2 * math.log(0.2),
        "total_variation": -0.5 if below else 0.5,
    }
    wanted |= {"chi2": -2, "alpha(3)": -0.5} if below else {"reverse_kl": 1, "squared_hellinger": 0.5, "alpha(-1)": 0.5}
    for name, value in wanted.items():
        s = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
        slope = MEMBERS[name][0].derivative_at(s)
        assert float(slope.detach()) == pytest.approx(value, rel=1e-13)
        if name != "total_variation":
            assert torch.autograd.grad(slope, s)[0].isfinite()


@members
@given(ratios)
def test_conjugates_meet_generators_at_their_slopes(name: str, t: float) -> None:
    """f*(f'(t)) = t f'(t) - f(t), and the slope of f* there is t."""
    member, _ = MEMBERS[name]
    u = torch.tensor(float(member.derivative(t)), dtype=torch.float64, requires_grad=True)
    assert bool(member.in_domain(u))
    value = member.conjugate(u)
    wanted = t * float(u.detach()) - float(member.generator(t))
    assert float(value.detach()) == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    if name != "total_variation":
        assert float(torch.autograd.grad(value, u)[0]) == pytest.approx(t, rel=1e-5)


@members
@given(st.floats(-20, 20), ratios)
def test_conjugates_bound_every_line_below_their_generator(name: str, u: float, t: float) -> None:
    """Fenchel and Young: f(t) + f*(u) >= u t."""
    member, _ = MEMBERS[name]
    assert float(member.conjugate(u)) + float(member.generator(t)) >= u * t - 1e-9 * (1 + abs(u * t))


@members
@pytest.mark.parametrize("u", [-50.0, -3.0, -0.4, 0.05, 0.2])
def test_conjugates_are_the_greatest_gap_found_by_search(name: str, u: float) -> None:
    member, formula = MEMBERS[name]
    t = np.exp(np.linspace(-25, 12, 400_001))
    gaps = u * t - formula(t)
    if bool(member.in_domain(u)):
        assert float(member.conjugate(u)) == pytest.approx(max(gaps.max(), -member.at_zero), rel=1e-3, abs=1e-6)
    else:
        assert gaps.max() > 0.1
        assert gaps.argmax() == len(t) - 1


@members
def test_conjugates_are_infinite_beyond_their_domain(name: str) -> None:
    member, _ = MEMBERS[name]
    end = member.slope_at_infinity
    if math.isfinite(end):
        assert float(member.conjugate(end + 1e-9)) == math.inf
        assert math.isfinite(float(member.conjugate(end - 1e-9)))
        assert math.isfinite(float(member.conjugate(end))) == member.attained
    u = torch.tensor([0.1, 100.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(member.conjugate(u)[0], u)
    assert slope.isfinite().all()


@members
def test_the_divergence_is_that_of_the_generator_and_the_variational_bound_is_met(name: str) -> None:
    member, formula = MEMBERS[name]
    p, q = np.array([0.1, 0.2, 0.7]), np.array([0.5, 0.3, 0.2])
    value = float(f_divergence(Probs(p), Probs(q), member))
    assert value == pytest.approx((q * formula(p / q)).sum(), rel=1e-12)
    critic = member.derivative(p / q)
    assert (p * critic - q * member.conjugate(critic)).sum() == pytest.approx(value, rel=1e-12)
    worse = np.clip(critic * 0.9, None, member.slope_at_infinity)
    assert (p * worse - q * member.conjugate(worse)).sum() <= value + 1e-12


@members
@pytest.mark.parametrize("zero_of_p", [True, False])
def test_divergences_at_zeros_are_limits(name: str, zero_of_p: bool) -> None:
    member, _ = MEMBERS[name]
    one, other = np.array([0.0, 0.4, 0.6]), np.array([0.3, 0.3, 0.4])
    tiny = np.array([1e-13, 0.4, 0.6])
    exact, near = (
        float(f_divergence(*map(Probs, (x, other) if zero_of_p else (other, x)), member)) for x in (one, tiny)
    )
    assert near == pytest.approx(exact, rel=1e-3) if math.isfinite(exact) else near > 5


def test_names_are_those_of_the_functions() -> None:
    p, q = Probs([0.1, 0.2, 0.7]), Probs([0.5, 0.3, 0.2])
    wanted = {
        "forward_kl": dv.kl(p, q),
        "reverse_kl": dv.kl(q, p),
        "js": dv.js(p, q),
        "total_variation": dv.total_variation(p, q),
        "squared_hellinger": dv.hellinger(p, q) ** 2,
        "chi2": dv.chi2(p, q),
    }
    for name, value in wanted.items():
        assert float(f_divergence(p, q, name)) == pytest.approx(float(value), rel=1e-14)


def test_a_divergence_of_ones_own_is_summed_by_its_definition() -> None:
    own = FDivergence.of(lambda t: t * np.log(t), at_zero=0.0, slope_at_infinity=math.inf)
    p, q = Probs([0.5, 0.5, 0.0]), Probs([0.25, 0.25, 0.5])
    assert float(f_divergence(p, q, own)) == pytest.approx(math.log(2), rel=1e-14)
    assert float(f_divergence(q, p, own)) == math.inf
    with pytest.raises(DistributionError, match="made without a conjugate"):
        own.conjugate(0.0)


def test_a_parameter_that_a_name_lacks_is_refused() -> None:
    with pytest.raises(DistributionError, match="does not go with"):
        f_divergence_named("chi2", order=2.0)
    with pytest.raises(DistributionError, match="does not go with"):
        f_divergence_named("alpha")
