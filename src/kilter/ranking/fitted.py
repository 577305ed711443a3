"""What can be asked of fitted strengths: covariances, intervals, differences, predictions, scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy import special

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item
from kilter.ranking.connectivity import Connectivity
from kilter.ranking.information import DENSE, Banded, Solve, centred, plan_of, solver
from kilter.ranking.likelihood import Totals, log_likelihood, rows_of
from kilter.ranking.newton import Maximum
from kilter.ranking.outcomes import OUTCOMES, OutcomeModel
from kilter.ranking.scales import Scale, scale_of
from kilter.ranking.uncertainty import (
    WHOLE,
    Estimate,
    Meat,
    banded_variances,
    covariance,
    meat_of,
    profile_interval,
    quantile,
    variances,
)

Cluster = Literal["judge", "prompt"]
Kind = Literal["fisher", "sandwich"]
Method = Literal["wald", "sandwich", "profile"]


class Prediction(NamedTuple):
    """The probabilities of a comparison's outcomes, each with its interval."""

    left_wins: Estimate
    tie: Estimate
    right_wins: Estimate


@dataclass(frozen=True, eq=False)
class Ranking:
    """Strengths fitted to comparisons, with what is needed to say how sure they are.

    `parameters` are the log-strengths (of mean zero, in every `component`), then the extras by `extra_names`: the order
    effect, covariates, the tie parameter. `gradient_norm` is the largest slope of the log-likelihood by a log-strength
    at the end, in comparisons, after `steps` Newton steps.
    """

    comparisons: Comparisons
    ties: str
    order_effect: bool
    prior_variance: float | None
    cluster: Cluster | None
    connectivity: Connectivity
    component: Integers
    left_out: float
    """Comparisons between groups, which a ranking within groups does not use."""
    totals: Totals
    maximum: Maximum
    _covariances: dict[str, Floats] = field(default_factory=dict, repr=False)
    _variances: dict[str, Floats] = field(default_factory=dict, repr=False)

    @property
    def items(self) -> tuple[Item, ...]:
        """Their names, in the order of `strengths`."""
        return self.comparisons.items

    @property
    def parameters(self) -> Floats:
        """p."""
        return self.maximum.parameters

    @property
    def strengths(self) -> Floats:
        """I: log-strengths."""
        return self.parameters[: len(self.items)]

    @property
    def extras(self) -> Floats:
        """What follows the strengths."""
        return self.parameters[len(self.items) :]

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Of `extras`."""
        order, tie = ("order",) * self.order_effect, ("ties",) * self.model.has_ties
        return (*order, *self.comparisons.covariate_names, *tie)

    @property
    def model(self) -> OutcomeModel:
        """What the advantage says about outcomes."""
        return OUTCOMES[self.ties]

    @property
    def log_likelihood(self) -> float:
        """Of the comparisons, in nats, without the prior."""
        return log_likelihood(self.parameters, self.totals, self.model)

    @property
    def gradient_norm(self) -> float:
        """The largest slope that is left, in comparisons."""
        return self.maximum.gradient_norm

    @property
    def steps(self) -> int:
        """Newton steps."""
        return self.maximum.steps

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
    def _solve(self) -> Solve:
        return self._solver(1e-10)

    def _solver(self, tolerance: float) -> Solve:
        totals = self.totals
        plan = plan_of(totals.items, totals.left, totals.right) if len(self.parameters) > DENSE else None
        return solver(self.maximum.information, self.component, plan, tolerance=tolerance)

    @cached_property
    def _meat(self) -> Meat:
        ones = np.ones_like(self.comparisons.count)
        single = replace(self.comparisons, count=ones, weight=ones)
        rows = rows_of(single, order_effect=self.order_effect, ties=self.ties)
        return meat_of(self.parameters, self.comparisons, rows, self.model, clusters_of(self.comparisons, self.cluster))

    @property
    def clusters(self) -> int | None:
        """How many judges or prompts the sandwich sums scores over; None where comparisons stand alone."""
        cluster = clusters_of(self.comparisons, self.cluster)
        return None if cluster is None else int(cluster.max()) + 1

    def covariance(self, kind: Kind = "fisher") -> Floats:
        """pp, of log-strengths of mean zero and the extras: the inverse information, or the sandwich.

        The sandwich holds where the model does not, and is summed over judges or prompts where `cluster` names them.
        Raises ConfigError beyond 5,000 parameters.
        """
        if len(self.parameters) > WHOLE:
            raise ConfigError(
                f"a covariance of {len(self.parameters):,} parameters would be a matrix of "
                f"{8 * len(self.parameters) ** 2 / 2**30:.1f} GiB; ask for standard_errors, difference or predict"
            )
        if kind not in self._covariances:
            meat = self._meat if kind == "sandwich" else None
            self._covariances[kind] = covariance(self.maximum.information, self.component, meat)
        return self._covariances[kind]

    def variance(self, contrast: Floats, kind: Kind = "fisher") -> float:
        """Of a combination of parameters; the strengths' coefficients add up to zero."""
        return max(float(contrast @ self._towards(contrast, kind)), 0.0)

    def _towards(self, contrast: Floats, kind: Kind = "fisher") -> Floats:
        """p: the covariance times a combination of parameters."""
        if len(self.parameters) <= WHOLE:
            return self.covariance(kind) @ contrast

        def solve(vectors: Floats) -> Floats:
            return centred(self._solve(centred(vectors, self.component)), self.component)

        solved = solve(contrast[:, None])
        return (solved if kind == "fisher" else solve(self._meat @ solved))[:, 0]

    def standard_errors(self, kind: Kind = "fisher", reference: Floats | None = None) -> Floats:
        """I: of log-strengths relative to their mean, or to another average whose weights are `reference`.

        Beyond 5,000 items they are exact where the items have an order, as on a ladder; else estimated by random
        probes, to one or two per cent.
        """
        items = len(self.items)
        variances = self._diagonal(kind)
        if reference is not None:
            weights = np.concatenate([reference, np.zeros(len(self.parameters) - items)])
            towards = self._towards(weights, kind)
            variances = variances - 2 * towards[:items] + weights @ towards
        alone = np.bincount(self.component)[self.component] == 1
        return np.where(alone & (len(self.items) > 1), np.nan, np.sqrt(np.maximum(variances, 0)))

    def _diagonal(self, kind: Kind) -> Floats:
        if len(self.parameters) <= WHOLE:
            return np.diag(self.covariance(kind))[: len(self.items)]
        if kind not in self._variances:
            self._variances[kind] = self._many_variances(kind)
        return self._variances[kind]

    def _many_variances(self, kind: Kind) -> Floats:
        plan = plan_of(self.totals.items, self.totals.left, self.totals.right)
        if plan is not None and kind == "fisher" and not (self.component.any() and len(self.extras)):
            return banded_variances(Banded(self.maximum.information, self.component, plan), self.component)
        meat = self._meat if kind == "sandwich" else None
        # A tolerance that is far below the error of the probes.
        return variances(self._solver(1e-3), self.component, len(self.parameters), meat)

    def intervals(self, level: float = 0.95, method: Method = "wald", reference: Floats | None = None) -> Floats:
        """I2: of log-strengths relative to their mean, or to the average whose weights are `reference`.

        `wald` is estimate and standard error, `sandwich` the same with a covariance that needs no true model, `profile`
        by likelihood ratio: the best with few comparisons, and the slowest.
        """
        check_level(level)
        items = len(self.items)
        weights = np.bincount(self.component)[self.component]
        if method != "profile":
            kind = kind_of(method)
            half = self._quantile(level, kind) * self.standard_errors(kind, reference)
            centre = self.strengths - (0.0 if reference is None else float(reference @ self.strengths))
            return np.stack([centre - half, centre + half], axis=1)
        ends = np.empty((items, 2))
        for item in range(items):
            contrast = np.zeros(len(self.parameters))
            same = self.component == self.component[item]
            contrast[:items] = -(same / weights[item]) if reference is None else -reference
            contrast[item] += 1
            ends[item] = self._profile(contrast, level) if np.any(contrast[:items]) else 0.0
        ends[(weights == 1) & (items > 1)] = np.nan
        return ends

    def difference(self, a: Item, b: Item, level: float = 0.95, method: Method = "wald") -> Estimate:
        """How far `a` is ahead of `b`, in log-odds; raises DataError where nothing connects them."""
        check_level(level)
        contrast = self.contrast(a, b)
        value = float(contrast @ self.parameters)
        kind = kind_of(method)
        error = float(np.sqrt(self.variance(contrast, kind)))
        if method == "profile" and np.any(contrast):
            return Estimate(value, *self._profile(contrast, level), error)
        half = self._quantile(level, kind) * error
        return Estimate(value, value - half, value + half, error)

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

    def told_on(
        self, scale: str = "log", anchor: tuple[Item, float] | None = None, level: float = 0.95, method: Method = "wald"
    ) -> Floats:
        """I3: strength, low and high on a scale: log, elo or odds, with one item at a value if `anchor` says so."""
        on = scale_of(scale, anchor)
        self._one_component(on)
        origin = on.origin(self.strengths, self.items)
        reference = on.reference(self.strengths, self.items) if (anchor or scale == "odds") else None
        if reference is not None and anchor is None and method == "profile":
            raise ConfigError("profile intervals need a scale fixed at an item or at the mean; give odds an anchor")
        ends = self.intervals(level, method, reference)
        centre = 0.0 if reference is None else float(reference @ self.strengths)
        # Intervals are of strengths less the reference; the scale's origin lies elsewhere by a constant.
        return np.column_stack([on.of(self.strengths, origin), *(on.of(end + centre, origin) for end in ends.T)])

    def _one_component(self, scale: Scale) -> None:
        if self.component.any() and (scale.anchor is not None or scale.name == "odds"):
            raise ConfigError(
                "the ranking is within groups, each with strengths of mean 0: an anchor or odds that add up to 1 would "
                "compare groups that were not compared; use the log or elo scale without an anchor"
            )

    def contrast(self, a: Item, b: Item) -> Floats:
        """p: what `parameters` are multiplied by for the lead of `a` over `b`; raises DataError if unconnected."""
        left, right = self.comparisons.index(a), self.comparisons.index(b)
        if self.component[left] != self.component[right]:
            raise DataError(
                f"{a!r} and {b!r} are in groups that the comparisons do not connect: nothing is known of how they "
                "compare; fit with a prior (prior_variance), or compare more"
            )
        contrast = np.zeros(len(self.parameters))
        contrast[left] += 1
        contrast[right] -= 1
        return contrast

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

    def _profile(self, contrast: Floats, level: float) -> tuple[float, float]:
        return profile_interval(
            contrast,
            self._towards(contrast),
            level,
            totals=self.totals,
            model=self.model,
            best=self.parameters,
            log_likelihood=self.maximum.log_likelihood,
            component=self.component,
            prior_variance=self.prior_variance,
        )

    def _quantile(self, level: float, kind: Kind) -> float:
        return quantile(level, self.clusters if kind == "sandwich" else None)


def check_level(level: float) -> None:
    """Raises ConfigError where an interval cannot have that level."""
    if not 0 < level < 1:
        raise ConfigError(f"an interval's level is {level}; give a share between 0 and 1, as 0.95")


def kind_of(method: Method) -> Kind:
    """The covariance that a method of intervals goes by."""
    if method not in get_args(Method):
        raise ConfigError(f"there are no intervals {method!r}; there are {', '.join(get_args(Method))}")
    return "sandwich" if method == "sandwich" else "fisher"


def clusters_of(comparisons: Comparisons, cluster: Cluster | None) -> Integers | None:
    """R: the judge or prompt of each comparison, numbered from 0; raises DataError where none is named."""
    if cluster is None:
        return None
    labels = comparisons.judge if cluster == "judge" else comparisons.prompt
    if labels is None:
        raise DataError(
            f"cluster={cluster!r} was asked for, and the comparisons name no {cluster}; say which column is"
        )
    if np.ptp(labels) == 0:
        raise DataError(
            f"cluster={cluster!r} was asked for, and there is one {cluster} only: nothing shows how {cluster}s vary; "
            "leave it out"
        )
    numbered: Integers = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    return numbered
