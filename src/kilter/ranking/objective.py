"""The likelihood of strengths that one has already, as functions of them, with gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kilter.errors import DataError
from kilter.ranking.choices import choices_of
from kilter.ranking.comparisons import Comparisons, Floats, Item, Rankings
from kilter.ranking.likelihood import OfComparisons, totals_of
from kilter.ranking.newton import Likelihood
from kilter.ranking.outcomes import OUTCOMES

Strengths = Mapping[Item, float] | Sequence[float] | Floats


def log_likelihood(
    data: Comparisons | Rankings,
    strengths: Strengths,
    *,
    extras: Sequence[float] = (),
    ties: str = "half",
    order_effect: bool = False,
) -> float:
    """The log-probability, in nats, that log-strengths give to these comparisons or rankings.

    `strengths` are log-strengths by item, or in the order of `data.items`; a constant added to all changes nothing.
    `extras` are the order effect, a coefficient for each covariate and the tie parameter, as far as there are such; of
    rankings, log delta for each size of tie that occurred. Raises DataError where an item or an extra is missing.
    """
    likelihood = _likelihood(data, ties, order_effect)
    return likelihood.log_likelihood(_parameters(data, strengths, extras, likelihood))


def loss(
    data: Comparisons | Rankings,
    strengths: Strengths,
    *,
    extras: Sequence[float] = (),
    ties: str = "half",
    order_effect: bool = False,
) -> float:
    """The mean negative log-likelihood of a comparison or ranking: what a reward model is trained on.

    Of comparisons ln 2 says nothing.
    """
    total = log_likelihood(data, strengths, extras=extras, ties=ties, order_effect=order_effect)
    return -total / float(data.count @ data.weight)


def gradient(
    data: Comparisons | Rankings,
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
    likelihood = _likelihood(data, ties, order_effect)
    return likelihood.derivatives(_parameters(data, strengths, extras, likelihood))[0]


def _likelihood(data: Comparisons | Rankings, ties: str, order_effect: bool) -> Likelihood:
    if isinstance(data, Rankings):
        return choices_of(data)
    return OfComparisons(totals_of(data, order_effect=order_effect, ties=ties), OUTCOMES[ties])


def _parameters(
    data: Comparisons | Rankings, strengths: Strengths, extras: Sequence[float], likelihood: Likelihood
) -> Floats:
    """p: log-strengths in the order of the items, then the extras."""
    if isinstance(strengths, Mapping):
        if missing := [item for item in data.items if item not in strengths]:
            raise DataError(f"strengths has no {missing[0]!r}; give a log-strength for each of the items")
        strengths = [strengths[item] for item in data.items]
    if len(strengths) != len(data.items):
        raise DataError(f"there are {len(data.items):,} items and {len(strengths):,} strengths; give one for each")
    expected = len(likelihood.start) - len(data.items)
    if len(extras) != expected:
        raise DataError(
            f"{len(extras)} extras were given and {expected} are wanted: the order effect, a coefficient for each "
            "covariate and the tie parameter, as far as there are such; of rankings, log delta for each size of tie"
        )
    return np.concatenate([np.asarray(strengths, np.float64), np.asarray(extras, np.float64)])
