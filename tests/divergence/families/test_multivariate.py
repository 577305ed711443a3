"""Claims about families of vectors: torch with dense covariances, SciPy and enumeration are the oracles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, linalg, special, stats
from torch import distributions as of_torch

from kilter.divergence import closed_forms
from kilter.divergence.families import Binomial, Categorical, Normal, VonMises
from kilter.divergence.families.closed_forms import bhattacharyya, entropy, kl, wasserstein2
from kilter.divergence.families.multivariate import (
    DiagonalNormal,
    Dirichlet,
    DirichletMultinomial,
    LowRankNormal,
    Multinomial,
    MultivariateNormal,
    VonMisesFisher,
    log_density_of_normal,
)
from kilter.errors import DistributionError

D, K = 5, 2
FORMS = ("diagonal", "full", "low rank")


def normal(form: str, random: np.random.Generator, batch: tuple[int, ...] = ()) -> tuple[Any, np.ndarray]:
    """A normal, and its covariance as a matrix."""
    mean = random.normal(size=(*batch, D))
    variances = np.exp(random.normal(size=(*batch, D)))
    if form == "diagonal":
        return DiagonalNormal(mean, np.sqrt(variances)), np.eye(D) * variances[..., None]
    if form == "full":
        root = random.normal(size=(*batch, D, D + 2)) / 2
        covariance = root @ np.swapaxes(root, -1, -2)
        return MultivariateNormal.of(mean, covariance), covariance
    factor = random.normal(size=(*batch, D, K))
    return LowRankNormal(mean, factor, variances), factor @ np.swapaxes(factor, -1, -2) + np.eye(D) * variances[
        ..., None
    ]


def dense(p: Any, covariance: np.ndarray) -> of_torch.MultivariateNormal:
    return of_torch.MultivariateNormal(torch.tensor(p.mean), torch.tensor(covariance))


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize(("form_p", "form_q"), list(itertools.product(FORMS, FORMS)))
def test_normals_of_all_forms_agree_with_dense_ones(form_p: str, form_q: str, batch: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    (p, of_p), (q, of_q) = normal(form_p, random, batch), normal(form_q, random)
    wanted = of_torch.kl_divergence(dense(p, of_p), dense(q, of_q)).numpy()
    np.testing.assert_allclose(kl(p, q), wanted, rtol=1e-12)
    np.testing.assert_allclose(entropy(p), dense(p, of_p).entropy().numpy(), rtol=1e-12)
    np.testing.assert_allclose(kl(p, p), 0, atol=0 if form_p != "low rank" else 1e-14)
    x = random.normal(size=(4, *batch, D))
    np.testing.assert_allclose(
        log_density_of_normal(np, p, x), dense(p, of_p).log_prob(torch.tensor(x)).numpy(), rtol=1e-12
    )


@pytest.mark.parametrize(("form_p", "form_q"), list(itertools.product(FORMS, FORMS)))
def test_w2_and_bhattacharyya_of_normals_are_those_with_matrix_roots(form_p: str, form_q: str) -> None:
    random = np.random.default_rng(2)
    (p, of_p), (q, of_q) = normal(form_p, random), normal(form_q, random)
    root = linalg.sqrtm(of_q)
    away = p.mean - q.mean
    spread = np.trace(of_p + of_q - 2 * np.real(linalg.sqrtm(root @ of_p @ root)))
    assert float(wasserstein2(p, q)) == pytest.approx(math.sqrt(away @ away + spread), rel=1e-10)
    middle = (of_p + of_q) / 2
    determinants = [np.linalg.slogdet(matrix)[1] for matrix in (middle, of_p, of_q)]
    wanted = away @ np.linalg.solve(middle, away) / 8 + (determinants[0] - sum(determinants[1:]) / 2) / 2
    assert float(bhattacharyya(p, q)) == pytest.approx(wanted, rel=1e-11)
    assert float(bhattacharyya(p, p)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("form_p", "form_q"), list(itertools.product(FORMS, FORMS)))
def test_gradients_of_normals_are_finite_differences(form_p: str, form_q: str) -> None:
    random = np.random.default_rng(3)
    p, q = normal(form_p, random)[0], normal(form_q, random)[0]
    values = [torch.tensor(v) for v in (*p.parameters(), *q.parameters())]
    direction = [torch.tensor(random.normal(size=v.shape)) for v in values]
    direction = [torch.tril(d) if d.ndim == 2 and d.shape == (D, D) else d for d in direction]
    count = len(p.parameters())

    def along(step: torch.Tensor) -> torch.Tensor:
        moved = [v + step * d for v, d in zip(values, direction, strict=True)]
        return kl(p.with_parameters(moved[:count]), q.with_parameters(moved[count:]))

    step = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(along(step), step)
    numeric = (along(torch.tensor(1e-6)) - along(torch.tensor(-1e-6))) / 2e-6
    torch.testing.assert_close(gradient, numeric.double(), rtol=1e-5, atol=1e-6)


def test_low_rank_normals_of_a_dimension_whose_matrix_would_not_fit_agree_with_a_formula() -> None:
    dimension = 300_000  # a covariance would take 720 GB
    ones = np.ones(dimension)
    factor = np.zeros((dimension, 1))
    factor[0] = 1.0
    p, q = LowRankNormal(0 * ones, factor, ones), LowRankNormal(0 * ones, 0 * factor, 2 * ones)
    wanted = (dimension - 1) * (0.5 - 1 + math.log(2)) / 2 + (2 / 2 - 1 + math.log(2 / 2)) / 2
    assert float(kl(p, q)) == pytest.approx(wanted, rel=1e-12)
    assert float(bhattacharyya(p, p)) == pytest.approx(0, abs=1e-8)


def test_an_ill_conditioned_covariance_keeps_its_digits() -> None:
    covariance = np.diag([1e12, 1.0, 1e-12])
    found = kl(MultivariateNormal.of(np.zeros(3), covariance), MultivariateNormal.of(np.zeros(3), 2 * covariance))
    assert float(found) == pytest.approx(1.5 * (0.5 - 1 + math.log(2)), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultivariateNormal.of(np.zeros(2), [[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (lambda: MultivariateNormal.of(np.zeros(2), [[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (lambda: MultivariateNormal(np.zeros(2), np.ones((2, 2))), "must be lower triangular"),
        (lambda: VonMisesFisher([1.0, 1.0], 2.0), "must be a unit vector"),
        (lambda: Multinomial(3, [0.5, 0.6]), "must sum to 1"),
        (lambda: LowRankNormal(np.zeros(2), np.ones((2, 1)), np.zeros(2)), "diagonal is 0; it must be"),
        (lambda: kl(DiagonalNormal([0.0], [1.0]), DiagonalNormal([0.0, 0.0], [1.0, 1.0])), "has 1 components and"),
        (lambda: MultivariateNormal(np.zeros(1), np.eye(3)), r"cholesky has shape \[3, 3\]; expected \[..., 1, 1\]"),
        (lambda: MultivariateNormal(np.zeros(2), np.eye(2, 3)), r"cholesky has shape \[2, 3\]; expected \[..., 2, 2\]"),
        (lambda: MultivariateNormal([0.0], [1.0]), r"cholesky has shape \[1\]; expected \[..., 1, 1\]"),
        (lambda: MultivariateNormal.of(np.zeros(3), np.eye(2)), r"shape \[2, 2\]; expected \[..., 3, 3\]"),
        (lambda: MultivariateNormal.of(np.zeros(2), np.eye(2, 3)), r"covariance has shape \[2, 3\]; expected"),
        (
            lambda: MultivariateNormal.of(np.zeros(2), np.stack([[[1.0, 0.5], [0.0, 1.0]], 1e9 * np.eye(2)])),
            "not symmetric",
        ),
        (
            lambda: LowRankNormal(np.zeros(3), np.ones((2, 1)), np.ones(3)),
            r"factor has shape \[2, 1\]; expected \[..., 3,",
        ),
        (lambda: Dirichlet(1.0), r"concentration has shape \[\]; expected \[..., D\] with D at least 2"),
        (lambda: DirichletMultinomial(3, [2.0]), "with D at least 2"),
        (lambda: Multinomial(3, 1.0), r"probabilities has shape \[\]; expected \[..., D\]"),
        (lambda: Normal(np.zeros(3), np.ones(2)), r"normal: shapes do not broadcast: mean \[3\], sd \[2\]"),
        (lambda: entropy(DirichletMultinomial(3, [1.0, 2.0])), "has no closed form"),
    ],
)
def test_what_is_no_distribution_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        make()


# Directions.


def unit(*components: float) -> np.ndarray:
    return np.array(components) / math.hypot(*components)


@pytest.mark.parametrize("dimension", [2, 3, 4, 30])
def test_von_mises_fisher_is_the_integral_over_the_sphere(dimension: int) -> None:
    """E[u_1] and the normaliser by quadrature over the cosine, whose density is exp(k c) (1 - c^2)^((d - 3) / 2)."""
    mean, other = np.eye(dimension)[0], unit(*np.arange(1.0, dimension + 1))

    def moments(concentration: float) -> tuple[float, float]:
        def density(angle: float) -> float:
            return math.exp(concentration * (math.cos(angle) - 1)) * math.sin(angle) ** (dimension - 2)

        mass = integrate.quad(density, 0, math.pi, epsabs=0, epsrel=1e-12)[0]
        first = integrate.quad(lambda a: math.cos(a) * density(a), 0, math.pi, epsabs=0, epsrel=1e-12)[0]
        return math.log(mass) + concentration, first / mass

    (log_p, length), (log_q, _), (log_middle, _) = (
        moments(k) for k in (7.0, 3.0, float(np.linalg.norm(7 * mean + 3 * other)) / 2)
    )
    p, q = VonMisesFisher(mean, 7.0), VonMisesFisher(other, 3.0)
    wanted = 7 * length - 3 * length * (mean @ other) - log_p + log_q
    assert float(kl(p, q)) == pytest.approx(wanted, rel=1e-10)
    assert float(kl(p, p)) == 0
    assert float(bhattacharyya(p, q)) == pytest.approx((log_p + log_q) / 2 - log_middle, rel=1e-10)
    assert float(entropy(p)) == pytest.approx(stats.vonmises_fisher(mean, 7.0).entropy(), rel=1e-11)


def test_von_mises_fisher_in_the_plane_is_von_mises_and_without_concentration_uniform() -> None:
    p, q = VonMisesFisher(unit(1, 0), 2.0), VonMisesFisher(unit(math.cos(1), math.sin(1)), 5.0)
    assert float(kl(p, q)) == pytest.approx(float(kl(VonMises(0, 2), VonMises(1, 5))), rel=1e-13)
    log_area = math.log(2) + 1.5 * math.log(math.pi) - special.gammaln(1.5)
    assert float(entropy(VonMisesFisher(unit(1, 2, 3), 0.0))) == pytest.approx(log_area)


def test_a_large_concentration_in_a_large_dimension_neither_overflows_nor_loses_its_gradient() -> None:
    concentration = torch.tensor(1e6, dtype=torch.float64, requires_grad=True)
    direction = torch.nn.functional.normalize(torch.ones(4096, dtype=torch.float64), dim=0)
    value = kl(VonMisesFisher(direction, concentration), VonMisesFisher(direction, 1e5))
    (gradient,) = torch.autograd.grad(value, concentration)
    assert 0 < value.item() < math.inf
    assert 0 < gradient.item() < math.inf


# The simplex, and counts.


def compositions(n: int, parts: int) -> np.ndarray:
    return np.array([x for x in itertools.product(range(n + 1), repeat=parts) if sum(x) == n])


def test_dirichlets_are_those_of_torch() -> None:
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, 2.0, 7.0], [1.0, 3.0, 0.2]))
    wanted = of_torch.kl_divergence(of_torch.Dirichlet(a), of_torch.Dirichlet(b))
    found = kl(Dirichlet(a), Dirichlet(b))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found, [a, b]), torch.autograd.grad(wanted, [a, b]), rtol=1e-7, atol=1e-9
    )
    assert float(entropy(Dirichlet([0.5, 2.0, 7.0]))) == pytest.approx(stats.dirichlet([0.5, 2.0, 7.0]).entropy())


def test_dirichlet_multinomials_and_multinomials_are_enumerated() -> None:
    a, b, n = np.array([0.5, 2.0, 1.5]), np.array([1.0, 0.7, 3.0]), 6
    x = compositions(n, 3)
    for ours, theirs in [
        (lambda v: DirichletMultinomial(n, v), lambda v: stats.dirichlet_multinomial(v, n)),
        (lambda v: Multinomial(n, v / v.sum()), lambda v: stats.multinomial(n, v / v.sum())),
    ]:
        log_p, log_q = (np.array([theirs(v).logpmf(row) for row in x]) for v in (a, b))
        assert float(kl(ours(a), ours(b))) == pytest.approx(float(np.exp(log_p) @ (log_p - log_q)), rel=1e-10)
        assert float(kl(ours(a), ours(a))) == 0
    assert float(entropy(Multinomial(n, a / a.sum()))) == pytest.approx(float(-np.exp(log_p) @ log_p), rel=1e-10)
    wanted = -math.log(float(np.exp((log_p + log_q) / 2).sum()))
    assert float(bhattacharyya(Multinomial(n, a / a.sum()), Multinomial(n, b / b.sum()))) == pytest.approx(wanted)


def test_one_draw_is_categorical_and_two_kinds_are_binomial() -> None:
    a, b = np.array([0.5, 2.0, 1.5]), np.array([1.0, 0.7, 3.0])
    wanted = float(kl(Categorical(a / a.sum()), Categorical(b / b.sum())))
    assert float(kl(DirichletMultinomial(1, a), DirichletMultinomial(1, b))) == pytest.approx(wanted, rel=1e-12)
    binomial = float(entropy(Binomial(9, 0.3)))
    assert float(entropy(Multinomial(9, [0.3, 0.7]))) == pytest.approx(binomial, rel=1e-12)
    batch = kl(DirichletMultinomial(np.array([1.0, 4.0]), a), DirichletMultinomial(np.array([1.0, 4.0]), b))
    assert float(batch[0]) == pytest.approx(wanted, rel=1e-12)
    assert float(batch[1]) == pytest.approx(
        float(kl(DirichletMultinomial(4, a), DirichletMultinomial(4, b))), rel=1e-12
    )


def test_hellinger_is_made_of_the_bhattacharyya_distance() -> None:
    p, q = (normal("full", np.random.default_rng(seed))[0] for seed in (0, 1))
    wanted = math.sqrt(1 - math.exp(-float(bhattacharyya(p, q))))
    assert float(closed_forms.hellinger(p, q)) == pytest.approx(wanted, rel=1e-12)
