"""Whether the model fits: deviance, calibration, residuals by pair, and likelihood ratios between nested fits.

Axes: R rows, G cells (unique left, right, covariates), P pairs, B bins, O outcomes (left wins, tie, right wins).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from kilter.errors import ConfigError, DataError
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item
from kilter.ranking.cross_validation import CrossValidation, probabilities_of
from kilter.ranking.fitted import check_level
from kilter.ranking.likelihood import Totals, advantage, rows_of
from kilter.ranking.uncertainty import quantile

# Cochran 1954: chi-square serves where four fifths of the expected counts are at least five.
ENOUGH_EXPECTED, ENOUGH_CELLS = 5.0, 0.8


class Deviance(NamedTuple):
    """Twice what the best possible probabilities for each pair would gain in log-likelihood over the model.

    `p_value` is by chi-square, and not a number where `note` says why that would mislead.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    note: str


class LikelihoodRatio(NamedTuple):
    """Twice what the bigger model gains in log-likelihood, with its chi-square probability under the smaller one."""

    statistic: float
    degrees_of_freedom: int
    p_value: float
    added: tuple[str, ...]
    note: str


@dataclass(frozen=True, eq=False)
class Calibration:
    """By bins of about equally many games: the score that was predicted, and the one observed with its interval.

    A score is the share of wins, a tie counting half.
    """

    predicted: Floats  # B
    observed: Floats  # B
    low: Floats  # B
    high: Floats  # B
    games: Floats  # B
    side: str
    """Whose score it is: the favourite's, or the left item's."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """How far each pair's score lies from what the model expects, in standard deviations; the largest first.

    `standardized` would be about standard normal if the model held. `adjusted`, P, is the probability of so large a one
    if it did, by Holm's correction for all pairs: small ones are surprising, though the largest of many was looked for.
    """

    left: tuple[Item, ...]
    right: tuple[Item, ...]
    games: Floats  # P
    observed: Floats  # P: wins of the left item, ties counting half
    expected: Floats  # P
    standardized: Floats  # P
    adjusted: Floats  # P
    note: str


def deviance(ranking: Ranking) -> Deviance:
    """The deviance against the saturated model, in which each pair (by sides, if there is an order effect, and by
    covariates) has outcome probabilities of its own.

    McCullagh and Nelder 1989, section 4.4.
    """
    cells, observed = _cells(ranking)
    games = observed.sum(axis=0)
    logs = ranking.model.log_probabilities(advantage(ranking.parameters, cells), ranking.parameters[-1])
    kinds = slice(None) if ranking.model.has_ties else slice(None, None, 2)
    seen = observed[kinds]
    statistic = 2 * float(np.sum(special.xlogy(seen, seen / games)) - np.sum(seen * logs[kinds], where=seen > 0))
    free = int(len(games) * (len(seen) - 1) - _free(ranking))
    expected = games * np.exp(logs[kinds])
    note = _not_counts(ranking.comparisons, ranking.ties)
    if ranking.prior_variance is not None:
        note = "the prior pulls strengths together, so the deviance is no chi-square"
    elif not note and np.mean(expected >= ENOUGH_EXPECTED) < ENOUGH_CELLS:
        note = (
            f"only {np.mean(expected >= ENOUGH_EXPECTED):.0%} of the expected counts are {ENOUGH_EXPECTED:g} or more, "
            "too few for a chi-square; residuals and calibration say more"
        )
    elif not note and free < 1:
        note = "there are no more pairs than parameters: the model cannot but fit"
    return Deviance(statistic, free, float("nan") if note else float(special.chdtrc(free, statistic)), note)


def calibration(
    of: Ranking | CrossValidation,
    bins: int = 10,
    *,
    side: Literal["favourite", "left"] = "favourite",
    level: float = 0.95,
) -> Calibration:
    """Predicted against observed scores, with Wilson intervals (Wilson 1927); ties make these somewhat too wide.

    Of a ranking the predictions are for the comparisons it was fitted to, which flatters it; those of a
    cross-validation are honest. `side='favourite'` does not depend on who was written first; 'left' shows an order
    effect that the model lacks.
    """
    check_level(level)
    if bins < 1:
        raise ConfigError(f"{bins} bins were asked for; give at least one, as 10")
    if side not in ("favourite", "left"):
        raise ConfigError(f"calibration is of the favourite's or the left item's score, not of {side!r}")
    if isinstance(of, CrossValidation):
        known, told = of.predictions.predicted, of.predictions
        probability, share = told.probability[:, known], told.share[:, known]
        games, weight = told.games[known], told.weight[known]
    else:
        probability = probabilities_of(of, of.comparisons)
        share = np.stack([of.comparisons.outcome, np.zeros_like(probability[1]), 1 - of.comparisons.outcome])
        games, weight = of.comparisons.count, of.comparisons.weight
    predicted, score = probability[0] + probability[1] / 2, share[0] + share[1] / 2
    if side == "favourite":
        behind = predicted < 0.5
        predicted, score = np.where(behind, 1 - predicted, predicted), np.where(behind, 1 - score, score)
        # Of two equal items neither is the favourite.
        score = np.where(np.abs(predicted - 0.5) < 1e-9, 0.5, score)
    different, of_value = np.unique(np.round(predicted, 12), return_inverse=True)
    by_value = np.bincount(of_value, games, len(different))
    middle = np.cumsum(by_value) - by_value / 2
    number = np.unique((middle / by_value.sum() * bins).astype(int), return_inverse=True)[1][of_value]
    in_bin = np.bincount(number, games).astype(np.float64, copy=False)
    times = np.bincount(number, games * weight)
    mean = np.bincount(number, games * weight * predicted) / times
    share_won = np.bincount(number, games * weight * score) / times
    z = quantile(level)
    centre = (share_won + z**2 / (2 * in_bin)) / (1 + z**2 / in_bin)
    half = z * np.sqrt(share_won * (1 - share_won) / in_bin + (z / (2 * in_bin)) ** 2) / (1 + z**2 / in_bin)
    return Calibration(mean, share_won, np.maximum(centre - half, 0), np.minimum(centre + half, 1), in_bin, side)


def residuals(ranking: Ranking) -> Residuals:
    """Standardised Pearson residuals of every pair's score, largest first (McCullagh and Nelder 1989, section 12.5).

    The variance of observed less expected is that of the outcomes, less what the fit took up. Raises ConfigError beyond
    5,000 parameters.
    """
    of = ranking.comparisons
    rows = rows_of(of, order_effect=ranking.order_effect, ties="half")
    swapped = of.left > of.right
    low, high = np.where(swapped, of.right, of.left), np.where(swapped, of.left, of.right)
    keys, pair = np.unique(low.astype(np.int64) * len(of.items) + high, return_inverse=True)
    left, right = (keys // len(of.items)).astype(np.int32), (keys % len(of.items)).astype(np.int32)
    tie = ranking.parameters[-1]
    ahead = advantage(ranking.parameters, rows)
    probability = probabilities_of(ranking, of)
    # What the score moves by with a parameter is its covariance with the parameter's score.
    by = ranking.model.derivatives(ahead, tie, probability)
    worth = np.array([1, 0.5, 0])[:, None] * probability
    mean, of_advantage, of_tie = worth.sum(axis=0), (worth * by.advantage).sum(axis=0), (worth * by.tie).sum(axis=0)
    spread = probability[0] + probability[1] / 4 - mean**2
    times = of.count * of.weight
    sign = np.where(swapped, -1.0, 1.0)

    def summed(values: Floats) -> Floats:
        return np.bincount(pair, values, len(keys)).astype(np.float64, copy=False)

    observed = summed(times * np.where(swapped, 1 - of.outcome, of.outcome))
    expected = summed(times * np.where(swapped, 1 - mean, mean))
    extras = [summed(times * sign * of_advantage * shift) for shift in rows.shifts.T]
    if ranking.model.has_ties:
        extras.append(summed(times * sign * of_tie))
    taken = _taken_up(ranking.covariance(), left, right, summed(times * of_advantage), np.array(extras))
    variance = summed(of.count * of.weight**2 * spread)
    left_over = variance - taken
    # A pair that alone ties its items together is fitted exactly, whatever its outcome.
    exact = left_over <= 1e-9 * variance
    standardized = np.where(exact, 0.0, (observed - expected) / np.sqrt(np.where(exact, 1, left_over)))
    not_counts = _not_counts(of, ranking.ties)
    adjusted = holm(special.erfc(np.abs(standardized) / np.sqrt(2)))
    order = np.argsort(-np.abs(standardized), kind="stable")
    return Residuals(
        tuple(of.items[item] for item in left[order]),
        tuple(of.items[item] for item in right[order]),
        summed(of.count)[order],
        observed[order],
        expected[order],
        standardized[order],
        adjusted[order],
        f"of {len(keys):,} pairs, {0.05 * len(keys):,.0f} would lie beyond 1.96 by chance; adjusted p-values are Holm's"
        f"{'; ' * bool(not_counts)}{not_counts}",
    )


def likelihood_ratio(smaller: Ranking, bigger: Ranking) -> LikelihoodRatio:
    """Whether the parts that `bigger` adds improve the fit more than chance would (Wilks 1938).

    Raises ConfigError where the fits are not nested, DataError where they are not of the same comparisons.
    """
    if smaller.ties != bigger.ties:
        raise ConfigError(
            f"the fits have different models of ties ({smaller.ties} and {bigger.ties}), neither a part of the other; "
            "fit both with one, or compare them by cross_validate"
        )
    if smaller.prior_variance is not None or bigger.prior_variance is not None:
        raise ConfigError(
            "a fit with a prior does not maximise the likelihood; fit without, or compare by cross_validate"
        )
    if missing := [name for name in smaller.extra_names if name not in bigger.extra_names]:
        raise ConfigError(
            f"the bigger fit lacks {', '.join(missing)}, which the smaller one has: they are not nested; give the one "
            "with fewer parts first"
        )
    added = tuple(name for name in bigger.extra_names if name not in smaller.extra_names)
    if not added:
        raise ConfigError("the fits have the same parts: there is nothing to compare")
    shared = smaller.comparisons.covariate_names
    if (
        smaller.items != bigger.items
        or not np.array_equal(smaller.component, bigger.component)
        or not _same(_tally(smaller.comparisons, shared), _tally(bigger.comparisons, shared))
    ):
        raise DataError("the fits are not of the same comparisons; fit both to the same ones")
    statistic = max(2 * (bigger.log_likelihood - smaller.log_likelihood), 0.0)
    note = _not_counts(smaller.comparisons, smaller.ties)
    if not note and smaller.cluster is not None:
        note = (
            f"comparisons of one {smaller.cluster} may hang together; this test takes them to be independent, the "
            "sandwich interval of what was added does not"
        )
    return LikelihoodRatio(statistic, len(added), float(special.chdtrc(len(added), statistic)), added, note)


def holm(p_values: Floats) -> Floats:
    """P-values adjusted so that one below a level is wrong about any with at most that probability (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1)
    return adjusted


