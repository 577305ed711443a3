"""The likelihood of strengths that one has already, as functions of them, with gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kilter.errors import DataError
from kilter.ranking import likelihood
from kilter.ranking.comparisons import Comparisons, Floats, Item
from kilter.ranking.outcomes import OUTCOMES

Strengths = Mapping[Item, float] | Sequence[float] | Floats


def log_likelihood(
    comparisons: Comparisons,
    strengths: Strengths,
    *,
    extras: Sequence[float] = (),
    ties: str = "half",
    order_effect: bool = False,
) -> float:
    """The log-probability, in nats, that log-strengths give to these comparisons.

    `strengths` are log-strengths by item, or in the order of `comparisons.items`; a constant added to all changes
    nothing. `extras` are the order effect, a coefficient for each covariate and the tie parameter, as far as there are
    such. Raises DataError where an item or an extra is missing.
    """
    totals = likelihood.totals_of(comparisons, order_effect=order_effect, ties=ties)
    parameters = parameters_of(comparisons, strengths, extras, ties, order_effect)
    return likelihood.log_likelihood(parameters, totals, OUTCOMES[ties])


def loss(
    comparisons: Comparisons,
    strengths: Strengths,
    *,
    extras: Sequence[float] = (),
    ties: str = "half",
    order_effect: bool = False,
) -> float:
    """The mean negative log-likelihood of a comparison: what a reward model is trained on. ln 2 says nothing."""
    total = log_likelihood(comparisons, strengths, extras=extras, ties=ties, order_effect=order_effect)
    return -total / float(comparisons.count @ comparisons.weight)


def gradient(
    comparisons: Comparisons,
    strengths: Strengths,
    *,
    extras: Sequence[float] = (),
    ties: str = "half",
    order_effect: bool = False,
) -> Floats:
    """p: the derivative of `log_likelihood` by each log-strength, then by each extra.

    By a strength it is the comparisons the item won less those it was expected to win; `loss` has minus this over the
    number of comparisons.
    """
    totals = likelihood.totals_of(comparisons, order_effect=order_effect, ties=ties)
    parameters = parameters_of(comparisons, strengths, extras, ties, order_effect)
    return likelihood.gradient_and_information(parameters, totals, OUTCOMES[ties])[0]


def parameters_of(
    comparisons: Comparisons, strengths: Strengths, extras: Sequence[float], ties: str, order_effect: bool
) -> Floats:
    """p: log-strengths in the order of the items, then the extras."""
    if isinstance(strengths, Mapping):
        if missing := [item for item in comparisons.items if item not in strengths]:
            raise DataError(f"strengths has no {missing[0]!r}; give a log-strength for each of the items")
        strengths = [strengths[item] for item in comparisons.items]
    if len(strengths) != len(comparisons.items):
        raise DataError(
            f"there are {len(comparisons.items):,} items and {len(strengths):,} strengths; give one for each"
        )
    expected = int(order_effect) + len(comparisons.covariate_names) + OUTCOMES[ties].has_ties
    if len(extras) != expected:
        raise DataError(
            f"{len(extras)} extras were given and {expected} are wanted: the order effect, a coefficient for each "
            "covariate and the tie parameter, as far as there are such"
        )
    return np.concatenate([np.asarray(strengths, np.float64), np.asarray(extras, np.float64)])
