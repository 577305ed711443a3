"""Which comparisons to make next: those that connect the items, then those that say most about their differences.

Axes: I items, p parameters, M candidate matches.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kilter.errors import ConfigError
from kilter.ranking.bradley_terry import PRIOR_VARIANCE, Ranking, fit_comparisons
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item, Rankings
from kilter.ranking.fitted import Fitted
from kilter.ranking.plackett_luce import RankingsFit, fit_rankings
from kilter.ranking.uncertainty import WHOLE

# To this many items every pair is a candidate; beyond, as many pairs as that drawn at random.
ALL_PAIRS = 2000
DRAWN = 200_000
CANDIDATES_AT_ONCE = 2000


class Suggestion(NamedTuple):
    """A comparison worth making. `gain` is by how much it is expected to lower the mean variance of the differences
    between two items, in squared log-odds; infinite where without it some differences have no estimate."""

    left: Item
    right: Item
    reason: str
    gain: float


def suggest_matches(data: Fitted | Comparisons | Rankings, count: int = 10, *, seed: int = 0) -> list[Suggestion]:
    """The `count` comparisons to make next, the most useful first, each as if those before it had been made once.

    A pair comes again only when all others have come. Where strengths are not determined, comparisons serve better than
    a ranking within groups, which no longer has the results between them.

    Where groups are not connected, one comparison for each group but one comes first, between the items of neighbouring
    groups that are nearest by a fit with a prior, so that either may win; each needs to be repeated until results go
    both ways. The others bring the greatest expected fall of the mean variance of differences (A-optimal design): for
    information w and contrast x, w (Cx)'(Cx) / (1 + w x'Cx) of the covariance C's trace (Sherman and Morrison 1950).
    Beyond 2,000 items candidates are drawn at random; beyond 5,000 parameters there are only those that connect, and
    ConfigError is raised where the items are connected already. Also where `count` is not positive.
    """
    if count < 1:
        raise ConfigError(f"{count} matches were asked for; give a positive number")
    ranking = data if isinstance(data, Fitted) else _fitted(data)
    found = ranking.connectivity
    if found.identified:
        return informative(ranking, count, np.random.default_rng(seed))
    if ranking.prior_variance is None:
        ranking = _with_prior(ranking)
    first = connecting(ranking, found.group, found.league)[:count]
    if len(first) == count or len(ranking.parameters) > WHOLE:
        return first
    index = {item: place for place, item in enumerate(ranking.items)}
    planned = [(index[match.left], index[match.right]) for match in first]
    return first + informative(ranking, count - len(first), np.random.default_rng(seed), planned)


def _fitted(data: Comparisons | Rankings) -> Fitted:
    """Strengths, with a prior where they are not determined otherwise."""
    if isinstance(data, Rankings):
        return fit_rankings(data, disconnected="prior")
    return fit_comparisons(data, disconnected="prior")


def _with_prior(fitted: Fitted) -> Fitted:
    """The same data with a prior that puts all groups on one scale."""
    if isinstance(fitted, Ranking):
        return fit_comparisons(
            fitted.comparisons,
            ties=fitted.ties,
            order_effect=fitted.order_effect,
            prior_variance=PRIOR_VARIANCE,
        )
    assert isinstance(fitted, RankingsFit)
    return fit_rankings(fitted.rankings, prior_variance=PRIOR_VARIANCE)


def connecting(ranking: Fitted, group: Integers, league: Integers) -> list[Suggestion]:
    """A comparison for each group but one: between groups next to each other in mean strength, of their nearest items.

    Among pairs equally near, the one whose items have more games.
    """
    members = np.bincount(group)
    mean = np.bincount(group, ranking.strengths) / members
    order = np.argsort(-mean, kind="stable")
    by_group = np.split(np.argsort(group, kind="stable"), np.cumsum(members)[:-1])
    games = ranking.games
    suggested = []
    for upper, lower in pairwise(order):
        one, other = _nearest(by_group[upper], by_group[lower], ranking.strengths, games)
        if league[one] != league[other]:
            reason = "they belong to sets of items that were never compared with each other"
        else:
            reason = "all results between their groups of items went one way"
        suggested.append(Suggestion(ranking.items[one], ranking.items[other], reason, math.inf))
    # What was never compared says least of all.
    return sorted(suggested, key=lambda match: "never" not in match.reason)


def informative(
    ranking: Fitted, count: int, generator: np.random.Generator, planned: list[tuple[int, int]] | None = None
) -> list[Suggestion]:
    """The matches with the greatest expected fall of the mean variance, after those already `planned`."""
    items, covariance = len(ranking.items), ranking.covariance()
    left, right = _candidates(items, ranking, generator)
    if not len(left):
        return []
    information = _information(ranking, left, right)
    # The contrast of a candidate is that of its items, and the order effect where there is one.
    order = items if _order_matters(ranking) else None
    variance, norm = _variances(covariance, items, left, right, order)
    moved: list[tuple[float, Floats]] = []

    def towards(contrast: Floats) -> Floats:
        """The covariance times a contrast, after the matches so far."""
        product = covariance @ contrast
        for factor, direction in moved:
            product = product - factor * (direction @ contrast) * direction
        return product

    def play(one: int, other: int, weight: float) -> None:
        """Take a match as made: C - f zz', with z = Cx, in every candidate's variance x'Cx and norm |Cx|^2."""
        nonlocal variance, norm
        contrast = np.zeros(len(covariance))
        contrast[one], contrast[other] = 1, -1
        if order is not None:
            contrast[order] = 1
        direction = towards(contrast)
        factor = weight / (1 + weight * float(contrast @ direction))
        of_items = np.append(direction[:items], np.zeros(len(direction) - items))
        further = towards(of_items)
        along, across = (
            part[left] - part[right] + (0.0 if order is None else part[order]) for part in (direction, further)
        )
        variance = variance - factor * along**2
        norm = norm - 2 * factor * along * across + factor**2 * float(of_items @ of_items) * along**2
        moved.append((factor, direction))

    for one, other in planned or []:
        play(one, other, float(_information(ranking, np.array([one]), np.array([other]))[0]))
    low, high = np.minimum(left, right), np.maximum(left, right)
    suggested, fresh = [], np.ones(len(left), bool)
    for _ in range(count):
        # The mean variance of a difference is 2 / (I - 1) of the trace, as strengths have mean zero.
        gain = 2 / (items - 1) * information * norm / (1 + information * np.maximum(variance, 0))
        best = int(np.argmax(np.where(fresh, gain, -1.0)))
        one, other = int(left[best]), int(right[best])
        error = math.sqrt(max(float(variance[best]), 0))
        reason = f"their difference is known to ± {error:.2f} (standard error, log-odds)"
        suggested.append(Suggestion(ranking.items[one], ranking.items[other], reason, float(gain[best])))
        play(one, other, float(information[best]))
        fresh &= (low != low[best]) | (high != high[best])
        if not fresh.any():
            fresh[:] = True
    return suggested


