"""The log-likelihood of comparisons, its gradient and its information.

Parameters are one vector: I log-strengths, then the extras: order effect, covariates, tie parameter.
Axes: I items, G unique (left, right, covariates), M extras that shift the advantage (all but the tie parameter).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.ranking.comparisons import Comparisons, Floats, Integers
from kilter.ranking.information import Bordered, plan_of
from kilter.ranking.outcomes import OUTCOMES, OutcomeModel


class Totals(NamedTuple):
    """Comparisons added up for a fit: how often, by weight, each outcome was for each unique (left, right, shifts)."""

    items: int
    left: Integers  # G
    right: Integers  # G
    shifts: Floats  # GM: what each extra is multiplied by
    observed: Floats  # OG: left wins, ties, right wins


def rows_of(comparisons: Comparisons, *, order_effect: bool = False, ties: str = "half") -> Totals:
    """Every row for itself: ties stand apart for a model of ties, else a grade is shared out."""
    times, outcome = comparisons.count * comparisons.weight, comparisons.outcome
    shifts = comparisons.covariates
    if order_effect:
        shifts = np.column_stack([np.ones(len(outcome)), shifts])
    if OUTCOMES[ties].has_ties:
        observed = np.stack([times * (outcome == share) for share in (1, 0.5, 0)])
    else:
        observed = np.stack([times * outcome, np.zeros_like(times), times * (1 - outcome)])
    return Totals(len(comparisons.items), comparisons.left, comparisons.right, shifts, observed)


def totals_of(comparisons: Comparisons, *, order_effect: bool = False, ties: str = "half") -> Totals:
    """What a fit needs of comparisons: rows that say the same, whatever their outcome, added up."""
    return grouped(comparisons, order_effect=order_effect, ties=ties)[0]


def grouped(
    comparisons: Comparisons, *, order_effect: bool = False, ties: str = "half"
) -> tuple[Totals, NDArray[np.intp], NDArray[np.bool_]]:
    """Totals; and R and R: which of them each row was added to, and whether with left and right exchanged."""
    items, left, right, shifts, observed = rows_of(comparisons, order_effect=order_effect, ties=ties)
    group, swapped = np.arange(len(left)), np.zeros(len(left), bool)
    if shifts.shape[1] == 0:
        # Without an order effect it does not matter who stood left.
        swapped = left > right
        observed = np.where(swapped, observed[::-1], observed)
        left, right = np.where(swapped, right, left), np.where(swapped, left, right)
    if shifts.shape[1] <= int(order_effect):
        pairs, of_pair = np.unique(left.astype(np.int64) * items + right, return_inverse=True)
        if len(pairs) < len(left):
            group = of_pair
            observed = np.stack([np.bincount(group, row, len(pairs)) for row in observed])
            left, right = (pairs // items).astype(np.int32), (pairs % items).astype(np.int32)
            shifts = np.ones((len(pairs), shifts.shape[1]))
    return Totals(items, left, right, shifts, observed), group, swapped


def advantage(parameters: Floats, totals: Totals) -> Floats:
    """G: how far the left item is ahead, in log-odds, with the order effect and the covariates."""
    shifting = parameters[totals.items : totals.items + totals.shifts.shape[1]]
    return parameters[totals.left] - parameters[totals.right] + totals.shifts @ shifting


def log_likelihood(parameters: Floats, totals: Totals, model: OutcomeModel) -> float:
    """The sum over comparisons of the log-probability of what was observed, in nats."""
    logs = model.log_probabilities(advantage(parameters, totals), parameters[-1])
    return float(np.sum(totals.observed * logs, where=totals.observed > 0))


def gradient_and_information(parameters: Floats, totals: Totals, model: OutcomeModel) -> tuple[Floats, Bordered]:
    """The derivative of the log-likelihood, and minus its matrix of second derivatives."""
    by = model.derivatives(advantage(parameters, totals), parameters[-1], totals.observed)
    slope = np.sum(totals.observed * by.advantage, axis=0)
    of_items = np.bincount(totals.left, slope, totals.items) - np.bincount(totals.right, slope, totals.items)
    of_tie = [np.sum(totals.observed * by.tie)] if model.has_ties else []
    information = Bordered.of_pairs(
        totals.items,
        totals.left,
        totals.right,
        totals.shifts,
        by.advantage_advantage,
        (by.advantage_tie, by.tie_tie) if model.has_ties else None,
    )
    return np.concatenate([of_items, totals.shifts.T @ slope, of_tie]), information


@dataclass(frozen=True, eq=False)
class OfComparisons:
    """The likelihood of totals under a model of outcomes, as Newton's steps want it."""

    totals: Totals
    model: OutcomeModel

    @property
    def items(self) -> int:
        """I."""
        return self.totals.items

    @property
    def start(self) -> Floats:
        """p: equal strengths, nothing else, and the model's own start for ties."""
        ties = [self.model.start] * self.model.has_ties
        return np.concatenate([np.zeros(self.items + self.totals.shifts.shape[1]), ties])

    @cached_property
    def plan(self) -> Integers | None:
        """See `plan_of`."""
        return plan_of(self.items, self.totals.left, self.totals.right, len(self.start) - self.items)

    def allows(self, parameters: Floats) -> bool:
        """Whether the tie parameter is one."""
        return not self.model.has_ties or self.model.allows(parameters[-1])

    def log_likelihood(self, parameters: Floats) -> float:
        """In nats."""
        return log_likelihood(parameters, self.totals, self.model)

    def derivatives(self, parameters: Floats, precision: float = 0.0) -> tuple[Floats, Bordered]:
        """The gradient, and the information with a prior's precision on the items."""
        slope, information = gradient_and_information(parameters, self.totals, self.model)
        return slope, replace(information, precision=precision)

    def rounding(self, parameters: Floats) -> float:
        """What the advantages' rounding may add."""
        # As a sum, not a product by BLAS: numpy's threads would still be waiting when those of scipy's factors begin.
        return 1e-15 * float(np.sum(self.totals.observed * np.abs(advantage(parameters, self.totals))))
