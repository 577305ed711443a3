"""Do 95% intervals of differences cover the truth 95 times in 100? Simulated, for designs of several kinds.

    python benchmarks/ranking_coverage.py          # 10,000 data sets a design: a quarter of an hour on two cores
    python benchmarks/ranking_coverage.py --designs ladder --data-sets 1000 --out ''

Every data set of a design is drawn from the same graph of comparisons and the same strengths, fitted, and asked for the
difference of two items drawn at random, by each kind of interval. Data sets without an estimate are left out, and
counted. Prints a Markdown table, and writes it to docs/reference/ranking-coverage.md where all designs were run.
"""

# D data sets, I items, G pairs or games

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# A second thread on matrices this small is only waited for, and each process has a processor of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import expit

from kilter.ranking import (
    UNRANKED,
    Comparisons,
    NotConvergedError,
    Rankings,
    SeparatedError,
    UnidentifiedError,
    fit,
    fit_comparisons,
)

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NOMINAL = 0.95
METHODS = ("wald", "sandwich", "profile")
PAGE = Path("docs/reference/ranking-coverage.md")
CHUNK = 250  # data sets that a process takes at a time


@dataclass(frozen=True)
class Design:
    """Who plays whom, the truth, how a data set is drawn, and which intervals are asked for."""

    says: str
    truth_I: Floats
    draw: Callable[[Generator], Comparisons | Rankings]
    settings: dict[str, Any] = field(default_factory=dict)
    methods: Sequence[str] = METHODS


