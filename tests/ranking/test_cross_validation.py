"""Claims about held-out log-loss: every comparison is predicted once, by a fit that has not seen it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.cross_validation import cross_validate, probabilities_of


def simulated(items: int, games: int, spread: float, seed: int, ties: float = 0.0) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    outcome = (generator.random(games) < 1 / (1 + np.exp(spread * (left - right) / items))).astype(float)
    outcome[generator.random(games) < ties] = 0.5
    return Comparisons.counted(left, right, outcome, items=range(items))


def test_every_comparison_is_held_out_once() -> None:
    data = replace(simulated(4, 300, 2, 1), count=np.random.default_rng(1).integers(1, 5, 300).astype(float))
    found = cross_validate(data, folds=5)
    assert found.games + found.unpredicted == data.games
    assert np.bincount(found.predictions.row, found.predictions.games) == pytest.approx(data.count)
    assert set(found.predictions.fold) == set(range(5))


def test_the_log_loss_is_that_of_a_loop_over_folds() -> None:
    data = simulated(4, 200, 2, 2)
    found = cross_validate(data, folds=4, seed=3)
    losses = []
    for fold in range(4):
        rows = found.predictions.row[found.predictions.fold == fold]
        ranking = fit_comparisons(data.of_rows(np.setdiff1d(np.arange(200), rows)))
        for row in rows:
            told = ranking.predict(int(data.left[row]), int(data.right[row]))
            losses.append(-math.log(told.left_wins.value if data.outcome[row] == 1 else told.right_wins.value))
    assert found.log_loss == pytest.approx(np.mean(losses))
    assert found.standard_error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(200))


def test_equal_items_are_predicted_no_better_than_even_odds_and_unequal_ones_are() -> None:
    even = cross_validate(simulated(5, 2000, 0, 4))
    assert even.even_log_loss == math.log(2)
    assert even.log_loss == pytest.approx(math.log(2), abs=0.01)
    uneven = cross_validate(simulated(5, 2000, 6, 5))
    assert uneven.log_loss + 5 * uneven.standard_error < uneven.baseline_log_loss


def test_the_log_loss_is_near_the_entropy_of_the_truth() -> None:
    generator = np.random.default_rng(6)
    wins = generator.binomial(1, 0.8, 3000)
    found = cross_validate(Comparisons.counted(["a"] * 3000, ["b"] * 3000, wins.astype(float)))
    entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)
    assert abs(found.log_loss - entropy) < 4 * found.standard_error
    assert found.baseline_log_loss == pytest.approx(math.log(2))  # who is named first says nothing


def test_with_an_order_effect_the_baseline_knows_how_often_the_left_item_wins() -> None:
    generator = np.random.default_rng(7)
    left, right = ["a", "b", "c"] * 2000, ["b", "c", "a"] * 2000
    won = generator.binomial(1, 0.8, 6000)
    found = cross_validate(Comparisons.counted(left, right, won.astype(float)), order_effect=True)
    assert found.baseline_log_loss == pytest.approx(found.log_loss, abs=1e-3)
    assert found.baseline_log_loss < 0.53


@pytest.mark.parametrize("ties", ["half", "davidson", "rao-kupper"])
def test_ties_are_predicted_with_probabilities_that_add_up_to_one(ties: str) -> None:
    found = cross_validate(simulated(4, 400, 3, 7, ties=0.3), ties=ties, folds=5)  # type: ignore[arg-type]
    assert found.predictions.probability.sum(axis=0) == pytest.approx(1)
    assert found.even_log_loss == math.log(2 if ties == "half" else 3)
    assert found.log_loss < found.baseline_log_loss


def test_an_item_with_one_opponent_and_one_game_is_unpredicted_and_said() -> None:
    data = Comparisons.counted(
        ["a", "b", "a", "c", "rare", "a"], ["b", "a", "c", "a", "a", "rare"], [1.0] * 6, [30, 30, 30, 30, 1, 1]
    )
    found = cross_validate(data)
    assert found.unpredicted == 2
    assert "2 comparisons could not be predicted" in found.explanation()
    assert cross_validate(data, prior_variance=1.0).unpredicted == 0


def test_whole_judges_are_held_out_together() -> None:
    data = replace(simulated(4, 400, 2, 8), judge=(np.arange(400) % 20).astype(np.int32))
    found = cross_validate(data, folds=5, cluster="judge").predictions
    judge = data.judge[found.row]  # type: ignore[index]
    assert all(len(set(found.fold[judge == one])) == 1 for one in range(20))
    assert np.bincount(found.fold).tolist() == [80] * 5


def test_an_order_effect_that_is_there_predicts_better() -> None:
    generator, data = np.random.default_rng(9), simulated(4, 1500, 1, 9)
    ahead = 1.5 + (data.right - data.left) / 4
    data = replace(data, outcome=(generator.random(1500) < 1 / (1 + np.exp(-ahead))).astype(float))
    assert cross_validate(data, order_effect=True).log_loss < cross_validate(data).log_loss - 0.05


def test_predictions_are_those_of_predict() -> None:
    data = simulated(4, 300, 2, 10, ties=0.2)
    ranking = fit_comparisons(data, ties="davidson", order_effect=True)
    told = ranking.predict(int(data.left[0]), int(data.right[0]))
    assert probabilities_of(ranking, data)[:, 0] == pytest.approx([estimate.value for estimate in told])


def test_folds_that_cannot_be_are_refused() -> None:
    data = simulated(4, 300, 2, 11)
    with pytest.raises(ConfigError, match="at least 2"):
        cross_validate(data, folds=1)
    with pytest.raises(DataError, match="could be predicted"):
        cross_validate(Comparisons.counted("ab", "ba", [1.0, 1.0]), folds=2, seed=1)
