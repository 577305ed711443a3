"""Claims about the likelihood of rankings: it is that of choices written out, and its derivatives are right."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kilter.errors import DataError
from kilter.ranking import gradient, log_likelihood, loss
from kilter.ranking.choices import Choices, choices_of
from kilter.ranking.comparisons import Floats, Rankings
from ranking.lists import drawn, every_order, rankings, written_out

TIED = rankings([["a", "bc", "d"], ["dc", "ab"], ["b", "acd"], ["c", "a"], ["abcd"]], [3, 2, 1, 5, 1])
TOP = rankings([["a", "b"], ["c"], ["bd"]], [2, 1, 1], rest="efg")


def at(choices: Choices, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, choices.items + len(choices.orders))


def test_three_equal_items_have_a_sixth_for_every_order() -> None:
    choices = choices_of(rankings(["abc"]))
    assert choices.log_likelihood(np.zeros(3)) == pytest.approx(-math.log(6), rel=1e-15)


def test_strengths_of_3_and_2_and_1_come_in_this_order_once_in_three() -> None:
    # 3/6 of the first place, and 2/3 of the second.
    choices = choices_of(rankings(["abc"]))
    assert choices.log_likelihood(np.log([3.0, 2, 1])) == pytest.approx(-math.log(3), rel=1e-14)
    assert choices.log_likelihood(np.log([1.0, 2, 3])) == pytest.approx(math.log(1 / 6 * 2 / 5), rel=1e-14)
    as_function = log_likelihood(rankings(["abc"]), {"a": math.log(3), "b": math.log(2), "c": 0.0})
    assert as_function == pytest.approx(-math.log(3), rel=1e-14)


def test_loss_and_gradient_of_rankings_are_those_of_choices_by_hand() -> None:
    # Twice "abc" and once the tie of a and b: strengths 4, 9 and 1, delta 2.
    data = rankings(["abc", ["ab"]], [2, 1])
    ours = {"strengths": np.log([4.0, 9, 1]), "extras": [math.log(2)]}
    # Out of a, b, c singles weigh 14 and pairs 2 (6 + 2 + 3) = 22; out of b, c 10 and 6; out of a, b 13 and 12.
    total = 2 * (math.log(4 / 36) + math.log(9 / 16)) + math.log(12 / 25)
    assert loss(data, **ours) == pytest.approx(-total / 3, rel=1e-14)
    # Of a: chosen twice and half a tie; expected 4/36 and half of (12 + 4)/36 twice, 4/25 and half of 12/25 once.
    assert gradient(data, **ours)[0] == pytest.approx(2.5 - 2 * (4 + 8) / 36 - (4 + 6) / 25, rel=1e-13)
    # Of ties: one, and expected 22/36 and 6/16 twice, 12/25 once.
    assert gradient(data, **ours)[3] == pytest.approx(1 - 2 * (22 / 36 + 6 / 16) - 12 / 25, rel=1e-13)
    with pytest.raises(DataError, match="log delta for each size of tie"):
        loss(data, ours["strengths"])


def test_a_tie_of_two_is_their_geometric_mean_times_delta_beside_all_else_that_could_be() -> None:
    # Out of strengths 4 and 9 and delta 2 a tie weighs 12, of 25 in all.
    choices = choices_of(rankings([["ab"]]))
    assert choices.orders == (2,)
    assert choices.log_likelihood(np.log([4.0, 9, 2])) == pytest.approx(math.log(12 / 25), rel=1e-14)


@pytest.mark.parametrize(
    "data", [TIED, TOP, drawn(6, 20, 4), drawn(6, 20, 5, ties=True), drawn(9, 10, 7, 1, ties=True)]
)
def test_it_is_the_likelihood_written_out_subset_by_subset(data: Rankings) -> None:
    choices = choices_of(data)
    parameters = at(choices)
    strengths, log_deltas = parameters[: choices.items], parameters[choices.items :]
    expected = written_out(data, strengths, dict(zip(choices.orders, log_deltas, strict=True)))
    assert choices.log_likelihood(parameters) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("largest_tie", [1, 2, 3, 4])
def test_the_probabilities_of_all_orders_add_up_to_one(largest_tie: int) -> None:
    orders = every_order(range(4), largest_tie)
    whole = choices_of(rankings(orders, items=range(4)))
    parameters = at(whole)
    total = 0.0
    for order in orders:
        # The tie orders that this one ranking does not show are possible in it all the same.
        alone = replace(choices_of(rankings([order], items=range(4))), orders=whole.orders)
        ties = [sum(len(group) == size for group in order) for size in whole.orders]
        total += math.exp(replace(alone, chosen=np.append(alone.chosen[:4], ties)).log_likelihood(parameters))
    assert total == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize("data", [TIED, TOP, drawn(6, 20, 4), drawn(7, 12, 6, ties=True)])
def test_gradient_and_information_are_the_finite_differences(data: Rankings) -> None:
    choices = choices_of(data)
    parameters = at(choices, 1)
    moves = 1e-5 * np.eye(len(parameters))
    slope = [
        (choices.log_likelihood(parameters + move) - choices.log_likelihood(parameters - move)) / 2e-5 for move in moves
    ]
    bend = [-(choices.slope(parameters + move) - choices.slope(parameters - move)) / 2e-5 for move in moves]
    assert choices.slope(parameters) == pytest.approx(np.array(slope), abs=1e-7)
    information = choices.information(parameters)
    assert information == pytest.approx(np.array(bend), abs=1e-7)
    assert information == pytest.approx(information.T, abs=1e-12)
    vectors = np.column_stack([at(choices, 2), at(choices, 3)])
    assert choices.product(parameters, vectors) == pytest.approx(information @ vectors, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("data", [rankings(["ab", "c"], rest="efg"), drawn(6, 20, 4), drawn(40, 10, 30)])
def test_information_by_sets_and_by_places_is_one(data: Rankings) -> None:
    choices = choices_of(data)
    assert choices.information_by_sets(at(choices)) == pytest.approx(
        choices.information_by_places(at(choices)), abs=1e-12
    )


def test_strengths_a_thousand_apart_lose_no_digits() -> None:
    choices = choices_of(rankings([["ab", "c"], ["c", "b", "a"]]))
    parameters = np.array([1000.0, -1000, 0, 1])
    # The tie weighs exp(1) against a's exp(1000), then nothing is left but c. In the other ranking c weighs 1 against
    # exp(1000), and b exp(-1000) against that again.
    assert choices.log_likelihood(parameters) == pytest.approx(1 - 1000 - 1000 - 2000, rel=1e-15)
    assert np.all(np.isfinite(choices.information(parameters)))


def test_equal_choice_sets_are_counted_once_whatever_rankings_they_end() -> None:
    orders = [list(order) for order in ["abcde", "bacde", "cabde", "edcba", "abdce"]]
    choices = choices_of(rankings(orders))
    # abcde, bcde, cde and de; then acde; abde and bde; abcd, abc and ab; and ce.
    assert sum(np.count_nonzero(block.weight) for block in choices.blocks) == 11
    assert choices.games == 20
    assert sum(block.weight.sum() for block in choices.blocks) == 20


def test_the_parts_of_a_long_table_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(6, 30, 4, ties=True)
    choices = choices_of(data)
    parameters = at(choices)
    whole = choices.log_likelihood(parameters), choices.slope(parameters), choices.information(parameters)
    monkeypatch.setattr("kilter.ranking.choices.CHUNK", 1)
    assert choices.log_likelihood(parameters) == pytest.approx(whole[0], rel=1e-14)
    assert choices.slope(parameters) == pytest.approx(whole[1], abs=1e-12)
    assert choices.information(parameters) == pytest.approx(whole[2], abs=1e-12)


def test_a_ranking_that_says_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"1 rankings put no item above or beside another .* number 2"):
        choices_of(rankings(["ab", ["a"], "ba"]))
