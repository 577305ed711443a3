"""Claims about how far answers moved, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kilter.measure import displacement
from kilter.measure.answers import AnswerScores
from kilter.measure.displacement import Displacement
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.objectives import parse

COUNT = 16
NOISE = np.tile([-0.25, 0.25], COUNT // 2)  # so that intervals have a width


def scores(log_prob: np.ndarray) -> AnswerScores:
    """Under a reference that finds all answers alike: not the policy before, which these changes are from."""
    return AnswerScores(np.ones(len(log_prob)), log_prob, np.full(len(log_prob), -7.0))


def pairs(chosen: float, rejected: float) -> ScoredPairs:
    return ScoredPairs(scores(chosen + NOISE), scores(rejected + np.zeros(COUNT)))


BEFORE = pairs(-10.0, -10.0)


def test_displacement_is_the_mean_change_of_log_probs_with_its_interval() -> None:
    """From -10 with noise to -11 without: -1, and the noise's own standard error."""
    moved = displacement.of_pairs(BEFORE, ScoredPairs(scores(np.full(COUNT, -11.0)), scores(np.full(COUNT, -13.0))))
    half = 1.959964 * 0.25 * np.sqrt(COUNT / (COUNT - 1)) / np.sqrt(COUNT)
    assert moved.summary() == pytest.approx(
        {
            "chosen_moved": -1.0,
            "chosen_moved_low": -1.0 - half,
            "chosen_moved_high": -1.0 + half,
            "rejected_moved": -3.0,
            "rejected_moved_low": -3.0,
            "rejected_moved_high": -3.0,
        }
    )


def test_where_both_fall_and_accuracy_rises_there_is_a_line_with_what_to_try() -> None:
    moved = displacement.of_pairs(BEFORE, pairs(-11.0, -13.0))
    assert moved.both_fall
    begin = (
        "Likelihood displacement: accuracy rose because both fell, chosen answers by 1.00 nats and rejected ones by 3.0"
    )
    assert moved.words.startswith(begin)
    assert 'try --objective "dpo + 0.2*sft", --objective dpop, --objective apo_zero; or fewer steps' in moved.words
    assert "\n" not in moved.words


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [(-9.0, -13.0), (-10.02, -13.0), (-13.0, -11.0), (-10.0, -10.0)],
    ids=["chosen rises", "chosen falls by less than chance would have it", "accuracy falls", "nothing moved"],
)
def test_otherwise_there_is_none(chosen: float, rejected: float) -> None:
    after = ScoredPairs(scores(chosen - NOISE), scores(rejected + np.zeros(COUNT)))
    assert not displacement.of_pairs(BEFORE, after).both_fall
    assert displacement.of_pairs(BEFORE, after).words == ""


def labelled(good: float, bad: float) -> ScoredLabelled:
    log_prob = np.concatenate([good + NOISE, bad - NOISE])
    return ScoredLabelled(scores(log_prob), np.arange(2 * COUNT) < COUNT)


def test_labelled_answers_are_told_apart_by_the_area_under_their_curve() -> None:
    moved = displacement.of_labelled(labelled(-10, -10), labelled(-11, -13))
    assert moved.both_fall
    assert "good answers by 1.00 nats and bad ones by 3.00" in moved.words
    one_kind = ScoredLabelled(scores(-10 + NOISE), np.ones(COUNT, dtype=bool))
    moved = displacement.of_labelled(one_kind, one_kind)
    assert list(moved.summary()) == ["good_moved", "good_moved_low", "good_moved_high"]
    assert moved.words == ""


def rankings(best: float, other: float) -> ScoredRankings:
    log_prob = np.stack([best + NOISE, other - NOISE], axis=1).reshape(-1)
    return ScoredRankings(scores(log_prob), np.repeat(np.arange(COUNT), 2), np.tile([1.0, 2.0], COUNT))


def test_rankings_are_read_as_their_pairs() -> None:
    moved = displacement.of_rankings(rankings(-10, -10), rankings(-11, -13))
    assert moved.summary()["chosen_moved"] == pytest.approx(-1.0)
    assert moved.both_fall


@pytest.mark.parametrize(
    ("moved", "takes"),
    [
        (displacement.of_pairs(BEFORE, BEFORE), "pairs"),
        (displacement.of_rankings(rankings(0, 0), rankings(0, 0)), "rankings"),
        (displacement.of_labelled(labelled(0, 0), labelled(0, 0)), "labelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_remedy_is_an_objective_for_such_data(moved: Displacement, takes: str) -> None:
    assert moved.remedies
    for remedy in moved.remedies:
        assert parse(remedy, {}).takes == takes
