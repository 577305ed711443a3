"""Strengths from rankings: full, partial, top-k and tied, by maximum likelihood.

Axes: I items, p parameters (log-strengths, then log delta for every order of tie), C components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from kilter.errors import ConfigError, DataError
from kilter.ranking.bradley_terry import PRIOR_VARIANCE, check_settings
from kilter.ranking.choices import Block, Choices, Stages, choices_of, stages_of
from kilter.ranking.comparisons import Floats, Integers, Item, Rankings, index_of
from kilter.ranking.connectivity import Connectivity, UnidentifiedError, connectivity_of
from kilter.ranking.fitted import check_level
from kilter.ranking.information import centred
from kilter.ranking.newton import MOST_STEPS, SMALL_STEP, NotConvergedError
from kilter.ranking.scales import scale_of
from kilter.ranking.uncertainty import WHOLE, Estimate, quantile

# Up to this many parameters Newton's steps solve with the whole matrix; beyond, by conjugate gradients.
DENSE = 3000


class RankingsPrediction(NamedTuple):
    """What is to be expected of some items: who comes first alone, that several share it, and the order as given."""

    first: tuple[Estimate, ...]
    shared: float
    order: Estimate


@dataclass(frozen=True, eq=False)
class RankingsFit:
    """Strengths fitted to rankings, with what is needed to say how sure they are.

    `parameters` are the log-strengths, of mean zero in every `component`, then log delta for each of `tie_orders`.
    `gradient_norm` is the largest slope of the log-likelihood by a log-strength at the end, in choices.
    """

    rankings: Rankings
    prior_variance: float | None
    connectivity: Connectivity
    component: Integers
    left_out: float
    """Choices between groups, which a fit within groups does not use."""
    choices: Choices
    parameters: Floats
    log_likelihood: float
    """Of the rankings, in nats, without the prior."""
    gradient_norm: float
    steps: int

    @property
    def items(self) -> tuple[Item, ...]:
        """Their names, in the order of `strengths`."""
        return self.rankings.items

    @property
    def strengths(self) -> Floats:
        """I: log-strengths."""
        return self.parameters[: len(self.items)]

    @property
    def tie_orders(self) -> tuple[int, ...]:
        """Sizes of the ties that occurred."""
        return self.choices.orders

    @property
    def tie_parameters(self) -> Floats:
        """Log delta of each order: 0 says that equal items tie as often as one of them is chosen."""
        return self.parameters[len(self.items) :]

    @cached_property
    def _covariance(self) -> Floats:
        return _covariance(self.choices.information(self.parameters), self.component, _precision(self.prior_variance))

    def covariance(self) -> Floats:
        """pp, of log-strengths relative to their component's mean, and tie parameters: the inverse information.

        Raises ConfigError beyond 5,000 parameters.
        """
        if len(self.parameters) > WHOLE:
            raise ConfigError(
                f"a covariance of {len(self.parameters):,} parameters would be a matrix of "
                f"{8 * len(self.parameters) ** 2 / 2**30:.1f} GiB; ask for difference or predict"
            )
        return self._covariance

    def standard_errors(self, reference: Floats | None = None) -> Floats:
        """I: of log-strengths relative to their component's mean, or to the average whose weights are `reference`.

        Not a number for an item alone in its component. Raises ConfigError beyond 5,000 parameters.
        """
        items = len(self.items)
        whole = self.covariance()[:items, :items]
        variances = np.diag(whole)
        if reference is not None:
            variances = variances - 2 * whole @ reference + reference @ whole @ reference
        alone = np.bincount(self.component)[self.component] == 1
        return np.where(alone, np.nan, np.sqrt(np.maximum(variances, 0)))

    def intervals(self, level: float = 0.95, reference: Floats | None = None) -> Floats:
        """I2: Wald's, of log-strengths relative to their mean, or to the average whose weights are `reference`."""
        check_level(level)
        half = quantile(level) * self.standard_errors(reference)
        centre = self.strengths - (0.0 if reference is None else float(reference @ self.strengths))
        return np.stack([centre - half, centre + half], axis=1)

    def told_on(self, scale: str = "log", anchor: tuple[Item, float] | None = None, level: float = 0.95) -> Floats:
        """I3: strength, low and high on a scale: `log`, `elo` or `odds`, with one item's value fixed if `anchor` does.

        Raises ConfigError where components that no ranking connects would be put on one scale.
        """
        on = scale_of(scale, anchor)
        if self.component.any() and (anchor is not None or scale == "odds"):
            raise ConfigError(
                "the fit is within groups, each with strengths of mean 0: an anchor or odds that add up to 1 would "
                "compare groups that the rankings do not connect; use the log or elo scale without an anchor"
            )
        reference = on.reference(self.strengths, self.items) if (anchor or scale == "odds") else None
        origin = on.origin(self.strengths, self.items)
        ends = self.intervals(level, reference) + (0.0 if reference is None else float(reference @ self.strengths))
        return np.column_stack([on.of(self.strengths, origin), *(on.of(end, origin) for end in ends.T)])

    def difference(self, a: Item, b: Item, level: float = 0.95) -> Estimate:
        """How far `a` is ahead of `b`, in log-odds; raises DataError for no item, or one of another group."""
        check_level(level)
        left, right = self._places([a, b])
        contrast = np.zeros(len(self.parameters))
        contrast[left] += 1
        contrast[right] -= 1
        value, error = float(contrast @ self.parameters), self._standard_error(contrast)
        half = quantile(level) * error
        return Estimate(value, value - half, value + half, error)

    def predict(self, items: Sequence[Item], level: float = 0.95) -> RankingsPrediction:
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
        log_first, first_slopes = self._log_probability(Block(item, only_first))
        log_order, order_slopes = self._log_probability(Block(item, but_last))
        chosen = np.zeros((len(places), len(self.parameters)))
        chosen[np.arange(len(places)), places] = 1
        log_chosen = self.strengths[places] + log_first
        first = [
            self._estimate(float(log), slope + first_slopes, level)
            for log, slope in zip(log_chosen, chosen, strict=True)
        ]
        log_sorted = float(self.strengths[places[:-1]].sum() + log_order)
        order = self._estimate(log_sorted, chosen[:-1].sum(axis=0) + order_slopes, level)
        shared = max(0.0, 1 - sum(one.value for one in first)) if self.tie_orders else 0.0
        return RankingsPrediction(tuple(first), shared, order)

    def _places(self, items: Sequence[Item]) -> list[int]:
        places = [index_of(item, self.items) for item in items]
        if len(apart := np.unique(self.component[places], return_index=True)[1]) > 1:
            one, other = (items[index] for index in apart[:2])
            raise DataError(
                f"{one!r} and {other!r} are in groups that the rankings do not connect: nothing is known of how they "
                "compare; fit with a prior (prior_variance), or rank more"
            )
        return places

    def _log_probability(self, block: Block) -> tuple[float, Floats]:
        """Minus the log-denominators of one ranking, as its block weighs them, and their gradient."""
        moments = self.choices.moments(block, self.parameters)
        slopes = np.zeros(len(self.parameters))
        np.add.at(slopes, block.item.ravel(), -moments.expected.ravel())
        slopes[len(self.items) :] = -moments.ties.sum(axis=1)
        return -float(np.sum(block.weight * moments.log_total)), slopes

    def _estimate(self, log_probability: float, slopes: Floats, level: float) -> Estimate:
        # The log-odds log p - log(1 - p) move by 1 / (1 - p) of what log p does.
        beside = float(-np.expm1(log_probability))
        odds, error = float(log_probability - np.log(beside)), self._standard_error(slopes / beside)
        low, high = (float(1 / (1 + np.exp(-odds - sign * quantile(level) * error))) for sign in (-1, 1))
        return Estimate(float(np.exp(log_probability)), low, high, error)

    def _standard_error(self, contrast: Floats) -> float:
        """Of a combination of parameters whose coefficients of strengths add up to zero."""
        if len(self.parameters) <= WHOLE:
            return float(np.sqrt(max(float(contrast @ self._covariance @ contrast), 0.0)))
        precision = _precision(self.prior_variance)
        solved = _conjugate_gradients(self.choices, self.parameters, contrast, self.component, precision)
        return float(np.sqrt(max(float(contrast @ solved), 0.0)))


