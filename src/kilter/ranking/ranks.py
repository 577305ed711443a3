"""Ranks with intervals that hold for all items at once, and the probability of being best.

Axes: I items, D draws, S pairs.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, special

from kilter.errors import ConfigError
from kilter.ranking.comparisons import Floats, Integers
from kilter.ranking.fitted import Fitted, Kind, check_level
from kilter.ranking.uncertainty import WHOLE

# To this many items the greatest deviation of all differences is simulated; beyond, bounded.
SIMULATED = 500
# Log-strengths nearer than this are equal: what is between them is rounding.
EQUAL = 1e-9
ROWS_AT_ONCE = 256


def ranks(ranking: Fitted) -> Integers:
    """I: 1 for the strongest of its component; equal strengths share the better rank."""
    order = np.lexsort((-ranking.strengths, ranking.component))
    strengths, component = ranking.strengths[order], ranking.component[order]
    place = np.arange(len(order))
    new_component = np.append(True, np.diff(component) != 0)
    lower = np.append(True, -np.diff(strengths) > EQUAL) | new_component
    first_of_component = np.maximum.accumulate(np.where(new_component, place, 0))
    found = np.empty(len(order), np.int32)
    found[order] = np.maximum.accumulate(np.where(lower, place, 0)) - first_of_component + 1
    return found


def rank_intervals(
    ranking: Fitted,
    level: float = 0.95,
    kind: Kind = "fisher",
    *,
    draws: int = 4000,
    seed: int = 0,
) -> Integers:
    """I2: the lowest and highest rank of each item; all items' true ranks lie within at once with that probability.

    An item's lowest rank is 1 and the number of items that are surely stronger; surely by intervals of all differences
    of a component that hold at once (Mogstad, Romano, Shaikh and Wilhelm 2024, section 3). To 500 items their width
    is the quantile of the greatest deviation among `draws` of the estimates' normal distribution; beyond, Šidák's
    bound for that many intervals, which is somewhat wider; beyond 5,000, items are surely different where Šidák's
    intervals of their own do not overlap, which is wider still. Ranks count within an item's component; an item that
    is alone in its own has no estimate, and gets all ranks.
    """
    check_level(level)
    component, items = ranking.component, len(ranking.items)
    clusters = ranking.clusters if kind == "sandwich" else None
    members = np.bincount(component)
    if len(ranking.parameters) > WHOLE:
        better, worse = _apart(ranking, level, kind, clusters)
    else:
        covariance = ranking.covariance(kind)[:items, :items]
        pairs = float((members * (members - 1.0)).sum() / 2)
        if items <= SIMULATED:
            most = greatest_deviation(covariance, component, level, clusters, draws=draws, seed=seed)
        else:
            most = sidak(level, pairs, clusters)
        better, worse = _surely(ranking.strengths, covariance, component, most)
    found = np.stack([1 + better, members[component] - worse], axis=1).astype(np.int32)
    if items > 1:
        found[members[component] == 1] = 1, items
    return found


def probability_best(ranking: Fitted, kind: Kind = "fisher", *, draws: int = 10_000, seed: int = 0) -> Floats:
    """I: how often each item is the strongest of its component in `draws` of the estimates' normal distribution.

    The share's own standard error is at most 0.5 / sqrt(draws). Not a number for an item that is alone in its
    component. Raises ConfigError beyond 5,000 parameters.
    """
    if draws < 1:
        raise ConfigError(f"{draws} draws were asked for; give at least one")
    items, component = len(ranking.items), ranking.component
    root = _root(ranking.covariance(kind)[:items, :items])
    order = np.argsort(component, kind="stable")
    starts = np.searchsorted(component[order], np.arange(int(component.max()) + 1))
    generator, best = np.random.default_rng(seed), np.zeros(items)
    for start in range(0, draws, ROWS_AT_ONCE):
        drawn = root @ generator.standard_normal((items, min(ROWS_AT_ONCE, draws - start)))
        drawn += ranking.strengths[:, None]
        strongest = np.maximum.reduceat(drawn[order], starts, axis=0)
        best += (drawn == strongest[component]).sum(axis=1)
    alone = (np.bincount(component)[component] == 1) & (items > 1)
    return np.where(alone, np.nan, best / draws)


def greatest_deviation(
    covariance: Floats, component: Integers, level: float, clusters: int | None, *, draws: int, seed: int
) -> float:
    """The quantile of max |z_i - z_j| / se(z_i - z_j) over pairs of one component, z normal; by t with clusters.

    `covariance` is II.
    """
    generator, items = np.random.default_rng(seed), len(component)
    drawn = _root(covariance) @ generator.standard_normal((items, draws))
    most = np.zeros(draws)
    for item in range(items - 1):
        others = item + 1 + np.flatnonzero(component[item + 1 :] == component[item])
        if len(others):
            error = _errors(covariance, slice(item, item + 1))[0, others, None]
            most = np.maximum(most, (np.abs(drawn[others] - drawn[item]) / error).max(axis=0))
    if clusters is not None:
        free = max(clusters - 1, 1)
        most /= np.sqrt(generator.chisquare(free, draws) / free)
    return float(np.quantile(most, level, method="higher"))


def sidak(level: float, intervals: float, clusters: int | None = None) -> float:
    """Half the width, in standard errors, of that many intervals that hold at once (Šidák 1967)."""
    # 1 - level^(1 / intervals), without the rounding of a number close to one.
    outside = -np.expm1(np.log(level) / max(intervals, 1.0)) / 2
    return float(-special.ndtri(outside) if clusters is None else -special.stdtrit(max(clusters - 1, 1), outside))


def _root(covariance: Floats) -> Floats:
    """A matrix L with LL' the covariance, to a part in 1e9; strengths of mean zero make it singular."""
    ridge = 1e-9 * max(float(np.diag(covariance).mean()), 1e-300)
    try:
        root: Floats = linalg.cholesky(covariance + ridge * np.eye(len(covariance)), lower=True, check_finite=False)
    except linalg.LinAlgError:
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        root = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _errors(covariance: Floats, rows: slice) -> Floats:
    """Standard errors of the differences of some items from all; never zero, as rounding may make them."""
    diagonal = np.diag(covariance)
    variances = diagonal[rows, None] + diagonal - 2 * covariance[rows]
    floor = 1e-12 * max(float(diagonal.mean()), 1e-300)
    errors: Floats = np.sqrt(np.maximum(variances, floor))
    return errors


