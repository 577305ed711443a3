"""Claims about what comparisons determine: who is undefeated, winless or unconnected is named, never given a number."""

from __future__ import annotations

import numpy as np
import pytest

from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, UnidentifiedError, connectivity, fit_comparisons


def games(*won: tuple[object, object]) -> Comparisons:
    winners, losers = zip(*won, strict=True)
    return Comparisons.counted(winners, losers, [1.0] * len(won))


CIRCLE = [("a", "b"), ("b", "c"), ("c", "a")]
LEAGUES = [*CIRCLE, ("x", "y"), ("y", "z"), ("z", "x")]


def test_an_undefeated_item_is_named_and_refused() -> None:
    with pytest.raises(UnidentifiedError, match=r"never lost to any other: hero\.") as raised:
        fit_comparisons(games(*CIRCLE, ("hero", "a"), ("hero", "b")))
    assert raised.value.found.undefeated == (("hero",),)
    assert raised.value.found.winless == ()
    assert "suggest_matches" in str(raised.value)
    assert "disconnected='within'" in str(raised.value)


def test_a_winless_item_and_a_group_between_are_named() -> None:
    found = connectivity(
        games(*CIRCLE, ("hero", "a"), ("hero", "p"), ("p", "q"), ("q", "p"), ("p", "loser"), ("a", "loser"))
    )
    # No group holds more than half of the items, so all are told.
    assert found.undefeated == (("hero",),)
    assert found.winless == (("loser",),)
    assert set(found.between) == {("a", "b", "c"), ("p", "q")}
    assert found.unconnected == ()


def test_two_leagues_are_told_apart_by_name() -> None:
    with pytest.raises(
        UnidentifiedError, match=r"2 sets that were never compared .*\(a, b, c\), \(x, y, z\)"
    ) as raised:
        fit_comparisons(games(*LEAGUES))
    assert raised.value.found.unconnected == (("a", "b", "c"), ("x", "y", "z"))
    assert raised.value.found.undefeated == raised.value.found.winless == ()


def test_an_item_without_games_is_a_league_of_its_own() -> None:
    data = Comparisons.counted("abc", "bca", [1] * 3, items=["a", "b", "c", "new"])
    assert connectivity(data).unconnected == (("a", "b", "c"), ("new",))


@pytest.mark.parametrize("outcome", [0.5, 0.3])
def test_a_tie_or_a_grade_leads_both_ways(outcome: float) -> None:
    data = Comparisons.counted(["a", "b"], ["b", "c"], [outcome, outcome])
    assert connectivity(data).identified


def test_five_hundred_items_in_five_thousand_random_games_are_explained() -> None:
    generator = np.random.default_rng(1)
    strengths = generator.normal(scale=2, size=500)
    left = generator.integers(500, size=5000)
    right = (left + generator.integers(1, 500, size=5000)) % 500
    won = generator.random(5000) < 1 / (1 + np.exp(strengths[right] - strengths[left]))
    data = Comparisons.counted(left.tolist(), right.tolist(), won.astype(float), items=range(500))
    with pytest.raises(UnidentifiedError) as raised:
        fit_comparisons(data)
    found = raised.value.found
    winner, loser = np.where(won, left, right), np.where(won, right, left)
    never_lost = set(range(500)) - set(loser.tolist())
    never_won = set(range(500)) - set(winner.tolist())
    assert never_lost
    assert never_won
    assert {item for items in found.undefeated for item in items} >= never_lost
    assert {item for items in found.winless for item in items} >= never_won
    assert len(str(raised.value)) < 1000
    within = fit_comparisons(data, disconnected="within")
    assert within.left_out == np.sum(found.group[left] != found.group[right])
    assert np.isnan(within.standard_errors()[list(never_lost)]).all()
    assert np.isfinite(within.standard_errors()[found.group == 0]).all()
    prior = fit_comparisons(data, disconnected="prior")
    assert prior.prior_variance == 1
    assert np.isfinite(prior.standard_errors()).all()
    assert np.corrcoef(prior.strengths, strengths)[0, 1] > 0.8


def test_groups_are_those_of_reachability() -> None:
    generator = np.random.default_rng(2)
    for _ in range(30):
        winner = generator.integers(9, size=11)
        loser = (winner + generator.integers(1, 9, size=11)) % 9
        reach = np.eye(9, dtype=bool)
        reach[winner, loser] = True
        for _ in range(4):
            reach = reach @ reach
        found = connectivity(Comparisons.counted(winner.tolist(), loser.tolist(), [1.0] * 11, items=range(9)))
        same = reach & reach.T
        assert np.array_equal(found.group[:, None] == found.group, same)
        touching = reach | reach.T
        for _ in range(4):
            touching = touching @ touching
        assert np.array_equal(found.league[:, None] == found.league, touching)
        assert found.identified == bool(same.all())
        sizes = np.bincount(found.group)
        assert np.all(np.diff(sizes) <= 0)


def test_within_groups_each_is_fitted_as_if_alone() -> None:
    data = games(*LEAGUES, ("a", "b"), ("y", "x"), ("y", "x"), ("a", "x"))
    ranking = fit_comparisons(data, disconnected="within")
    assert ranking.left_out == 1
    for names in ("abc", "xyz"):
        alone = fit_comparisons(
            games(*(pair for pair in [*LEAGUES, ("a", "b"), ("y", "x"), ("y", "x")] if pair[0] in names))
        )
        ours = [ranking.strengths[ranking.items.index(item)] for item in alone.items]
        assert ours == pytest.approx(alone.strengths.tolist(), abs=1e-9)
        errors = [ranking.standard_errors()[ranking.items.index(item)] for item in alone.items]
        assert errors == pytest.approx(alone.standard_errors().tolist())
    with pytest.raises(DataError, match="'a' and 'x' are in groups that the data do not connect"):
        ranking.difference("a", "x")


def test_a_prior_has_the_maximum_of_the_posterior() -> None:
    # Two items, one game: s = (x, -x) with 1 - P = 1 / (1 + exp 2x) equal to x / variance.
    ranking = fit_comparisons(games(("a", "b")), disconnected="prior")
    x = ranking.strengths[0]
    assert ranking.strengths[1] == pytest.approx(-x)
    assert 1 / (1 + np.exp(2 * x)) == pytest.approx(x)
    with pytest.raises(ConfigError, match="positive number"):
        fit_comparisons(games(("a", "b")), prior_variance=0.0)


def test_where_no_two_items_are_connected_there_is_nothing_to_rank_within() -> None:
    with pytest.raises(UnidentifiedError):
        fit_comparisons(games(("a", "b"), ("b", "c"), ("a", "c")), disconnected="within")


def test_a_message_names_a_few_of_many() -> None:
    data = games(*CIRCLE, *((f"hero{k}", "a") for k in range(12)), *((item, item + "'") for item in "abc"))
    said = connectivity(data).explanation()
    assert "and 7 more" in said
    assert said.count("hero") == 5
