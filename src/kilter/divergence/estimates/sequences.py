"""KL(p, q) between distributions over whole sequences, from sequences that p drew, in nats.

By the chain rule it is the mean, over sequences drawn from p, of the sum along them of the exact KL of each next-token
distribution. The sum of log-ratios has the same mean: given what came before, each of its terms has the token's exact
KL for a mean. Putting the KL in its place (Rao-Blackwell) leaves out the chance in that draw, so it varies less.

That holds for sequences drawn from p as it is: at temperature 1, from all tokens. Sequences cut at a greatest length
estimate the KL of sequences so cut, which is at most that of whole ones.

Axes: N sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from kilter.divergence.estimates.gradients import stop_gradient
from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats, mean_estimate
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

BIAS = "unbiased for sequences drawn from p as it is, at temperature 1"


class SequenceKl(NamedTuple):
    """Two unbiased estimates of KL(p, q) of whole sequences from the same samples, in nats a sequence: by the exact KL
    of each token (Rao-Blackwellised), and by log-ratios, which is noisier."""

    kl: Estimate
    log_ratio: Estimate


def kl_from_sequences(
    token_kl: Sequence[Array] | Array,
    token_log_ratio: Sequence[Array] | Array,
    *,
    mask_NT: Array | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> SequenceKl:
    """KL(p, q) of sequences that p drew: from the exact KL(p, q) of the next-token distributions along each, and the
    log-ratio log p - log q of each token drawn.

    Both are one array for each sequence, of its length, or one [N, T] with a mask of the tokens that count (what stands
    elsewhere may be NaN). `clusters` names what samples have in common, such as their prompt, as in `mean_estimate`.
    Raises DistributionError where the two do not have the same shapes.

    >>> kl, log_ratio = kl_from_sequences([[0.5, 0.1], [0.5]], [[0.7, -0.2], [0.1]])
    >>> round(kl.value, 6), round(log_ratio.value, 6), kl.standard_error < log_ratio.standard_error
    (0.55, 0.3, True)
    """
    kl_N, log_ratio_N = _sums(token_kl, mask_NT), _sums(token_log_ratio, mask_NT)
    if _lengths(token_kl) != _lengths(token_log_ratio):
        raise DistributionError(
            "token_kl and token_log_ratio differ in shape; give both for each token of each sequence"
        )
    return SequenceKl(*(mean_estimate(sum_N, clusters=clusters, bias=BIAS) for sum_N in (kl_N, log_ratio_N)))


def sequence_kl_loss(token_kl_NT: Array, log_prob_NT: Array, *, mask_NT: Array | None = None) -> Array:
    """A loss [N] for sequences that p drew, whose mean is KL(p, q) of sequences, in value and in gradient.

    The value is the sum of token KL. Its own gradient is not all: an earlier token also decides in which contexts
    later KL is paid. So each token's log-prob under p (with its graph) is weighed by the sum of the KL after it (Amini,
    Vieira and Cotterell 2025, arXiv 2504.10637). For on-policy sequences.

    >>> float(sequence_kl_loss(np.array([[0.5, 0.1]]), np.log([[0.3, 0.6]]))[0])
    0.6
    """
    xp = array_namespace(token_kl_NT, log_prob_NT)
    if mask_NT is not None:
        token_kl_NT, log_prob_NT = (
            xp.where(mask_NT, values, xp.zeros_like(values)) for values in (token_kl_NT, log_prob_NT)
        )
    fixed_NT = stop_gradient(token_kl_NT)
    after_NT = xp.sum(fixed_NT, axis=1, keepdims=True) - xp.cumulative_sum(fixed_NT, axis=1)
    score_NT = log_prob_NT - stop_gradient(log_prob_NT)  # 0, with the gradient of log p
    return xp.sum(token_kl_NT + after_NT * score_NT, axis=1)


def _sums(values: Sequence[Array] | Array, mask_NT: Array | None) -> Floats:
    if mask_NT is None:
        return np.array([floats(row).sum() for row in values], dtype=np.float64)
    counted: Floats = np.where(floats(mask_NT) > 0, floats(values), 0.0).sum(axis=1)
    return counted


def _lengths(values: Sequence[Array] | Array) -> list[int]:
    return [len(row) for row in values]