class Tally(NamedTuple):
    """Of some data sets: how many had an estimate, and how many intervals of each method covered."""

    data_sets: int
    without: int
    covered: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--data-sets", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default=str(PAGE), help="the page; '' for none")
    args = parser.parse_args()
    lines = [
        "| design | without an estimate | Wald | sandwich | profile |",
        "|---|--:|--:|--:|--:|",
    ]
    print("\n".join(lines), flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for name in args.designs:
            begin = time.perf_counter()
            chunks = [(name, first, min(CHUNK, args.data_sets - first)) for first in range(0, args.data_sets, CHUNK)]
            parts = pool.starmap(tallied, chunks, chunksize=1)
            lines.append(row(name, together(parts)))
            print(f"{lines[-1]}  <!-- {time.perf_counter() - begin:.0f} s -->", flush=True)
    if args.out and args.designs == list(DESIGNS):
        Path(args.out).write_text(page(lines, args.data_sets), encoding="utf-8")


def tallied(name: str, first: int, data_sets: int) -> Tally:
    """Draw and fit data sets, numbered from `first`: the number is the seed."""
    design = DESIGNS[name]
    covered, without = dict.fromkeys(design.methods, 0), 0
    for number in range(first, first + data_sets):
        generator = np.random.default_rng([list(DESIGNS).index(name), number])
        a, b = (int(item) for item in generator.choice(len(design.truth_I), 2, replace=False))
        truth = design.truth_I[a] - design.truth_I[b]
        try:
            fitted = fit(design.draw(generator), **design.settings)
        except (UnidentifiedError, SeparatedError, NotConvergedError):
            without += 1
            continue
        for method in design.methods:
            found = fitted.difference(a, b, NOMINAL, method)
            covered[method] += found.low <= truth <= found.high
    return Tally(data_sets, without, covered)


def together(parts: Sequence[Tally]) -> Tally:
    covered = {method: sum(part.covered[method] for part in parts) for method in parts[0].covered}
    return Tally(sum(part.data_sets for part in parts), sum(part.without for part in parts), covered)


def row(name: str, tally: Tally) -> str:
    fitted = tally.data_sets - tally.without
    cells = [f"{tally.without:,}" if tally.without else "none"]
    for method in METHODS:
        if method not in tally.covered or not fitted:
            cells.append("")
            continue
        share = tally.covered[method] / fitted
        error = math.sqrt(NOMINAL * (1 - NOMINAL) / fitted)
        text = f"{share:.1%} ± {math.sqrt(share * (1 - share) / fitted):.1%}"
        cells.append(text if abs(share - NOMINAL) <= 3 * error else f"**{text}**")
    return f"| {name} | {' | '.join(cells)} |"


def page(lines: Sequence[str], data_sets: int) -> str:
    designs = "\n".join(f"- **{name}**: {design.says}" for name, design in DESIGNS.items())
    return f"""# Coverage of intervals

How often nominal 95% intervals of the difference of two log-strengths hold the true one, over {data_sets:,} simulated
data sets of each design, with the standard error of the simulation. Bold: more than three standard errors from 95%.
Made by `python benchmarks/ranking_coverage.py`.

{chr(10).join(lines)}

In every data set the two items are drawn at random. "Without an estimate" are data sets in which the maximum-likelihood
estimate does not exist, because a group of items won or lost every comparison with the rest; `kilter.ranking.fit`
refuses them and says which, and they are left out of the shares.

The designs:

{designs}

{FINDINGS}"""


FINDINGS = """\
## Which interval to use

- **Wald** (the default) where outcomes are wins, losses, ties and rankings, and each stands alone: it covers in all
  these designs but the sparsest.
- **Profile** where comparisons are so few that some items' wins or losses hang on one game, as on the ring: data sets
  near to having no estimate have likelihoods that are far from parabolas, and Wald's intervals come out too wide there.
  Elsewhere it gains nothing over Wald's, and with few games or rankings, and on a ladder, covers a little less than it
  says.
- **Sandwich** where the model of outcomes is not to be trusted. Grades vary less than wins and losses do, so Wald's
  intervals are far too wide; comparisons by the same judge hang together, and so do rankings, so Wald's are too narrow.
  With three games a pair it is slightly too wide.
"""


def of_wins(items: int, left_G: Indices, right_G: Indices, count_OG: Floats) -> Comparisons:
    """Comparisons from how often each pair had each outcome: left wins, ties, right wins."""
    outcome = np.repeat([1.0, 0.5, 0.0], len(left_G))
    left, right, count = np.tile(left_G, 3), np.tile(right_G, 3), count_OG.reshape(-1).astype(np.float64)
    there = count > 0
    return Comparisons(
        items=tuple(range(items)),
        left=left[there].astype(np.int32),
        right=right[there].astype(np.int32),
        outcome=outcome[there],
        count=count[there],
        weight=np.ones(int(there.sum())),
    )


def pairs_of(items: int) -> tuple[Indices, Indices]:
    return np.triu_indices(items, 1)


def both_ways(items: int) -> tuple[Indices, Indices]:
    left, right = pairs_of(items)
    return np.concatenate([left, right]), np.concatenate([right, left])


def neighbours(items: int, distance: int, *, closed: bool) -> tuple[Indices, Indices]:
    """Every item with those to `distance` places below it; `closed` has the last ones play the first."""
    left = np.repeat(np.arange(items), distance)
    right = left + np.tile(np.arange(1, distance + 1), items)
    inside = np.ones(len(left), bool) if closed else right < items
    return left[inside], right[inside] % items


def plain(says: str, truth_I: Floats, pairs: tuple[Indices, Indices], games: int, order: float = 0.0) -> Design:
    """Bradley-Terry without ties, `games` for each pair, and an order effect where `order` is one."""
    left, right = pairs
    wins = expit(truth_I[left] - truth_I[right] + order)

    def draw(generator: Generator) -> Comparisons:
        won = generator.binomial(games, wins)
        return of_wins(len(truth_I), left, right, np.stack([won, np.zeros_like(won), games - won]))

    return Design(says, truth_I, draw, {"order_effect": bool(order)})


def with_ties(says: str, truth_I: Floats, games: int, ties: str, parameter: float, order: float = 0.0) -> Design:
    """A round robin in which ties come by Davidson's or by Rao and Kupper's model; with `order`, both ways round."""
    left, right = (both_ways if order else pairs_of)(len(truth_I))
    ahead = truth_I[left] - truth_I[right] + order
    if ties == "davidson":
        shares = np.stack([np.exp(ahead / 2), np.full_like(ahead, np.exp(parameter)), np.exp(-ahead / 2)])
        shares = shares / shares.sum(axis=0)
    else:
        won, lost = expit(ahead - parameter), expit(-ahead - parameter)
        shares = np.stack([won, 1 - won - lost, lost])

    def draw(generator: Generator) -> Comparisons:
        return of_wins(len(truth_I), left, right, generator.multinomial(games, shares.T).T)

    return Design(says, truth_I, draw, {"ties": ties, "order_effect": bool(order)})


def single_games(items: int, left: Indices, right: Indices, outcome: Floats, **more: Any) -> Comparisons:
    ones = np.ones(len(left))
    return Comparisons(tuple(range(items)), left.astype(np.int32), right.astype(np.int32), outcome, ones, ones, **more)


def with_covariate(says: str, truth_I: Floats, games: int, slope: float) -> Design:
    """A round robin of games each of which has its own difference in length."""
    left, right = (np.repeat(side, games) for side in pairs_of(len(truth_I)))
    length = np.random.default_rng(0).normal(size=len(left))
    wins = expit(truth_I[left] - truth_I[right] + slope * length)

    def draw(generator: Generator) -> Comparisons:
        outcome = (generator.random(len(wins)) < wins).astype(np.float64)
        more = {"covariates": length[:, None], "covariate_names": ("length",)}
        return single_games(len(truth_I), left, right, outcome, **more)

    return Design(says, truth_I, draw)


def graded(says: str, truth_I: Floats, games: int, sharpness: float) -> Design:
    """A round robin of grades, Beta about the probability of winning."""
    left, right = (np.repeat(side, games) for side in pairs_of(len(truth_I)))
    mean = expit(truth_I[left] - truth_I[right])

    def draw(generator: Generator) -> Comparisons:
        outcome = generator.beta(sharpness * mean, sharpness * (1 - mean))
        return single_games(len(truth_I), left, right, outcome)

    return Design(says, truth_I, draw, methods=("wald", "sandwich"))


def judged(says: str, truth_I: Floats, judges: int, games: int, taste: float) -> Design:
    """Judges who each see `games` random pairs, and have tastes of their own: normal additions to every strength.

    What is estimated is what all judges together would give: the fit to the probabilities averaged over tastes.
    """
    items = len(truth_I)
    left, right = pairs_of(items)
    nodes, weights = hermegauss(64)
    ahead = (truth_I[left] - truth_I[right])[:, None] + math.sqrt(2) * taste * nodes
    average = (expit(ahead) @ weights) / weights.sum()
    exact = fit_comparisons(single_games(items, left, right, average))
    judge = np.repeat(np.arange(judges, dtype=np.int32), games)

    def draw(generator: Generator) -> Comparisons:
        seen = generator.integers(len(left), size=judges * games)
        tastes = truth_I + generator.normal(scale=taste, size=(judges, items))
        a, b = left[seen], right[seen]
        outcome = (generator.random(len(seen)) < expit(tastes[judge, a] - tastes[judge, b])).astype(np.float64)
        return single_games(items, a, b, outcome, judge=judge, judges=tuple(range(judges)))

    return Design(says, exact.strengths, draw, {"cluster": "judge"}, ("wald", "sandwich"))


def ranked(says: str, truth_I: Floats, rankings: int, shown: int, placed: int, heard: int = 1) -> Design:
    """The best `placed` of `shown` items drawn at random, by Plackett and Luce's model; each judge's ranking `heard`
    several times."""
    ranking = np.repeat(np.arange(rankings * heard, dtype=np.int32), shown)
    place = np.where(np.arange(1, shown + 1) <= placed, np.arange(1, shown + 1), UNRANKED).astype(np.int32)

    def draw(generator: Generator) -> Rankings:
        seen = generator.permuted(np.tile(np.arange(len(truth_I)), (rankings, 1)), axis=1)[:, :shown]
        worth = truth_I[seen] + generator.gumbel(size=seen.shape)
        best_first = np.take_along_axis(seen, np.argsort(-worth, axis=1), axis=1)
        return Rankings(
            tuple(range(len(truth_I))),
            np.repeat(best_first, heard, axis=0).astype(np.int32).ravel(),
            ranking,
            np.tile(place, rankings * heard),
            np.ones(rankings * heard),
            judge=np.repeat(np.arange(rankings, dtype=np.int32), heard) if heard > 1 else None,
        )

    return Design(says, truth_I, draw, methods=METHODS if heard == 1 else ("wald", "sandwich"))


def spread(items: int, width: float) -> Floats:
    """Log-strengths evenly from -width/2 to width/2."""
    return np.linspace(-width / 2, width / 2, items)


def random_pairs(items: int, games: int) -> tuple[Indices, Indices]:
    left = np.random.default_rng(0).integers(items, size=games)
    right = (left + np.random.default_rng(1).integers(1, items, size=games)) % items
    return left, right


DESIGNS = {
    "round robin": plain("10 items, 20 games a pair, log-strengths over 2", spread(10, 2), pairs_of(10), 20),
    "few games": plain("10 items, 3 games a pair, log-strengths over 2", spread(10, 2), pairs_of(10), 3),
    "random pairs": plain("50 items, 1,500 games of random pairs, over 3", spread(50, 3), random_pairs(50, 1500), 1),
    "ladder": plain(
        "30 items over 6, 10 games with each of the two next below", spread(30, 6), neighbours(30, 2, closed=False), 10
    ),
    "ring": plain(
        "20 items over 1, 5 games with each neighbour on a ring", spread(20, 1), neighbours(20, 1, closed=True), 5
    ),
    "ties, Davidson": with_ties(
        "10 items over 2, 20 games a pair, about 30% ties", spread(10, 2), 20, "davidson", -0.1
    ),
    "ties, Rao-Kupper": with_ties(
        "10 items over 2, 20 games a pair, about 20% ties", spread(10, 2), 20, "rao-kupper", 0.5
    ),
    "at home": plain(
        "10 items over 2, 10 games a pair and side, 0.4 for who is at home", spread(10, 2), both_ways(10), 10, 0.4
    ),
    "ties at home": with_ties(
        "the same, with about 30% ties by Davidson's model", spread(10, 2), 10, "davidson", -0.1, order=0.4
    ),
    "length": with_covariate(
        "10 items over 2, 20 games a pair, each with a difference in length that counts 0.5", spread(10, 2), 20, 0.5
    ),
    "grades": graded(
        "10 items over 2, 20 graded comparisons a pair, which vary a seventh as much as wins and losses",
        spread(10, 2),
        20,
        6.0,
    ),
    "judges": judged(
        "8 items over 2, 60 judges of 30 games each, with tastes of their own (standard deviation 0.7)",
        spread(8, 2),
        60,
        30,
        0.7,
    ),
    "rankings": ranked("10 items over 2, the best 3 of 5 in each of 80 rankings", spread(10, 2), 80, 5, 3),
    "rankings heard thrice": ranked("the same, each given three times by its judge", spread(10, 2), 80, 5, 3, heard=3),
}

if __name__ == "__main__":
    main()
