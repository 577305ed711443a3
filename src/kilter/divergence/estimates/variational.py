"""Lower bounds on divergences from samples, by a critic: a function that tells samples of p from those of q.

Every f-divergence is a supremum over functions T: D_f(p, q) = sup E_p[T] - E_q[f*(T)] (Nguyen, Wainwright and Jordan
2010, arXiv 0809.0853; f-GAN, Nowozin et al. 2016, arXiv 1606.00709), reached by T = f'(p/q). Here a critic's output u
stands for log p/q, and T = f'(exp(u)): so one critic serves all of them, and T never leaves the domain of f*. For
KL(p, q) that is the bound of the first three authors (NWJ); Donsker and Varadhan (1975) have the tighter
sup E_p[u] - log E_q[exp(u)].

**Where this fails.** Bounds on KL hold a mean of exp(u) over samples of q, which a few rare samples rule. At the best
possible critic its variance is chi2(p, q) / M, at least (exp(KL) - 1) / M (Song and Ermon 2020, arXiv 1910.06222):
exponential in what is measured. No lower bound from M samples that holds whatever p and q are can be much above log M
(McAllester and Stratos 2020, arXiv 1811.04251). So a KL of 20 nats is out of reach for any critic; and where the rare
samples are missing, value and standard error both look harmless. Bounds on JS, total variation and
Hellinger do not fail so: what they measure is bounded, and levels off where p and q hardly overlap.

Axes: N samples of p, M of q, D dimensions.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats
from kilter.divergence.exact.f_divergences import FDivergence, f_divergence_named
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

DONSKER_VARADHAN = "donsker-varadhan"
# exp(u) beyond this leaves f*(f'(exp(u))) without digits; and exp(20) samples, to see such ratios, nobody has.
LARGEST = 20.0


def bound_value(on_p_N: Array, on_q_M: Array, *, bound: str | FDivergence = DONSKER_VARADHAN) -> Array:
    """A bound as a differentiable number, from a critic's u = log p/q at samples of p and of q.

    `bound` is "donsker-varadhan" (of KL(p, q), the default), an f-divergence, or the name of one ("forward_kl" is the
    bound of Nguyen, Wainwright and Jordan, also "nwj"). u is clipped at +-20: a clipped critic is a critic too.

    >>> u = np.zeros(4)  # a critic that cannot tell them apart
    >>> float(bound_value(u, u)), float(bound_value(u, u, bound="js"))
    (0.0, 0.0)
    """
    xp = array_namespace(on_p_N, on_q_M)
    f = _f_of(bound)
    if f is None:
        on_p_N, on_q_M = _clipped(on_p_N), _clipped(on_q_M)
        return xp.mean(on_p_N) - xp.log(xp.mean(xp.exp(on_q_M)))
    return xp.mean(_on_p(on_p_N, f)) - xp.mean(_on_q(on_q_M, f))


def bound_from_critic(on_p_N: Array, on_q_M: Array, *, bound: str | FDivergence = DONSKER_VARADHAN) -> Estimate:
    """A lower bound on a divergence, from any critic's u = log p/q at samples of p and of q that it did not learn from.

    `bound` as in `bound_value`. It lies below the divergence by what the critic misses. Bounds on KL need samples of
    the order of exp(2 KL) (so for normal p and q); with fewer the standard error is no guide (see the module). Warns
    where the critic's log-ratios are, in the mean, above half of log M. Raises DistributionError for an unknown bound,
    and for outputs that are no numbers.

    >>> x = np.random.default_rng(0).normal(size=(2, 4000)) + [[0.0], [1.0]]  # KL(N(0, 1), N(1, 1)) = 1/2
    >>> print(bound_from_critic(0.5 - x[0], 0.5 - x[1]))
    0.5202 ± 0.026 (8000 samples; a lower bound, as good as the critic; its variance grows as exp(KL))
    """
    on_p_N, on_q_M = (floats(outputs).reshape(-1) for outputs in (on_p_N, on_q_M))
    if not (len(on_p_N) and len(on_q_M) and np.isfinite(on_p_N).all() and np.isfinite(on_q_M).all()):
        raise DistributionError("found outputs of the critic that are missing or not finite; wanted a number a sample")
    f = _f_of(bound)
    value = float(bound_value(on_p_N, on_q_M, bound=bound))
    if f is None:
        ratio_M = np.exp(_clipped(on_q_M))
        terms_N, terms_M = _clipped(on_p_N), ratio_M / ratio_M.mean()  # d log(mean) = d mean / mean
    else:
        terms_N, terms_M = _on_p(on_p_N, f), _on_q(on_q_M, f)
    error = math.hypot(_error_of_mean(terms_N), _error_of_mean(terms_M))
    bias = "a lower bound, as good as the critic" + _failure(f, on_p_N, on_q_M)
    return Estimate(value, error, len(on_p_N) + len(on_q_M), bias)


def _f_of(bound: str | FDivergence) -> FDivergence | None:
    """The f-divergence that a bound is on by its conjugate; None for Donsker and Varadhan's."""
    if isinstance(bound, FDivergence) or bound == DONSKER_VARADHAN:
        return bound if isinstance(bound, FDivergence) else None
    return f_divergence_named("forward_kl" if bound == "nwj" else bound)


def _clipped(u: Array) -> Array:
    return array_namespace(u).clip(u, -LARGEST, LARGEST)


def _on_p(u: Array, f: FDivergence) -> Array:
    """T = f'(p/q)."""
    return f.derivative_at(_clipped(u))


def _on_q(u: Array, f: FDivergence) -> Array:
    return f.conjugate(_on_p(u, f))


def _error_of_mean(terms: Floats) -> float:
    return float(terms.std(ddof=1)) / math.sqrt(len(terms)) if len(terms) > 1 else math.nan


def _failure(f: FDivergence | None, on_p_N: Floats, on_q_M: Floats) -> str:
    """What is to be said of a bound whose variance is exponential in the divergence.

    That is where f is unbounded, as p/q grows or as it vanishes. How far p and q are apart is told by the critic's
    log-ratios, not by the bound: its mean of exponentials may have missed what rules it.
    """
    apart, count = float(on_p_N.mean()), len(on_q_M)
    if f is not None and math.isfinite(f.slope_at_infinity):
        if math.isfinite(f.at_zero):
            return ""
        apart, count = -float(on_q_M.mean()), len(on_p_N)
    if apart <= math.log(count) / 2:
        return "; its variance grows as exp(KL)"
    reach = f"half of log {count} = {math.log(count) / 2:.1f}"
    warnings.warn(
        f"the critic puts KL at {apart:.1f} nats; from {reach} on, the variance of a bound is exponential in it, and "
        "neither its value nor its standard error can be relied on. Take more samples, or measure JS",
        stacklevel=3,
    )
    return f"; KL is above {reach}: the variance is exponential in it, and the standard error too small"