def _cells(ranking: Ranking) -> tuple[Totals, Floats]:
    """The totals, rows of equal covariates added up too; and what was observed in each cell."""
    totals = ranking.totals
    if totals.shifts.shape[1] <= int(ranking.order_effect):
        return totals, totals.observed
    keys = np.column_stack([totals.left, totals.right, totals.shifts])
    first, cell = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
    observed = np.stack([np.bincount(cell, row, len(first)) for row in totals.observed]).astype(np.float64, copy=False)
    return Totals(totals.items, totals.left[first], totals.right[first], totals.shifts[first], observed), observed


def _free(ranking: Ranking) -> int:
    """How many parameters were fitted: one strength of each component is given by the others."""
    return len(ranking.parameters) - (int(ranking.component.max()) + 1)


def _not_counts(comparisons: Comparisons, ties: str) -> str:
    """Why outcomes are not independent counts of the model's, if they are not."""
    if comparisons.graded:
        return "graded outcomes vary less than wins and losses do, so these are no chi-squares"
    if ties == "half" and comparisons.tied:
        return "ties as half wins vary less than wins and losses do, so these are no chi-squares"
    if np.any(comparisons.weight != 1):
        return "weighted comparisons do not vary as counts do, so these are no chi-squares"
    return ""


def _taken_up(covariance: Floats, left: Integers, right: Integers, of_lead: Floats, of_extras: Floats) -> Floats:
    """P: u'Cu, for u that is `of_lead` at left, minus that at right, and `of_extras`, EP, after the strengths."""
    items = len(covariance) - len(of_extras)
    diagonal = np.diag(covariance)
    taken = of_lead**2 * (diagonal[left] + diagonal[right] - 2 * covariance[left, right])
    if len(of_extras):
        across = covariance[items:, left] - covariance[items:, right]
        taken = taken + 2 * of_lead * (across * of_extras).sum(axis=0)
        taken = taken + ((covariance[items:, items:] @ of_extras) * of_extras).sum(axis=0)
    return taken


def _tally(comparisons: Comparisons, covariates: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Unique rows of who met, outcome, weight and some covariates, in order; and their counts."""
    of = comparisons
    columns = [of.covariates[:, of.covariate_names.index(name)] for name in covariates]
    rows = np.column_stack([of.left, of.right, of.outcome, of.weight, *columns])
    unique, group = np.unique(rows, axis=0, return_inverse=True)
    return unique, np.bincount(group, of.count, len(unique)).astype(np.float64, copy=False)


def _same(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
