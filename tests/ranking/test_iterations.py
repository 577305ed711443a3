"""Claims about the fixed-point iterations: they end at the maximum of the likelihood, found another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Floats
from kilter.ranking.connectivity import UnidentifiedError
from kilter.ranking.iterations import Iterated, minorize_maximize, newman
from kilter.ranking.newton import NotConvergedError

BOTH: list[Callable[[Comparisons], Iterated]] = [minorize_maximize, newman]


def football() -> Comparisons:
    return Comparisons.counted(list("ABAC"), list("BACA"), [1, 1, 1, 1], [8, 4, 3, 5])


def season(items: int = 8, games: int = 400, seed: int = 0, ties: bool = True) -> Comparisons:
    rng = np.random.default_rng(seed)
    strengths = rng.normal(0, 1, items)
    left = rng.integers(0, items, games)
    right = (left + rng.integers(1, items, games)) % items
    outcome = (rng.random(games) < expit(strengths[left] - strengths[right])).astype(float)
    if ties:
        outcome[rng.random(games) < 0.2] = 0.5
    return Comparisons.counted(left.tolist(), right.tolist(), outcome.tolist(), items=range(items))


def gaps(strengths: Floats, data: Comparisons) -> Floats:
    return strengths[data.left] - strengths[data.right]


def half(parameters: Floats, data: Comparisons) -> float:
    gap = gaps(parameters, data)
    return float(np.sum(data.count * (data.outcome * log_expit(gap) + (1 - data.outcome) * log_expit(-gap))))


def davidson(parameters: Floats, data: Comparisons) -> float:
    gap = gaps(parameters[:-1], data)
    logits = np.stack([-gap / 2, np.full_like(gap, parameters[-1]), gap / 2])
    chosen = (data.outcome * 2).astype(int)
    return float(np.sum(data.count * (logits[chosen, np.arange(len(gap))] - logsumexp(logits, axis=0))))


def rao_kupper(parameters: Floats, data: Comparisons) -> float:
    gap, threshold = gaps(parameters[:-1], data), parameters[-1]
    probability = np.stack([expit(-gap - threshold), np.zeros_like(gap), expit(gap - threshold)])
    probability[1] = 1 - probability.sum(axis=0)
    chosen = probability[(data.outcome * 2).astype(int), np.arange(len(gap))]
    return float(np.sum(data.count * np.log(np.maximum(chosen, 1e-300))))


@pytest.mark.parametrize("iterate", BOTH)
def test_the_football_teams_have_strengths_of_2_and_1_and_ten_thirds(
    iterate: Callable[[Comparisons], Iterated],
) -> None:
    strengths = iterate(football()).strengths
    assert np.exp(strengths - strengths[1]) == pytest.approx([2, 1, 10 / 3], rel=1e-11)
    assert strengths.sum() == pytest.approx(0, abs=1e-13)


def test_two_items_need_one_step_and_one_to_see_that_it_was_enough() -> None:
    fitted = newman(Comparisons.counted("ab", "ba", [1, 1], [9, 2]))
    assert fitted.iterations == 2
    assert fitted.strengths[0] - fitted.strengths[1] == pytest.approx(math.log(4.5), rel=1e-14)


@pytest.mark.parametrize("iterate", BOTH)
def test_they_end_where_a_general_optimiser_does(iterate: Callable[[Comparisons], Iterated]) -> None:
    data = season()
    found = minimize(lambda x: -half(x, data), np.zeros(8), tol=1e-12).x
    fitted = iterate(data)
    assert fitted.strengths == pytest.approx(found - found.mean(), abs=2e-5)
    assert fitted.last_change <= 1e-12
    assert fitted.tie_parameter is None


@pytest.mark.parametrize(
    ("ties", "log_likelihood", "start"), [("davidson", davidson, 0.0), ("rao-kupper", rao_kupper, 0.5)]
)
def test_with_ties_fitted_they_end_there_too(
    ties: str, log_likelihood: Callable[[Floats, Comparisons], float], start: float
) -> None:
    data = season(items=6, seed=1)
    found = minimize(lambda x: -log_likelihood(x, data), np.append(np.zeros(6), start), tol=1e-12).x
    fitted = newman(data, ties=ties)
    assert fitted.strengths == pytest.approx(found[:-1] - found[:-1].mean(), abs=5e-5)
    assert fitted.tie_parameter == pytest.approx(found[-1], abs=5e-5)


def test_davidson_of_two_equals_the_table_of_their_games() -> None:
    # Three free probabilities and two parameters beside: wins : losses = alpha, ties / sqrt(wins losses) = exp(t).
    fitted = newman(Comparisons.counted("aab", "bba", [1, 0.5, 1], [16, 6, 4]), ties="davidson")
    assert fitted.strengths[0] - fitted.strengths[1] == pytest.approx(math.log(4), abs=1e-11)
    assert fitted.tie_parameter == pytest.approx(math.log(6 / 8), abs=1e-11)


def test_rao_kupper_of_two_equal_ones_that_tie_as_often_as_they_win_has_threshold_log_2() -> None:
    # sigmoid(-k) = 1/3 at k = log 2.
    fitted = newman(Comparisons.counted("aab", "bba", [1, 0.5, 1], [5, 5, 5]), ties="rao-kupper")
    assert fitted.tie_parameter == pytest.approx(math.log(2), abs=1e-11)


def test_newman_needs_far_fewer_steps_than_mm() -> None:
    data = season(items=20, games=2_000, ties=False)
    assert newman(data).iterations * 2 < minorize_maximize(data).iterations * 3


def test_grades_weights_and_order_of_mention_count_as_they_should() -> None:
    graded = Comparisons.counted("ab", "ba", [0.75, 0.25], [4, 8])
    fitted = newman(graded)
    # a has 3 + 6 of 12.
    assert fitted.strengths[0] - fitted.strengths[1] == pytest.approx(math.log(3), rel=1e-13)


@pytest.mark.parametrize("iterate", BOTH)
def test_an_undefeated_item_is_named_before_they_start(iterate: Callable[[Comparisons], Iterated]) -> None:
    with pytest.raises(UnidentifiedError, match="never lost to any other: a"):
        iterate(Comparisons.counted("aab", "bcc", [1, 1, 0.5], [3, 3, 4]))


def test_too_few_iterations_are_an_error_and_never_an_answer() -> None:
    with pytest.raises(NotConvergedError, match="after 3 iterations the last step was still"):
        minorize_maximize(season(), max_iterations=3)


def test_ties_that_explain_every_loss_away_do_not_pass_for_an_answer() -> None:
    # One win of a and one tie: connected both ways, and yet a's strength and ties grow together for ever.
    with pytest.raises(NotConvergedError):
        newman(Comparisons.counted("aa", "bb", [1, 0.5]), ties="davidson", max_iterations=1_000)


def test_ties_that_are_not_there_and_words_that_mean_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="there are no ties"):
        newman(football(), ties="davidson")
    with pytest.raises(ConfigError, match="half, davidson, rao-kupper"):
        newman(football(), ties="drawn")
    with pytest.raises(DataError, match="grades between 0 and 1"):
        newman(Comparisons.counted("aab", "bba", [0.5, 0.7, 1]), ties="rao-kupper")
    with pytest.raises(DataError, match="there are no wins"):
        newman(Comparisons.counted("a", "b", [0.5]), ties="davidson")


@pytest.mark.parametrize(("items", "games"), [(5, 100), (30, 2_000)])
def test_mm_agrees_with_choix(items: int, games: int) -> None:
    choix = pytest.importorskip("choix")
    data = season(items, games, seed=2, ties=False)
    won = data.outcome == 1
    pairs = np.stack([np.where(won, data.left, data.right), np.where(won, data.right, data.left)], axis=1).tolist()
    theirs = choix.ilsr_pairwise(items, pairs, tol=1e-11)
    assert minorize_maximize(data).strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    assert newman(data).strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)
