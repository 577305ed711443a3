"""Lower bounds on divergences from samples, by a critic: a function that tells samples of p from those of q.

Every f-divergence is a supremum over functions T: D_f(p, q) = sup E_p[T] - E_q[f*(T)] (Nguyen, Wainwright and Jordan
2010, arXiv 0809.0853; f-GAN, Nowozin et al. 2016, arXiv 1606.00709), reached by T = f'(p/q). Here a critic's output u
stands for log p/q, and T = f'(exp(u)): so one critic serves all of them, and T never leaves the domain of f*. For
KL(p, q) Donsker and Varadhan (1975) have the tighter sup E_p[u] - log E_q[exp(u)].

**Where this fails.** Bounds on KL hold a mean of exp(u) over samples of q, which a few rare samples rule. At the best
possible critic its variance is chi2(p, q) / M, at least (exp(KL) - 1) / M (Song and Ermon 2020, arXiv 1910.06222):
exponential in what is measured. No lower bound from M samples that holds whatever p and q are can be much above log M
(McAllester and Stratos 2020, arXiv 1811.04251). So a KL of 20 nats is out of reach for any critic; and where the rare
samples are missing, value and standard error both look harmless. The bounds on JS and Hellinger do not fail so: what
they measure is bounded, and levels off where p and q hardly overlap.

Axes: N samples of p, M of q, D dimensions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace

from kilter.divergence.estimates import Array, Estimate, Floats, floats
from kilter.errors import DistributionError


class Bound(NamedTuple):
    """A lower bound on a divergence: f, as what p's and q's samples add to E_p[...] - E_q[...], given u = log p/q."""

    of: str
    on_p: Callable[[Array], Array]  # f'(exp(u))
    on_q: Callable[[Array], Array]  # f*(f'(exp(u)))
    log_mean: bool = False  # E_q[...] is under a logarithm


def _exp(u: Array) -> Array:
    return array_namespace(u).exp(u)


def _log_sigmoid(u: Array) -> Array:
    xp = array_namespace(u)
    return xp.minimum(u, xp.zeros_like(u)) - xp.log1p(xp.exp(-xp.abs(u)))


BOUNDS = {
    "donsker-varadhan": Bound("KL(p, q)", lambda u: u, _exp, log_mean=True),
    "nwj": Bound("KL(p, q)", lambda u: u + 1, _exp),
    "reverse-kl": Bound("KL(q, p)", lambda u: -_exp(-u), lambda u: u - 1),
    "js": Bound(
        "JS(p, q)",
        lambda u: (_log_sigmoid(u) + math.log(2)) / 2,
        lambda u: -(_log_sigmoid(-u) + math.log(2)) / 2,
    ),
    "hellinger": Bound(
        "squared Hellinger distance, 1 - sum sqrt(pq)",
        lambda u: (1 - _exp(-u / 2)) / 2,
        lambda u: (_exp(u / 2) - 1) / 2,
    ),
}
EXPONENTIAL = {"donsker-varadhan", "nwj", "reverse-kl"}


def bound_value(on_p_N: Array, on_q_M: Array, *, bound: str) -> Array:
    """A bound as a differentiable number, from a critic's u = log p/q at samples of p and of q; to raise it is
    to train the critic.

    >>> u = np.zeros(4)  # a critic that cannot tell them apart
    >>> [float(bound_value(u, u, bound=name)) for name in BOUNDS] == [0.0] * len(BOUNDS)
    True
    """
    chosen = checked_bound(bound)
    xp = array_namespace(on_p_N, on_q_M)
    first = xp.mean(chosen.on_p(on_p_N))
    if not chosen.log_mean:
        return first - xp.mean(chosen.on_q(on_q_M))
    largest = xp.max(on_q_M)
    return first - largest - xp.log(xp.mean(xp.exp(on_q_M - largest)))


def bound_from_critic(on_p_N: Array, on_q_M: Array, *, bound: str = "donsker-varadhan") -> Estimate:
    """A lower bound on a divergence (`BOUNDS` has them by name), from any critic's u = log p/q at samples of p and of q
    that it was not trained on.

    It lies below the divergence by what the critic misses. Bounds on KL need samples of the order of exp(KL), and their
    standard error is no guide beyond (see the module): warns where the critic's
    log-ratios pass half of log M. Raises
    DistributionError for an unknown bound and for outputs that are no numbers.

    >>> x = np.random.default_rng(0).normal(size=(2, 4000)) + [[0.0], [1.0]]  # KL(N(0, 1), N(1, 1)) = 1/2
    >>> print(bound_from_critic(0.5 - x[0], 0.5 - x[1]))
    0.5202 ± 0.026 (8000 samples; a lower bound on KL(p, q), as good as the critic; its variance grows as exp(KL))
    """
    chosen = checked_bound(bound)
    on_p_N, on_q_M = (floats(outputs).reshape(-1) for outputs in (on_p_N, on_q_M))
    if not (len(on_p_N) and len(on_q_M) and np.isfinite(on_p_N).all() and np.isfinite(on_q_M).all()):
        raise DistributionError("the critic's outputs must be finite, for at least one sample of p and one of q")
    value = float(bound_value(on_p_N, on_q_M, bound=bound))
    terms_q_M = chosen.on_q(on_q_M - on_q_M.max()) if chosen.log_mean else chosen.on_q(on_q_M)
    if chosen.log_mean:  # d log(mean) = d mean / mean
        terms_q_M = terms_q_M / terms_q_M.mean()
    error = math.hypot(_error_of_mean(chosen.on_p(on_p_N)), _error_of_mean(terms_q_M))
    bias = f"a lower bound on {chosen.of}, as good as the critic" + _failure(bound, on_p_N, on_q_M)
    return Estimate(value, error, len(on_p_N) + len(on_q_M), bias)


def checked_bound(name: str) -> Bound:
    """The bound of a name; DistributionError where there is none."""
    if name not in BOUNDS:
        raise DistributionError(f"no bound is called {name!r}; there are {', '.join(BOUNDS)}")
    return BOUNDS[name]


def _error_of_mean(terms: Floats) -> float:
    return float(terms.std(ddof=1)) / math.sqrt(len(terms)) if len(terms) > 1 else math.nan


def _failure(bound: str, on_p_N: Floats, on_q_M: Floats) -> str:
    """What is to be said of a bound whose variance is exponential in the divergence."""
    if bound not in EXPONENTIAL:
        return ""
    # By the critic's own log-ratios, without the mean of exponentials, which may have missed what rules it.
    apart, count = (-on_q_M.mean(), len(on_p_N)) if bound == "reverse-kl" else (on_p_N.mean(), len(on_q_M))
    if apart <= math.log(count) / 2:
        return "; its variance grows as exp(KL)"
    reach = f"half of log {count} = {math.log(count) / 2:.1f}"
    warnings.warn(
        f"the critic puts KL at {apart:.1f} nats; from {reach} on, the variance of a bound is exponential in it, and "
        "neither its value nor its standard error can be relied on. Take more samples, or measure JS",
        stacklevel=3,
    )
    return f"; KL is above {reach}, so its variance is exponential in KL, and its standard error too small"
