"""Claims about how sure strengths are: covariances, sandwiches, profiles and scales, each by another way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, Ranking, fit_comparisons
from kilter.ranking.likelihood import log_likelihood, rows_of, totals_of
from kilter.ranking.outcomes import OUTCOMES

MODELS = ["none", "half", "davidson", "rao-kupper"]


def simulated(ties: str, seed: int = 1, items: int = 5, games: int = 300) -> Comparisons:
    generator = np.random.default_rng(seed)
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    shift = generator.normal(size=games)
    ahead = 0.3 + 0.4 * shift + (right - left) / 3
    outcome = (generator.random(games) < 1 / (1 + np.exp(-ahead))).astype(float)
    if ties != "none":
        outcome[generator.random(games) < 0.25] = 0.5
    return Comparisons(
        items=tuple("abcdefgh"[:items]),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        outcome=outcome,
        count=generator.integers(1, 4, games).astype(float),
        weight=np.ones(games),
        covariates=shift[:, None],
        covariate_names=("shift",),
        prompt=(np.arange(games) // 6).astype(np.int64),
    )


def fitted(ties: str, **settings: object) -> Ranking:
    return fit_comparisons(simulated(ties), ties=ties, order_effect=True, **settings)  # type: ignore[arg-type]


def numerical_hessian(ranking: Ranking) -> np.ndarray:
    """Of the log-likelihood of the rows one by one, by second differences."""
    rows = rows_of(ranking.comparisons, order_effect=True, ties=ranking.ties)
    step, size = 1e-4, len(ranking.parameters)
    moves = step * np.eye(size)

    def value(move: np.ndarray) -> float:
        return log_likelihood(ranking.parameters + move, rows, ranking.model)

    return np.array(
        [[(value(a + b) - value(a - b) - value(b - a) + value(-a - b)) / (4 * step**2) for b in moves] for a in moves]
    )


@pytest.mark.parametrize("ties", MODELS)
@pytest.mark.parametrize("prior_variance", [None, 0.5])
def test_the_covariance_is_the_inverse_of_the_numerical_hessian_with_mean_zero_strengths(
    ties: str, prior_variance: float | None
) -> None:
    ranking = fitted(ties, prior_variance=prior_variance)
    size = len(ranking.parameters)
    hessian = -numerical_hessian(ranking)
    if prior_variance is not None:
        hessian[range(5), range(5)] += 1 / prior_variance
    # The inverse under a constraint is the corner of that of the matrix with a multiplier.
    constraint = np.append(np.ones(5), np.zeros(size - 5))
    bordered = np.block([[hessian, constraint[:, None]], [constraint[None, :], np.zeros((1, 1))]])
    expected = np.linalg.inv(bordered)[:size, :size]
    assert ranking.covariance() == pytest.approx(expected, abs=2e-5 * np.abs(expected).max())
    assert ranking.standard_errors() == pytest.approx(np.sqrt(np.diag(expected)[:5]), rel=1e-4)


def test_of_two_items_the_standard_error_is_that_of_log_odds() -> None:
    ranking = fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [60, 40]))
    ahead = ranking.difference("a", "b")
    assert ahead.value == pytest.approx(math.log(1.5))
    assert ahead.standard_error == pytest.approx(math.sqrt(1 / 60 + 1 / 40))
    assert (ahead.low, ahead.high) == pytest.approx(stats.norm.interval(0.95, ahead.value, ahead.standard_error))
    told = ranking.predict("a", "b").left_wins
    assert (told.value, told.low) == pytest.approx((0.6, 1 / (1 + math.exp(-ahead.low))))


def scores(ranking: Ranking) -> np.ndarray:
    """Rp: each row's slope of one comparison's log-likelihood, by differences."""
    found, of = [], ranking.comparisons
    for row in range(len(of.left)):
        single = totals_of(of.of_rows(np.array([row]), np.ones(1)), order_effect=True, ties=ranking.ties)
        found.append(optimize.approx_fprime(ranking.parameters, log_likelihood, 1e-7, single, OUTCOMES[ranking.ties]))
    return np.array(found)


@pytest.mark.parametrize("ties", MODELS)
@pytest.mark.parametrize("cluster", [None, "prompt"])
def test_the_sandwich_is_that_of_a_loop_over_comparisons_or_clusters(ties: str, cluster: str | None) -> None:
    data = simulated(ties, games=90)
    ranking = fit_comparisons(
        data if cluster else replace(data, prompt=None),
        ties=ties,
        order_effect=True,  # type: ignore[arg-type]
    )
    bread, of_rows, count = ranking.covariance(), scores(ranking), data.count
    if cluster is None:
        meat = sum(times * np.outer(score, score) for times, score in zip(count, of_rows, strict=True))
        meat = meat * count.sum() / (count.sum() - (len(ranking.parameters) - 1))
    else:
        assert data.prompt is not None
        sums = [(count[:, None] * of_rows)[data.prompt == one].sum(axis=0) for one in range(15)]
        meat = sum(np.outer(one, one) for one in sums) * 15 / 14
    expected = bread @ meat @ bread
    assert ranking.covariance("sandwich") == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())
    assert ranking.clusters == (15 if cluster else None)


def test_clusters_widen_intervals_by_t() -> None:
    ranking = fitted("none")
    wald, sandwich = ranking.difference("a", "b"), ranking.difference("a", "b", method="sandwich")
    assert wald.high - wald.value == pytest.approx(stats.norm.ppf(0.975) * wald.standard_error)
    assert sandwich.high - sandwich.value == pytest.approx(stats.t.ppf(0.975, 49) * sandwich.standard_error)


def test_a_repeated_verdict_is_worth_no_more_to_the_clustered_sandwich() -> None:
    data = simulated("none")
    tenfold = replace(data, count=10 * data.count)
    one, ten = (fit_comparisons(of) for of in (data, tenfold))
    assert ten.standard_errors("sandwich") == pytest.approx(one.standard_errors("sandwich"))
    assert ten.standard_errors() == pytest.approx(one.standard_errors() / math.sqrt(10))


def test_one_judge_shows_nothing_of_how_judges_vary() -> None:
    data = replace(simulated("none"), prompt=None, judge=np.zeros(300, np.int32))
    assert fit_comparisons(data).cluster is None
    with pytest.raises(DataError, match="one judge only"):
        fit_comparisons(data, cluster="judge")


def direct_profile(ranking: Ranking, contrast: np.ndarray, level: float) -> tuple[float, float]:
    """Where twice the fall of the maximised log-likelihood is the chi-square quantile, by bisection."""
    rows = rows_of(ranking.comparisons, order_effect=True, ties=ranking.ties)
    size, best = len(ranking.parameters), float(contrast @ ranking.parameters)
    # An orthonormal basis of what leaves the contrast as it is, but for the strengths' mean.
    mean = np.append(np.ones(5), np.zeros(size - 5))
    basis = np.linalg.svd(np.stack([contrast, mean]))[2][2:].T

    def objective(free: np.ndarray, at: np.ndarray) -> float:
        parameters = at + basis @ free
        return -log_likelihood(parameters, rows, ranking.model) if ranking.model.allows(parameters[-1]) else 1e4

    def beyond(distance: float) -> float:
        at = ranking.parameters + distance * contrast / (contrast @ contrast)
        found = optimize.minimize(objective, np.zeros(basis.shape[1]), (at,), method="BFGS", options={"gtol": 1e-7})
        return 2 * (ranking.log_likelihood + found.fun) - stats.chi2.ppf(level, 1)

    return best + optimize.brentq(beyond, -4, 0, xtol=1e-6), best + optimize.brentq(beyond, 0, 4, xtol=1e-6)


@pytest.mark.parametrize("ties", ["none", "davidson", "rao-kupper"])
@pytest.mark.filterwarnings("ignore:Desired error")
def test_profile_intervals_are_those_of_direct_bisection(ties: str) -> None:
    ranking = fit_comparisons(simulated(ties, games=60), ties=ties, order_effect=True)  # type: ignore[arg-type]
    found = ranking.difference("a", "c", 0.9, method="profile")
    assert (found.low, found.high) == pytest.approx(direct_profile(ranking, ranking.contrast("a", "c"), 0.9), abs=1e-4)


def test_profile_intervals_of_strengths_are_relative_to_their_mean() -> None:
    ranking = fit_comparisons(simulated("none", games=60), order_effect=True)
    contrast = np.append(np.array([1.0, 0, 0, 0, 0]) - 0.2, np.zeros(2))
    assert ranking.intervals(method="profile")[0] == pytest.approx(direct_profile(ranking, contrast, 0.95), abs=1e-4)


def test_of_two_items_the_profile_is_the_binomials_likelihood_interval() -> None:
    ranking = fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [9, 1]))
    found = ranking.difference("a", "b", method="profile")

    def fall(odds: float) -> float:
        share = 1 / (1 + math.exp(-odds))
        best = 9 * math.log(0.9) + math.log(0.1)
        return 2 * (best - 9 * math.log(share) - math.log(1 - share)) - stats.chi2.ppf(0.95, 1)

    assert found.low == pytest.approx(optimize.brentq(fall, -3, math.log(9)), abs=1e-6)
    assert found.high == pytest.approx(optimize.brentq(fall, math.log(9), 9), abs=1e-6)
    # It leans to the side on which the data are thin; Wald's does not.
    assert found.high - found.value > found.value - found.low


def test_an_item_that_is_alone_has_no_interval_by_any_method() -> None:
    data = Comparisons.counted(["a", "b", "hero"], ["b", "a", "a"], [1.0] * 3, [5, 3, 4])
    ranking = fit_comparisons(data, disconnected="within")
    hero = ranking.items.index("hero")
    for method in ("wald", "sandwich", "profile"):
        ends = ranking.intervals(method=method)  # type: ignore[arg-type]
        assert np.isnan(ends[hero]).all()
        assert np.isfinite(np.delete(ends, hero, axis=0)).all()


def test_an_anchor_has_its_value_for_sure_and_others_the_errors_of_differences() -> None:
    ranking = fitted("none")
    told = ranking.told_on("elo", anchor=("b", 1000.0))
    factor = 400 / math.log(10)
    assert told[1] == pytest.approx([1000, 1000, 1000])
    for row, item in ((0, "a"), (2, "c")):
        ahead = ranking.difference(item, "b")
        assert told[row] == pytest.approx([1000 + factor * end for end in (ahead.value, ahead.low, ahead.high)])


def test_elo_has_mean_1000_and_odds_add_up_to_one() -> None:
    ranking = fitted("none")
    assert ranking.told_on("elo")[:, 0].mean() == pytest.approx(1000)
    odds = ranking.told_on("odds")
    assert odds[:, 0].sum() == pytest.approx(1)
    assert odds[0, 0] / odds[1, 0] == pytest.approx(math.exp(ranking.difference("a", "b").value))
    assert ranking.told_on("odds", anchor=("b", 1.0))[0, 0] == pytest.approx(odds[0, 0] / odds[1, 0])


def test_errors_of_odds_are_those_of_the_delta_method() -> None:
    ranking = fitted("none")
    shares = ranking.told_on("odds")[:, 0]
    # log alpha_i = theta_i - log sum exp theta, whose slope is e_i - alpha.
    slopes = np.column_stack([np.eye(5) - shares, np.zeros((5, 2))])
    errors = np.sqrt(np.diag(slopes @ ranking.covariance() @ slopes.T))
    z = stats.norm.ppf(0.975)
    assert ranking.told_on("odds")[:, 2] == pytest.approx(shares * np.exp(z * errors))


def test_predictions_have_the_errors_of_the_delta_method() -> None:
    ranking = fitted("davidson")
    told, step = ranking.predict("a", "c", {"shift": 0.7}), 1e-6
    contrast = np.array([1.0, 0, -1, 0, 0, 1, 0.7, 0])

    def log_odds(parameters: np.ndarray) -> np.ndarray:
        probability = np.exp(
            ranking.model.log_probabilities(np.array([contrast[:-1] @ parameters[:-1]]), parameters[-1])
        )[:, 0]
        return np.log(probability / (1 - probability))

    slopes = np.array(
        [
            (log_odds(ranking.parameters + move) - log_odds(ranking.parameters - move)) / (2 * step)
            for move in step * np.eye(8)
        ]
    )
    errors = np.sqrt(np.diag(slopes.T @ ranking.covariance() @ slopes))
    assert [one.standard_error for one in told] == pytest.approx(errors, rel=1e-5)
    assert sum(one.value for one in told) == pytest.approx(1)


def test_settings_that_make_no_sense_are_refused() -> None:
    ranking = fitted("none")
    with pytest.raises(ConfigError, match="no scale 'chess'"):
        ranking.told_on("chess")
    with pytest.raises(ConfigError, match="odds are positive"):
        ranking.told_on("odds", anchor=("a", -1.0))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ranking.intervals(95)
    with pytest.raises(ConfigError, match="no intervals 'exact'"):
        ranking.difference("a", "b", method="exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("ties", ["none", "davidson", "rao-kupper"])
def test_a_prediction_that_is_all_but_certain_has_a_finite_interval(ties: str) -> None:
    chain = [(a, b, 1.0, 1e6) for a, b in zip("abcd", "bcde", strict=False)]
    chain += [(b, a, 1.0, 1.0) for a, b, _, _ in chain]
    if ties != "none":
        chain.append(("a", "b", 0.5, 1e3))
    ranking = fit_comparisons(Comparisons.counted(*zip(*chain, strict=True)), ties=ties)  # type: ignore[arg-type]
    told = ranking.predict("a", "e")
    assert told.left_wins.value == pytest.approx(1)
    for one in told if ties != "none" else (told.left_wins, told.right_wins):
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert 0 < one.standard_error < 10


def test_a_profile_does_not_leave_the_thresholds_that_there_are() -> None:
    # One tie in many games: Rao and Kupper's threshold is just above zero.
    rows = [("a", "b", 1.0, 6), ("b", "a", 1.0, 2), ("b", "c", 1.0, 5), ("c", "b", 1.0, 3), ("a", "c", 0.5, 0.01)]
    ranking = fit_comparisons(Comparisons.counted(*zip(*rows, strict=True)), ties="rao-kupper")
    found = ranking.difference("a", "c", 0.999, method="profile")
    assert -math.inf < found.low < found.value < found.high < math.inf