def fit_rankings(rankings: Rankings, prior_variance: float | None = None, disconnected: str = "refuse") -> RankingsFit:
    """Maximum-likelihood strengths by damped Newton steps; with `prior_variance`, the maximum of the posterior.

    The prior on the log-strengths is Gaussian of mean 0. An UNRANKED item was there for every choice of its ranking.
    `disconnected` says what happens where no maximum exists: `refuse`, rank `within` the groups that do have one (each
    ranking then speaks of the items of one group at a time), or use a `prior` of variance 1.
    Raises UnidentifiedError with the groups, DataError where ties leave no other outcome, NotConvergedError.
    """
    check_settings(prior_variance, disconnected)
    stages = stages_of(rankings)
    found = _connectivity(rankings.items, stages)
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
    choices = choices_of(used, stages)
    parameters, gradient_norm, steps = _maximize(choices, component, _precision(prior_variance))
    log_likelihood = choices.log_likelihood(parameters)
    return RankingsFit(
        used,
        prior_variance,
        found,
        component,
        choices_made - choices.games,
        choices,
        parameters,
        log_likelihood,
        gradient_norm,
        steps,
    )


def _connectivity(items: tuple[Item, ...], stages: Stages) -> Connectivity:
    """The groups of who was ranked above whom, a tie counting both ways, from links between neighbouring places."""
    first = np.searchsorted(stages.group, stages.group)
    above = first[np.maximum(first - 1, 0)]
    same_ranking = (first > 0) & (stages.ranking[above] == stages.ranking)
    ranked = stages.begins[first] | (stages.left[first] == 1)
    # The tied stand in a ring, so that a link to or from their first is one to all; those unranked are each linked.
    linked = same_ranking & (~ranked | (first == np.arange(len(first))))
    tied = ranked & (stages.size > 1)
    after = first + (np.arange(len(first)) - first + 1) % stages.size
    return connectivity_of(
        items,
        np.concatenate([stages.item[above[linked]], stages.item[tied]]),
        np.concatenate([stages.item[linked], stages.item[after[tied]]]),
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


def _precision(prior_variance: float | None) -> float:
    return 0.0 if prior_variance is None else 1 / prior_variance


def _maximize(choices: Choices, component: Integers, precision: float) -> tuple[Floats, float, int]:
    """The parameters at the maximum, the largest slope that is left by a strength, and the number of steps."""
    strengths = slice(0, choices.items)
    parameters = np.zeros(choices.items + len(choices.orders))

    def objective(at: Floats) -> float:
        return choices.log_likelihood(at) - precision * float(at[strengths] @ at[strengths]) / 2

    def slope_at(at: Floats) -> Floats:
        slope = choices.slope(at)
        slope[strengths] -= precision * at[strengths]
        return slope

    value, slope = objective(parameters), slope_at(parameters)
    largest = np.inf
    for steps in range(1, MOST_STEPS + 1):
        if len(parameters) <= DENSE:
            matrix, _ = _definite(choices.information(parameters), component, precision)
            step = _solved(matrix, slope)
        else:
            step = _conjugate_gradients(choices, parameters, slope, component, precision)
        step = _centred(step, component) if not precision else step
        rise, largest, length = float(slope @ step), float(np.abs(step).max()), 1.0
        # What rounding adds to a sum of this size is no fall.
        noise = 1e-13 * abs(value) + 1e-15 * float(choices.chosen @ np.abs(parameters))
        while length > 1e-10 and not (
            (risen := objective(parameters + length * step)) >= value + 1e-4 * length * rise - noise
        ):
            length /= 2
        if not (length > 1e-10):
            break
        parameters, value = parameters + length * step, risen
        slope = slope_at(parameters)
        if length == 1 and largest <= SMALL_STEP:
            return parameters, float(np.abs(slope[strengths]).max()), steps
    raise NotConvergedError(
        f"no maximum after {steps} Newton steps (the last would move a parameter by {largest:.1g}): an estimate "
        "probably lies at infinity, because ties and strengths together explain who never lost; break the ties, or "
        "give a prior (prior_variance) on the strengths",
        parameters,
    )


def _centred(parameters: Floats, component: Integers) -> Floats:
    """The same with strengths of mean zero in every component."""
    return centred(parameters[:, None], component)[:, 0]


def _definite(information: Floats, component: Integers, precision: float) -> tuple[Floats, sparse.csr_array]:
    """With the prior's part, and some for the directions in which a whole component moves; those directions, pC."""
    items, size = len(component), len(information)
    members = np.bincount(component)
    flat = sparse.csr_array(
        (1 / np.sqrt(members[component]), (np.arange(items), component)), shape=(size, len(members))
    )
    information[np.arange(items), np.arange(items)] += precision
    scale = max(float(np.trace(information)) / size, 1e-300)
    return information + scale * (flat @ flat.T).toarray(), flat


def _solved(matrix: Floats, slope: Floats) -> Floats:
    try:
        return np.asarray(linalg.solve(matrix, slope, assume_a="pos"), np.float64)
    except linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, slope)[0], np.float64)


