"""Claims about ranks: they share, their intervals hold for all items at once, and being best has a probability."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from kilter.errors import ConfigError
from kilter.ranking import Comparisons, Ranking, fit_comparisons
from kilter.ranking import ranks as ranks_module
from kilter.ranking.ranks import greatest_deviation, probability_best, rank_intervals, ranks, sidak


def rows(*won: tuple[str, str, int]) -> Comparisons:
    winners, losers, counts = zip(*won, strict=True)
    return Comparisons.counted(winners, losers, [1.0] * len(won), counts)


def round_robin(strengths: np.ndarray, games: int, generator: np.random.Generator) -> Comparisons:
    left, right = np.triu_indices(len(strengths), 1)
    wins = generator.binomial(games, 1 / (1 + np.exp(strengths[right] - strengths[left])))
    return Comparisons.counted(
        [*left, *left],
        [*right, *right],
        [*np.ones(len(left)), *np.zeros(len(left))],
        np.maximum([*wins, *(games - wins)], 0.5),
        items=range(len(strengths)),
    )


def far_apart(items: int) -> Ranking:
    """Neighbours win 99 in 100 games of 10,000: every order is sure."""
    better, worse = range(items - 1), range(1, items)
    return fit_comparisons(
        Comparisons.counted(
            [*better, *worse],
            [*worse, *better],
            [1.0] * (2 * items - 2),
            [9900.0] * (items - 1) + [100.0] * (items - 1),
        )
    )


def test_the_strongest_is_first_and_equals_share_the_better_rank() -> None:
    ranking = fit_comparisons(
        rows(("a", "b", 3), ("b", "a", 1), ("a", "c", 3), ("c", "a", 1), ("b", "c", 2), ("c", "b", 2))
    )
    assert ranks(ranking).tolist() == [1, 2, 2]


def test_ranks_count_within_a_component() -> None:
    two = rows(("a", "b", 3), ("b", "a", 1), ("y", "x", 3), ("x", "y", 1), ("y", "z", 2), ("z", "y", 1), ("a", "x", 1))
    ranking = fit_comparisons(two, disconnected="within")
    found = dict(zip(ranking.items, ranks(ranking).tolist(), strict=True))
    assert (found["a"], found["b"], found["y"]) == (1, 2, 1)
    assert rank_intervals(ranking)[ranking.items.index("a")].max() <= 2


def test_sure_orders_have_single_ranks() -> None:
    ranking = far_apart(6)
    assert rank_intervals(ranking).tolist() == [[k, k] for k in range(1, 7)]
    assert probability_best(ranking).tolist() == [1, 0, 0, 0, 0, 0]


def test_an_item_alone_gets_all_ranks() -> None:
    data = rows(("a", "b", 30), ("b", "a", 1), ("b", "c", 30), ("c", "b", 1), ("hero", "a", 5))
    ranking = fit_comparisons(data, disconnected="within")
    assert rank_intervals(ranking)[ranking.items.index("hero")].tolist() == [1, 4]
    assert np.flatnonzero(np.isnan(probability_best(ranking))).tolist() == [ranking.items.index("hero")]
    assert rank_intervals(ranking)[ranking.items.index("a")].max() <= 3


def test_two_items_need_the_quantile_of_one_normal() -> None:
    covariance = np.array([[0.25, -0.25], [-0.25, 0.25]])
    found = greatest_deviation(covariance, np.zeros(2, np.int32), 0.95, None, draws=200_000, seed=1)
    assert found == pytest.approx(stats.norm.ppf(0.975), abs=0.02)
    by_t = greatest_deviation(covariance, np.zeros(2, np.int32), 0.95, 6, draws=200_000, seed=1)
    assert by_t == pytest.approx(stats.t.ppf(0.975, 5), abs=0.04)


def test_equal_items_need_the_quantile_of_the_studentized_range() -> None:
    # For independent equal variances max |z_i - z_j| / sqrt 2 is Tukey's studentized range over sqrt 2.
    covariance = np.eye(5) - 0.2
    found = greatest_deviation(covariance, np.zeros(5, np.int32), 0.9, None, draws=200_000, seed=2)
    assert found == pytest.approx(stats.studentized_range.ppf(0.9, 5, 1e6) / np.sqrt(2), abs=0.02)


def test_sidak_is_the_quantile_of_independent_intervals() -> None:
    assert sidak(0.95, 10) == pytest.approx(stats.norm.ppf((1 + 0.95 ** (1 / 10)) / 2))
    assert sidak(0.95, 1e7) == pytest.approx(-stats.norm.ppf(-np.expm1(np.log(0.95) / 1e7) / 2))
    assert sidak(0.95, 10, 8) == pytest.approx(stats.t.ppf((1 + 0.95 ** (1 / 10)) / 2, 7))


def test_bounds_for_many_items_are_wider_than_what_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = fit_comparisons(round_robin(np.linspace(-1, 1, 12), 40, np.random.default_rng(3)))
    simulated = rank_intervals(ranking)
    monkeypatch.setattr("kilter.ranking.ranks.SIMULATED", 5)
    bounded = rank_intervals(ranking)
    monkeypatch.setattr("kilter.ranking.ranks.WHOLE", 5)
    apart = rank_intervals(ranking)
    assert (np.diff(simulated) < 11).all()
    for narrow, wide in ((simulated, bounded), (bounded, apart)):
        assert (wide[:, 0] <= narrow[:, 0]).all()
        assert (wide[:, 1] >= narrow[:, 1]).all()
    assert np.diff(apart).mean() < 11


def test_simultaneous_intervals_hold_all_true_ranks_at_least_as_often_as_they_say() -> None:
    generator, strengths, repeats, level = np.random.default_rng(4), np.linspace(0.9, -0.9, 5), 200, 0.8
    held = 0
    for _ in range(repeats):
        found = rank_intervals(fit_comparisons(round_robin(strengths, 60, generator)), level, draws=1000)
        held += bool(np.all((found[:, 0] <= np.arange(1, 6)) & (np.arange(1, 6) <= found[:, 1])))
    assert held / repeats > level - 4 * np.sqrt(level * (1 - level) / repeats)


def test_of_two_items_the_probability_of_being_best_is_a_normal_tail() -> None:
    ranking = fit_comparisons(rows(("a", "b", 12), ("b", "a", 8)))
    ahead = ranking.difference("a", "b")
    found = probability_best(ranking, draws=100_000)
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(stats.norm.cdf(ahead.value / ahead.standard_error), abs=4 * 0.5 / np.sqrt(1e5))


def test_equal_items_are_equally_often_best_and_each_component_has_a_best() -> None:
    pairs = [(a, b, 5) for names in ("abc", "xyz") for a, b in combinations(names, 2)]
    ranking = fit_comparisons(rows(*pairs, *((b, a, n) for a, b, n in pairs)), disconnected="within")
    assert probability_best(ranking, draws=20_000) == pytest.approx(1 / 3, abs=4 * 0.5 / np.sqrt(2e4))


def test_clustered_judges_widen_rank_intervals() -> None:
    data = round_robin(np.linspace(-0.6, 0.6, 6), 60, np.random.default_rng(5))
    judged = replace(data, judge=(np.arange(len(data.left)) % 3).astype(np.int32), judges=("x", "y", "z"))
    ranking = fit_comparisons(judged)
    assert np.diff(rank_intervals(ranking, kind="sandwich")).sum() > np.diff(rank_intervals(ranking)).sum()


def test_a_level_that_is_no_share_is_refused() -> None:
    ranking = fit_comparisons(rows(("a", "b", 12), ("b", "a", 8)))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        rank_intervals(ranking, 95)
    with pytest.raises(ConfigError, match="at least one"):
        probability_best(ranking, draws=0)


def test_a_thousand_items_on_a_ladder_have_ranks_in_a_moment() -> None:
    names = range(1000)
    near = [(a, a + step) for step in (1, 2) for a in names[:-step]]
    better, worse = zip(*near, strict=True)
    ranking = fit_comparisons(
        Comparisons.counted(
            [*better, *worse], [*worse, *better], [1.0] * (2 * len(near)), [60.0] * len(near) + [40.0] * len(near)
        )
    )
    found = rank_intervals(ranking)
    truth = ranks(ranking)
    assert np.all((found[:, 0] <= truth) & (truth <= found[:, 1]))
    assert np.diff(found).max() < 999


def test_draws_have_the_covariance_even_if_rounding_made_it_indefinite() -> None:
    spread = np.diag([1.0, 1e-14]) - 1e-7 * np.eye(2)
    root = ranks_module._root(spread)
    assert root @ root.T == pytest.approx(np.diag([1.0, 0.0]), abs=1e-6)
