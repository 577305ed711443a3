"""Strengths from comparisons: one likelihood with parts that switch on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy import special

from kilter.errors import ConfigError, DataError, NonFiniteError
from kilter.ranking.comparisons import Comparisons, Floats, Item
from kilter.ranking.connectivity import UnidentifiedError, connectivity
from kilter.ranking.fitted import Cluster, Fitted, Kind, check_level, chosen_cluster, clusters_of
from kilter.ranking.information import Banded, Bordered
from kilter.ranking.likelihood import OfComparisons, Totals, rows_of, totals_of
from kilter.ranking.newton import NotConvergedError, maximize
from kilter.ranking.outcomes import OUTCOMES, OutcomeModel
from kilter.ranking.separation import check_determined, check_finite, explained
from kilter.ranking.uncertainty import Estimate, Meat, banded_variances, meat_of

Ties = Literal["none", "half", "davidson", "rao-kupper"]
Disconnected = Literal["refuse", "within", "prior"]

# Log-odds between two items have a standard deviation of 1.4 beforehand: 2 to 1 is common, 50 to 1 is not.
PRIOR_VARIANCE = 1.0


class Prediction(NamedTuple):
    """The probabilities of a comparison's outcomes, each with its interval."""

    left_wins: Estimate
    tie: Estimate
    right_wins: Estimate


