"""Claims about closed forms between families: torch, quadrature by SciPy and enumeration are the oracles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch import distributions as of_torch
from torch.distributions.kl import _KL_REGISTRY as TORCH_PAIRS

from kilter.divergence import closed_forms
from kilter.divergence.families import (
    FAMILIES,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    ChiSquared,
    Exponential,
    Family,
    Gamma,
    Geometric,
    Gumbel,
    InverseGaussian,
    Kumaraswamy,
    Laplace,
    Logistic,
    LogNormal,
    NegativeBinomial,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    Uniform,
    VonMises,
    Weibull,
)
from kilter.divergence.families.closed_forms import kl, way_of_kl
from kilter.divergence.families.objects import TORCH
from kilter.errors import DistributionError

NUMBERS = list(FAMILIES.values())
# Ranges that parameters are drawn from, by name; others are drawn between 0.6 and 4.
RANGES = {
    "mean": (0.5, 2.0), "location": (-1.0, 1.0), "log_mean": (-0.5, 0.5), "log_sd": (0.3, 0.8), "low": (0.05, 0.4),
    "high": (0.5, 0.95), "probability": (0.1, 0.9),
}  # fmt: skip


def drawn(family: type[Family], random: np.random.Generator) -> Any:
    if family is Categorical:
        return Categorical(random.dirichlet(np.ones(4)))
    values = {name: float(random.uniform(*RANGES.get(name, (0.6, 4.0)))) for name in family.parameter_names()}
    if "n" in values:
        values["n"] = 7.0 if family is Binomial else float(random.uniform(1, 9))
    return family(**values)


def pair_drawn(p: type[Family], q: type[Family], random: np.random.Generator) -> tuple[Any, Any]:
    """Two distributions for which the formula holds."""
    first, second = drawn(p, random), drawn(q, random)
    for name in way_of_kl(p, q)[1]:
        value = 1.0 if Geometric in (p, q) else 2.0
        first = first.with_parameters([value if n == name else getattr(first, n) for n in first.parameter_names()])
        second = second.with_parameters([value if n == name else getattr(second, n) for n in second.parameter_names()])
    return first, second


def integral(p: Any, function: Callable[[Any, float], float]) -> float:
    """E_p of a function of p and x by SciPy's quadrature on a mapped line, or by summation."""
    if p.discrete:
        x = np.arange(300.0)
        some = p.log_density(x) > -math.inf
        return math.fsum(math.exp(p.log_density(v)) * function(p, v) for v in x[some])
    low, high = (float(end) for end in p.support())

    def mapped(t: float) -> float:
        if math.isinf(low):
            x, slope = math.sinh(t), math.cosh(t)
        elif math.isinf(high):
            x, slope = low + math.exp(t), math.exp(t)
        else:
            part = 1 / (1 + math.exp(-t))
            x, slope = low + (high - low) * part, (high - low) * part * (1 - part)
        log_density = float(p.log_density(x))
        return math.exp(log_density) * function(p, x) * slope if log_density > -700 else 0.0

    reach = 36 if math.isinf(low) else 35 if math.isfinite(high) else 120
    edges = np.linspace(-reach, reach, 25)
    return math.fsum(integrate.quad(mapped, a, b, epsabs=1e-11, limit=100)[0] for a, b in itertools.pairwise(edges))


def log_ratio_to(q: Any) -> Callable[[Any, float], float]:
    return lambda p, x: float(p.log_density(x)) - float(q.log_density(x))


# By hand.


def test_kl_of_normals_one_deviation_apart_is_a_half() -> None:
    assert float(kl(Normal(0, 1), Normal(1, 1))) == 0.5


@pytest.mark.parametrize(
    ("p", "q", "nats"),
    [
        (Normal(0, 1), Normal(0, 2), math.log(2) - 3 / 8),
        (Normal(0, 2), Normal(0, 1), 1.5 - math.log(2)),
        (Exponential(1), Exponential(2), 1 - math.log(2)),
        (Exponential(2), Exponential(1), math.log(2) - 0.5),
        (Poisson(2), Poisson(1), 2 * math.log(2) - 1),
        (Bernoulli(0.5), Bernoulli(0.25), 0.5 * math.log(4 / 3)),
        (Categorical([0.2, 0.8]), Categorical([0.8, 0.2]), 0.6 * math.log(4)),
        (Uniform(0, 1), Uniform(0, 4), math.log(4)),
        (Laplace(0, 1), Laplace(1, 1), math.exp(-1)),
        (Cauchy(0, 1), Cauchy(2, 1), math.log(2)),
        (Pareto(1, 2), Pareto(2, 1), -math.log(2) + 2 * math.log(2) + 1),
        (Geometric(0.5), Geometric(0.25), math.log(4 / 3)),
        (Normal(0, 1), Laplace(0, 1), math.log(2) + math.sqrt(2 / math.pi) - 0.5 * math.log(2 * math.pi) - 0.5),
    ],
    ids=repr,
)
def test_kl_is_that_worked_out_by_hand(p: Family, q: Family, nats: float) -> None:
    assert float(kl(p, q)) == pytest.approx(nats, rel=1e-14)


