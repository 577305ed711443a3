"""Claims about parts of the model that tell winners from losers without exception, or cannot be told apart: named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kilter.errors import DataError
from kilter.ranking import Comparisons, NotConvergedError, SeparatedError, fit_comparisons, information
from kilter.ranking.likelihood import totals_of
from kilter.ranking.separation import runaway


def with_covariate(data: Comparisons, *columns: np.ndarray) -> Comparisons:
    names = tuple("xyz"[: len(columns)])
    return replace(data, covariates=np.column_stack(columns).astype(float), covariate_names=names)


def coin_tosses(items: int, games: int, seed: int) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    return Comparisons.counted(
        left.tolist(), right.tolist(), (generator.random(games) < 0.5).astype(float), items=range(items)
    )


def test_where_home_always_wins_the_order_effect_is_named() -> None:
    data = Comparisons.counted("aabbcc", "bcacab", [1.0] * 6, [3.0] * 6)
    with pytest.raises(SeparatedError, match="the order effect can explain") as raised:
        fit_comparisons(data, order_effect=True)
    assert raised.value.parts == ("order",)
    assert fit_comparisons(data).strengths == pytest.approx(0, abs=1e-12)
    with pytest.raises(SeparatedError):
        fit_comparisons(data, order_effect=True, prior_variance=1.0)


def test_wins_away_from_home_all_around_are_enough() -> None:
    data = Comparisons.counted("aabbccabc", "bcacabbca", [1.0] * 6 + [0.0] * 3, [3.0] * 6 + [1.0] * 3)
    # By symmetry the strengths but for the circle are equal: 18 of 21 games were won at home.
    ranking = fit_comparisons(data, order_effect=True)
    assert ranking.strengths == pytest.approx(0, abs=1e-9)
    assert ranking.extras[0] == pytest.approx(np.log(18 / 3))


def test_home_wins_but_for_those_of_the_weakest_separate_with_the_strengths() -> None:
    # a loses at home to b once; b never loses at home: order and strengths together explain all.
    data = Comparisons.counted("aba", "bab", [1.0, 1.0, 0.0], [20, 20, 1])
    with pytest.raises(SeparatedError, match="together with the items' strengths"):
        fit_comparisons(data, order_effect=True)


def test_a_covariate_that_separates_is_named_and_not_the_other() -> None:
    data = coin_tosses(4, 200, 1)
    noise = np.random.default_rng(2).normal(size=200)
    longer = np.where(data.outcome == 1, 1, -1) * np.abs(noise + 0.1)
    with pytest.raises(SeparatedError, match="the covariate y can explain") as raised:
        fit_comparisons(with_covariate(data, noise, longer))
    assert raised.value.parts == ("y",)
    longer[0] *= -1
    assert fit_comparisons(with_covariate(data, noise, longer)).extras[1] > 0


def test_the_unit_of_a_covariate_does_not_hide_that_it_separates() -> None:
    data = coin_tosses(4, 200, 3)
    longer = np.where(data.outcome == 1, 1, -1) * 1e-4
    with pytest.raises(SeparatedError, match="the covariate x"):
        fit_comparisons(with_covariate(data, longer))


@pytest.mark.parametrize("ties", ["davidson", "rao-kupper"])
def test_ties_only_between_neighbours_are_explained_without_end(ties: str) -> None:
    # Neighbours always tie and the rest never do: strengths far apart and ties wide explain all of it.
    names = list(range(5))
    tied = [(a, a + 1, 0.5) for a in names[:-1]]
    won = [(a, b, 1.0) for a in names for b in names[a + 2 :]]
    data = Comparisons.counted(*zip(*tied, *won, strict=True))
    with pytest.raises(SeparatedError, match="the model of ties") as raised:
        fit_comparisons(data, ties=ties)  # type: ignore[arg-type]
    assert raised.value.parts == ("ties",)
    assert "ties='half'" in str(raised.value)
    assert np.all(np.diff(fit_comparisons(data, ties="half").strengths) < 0)


def test_a_direction_found_lowers_no_outcomes_probability() -> None:
    data = Comparisons.counted("aabbcc", "bcacab", [1.0] * 6)
    direction = runaway(totals_of(data, order_effect=True, ties="none"), False, np.zeros(4, bool))
    gain = direction[data.left] - direction[data.right] + direction[3]
    assert np.all(gain >= -1e-9)
    assert gain.sum() > 0.1
    more = Comparisons.counted("aabbccab", "bcacabba", [1.0] * 6 + [0.0] * 2)
    assert not runaway(totals_of(more, order_effect=True, ties="none"), False, np.zeros(4, bool)).any()


def property_of_items(data: Comparisons) -> np.ndarray:
    of = np.random.default_rng(4).normal(size=len(data.items))
    return of[data.left] - of[data.right]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("banded", [False, True])
def test_a_property_of_the_items_is_no_covariate_of_comparisons(
    sparse: bool, banded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sparse:
        monkeypatch.setattr(information, "DENSE", 1)
        monkeypatch.setattr(information, "BANDED_OPERATIONS", 2e10 if banded else 0)
    data = coin_tosses(12, 400, 5)
    with pytest.raises(DataError, match="the covariate x cannot be told from"):
        fit_comparisons(with_covariate(data, property_of_items(data)))
    with pytest.raises(DataError, match="the order effect and the covariate x cannot be told from"):
        fit_comparisons(with_covariate(data, np.ones(400)), order_effect=True)
    with pytest.raises(DataError, match="the covariate y cannot be told from"):
        fit_comparisons(with_covariate(data, np.random.default_rng(6).normal(size=400), np.zeros(400)))


def test_a_prior_tells_a_property_of_the_items_from_their_strengths() -> None:
    data = coin_tosses(12, 400, 7)
    assert np.isfinite(fit_comparisons(with_covariate(data, property_of_items(data)), prior_variance=1.0).extras[0])


def test_an_order_effect_of_pairs_that_met_one_way_only_is_not_told_from_strengths() -> None:
    data = Comparisons.counted("aabb", "bbcc", [1.0, 0.0, 1.0, 0.0], [5, 3, 4, 4])
    with pytest.raises(DataError, match="the order effect cannot be told from"):
        fit_comparisons(data, order_effect=True)


def test_a_fit_that_does_not_end_for_no_known_reason_still_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilter.ranking.newton.MOST_STEPS", 2)
    with pytest.raises(NotConvergedError, match="no maximum after 2 Newton steps"):
        fit_comparisons(Comparisons.counted("abbc", "bacb", [1.0] * 4, [9, 1, 8, 1]))


def test_a_slope_that_rounding_makes_zero_is_no_maximum() -> None:
    # The home team's wins and ties are explained ever better by a home advantage just above the threshold of ties.
    data = Comparisons.counted("ca", "dd", [1.0, 0.5], [24, 89], items="abcdef")
    with pytest.raises(SeparatedError, match="the order effect and the model of ties can explain"):
        fit_comparisons(data, ties="rao-kupper", order_effect=True, disconnected="prior")
