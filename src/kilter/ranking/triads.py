"""Whether who beats whom forms circles: more of them than strengths in a line would explain, and which.

Axes: I items, G cells (unique left, right, covariates), P pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from kilter.errors import ConfigError
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.comparisons import Floats, Integers, Item
from kilter.ranking.likelihood import Totals, advantage, totals_of
from kilter.ranking.outcomes import OutcomeModel
from kilter.ranking.ranks import EQUAL

# Counting triads takes a dense product of this many items, or a sparse one of far fewer operations.
DENSE_ITEMS, SPARSE_SHARE = 300, 0.01


class Upset(NamedTuple):
    """A pair whose majority goes against the strengths; `evidence` is the majority's lead in standard deviations."""

    winner: Item
    loser: Item
    share: float
    expected_share: float
    games: float
    evidence: float


class Cycle(NamedTuple):
    """Three items of which each has a majority over the next; `evidence` is that of the weakest of these."""

    items: tuple[Item, Item, Item]
    shares: tuple[float, float, float]
    evidence: float


@dataclass(frozen=True, eq=False)
class Transitivity:
    """Circular triads among all triads in which each pair has a majority.

    `expected` is how many the fitted model would bring about, by simulation, and `p_value` how probable so many or more
    are under it; `even` is a quarter of the triads: what coin tosses would. `consistence` is Kendall's and Babington
    Smith's zeta (1940): 1 without circles, 0 with the most there can be; not a number unless all pairs have a majority.
    """

    triads: int
    circular: int
    expected: float
    even: float
    p_value: float
    consistence: float
    upsets: tuple[Upset, ...]
    """The clearest first."""
    cycles: tuple[Cycle, ...]
    """The clearest first, as many as were asked for."""


class _Pairs(NamedTuple):
    """Pairs that met, and which of them each cell of a fit's totals is about."""

    left: Integers  # P
    right: Integers  # P
    of_cell: Integers  # G
    sign: Floats  # G: -1 where the cell's left item is the pair's right one

    def lead(self, observed: Floats) -> Floats:
        """P: wins less losses of the left item."""
        return np.bincount(self.of_cell, self.sign * (observed[0] - observed[2]), len(self.left)).astype(np.float64)


def transitivity(ranking: Ranking, *, most: int = 20, draws: int = 499, seed: int = 0) -> Transitivity:
    """Circles of majorities against what the fitted model expects, with the `most` clearest of them by name.

    The strengths are taken as they were fitted, to the same circles, so the p-value errs towards 1. Ties count for
    neither; under ties='half' the simulated outcomes are wins and losses only.
    """
    if draws < 1:
        raise ConfigError(f"{draws} draws were asked for; give at least one, better a few hundred")
    unweighted = replace(ranking.comparisons, weight=np.ones_like(ranking.comparisons.weight))
    totals = totals_of(unweighted, order_effect=ranking.order_effect, ties=ranking.ties)
    pairs, items = _pairs_of(totals), totals.items
    games = totals.observed.sum(axis=0)
    probability = np.exp(ranking.model.log_probabilities(advantage(ranking.parameters, totals), ranking.parameters[-1]))
    lead = pairs.lead(totals.observed)
    generator = np.random.default_rng(seed)
    whole = np.rint(games).astype(np.int64)
    drawn = np.empty(draws)
    for draw in range(draws):
        simulated = _outcomes(whole, probability, ranking.model, generator)
        drawn[draw] = circular_triads(pairs.left, pairs.right, pairs.lead(simulated), items)
    circular = circular_triads(pairs.left, pairs.right, lead, items)
    triads = _triads(pairs.left[lead != 0], pairs.right[lead != 0], items)
    complete = np.count_nonzero(lead) == items * (items - 1) // 2
    greatest = (items**3 - (items if items % 2 else 4 * items)) / 24
    met = np.bincount(pairs.of_cell, games, len(lead)).astype(np.float64)
    if not ranking.model.has_ties:
        probability[1] = 0
    expected = (1 + pairs.lead(probability * games) / met) / 2
    return Transitivity(
        triads,
        circular,
        float(drawn.mean()),
        triads / 4,
        float(1 + np.count_nonzero(drawn >= circular)) / (draws + 1),
        1 - circular / greatest if complete and greatest else math.nan,
        _upsets(ranking, pairs, lead, met, expected),
        _cycles(ranking, pairs, lead, met, most),
    )


def circular_triads(left: Integers, right: Integers, lead: Floats, items: int) -> int:
    """How many triads of items are circles, by each pair's lead; a pair without a majority is in none."""
    winner, loser = np.where(lead > 0, left, right)[lead != 0], np.where(lead > 0, right, left)[lead != 0]
    wins, losses = np.bincount(winner, minlength=items), np.bincount(loser, minlength=items)
    # A walk of two steps whose end beats its beginning, counted from each of its three items.
    if items > DENSE_ITEMS and float(wins @ losses) < SPARSE_SHARE * float(items) ** 3:
        beats = sparse.coo_array((np.ones(len(winner)), (winner, loser)), shape=(items, items)).tocsr()
        return round(float((beats @ beats).multiply(beats.T).sum()) / 3)
    dense = np.zeros((items, items), np.float32)
    dense[winner, loser] = 1
    return round(float(np.sum((dense @ dense) * dense.T, dtype=np.float64)) / 3)


