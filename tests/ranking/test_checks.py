"""Claims about checks of fit: what the model expects, what it cannot explain, and what a bigger one gains."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.checks import calibration, deviance, holm, likelihood_ratio, residuals
from kilter.ranking.cross_validation import cross_validate


def triangle(ab: tuple[float, float], bc: tuple[float, float], ca: tuple[float, float]) -> Comparisons:
    return Comparisons.counted("abbcca", "bacbac", [1.0] * 6, [*ab, *bc, *ca])


def simulated(games: int, seed: int, order: float = 0.0, items: int = 5, ties: float = 0.0) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    outcome = (generator.random(games) < 1 / (1 + np.exp(-order - (right - left) / 2))).astype(float)
    outcome[generator.random(games) < ties] = 0.5
    rows, count = np.unique(np.stack([left, right, outcome]), axis=1, return_counts=True)
    data = Comparisons.counted(rows[0].astype(int), rows[1].astype(int), rows[2], count, items=range(items))
    return replace(data, covariates=np.empty((len(count), 0)))


def test_a_perfect_circle_has_the_deviance_of_even_odds() -> None:
    # All strengths are equal, so every pair has 15 wins and 5 losses where 10 and 10 were expected.
    found = deviance(fit_comparisons(triangle((15, 5), (15, 5), (15, 5))))
    expected = 2 * 3 * (15 * math.log(1.5) + 5 * math.log(0.5))
    assert found.statistic == pytest.approx(expected)
    assert found.degrees_of_freedom == 1
    assert found.p_value == pytest.approx(stats.chi2.sf(expected, 1))


def test_two_items_are_fitted_exactly_and_no_p_value_pretends_otherwise() -> None:
    found = deviance(fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [60, 40])))
    assert found.statistic == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.p_value)
    assert "cannot but fit" in found.note


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_where_the_model_holds_deviance_is_a_chi_square(ties: float) -> None:
    # Ties of a constant share follow Davidson's model only between equals, so all are.
    generator, statistics = np.random.default_rng(1), []
    for _ in range(150):
        pairs = [(a, b) for a in range(4) for b in range(a)]
        counts = np.array([generator.multinomial(60, [(1 - ties) / 2, ties, (1 - ties) / 2]) for _ in pairs])
        rows = [(a, b, 1 - o / 2, n) for (a, b), of in zip(pairs, counts, strict=True) for o, n in enumerate(of) if n]
        found = deviance(fit_comparisons(Comparisons.counted(*zip(*rows, strict=True))))
        statistics.append(found)
    degrees = 6 * (2 if ties else 1) - 3 - bool(ties)
    assert {one.degrees_of_freedom for one in statistics} == {degrees}
    mean = np.mean([one.statistic for one in statistics])
    assert mean == pytest.approx(degrees, abs=4 * math.sqrt(2 * degrees / 150))
    assert stats.kstest([one.p_value for one in statistics], "uniform").pvalue > 1e-3


def test_sparse_pairs_half_ties_grades_and_priors_have_no_chi_square() -> None:
    assert "too few for a chi-square" in deviance(fit_comparisons(triangle((2, 1), (2, 1), (1, 2)))).note
    tied = Comparisons.counted("abab", "baba", [1, 1, 0.5, 0.5], [20, 20, 20, 20])
    assert "half wins" in deviance(fit_comparisons(tied, ties="half")).note
    graded = Comparisons.counted("abab", "baba", [1, 1, 0.7, 0.3], [20, 20, 20, 20])
    assert "graded" in deviance(fit_comparisons(graded)).note
    assert "prior" in deviance(fit_comparisons(triangle((9, 9), (9, 9), (9, 9)), prior_variance=1.0)).note


def test_rows_of_the_same_covariates_are_one_cell() -> None:
    data = replace(
        Comparisons.counted("abab", "baba", [1, 1, 1, 1], [30, 20, 25, 15]),
        covariates=np.array([[1.0], [1.0], [-1.0], [-1.0]]),
        covariate_names=("length",),
    )
    assert deviance(fit_comparisons(data)).degrees_of_freedom == 4 - 2


def test_calibration_bins_hold_all_games_and_wilsons_interval() -> None:
    ranking = fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [60, 40]))
    found = calibration(ranking)
    assert (found.games.tolist(), found.predicted, found.observed) == (
        [100],
        pytest.approx([0.6]),
        pytest.approx([0.6]),
    )
    wilson = stats.binomtest(60, 100).proportion_ci(method="wilson")
    assert (found.low[0], found.high[0]) == pytest.approx((wilson.low, wilson.high))


def test_calibration_finds_what_was_simulated_and_its_bins_are_of_like_size() -> None:
    found = calibration(cross_validate(simulated(6000, 2), folds=5), bins=5)
    assert found.games.sum() == 6000
    assert np.all(found.predicted >= 0.5)
    assert np.all((found.predicted > found.low - 0.03) & (found.predicted < found.high + 0.03))
    assert found.games.max() < 3 * found.games.min()


def test_calibration_by_side_shows_an_order_effect_that_the_model_lacks() -> None:
    data = simulated(4000, 3, order=1.0)
    without, with_it = fit_comparisons(data), fit_comparisons(data, order_effect=True)
    assert (
        np.average(calibration(without, side="left").predicted, weights=calibration(without, side="left").games) < 0.53
    )
    assert calibration(without, side="left").low.min() > 0.3
    outside = calibration(without, side="left")
    inside = calibration(with_it, side="left")
    assert (outside.low > outside.predicted).sum() >= 5
    assert ((inside.low <= inside.predicted) & (inside.predicted <= inside.high)).mean() >= 0.8


def test_residuals_are_those_of_a_dense_projection() -> None:
    data = simulated(400, 4)
    ranking = fit_comparisons(data)
    totals = ranking.totals
    design = np.zeros((len(totals.left), 5))
    design[np.arange(len(design)), totals.left], design[np.arange(len(design)), totals.right] = 1, -1
    probability = 1 / (1 + np.exp(-design @ ranking.strengths))
    games = totals.observed.sum(axis=0)
    weight = games * probability * (1 - probability)
    inverse = np.linalg.pinv(design.T @ (weight[:, None] * design))
    variance = np.diag(np.diag(weight) - np.outer(weight, weight) * (design @ inverse @ design.T))
    plain = (totals.observed[0] - games * probability) / np.sqrt(variance)
    found = residuals(ranking)
    assert np.sort(found.standardized) == pytest.approx(np.sort(plain))
    assert np.all(np.diff(np.abs(found.standardized)) <= 1e-12)
    first = int(np.argmax(np.abs(plain)))
    assert (found.left[0], found.right[0]) == (totals.left[first], totals.right[first])
    assert found.observed[0] == totals.observed[0, first]
    assert found.expected.sum() == pytest.approx(float((games * probability).sum()))


@pytest.mark.parametrize(("ties", "order"), [("none", True), ("davidson", False), ("rao-kupper", True)])
def test_standardized_residuals_have_variance_one(ties: str, order: bool) -> None:
    truth = fit_comparisons(simulated(900, 5, ties=0.3 if ties != "none" else 0), ties=ties, order_effect=order)  # type: ignore[arg-type]
    generator, squares = np.random.default_rng(6), []
    left, right = (side.astype(np.int32) for side in np.nonzero(~np.eye(5, dtype=bool)))
    three = np.array([[one.value for one in truth.predict(int(a), int(b))] for a, b in zip(left, right, strict=True)])
    for _ in range(60):
        counts = np.array([generator.multinomial(25, row / row.sum()) for row in three])
        rows, outcome = np.nonzero(counts)
        data = Comparisons.counted(left[rows], right[rows], 1 - outcome / 2, counts[rows, outcome], items=range(5))
        found = residuals(fit_comparisons(data, ties=ties, order_effect=order))  # type: ignore[arg-type]
        squares.append(np.square(found.standardized).mean())
    assert np.mean(squares) == pytest.approx(1, abs=4 * np.std(squares) / math.sqrt(60))


def test_a_pair_against_the_model_has_the_largest_residual_and_a_small_p_value() -> None:
    # 0 beats 4 nine times in ten by strength; here it loses 30 more.
    data = simulated(2000, 7)
    worse = replace(data, count=data.count + 60 * ((data.left == 0) & (data.right == 4) & (data.outcome == 0)))
    found = residuals(fit_comparisons(worse))
    assert (found.left[0], found.right[0]) == (0, 4)
    assert found.standardized[0] < -4
    assert found.adjusted[0] < 1e-3
    assert "of 10 pairs" in found.note


def test_a_pair_that_alone_connects_its_items_has_no_residual() -> None:
    ranking = fit_comparisons(Comparisons.counted("abbc", "bacb", [1] * 4, [6, 2, 3, 3]))
    assert residuals(ranking).standardized.tolist() == [0, 0]


def test_holms_p_values_are_as_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_the_likelihood_ratio_of_an_order_effect_is_that_of_a_coin() -> None:
    # Two items each 20 times on the left: without strengths, 26 of 40 left wins against a half.
    data = Comparisons.counted("aabb", "bbaa", [1.0, 0.0, 1.0, 0.0], [13, 7, 13, 7])
    found = likelihood_ratio(fit_comparisons(data), fit_comparisons(data, order_effect=True))
    expected = 2 * (26 * math.log(26 / 20) + 14 * math.log(14 / 20))
    assert found.statistic == pytest.approx(expected)
    assert (found.degrees_of_freedom, found.added) == (1, ("order",))
    assert found.p_value == pytest.approx(stats.chi2.sf(expected, 1))


def test_a_covariate_of_noise_has_uniform_p_values() -> None:
    generator, values = np.random.default_rng(8), []
    for seed in range(120):
        data = simulated(300, 100 + seed)
        rows = np.repeat(np.arange(len(data.left)), data.count.astype(int))
        single = data.of_rows(rows, np.ones(len(rows)))
        noisy = replace(single, covariates=generator.normal(size=(len(rows), 1)), covariate_names=("noise",))
        values.append(likelihood_ratio(fit_comparisons(data), fit_comparisons(noisy)).p_value)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_fits_that_are_not_nested_or_not_of_the_same_comparisons_are_refused() -> None:
    data, tied = simulated(300, 9), simulated(300, 9, ties=0.3)
    plain, order = fit_comparisons(data), fit_comparisons(data, order_effect=True)
    with pytest.raises(ConfigError, match="lacks order"):
        likelihood_ratio(order, plain)
    with pytest.raises(ConfigError, match="same parts"):
        likelihood_ratio(plain, plain)
    with pytest.raises(ConfigError, match="different models of ties"):
        likelihood_ratio(fit_comparisons(tied, ties="half"), fit_comparisons(tied, ties="davidson", order_effect=True))
    with pytest.raises(ConfigError, match="prior"):
        likelihood_ratio(fit_comparisons(data, prior_variance=1.0), order)
    with pytest.raises(DataError, match="same comparisons"):
        likelihood_ratio(fit_comparisons(simulated(300, 10)), order)
