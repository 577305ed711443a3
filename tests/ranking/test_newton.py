"""Claims about the fit's steps: they end at the maximum, in few steps, by whichever way the step is solved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from kilter.errors import NonFiniteError
from kilter.ranking import Comparisons, NotConvergedError, Ranking, fit_comparisons, information
from kilter.ranking.information import (
    Banded,
    Bordered,
    centred,
    conjugate_gradients,
    dense_solver,
    plan_of,
)
from kilter.ranking.likelihood import OfComparisons, gradient_and_information, totals_of
from kilter.ranking.newton import maximize
from kilter.ranking.outcomes import OUTCOMES


def simulated(items: int, games: int, seed: int, ties: float = 0.0) -> Comparisons:
    """With an order effect of 0.3 and a covariate of 0.5."""
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    shift = generator.normal(size=games)
    ahead = 0.3 + 0.5 * shift + 2 * (right - left) / items
    outcome = (generator.random(games) < 1 / (1 + np.exp(-ahead))).astype(float)
    outcome[generator.random(games) < ties] = 0.5
    return Comparisons(
        items=tuple(range(items)),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        outcome=outcome,
        count=np.ones(games),
        weight=generator.choice([0.5, 1.0, 2.0], games),
        covariates=shift[:, None],
        covariate_names=("shift",),
    )


def written_out(parameters: np.ndarray, data: Comparisons, ties: str) -> complex:
    """The log-likelihood in plain arithmetic, which complex numbers pass through."""
    items = len(data.items)
    d = parameters[data.left] - parameters[data.right] + parameters[items]
    d = d + parameters[items + 1] * data.covariates[:, 0]
    times = data.count * data.weight
    won, tied, lost = data.outcome == 1, data.outcome == 0.5, data.outcome == 0
    if ties == "davidson":
        total = np.log(np.exp(d / 2) + np.exp(parameters[-1]) + np.exp(-d / 2))
        return (
            times[won] @ (d / 2 - total)[won]
            + times[lost] @ (-d / 2 - total)[lost]
            + times[tied] @ (parameters[-1] - total)[tied]
        )
    if ties == "rao-kupper":
        theta = np.exp(parameters[-1])
        win, loss = np.exp(d) / (np.exp(d) + theta), 1 / (1 + theta * np.exp(d))
        return (
            times[won] @ np.log(win)[won]
            + times[lost] @ np.log(loss)[lost]
            + times[tied] @ np.log(1 - win - loss)[tied]
        )
    win = 1 / (1 + np.exp(-d))
    return (times * data.outcome) @ np.log(win) + (times * (1 - data.outcome)) @ np.log(1 - win)


def complex_gradient(parameters: np.ndarray, data: Comparisons, ties: str) -> np.ndarray:
    """By complex steps: exact to rounding (Squire and Trapp 1998)."""
    moves = 1e-30j * np.eye(len(parameters))
    return np.array([written_out(parameters + move, data, ties).imag / 1e-30 for move in moves])


@pytest.mark.parametrize("ties", ["none", "half", "davidson", "rao-kupper"])
@pytest.mark.parametrize("prior_variance", [None, 0.7])
def test_the_maximum_is_that_of_scipy(ties: str, prior_variance: float | None) -> None:
    data = simulated(6, 150, 1, ties=0.0 if ties == "none" else 0.25)
    ranking = fit_comparisons(data, ties=ties, order_effect=True, prior_variance=prior_variance)  # type: ignore[arg-type]

    def slope(parameters: np.ndarray) -> np.ndarray:
        found = complex_gradient(parameters, data, ties)
        # Without a prior this holds the mean at zero; with one it is the prior's own pull.
        found[:6] -= parameters[:6].mean() if prior_variance is None else parameters[:6] / prior_variance
        return found

    start = np.append(np.zeros(8), [0.5] * (ties in ("davidson", "rao-kupper")))
    solved = optimize.root(slope, start, tol=1e-13)
    assert np.abs(slope(solved.x)).max() < 1e-9
    assert ranking.parameters == pytest.approx(solved.x, abs=1e-8)
    assert ranking.gradient_norm < 1e-9
    assert ranking.steps < 10


def chain(items: int, seed: int) -> tuple[Ranking, np.ndarray]:
    """A ladder on which only neighbours play: every difference is the logarithm of wins over losses."""
    generator = np.random.default_rng(seed)
    wins, losses = generator.integers(1, 12, items - 1), generator.integers(1, 6, items - 1)
    names = list(range(items))
    order = generator.permutation(2 * items - 2)
    data = Comparisons.counted(
        np.array([*names[:-1], *names[1:]])[order].tolist(),
        np.array([*names[1:], *names[:-1]])[order].tolist(),
        [1.0] * (2 * items - 2),
        np.array([*wins, *losses])[order],
        items=names,
    )
    strengths = np.append(0, -np.cumsum(np.log(wins / losses)))
    return fit_comparisons(data), strengths - strengths.mean()


@pytest.mark.parametrize("items", [100, 1000, 3000])
def test_a_ladder_of_neighbours_is_exact_in_under_20_steps(items: int) -> None:
    ranking, exact = chain(items, 2)
    assert np.ptp(exact) > 20
    assert ranking.strengths == pytest.approx(exact, abs=1e-8)
    assert ranking.steps < 20


@pytest.mark.parametrize("items", [100, 1000])
def test_ladder_matchmaking_is_exact_in_under_20_steps(items: int) -> None:
    generator = np.random.default_rng(3)
    strengths = np.linspace(0, -0.15 * items, items)
    low = np.repeat(np.arange(items), 3)
    high = low + np.tile([1, 2, 3], items)
    low, high = low[high < items], high[high < items]
    wins = generator.binomial(10, 1 / (1 + np.exp(strengths[high] - strengths[low])))
    left, right = np.concatenate([low, high]), np.concatenate([high, low])
    count = np.concatenate([wins, 10 - wins])
    seen = count > 0
    ranking = fit_comparisons(
        Comparisons.counted(
            left[seen].tolist(), right[seen].tolist(), [1.0] * seen.sum(), count[seen], items=range(items)
        )
    )
    # What is left of the gradient in extended precision, and how far it says the maximum is.
    at = ranking.strengths.astype(np.longdouble)
    chance = 1 / (1 + np.exp(at[high] - at[low]))
    slope = np.zeros(items, np.longdouble)
    np.add.at(slope, low, wins - 10 * chance)
    np.add.at(slope, high, 10 * chance - wins)
    weight = (10 * chance * (1 - chance)).astype(float)
    laplacian = np.zeros((items, items))
    np.add.at(laplacian, (np.concatenate([low, high]), np.concatenate([low, high])), np.tile(weight, 2))
    np.add.at(laplacian, (np.concatenate([low, high]), np.concatenate([high, low])), -np.tile(weight, 2))
    away = np.linalg.solve(laplacian + 1 / items, slope.astype(float))
    assert np.abs(away - away.mean()).max() < 1e-8
    assert ranking.steps < 20
    assert np.ptp(ranking.strengths) > 0.1 * items


def system(components: int, precision: float) -> tuple[Bordered, np.ndarray]:
    data = simulated(30 * components, 900 * components, 4, ties=0.2)
    if components > 1:
        inside = data.left // 30 == data.right // 30
        data = data.of_rows(inside)
    component = (np.arange(30 * components) // 30).astype(np.int32)
    totals = totals_of(data, order_effect=True, ties="davidson")
    parameters = np.append(np.zeros(30 * components), [0.1, 0.2, -0.5])
    found = gradient_and_information(parameters, totals, OUTCOMES["davidson"])[1]
    return Bordered(
        found.items, found.left, found.right, found.weight, found.border, found.corner, precision
    ), component


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("precision", [0.0, 0.5])
def test_dense_banded_and_conjugate_gradient_solutions_agree(
    components: int, precision: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(information, "DENSE", 1)
    matrix, component = system(components, precision)
    vectors = np.random.default_rng(5).normal(size=(len(component) + 3, 4))
    if not precision:
        vectors = centred(vectors, component)
    place = plan_of(len(component), matrix.left, matrix.right)
    assert place is not None
    solutions = [
        dense_solver(matrix, component)(vectors),
        Banded(matrix, component, place)(vectors),
        conjugate_gradients(matrix, component, vectors, tolerance=1e-12),
    ]
    if not precision:
        solutions = [centred(solution, component) for solution in solutions]
    assert matrix.dense() @ solutions[0] == pytest.approx(vectors, abs=1e-9)
    for solution in solutions[1:]:
        assert solution == pytest.approx(solutions[0], abs=1e-9)


@pytest.mark.parametrize("operations", [information.BANDED_OPERATIONS, 0])
def test_fits_by_banded_factors_and_conjugate_gradients_are_those_by_dense_ones(
    operations: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = simulated(40, 1500, 6, ties=0.2)
    dense = fit_comparisons(data, ties="rao-kupper", order_effect=True)
    monkeypatch.setattr(information, "DENSE", 1)
    monkeypatch.setattr(information, "BANDED_OPERATIONS", operations)
    sparse = fit_comparisons(data, ties="rao-kupper", order_effect=True)
    assert sparse.parameters == pytest.approx(dense.parameters, abs=1e-8)
    with_prior = fit_comparisons(data, ties="rao-kupper", order_effect=True, prior_variance=0.3)
    monkeypatch.undo()
    again = fit_comparisons(data, ties="rao-kupper", order_effect=True, prior_variance=0.3)
    assert with_prior.parameters == pytest.approx(again.parameters, abs=1e-8)


def test_what_is_fixed_stays_and_the_rest_is_at_its_maximum() -> None:
    data = simulated(5, 200, 7)
    totals = totals_of(data, order_effect=True, ties="none")
    fixed, start = np.array([1.0, -1, 0, 0, 0, 0, 0]), np.array([1.0, -1, 0, 0, 0, 0, 0])
    found = maximize(
        OfComparisons(totals, OUTCOMES["none"]), component=np.zeros(5, np.int32), start=start, fixed=fixed
    ).parameters
    assert found[0] - found[1] == pytest.approx(2, abs=1e-12)
    slope = gradient_and_information(found, totals, OUTCOMES["none"])[0]
    assert slope - fixed * slope[0] == pytest.approx(0, abs=1e-8)


def test_a_covariate_in_large_units_converges_as_in_small_ones() -> None:
    data = simulated(5, 300, 8)
    large = fit_comparisons(replace(data, covariates=1e4 * data.covariates))
    small = fit_comparisons(data)
    assert large.strengths == pytest.approx(small.strengths, abs=1e-8)
    assert large.extras[0] * 1e4 == pytest.approx(small.extras[0], abs=1e-7)


def test_conjugate_gradients_that_do_not_arrive_say_so() -> None:
    matrix, component = system(1, 0.0)
    vectors = centred(np.random.default_rng(9).normal(size=(33, 1)), component)
    with pytest.raises(NonFiniteError, match="did not solve the Newton step in 2 iterations"):
        conjugate_gradients(matrix, component, vectors, tolerance=1e-12, most_steps=2)


def test_a_maximum_at_infinity_is_not_reported_as_one() -> None:
    totals = totals_of(Comparisons.counted("ab", "bc", [1, 1]))
    with pytest.raises((NotConvergedError, NonFiniteError)):
        maximize(OfComparisons(totals, OUTCOMES["none"]), component=np.zeros(3, np.int32))


def test_strengths_held_by_a_wide_prior_alone_still_converge() -> None:
    # The likelihood is nearly nothing where each of its terms is a difference of numbers a million times larger.
    data = Comparisons(
        items=tuple("abcdef"),
        left=np.array([3, 0, 0, 0, 1], np.int32),
        right=np.array([5, 1, 5, 4, 4], np.int32),
        outcome=np.array([1, 0.5, 0, 0.5, 0]),
        count=np.array([810.0, 468, 522, 214, 154]),
        weight=np.ones(5),
        covariates=np.array([[1.2, -1.4], [0, -1.5], [-0.4, 0.4], [0.9, -1.4], [0.4, -1.6]]),
        covariate_names=("x", "y"),
    )
    assert fit_comparisons(data, ties="davidson", prior_variance=100.0).gradient_norm < 1e-8