def _candidates(items: int, ranking: Fitted, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """M and M: pairs within a component, in both orders where it matters who is left."""
    if items <= ALL_PAIRS:
        left, right = np.triu_indices(items, 1)
    else:
        left = generator.integers(items, size=DRAWN)
        right = (left + generator.integers(1, items, size=DRAWN)) % items
    if _order_matters(ranking):
        left, right = np.concatenate([left, right]), np.concatenate([right, left])
    same = ranking.component[left] == ranking.component[right]
    return left[same].astype(np.int32), right[same].astype(np.int32)


def _information(ranking: Fitted, left: Integers, right: Integers) -> Floats:
    """M: what a comparison is expected to tell of the advantage, without covariates."""
    ahead = ranking.strengths[left] - ranking.strengths[right]
    if _order_matters(ranking):
        ahead = ahead + ranking.extras[0]
    model, tie = ranking.of_pairs
    probability = np.exp(model.log_probabilities(ahead, tie))
    if not model.has_ties:
        probability[1] = 0
    return model.derivatives(ahead, tie, probability).advantage_advantage


def _order_matters(ranking: Fitted) -> bool:
    return isinstance(ranking, Ranking) and ranking.order_effect


def _variances(
    covariance: Floats, items: int, left: Integers, right: Integers, order: int | None
) -> tuple[Floats, Floats]:
    """M and M: x'Cx for the contrast of each candidate, and |Cx|^2 over the items."""

    def quadratic(matrix: Floats) -> Floats:
        diagonal = np.diag(matrix)
        found = diagonal[left] + diagonal[right] - 2 * matrix[left, right]
        if order is not None:
            found = found + diagonal[order] + 2 * (matrix[order, left] - matrix[order, right])
        return found

    variance = quadratic(covariance)
    if items <= ALL_PAIRS:
        return variance, quadratic(covariance[:, :items] @ covariance[:items])
    norm = np.empty(len(left))
    for start in range(0, len(left), CANDIDATES_AT_ONCE):
        part = slice(start, start + CANDIDATES_AT_ONCE)
        towards = covariance[left[part], :items] - covariance[right[part], :items]
        if order is not None:
            towards += covariance[order, :items]
        norm[part] = np.square(towards).sum(axis=1)
    return variance, norm


def _nearest(upper: Integers, lower: Integers, strengths: Floats, games: Floats) -> tuple[int, int]:
    """The item of each of two groups that lie nearest to each other; of equally near ones those with most games."""
    upper, lower = (side[np.lexsort((-games[side], strengths[side]))] for side in (upper, lower))
    place = np.searchsorted(strengths[lower], strengths[upper])
    beside = np.stack([np.clip(place - 1, 0, len(lower) - 1), np.clip(place, 0, len(lower) - 1)])
    apart = np.abs(strengths[upper] - strengths[lower[beside]])
    met = games[upper] + games[lower[beside]]
    side, at = np.unravel_index(np.lexsort((-met.ravel(), np.round(apart, 9).ravel()))[0], apart.shape)
    return int(upper[at]), int(lower[beside[side, at]])
