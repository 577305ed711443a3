"""The Jensen-Shannon sum, w KL(p, m) + (1 - w) KL(q, m) with m = w p + (1 - w) q, without cancellation."""

from __future__ import annotations

import math
from typing import Any

from kilter.divergence.exact.forms import Pair
from kilter.divergence.exact.power import power_terms
from kilter.divergence.namespaces import array_namespace

Array = Any

# Up to here exp(x) is a number in every type, and log(1 + share (exp(x) - 1)) may be small and need log1p.
LARGE = 15.0


def mixture_sum(pair: Pair, weight: float) -> Array:
    """The sum along the last axis, for 0 < weight < 1. Gradients are 0 where the true one is infinite."""
    xp = array_namespace(pair.p.p)
    p, q, d, rest = pair.p, pair.q, pair.log_ratio, 1 - weight
    from_p = power_terms(p.p, p.log_p, rest * pair.difference, _log_mixture(d, rest, weight), 0.0)
    from_q = power_terms(q.p, q.log_p, -weight * pair.difference, _log_mixture(-d, weight, rest), 0.0)
    # Where one is 0, m is a share of the other: all that is left is what its log-ratio costs.
    zero = xp.zeros_like(p.p)
    only_p = xp.where(q.possible, zero, -weight * math.log(weight) * p.p)
    only_q = xp.where(p.possible, zero, -rest * math.log1p(-weight) * q.p)
    return xp.sum(xp.where(pair.both, weight * from_p + rest * from_q, only_p + only_q), axis=-1)


def _log_mixture(d: Array, share: float, rest: float) -> Array:
    """log(rest + share e^d), where rest = 1 - share."""
    xp = array_namespace(d)
    near = (d > -1) & (d < LARGE)
    close = xp.log1p(share * xp.expm1(xp.where(near, d, xp.zeros_like(d))))
    # The larger of the two summands' logarithms, and what the other adds to it.
    stayed = math.log(rest) if rest < 0.5 else math.log1p(-share)
    grown = xp.where(near, xp.ones_like(d), d) + (math.log(share) if share < 0.5 else math.log1p(-rest))
    top = xp.where(grown > stayed, grown, xp.full_like(d, stayed))
    return xp.where(near, close, top + xp.log1p(xp.exp(-abs(grown - stayed))))
