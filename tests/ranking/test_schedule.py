"""Claims about what to compare next: what connects comes first, then what lowers the variance of differences most."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest

from kilter.errors import ConfigError
from kilter.ranking import Comparisons, Ranking, connectivity, fit_comparisons, schedule
from kilter.ranking.schedule import suggest_matches


def simulated(items: int, games: int, seed: int, ties: float = 0.0) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    outcome = (generator.random(games) < 1 / (1 + np.exp((left - right) / items))).astype(float)
    outcome[generator.random(games) < ties] = 0.5
    return Comparisons.counted(left.tolist(), right.tolist(), outcome, items=range(items))


def mean_variance(ranking: Ranking, matches: list[tuple[int, int]]) -> float:
    """Of all differences, from the information matrix with the expected information of further matches."""
    items = len(ranking.items)
    information = ranking.maximum.information.dense()
    for left, right in matches:
        contrast = np.zeros(len(information))
        contrast[left], contrast[right] = 1, -1
        if ranking.order_effect:
            contrast[items] = 1
        ahead, tie = (
            np.array([contrast @ ranking.parameters - contrast[-1] * ranking.model.has_ties]),
            ranking.extras[-1:],
        )
        step = 1e-4
        three = [
            ranking.model.log_probabilities(ahead + move, float(tie[0]) if len(tie) else 0.0)[:, 0]
            for move in (-step, 0, step)
        ]
        kinds = slice(None) if ranking.model.has_ties else slice(None, None, 2)
        slope = (three[2] - three[0])[kinds] / (2 * step)
        information += float(np.exp(three[1][kinds]) @ slope**2) * np.outer(contrast, contrast)
    covariance = np.linalg.pinv(information)[:items, :items]
    diagonal = np.diag(covariance)
    return float(np.mean([diagonal[a] + diagonal[b] - 2 * covariance[a, b] for a, b in combinations(range(items), 2)]))


@pytest.mark.parametrize(
    ("ties", "order"), [("none", False), ("none", True), ("davidson", False), ("rao-kupper", True)]
)
def test_each_match_is_the_best_by_brute_force_after_those_before_it(ties: str, order: bool) -> None:
    data = simulated(6, 120, 1, ties=0.0 if ties == "none" else 0.2)
    ranking = fit_comparisons(data, ties=ties, order_effect=order)  # type: ignore[arg-type]
    played: list[tuple[int, int]] = []
    for match in suggest_matches(ranking, 4):
        before = mean_variance(ranking, played)
        pairs = permutations(range(6), 2) if order else combinations(range(6), 2)
        met = [set(pair) for pair in played]
        gains = {pair: before - mean_variance(ranking, [*played, pair]) for pair in pairs if set(pair) not in met}
        chosen = (ranking.items.index(match.left), ranking.items.index(match.right))
        assert match.gain == pytest.approx(gains[chosen], rel=1e-5)
        assert match.gain == pytest.approx(max(gains.values()), rel=1e-5)
        played.append(chosen)


def test_an_item_with_few_games_is_suggested_against_one_near_it() -> None:
    data = simulated(8, 2000, 2)
    few = Comparisons.counted(
        [*data.left.tolist(), "new", 3],
        [*data.right.tolist(), 3, "new"],
        [*data.outcome, 1, 1],
        items=[*range(8), "new"],
    )
    first = suggest_matches(few, 1)[0]
    assert "new" in (first.left, first.right)


def test_a_pair_comes_again_only_when_all_others_have_come() -> None:
    found = suggest_matches(simulated(20, 40_000, 3), 30)
    assert len({frozenset((match.left, match.right)) for match in found}) == 30
    of_three = suggest_matches(simulated(3, 40, 3), 7)
    assert [of_three[at] != of_three[at + 1] for at in range(6)] == [True] * 6
    assert len({frozenset((match.left, match.right)) for match in of_three[:3]}) == 3
    assert of_three[0].gain > of_three[3].gain


def test_two_leagues_are_connected_by_one_comparison_of_their_nearest() -> None:
    data = Comparisons.counted("abxy", "bayx", [1] * 4, [3, 2, 2, 3])
    found = suggest_matches(data, 1)
    assert len(found) == 1
    assert {found[0].left in "ab", found[0].right in "ab"} == {True, False}
    assert "never compared" in found[0].reason
    assert found[0].gain == math.inf


def test_what_is_suggested_connects_all_groups_once_results_go_both_ways() -> None:
    # A hero, a loser, a second league and an item that nobody met.
    rows = [("a", "b"), ("b", "c"), ("c", "a"), ("hero", "a"), ("b", "loser"), ("x", "y"), ("y", "x")]
    data = Comparisons.counted(*zip(*rows, strict=True), [1.0] * len(rows), items=[*"abcxy", "hero", "loser", "new"])
    groups = int(connectivity(data).group.max()) + 1
    found = [match for match in suggest_matches(data, 10) if match.gain == math.inf]
    assert len(found) == groups - 1 == 4
    both = [(m.left, m.right) for m in found] + [(m.right, m.left) for m in found]
    more = Comparisons.counted(*zip(*rows, *both, strict=True), [1.0] * (len(rows) + len(both)), items=data.items)
    assert connectivity(more).identified
    assert len(suggest_matches(data, 10)) == 10
    ranked_within = fit_comparisons(data, disconnected="within")
    assert sum(match.gain == math.inf for match in suggest_matches(ranked_within, 6)) >= 4


def test_an_undefeated_item_is_to_meet_the_strongest_of_the_others() -> None:
    rows = [("s", "m"), ("s", "m"), ("m", "s"), ("m", "w"), ("m", "w"), ("w", "m"), ("s", "w"), ("hero", "w")]
    found = suggest_matches(Comparisons.counted(*zip(*rows, strict=True), [1.0] * len(rows)), 1)[0]
    assert (found.left, found.right) == ("hero", "s")
    assert "went one way" in found.reason


def test_drawn_candidates_gain_what_they_would_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = fit_comparisons(simulated(12, 300, 4), order_effect=True)
    among_all = suggest_matches(ranking, 5)
    monkeypatch.setattr(schedule, "ALL_PAIRS", 5)
    monkeypatch.setattr(schedule, "DRAWN", 5000)
    drawn = suggest_matches(ranking, 5)
    assert [match.gain for match in drawn] == pytest.approx([match.gain for match in among_all])


def test_no_matches_are_refused() -> None:
    with pytest.raises(ConfigError, match="positive number"):
        suggest_matches(simulated(4, 100, 5), 0)