def _triads(left: Integers, right: Integers, items: int) -> int:
    """How many triads of items met each other."""
    both = np.concatenate([left, right]), np.concatenate([right, left])
    met = sparse.coo_array((np.ones(2 * len(left)), both), shape=(items, items)).tocsr()
    return round(float((met @ met).multiply(met).sum()) / 6)


def _pairs_of(totals: Totals) -> _Pairs:
    swapped = totals.left > totals.right
    low, high = np.where(swapped, totals.right, totals.left), np.where(swapped, totals.left, totals.right)
    keys, of_cell = np.unique(low.astype(np.int64) * totals.items + high, return_inverse=True)
    left, right = (keys // totals.items).astype(np.int32), (keys % totals.items).astype(np.int32)
    return _Pairs(left, right, of_cell.astype(np.int32), np.where(swapped, -1.0, 1.0))


def _outcomes(games: np.ndarray, probability: Floats, model: OutcomeModel, generator: np.random.Generator) -> Floats:
    """OG: outcomes drawn from the model."""
    if not model.has_ties:
        wins = generator.binomial(games, probability[0])
        return np.stack([wins, np.zeros_like(wins), games - wins]).astype(np.float64)
    shares = (probability / probability.sum(axis=0)).T
    return generator.multinomial(games, shares).T.astype(np.float64)


def _upsets(ranking: Ranking, pairs: _Pairs, lead: Floats, met: Floats, expected: Floats) -> tuple[Upset, ...]:
    ahead = ranking.strengths[pairs.left] - ranking.strengths[pairs.right]
    evidence = np.abs(lead) / np.sqrt(met)
    against = np.flatnonzero((lead * ahead < 0) & (np.abs(ahead) > EQUAL))
    found = []
    for pair in against[np.argsort(-evidence[against], kind="stable")]:
        left, right = ranking.items[pairs.left[pair]], ranking.items[pairs.right[pair]]
        won = lead[pair] > 0
        found.append(
            Upset(
                left if won else right,
                right if won else left,
                float(0.5 + abs(lead[pair]) / met[pair] / 2),
                float(expected[pair] if won else 1 - expected[pair]),
                float(met[pair]),
                float(evidence[pair]),
            )
        )
    return tuple(found)


def _cycles(ranking: Ranking, pairs: _Pairs, lead: Floats, met: Floats, most: int) -> tuple[Cycle, ...]:
    """The cycles with the most evidence.

    Strengths cannot fall all the way around a circle, so each has an edge that goes up, and is no clearer than that.
    """
    items = len(ranking.items)
    won = lead > 0
    winner, loser = np.where(won, pairs.left, pairs.right), np.where(won, pairs.right, pairs.left)
    evidence = np.abs(lead) / np.sqrt(met)
    edges = lead != 0
    clear = sparse.coo_array((evidence[edges], (winner[edges], loser[edges])), shape=(items, items)).tocsr()
    into = clear.T.tocsr()
    upward = np.flatnonzero(edges & (ranking.strengths[winner] <= ranking.strengths[loser] + EQUAL))
    found: dict[tuple[int, int, int], float] = {}
    for edge in upward[np.argsort(-evidence[upward], kind="stable")]:
        if len(found) >= most and sorted(found.values())[-most] >= evidence[edge]:
            break
        first, second = int(winner[edge]), int(loser[edge])
        onward = _row(clear, second)
        back = _row(into, first)
        third, at, of = np.intersect1d(onward[0], back[0], assume_unique=True, return_indices=True)
        weakest = np.minimum(np.minimum(onward[1][at], back[1][of]), evidence[edge])
        for index in np.argsort(-weakest, kind="stable")[:most]:
            around = (first, second, int(third[index]))
            start = around.index(min(around))
            found[around[start:] + around[:start]] = float(weakest[index])  # type: ignore[index]
    share = dict(
        zip(zip(winner.tolist(), loser.tolist(), strict=True), (0.5 + np.abs(lead) / met / 2).tolist(), strict=True)
    )
    best = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:most]
    return tuple(
        Cycle(
            (ranking.items[a], ranking.items[b], ranking.items[c]),
            (share[a, b], share[b, c], share[c, a]),
            clearest,
        )
        for (a, b, c), clearest in best
    )


def _row(matrix: sparse.csr_array, row: int) -> tuple[Integers, Floats]:
    """The columns and values of a sparse matrix's row."""
    inside = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[inside], matrix.data[inside]
