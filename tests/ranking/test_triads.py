"""Claims about circles: counted as by enumeration, expected as by the model, and named."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest

from kilter.errors import ConfigError
from kilter.ranking import Comparisons, fit_comparisons, triads
from kilter.ranking.triads import circular_triads, transitivity


def tournament(strengths: np.ndarray, games: int, generator: np.random.Generator) -> Comparisons:
    left, right = np.triu_indices(len(strengths), 1)
    wins = generator.binomial(games, 1 / (1 + np.exp(strengths[right] - strengths[left])))
    rows = [(a, b, 1.0, w) for a, b, w in zip(left, right, wins, strict=True) if w]
    rows += [(a, b, 0.0, games - w) for a, b, w in zip(left, right, wins, strict=True) if games - w]
    return Comparisons.counted(*zip(*rows, strict=True), items=range(len(strengths)))


def by_enumeration(left: np.ndarray, right: np.ndarray, lead: np.ndarray) -> int:
    beats = {(a, b) if n > 0 else (b, a) for a, b, n in zip(left, right, lead, strict=True) if n}
    items = sorted({*left, *right})
    return sum(
        any({(a, b), (b, c), (c, a)} <= beats for a, b, c in permutations(three)) for three in combinations(items, 3)
    )


@pytest.mark.parametrize("dense_items", [0, 300])
def test_circles_are_counted_as_by_enumeration(dense_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triads, "DENSE_ITEMS", dense_items)
    monkeypatch.setattr(triads, "SPARSE_SHARE", 1.0)
    generator = np.random.default_rng(1)
    for _ in range(5):
        left, right = (side.astype(np.int32) for side in np.triu_indices(9, 1))
        lead = generator.integers(-2, 3, len(left)).astype(float)
        assert circular_triads(left, right, lead, 9) == by_enumeration(left, right, lead)


def test_rock_paper_scissors_is_one_circle_without_consistence() -> None:
    data = Comparisons.counted(
        ["rock", "scissors", "paper"] * 2, ["scissors", "paper", "rock"] * 2, [1, 1, 1, 0, 0, 0], [40, 30, 20, 2, 2, 2]
    )
    found = transitivity(fit_comparisons(data), draws=999)
    assert (found.triads, found.circular, found.consistence) == (1, 1, 0)
    assert len(found.cycles) == 1
    assert found.cycles[0].items == ("rock", "scissors", "paper")
    assert found.cycles[0].shares == pytest.approx((40 / 42, 30 / 32, 20 / 22))
    assert found.cycles[0].evidence == pytest.approx(18 / math.sqrt(22))
    assert 0 < len(found.upsets) <= 2
    # The fit takes the circle to be chance, and chance brings one about a quarter of the time at the most.
    assert found.expected <= 0.3
    assert found.p_value <= 0.35


def test_an_order_without_circles_is_consistent() -> None:
    names = "abcde"
    pairs = list(combinations(names, 2))
    data = Comparisons.counted(
        [a for a, _ in pairs] * 2, [b for _, b in pairs] * 2, [1.0] * 10 + [0.0] * 10, [8] * 10 + [4] * 10
    )
    found = transitivity(fit_comparisons(data), draws=99)
    assert (found.triads, found.circular, found.consistence, found.p_value) == (10, 0, 1, 1)
    assert (found.upsets, found.cycles) == ((), ())


def test_of_equal_items_a_quarter_of_the_triads_are_circles() -> None:
    draws = 2000
    even = fit_comparisons(
        Comparisons.counted(
            [a for a, _ in combinations(range(5), 2)] * 2,
            [b for _, b in combinations(range(5), 2)] * 2,
            [1.0] * 10 + [0.0] * 10,
            [50.5] * 20,
        )
    )
    # Of n items circular triads have mean C(n, 3) / 4 and variance 3 C(n, 3) / 16 (Moran 1947).
    found = transitivity(even, draws=draws)
    assert found.expected == pytest.approx(10 / 4, abs=4 * math.sqrt(3 * 10 / 16 / draws))
    assert found.triads == 0
    assert math.isnan(found.consistence)


def test_where_the_model_holds_small_p_values_are_no_more_frequent_than_they_say() -> None:
    generator, strengths = np.random.default_rng(3), np.linspace(-0.3, 0.3, 7)
    values = [transitivity(fit_comparisons(tournament(strengths, 9, generator)), draws=99).p_value for _ in range(80)]
    assert np.mean(np.array(values) <= 0.1) <= 0.1 + 4 * math.sqrt(0.09 / 80)
    assert 0.3 < np.mean(values) < 0.9


def test_circles_that_strengths_cannot_explain_are_found_and_named_the_clearest_first() -> None:
    generator = np.random.default_rng(4)
    groups = np.arange(12) % 3
    left, right = np.triu_indices(12, 1)
    chance = np.where(groups[left] == groups[right], 0.5, np.where((groups[left] + 1) % 3 == groups[right], 0.8, 0.2))
    wins = generator.binomial(40, chance)
    data = Comparisons.counted([*left, *left], [*right, *right], [1.0] * 66 + [0.0] * 66, [*wins, *(40 - wins)])
    ranking = fit_comparisons(data)
    found = transitivity(ranking, most=5, draws=199)
    assert found.p_value == 1 / 200
    assert found.circular > 1.5 * found.expected
    assert len(found.cycles) == 5
    evidence = [cycle.evidence for cycle in found.cycles]
    assert evidence == sorted(evidence, reverse=True)
    everything = transitivity(ranking, most=1000, draws=1).cycles
    assert len(everything) == found.circular
    assert [cycle.evidence for cycle in everything[:5]] == pytest.approx(evidence)
    assert all(upset.share > 0.5 > upset.expected_share for upset in found.upsets)


def test_an_order_effect_is_no_circle() -> None:
    # Whoever is at home wins, and each is at home more often against the next.
    rows = [
        (a, b, outcome, count) for a, b in (("a", "b"), ("b", "c"), ("c", "a")) for outcome, count in ((1, 27), (0, 9))
    ]
    rows += [
        (b, a, outcome, count) for a, b in (("a", "b"), ("b", "c"), ("c", "a")) for outcome, count in ((1, 3), (0, 1))
    ]
    data = Comparisons.counted(*zip(*rows, strict=True))
    assert transitivity(fit_comparisons(data), draws=199).expected < 0.4
    assert transitivity(fit_comparisons(data, order_effect=True), draws=199).expected > 0.9


def test_ties_count_for_neither() -> None:
    data = Comparisons.counted("abcabc" + "a", "bcabca" + "b", [1, 1, 1, 0, 0, 0, 0.5], [5, 5, 5, 3, 3, 3, 9])
    found = transitivity(fit_comparisons(data, ties="davidson"), draws=99)
    assert (found.triads, found.circular) == (1, 1)


def test_no_draws_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        transitivity(fit_comparisons(Comparisons.counted("ab", "ba", [1, 1])), draws=0)
