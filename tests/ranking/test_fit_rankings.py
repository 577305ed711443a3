"""Claims about strengths from rankings: they are at the maximum, as sure as they say, or refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from kilter.errors import ConfigError, DataError
from kilter.ranking.bradley_terry import fit_comparisons
from kilter.ranking.choices import choices_of
from kilter.ranking.comparisons import Comparisons, Rankings
from kilter.ranking.connectivity import UnidentifiedError, connectivity
from kilter.ranking.newton import NotConvergedError
from kilter.ranking.plackett_luce import fit_rankings
from kilter.ranking.scales import ELO
from ranking.lists import drawn, rankings


def test_two_items_are_as_far_apart_as_the_log_of_their_wins() -> None:
    fit = fit_rankings(rankings(["ab", "ba"], [6, 2]))
    assert fit.strengths == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-12)
    difference = fit.difference("a", "b")
    assert difference.value == pytest.approx(math.log(3), abs=1e-12)
    # The log-odds of 6 against 2 have variance 1/6 + 1/2.
    assert difference.standard_error == pytest.approx(math.sqrt(1 / 6 + 1 / 2), rel=1e-12)


def test_rankings_of_two_are_bradley_terrys_football() -> None:
    fit = fit_rankings(rankings(["AB", "BA", "AC", "CA"], [8, 4, 3, 5]))
    comparisons = fit_comparisons(Comparisons.counted(list("ABAC"), list("BACA"), [1, 1, 1, 1], [8, 4, 3, 5]))
    assert np.exp(fit.strengths - fit.strengths[1]) == pytest.approx([2, 1, 10 / 3], rel=1e-12)
    assert fit.log_likelihood == pytest.approx(comparisons.log_likelihood, rel=1e-13)
    assert fit.covariance() == pytest.approx(comparisons.covariance(), abs=1e-12)
    assert fit.intervals() == pytest.approx(comparisons.intervals(), abs=1e-12)
    assert fit.told_on("elo", ("B", 1000.0)) == pytest.approx(comparisons.told_on("elo", ("B", 1000.0)), rel=1e-12)
    assert fit.told_on("odds") == pytest.approx(comparisons.told_on("odds"), rel=1e-10)


def test_rankings_of_two_with_ties_are_davidsons() -> None:
    fit = fit_rankings(rankings(["ab", "ba", ["ab"], "bc", "cb", ["bc"], "ac", "ca"], [6, 2, 3, 4, 4, 2, 5, 1]))
    games = Comparisons.counted(
        list("abab") + list("cbac"), list("babc") + list("bcca"), [1, 1, 0.5, 1, 1, 0.5, 1, 1], [6, 2, 3, 4, 4, 2, 5, 1]
    )
    davidson = fit_comparisons(games, ties="davidson")
    assert fit.strengths == pytest.approx(davidson.strengths, abs=1e-10)
    assert fit.tie_parameters == pytest.approx(davidson.extras, abs=1e-10)
    assert fit.covariance() == pytest.approx(davidson.covariance(), abs=1e-10)
    prediction, theirs = fit.predict("ab"), davidson.predict("a", "b")
    assert prediction.first[0] == pytest.approx(theirs.left_wins, rel=1e-8)
    assert prediction.first[1] == pytest.approx(theirs.right_wins, rel=1e-8)
    assert prediction.shared == pytest.approx(theirs.tie.value, rel=1e-8)


@pytest.mark.parametrize("data", [drawn(6, 60, 4), drawn(5, 60, 5, ties=True)])
@pytest.mark.parametrize("prior_variance", [None, 0.5])
def test_the_maximum_is_where_a_general_optimiser_finds_it(data: Rankings, prior_variance: float | None) -> None:
    choices = choices_of(data)
    precision = 0.0 if prior_variance is None else 1 / prior_variance
    items = choices.items
    found = minimize(
        lambda x: precision * x[:items] @ x[:items] / 2 - choices.log_likelihood(x),
        np.zeros(items + len(choices.orders)),
        tol=1e-9,
        options={"gtol": 1e-5},
    ).x
    found[:items] -= found[:items].mean()
    fit = fit_rankings(data, prior_variance=prior_variance)
    assert fit.parameters == pytest.approx(found, abs=2e-5)
    assert fit.gradient_norm < 1e-9
    assert fit.strengths.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("items", "length"), [(5, 5), (30, 6), (12, 2)])
def test_it_agrees_with_choix(items: int, length: int) -> None:
    choix = pytest.importorskip("choix")
    data = drawn(items, 40 * items // length, length, seed=3)
    lists = [
        data.item[data.ranking == number][np.argsort(data.place[data.ranking == number])].tolist()
        for number, count in enumerate(data.count)
        for _ in range(int(count))
    ]
    theirs = choix.ilsr_rankings(items, lists, tol=1e-10)
    assert fit_rankings(data).strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_the_unranked_were_there_to_be_chosen() -> None:
    # "a before the rest of a, b, c" is a choice out of three, and no order of b and c: symmetric between them.
    top = Rankings(
        ("a", "b", "c"),
        np.array([0, 1, 2] * 3, np.int32),
        np.repeat([0, 1, 2], 3).astype(np.int32),
        np.array([1, 0, 0, 0, 1, 0, 0, 0, 1], np.int32),
        np.array([4.0, 2, 2]),
    )
    assert np.exp(fit_rankings(top).strengths - fit_rankings(top).strengths[1]) == pytest.approx([2, 1, 1], abs=1e-12)


def test_conjugate_gradients_come_to_the_same_strengths_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(25, 150, 5, ties=True)
    whole = fit_rankings(data)
    monkeypatch.setattr("kilter.ranking.information.DENSE", 3)
    monkeypatch.setattr("kilter.ranking.fitted.WHOLE", 3)
    by_products = fit_rankings(data)
    assert by_products.parameters == pytest.approx(whole.parameters, abs=1e-8)
    assert by_products.difference(3, 4) == pytest.approx(whole.difference(3, 4), rel=1e-6)
    with pytest.raises(ConfigError, match="ask for standard_errors, difference or predict"):
        by_products.covariance()


def test_errors_shrink_with_the_root_of_the_rankings() -> None:
    data = drawn(6, 50, 4, ties=True)
    once = fit_rankings(data).standard_errors()
    four_times = Rankings(data.items, data.item, data.ranking, data.place, 4 * data.count)
    assert fit_rankings(four_times).standard_errors() == pytest.approx(once / 2, rel=1e-7)


def test_intervals_of_differences_cover_what_was_drawn_as_often_as_they_say() -> None:
    covered, fits = 0, 100
    for seed in range(fits):
        data = drawn(4, 60, 4, seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rng.permutation(4)
        truth = rng.normal(0, 1, 4)
        ones = Rankings(data.items, data.item, data.ranking, data.place, np.ones(60))
        estimate = fit_rankings(ones).difference(0, 1)
        covered += estimate.low <= truth[0] - truth[1] <= estimate.high
    # Three standard errors of a share of that many.
    assert abs(covered / fits - 0.95) < 3 * math.sqrt(0.95 * 0.05 / fits)


def test_predictions_are_the_choices_of_the_model() -> None:
    fit = fit_rankings(drawn(5, 80, 5))
    alpha = np.exp(fit.strengths)
    told = fit.predict([3, 0, 4])
    total = alpha[3] + alpha[0] + alpha[4]
    assert [one.value for one in told.first] == pytest.approx([alpha[3] / total, alpha[0] / total, alpha[4] / total])
    assert told.shared == 0
    assert told.order.value == pytest.approx(alpha[3] / total * alpha[0] / (alpha[0] + alpha[4]), rel=1e-12)
    assert all(0 < one.low < one.value < one.high < 1 for one in (*told.first, told.order))
    pair = fit.predict([1, 2]).first[0]
    apart = fit.difference(1, 2)
    assert pair.standard_error == pytest.approx(apart.standard_error, rel=1e-10)
    assert math.log(pair.low / (1 - pair.low)) == pytest.approx(apart.low, abs=1e-10)


def test_the_order_of_few_is_as_sure_as_the_delta_method_says() -> None:
    fit = fit_rankings(drawn(4, 40, 4, ties=True))
    items = [2, 0, 1]

    def log_odds(parameters: np.ndarray) -> float:
        worths = np.exp(parameters[:4])
        orders = {size: math.exp(log) for size, log in zip(fit.tie_orders, parameters[4:], strict=True)}
        pair = sum(orders.get(2, 0) * math.sqrt(worths[i] * worths[j]) for i, j in [(2, 0), (2, 1), (0, 1)])
        triple = orders.get(3, 0) * np.prod(worths[items]) ** (1 / 3)
        first = worths[2] / (worths[items].sum() + pair + triple)
        then = worths[0] / (worths[0] + worths[1] + orders.get(2, 0) * math.sqrt(worths[0] * worths[1]))
        return math.log(first * then / (1 - first * then))

    slope = np.array(
        [
            (log_odds(fit.parameters + move) - log_odds(fit.parameters - move)) / 2e-6
            for move in 1e-6 * np.eye(len(fit.parameters))
        ]
    )
    told = fit.predict(items)
    assert told.order.standard_error == pytest.approx(math.sqrt(slope @ fit.covariance() @ slope), rel=1e-6)
    assert 0 < told.shared < 1


def test_an_item_that_is_always_first_is_named() -> None:
    with pytest.raises(UnidentifiedError, match="never lost to any other: a") as error:
        fit_rankings(rankings(["abc", "acb"]))
    assert error.value.found.undefeated == (("a",),)
    assert not fit_rankings(rankings(["abc", "acb"]), disconnected="prior").connectivity.identified


def test_a_last_item_is_winless_even_among_the_unranked() -> None:
    data = Rankings(
        ("a", "b", "c", "d"),
        np.array([0, 1, 2, 3, 1, 0, 2, 3], np.int32),
        np.repeat([0, 1], 4).astype(np.int32),
        np.array([1, 2, 0, 0, 1, 2, 0, 0], np.int32),
        np.ones(2),
    )
    with pytest.raises(UnidentifiedError) as error:
        fit_rankings(data)
    assert error.value.found.winless == (("c",), ("d",))
    assert error.value.found.undefeated == (("a", "b"),)


def test_a_tie_connects_both_ways() -> None:
    assert connectivity(rankings([["a", "bc"], ["c", "a", "b"], "bc"])).identified
    assert connectivity(rankings([["a", "bc"], ["a", "b"], "bc"])).undefeated == (("a",),)


def test_two_leagues_are_ranked_within_themselves_if_asked() -> None:
    data = rankings(["abc", "bca", "xy", "yx", "cab", "ax"], [2, 3, 5, 1, 2, 1])
    with pytest.raises(UnidentifiedError):
        fit_rankings(data)
    fit = fit_rankings(data, disconnected="within")
    alone = fit_rankings(rankings(["abc", "bca", "cab"], [2, 3, 2]))
    assert fit.strengths[:3] == pytest.approx(alone.strengths, abs=1e-12)
    assert fit.strengths[3:] == pytest.approx([math.log(5) / 2, -math.log(5) / 2], abs=1e-12)
    assert fit.covariance()[:3, :3] == pytest.approx(alone.covariance(), abs=1e-12)
    assert fit.left_out == 1
    with pytest.raises(DataError, match="groups that the data do not connect"):
        fit.difference("a", "x")
    with pytest.raises(ConfigError, match="within groups"):
        fit.told_on("elo", ("a", 1000.0))


def test_ties_that_always_happen_where_they_can_are_refused() -> None:
    with pytest.raises(DataError, match="wherever 2 items could have tied they did"):
        fit_rankings(rankings([["ab"], ["bc"], ["ac"]]))


def test_ties_and_strengths_that_explain_each_other_without_end_are_no_estimate() -> None:
    # a beat b once and tied once: connected both ways, and yet every b's win becomes less probable without end.
    with pytest.raises(NotConvergedError, match="lies at infinity"):
        fit_rankings(rankings(["ab", ["ab"]]))
    assert np.isfinite(fit_rankings(rankings(["ab", ["ab"]]), prior_variance=1.0).parameters).all()


def test_an_elo_scale_is_400_points_for_odds_of_ten() -> None:
    told = fit_rankings(rankings(["ab", "ba"], [10, 1])).told_on("elo")
    assert told[0, 0] - told[1, 0] == pytest.approx(400, abs=1e-9)
    assert pytest.approx(400 / math.log(10)) == ELO


def test_a_prediction_needs_two_different_items() -> None:
    fit = fit_rankings(rankings(["ab", "ba"]))
    for items in ("a", "aa"):
        with pytest.raises(DataError, match="two different items"):
            fit.predict(items)
    with pytest.raises(DataError, match="not among"):
        fit.predict("az")
