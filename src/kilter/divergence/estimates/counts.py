"""Entropy and KL estimated from how often each outcome was seen, in nats.

The plug-in estimate takes observed shares for probabilities. It is biased by about the number of outcomes over twice
the number of samples: entropy comes out too low, and KL too high. The Miller-Madow correction takes that off.

Axes: K outcomes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kilter.divergence.estimates.standard_errors import Estimate, Floats, floats
from kilter.divergence.exact.distributions import Counts, Distribution, on_host, required
from kilter.divergence.exact.divergences import entropy, kl
from kilter.divergence.exact.forms import form_of
from kilter.divergence.exact.rows import Support
from kilter.errors import DistributionError


class _Shares(NamedTuple):
    p_K: Floats
    smoothed_K: Floats
    samples: float  # inf where the distribution is known


def entropy_from_counts(p: Counts, *, miller_madow: bool = True) -> Estimate:
    """Entropy H(p) from counts of samples of p.

    The correction is (outcomes seen - 1) / 2N (Miller 1955, "Note on the bias of information estimates"). The variance
    is the delta method's, (sum p log^2 p - H^2) / N, but at least (K - 1) / 2N^2, which is what is left where p is
    uniform (Harris 1975, "The statistical estimation of entropy in the non-parametric case"). Raises
    DistributionError for what are no counts, and for more than one row of them.

    >>> print(entropy_from_counts(Counts([5, 5]), miller_madow=False))  # log 2
    0.6931 ± 0.071 (10 samples; plug-in: too low by about 0.05, and more where outcomes were not seen)
    >>> print(entropy_from_counts(Counts([5, 5])))
    0.7431 ± 0.071 (10 samples; plug-in with Miller-Madow correction: too low where outcomes were not seen)
    """
    value = float(entropy(_counts(p, "p")))
    p_K, _, samples = _shares(p)
    p_K = p_K[p_K > 0]
    missing = (len(p_K) - 1) / (2 * samples)
    variance = max(float(p_K @ (-np.log(p_K) - value) ** 2) / samples, (len(p_K) - 1) / (2 * samples**2))
    bias = "plug-in with Miller-Madow correction: too low where outcomes were not seen"
    if not miller_madow:
        bias = f"plug-in: too low by about {missing:.2g}, and more where outcomes were not seen"
    return Estimate(value + missing * miller_madow, math.sqrt(variance), int(samples), bias)


def kl_from_counts(p: Counts, q: Distribution, *, support: Support = "exact", miller_madow: bool = True) -> Estimate:
    """KL(p, q) from counts of samples of p, and counts of samples of q or, in any other wrapper, q itself.

    To second order the plug-in is too high by (K_p - 1) / 2N + (sum p/q - 1) / 2M, for N samples of p, M of q and K_p
    outcomes that p has; at p = q that is (K - 1) (1/N + 1/M) / 2. The correction takes it off, which may leave a small
    negative number. The variance is the delta method's, (sum p log^2(p/q) - KL^2) / N + (sum p^2/q - 1) / M, but at
    least (K - 1) (1/N + 1/M)^2 / 2, which is what is left of it at p = q. All by expansion of the plug-in about p and
    q; at p = q with q known it is the mean and variance of chi-squared / 2N.

    Infinite where p's sample has an outcome that q's has not: `support=Smooth(amount)` keeps it finite, and pulls it
    towards 0; "raise" raises. What is estimated, and corrected, is then KL(P, Q) of the smoothed P and Q: in g =
    (1 - amount)^2 times sum p (1 - p) / P / 2N + sum P q (1 - q) / Q^2 / 2M, with the variance g Var_p(log P/Q) / N +
    g Var_q(P/Q) / M. Raises DistributionError for more than one row, and where the outcomes do not match.

    >>> from kilter.divergence import Probs
    >>> print(kl_from_counts(Counts([20, 80]), Probs([0.8, 0.2]), miller_madow=False))  # 0.6 log 4
    0.8318 ± 0.11 (100 samples; plug-in: too high by about 0.005)
    >>> print(kl_from_counts(Counts([20, 80]), Counts([100, 0])))
    inf ± nan (200 samples; p's sample has 1 outcome that q's has not)
    """
    value = float(kl(_counts(p, "p"), _one_row(q, "q"), support=support))
    smoothing = 0.0 if isinstance(support, str) else support.amount
    (p_K, smooth_p_K, p_samples), (q_K, smooth_q_K, q_samples) = (_shares(of, smoothing) for of in (p, q))
    samples = int(p_samples + (q_samples if math.isfinite(q_samples) else 0))
    if value == math.inf:
        missing = int(((p_K > 0) & (q_K == 0)).sum())
        bias = f"p's sample has {missing} outcome{'s' * (missing > 1)} that q's has not"
        return Estimate(value, math.nan, samples, bias)
    p_K, q_K, smooth_p_K, smooth_q_K = (share_K[smooth_p_K > 0] for share_K in (p_K, q_K, smooth_p_K, smooth_q_K))
    ratio_K, rest = smooth_p_K / smooth_q_K, (1 - smoothing) ** 2
    of_p = float((p_K * (1 - p_K) / smooth_p_K).sum())
    of_q = float((ratio_K * q_K * (1 - q_K) / smooth_q_K).sum())
    excess = rest * (of_p / p_samples + of_q / q_samples) / 2
    spread = rest * (_variance(p_K, np.log(ratio_K)) / p_samples + _variance(q_K, ratio_K) / q_samples)
    at_equality = rest**2 * (len(p_K) - 1) * (1 / p_samples + 1 / q_samples) ** 2 / 2
    bias = "plug-in with Miller-Madow correction" if miller_madow else f"plug-in: too high by about {excess:.2g}"
    if smoothing:
        bias += f"; smoothing by {smoothing:g} pulls it towards 0"
    return Estimate(value - excess * miller_madow, math.sqrt(max(spread, at_equality)), samples, bias)


def _variance(p_K: Floats, value_K: Floats) -> float:
    """Of a value that is 0 wherever it is not given."""
    mean = float(p_K @ value_K)
    return float(p_K @ (value_K - mean) ** 2 + (1 - p_K.sum()) * mean**2)


def _one_row(value: object, name: str) -> Distribution:
    distribution = required(value, name)
    if distribution.values.ndim != 1:
        found = f"{distribution.noun} of shape {tuple(distribution.values.shape)} as {name}"
        raise DistributionError(f"found {found}; wanted one row: estimate each by itself")
    return distribution


def _counts(value: object, name: str) -> Counts:
    distribution = _one_row(value, name)
    if not isinstance(distribution, Counts):
        raise DistributionError(f"found {distribution.noun} as {name}; wanted Counts(...): how often each was seen")
    return distribution


def _shares(distribution: Distribution, smoothing: float = 0.0) -> _Shares:
    """Probabilities, the same smoothed, and the number of samples behind them."""
    row = on_host(distribution.along(-1)).astype(np.float64)
    samples = float(row.sum()) if isinstance(distribution, Counts) else math.inf
    plain, smoothed = (floats(form_of(distribution, row, amount).p) for amount in (0.0, smoothing))
    return _Shares(plain, smoothed, samples)
