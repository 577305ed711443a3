"""Claims about the likelihood: outcomes' probabilities add up to one, and its derivatives are those of its values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kilter.ranking import Comparisons
from kilter.ranking.likelihood import (
    Totals,
    advantage,
    gradient_and_information,
    grouped,
    log_likelihood,
    rows_of,
    totals_of,
)
from kilter.ranking.outcomes import OUTCOMES

MODELS = ["none", "half", "davidson", "rao-kupper"]


def simulated(ties: str, *, covariate: bool = True, seed: int = 1) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(5, size=60)
    right = (left + generator.integers(1, 5, size=60)) % 5
    outcomes = {"none": [0, 1], "half": [0, 0.3, 0.5, 1]}.get(ties, [0, 0.5, 1])
    return Comparisons(
        items=tuple("abcde"),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        outcome=generator.choice(outcomes, 60).astype(float),
        count=generator.integers(1, 4, 60).astype(float),
        weight=generator.choice([0.5, 1, 2], 60),
        covariates=generator.normal(size=(60, int(covariate))),
        covariate_names=("length",) * covariate,
    )


def drawn(ties: str, seed: int = 2) -> np.ndarray:
    """Five strengths, an order effect, a covariate's coefficient, and a tie parameter that every model allows."""
    generator = np.random.default_rng(seed)
    return np.append(generator.normal(size=7), [0.4] * OUTCOMES[ties].has_ties)


@pytest.mark.parametrize("ties", ["davidson", "rao-kupper"])
def test_the_probabilities_of_win_tie_and_loss_add_up_to_one(ties: str) -> None:
    ahead = np.linspace(-30, 30, 101)
    for tie in (0.01, 0.7, 5.0):
        assert np.exp(OUTCOMES[ties].log_probabilities(ahead, tie)).sum(axis=0) == pytest.approx(1, abs=1e-12)


def test_without_ties_win_and_loss_add_up_to_one_and_are_the_logistic_function() -> None:
    wins, _, losses = np.exp(OUTCOMES["none"].log_probabilities(np.array([0.0, math.log(3)]), 0.0))
    assert wins == pytest.approx([0.5, 0.75])
    assert wins + losses == pytest.approx(1)


def test_equal_items_tie_as_often_as_the_tie_parameter_says() -> None:
    nothing = np.zeros(1)
    # Davidson: nu / (2 + nu); Rao and Kupper: (theta - 1) / (theta + 1).
    assert np.exp(OUTCOMES["davidson"].log_probabilities(nothing, math.log(2)))[1, 0] == pytest.approx(0.5)
    assert np.exp(OUTCOMES["rao-kupper"].log_probabilities(nothing, math.log(3)))[1, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("ties", MODELS)
def test_far_advantages_and_thresholds_overflow_nothing(ties: str) -> None:
    observed = np.ones((3, 3))
    for tie in (1e-8, 600.0):
        ahead = np.array([-900.0, 0, 900])
        assert np.isfinite(OUTCOMES[ties].log_probabilities(ahead, tie)).all()
        assert all(np.isfinite(part).all() for part in OUTCOMES[ties].derivatives(ahead, tie, observed))


@pytest.mark.parametrize("ties", MODELS)
def test_the_log_likelihood_is_the_sum_over_comparisons_one_by_one(ties: str) -> None:
    data, parameters = simulated(ties), drawn(ties)
    total = 0.0
    for row in range(60):
        d = parameters[data.left[row]] - parameters[data.right[row]] + parameters[5]
        d += parameters[6] * data.covariates[row, 0]
        if ties == "davidson":
            scores = [math.exp(d / 2), math.exp(parameters[7]), math.exp(-d / 2)]
        elif ties == "rao-kupper":
            theta, odds = math.exp(parameters[7]), math.exp(d)
            win, loss = odds / (odds + theta), 1 / (1 + theta * odds)
            scores = [win, 1 - win - loss, loss]
        else:
            scores = [math.exp(d), 0, 1]
        win, tie, loss = (score / sum(scores) for score in scores)
        y = data.outcome[row]
        shares = {1.0: win, 0.5: tie, 0.0: loss}
        value = math.log(shares[y]) if tie else y * math.log(win) + (1 - y) * math.log(loss)
        total += data.count[row] * data.weight[row] * value
    assert log_likelihood(parameters, totals_of(data, order_effect=True, ties=ties), OUTCOMES[ties]) == pytest.approx(
        total, rel=1e-12
    )


def differences(of: object, parameters: np.ndarray, step: float = 1e-5) -> np.ndarray:
    moves = step * np.eye(len(parameters))
    return np.array([(of(parameters + move) - of(parameters - move)) / (2 * step) for move in moves])  # type: ignore[operator]


@pytest.mark.parametrize("ties", MODELS)
def test_gradient_and_information_are_finite_differences(ties: str) -> None:
    totals, model = totals_of(simulated(ties), order_effect=True, ties=ties), OUTCOMES[ties]
    parameters = drawn(ties)
    slope, information = gradient_and_information(parameters, totals, model)
    assert slope == pytest.approx(differences(lambda at: log_likelihood(at, totals, model), parameters), abs=1e-6)
    second = differences(lambda at: gradient_and_information(at, totals, model)[0], parameters)
    assert information.dense() == pytest.approx(-second, abs=1e-6)
    vectors = np.random.default_rng(3).normal(size=(len(parameters), 3))
    assert information @ vectors == pytest.approx(information.dense() @ vectors)
    assert information.diagonal == pytest.approx(np.diag(information.dense()))


@pytest.mark.parametrize("ties", MODELS)
def test_the_log_likelihood_is_concave(ties: str) -> None:
    totals = totals_of(simulated(ties), order_effect=True, ties=ties)
    for seed in range(10):
        information = gradient_and_information(drawn(ties, seed), totals, OUTCOMES[ties])[1].dense()
        assert np.linalg.eigvalsh(information).min() > -1e-10


@pytest.mark.parametrize("ties", MODELS)
@pytest.mark.parametrize("order_effect", [False, True])
def test_adding_up_rows_changes_no_likelihood(ties: str, order_effect: bool) -> None:
    data, model = simulated(ties, covariate=False), OUTCOMES[ties]
    parameters = np.delete(drawn(ties), [6] if order_effect else [5, 6])
    single, added = (make(data, order_effect=order_effect, ties=ties) for make in (rows_of, totals_of))
    assert len(added.left) < len(single.left)
    assert log_likelihood(parameters, added, model) == pytest.approx(log_likelihood(parameters, single, model))
    assert added.observed.sum() == pytest.approx(float(data.count @ data.weight))


def test_each_row_is_in_the_total_of_its_pair() -> None:
    data = simulated("davidson", covariate=False)
    totals, group, swapped = grouped(data, ties="davidson")
    assert (np.where(swapped, data.right, data.left) == totals.left[group]).all()
    assert (np.where(swapped, data.left, data.right) == totals.right[group]).all()


def test_the_advantage_is_of_the_left_item_with_what_shifts_it() -> None:
    totals = Totals(2, np.array([0], np.int32), np.array([1], np.int32), np.array([[1.0, 3.0]]), np.ones((3, 1)))
    assert advantage(np.array([2.0, 0.5, 0.25, -0.1]), totals) == pytest.approx([2 - 0.5 + 0.25 - 0.3])