@dataclass(frozen=True, eq=False)
class Ranking(Fitted):
    """Strengths fitted to comparisons; the extras are the order effect, covariates and the tie parameter."""

    likelihood: OfComparisons
    comparisons: Comparisons
    ties: Ties
    order_effect: bool

    @property
    def data(self) -> Comparisons:
        """The comparisons that were used."""
        return self.comparisons

    @property
    def totals(self) -> Totals:
        """What was added up of the comparisons."""
        return self.likelihood.totals

    @property
    def model(self) -> OutcomeModel:
        """What the advantage says about outcomes."""
        return self.likelihood.model

    @property
    def of_pairs(self) -> tuple[OutcomeModel, float]:
        """The model of outcomes and its tie parameter."""
        return self.model, float(self.parameters[-1])

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Of `extras`."""
        order, tie = ("order",) * self.order_effect, ("ties",) * self.model.has_ties
        return (*order, *self.comparisons.covariate_names, *tie)

    @property
    def games(self) -> Floats:
        """I: comparisons that each item took part in."""
        of = self.comparisons
        both = np.concatenate([of.left, of.right])
        return np.bincount(both, np.concatenate([of.count, of.count]), len(of.items)).astype(np.float64)

    @property
    def wins(self) -> Floats:
        """I: comparisons that each item won; a tie is half, a grade its part."""
        of = self.comparisons
        both, won = np.concatenate([of.left, of.right]), np.concatenate([of.outcome, 1 - of.outcome])
        return np.bincount(both, np.concatenate([of.count, of.count]) * won, len(of.items)).astype(np.float64)

    @cached_property
    def _meat(self) -> Meat:
        ones = np.ones_like(self.comparisons.count)
        single = replace(self.comparisons, count=ones, weight=ones)
        rows = rows_of(single, order_effect=self.order_effect, ties=self.ties)
        return meat_of(self.parameters, self.comparisons, rows, self.model, clusters_of(self.comparisons, self.cluster))

    def _many_variances(self, kind: Kind) -> Floats:
        information, plan = self.maximum.information, self.likelihood.plan
        apart = self.component.any() and len(self.extras)
        if isinstance(information, Bordered) and plan is not None and kind == "fisher" and not apart:
            return banded_variances(Banded(information, self.component, plan), self.component)
        return super()._many_variances(kind)

    def predict(
        self,
        a: Item,
        b: Item,
        covariates: Mapping[str, float] | Sequence[float] | None = None,
        *,
        order_effect: bool = True,
        level: float = 0.95,
        kind: Kind = "fisher",
    ) -> Prediction:
        """The probabilities that `a` (left, or at home) wins, ties or loses against `b`, each with its interval.

        `covariates` count for `a`, and are 0 where they are not given; `order_effect=False` asks of neutral ground.
        Intervals are Wald's on the log-odds of each outcome, so they stay between 0 and 1.
        """
        check_level(level)
        contrast = self.contrast(a, b)
        items = len(self.items)
        if self.order_effect and order_effect:
            contrast[items] = 1
        first = items + int(self.order_effect)
        contrast[first : first + len(self.comparisons.covariate_names)] = self._covariates(covariates)
        ahead = np.array([float(contrast @ self.parameters)])
        logs = self.model.log_probabilities(ahead, self.parameters[-1])[:, 0]
        by = self.model.derivatives(ahead, self.parameters[-1], np.ones((3, 1)))
        half = self._quantile(level, kind)
        told = []
        for outcome, log_probability in enumerate(logs):
            if outcome == 1 and not self.model.has_ties:
                told.append(Estimate(0.0, 0.0, 0.0, 0.0))
                continue
            others = [other for other in (0, 1, 2) if other != outcome and (other != 1 or self.model.has_ties)]
            log_rest = float(np.logaddexp.reduce(logs[others]))
            odds = log_probability - log_rest
            # How the log-odds move: as the outcome's log-probability does, less the average of the others'.
            share = np.exp(logs[others] - log_rest)
            direction = (by.advantage[outcome, 0] - share @ by.advantage[others, 0]) * contrast
            if self.model.has_ties:
                direction[-1] += by.tie[outcome, 0] - share @ by.tie[others, 0]
            error = float(np.sqrt(self.variance(direction, kind)))
            ends = special.expit([odds - half * error, odds + half * error])
            told.append(Estimate(float(np.exp(log_probability)), float(ends[0]), float(ends[1]), error))
        return Prediction(*told)

    def _covariates(self, given: Mapping[str, float] | Sequence[float] | None) -> Floats:
        names = self.comparisons.covariate_names
        if given is None:
            return np.zeros(len(names))
        if isinstance(given, Mapping):
            if unknown := set(given) - set(names):
                raise DataError(f"there is no covariate {min(unknown)!r}; there are: {', '.join(names) or 'none'}")
            return np.array([given.get(name, 0.0) for name in names])
        if len(given) != len(names):
            raise DataError(f"{len(given)} covariates were given; the fit has {len(names)}: {', '.join(names)}")
        return np.asarray(given, np.float64)


def fit_comparisons(
    comparisons: Comparisons,
    *,
    ties: Ties | None = None,
    order_effect: bool = False,
    prior_variance: float | None = None,
    disconnected: Disconnected = "refuse",
    cluster: Cluster | None = None,
) -> Ranking:
    """Maximum-likelihood strengths, by damped Newton steps; see `kilter.ranking.fit` for the settings."""
    ties = ties_of(comparisons, ties)
    check_settings(prior_variance, disconnected)
    found = connectivity(comparisons)
    component = np.zeros(len(comparisons.items), np.int32)
    used, left_out = comparisons, 0.0
    if not found.identified and prior_variance is None:
        if disconnected == "refuse":
            raise UnidentifiedError(found)
        if disconnected == "prior":
            prior_variance = PRIOR_VARIANCE
        else:
            component = found.group
            inside = component[comparisons.left] == component[comparisons.right]
            if not inside.any():
                raise UnidentifiedError(found)
            used = comparisons.of_rows(inside)
            left_out = comparisons.games - used.games
    cluster = chosen_cluster(used, cluster)
    likelihood = OfComparisons(totals_of(used, order_effect=order_effect, ties=ties), OUTCOMES[ties])
    check_determined(likelihood, component, used.covariate_names, order_effect, prior_variance)
    try:
        best = maximize(likelihood, component=component, prior_variance=prior_variance)
        check_finite(best, likelihood, component)
    except (NotConvergedError, NonFiniteError) as error:
        raise explained(error, likelihood, used, order_effect, prior_variance) from error
    return Ranking(
        prior_variance=prior_variance,
        cluster=cluster,
        connectivity=found,
        component=component,
        left_out=left_out,
        maximum=best,
        comparisons=used,
        ties=ties,
        order_effect=order_effect,
        likelihood=likelihood,
    )


def ties_of(comparisons: Comparisons, ties: Ties | None) -> Ties:
    """The model of ties: what was asked for, if outcomes allow it; else Davidson's for ties without grades."""
    if ties is not None and ties not in get_args(Ties):
        raise ConfigError(f"there is no model of ties {ties!r}; there are {', '.join(get_args(Ties))}")
    if ties is None:
        return "half" if comparisons.graded else "davidson" if comparisons.tied else "none"
    if ties == "none" and (comparisons.tied or comparisons.graded):
        raise DataError(
            f"ties='none' was asked for, and {comparisons.tied:,.0f} comparisons are ties"
            f"{' and others are graded' if comparisons.graded else ''}; choose davidson, rao-kupper or half"
        )
    if ties in ("davidson", "rao-kupper"):
        if comparisons.graded:
            raise DataError(
                f"ties='{ties}' is for wins, losses and ties, and some outcomes are grades between; use ties='half', "
                "which counts a grade of 0.7 as 0.7 of a win, or round the grades"
            )
        if not comparisons.tied:
            return "none"
        if not np.any((comparisons.outcome == 0) | (comparisons.outcome == 1)):
            raise DataError("all comparisons are ties: nothing says who is stronger, or how often ties are")
    return ties


def check_settings(prior_variance: float | None, disconnected: str) -> None:
    """Raises ConfigError where a setting is impossible."""
    if prior_variance is not None and not (0 < prior_variance < np.inf):
        raise ConfigError(f"prior_variance is {prior_variance}; give a positive number, as 1.0, or none")
    if disconnected not in get_args(Disconnected):
        raise ConfigError(f"disconnected is {disconnected!r}; it can be {', '.join(get_args(Disconnected))}")