def _covariance(information: Floats, component: Integers, precision: float) -> Floats:
    matrix, flat = _definite(information, component, precision)
    inverse = np.asarray(linalg.inv(matrix), np.float64)
    inverse -= flat @ (flat.T @ inverse)
    inverse -= (inverse @ flat) @ flat.T
    return inverse


def _conjugate_gradients(
    choices: Choices, parameters: Floats, slope: Floats, component: Integers, precision: float
) -> Floats:
    """The information's inverse times a vector, to a relative residual of 1e-10, in means of zero."""
    items = choices.items
    prior = np.concatenate([np.full(items, precision), np.zeros(len(slope) - items)])
    # How often each was expected to be chosen bounds its own entry of the information.
    diagonal = np.maximum(choices.chosen - choices.slope(parameters), 1e-12) + prior

    def product(vector: Floats) -> Floats:
        return choices.product(parameters, vector) + prior * vector

    operator = sparse.linalg.LinearOperator((len(slope),) * 2, matvec=product, dtype=np.float64)
    scaled = sparse.linalg.LinearOperator((len(slope),) * 2, matvec=lambda vector: vector / diagonal, dtype=np.float64)
    found, failed = sparse.linalg.cg(operator, slope, rtol=1e-10, maxiter=10 * len(slope), M=scaled)
    if failed:
        raise NotConvergedError(
            "conjugate gradients did not solve for a Newton step: the rankings hardly connect the items; give a prior "
            "(prior_variance) on the strengths",
            parameters,
        )
    return _centred(found, component)
