"""Claims about nearest neighbours: formulas by brute force, closed forms of normals, copies, warnings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import digamma

from kilter.divergence import Counts, Estimate, entropy_from_neighbours, kl_from_counts, kl_from_neighbours
from kilter.errors import DistributionError

Floats = NDArray[np.float64]
NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


def kth_distances(x_ND: Floats, y_MD: Floats, k: int) -> Floats:
    return np.sort(np.linalg.norm(x_ND[:, None] - y_MD[None], axis=-1), axis=1)[:, k - 1]


def over_repeats(repeats: int, estimate: Callable[[np.random.Generator], Estimate]) -> tuple[float, float, float]:
    """Mean and standard deviation of the value, and the mean standard error."""
    found = [estimate(np.random.default_rng(seed)) for seed in range(repeats)]
    values = np.array([one.value for one in found])
    return float(values.mean()), float(values.std(ddof=1)), float(np.mean([one.standard_error for one in found]))


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("dimension", [1, 3])
def test_values_are_the_formulas_computed_by_brute_force(k: int, dimension: int) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, dimension)), random.normal(0.5, 1.5, size=(300, dimension))
    scale = np.concatenate([x, y]).std(axis=0)
    to_x, to_y = kth_distances(x / scale, x / scale, k + 1), kth_distances(x / scale, y / scale, k)
    wanted = dimension * np.log(to_y / to_x).mean() + math.log(300 / 199)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert kl_from_neighbours(x, y, k=k).value == pytest.approx(wanted, rel=1e-12)
        found = entropy_from_neighbours(x, k=k).value
    scale = x.std(axis=0)
    ball = {1: 2.0, 3: 4 / 3 * math.pi}[dimension]
    reach = kth_distances(x / scale, x / scale, k + 1)
    wanted = digamma(200) - digamma(k) + math.log(ball) + np.log(scale).sum() + dimension * np.log(reach).mean()
    assert found == pytest.approx(wanted, rel=1e-12)


def test_entropy_of_normals_exponentials_and_uniforms_is_theirs_with_the_error_it_says() -> None:
    known: dict[str, tuple[Callable[[np.random.Generator], Floats], float]] = {
        "normal": (lambda random: random.normal(3, 2, size=500), NORMAL_ENTROPY + math.log(2)),
        "exponential": (lambda random: random.exponential(size=500), 1.0),
        "uniform": (lambda random: random.uniform(0, 0.5, size=500), -math.log(2)),
        "plane": (lambda random: random.normal(size=(500, 2)) * [1, 100], 2 * NORMAL_ENTROPY + math.log(100)),
    }
    for name, (draw, exact) in known.items():
        mean, deviation, error = over_repeats(100, lambda random, draw=draw: entropy_from_neighbours(draw(random)))
        assert abs(mean - exact) < 0.04, name
        assert 0.92 * deviation < error < 1.4 * deviation, name


def test_kl_is_that_worked_out_by_hand_in_its_direction_with_the_error_it_says() -> None:
    """Beta(2, 2), whose density is 6 x (1 - x), against the uniform: log 6 - 5/3 one way, 2 - log 6 the other."""

    def drawn(random: np.random.Generator) -> tuple[Floats, Floats]:
        return random.beta(2, 2, 600), random.uniform(size=900)

    for exact, step in ((math.log(6) - 5 / 3, 1), (2 - math.log(6), -1)):
        mean, deviation, error = over_repeats(60, lambda random, step=step: kl_from_neighbours(*drawn(random)[::step]))
        assert mean == pytest.approx(exact, abs=0.03)
        assert 0.7 * deviation < error < 1.4 * deviation


def test_where_p_reaches_into_the_tails_of_q_it_is_too_low_as_its_note_says() -> None:
    """KL(N(0, 2), N(0, 1)) = 3/2 - log 2: a neighbour far off stands for a density that is lower still."""
    mean, _, error = over_repeats(20, lambda r: kl_from_neighbours(r.normal(0, 2, 600), r.normal(0, 1, 600)))
    assert mean < 3 / 2 - math.log(2) - 2 * error
    assert "too low" in kl_from_neighbours(*np.random.default_rng(0).normal(size=(2, 50))).bias


def test_kl_of_a_distribution_to_itself_is_nought_within_its_error() -> None:
    mean, deviation, error = over_repeats(
        60, lambda r: kl_from_neighbours(r.normal(size=(400, 2)), r.normal(size=(400, 2)))
    )
    assert abs(mean) < 3 * deviation / math.sqrt(60) + 0.01
    assert 0.75 * deviation < error < 1.4 * deviation


def test_units_and_origin_do_not_matter() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(300, 2)), random.normal(1, 1, size=(300, 2))
    units, origin = np.array([1e-3, 1e6]), np.array([5.0, -2.0])
    found = kl_from_neighbours(x * units + origin, y * units + origin)
    assert found.value == pytest.approx(kl_from_neighbours(x, y).value, rel=1e-6)
    entropy = entropy_from_neighbours(x * units + origin).value - entropy_from_neighbours(x).value
    assert entropy == pytest.approx(np.log(units).sum(), rel=1e-6)


def test_tensors_and_flat_samples_are_taken() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 100))
    assert kl_from_neighbours(torch.tensor(x), torch.tensor(y)) == kl_from_neighbours(x[:, None], y[:, None])
    assert kl_from_neighbours(x, y).samples == 200
    assert entropy_from_neighbours(torch.tensor(x)).samples == 100


# Copies


def test_samples_on_a_few_points_have_nearly_the_kl_of_their_counts() -> None:
    random = np.random.default_rng(3)
    x, y = random.choice(4, 800, p=[0.4, 0.3, 0.2, 0.1]), random.choice(4, 800, p=[0.1, 0.2, 0.3, 0.4])
    counted = kl_from_counts(Counts(np.bincount(x)), Counts(np.bincount(y)))
    found = kl_from_neighbours(x, y)
    assert found.value == pytest.approx(counted.value, abs=0.02)
    assert found.standard_error == pytest.approx(counted.standard_error, rel=0.1)
    assert "800 of 800 points of x have copies or ties nearby" in found.bias
    assert "800 of them lie on points of y" in found.bias


def test_numbers_of_copies_are_compared_without_the_bias_of_their_logarithms() -> None:
    """Sixty samples of q on two points, nine of them on one: log 9 is far from the mean log of such numbers."""
    p, q = np.array([0.5, 0.5]), np.array([0.15, 0.85])
    mean, deviation, error = over_repeats(
        300, lambda random: kl_from_neighbours(random.choice(2, 300, p=p), random.choice(2, 60, p=q))
    )
    assert mean == pytest.approx(float(p @ np.log(p / q)), abs=0.03)
    assert 0.9 * deviation < error < 1.15 * deviation


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_rounding_changes_kl_little(digits: int) -> None:
    random = np.random.default_rng(4)
    x, y = random.normal(0, 1, 1500), random.normal(1, 1, 1500)
    assert abs(kl_from_neighbours(x.round(digits), y.round(digits)).value - 0.5) < 0.1


def test_a_point_many_times_in_one_sample_only_leaves_kl_finite() -> None:
    random = np.random.default_rng(5)
    x, y = random.normal(size=300), random.normal(size=300)
    x[:50] = 0.123
    assert 0 < kl_from_neighbours(x, y).value < math.inf
    assert -math.inf < kl_from_neighbours(y, x).value < math.inf


@pytest.mark.parametrize(("of_x", "of_y"), [(2, 2), (2, 1), (1, 2)])
def test_points_that_stand_several_times_move_kl_little(of_x: int, of_y: int) -> None:
    """By distances alone two copies of everything made 1.5 of 0.5: the nearest neighbours of a point were fewer."""

    def estimate(random: np.random.Generator) -> Estimate:
        x, y = random.normal(0, 1, 600), random.normal(1, 1, 600)
        return kl_from_neighbours(x.repeat(of_x), y.repeat(of_y))

    mean, *_ = over_repeats(20, estimate)
    assert abs(mean - 0.5) < 0.2


def test_a_bootstrap_sample_has_nearly_the_kl_of_its_sample() -> None:
    def estimate(random: np.random.Generator) -> Estimate:
        x, y = random.normal(0, 1, 800), random.normal(1, 1, 800)
        return kl_from_neighbours(random.choice(x, 800), random.choice(y, 800))

    assert abs(over_repeats(20, estimate)[0] - 0.5) < 0.2


def test_points_that_both_samples_have_are_told() -> None:
    x = np.random.default_rng(5).normal(size=300)
    assert "300 of them lie on points of y: too low" in kl_from_neighbours(x, x).bias
    assert "lie on points" not in kl_from_neighbours(x, x + 1e-3).bias


@pytest.mark.parametrize("digits", [0, 1])
def test_kl_of_rounded_values_is_right_once_that_is_said(digits: int) -> None:
    def estimate(random: np.random.Generator) -> Estimate:
        x, y = random.normal(0, 1, 600).round(digits), random.normal(1, 1, 600).round(digits)
        found = kl_from_neighbours(x, y, resolution=10.0**-digits)
        assert "copies" not in found.bias
        return found

    mean, deviation, error = over_repeats(30, estimate)
    assert abs(mean - 0.5) < 0.06
    assert 0.75 * deviation < error < 1.6 * deviation


def test_entropy_of_a_few_copies_is_warned_of_and_too_low() -> None:
    x = np.random.default_rng(6).normal(size=1000)
    with pytest.warns(UserWarning, match=r"2000 of 2000 points have a copy .* too low; leave copies out"):
        found = entropy_from_neighbours(x.repeat(2))
    assert found.value < NORMAL_ENTROPY - 0.5
    assert "2000 of 2000 points have a copy at the very same place: too low" in found.bias


def test_entropy_of_copies_is_refused_and_of_rounded_values_right_once_that_is_said() -> None:
    x = np.random.default_rng(6).normal(size=2000).round(1)
    with pytest.raises(DistributionError, match=r"others at the very same place.*resolution"):
        entropy_from_neighbours(x)
    found = entropy_from_neighbours(x, resolution=0.1)
    assert abs(found.value - NORMAL_ENTROPY) < 3 * found.standard_error
    assert found == entropy_from_neighbours(x, resolution=0.1)
    assert found != entropy_from_neighbours(x, resolution=0.1, seed=1)
    assert abs(entropy_from_neighbours(x, resolution=0.001).value - NORMAL_ENTROPY) > 1  # a false one is not harmless


# What is refused, and warned of


def test_many_dimensions_are_warned_of_and_noted_and_are_biased_indeed() -> None:
    """KL 1/2 in 20 dimensions comes out far too low, by several of its standard errors."""
    random = np.random.default_rng(7)
    x, y = random.normal(size=(1000, 20)), random.normal(size=(1000, 20)) + np.eye(20)[0]
    with pytest.warns(UserWarning, match="20 dimensions"):
        found = kl_from_neighbours(x, y)
    assert "in 20 dimensions the neighbours among 1000 samples reach over 75% of the spread" in found.bias
    assert abs(found.value - 0.5) > 1.5 * found.standard_error
    with pytest.warns(UserWarning, match="20 dimensions"):
        entropy_from_neighbours(x)


def test_what_has_no_density_or_does_not_match_is_refused() -> None:
    x = np.random.default_rng(8).normal(size=(50, 2))
    with pytest.raises(DistributionError, match="dimension 1 is the same"):
        kl_from_neighbours(x * [1, 0], x * [1, 0])
    with pytest.raises(DistributionError, match="x has 2 dimensions and y has 1"):
        kl_from_neighbours(x, x[:, 0])
    with pytest.raises(DistributionError, match="sample 3 of y"):
        kl_from_neighbours(x, np.where(np.arange(50)[:, None] == 3, np.nan, x))
    with pytest.raises(DistributionError, match="3 samples; give at least 4"):
        entropy_from_neighbours(x[:3])
    for k in (0, 1.5):
        with pytest.raises(DistributionError, match=f"k={k}; wanted a number of neighbours"):
            entropy_from_neighbours(x, k=k)  # type: ignore[arg-type]
    for resolution in (-1, math.nan, math.inf, np.ones(50), np.ones((50, 2))):
        for estimate in (entropy_from_neighbours, lambda x, **options: kl_from_neighbours(x, x, **options)):
            with pytest.raises(DistributionError, match=r"resolution=.* or one for each of 2 dimensions"):
                estimate(x, resolution=resolution)
