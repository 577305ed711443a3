"""Strengths from rankings: full, partial, top-k and tied, by maximum likelihood.

Axes: I items, p parameters (log-strengths, then log delta for every order of tie), C components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from kilter.errors import DataError, NonFiniteError
from kilter.ranking.bradley_terry import PRIOR_VARIANCE, Disconnected, check_settings
from kilter.ranking.choices import Block, Choices, Stages, choices_of, scores, stages_of
from kilter.ranking.comparisons import Floats, Item, Rankings
from kilter.ranking.connectivity import Connectivity, UnidentifiedError, connectivity_of_rankings
from kilter.ranking.fitted import Cluster, Fitted, Kind, check_level, chosen_cluster, clusters_of
from kilter.ranking.newton import NotConvergedError, maximize
from kilter.ranking.outcomes import OUTCOMES, OutcomeModel
from kilter.ranking.uncertainty import Estimate, Meat


class RankingsPrediction(NamedTuple):
    """What is to be expected of some items: who comes first alone, that several share it, and the order as given."""

    first: tuple[Estimate, ...]
    shared: float
    order: Estimate


@dataclass(frozen=True, eq=False)
class RankingsFit(Fitted):
    """Strengths fitted to rankings; the extras are log delta for each of `tie_orders`."""

    likelihood: Choices
    rankings: Rankings

    @property
    def data(self) -> Rankings:
        """The rankings that were used."""
        return self.rankings

    @property
    def tie_orders(self) -> tuple[int, ...]:
        """Sizes of the ties that occurred."""
        return self.likelihood.orders

    @property
    def tie_parameters(self) -> Floats:
        """Log delta of each order: 0 says that equal items tie as often as one of them is chosen."""
        return self.extras

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Of `extras`."""
        return tuple(f"ties of {order}" for order in self.tie_orders)

    @property
    def games(self) -> Floats:
        """I: rankings that each item is in."""
        of = self.rankings
        return np.bincount(of.item, of.count[of.ranking], len(self.items)).astype(np.float64)

    @property
    def of_pairs(self) -> tuple[OutcomeModel, float]:
        """Davidson's model if ties of two items occurred, else Bradley-Terry's."""
        if 2 in self.tie_orders:
            return OUTCOMES["davidson"], float(self.tie_parameters[self.tie_orders.index(2)])
        return OUTCOMES["none"], 0.0

    @cached_property
    def _meat(self) -> Meat:
        of, cluster = self.rankings, clusters_of(self.rankings, self.cluster)
        score = scores(of, self.tie_orders, self.parameters)
        if cluster is None:
            # What was fitted took its part of every choice, of which a ranking may be several.
            free, made = len(self.parameters) - 1, self.likelihood.games
            return Meat(sparse.diags_array(np.sqrt(of.count) * of.weight) @ score, made / max(made - free, 1))
        times, clusters = of.count * of.weight, int(cluster.max()) + 1
        sums = sparse.coo_array((times, (cluster, np.arange(len(times)))), shape=(clusters, len(times))).tocsr()
        return Meat(sums @ score, clusters / max(clusters - 1, 1))

    def predict(self, items: Sequence[Item], *, level: float = 0.95, kind: Kind = "fisher") -> RankingsPrediction:
        """The probability that each of some items comes first alone among them, and that they come in this order.

        `shared` is the probability that several tie for the first place. Intervals are Wald's on the log-odds.
        Raises DataError for fewer than two items, one named twice, or items of two groups.
        """
        check_level(level)
        places = self._places(items)
        if len(set(places)) != len(places) or len(places) < 2:
            raise DataError(f"a prediction is about two different items or more; got {', '.join(map(str, items))}")
        item = np.array(places, np.int32)[:, None]
        only_first, but_last = np.zeros(item.shape), np.ones(item.shape)
        only_first[0], but_last[-1] = 1, 0
        log_first, first_slopes = self._log_probability(Block(item, only_first, np.zeros(1, np.int32)))
        log_order, order_slopes = self._log_probability(Block(item, but_last, np.zeros(1, np.int32)))
        chosen = np.zeros((len(places), len(self.parameters)))
        chosen[np.arange(len(places)), places] = 1
        log_chosen = self.strengths[places] + log_first
        first = [
            self._estimate(float(log), slope + first_slopes, level, kind)
            for log, slope in zip(log_chosen, chosen, strict=True)
        ]
        log_sorted = float(self.strengths[places[:-1]].sum() + log_order)
        order = self._estimate(log_sorted, chosen[:-1].sum(axis=0) + order_slopes, level, kind)
        shared = max(0.0, 1 - sum(one.value for one in first)) if self.tie_orders else 0.0
        return RankingsPrediction(tuple(first), shared, order)

    def _log_probability(self, block: Block) -> tuple[float, Floats]:
        """Minus the log-denominators of one ranking, as its block weighs them, and their gradient."""
        moments = self.likelihood.moments(block, self.parameters)
        slopes = np.zeros(len(self.parameters))
        np.add.at(slopes, block.item.ravel(), -moments.expected.ravel())
        slopes[len(self.items) :] = -moments.ties.sum(axis=1)
        return -float(np.sum(block.weight * moments.log_total)), slopes

    def _estimate(self, log_probability: float, slopes: Floats, level: float, kind: Kind) -> Estimate:
        # The log-odds log p - log(1 - p) move by 1 / (1 - p) of what log p does.
        beside = float(-np.expm1(log_probability))
        odds = float(log_probability - np.log(beside))
        error = float(np.sqrt(self.variance(slopes / beside, kind)))
        half = self._quantile(level, kind) * error
        low, high = special.expit([odds - half, odds + half])
        return Estimate(float(np.exp(log_probability)), float(low), float(high), error)


