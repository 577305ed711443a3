"""Entropy and KL estimated from how often each outcome was seen, in nats.

The plug-in estimate takes observed shares for probabilities. It is biased by about the number of outcomes over twice
the number of samples: entropy comes out too low, and KL too high. The Miller-Madow correction adds that term back.

Axes: K outcomes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kilter.divergence.estimates import Array, Estimate, Floats, floats
from kilter.errors import DistributionError


class _Table(NamedTuple):
    share_K: Floats
    total: float  # inf: the shares are known


def entropy_from_counts(counts_K: Array, *, miller_madow: bool = True) -> Estimate:
    """Entropy H(p) from counts of samples of p.

    The correction is (outcomes seen - 1) / 2N (Miller 1955, "Note on the bias of information estimates"). The variance
    is the delta method's, (sum p log^2 p - H^2) / N, but at least (K - 1) / 2N^2, which is what is left where p is
    uniform (Harris 1975, "The statistical estimation of entropy in the non-parametric case"). Raises
    DistributionError for counts that are negative or not whole, or where there are none.

    >>> entropy_from_counts([5, 5], miller_madow=False).value  # log 2
    0.6931471805599453
    >>> print(entropy_from_counts([5, 5]))
    0.7431 ± 0.071 (10 samples; plug-in with Miller-Madow correction: too low where outcomes were not seen)
    """
    p_K, total = _table(counts_K, "counts")
    p_K = p_K[p_K > 0]
    surprise_K = -np.log(p_K)
    value = float(p_K @ surprise_K)
    outcomes = len(p_K)
    variance = max(float(p_K @ (surprise_K - value) ** 2) / total, (outcomes - 1) / (2 * total**2))
    correction = (outcomes - 1) / (2 * total) if miller_madow else 0.0
    return Estimate(value + correction, math.sqrt(variance), int(total), _entropy_bias(p_K, total, miller_madow))


def kl_from_counts(
    p_counts_K: Array,
    q_counts_K: Array | None = None,
    *,
    q_probs_K: Array | None = None,
    pseudo_count: float = 0.0,
    miller_madow: bool = True,
) -> Estimate:
    """KL(p, q) from counts of samples of p, and counts of samples of q or q itself (`q_probs_K`, probabilities).

    To second order the plug-in is too high by (K_p - 1) / 2N + (sum p/q - 1) / 2M, for N samples of p, M of q and K_p
    outcomes that p has; at p = q that is (K - 1) / 2 (1/N + 1/M). The correction takes it off, which may leave a small
    negative number. The variance is the delta method's, (sum p log^2(p/q) - KL^2) / N + (sum p^2/q - 1) / M, but at
    least (K - 1) (1/N + 1/M)^2 / 2, which is what is left of it at p = q. All by expansion of the plug-in about p and
    q; at p = q with q known it is the mean and variance of chi-squared / 2N.

    The estimate is infinite where p's sample has an outcome that q's has not. A `pseudo_count` that is added to
    every count (also of outcomes that neither has) keeps it finite, and pulls it towards 0. Raises
    DistributionError for what are no counts, or no probabilities, or tables of different lengths.

    >>> print(kl_from_counts([20, 80], q_probs_K=[0.8, 0.2], miller_madow=False))  # 0.6 log 4
    0.8318 ± 0.11 (100 samples; plug-in: too high by about 0.005)
    >>> kl_from_counts([20, 80], [80, 20]).value > kl_from_counts([20, 80], [60, 40]).value
    True
    """
    if (q_counts_K is None) == (q_probs_K is None):
        raise DistributionError("of q_counts_K and q_probs_K give one: counts of q's samples, or q's probabilities")
    p_share_K, p_total = _table(p_counts_K, "counts of p", pseudo_count)
    q_share_K, q_total = _known(q_probs_K) if q_probs_K is not None else _table(q_counts_K, "counts of q", pseudo_count)
    if p_share_K.shape != q_share_K.shape:
        found = f"found {len(p_share_K)} outcomes of p and {len(q_share_K)} of q"
        raise DistributionError(f"{found}; line the two tables up, with 0 for what was not seen")
    samples = int(floats(p_counts_K).sum() + (0 if q_counts_K is None else floats(q_counts_K).sum()))
    unseen = int(((p_share_K > 0) & (q_share_K == 0)).sum())
    if unseen:
        why = f"infinite: {unseen} outcomes of p's sample are missing from q's; more samples or a pseudo_count help"
        return Estimate(math.inf, math.nan, samples, why)
    seen = p_share_K > 0
    p_K, q_K = p_share_K[seen], q_share_K[seen]
    log_ratio_K, ratio_K = np.log(p_K / q_K), p_K / q_K
    value = float(p_K @ log_ratio_K)
    excess = (len(p_K) - 1) / (2 * p_total) + (float(ratio_K.sum()) - 1) / (2 * q_total)
    at_equality = (len(p_K) - 1) * (1 / p_total + 1 / q_total) ** 2 / 2
    in_general = float(p_K @ (log_ratio_K - value) ** 2) / p_total + (float(p_K @ ratio_K) - 1) / q_total
    bias = "plug-in with Miller-Madow correction" if miller_madow else f"plug-in: too high by about {excess:.2g}"
    if pseudo_count:
        bias += f"; a pseudo-count of {pseudo_count:g} pulls it towards 0"
    return Estimate(value - excess * miller_madow, math.sqrt(max(in_general, at_equality)), samples, bias)


def _table(counts_K: Array, name: str, pseudo_count: float = 0.0) -> _Table:
    counts = floats(counts_K)
    if counts.ndim != 1:
        raise DistributionError(f"{name} have shape {counts.shape}; give one count for each outcome")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.round(counts)).all()):
        worst = counts[~(np.isfinite(counts) & (counts >= 0) & (counts == np.round(counts)))][0]
        raise DistributionError(f"{name} hold {worst:g}; counts are whole numbers, at least 0")
    if counts.sum() == 0:
        raise DistributionError(f"{name} add up to 0; without samples there is nothing to estimate from")
    counts = counts + pseudo_count
    total = float(counts.sum())
    return _Table(counts / total, total)


def _known(probs_K: Array) -> _Table:
    probs = floats(probs_K)
    if probs.ndim != 1 or not (probs >= 0).all() or abs(probs.sum() - 1) > 1e-6:
        found = f"q_probs_K of shape {probs.shape}, sum {probs.sum():g}, least {probs.min(initial=math.inf):g}"
        raise DistributionError(f"found {found}; give probabilities: one row, none negative, that add up to 1")
    return _Table(probs, math.inf)


def _entropy_bias(p_K: Floats, total: float, miller_madow: bool) -> str:
    if miller_madow:
        return "plug-in with Miller-Madow correction: too low where outcomes were not seen"
    return f"plug-in: too low by about {(len(p_K) - 1) / (2 * total):.2g}, and more where outcomes were not seen"
