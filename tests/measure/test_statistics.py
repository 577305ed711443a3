"""Claims about intervals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from kilter.measure.statistics import NORMAL_975, paired_difference, wilson


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
