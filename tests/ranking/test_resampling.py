"""Claims about the bootstrap: it draws what the data are made of, fits each draw, and counts those it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, Ranking, fit_comparisons, resampling
from kilter.ranking.likelihood import totals_of
from kilter.ranking.newton import maximize
from kilter.ranking.resampling import bootstrap, maximize_together


def simulated(ties: str, generator: np.random.Generator, items: int = 5, games: int = 400) -> Comparisons:
    """With an order effect of 0.5, a covariate of 0.8, and a quarter of ties if there are any."""
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    shift = np.round(generator.normal(size=games))
    ahead = (right - left) / 3 + 0.5 + 0.8 * shift
    outcome = (generator.random(games) < 1 / (1 + np.exp(-ahead))).astype(float)
    outcome[generator.random(games) < (0.25 if ties != "none" else 0)] = 0.5
    return Comparisons(
        items=tuple("abcdefgh"[:items]),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        outcome=outcome,
        count=generator.integers(1, 4, games).astype(float),
        weight=generator.choice([0.5, 1, 2], games),
        covariates=shift[:, None],
        covariate_names=("shift",),
        judge=(np.arange(games) % 40).astype(np.int32),
    )


@pytest.mark.parametrize("ties", ["none", "half", "davidson", "rao-kupper"])
@pytest.mark.parametrize("prior_variance", [None, 0.5])
def test_draws_fitted_together_equal_draws_fitted_one_by_one(ties: str, prior_variance: float | None) -> None:
    generator = np.random.default_rng(1)
    ranking = fit_comparisons(
        simulated(ties, generator),
        ties=ties,
        order_effect=True,
        prior_variance=prior_variance,  # type: ignore[arg-type]
    )
    observed = ranking.totals.observed[:, None, :] * generator.integers(0, 4, (1, 7, len(ranking.totals.left)))
    together, converged = maximize_together(ranking, observed)
    assert converged.all()
    for draw, found in enumerate(together):
        alone = maximize(
            replace(ranking.likelihood, totals=ranking.totals._replace(observed=observed[:, draw])),
            component=ranking.component,
            prior_variance=prior_variance,
        )
        assert found == pytest.approx(alone.parameters, abs=1e-7)


@pytest.mark.parametrize("cluster", [None, "judge"])
def test_every_unit_drawn_once_is_the_data(cluster: str | None) -> None:
    data = simulated("davidson", np.random.default_rng(2))
    plain = replace(data, covariates=np.empty((len(data.left), 0)), covariate_names=())
    if cluster is None:
        plain = replace(plain, judge=None)
    ranking = fit_comparisons(plain, ties="davidson")
    units, often = resampling._units(ranking)
    assert (units.T @ often).reshape(3, -1) == pytest.approx(totals_of(plain, ties="davidson").observed)
    assert len(often) == (40 if cluster else len(data.left))


def test_of_two_items_the_bootstrap_is_the_binomial() -> None:
    ranking = fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [60, 40]))
    found = bootstrap(ranking, draws=8000, seed=3)
    share = 1 / (1 + np.exp(-2 * found.strengths[:, 0]))
    assert share.mean() == pytest.approx(0.6, abs=4 * 0.049 / np.sqrt(8000))
    assert share.std() == pytest.approx(np.sqrt(0.24 / 100), rel=0.04)
    ahead = found.difference("a", "b")
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.6) / 100
    assert (ahead.low, ahead.high) == pytest.approx((np.log(low / (1 - low)), np.log(high / (1 - high))), abs=0.05)
    assert found.intervals()[0] == pytest.approx([ahead.low / 2, ahead.high / 2])
    assert found.failed == 0
    assert ahead.value == pytest.approx(np.log(1.5))


def test_draws_without_an_estimate_are_counted_and_said() -> None:
    ranking = fit_comparisons(Comparisons.counted("ab", "ba", [1, 1], [9, 1]))
    found = bootstrap(ranking, draws=2000, seed=4)
    none = 0.9**10 + 0.1**10
    assert found.failed / 2000 == pytest.approx(none, abs=4 * np.sqrt(none * (1 - none) / 2000))
    assert len(found.strengths) == 2000 - found.failed
    assert np.isfinite(found.strengths).all()
    assert f"in {found.failed:,} of them" in found.explanation()


def test_data_that_hang_by_single_games_are_refused() -> None:
    names = list(range(40))
    ring = fit_comparisons(Comparisons.counted(names, names[1:] + names[:1], [1.0] * 40))
    with pytest.raises(DataError, match="50 of 50 draws have no finite estimate"):
        bootstrap(ring, draws=50)
    with_prior = fit_comparisons(Comparisons.counted(names, names[1:] + names[:1], [1.0] * 40), prior_variance=1.0)
    assert bootstrap(with_prior, draws=50).failed == 0


def test_draws_that_an_order_effect_separates_are_counted_not_fitted() -> None:
    # Left wins all but one game each way: a draw without either is told apart by the order effect and the strengths.
    rows = [("a", "b", 1, 20), ("b", "a", 1, 20), ("a", "b", 0, 1), ("b", "a", 0, 1)]
    left, right, outcome, count = zip(*rows, strict=True)
    ranking = fit_comparisons(Comparisons.counted(left, right, outcome, count), order_effect=True)
    found = bootstrap(ranking, draws=1000, seed=5)
    none = 2 * (1 - 1 / 42) ** 42 - (1 - 2 / 42) ** 42
    assert found.failed / 1000 == pytest.approx(none, abs=4 * np.sqrt(none * (1 - none) / 1000))


def test_standard_errors_agree_with_the_fisher_information_where_the_model_holds() -> None:
    generator, items, games = np.random.default_rng(6), 6, 6000
    left = generator.integers(items, size=games)
    right = (left + generator.integers(1, items, size=games)) % items
    outcome = (generator.random(games) < 1 / (1 + np.exp((left - right) / 4))).astype(float)
    ranking = fit_comparisons(Comparisons.counted(left, right, outcome, items=range(items)))
    found = bootstrap(ranking, draws=800, seed=7)
    assert found.strengths.std(axis=0) == pytest.approx(ranking.standard_errors(), rel=0.12)
    assert found.strengths.std(axis=0) == pytest.approx(ranking.standard_errors("sandwich"), rel=0.12)


def judged() -> Ranking:
    """Each of 30 judges says the same a hundred times."""
    verdicts = np.random.default_rng(8).random(30) < 0.6
    return fit_comparisons(
        replace(
            Comparisons.counted(["a"] * 30, ["b"] * 30, verdicts, [100.0] * 30), judge=np.arange(30, dtype=np.int32)
        )
    )


def test_whole_judges_are_drawn_where_they_are_named() -> None:
    ranking = judged()
    found = bootstrap(ranking, draws=1000, seed=9)
    assert found.difference("a", "b").standard_error == pytest.approx(
        float(np.sqrt(ranking.variance(ranking.contrast("a", "b"), "sandwich"))), rel=0.15
    )
    assert "judges" in found.explanation()


def test_beyond_the_batched_size_each_draw_is_fitted_for_itself_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranking = fit_comparisons(simulated("rao-kupper", np.random.default_rng(10)), ties="rao-kupper")
    together = bootstrap(ranking, draws=20, seed=11)
    monkeypatch.setattr(resampling, "BATCHED", 1)
    alone = bootstrap(ranking, draws=20, seed=11)
    assert alone.parameters == pytest.approx(together.parameters, abs=1e-7)


def test_components_stay_centred_and_an_item_alone_has_no_interval() -> None:
    data = Comparisons.counted(
        ["a", "b", "x", "y", "hero"], ["b", "a", "y", "x", "a"], [1.0] * 5, [30.0, 20.0, 20.0, 30.0, 3.0]
    )
    ranking = fit_comparisons(data, disconnected="within")
    found = bootstrap(ranking, draws=50, seed=12)
    assert found.strengths[:, :2].sum(axis=1) == pytest.approx(0, abs=1e-12)
    assert np.isnan(found.intervals()[ranking.items.index("hero")]).all()
    with pytest.raises(DataError, match="groups that the data do not connect"):
        found.difference("a", "x")


def test_one_draw_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        bootstrap(judged(), draws=1)
