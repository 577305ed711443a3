"""Claims about rankings of two items: all that is said of them is what is said of the same comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kilter.ranking import Comparisons, Ranking, Rankings, RankingsFit, fit_comparisons, fit_rankings
from kilter.ranking.fitted import Method
from kilter.ranking.leaderboard import leaderboard
from kilter.ranking.ranks import rank_intervals
from kilter.ranking.resampling import bootstrap
from kilter.ranking.schedule import suggest_matches

ITEMS = tuple("abcdef")
GAMES = 240


def both(ties: bool, judges: int = 0, prior_variance: float | None = None) -> tuple[Ranking, RankingsFit]:
    """Fits to the same games, told as comparisons and as rankings, with weights."""
    generator = np.random.default_rng(3)
    left = generator.integers(6, size=GAMES)
    right = (left + generator.integers(1, 6, size=GAMES)) % 6
    outcome = (generator.random(GAMES) < 1 / (1 + np.exp((left - right) / 3))).astype(float)
    if ties:
        outcome[generator.random(GAMES) < 0.2] = 0.5
    count, weight = generator.integers(1, 4, GAMES).astype(float), generator.choice([0.5, 1, 2], GAMES)
    judge = generator.integers(judges, size=GAMES).astype(np.int32) if judges else None
    left, right = left.astype(np.int32), right.astype(np.int32)
    comparisons = Comparisons(ITEMS, left, right, outcome, count, weight, judge=judge)
    place = np.stack([np.where(outcome < 0.5, 2, 1), np.where(outcome > 0.5, 2, 1)], axis=1)
    rankings = Rankings(
        ITEMS,
        np.stack([left, right], axis=1).ravel(),
        np.repeat(np.arange(GAMES, dtype=np.int32), 2),
        place.astype(np.int32).ravel(),
        count,
        weight,
        judge=judge,
    )
    return fit_comparisons(comparisons, prior_variance=prior_variance), fit_rankings(
        rankings, prior_variance=prior_variance
    )


@pytest.mark.parametrize("prior_variance", [None, 0.4])
@pytest.mark.parametrize("judges", [0, 12])
@pytest.mark.parametrize("ties", [False, True])
def test_estimates_and_both_covariances_are_the_same(ties: bool, judges: int, prior_variance: float | None) -> None:
    ours, theirs = both(ties, judges, prior_variance)
    assert theirs.parameters == pytest.approx(ours.parameters, abs=1e-9)
    assert theirs.log_likelihood == pytest.approx(ours.log_likelihood, rel=1e-12)
    assert theirs.clusters == ours.clusters
    assert theirs.covariance() == pytest.approx(ours.covariance(), abs=1e-10)
    assert theirs.covariance("sandwich") == pytest.approx(ours.covariance("sandwich"), abs=1e-9)
    assert theirs.games == pytest.approx(ours.games)


@pytest.mark.parametrize("method", ["wald", "sandwich", "profile"])
@pytest.mark.parametrize("ties", [False, True])
def test_intervals_are_the_same_by_every_method(ties: bool, method: Method) -> None:
    ours, theirs = both(ties, judges=12)
    assert theirs.intervals(0.9, method) == pytest.approx(ours.intervals(0.9, method), abs=1e-6)
    assert theirs.difference("a", "e", 0.9, method) == pytest.approx(ours.difference("a", "e", 0.9, method), abs=1e-6)
    anchored = [fit.told_on("elo", ("c", 1000.0), method=method) for fit in (ours, theirs)]
    assert anchored[1] == pytest.approx(anchored[0], abs=1e-4)


def test_predictions_rank_intervals_and_suggestions_are_the_same() -> None:
    ours, theirs = both(ties=True, judges=12)
    predicted = ours.predict("b", "d", kind="sandwich")
    assert theirs.predict(["b", "d"], kind="sandwich").first[0] == pytest.approx(predicted.left_wins, abs=1e-9)
    assert (rank_intervals(theirs, kind="sandwich") == rank_intervals(ours, kind="sandwich")).all()
    pairs = [[(match.left, match.right) for match in suggest_matches(fit, 4)] for fit in (ours, theirs)]
    assert pairs[0] == pairs[1]
    gains = [[match.gain for match in suggest_matches(fit, 4)] for fit in (ours, theirs)]
    assert gains[1] == pytest.approx(gains[0], rel=1e-7)


@pytest.mark.parametrize("judges", [0, 12])
def test_bootstrapped_errors_are_the_same_within_those_of_the_draws(judges: int) -> None:
    told: list[int] = []
    drawn = [bootstrap(fit, 400, seed=2, progress=told.append) for fit in both(ties=True, judges=judges)]
    assert sum(told) == 2 * 400
    errors = [np.std(one.strengths, axis=0) for one in drawn]
    # A standard deviation of 400 draws has an error of 1 / sqrt(800), the ratio of two 1.4 times that: 5%.
    assert errors[1] / errors[0] == pytest.approx(1, abs=0.2)
    assert drawn[1].explanation().startswith("400 draws of " + ("judges" if judges else "rankings"))


def test_a_prior_of_rankings_connects_what_nothing_else_does() -> None:
    apart = Rankings(
        ITEMS[:4], *(np.array(part, np.int32) for part in ([0, 1, 2, 3], [0, 0, 1, 1], [1, 2, 1, 2])), np.ones(2)
    )
    match = suggest_matches(apart, 1)[0]
    assert {match.left, match.right} & {"a", "b"}
    assert {match.left, match.right} & {"c", "d"}
    assert "never compared" in match.reason


def scores(fit: RankingsFit) -> NDArray[np.float64]:
    """Qp, by moving the parameters a little."""
    from dataclasses import replace

    from kilter.ranking.choices import choices_of

    of, rows = fit.rankings, []
    for ranking in range(len(of.count)):
        entries = np.flatnonzero(of.ranking == ranking)
        single = replace(of.of_entries(entries, np.zeros(len(entries), np.int32)), count=np.ones(1), weight=np.ones(1))
        alone = choices_of(single)
        ties = np.zeros(len(fit.tie_orders))
        ties[np.searchsorted(fit.tie_orders, alone.orders)] = alone.chosen[len(of.items) :]
        alone = replace(alone, orders=fit.tie_orders, chosen=np.concatenate([alone.chosen[: len(of.items)], ties]))
        rows.append(
            [
                (alone.log_likelihood(fit.parameters + move) - alone.log_likelihood(fit.parameters - move)) / 2e-5
                for move in 1e-5 * np.eye(len(fit.parameters))
            ]
        )
    return np.array(rows)


def test_the_sandwich_of_longer_rankings_is_made_of_their_own_gradients() -> None:
    from ranking.lists import drawn

    fit = fit_rankings(drawn(5, 40, 4, ties=True))
    slopes, of = scores(fit), fit.rankings
    choices = sum(
        count * (len(np.unique(of.place[of.ranking == ranking])) - (np.sum(of.place[of.ranking == ranking] == 4) == 1))
        for ranking, count in enumerate(of.count)
    )
    free = len(fit.parameters) - 1
    meat = (of.count * slopes.T) @ slopes * choices / (choices - free)
    expected = fit.covariance() @ meat @ fit.covariance()
    assert fit.covariance("sandwich") == pytest.approx(expected, abs=1e-8)


def test_a_leaderboard_of_rankings_has_their_judges_sandwich_and_the_ties_they_showed() -> None:
    ours, theirs = (leaderboard(fit, intervals="sandwich") for fit in both(ties=True, judges=12))
    assert [line[:4] for line in theirs.lines] == [line[:4] for line in ours.lines]
    assert theirs.extras[0].name == "ties of 2"
    assert theirs.extras[0][1:] == pytest.approx(ours.extras[0][1:], abs=1e-8)
