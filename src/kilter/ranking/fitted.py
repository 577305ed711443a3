"""What can be asked of fitted strengths, whatever they were fitted to: covariances, intervals, differences, scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item, Rankings, index_of
from kilter.ranking.connectivity import Connectivity
from kilter.ranking.information import Solve, centred, solver
from kilter.ranking.newton import Likelihood, Maximum
from kilter.ranking.outcomes import OutcomeModel
from kilter.ranking.scales import Scale, scale_of
from kilter.ranking.uncertainty import (
    WHOLE,
    Estimate,
    Meat,
    covariance,
    profile_interval,
    quantile,
    rows_of_covariance,
    variances,
)

Cluster = Literal["judge", "prompt"]
Kind = Literal["fisher", "sandwich"]
Method = Literal["wald", "sandwich", "profile"]


@dataclass(frozen=True, eq=False)
class Fitted(ABC):
    """Strengths, with what is needed to say how sure they are.

    `parameters` are the log-strengths (of mean zero, in every `component`), then the extras by `extra_names`.
    `gradient_norm` is the largest slope of the log-likelihood by a log-strength at the end, in comparisons or choices,
    after `steps` Newton steps.
    """

    prior_variance: float | None
    cluster: Cluster | None
    connectivity: Connectivity
    component: Integers
    left_out: float
    """Comparisons or choices between groups, which a fit within groups does not use."""
    likelihood: Likelihood
    maximum: Maximum
    _covariances: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)
    _variances: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)

    @property
    @abstractmethod
    def data(self) -> Comparisons | Rankings:
        """What the strengths were fitted to."""

    @property
    @abstractmethod
    def extra_names(self) -> tuple[str, ...]:
        """Of `extras`."""

    @property
    @abstractmethod
    def games(self) -> Floats:
        """I: comparisons or rankings that each item took part in."""

    @property
    @abstractmethod
    def of_pairs(self) -> tuple[OutcomeModel, float]:
        """What becomes of two items by how far one is ahead, and the tie parameter."""

    @property
    @abstractmethod
    def _meat(self) -> Meat:
        """The variance of the score, as the data show it."""

    @property
    def items(self) -> tuple[Item, ...]:
        """Their names, in the order of `strengths`."""
        return self.data.items

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
    def log_likelihood(self) -> float:
        """Of the data, in nats, without the prior."""
        return self.likelihood.log_likelihood(self.parameters)

    @property
    def gradient_norm(self) -> float:
        """The largest slope that is left."""
        return self.maximum.gradient_norm

    @property
    def steps(self) -> int:
        """Newton steps."""
        return self.maximum.steps

    @cached_property
    def _solve(self) -> Solve:
        return self._solver(1e-10)

    def _solver(self, tolerance: float) -> Solve:
        return solver(self.maximum.information, self.component, self.likelihood.plan, tolerance=tolerance)

    @property
    def clusters(self) -> int | None:
        """How many judges or prompts the sandwich sums scores over; None where each comparison or ranking is alone."""
        cluster = clusters_of(self.data, self.cluster)
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

        meat = self._meat if kind == "sandwich" else None
        return rows_of_covariance(self._solve, self.component, centred(contrast[:, None], self.component), meat)[:, 0]

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
                "the fit is within groups, each with strengths of mean 0: an anchor or odds that add up to 1 would "
                "compare groups that the data do not connect; use the log or elo scale without an anchor"
            )

    def contrast(self, a: Item, b: Item) -> Floats:
        """p: what `parameters` are multiplied by for the lead of `a` over `b`; raises DataError if unconnected."""
        left, right = self._places([a, b])
        contrast = np.zeros(len(self.parameters))
        contrast[left] += 1
        contrast[right] -= 1
        return contrast

    def _places(self, items: Sequence[Item]) -> list[int]:
        """Where items of one component stand; raises DataError for one unknown, or of another."""
        places = [index_of(item, self.items) for item in items]
        if len(apart := np.unique(self.component[places], return_index=True)[1]) > 1:
            one, other = (items[index] for index in sorted(apart)[:2])
            raise DataError(
                f"{one!r} and {other!r} are in groups that the data do not connect: nothing is known of how they "
                "compare; fit with a prior (prior_variance), or compare more"
            )
        return places

    def _profile(self, contrast: Floats, level: float) -> tuple[float, float]:
        return profile_interval(
            contrast,
            self._towards(contrast),
            level,
            likelihood=self.likelihood,
            best=self.parameters,
            highest=self.maximum.objective,
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


def clusters_of(data: Comparisons | Rankings, cluster: Cluster | None) -> Integers | None:
    """R or Q: the judge or prompt of each comparison or ranking, numbered from 0; raises DataError if none is named."""
    if cluster is None:
        return None
    labels = data.judge if cluster == "judge" else data.prompt
    if labels is None:
        raise DataError(f"cluster={cluster!r} was asked for, and the data name no {cluster}; say which column is")
    if np.ptp(labels) == 0:
        raise DataError(
            f"cluster={cluster!r} was asked for, and there is one {cluster} only: nothing shows how {cluster}s vary; "
            "leave it out"
        )
    numbered: Integers = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    return numbered


def chosen_cluster(data: Comparisons | Rankings, cluster: Cluster | None) -> Cluster | None:
    """What the sandwich sums over: what was asked for, which must be there; else judges, or prompts, if several are."""
    clusters_of(data, cluster)
    if cluster is not None:
        return cluster
    return "judge" if several(data.judge) else "prompt" if several(data.prompt) else None


def several(labels: NDArray[np.int32] | NDArray[np.int64] | None) -> bool:
    """Whether there are two judges or prompts at least: from one nothing is seen of how they vary."""
    return labels is not None and bool(labels.min() != labels.max())