def _surely(strengths: Floats, covariance: Floats, component: Integers, most: float) -> tuple[Integers, Integers]:
    """I and I: how many items of its component are surely stronger, and surely weaker."""
    items = len(strengths)
    better, worse = np.zeros(items, np.int32), np.zeros(items, np.int32)
    for start in range(0, items, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        ahead = strengths[rows][:, None] - strengths[None, :]
        same = component[rows][:, None] == component[None, :]
        beyond = same & (np.abs(ahead) > most * _errors(covariance, rows))
        better[rows] = (beyond & (ahead < 0)).sum(axis=1)
        worse[rows] = (beyond & (ahead > 0)).sum(axis=1)
    return better, worse


def _apart(ranking: Fitted, level: float, kind: Kind, clusters: int | None) -> tuple[Integers, Integers]:
    """I and I: how many items of its component have simultaneous intervals wholly above and below an item's."""
    items, component = len(ranking.items), ranking.component
    half = sidak(level, float(items), clusters) * np.nan_to_num(ranking.standard_errors(kind))
    low, high = ranking.strengths - half, ranking.strengths + half
    # Intervals of different components are moved so far apart that one search serves all.
    apart = component * (2 * float(high.max() - low.min()) + 1)
    sorted_low, sorted_high = np.sort(low + apart), np.sort(high + apart)
    ends = np.cumsum(np.bincount(component))
    begins = ends - np.bincount(component)
    better = ends[component] - np.searchsorted(sorted_low, high + apart, side="right")
    worse = np.searchsorted(sorted_high, low + apart, side="left") - begins[component]
    return better.astype(np.int32), worse.astype(np.int32)
