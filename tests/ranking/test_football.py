"""The example of three football teams that texts on Bradley-Terry use, each number worked out by hand.

A beat B 8 times and lost 4, A beat C 3 times and lost 5. Each pair meets its own rate: alpha_A / alpha_B = 8 / 4 and
alpha_C / alpha_A = 5 / 3, so that with alpha_B = 1 the strengths are 2, 1 and 10/3.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from kilter.ranking import Comparisons, fit_comparisons, gradient, log_likelihood, loss

FOOTBALL = Comparisons.counted(list("ABAC"), list("BACA"), [1, 1, 1, 1], [8, 4, 3, 5])
FITTED = fit_comparisons(FOOTBALL)
BEST = 8 * math.log(2 / 3) + 4 * math.log(1 / 3) + 3 * math.log(3 / 8) + 5 * math.log(5 / 8)


def logs(*strengths: float) -> dict[str | int, float]:
    return dict(zip("ABC", map(math.log, strengths), strict=True))


def test_strengths_are_2_and_1_and_ten_thirds() -> None:
    alpha = np.exp(FITTED.strengths - FITTED.strengths[1])
    assert alpha == pytest.approx([2, 1, 10 / 3], rel=1e-12)
    assert FITTED.told_on("odds", ("B", 1.0))[:, 0] == pytest.approx([2, 1, 10 / 3], rel=1e-12)
    # Or such that they add up to one: 6 : 3 : 10.
    assert FITTED.told_on("odds")[:, 0] == pytest.approx([6 / 19, 3 / 19, 10 / 19], rel=1e-12)
    assert FITTED.gradient_norm < 1e-12


def test_each_prediction_is_the_share_of_games_won() -> None:
    assert FITTED.predict("A", "B").left_wins.value == pytest.approx(2 / 3, rel=1e-12)
    assert FITTED.predict("A", "C").left_wins.value == pytest.approx(3 / 8, rel=1e-12)
    # Who never met: 1 against 10/3.
    assert FITTED.predict("B", "C").left_wins.value == pytest.approx(3 / 13, rel=1e-12)


def test_the_log_likelihood_is_that_of_the_games_one_by_one() -> None:
    assert FITTED.log_likelihood == pytest.approx(BEST, rel=1e-13)
    assert log_likelihood(FOOTBALL, logs(2, 1, 10 / 3)) == pytest.approx(BEST, rel=1e-14)
    assert loss(FOOTBALL, logs(2, 1, 10 / 3)) == pytest.approx(-BEST / 20, rel=1e-14)
    assert loss(FOOTBALL, logs(1, 1, 1)) == pytest.approx(math.log(2), rel=1e-14)


def test_rounding_the_strength_of_c_to_3_costs_a_hundredth_of_a_nat() -> None:
    # A then beats C with probability 2/5 in place of 3/8, and loses with 3/5 in place of 5/8.
    cost = log_likelihood(FOOTBALL, logs(2, 1, 10 / 3)) - log_likelihood(FOOTBALL, logs(2, 1, 3))
    assert cost == pytest.approx(3 * math.log(15 / 16) + 5 * math.log(25 / 24), rel=1e-10)
    assert cost == pytest.approx(0.010494, abs=5e-7)
    # And the slope is not nothing: C won 5 of 8 and was expected to win 4.8, A won 11 of 20 and was to win 11.2.
    assert gradient(FOOTBALL, logs(2, 1, 3)) == pytest.approx([-0.2, 0, 0.2], abs=1e-14)


def test_the_gradient_is_won_less_expected_and_the_slope_of_the_likelihood() -> None:
    at = np.array([0.3, -0.4, 0.9])
    slopes = [
        (log_likelihood(FOOTBALL, at + move) - log_likelihood(FOOTBALL, at - move)) / 2e-6 for move in 1e-6 * np.eye(3)
    ]
    assert gradient(FOOTBALL, at) == pytest.approx(slopes, abs=1e-7)
    a_b, a_c = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(0.6))
    expected = [11 - 12 * a_b - 8 * a_c, 4 - 12 * (1 - a_b), 5 - 8 * (1 - a_c)]
    assert gradient(FOOTBALL, at) == pytest.approx(expected, abs=1e-13)
    assert gradient(FOOTBALL, FITTED.strengths) == pytest.approx(np.zeros(3), abs=1e-12)


def test_differences_are_as_sure_as_the_games_of_two() -> None:
    # Without a way round, what is known of A and B are their own games: variance 1/8 + 1/4; and the ways add up.
    assert FITTED.difference("A", "B").standard_error == pytest.approx(math.sqrt(1 / 8 + 1 / 4), rel=1e-12)
    assert FITTED.difference("C", "A").standard_error == pytest.approx(math.sqrt(1 / 3 + 1 / 5), rel=1e-12)
    both = FITTED.difference("C", "B")
    assert both.value == pytest.approx(math.log(10 / 3), rel=1e-12)
    assert both.standard_error == pytest.approx(math.sqrt(1 / 8 + 1 / 4 + 1 / 3 + 1 / 5), rel=1e-12)
