"""Agreement with choix and evalica where both give the maximum of the likelihood."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.iterations import minorize_maximize, newman
from kilter.ranking.online import Elo

SHARED = Path(os.environ.get("KILTER_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "data"
OUTCOME = {"left": 1.0, "right": 0.0, "tie": 0.5}

needs_food = pytest.mark.skipif(
    not (SHARED / "food-golden.csv").exists(), reason="food.csv and food-golden.csv are not there"
)


def games(items: int, number: int, tied: float, seed: int) -> Comparisons:
    """Games of random pairs, each item against its neighbour both ways, so that all are connected."""
    rng = np.random.default_rng(seed)
    strengths = rng.normal(0, 1, items)
    left = np.concatenate([np.arange(items), rng.integers(0, items, number)])
    right = np.concatenate([(np.arange(items) + 1) % items, (left[items:] + rng.integers(1, items, number)) % items])
    outcome = (rng.random(len(left)) < expit(strengths[left] - strengths[right])).astype(float)
    outcome[:items] = 1
    outcome[items:][rng.random(number) < tied] = 0.5
    return Comparisons.counted(left.tolist(), right.tolist(), outcome.tolist(), items=range(items))


SIZES = [(3, 30, 0), (10, 100, 1), (50, 2_000, 2), (200, 5_000, 3)]


@pytest.mark.parametrize(("items", "number", "seed"), SIZES)
def test_strengths_are_those_of_choix(items: int, number: int, seed: int) -> None:
    choix = pytest.importorskip("choix")
    data = games(items, number, 0.0, seed)
    won = data.outcome == 1
    pairs = np.stack([np.where(won, data.left, data.right), np.where(won, data.right, data.left)], axis=1)
    # Its opt_pairwise comes no closer than some 1e-6, even if asked for 1e-10.
    theirs = choix.ilsr_pairwise(items, pairs.tolist(), tol=1e-9)
    assert fit_comparisons(data).strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)


@pytest.mark.parametrize(("items", "number", "seed"), SIZES)
def test_strengths_with_half_ties_are_those_of_evalica(items: int, number: int, seed: int) -> None:
    evalica = pytest.importorskip("evalica")
    data = games(items, number, 0.3, seed)
    word = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    found = evalica.bradley_terry(
        data.left.tolist(),
        data.right.tolist(),
        [word[outcome] for outcome in data.outcome],
        win_weight=1.0,
        tie_weight=0.5,
        tolerance=1e-12,
        limit=100_000,
    )
    theirs = np.log(found.scores.loc[list(range(items))].to_numpy())
    for ours in (fit_comparisons(data, ties="half"), newman(data), minorize_maximize(data)):
        assert ours.strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)


@pytest.mark.parametrize(("items", "number", "seed"), SIZES)
def test_davidsons_ties_are_those_of_evalicas_newman(items: int, number: int, seed: int) -> None:
    evalica = pytest.importorskip("evalica")
    data = games(items, number, 0.3, seed)
    word = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    found = evalica.newman(
        data.left.tolist(),
        data.right.tolist(),
        [word[outcome] for outcome in data.outcome],
        tolerance=1e-12,
        limit=100_000,
    )
    theirs = np.log(found.scores.loc[list(range(items))].to_numpy())
    ours = fit_comparisons(data, ties="davidson")
    assert ours.strengths == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    # A tie weighs 2 v sqrt(pi_i pi_j) there and exp(t) sqrt(pi_i pi_j) here.
    assert ours.extras[0] == pytest.approx(np.log(2 * found.v), abs=1e-6)


def food() -> tuple[Comparisons, dict[str, dict[str, float]]]:
    with (SHARED / "food.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    golden: dict[str, dict[str, float]] = defaultdict(dict)
    with (SHARED / "food-golden.csv").open() as lines:
        for row in csv.DictReader(lines):
            golden[row["algorithm"]][row["item"]] = float(row["score"])
    left, right = [row["left"] for row in rows], [row["right"] for row in rows]
    return Comparisons.counted(left, right, [OUTCOME[row["winner"]] for row in rows]), golden


def logs(golden: dict[str, float], items: tuple[str | int, ...]) -> np.ndarray:
    scores = np.log([golden[str(item)] for item in items])
    centred: np.ndarray = scores - scores.mean()
    return centred


@needs_food
def test_dishes_have_the_strengths_that_were_written_down() -> None:
    data, golden = food()
    # The file is from iterations that stopped when scores moved by less than 1e-6.
    assert fit_comparisons(data, ties="half").strengths == pytest.approx(
        logs(golden["bradley_terry"], data.items), abs=1e-5
    )
    assert fit_comparisons(data, ties="half").told_on("odds")[:, 0] == pytest.approx(
        [golden["bradley_terry"][str(item)] for item in data.items], abs=1e-6
    )


@needs_food
def test_dishes_with_ties_fitted_have_those_of_newman() -> None:
    data, golden = food()
    for strengths in (fit_comparisons(data, ties="davidson").strengths, newman(data, ties="davidson").strengths):
        assert strengths == pytest.approx(logs(golden["newman"], data.items), abs=1e-5)


@needs_food
def test_dishes_have_the_elo_and_the_wins_that_were_written_down() -> None:
    data, golden = food()
    elo = Elo(k=4)
    for left, right, outcome in zip(data.left, data.right, data.outcome, strict=True):
        elo.update(data.items[left], data.items[right], float(outcome))
    assert elo.ratings == pytest.approx(golden["elo"], abs=1e-9)
    wins = fit_comparisons(data, ties="half").wins
    assert dict(zip(data.items, wins, strict=True)) == pytest.approx(golden["counting"])
