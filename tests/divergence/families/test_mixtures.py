"""Claims about mixtures of normals: quadrature and SciPy are the oracles of bounds and of samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kilter.divergence import quadrature
from kilter.divergence.families import Gamma, Normal
from kilter.divergence.families.closed_forms import kl
from kilter.divergence.families.mixtures import Mixture, entropy_bounds, kl_bounds, kl_by_sampling
from kilter.divergence.families.multivariate import DiagonalNormal, LowRankNormal, MultivariateNormal
from kilter.errors import DistributionError


def drawn(count: int, seed: int, spread: float = 3.0) -> Mixture:
    random = np.random.default_rng(seed)
    means, sds = spread * random.normal(size=count), np.exp(0.5 * random.normal(size=count))
    return Mixture(random.dirichlet(np.ones(count)), Normal(means, sds))


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000), st.floats(0, 6))
def test_kl_and_entropy_lie_between_their_bounds(of_p: int, of_q: int, seed: int, spread: float) -> None:
    p, q = drawn(of_p, seed, spread), drawn(of_q, seed + 1, spread)
    bounds, found = kl_bounds(p, q), quadrature.kl(p, q)
    assert 0 <= bounds.lower <= found.value + found.error + 1e-9
    assert found.value - found.error - 1e-9 <= bounds.upper < math.inf
    least, most = entropy_bounds(p)
    assert least - 1e-9 <= quadrature.entropy(p).value <= most + 1e-9


def test_bounds_of_single_normals_meet_from_above_and_of_equal_mixtures_are_zero() -> None:
    p, q = Normal(0.0, 1.0), Normal(1.0, 2.0)
    assert float(kl_bounds(p, q).upper) == pytest.approx(float(kl(p, q)), rel=1e-12)
    mixture = drawn(3, 0)
    assert kl_bounds(mixture, mixture) == (0, 0)


def test_bounds_are_close_where_components_lie_far_apart() -> None:
    p = Mixture([0.3, 0.7], Normal(np.array([-50.0, 50.0]), 1.0))
    q = Mixture([0.6, 0.4], Normal(np.array([-50.0, 50.0]), 1.0))
    wanted = 0.3 * math.log(0.5) + 0.7 * math.log(7 / 4)
    assert float(kl_bounds(p, q).upper) == pytest.approx(wanted, rel=1e-9)
    assert float(kl_bounds(p, q).lower) <= wanted
    least, most = entropy_bounds(p)
    exact = 0.5 * math.log(2 * math.pi * math.e) - 0.3 * math.log(0.3) - 0.7 * math.log(0.7)
    assert float(least) == pytest.approx(exact)
    assert float(most) == pytest.approx(exact)


def test_the_bounds_of_vectors_hold_the_estimate_between_them() -> None:
    random = np.random.default_rng(0)
    roots = random.normal(size=(2, 3, 3, 5)) / 2
    p, q = (
        Mixture(random.dirichlet(np.ones(3)), MultivariateNormal.of(random.normal(size=(3, 3)), r @ r.swapaxes(-1, -2)))
        for r in roots
    )
    found, bounds = kl_by_sampling(p, q, samples=40_000, random=random), kl_bounds(p, q)
    assert bounds.lower - 5 * found.standard_error < found.value < bounds.upper + 5 * found.standard_error


def test_the_estimate_is_as_far_from_the_integral_as_its_standard_error_says() -> None:
    p, q = drawn(3, 1), drawn(2, 2)
    exact = quadrature.kl(p, q).value
    found = [kl_by_sampling(p, q, samples=4000, random=np.random.default_rng(seed)) for seed in range(60)]
    away = np.array([(estimate.value - exact) / estimate.standard_error for estimate in found])
    assert abs(away.mean()) < 0.5
    assert 0.7 < away.std() < 1.4
    assert found[0].samples == 4000
    assert found[0].bias == "unbiased"


FORMS: list[tuple[Any, Any]] = [
    (DiagonalNormal(np.array([[0.0, 1.0], [3.0, -1.0]]), np.array([1.0, 2.0])), np.diag([1.0, 4.0])),
    (MultivariateNormal.of(np.array([[0.0, 1.0], [3.0, -1.0]]), [[2.0, 0.5], [0.5, 1.0]]), [[2.0, 0.5], [0.5, 1.0]]),
    (
        LowRankNormal(np.array([[0.0, 1.0], [3.0, -1.0]]), np.array([[1.0], [2.0]]), np.array([0.5, 1.0])),
        [[1.5, 2.0], [2.0, 5.0]],
    ),
]


@pytest.mark.parametrize(("components", "covariance"), FORMS, ids=["diagonal", "full", "low rank"])
def test_densities_and_samples_are_those_of_the_components(components: Any, covariance: Any) -> None:
    p = Mixture([0.25, 0.75], components)
    x = np.random.default_rng(0).normal(size=(6, 2))
    weighted = zip([0.25, 0.75], p.components.mean, strict=True)
    parts = [w * stats.multivariate_normal(m, covariance).pdf(x) for w, m in weighted]
    np.testing.assert_allclose(p.log_density(x), np.log(sum(parts)), rtol=1e-12)
    draws = p.sample(200_000, np.random.default_rng(1))
    mean = 0.25 * p.components.mean[0] + 0.75 * p.components.mean[1]
    between = p.components.mean[1] - p.components.mean[0]
    wanted = np.asarray(covariance) + 0.25 * 0.75 * np.outer(between, between)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), wanted, atol=0.06)


def test_bounds_are_differentiable() -> None:
    mean = torch.tensor([-1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p = Mixture([0.5, 0.5], Normal(mean, 1.0))
    upper = kl_bounds(p, Normal(0.0, 2.0)).upper
    (gradient,) = torch.autograd.grad(upper, mean)
    ahead, behind = (
        float(kl_bounds(Mixture([0.5, 0.5], Normal(np.array([-1.0 + s, 2.0]), 1.0)), Normal(0.0, 2.0)).upper)
        for s in (1e-5, -1e-5)
    )
    assert float(gradient[0]) == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixture([0.5, 0.6], Normal(np.zeros(2), 1.0)), "the weights of a mixture must be"),
        (lambda: Mixture([0.5, 0.5], Normal(np.zeros(3), 1.0)), r"has 2 weights and mean for \(3,\)"),
        (lambda: Mixture([0.5, 0.5], Gamma(np.ones(2), 1.0)), "a mixture of Gamma; its components must be normals"),
        (lambda: kl_bounds(Gamma(1, 1), Normal(0, 1)), "found Gamma; give a Mixture of normals, or a normal"),
        (lambda: kl(Mixture([1.0], Normal(np.zeros(1), 1.0)), Normal(0, 1)), "mixtures bounds and estimates"),
    ],
)
def test_what_is_no_mixture_of_normals_is_refused(make: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        make()


def test_no_samples_are_no_estimate() -> None:
    with pytest.raises(DistributionError, match="found samples=0; wanted how many to draw"):
        kl_by_sampling(Normal(0, 1), Normal(1, 1), samples=0, random=np.random.default_rng(0))
