"""Claims about intervals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from kilter.measure.statistics import (
    NORMAL_975,
    Interval,
    RatioMean,
    Sides,
    auc,
    auc_difference,
    mean_interval,
    paired_difference,
    placements,
    wilson,
)


# Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score interval without continuity correction).
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert interval.value == successes / trials
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(1, 2), (3, 7), (500, 1000)])
def test_the_ends_are_the_proportions_just_not_rejected_by_the_score_test(successes: int, trials: int) -> None:
    """Wilson 1927: (p - end)^2 = z^2 end (1 - end) / n."""
    p, low, high = wilson(successes, trials)
    assert low < p < high
    for end in (low, high):
        assert (p - end) ** 2 == pytest.approx(NORMAL_975**2 * end * (1 - end) / trials, rel=1e-12)


@pytest.mark.parametrize("trials", [1, 5, 1000])
def test_all_or_none_have_intervals_that_end_there(trials: int) -> None:
    assert wilson(0, trials)[:2] == pytest.approx((0, 0), abs=1e-15)
    assert wilson(trials, trials).high == pytest.approx(1, abs=1e-15)


def test_ties_count_half() -> None:
    interval = wilson(2.5, 5)
    assert interval.value == 0.5
    assert 1 - interval.high == pytest.approx(interval.low, abs=1e-15)


def test_nothing_tried_has_no_interval() -> None:
    assert all(map(math.isnan, wilson(0, 0)))


def test_the_normal_quantile_is_right() -> None:
    assert pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-12) == NORMAL_975


def test_paired_difference_is_that_worked_out_by_hand() -> None:
    """Differences 1, 2, 3, 6: mean 3, variance 14 / 3, so a standard error of sqrt(14 / 12)."""
    interval = paired_difference(np.array([2, 4, 6, 10]), np.array([1, 2, 3, 4]))
    half = 1.959964 * math.sqrt(14 / 12)
    assert interval == pytest.approx((3, 3 - half, 3 + half), abs=1e-6)


def test_paired_difference_has_the_sign_of_after_less_before() -> None:
    assert paired_difference(np.array([1.0, 2.0]), np.array([3.0, 5.0])).value == -2.5


def test_one_item_has_a_difference_and_no_interval() -> None:
    interval = paired_difference(np.array([1.0]), np.array([0.5]))
    assert interval.value == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert all(map(math.isnan, paired_difference(np.array([]), np.array([]))))


def test_auc_is_that_worked_out_by_hand() -> None:
    """Of 3 x 2 couples three are right, two tie (1 = 1, 2 = 2), and one is wrong (1 < 2)."""
    good, bad = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0])
    placed = placements(Sides(good, bad))
    assert placed.good.tolist() == [1, 0.25, 0.75]
    assert placed.bad.tolist() == pytest.approx([2.5 / 3, 1.5 / 3])
    assert auc(good, bad).value == pytest.approx(4 / 6)
    error = math.sqrt(np.var([1, 0.25, 0.75], ddof=1) / 3 + np.var([2.5 / 3, 1.5 / 3], ddof=1) / 2)
    assert auc(good, bad).low == pytest.approx(4 / 6 - 1.959964 * error, abs=1e-6)
    assert auc(good, bad).high == 1  # it would go beyond


def test_auc_counts_every_couple_of_a_good_and_a_bad_item() -> None:
    draw = np.random.default_rng(0)
    good, bad = draw.integers(0, 9, 40) + 2.0, draw.integers(0, 9, 25) + 0.0
    couples = np.sign(good[:, None] - bad[None, :]) / 2 + 0.5
    assert auc(good, bad).value == pytest.approx(couples.mean(), abs=1e-14)
    assert auc(bad, good).value == pytest.approx(1 - couples.mean(), abs=1e-14)
    assert placements(Sides(good, bad)).bad == pytest.approx(couples.mean(axis=0), abs=1e-14)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.5), (1.0, 0.7602499)])
def test_the_interval_of_the_auc_holds_the_true_value_as_often_as_it_says(shift: float, expected: float) -> None:
    """Normal numbers: the chance is Phi(shift / sqrt 2)."""
    assert expected == pytest.approx(NormalDist().cdf(shift / math.sqrt(2)), abs=1e-6)
    draw = np.random.default_rng(1)
    intervals = [auc(draw.normal(shift, 1, 60), draw.normal(0, 1, 40)) for _ in range(1000)]
    held = sum(low <= expected <= high for _, low, high in intervals)
    assert 0.92 < held / 1000 < 0.97
    assert np.mean([value for value, *_ in intervals]) == pytest.approx(expected, abs=0.005)


def test_the_difference_of_two_aucs_allows_for_their_being_of_the_same_items() -> None:
    """Numbers that move together: the interval is far narrower than that of either, and holds the truth as it says."""
    draw = np.random.default_rng(2)
    held, widths = 0, []
    for _ in range(500):
        good, bad = draw.normal(0.5, 1, 60), draw.normal(0, 1, 60)
        before = Sides(good, bad)
        after = Sides(good + 0.5 + draw.normal(0, 0.3, 60), bad + draw.normal(0, 0.3, 60))
        truth = NormalDist().cdf(1 / math.sqrt(2 + 2 * 0.09)) - NormalDist().cdf(0.5 / math.sqrt(2))
        value, low, high = auc_difference(after, before)
        assert value == pytest.approx(auc(*after).value - auc(*before).value, abs=1e-12)
        held += low <= truth <= high
        widths.append((high - low) / (auc(*after).high - auc(*after).low))
    assert 0.92 < held / 500 < 0.98
    assert np.mean(widths) < 0.6


def test_where_all_tie_or_all_is_apart_the_interval_is_that_of_as_many_couples_as_there_are() -> None:
    assert auc(np.zeros(8), np.zeros(5)) == wilson(2.5, 5)
    assert auc(np.ones(8), np.zeros(5)) == wilson(5, 5)
    assert auc(np.zeros(8), np.ones(5)) == wilson(0, 5)


def test_an_auc_needs_both_sides_and_its_interval_two_of_each() -> None:
    for sides in (Sides(np.ones(3), np.ones(0)), Sides(np.ones(0), np.ones(3))):
        assert all(map(math.isnan, auc(*sides)))
        assert all(map(math.isnan, auc_difference(sides, sides)))
    value, low, high = auc(np.array([1.0]), np.array([0.0, 2.0]))
    assert value == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


# Means of unequal weights


def test_a_mean_of_units_of_equal_size_has_the_plain_interval() -> None:
    values = np.random.default_rng(0).normal(2, 1, 30)
    assert RatioMean.of(values, np.ones(30)).interval == pytest.approx(mean_interval(values))


def test_the_interval_of_a_ratio_is_that_of_the_delta_method() -> None:
    """Totals 2, 6, 1 of sizes 1, 2, 1: mean 9 / 4; residuals -1/4, 3/2, -5/4, over a mean size of 4 / 3."""
    found = RatioMean.of(np.array([2.0, 6, 1]), np.array([1.0, 2, 1]))
    residual = np.array([-1 / 4, 3 / 2, -5 / 4]) / (4 / 3)
    half = NORMAL_975 * residual.std(ddof=1) / math.sqrt(3)
    assert found.interval == pytest.approx((9 / 4, 9 / 4 - half, 9 / 4 + half))


def test_the_interval_of_a_mean_per_token_covers_the_truth_about_as_often_as_it_says() -> None:
    """Answers of 1 to 20 tokens at 1.5 nats each: within four standard errors of 95% of 400."""
    draw, covered = np.random.default_rng(1), []
    for _ in range(400):
        size = draw.integers(1, 21, 80).astype(float)
        _, low, high = RatioMean.of(draw.normal(1.5 * size, np.sqrt(size)), size).interval
        covered.append(low <= 1.5 <= high)
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


def test_weighted_sums_of_means_of_the_same_units_heed_how_they_vary_together() -> None:
    draw = np.random.default_rng(2)
    a, b, size = draw.normal(size=50), draw.normal(size=50), np.ones(50)
    both = RatioMean.of(a, size) + RatioMean.of(b, size) * 0.5
    assert both.interval == pytest.approx(mean_interval(a + 0.5 * b))
    difference = RatioMean.of(a, size) - RatioMean.of(b, size)
    assert difference.interval == pytest.approx(paired_difference(a, b))


def test_an_interval_is_three_entries_of_a_row() -> None:
    assert Interval(1, 0, 3).times(2).named("gap") == {"gap": 2, "gap_low": 0, "gap_high": 6}
