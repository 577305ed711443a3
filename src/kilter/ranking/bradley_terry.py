"""Strengths from comparisons: one likelihood with parts that switch on."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kilter.errors import ConfigError, DataError, NonFiniteError
from kilter.ranking.comparisons import Comparisons
from kilter.ranking.connectivity import UnidentifiedError, connectivity
from kilter.ranking.fitted import Cluster, Ranking, clusters_of
from kilter.ranking.likelihood import totals_of
from kilter.ranking.newton import NotConvergedError, maximize
from kilter.ranking.outcomes import OUTCOMES
from kilter.ranking.separation import check_determined, check_finite, explained

Ties = Literal["none", "half", "davidson", "rao-kupper"]
Disconnected = Literal["refuse", "within", "prior"]

# Log-odds between two items have a standard deviation of 1.4 beforehand: 2 to 1 is common, 50 to 1 is not.
PRIOR_VARIANCE = 1.0


def fit_comparisons(
    comparisons: Comparisons,
    *,
    ties: Ties | None = None,
    order_effect: bool = False,
    prior_variance: float | None = None,
    disconnected: Disconnected = "refuse",
    cluster: Cluster | None = None,
) -> Ranking:
    """Maximum-likelihood strengths, by damped Newton steps; see `kilter.ranking.bradley_terry` for the settings."""
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
    clusters_of(used, cluster)
    if cluster is None:
        cluster = "judge" if several(used.judge) else "prompt" if several(used.prompt) else None
    totals = totals_of(used, order_effect=order_effect, ties=ties)
    check_determined(totals, OUTCOMES[ties], component, used.covariate_names, order_effect, prior_variance)
    try:
        best = maximize(totals, OUTCOMES[ties], component=component, prior_variance=prior_variance)
        check_finite(best, totals, OUTCOMES[ties], component)
    except (NotConvergedError, NonFiniteError) as error:
        raise explained(error, totals, OUTCOMES[ties], used, order_effect, prior_variance) from error
    return Ranking(used, ties, order_effect, prior_variance, cluster, found, component, left_out, totals, best)


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


def several(labels: NDArray[np.int32] | NDArray[np.int64] | None) -> bool:
    """Whether there are two judges or prompts at least: from one nothing is seen of how they vary."""
    return labels is not None and bool(labels.min() != labels.max())


def check_settings(prior_variance: float | None, disconnected: str) -> None:
    """Raises ConfigError where a setting is impossible."""
    if prior_variance is not None and not (0 < prior_variance < np.inf):
        raise ConfigError(f"prior_variance is {prior_variance}; give a positive number, as 1.0, or none")
    if disconnected not in get_args(Disconnected):
        raise ConfigError(f"disconnected is {disconnected!r}; it can be {', '.join(get_args(Disconnected))}")