def fit_rankings(
    rankings: Rankings,
    *,
    prior_variance: float | None = None,
    disconnected: Disconnected = "refuse",
    cluster: Cluster | None = None,
) -> RankingsFit:
    """Maximum-likelihood strengths by damped Newton steps; see `kilter.ranking.fit` for the settings.

    An UNRANKED item was there for every choice of its ranking. Where groups are ranked `within` themselves, each
    ranking speaks of the items of one group at a time.
    Raises UnidentifiedError with the groups, DataError where ties leave no other outcome, NotConvergedError.
    """
    check_settings(prior_variance, disconnected)
    stages = stages_of(rankings)
    found = connectivity_of_rankings(rankings.items, stages)
    component, used = np.zeros(len(rankings.items), np.int32), rankings
    if not found.identified and prior_variance is None:
        if disconnected == "refuse":
            raise UnidentifiedError(found)
        if disconnected == "prior":
            prior_variance = PRIOR_VARIANCE
        else:
            component, used = found.group, _within(rankings, found)
    choices_made = float(rankings.count[stages.ranking[stages.begins]].sum())
    if used is not rankings:
        stages = stages_of(used)
    _check_ties(stages)
    cluster = chosen_cluster(used, cluster)
    choices = choices_of(used, stages)
    try:
        best = maximize(choices, component=component, prior_variance=prior_variance)
    except (NotConvergedError, NonFiniteError) as error:
        if not choices.orders:
            raise
        raise NotConvergedError(
            "no maximum was reached: an estimate probably lies at infinity, because ties and strengths together "
            "explain who never lost; break the ties, or give a prior (prior_variance) on the strengths",
            getattr(error, "parameters", choices.start),
        ) from error
    return RankingsFit(
        prior_variance=prior_variance,
        cluster=cluster,
        connectivity=found,
        component=component,
        left_out=choices_made - choices.games,
        likelihood=choices,
        maximum=best,
        rankings=used,
    )


def _within(rankings: Rankings, found: Connectivity) -> Rankings:
    """What each ranking says of the items of one group, as a ranking of its own; raises UnidentifiedError."""
    key = rankings.ranking * (np.int64(found.group.max()) + 1) + found.group[rankings.item]
    order = np.argsort(key, kind="stable")
    _, part, entries = np.unique(key[order], return_inverse=True, return_counts=True)
    placed = np.bincount(part, rankings.place[order] > 0)
    kept = ((entries > 1) & (placed > 0))[part]
    if not kept.any():
        raise UnidentifiedError(found)
    order, part = order[kept], part[kept]
    return rankings.of_entries(order, np.unique(part, return_inverse=True)[1].astype(np.int32))


def _check_ties(stages: Stages) -> None:
    """Raises DataError where every choice that could have been a tie was one, so that nothing limits delta."""
    size, left = stages.size[stages.begins], stages.left[stages.begins]
    limited = {1}
    orders = set(size.tolist())
    while more := {order for order in orders - limited if np.any(np.isin(size, list(limited)) & (left >= order))}:
        limited |= more
    if unlimited := orders - limited:
        raise DataError(
            f"wherever {min(unlimited)} items could have tied they did, so that nothing says how often they do not; "
            "add rankings without such ties, or break them"
        )
