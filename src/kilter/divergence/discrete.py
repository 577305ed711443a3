"""Entropy and divergences of discrete distributions, exact and without cancellation.

Each function takes distributions whose wrapper says what their numbers are (`Probs`, `LogProbs`, `Logits`, `Counts`)
and the keywords of `Options`; the order is always (p, q). One formula serves NumPy, PyTorch, JAX and CuPy arrays
(array-api-compat), with gradients where the array has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
from array_api_compat import array_namespace

from kilter.divergence.distributions import Distribution, on_host, required
from kilter.divergence.forms import Form, Pair, form_of
from kilter.divergence.power import power_sum
from kilter.divergence.rows import Options, RowOptions, Unit

Array = Any


def expectation(p: Array, value: Array) -> Array:
    """sum p * value along the last axis, where outcomes of probability 0 count nothing, whatever their value.

    p and value are plain arrays.

    >>> float(expectation(np.array([0.5, 0.5, 0.0]), np.array([1.0, 3.0, np.inf])))
    2.0
    """
    xp = array_namespace(p, value)
    # The inner `where` keeps 0 x inf out of the product, and NaN out of its gradient.
    return xp.sum(p * xp.where(p > 0, value, xp.zeros_like(value)), axis=-1)


def entropy(p: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """Entropy H(p) = -sum p log p, with 0 log 0 = 0 (Shannon 1948).

    One value for each row. Raises DistributionError where p holds no distributions. Its gradient with respect to
    probabilities is 0 at a probability of 0, where the true one is infinite.

    >>> from kilter.divergence import Probs
    >>> float(entropy(Probs([0.5, 0.5]), unit="bits"))
    1.0
    """
    return of_one(p, options, unit, lambda form: -expectation(form.p, form.log_p))


def cross_entropy(p: Distribution, q: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """Cross-entropy H(p, q) = -sum p log q = H(p) + KL(p, q): what coding draws from p by a code made for q costs.

    One value for each row: inf where p > 0 = q.

    >>> from kilter.divergence import Probs
    >>> float(cross_entropy(Probs([1.0, 0.0]), Probs([0.5, 0.5]), unit="bits"))
    1.0
    >>> float(cross_entropy(Probs([0.5, 0.5]), Probs([1.0, 0.0])))
    inf
    """
    return of_two(p, q, options, unit, _cross_entropy)


def kl(p: Distribution, q: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """KL(p, q) = sum p log(p / q): what a code made for q costs above H(p), for draws from p (Kullback, Leibler 1951).

    p is the distribution that draws; KL(q, p) is `kl(q, p)`. One value for each row, never negative, exactly 0 where p
    and q are the same, and inf where p > 0 = q. Summed is p log(p / q) - p + q, which adds nothing over a whole
    distribution and keeps small differences from cancelling; gradients with respect to probabilities or log-probs are
    those of this sum, and with respect to logits those of KL. Raises DistributionError where p or q holds no
    distributions.

    >>> from kilter.divergence import Probs
    >>> p, q = Probs([0.5, 0.5]), Probs([0.7, 0.3])
    >>> round(float(kl(p, q)), 7), round(float(kl(q, p)), 7)
    (0.0871767, 0.0822829)
    """
    return of_two(p, q, options, unit, lambda pair: power_sum(pair, 1.0))


def of_one(p: Distribution, options: Options, unit: str, value: Callable[[Form], Array]) -> Array:
    """A function of one distribution, for each row; reduced as asked for."""
    settings = RowOptions(**options)
    (rows,) = settings.read({"p": required(p, "p")})
    values = value(form_of(p, rows, settings.smoothing))
    return settings.reduce(values, settings.kept(rows), unit, lambda index: "the numbers are too large")


def of_two(p: Distribution, q: Distribution, options: Options, unit: str, value: Callable[[Pair], Array]) -> Array:
    """A function of two distributions, for each row; reduced as asked for."""
    settings = RowOptions(**options)
    rows_p, rows_q = settings.read({"p": required(p, "p"), "q": required(q, "q")})
    pair = Pair(form_of(p, rows_p, settings.smoothing), form_of(q, rows_q, settings.smoothing))
    return settings.reduce(value(pair), settings.kept(rows_p), unit, lambda index: _mismatch(pair, index))


def _cross_entropy(pair: Pair) -> Array:
    xp = array_namespace(pair.p.p)
    # Filled with 0 for outcomes that q rules out, log q is finite, and so is the slope of p log q at p = 0.
    values = -xp.sum(pair.p.p * pair.q.log_p, axis=-1)
    missed = xp.any(pair.p.possible & ~pair.q.possible, axis=-1)
    return xp.where(missed, xp.full_like(values, float("inf")), values)


def _mismatch(pair: Pair, index: tuple[int, ...]) -> str:
    """Which outcome makes a row infinite."""
    for one, other, names in ((pair.p, pair.q, "pq"), (pair.q, pair.p, "qp")):
        outcomes = np.flatnonzero(on_host(one.possible[index] & ~other.possible[index]))
        if len(outcomes):
            found = f"{float(on_host(one.p[index])[outcomes[0]]):.6g} to outcome {outcomes[0]}"
            return f"{names[0]} gives probability {found}, and {names[1]} gives it 0"
    return "the value is too large for its type"
