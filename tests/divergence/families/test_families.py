"""Claims about families: their densities are SciPy's, parameters out of bounds are refused, and how they are typed."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kilter.divergence.families import FAMILIES, Categorical, Family, Gamma, Normal, StudentT, Uniform
from kilter.divergence.families.notation import ALIASES, parse_distribution, signature
from kilter.errors import DistributionError

# Each family with SciPy's distribution of the same parameters.
IN_SCIPY: dict[str, Any] = {
    "normal(0.5,2)": stats.norm(0.5, 2),
    "laplace(0.5,2)": stats.laplace(0.5, 2),
    "gumbel(0.5,2)": stats.gumbel_r(0.5, 2),
    "logistic(0.5,2)": stats.logistic(0.5, 2),
    "cauchy(0.5,2)": stats.cauchy(0.5, 2),
    "studentt(3,0.5,2)": stats.t(3, 0.5, 2),
    "exponential(2)": stats.expon(scale=0.5),
    "gamma(3,2)": stats.gamma(3, scale=0.5),
    "inversegamma(3,2)": stats.invgamma(3, scale=2),
    "chisquared(3)": stats.chi2(3),
    "lognormal(0.5,2)": stats.lognorm(2, scale=math.exp(0.5)),
    "weibull(3,2)": stats.weibull_min(3, scale=2),
    "rayleigh(2)": stats.rayleigh(scale=2),
    "halfnormal(2)": stats.halfnorm(scale=2),
    "halfcauchy(2)": stats.halfcauchy(scale=2),
    "inversegaussian(3,2)": stats.invgauss(1.5, scale=2),
    "pareto(3,2)": stats.pareto(3, scale=2),
    "uniform(0.5,2)": stats.uniform(0.5, 1.5),
    "beta(3,2)": stats.beta(3, 2),
    "vonmises(0.5,2)": stats.vonmises(2, 0.5),
    "bernoulli(0.3)": stats.bernoulli(0.3),
    "binomial(5,0.3)": stats.binom(5, 0.3),
    "poisson(3)": stats.poisson(3),
    "geometric(0.3)": stats.geom(0.3, loc=-1),
    "negativebinomial(3,0.3)": stats.nbinom(3, 0.3),
}
BY_HAND = {
    "kumaraswamy(3,2)": lambda x: 6 * x**2 * (1 - x**3),
    "continuousbernoulli(0.3)": lambda x: 0.3**x * 0.7 ** (1 - x) * math.log(7 / 3) / (0.7 - 0.3),
    "categorical(0.2,0.5,0.3)": lambda x: [0.2, 0.5, 0.3][int(x)],
}


@pytest.mark.parametrize("text", IN_SCIPY)
def test_log_densities_are_those_of_scipy_inside_and_outside_the_support(text: str) -> None:
    p, theirs = parse_distribution(text), IN_SCIPY[text]
    x = np.arange(-3.0, 9.0) if p.discrete else np.linspace(-3.013, 3.013, 41)
    with np.errstate(all="ignore"):
        wanted = theirs.logpmf(x) if p.discrete else theirs.logpdf(x)
    np.testing.assert_allclose(p.log_density(x), wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("text", BY_HAND)
def test_densities_that_scipy_lacks_are_those_written_out(text: str) -> None:
    p = parse_distribution(text)
    for x in (0.0, 1.0, 2.0) if p.discrete else (0.1, 0.5, 0.9):
        assert math.exp(float(p.log_density(x))) == pytest.approx(BY_HAND[text](x), rel=1e-13)
    assert float(p.log_density(-0.5)) == -math.inf


def test_every_family_is_held_against_one_of_them() -> None:
    assert {text.partition("(")[0] for text in (*IN_SCIPY, *BY_HAND)} == set(FAMILIES)


def test_half_a_count_has_no_probability() -> None:
    assert float(parse_distribution("poisson(3)").log_density(0.5)) == -math.inf


def test_gradients_of_log_densities_are_finite_inside_and_zero_outside() -> None:
    shape = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    log_density = Gamma(shape, 1.0).log_density(x)
    (gradient,) = torch.autograd.grad(log_density[1], shape)
    assert float(gradient) == pytest.approx(math.log(0.5) - 0.42278433509846713)  # log x - psi(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(0, 0), "normal: sd is 0; it must be finite and more than 0"),
        (lambda: Normal(math.nan, 1), "normal: mean is nan; it must be finite"),
        (lambda: Normal(0, np.array([1.0, -2.0])), "normal: sd is -2; it must be"),
        (lambda: Normal("a", 1), "mean is 'a', which is no number"),
        (lambda: Uniform(1, 1), "low must be less than high"),
        (lambda: FAMILIES["binomial"](2.5, 0.5), "binomial: n is 2.5; it must be a whole number"),
        (lambda: FAMILIES["geometric"](0), "probability is 0; it must be more than 0 and at most 1"),
        (lambda: Categorical([0.2, 0.9]), "sum to 1.1; they must sum to 1"),
        (lambda: Categorical([[0.5, 0.5], [0.5, 0.6]]), "sum to 1.1"),
        (lambda: Categorical(1.0), r"probabilities has shape \[\]; expected \[..., D\]"),
    ],
)
def test_parameters_that_no_distribution_has_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        make()


# As they are typed.


def test_a_distribution_is_read_as_it_is_typed_by_order_or_by_name() -> None:
    assert parse_distribution("normal(0,1)") == Normal(0.0, 1.0)
    assert parse_distribution(" Normal ( sd = 2 , mean = -1e-3 ) ") == Normal(-0.001, 2.0)
    assert parse_distribution("student-t(3, scale=2, location=1)") == StudentT(3.0, 1.0, 2.0)
    assert parse_distribution("log normal(0,1)").family_name() == "lognormal"
    found = parse_distribution("categorical(0.2,0.8)")
    assert isinstance(found, Categorical)
    assert list(found.probabilities) == [0.2, 0.8]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_by_its_name_and_its_signature_names_its_parameters(name: str) -> None:
    family: type[Family] = FAMILIES[name]
    assert signature(family).removesuffix(")").partition("(")[0] == name
    values = {"low": 0.1, "probability": 0.5}
    if name == "categorical":
        assert parse_distribution("categorical(1)").family_name() == name
        return
    given = [values.get(parameter, 1.0) for parameter in family.parameter_names()]
    assert parse_distribution(f"{name}({','.join(map(str, given))})") == family(*given)
    named = ", ".join(f"{p}={v}" for p, v in zip(family.parameter_names(), given, strict=True))
    assert parse_distribution(f"{name.upper()}({named})") == family(*given)


def test_other_names_lead_to_families() -> None:
    assert set(ALIASES.values()) <= set(FAMILIES)
    assert not set(ALIASES) & set(FAMILIES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("norml(0,1)", r"there is no family called 'norml'; did you mean normal\(mean, sd\)"),
        ("foo(1)", "there is no family called 'foo'; the families are bernoulli, beta"),
        ("normal", r"found 'normal'; write a family with its parameters.*here: normal\(mean, sd\)"),
        ("normal(0,1", "write a family with its parameters in brackets"),
        ("0.2,0.8", "write a family with its parameters in brackets"),
        ("normal(0)", r"normal\(0\): sd is missing; write normal\(mean, sd\)"),
        ("normal()", "mean and sd are missing"),
        ("normal(0,1,2)", "3 parameters found"),
        ("normal(0,x)", "'x' is no number"),
        ("normal(0,)", "'' is no number"),
        ("normal(mu=0,sd=1)", "it has no parameter 'mu'"),
        ("normal(0,mean=1)", "mean is given twice"),
        ("normal(sd=1,0)", "'0' comes after a parameter that is named"),
        ("normal(0,-1)", "normal: sd is -1; it must be finite and more than 0"),
        ("categorical(0.2,0.9)", "sum to 1.1"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        parse_distribution(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DistributionError):
        parse_distribution(text)


def test_closed_forms_and_quadrature_load_neither_scipy_nor_torch_nor_all_of_numpy() -> None:
    code = (
        "import sys\n"
        "from kilter.divergence.families.describe import describe\n"
        "from kilter.divergence.families.notation import parse_distribution as read\n"
        "describe(read('gamma(2,1)'), read('vonmises(1,2)')); describe(read('poisson(2)'), read('binomial(3,0.2)'))\n"
        "print(*(m for m in ('scipy', 'torch', 'jax', 'numpy.f2py') if m in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