# Against other makes.

PAIRS = [(p, q) for p in NUMBERS for q in NUMBERS if way_of_kl(p, q)[0] in ("formula", "sum", "expectations")]


def test_most_pairs_that_can_be_compared_have_a_closed_form() -> None:
    assert len(PAIRS) > 200


@pytest.mark.parametrize("family", NUMBERS, ids=lambda family: family.family_name())
def test_kl_from_a_family_is_the_integral_of_its_definition(family: type[Family]) -> None:
    random = np.random.default_rng(len(family.__name__))
    partners = [q for p, q in PAIRS if p is family]
    assert partners or family is StudentT
    for partner in partners:
        p, q = pair_drawn(family, partner, random)
        found = float(kl(p, q))
        if math.isfinite(found):
            tolerance = 1e-6 if p.kind in ("half-line", "tail", "unit") else 1e-7
            assert found == pytest.approx(integral(p, log_ratio_to(q)), rel=tolerance, abs=1e-9), (p, q)


@pytest.mark.parametrize("family", NUMBERS, ids=lambda family: family.family_name())
def test_entropy_is_the_integral_of_its_definition(family: type[Family]) -> None:
    if closed_forms.entropy_formula(family) is None:
        assert family in (Poisson, NegativeBinomial)
        return
    p = drawn(family, np.random.default_rng(3))
    wanted = integral(p, lambda p, x: -float(p.log_density(x)) if p.log_density(x) > -math.inf else 0.0)
    assert float(closed_forms.entropy(p)) == pytest.approx(wanted, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("family", NUMBERS, ids=lambda family: family.family_name())
def test_hellinger_and_bhattacharyya_are_integrals_of_their_definition(family: type[Family]) -> None:
    if closed_forms.within_family(closed_forms.BHATTACHARYYA_PAIRS, family) is None:
        with pytest.raises(DistributionError, match="has no closed form"):
            closed_forms.hellinger(drawn(family, np.random.default_rng(0)), drawn(family, np.random.default_rng(1)))
        return
    random = np.random.default_rng(5)
    p, q = drawn(family, random), drawn(family, random)
    for name in closed_forms.within_family(closed_forms.BHATTACHARYYA_PAIRS, family).equal:  # type: ignore[union-attr]
        q = q.with_parameters([getattr(p if n == name else q, n) for n in q.parameter_names()])
    wanted = integral(p, lambda p, x: math.exp((float(q.log_density(x)) - float(p.log_density(x))) / 2))
    assert float(closed_forms.bhattacharyya(p, q)) == pytest.approx(-math.log(wanted), rel=1e-7, abs=1e-9)
    assert float(closed_forms.hellinger(p, q)) == pytest.approx(math.sqrt(1 - wanted), rel=1e-7)
    assert float(closed_forms.hellinger(p, p)) == pytest.approx(0, abs=1e-7)


# How PyTorch's distributions are made of a family's parameters, where the order or the parameters differ.
SWAPPED = {"Pareto": (1, 0), "Weibull": (1, 0)}
OF_TORCH = {
    family: getattr(of_torch, name)
    for name in TORCH
    for family in NUMBERS
    if name.lower() == {"chisquared": "chi2"}.get(family.family_name(), family.family_name())
}


def torch_pair(family: type[Family], random: np.random.Generator) -> tuple[Any, Any, list[torch.Tensor]]:
    p = drawn(family, random)
    values = [torch.tensor(v, dtype=torch.float64) for v in p.parameters()]
    differentiable = [v.requires_grad_() for name, v in zip(p.parameter_names(), values, strict=True) if name != "n"]
    order = SWAPPED.get(family.__name__, range(len(values)))
    *others, last = [values[i] for i in order]
    named = p.parameter_names()[-1].startswith("prob")
    theirs = OF_TORCH[family](*others, probs=last) if named else OF_TORCH[family](*others, last)
    return p.with_parameters(values), theirs, differentiable


def torch_has(p: type[Family], q: type[Family]) -> bool:
    try:
        of_torch.kl_divergence(torch_pair(p, np.random.default_rng(0))[1], torch_pair(q, np.random.default_rng(1))[1])
    except NotImplementedError:
        return False
    return True


IN_TORCH = [(p, q) for p, q in itertools.product(OF_TORCH, OF_TORCH) if torch_has(p, q)]


def test_no_pair_of_families_that_torch_has_is_left_out() -> None:
    tested = {(OF_TORCH[p], OF_TORCH[q]) for p, q in IN_TORCH}
    vectors_and_wrappers = {
        "MultivariateNormal", "LowRankMultivariateNormal", "Dirichlet", "OneHotCategorical", "Independent",
        "TransformedDistribution", "ExponentialFamily",
    }  # fmt: skip
    assert {pair for pair in TORCH_PAIRS if not {t.__name__ for t in pair} & vectors_and_wrappers} <= tested


@pytest.mark.parametrize(("p", "q"), IN_TORCH, ids=lambda family: family.family_name())
def test_kl_and_its_gradients_are_those_of_torch(p: type[Family], q: type[Family]) -> None:
    random = np.random.default_rng(len(p.__name__) * 31 + len(q.__name__))
    for _ in range(2):
        ours_p, theirs_p, of_p = torch_pair(p, random)
        ours_q, theirs_q, of_q = torch_pair(q, random)
        found, wanted = kl(ours_p, ours_q), of_torch.kl_divergence(theirs_p, theirs_q)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
        if torch.isfinite(wanted) and wanted.requires_grad:
            gradients = torch.autograd.grad(wanted, [*of_p, *of_q], allow_unused=True, materialize_grads=True)
            ours = torch.autograd.grad(found, [*of_p, *of_q], allow_unused=True, materialize_grads=True)
            if p is Categorical:  # torch divides by the sum, so its gradients lie in the simplex
                ours = tuple(g - (v * g).sum() for v, g in zip([*of_p, *of_q], ours, strict=True))
            torch.testing.assert_close(tuple(ours), gradients, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("p", "q"), [pair for pair in PAIRS if pair not in IN_TORCH], ids=lambda f: f.family_name())
def test_gradients_that_torch_lacks_are_finite_differences(p: type[Family], q: type[Family]) -> None:
    random = np.random.default_rng(11)
    first, second = pair_drawn(p, q, random)
    if not math.isfinite(float(kl(first, second))):
        return
    fixed = {"n", *way_of_kl(p, q)[1]}
    for which, family in enumerate((first, second)):
        for place, name in enumerate(family.parameter_names()):
            if name in fixed or name == "probabilities":
                continue

            def moved(step: float, which: int = which, place: int = place) -> Any:
                both = [first, second]
                values = [torch.tensor(float(v), dtype=torch.float64) if np.ndim(v) == 0 else torch.tensor(v)
                          for v in both[which].parameters()]  # fmt: skip
                values[place] = (values[place] + step).requires_grad_()
                both[which] = both[which].with_parameters(values)
                return kl(*both), values[place]

            value, parameter = moved(0.0)
            if not value.requires_grad:
                continue
            (gradient,) = torch.autograd.grad(value, parameter)
            with torch.no_grad():
                numeric = (moved(1e-5)[0] - moved(-1e-5)[0]) / 2e-5
            torch.testing.assert_close(gradient, numeric, rtol=2e-4, atol=1e-6)


# Claims that hold for every pair.


@pytest.mark.parametrize("family", [p for p, q in PAIRS if p is q], ids=lambda family: family.family_name())
def test_kl_of_equal_distributions_is_exactly_zero(family: type[Family]) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        p = drawn(family, random)
        assert float(kl(p, p)) == 0


TINY: list[tuple[Callable[[float], Family], Callable[[mpmath.mpf], mpmath.mpf]]] = [
    (lambda d: Normal(1 + d, 2), lambda d: d**2 / 8),
    (lambda d: Normal(1, 2 * (1 + d)), lambda d: (1 / (1 + d) ** 2 - 1) / 2 + mpmath.log(1 + d)),
    (lambda d: Exponential(3 * (1 + d)), lambda d: d - mpmath.log(1 + d)),
    (lambda d: Poisson(3 * (1 + d)), lambda d: 3 * (d - mpmath.log(1 + d))),
    (lambda d: Gamma(2 * (1 + d), 1), lambda d: _gamma_excess(2, 2 * (1 + d))),
    (lambda d: Beta(2 * (1 + d), 3), lambda d: _gamma_excess(2, 2 * (1 + d)) - _gamma_excess(5, 5 + 2 * d)),
    (lambda d: Laplace(d, 1), lambda d: mpmath.exp(-abs(d)) - 1 + abs(d)),
    (lambda d: Cauchy(d, 1), lambda d: mpmath.log(1 + d**2 / 4)),
    (lambda d: Logistic(d, 1), lambda d: d * mpmath.coth(d / 2) - 2),
]


def _gamma_excess(a: Any, b: Any) -> Any:
    return mpmath.loggamma(b) - mpmath.loggamma(a) - (b - a) * mpmath.digamma(a)


@pytest.mark.parametrize(("family", "wanted"), TINY)
@pytest.mark.parametrize("d", [2.0**-8, 2.0**-20, 2.0**-26])
def test_tiny_differences_keep_their_digits(family: Any, wanted: Any, d: float) -> None:
    with mpmath.workdps(60):
        expected = float(wanted(mpmath.mpf(d)))
    assert float(kl(family(0.0), family(d))) == pytest.approx(expected, rel=1e-6)


positive = st.floats(1e-6, 1e6)


@settings(max_examples=200)
@given(positive, positive, positive, positive)
def test_kl_is_never_negative_nor_nan_however_far_apart(a: float, b: float, c: float, d: float) -> None:
    for p, q in [
        (Normal(a, b), Normal(c, d)),
        (Gamma(a, b), Gamma(c, d)),
        (Weibull(min(a, 50), b), Weibull(min(c, 50), d)),
        (Laplace(a, b), Laplace(c, d)),
        (Pareto(a, b), Pareto(c, d)),
        (VonMises(a, b), VonMises(c, d)),
        (InverseGaussian(a, b), InverseGaussian(c, d)),
    ]:
        assert float(kl(p, q)) >= -1e-9 * (1 + a + b + c + d), (p, q)


def test_a_hundred_million_deviations_are_told_apart() -> None:
    """log u of u = (sd / sd')^2 from u - 1 alone would have lost all its digits here."""
    assert float(kl(Normal(0, 1e-6), Normal(5, 1))) == pytest.approx(math.log(1e6) + (1e-12 + 25 - 1) / 2, rel=1e-14)


def test_special_cases_have_the_divergences_of_their_wider_family() -> None:
    assert float(kl(Exponential(2), Gamma(1, 2))) == 0
    assert float(kl(ChiSquared(3), Gamma(1.5, 0.5))) == 0
    assert float(kl(Weibull(1, 0.5), Exponential(2))) == pytest.approx(0, abs=1e-15)
    assert float(kl(Geometric(0.3), NegativeBinomial(1, 0.4))) == float(kl(Geometric(0.3), Geometric(0.4)))
    assert float(kl(Bernoulli(0.3), Binomial(1, 0.4))) == float(kl(Bernoulli(0.3), Bernoulli(0.4)))
    assert float(kl(LogNormal(0, 1), LogNormal(1, 1))) == 0.5


def test_what_q_rules_out_is_inf_and_the_other_way_is_not() -> None:
    assert float(kl(Uniform(0, 2), Uniform(0, 1))) == math.inf
    assert float(kl(Uniform(0, 1), Uniform(0, 2))) == pytest.approx(math.log(2))
    assert float(kl(Normal(0, 1), Exponential(1))) == math.inf
    assert float(kl(Poisson(1), Binomial(100, 0.5))) == math.inf
    assert float(kl(Binomial(3, 0.5), Binomial(2, 0.5))) == math.inf
    assert float(kl(Categorical([0.5, 0.5, 0.0]), Categorical([0.5, 0.0, 0.5]))) == math.inf
    assert float(kl(Bernoulli(1.0), Bernoulli(0.5))) == pytest.approx(math.log(2))


def test_a_tail_too_heavy_for_q_is_inf() -> None:
    assert float(kl(Cauchy(0, 1), Normal(0, 1))) == math.inf
    assert float(kl(StudentT(2, 0, 1), Normal(0, 1))) == math.inf
    assert math.isfinite(float(kl(StudentT(2.5, 0, 1), Normal(0, 1))))
    assert float(kl(Gumbel(0, 2), Gumbel(0, 1))) < math.inf
    assert float(kl(Laplace(0, 2), Gumbel(0, 1))) == math.inf


def test_cross_entropy_is_entropy_and_kl() -> None:
    for p, q in [(Normal(0, 1), Gumbel(1, 2)), (VonMises(0, 1), VonMises(1, 2)), (Beta(2, 3), Beta(1, 1))]:
        total = float(closed_forms.entropy(p)) + float(kl(p, q))
        assert float(closed_forms.cross_entropy(p, q)) == pytest.approx(total, rel=1e-13)


def test_the_wasserstein_distance_of_normals_is_that_of_means_and_deviations_and_no_change_of_variable_keeps_it() -> (
    None
):
    assert float(closed_forms.wasserstein2(Normal(0, 1), Normal(3, 5))) == 5
    with pytest.raises(DistributionError, match=r"W2\(lognormal, lognormal\) has no closed form"):
        closed_forms.wasserstein2(LogNormal(0, 1), LogNormal(1, 1))


# Arrays.


def test_parameters_broadcast_and_each_entry_is_a_distribution() -> None:
    found = kl(Normal(np.zeros((3, 1)), 1.0), Normal(np.arange(4.0), 1.0))
    np.testing.assert_allclose(found, np.broadcast_to(np.arange(4.0) ** 2 / 2, (3, 4)))
    rows = kl(Categorical(np.full((5, 2), 0.5)), Categorical([0.25, 0.75]))
    np.testing.assert_allclose(rows, np.full(5, 0.5 * math.log(4 / 3)))


def test_numbers_join_tensors_and_their_type_stays() -> None:
    mean = torch.tensor(1.0, requires_grad=True)
    found = kl(Normal(0, 1), Normal(mean, 2))
    assert found.dtype == torch.float32
    found.backward()
    assert float(mean.grad) == 0.25  # type: ignore[arg-type]


def test_jax_arrays_are_differentiated_by_jax() -> None:
    jax = pytest.importorskip("jax")
    gradient = jax.grad(lambda mean: kl(Normal(mean, 1.0), Gumbel(0.0, 1.0)))(0.5)
    mean = torch.tensor(0.5, requires_grad=True)
    (wanted,) = torch.autograd.grad(kl(Normal(mean, 1.0), Gumbel(0.0, 1.0)), mean)
    assert float(gradient) == pytest.approx(float(wanted), rel=1e-5)


# Errors.


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (Normal(0, 1), Cauchy(0, 1), r"KL\(normal, cauchy\) has no closed form; integrate it with .*quadrature"),
        (Logistic(0, 1), Logistic(0, 2), r"KL\(logistic, logistic\) has no closed form"),
        (Kumaraswamy(1, 2), Kumaraswamy(2, 2), r"KL\(kumaraswamy, kumaraswamy\) has no closed form"),
        (Poisson(1), Normal(0, 1), "they cannot be compared"),
        (Normal(0, 1), 3, "found int; give a family"),
        (Categorical([0.5, 0.5]), Categorical([0.2, 0.3, 0.5]), "has 2 components and categorical 3"),
    ],
)
def test_a_pair_without_a_closed_form_is_named_with_what_there_is_instead(p: Any, q: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        kl(p, q)


def test_whether_there_is_a_closed_form_is_said_of_whatever_kl_takes() -> None:
    assert closed_forms.has_closed_form("kl", of_torch.Normal(0.0, 1.0), Normal(0, 1))
    assert not closed_forms.has_closed_form("kl", lambda x: x, Normal(0, 1))
    with pytest.raises(
        DistributionError, match="there is no 'js' in closed form; there are entropy, cross_entropy, kl"
    ):
        closed_forms.has_closed_form("js", Normal(0, 1), Normal(0, 1))
    with pytest.raises(DistributionError, match="kl is of two distributions; give q"):
        closed_forms.has_closed_form("kl", Normal(0, 1))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: closed_forms.entropy(Poisson(2)), r"^entropy\(poisson\) has no closed form; .*quadrature.entropy,"),
        (lambda: closed_forms.hellinger(Logistic(0, 1), Logistic(0, 2)), r"^Hellinger .* form unless scale is equal; .*"
         "quadrature.hellinger,"),
        (lambda: kl(Logistic(0, 1), Logistic(0, 2)), r"^KL\(logistic, .* form unless scale is equal"),
        (lambda: Normal(None, 1), "normal: mean is None, which is no number"),
    ],
)  # fmt: skip
def test_what_there_is_instead_is_told(call: Callable[[], object], told: str) -> None:
    with pytest.raises(DistributionError, match=told):
        call()
