"""Claims about distributions of SciPy and PyTorch: each is taken for the family with the same densities, or refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as of_torch

from kilter.divergence import quadrature
from kilter.divergence.families import Bernoulli, Categorical
from kilter.divergence.families.closed_forms import kl
from kilter.divergence.families.mixtures import Mixture, kl_bounds
from kilter.divergence.families.multivariate import DiagonalNormal
from kilter.divergence.families.objects import SCIPY, SCIPY_VECTORS, TORCH, family_of
from kilter.errors import DistributionError

FROZEN = [
    stats.norm(1, 2), stats.laplace(1, 2), stats.gumbel_r(1, 2), stats.logistic(loc=1, scale=2), stats.cauchy(1, 2),
    stats.t(3, 1, 2), stats.expon(scale=2), stats.gamma(3, scale=2), stats.erlang(3, scale=2),
    stats.invgamma(3, scale=2), stats.chi2(3, scale=2), stats.lognorm(s=0.5, scale=2), stats.weibull_min(3, scale=2),
    stats.rayleigh(scale=2), stats.halfnorm(scale=2), stats.halfcauchy(scale=2),
    stats.invgauss(mu=1.5, scale=2), stats.pareto(b=3, scale=2),
    stats.uniform(1, 2), stats.beta(2, 3), stats.vonmises(3, 0.5), stats.bernoulli(0.3), stats.binom(7, 0.3),
    stats.poisson(3), stats.nbinom(3, 0.3), stats.geom(0.3, loc=-1),
]  # fmt: skip


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda frozen: frozen.dist.name)
def test_a_frozen_distribution_is_the_family_with_its_density(frozen: Any) -> None:
    p = family_of(frozen)
    x = np.arange(0.0, 8.0) if p.discrete else np.linspace(0.05, 2.9, 30)
    with np.errstate(divide="ignore"):
        wanted = frozen.logpmf(x) if p.discrete else frozen.logpdf(x)
    np.testing.assert_allclose(p.log_density(x), wanted, rtol=1e-12, atol=1e-13)


def test_every_frozen_distribution_of_the_table_is_held_against_its_density() -> None:
    assert {frozen.dist.name for frozen in FROZEN} == {*SCIPY, "geom"}


TENSOR = {"dtype": torch.float64}
HALF, TWO = torch.tensor(0.5, **TENSOR), torch.tensor(2.0, **TENSOR)
MADE: dict[str, Any] = {
    "Chi2": of_torch.Chi2(TWO),
    "StudentT": of_torch.StudentT(torch.tensor(3.0, **TENSOR), HALF, TWO),
    "Exponential": of_torch.Exponential(TWO),
    "HalfNormal": of_torch.HalfNormal(TWO),
    "HalfCauchy": of_torch.HalfCauchy(TWO),
    "ContinuousBernoulli": of_torch.ContinuousBernoulli(HALF / 2),
    "Bernoulli": of_torch.Bernoulli(logits=HALF),
    "Binomial": of_torch.Binomial(5, HALF / 2),
    "Categorical": of_torch.Categorical(logits=torch.tensor([0.0, 1.0, 2.0], **TENSOR)),
    "Poisson": of_torch.Poisson(TWO),
    "Geometric": of_torch.Geometric(HALF / 2),
    "NegativeBinomial": of_torch.NegativeBinomial(3, HALF / 2),
    **{
        name: getattr(of_torch, name)(HALF, TWO)
        for name in ("Normal", "Laplace", "Gumbel", "Cauchy", "Gamma", "InverseGamma", "LogNormal", "Weibull", "Pareto",
                     "Uniform", "Beta", "Kumaraswamy", "VonMises")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_distribution_of_torch_is_the_family_with_its_density(name: str) -> None:
    theirs, p = MADE[name], family_of(MADE[name])
    x = (
        torch.arange(0, 3 if name != "Bernoulli" else 2, **TENSOR)
        if p.discrete
        else torch.linspace(0.55, 0.95, 9, **TENSOR)
    )
    torch.testing.assert_close(p.log_density(x), theirs.log_prob(x), rtol=1e-6, atol=1e-9)


def test_every_distribution_of_the_table_is_made_here_or_below() -> None:
    vectors = {
        "MultivariateNormal", "LowRankMultivariateNormal", "Dirichlet", "Multinomial", "OneHotCategorical",
        "Independent", "MixtureSameFamily",
    }  # fmt: skip
    assert set(MADE) | vectors == set(TORCH)


def test_vectors_of_torch_have_the_divergences_of_torch() -> None:
    random = np.random.default_rng(0)
    mean, root, factor = (torch.tensor(random.normal(size=shape)) for shape in ((3,), (3, 5), (3, 2)))
    pairs = [
        (
            of_torch.MultivariateNormal(mean, root @ root.T),
            of_torch.LowRankMultivariateNormal(-mean, factor, mean.exp()),
        ),
        (
            of_torch.LowRankMultivariateNormal(-mean, factor, mean.exp()),
            of_torch.MultivariateNormal(mean, root @ root.T),
        ),
        (of_torch.Dirichlet(mean.exp()), of_torch.Dirichlet((-mean).exp())),
        (of_torch.OneHotCategorical(logits=mean), of_torch.OneHotCategorical(logits=-mean)),
        (
            of_torch.Independent(of_torch.Normal(mean, mean.exp()), 1),
            of_torch.Independent(of_torch.Normal(-mean, 1.0), 1),
        ),
    ]
    for p, q in pairs:
        torch.testing.assert_close(kl(p, q), of_torch.kl_divergence(p, q), rtol=1e-10, atol=1e-12)
    assert isinstance(family_of(pairs[-1][0]), DiagonalNormal)


def test_vectors_of_scipy_are_families() -> None:
    frozen = [
        stats.multivariate_normal([0, 1], [[2, 0.5], [0.5, 1]]), stats.dirichlet([1.0, 2.0]),
        stats.multinomial(3, [0.2, 0.8]), stats.dirichlet_multinomial([1.0, 2.0], 3), stats.vonmises_fisher([0, 1], 2),
    ]  # fmt: skip
    assert {type(p).__name__ for p in frozen} == set(SCIPY_VECTORS)
    for p in frozen:
        assert float(kl(p, p)) == 0
    wanted = kl(stats.multivariate_normal([0, 1], np.eye(2)), stats.multivariate_normal([1, 1], np.eye(2)))
    assert float(wanted) == 0.5


def test_a_mixture_of_torch_is_a_mixture() -> None:
    mixture = of_torch.MixtureSameFamily(
        of_torch.Categorical(torch.tensor([0.3, 0.7])),
        of_torch.Normal(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0])),
    )
    p = family_of(mixture)
    assert isinstance(p, Mixture)
    x = torch.linspace(-2, 5, 11)
    torch.testing.assert_close(p.log_density(x), mixture.log_prob(x))
    assert float(kl_bounds(p, p).upper) == 0


def test_distributions_of_both_libraries_meet() -> None:
    assert float(kl(of_torch.Normal(0.0, 1.0), stats.norm(1, 1))) == 0.5
    assert float(kl(stats.norm(0, 1), of_torch.Normal(1.0, 1.0))) == 0.5


def test_gradients_reach_the_parameters_of_torch_distributions() -> None:
    mean = torch.tensor(1.0, requires_grad=True)
    kl(of_torch.Normal(mean, 1.0), stats.norm(0, 1)).backward()
    assert mean.grad == 1


def test_a_frozen_distribution_of_no_family_is_integrated_but_has_no_closed_form() -> None:
    moved = stats.gamma(3, loc=1)
    with pytest.raises(DistributionError, match="has no closed forms"):
        kl(moved, stats.gamma(3))
    assert quadrature.kl(moved, stats.expon()).value == pytest.approx(
        float(stats.gamma(3).expect(lambda x: stats.gamma(3).logpdf(x) + x + 1)), rel=1e-7
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            of_torch.Wishart(torch.tensor(3.0), torch.eye(2)),
            "found Wishart of torch.distributions.*those that are: Bern",
        ),
        (of_torch.Independent(of_torch.Gamma(torch.ones(2), torch.ones(2)), 1), "only Independent"),
        (stats.norm, "found norm_gen of scipy.stats; give it frozen"),
        (np.zeros(3), "found ndarray; give a family"),
    ],
)
def test_what_is_no_distribution_of_a_family_is_refused(found: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        family_of(found)


@pytest.mark.parametrize(
    "distribution",
    [
        of_torch.Bernoulli(logits=torch.tensor(20.0)),
        of_torch.Bernoulli(logits=torch.tensor([0.0, -120.0])),
        of_torch.Binomial(3, logits=torch.tensor(-120.0)),
        of_torch.Geometric(logits=torch.tensor(-120.0)),
        of_torch.ContinuousBernoulli(logits=torch.tensor(30.0)),
        of_torch.Categorical(logits=torch.tensor([0.0, -200.0])),
        of_torch.Multinomial(3, logits=torch.tensor([0.0, -200.0])),
    ],
    ids=lambda d: type(d).__name__,
)
def test_logits_that_no_probability_is_near_to_are_refused_and_not_clamped(distribution: Any) -> None:
    for _ in range(2):  # PyTorch keeps the probabilities once they were asked for
        with pytest.raises(DistributionError, match=r"of which no probability of torch\.float32 is near"):
            family_of(distribution)


def test_probabilities_of_0_and_1_and_logits_of_infinity_are_taken_at_their_word() -> None:
    assert float(kl(of_torch.Bernoulli(probs=torch.tensor(1.0)), Bernoulli(0.5))) == pytest.approx(math.log(2))
    never = of_torch.Categorical(logits=torch.tensor([0.0, -math.inf]))
    assert float(kl(never, Categorical([0.5, 0.5]))) == pytest.approx(math.log(2))
    twenty = of_torch.Bernoulli(logits=torch.tensor(20.0, dtype=torch.float64))
    p = 1 / (1 + math.exp(-20))
    wanted = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert float(kl(twenty, Bernoulli(0.5))) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: stats.Normal(mu=0, sigma=1), "found Normal of scipy.stats; give it frozen, as in scipy.stats.norm"),
        (lambda: stats.skewnorm([1, 2]), "found skewnorm of scipy.stats with parameters that are arrays"),
    ],
)
def test_what_scipy_has_beside_frozen_distributions_of_one_number_is_told(make: Any, told: str) -> None:
    with pytest.raises(DistributionError, match=told):
        family_of(make())
