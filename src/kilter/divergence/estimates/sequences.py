"""KL(p, q) between distributions over whole sequences, from sequences that p drew, in nats.

By the chain rule it is the mean, over sequences drawn from p, of the sum along them of the exact KL of each next-token
distribution. The sum of log-ratios (k1) has the same mean: given what came before, each of its terms has the token's
exact KL for a mean. Putting the KL in its place (Rao-Blackwell) leaves out the chance in that draw. So the term of each
token varies less, and so does their sum as a rule (Amini, Vieira and Cotterell 2025, arXiv 2504.10637). It need not:
terms are not independent, and where a token that q finds too likely leads to contexts of much KL, the log-ratios along
the sequence make up for each other. The sum of each token's k3 has the same mean, too, where q has no mass where p has
none.

That holds for sequences drawn from p as it is: at temperature 1, from all tokens. Sequences cut at a greatest length
estimate the KL of sequences so cut, which is at most that of whole ones.

Axes: N sequences, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kilter.divergence.estimates.gradients import stop_gradient
from kilter.divergence.estimates.log_ratios import k3
from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats, mean_estimate
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

ROUNDING = 1e-4  # by which the KL of two distributions that are nearly the same may be negative, in float32
BIAS = "unbiased for sequences drawn from p as it is, at temperature 1"


class Variances(NamedTuple):
    """The variance (ddof 1) of one sequence's value by each of the three estimates, in nats squared; NaN for fewer than
    two sequences."""

    kl: float
    log_ratio: float
    k3: float


class SequenceKl(NamedTuple):
    """Three estimates of KL(p, q) of whole sequences from the same samples, in nats a sequence: by the exact KL of each
    token (Rao-Blackwellised), by log-ratios (k1), and by the k3 of each token; and how much each varies."""

    kl: Estimate
    log_ratio: Estimate
    k3: Estimate
    variance: Variances


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
    Raises DistributionError where the two do not have the same shapes, and for what no KL and no log-ratio can be.

    >>> found = kl_from_sequences([[0.5, 0.1], [0.5]], [[0.7, -0.2], [0.1]])
    >>> round(found.kl.value, 6), round(found.log_ratio.value, 6), round(found.variance.kl, 6)
    (0.55, 0.3, 0.005)
    """
    given = {"token_kl": token_kl, "token_log_ratio": token_log_ratio}
    if mask_NT is None:
        rows = {name: [floats(row) for row in values] for name, values in given.items()}
    else:
        whole = {name: floats(values) for name, values in given.items()}
        counts_NT = floats(mask_NT) > 0
        _check_shapes({**whole, "mask": counts_NT})
        rows = {
            name: [row[keep] for row, keep in zip(values, counts_NT, strict=True)] for name, values in whole.items()
        }
    _check_tokens(**rows)
    with np.errstate(over="ignore", invalid="ignore"):  # exp(-log-ratio) may be infinite
        sums = [[row.sum() for row in values] for values in rows.values()]
        sums.append([k3(row).sum() for row in rows["token_log_ratio"]])
        biases = (BIAS, BIAS, f"{BIAS}, if q has no mass where p has none")
        told = zip(sums, biases, strict=True)
        kl, log_ratio, of_k3 = (mean_estimate(np.array(sum_N), clusters=clusters, bias=bias) for sum_N, bias in told)
        variances = [float(np.var(sum_N, ddof=1)) if len(sum_N) > 1 else math.nan for sum_N in sums]
    return SequenceKl(kl, log_ratio, of_k3, Variances(*variances))


def sequence_kl_loss(token_kl_NT: Array, log_prob_NT: Array, *, mask_NT: Array | None = None) -> Array:
    """A loss [N] for sequences that p drew, whose mean is KL(p, q) of sequences, in value and in gradient.

    The value is the sum of token KL. Its own gradient is not all: an earlier token also decides in which contexts
    later KL is paid. So each token's log-prob under p (with its graph) is weighed by the sum of the KL after it (Amini,
    Vieira and Cotterell 2025, arXiv 2504.10637). For on-policy sequences. Raises DistributionError for shapes that
    differ.

    >>> float(sequence_kl_loss(np.array([[0.5, 0.1]]), np.log([[0.3, 0.6]]))[0])
    0.6
    """
    xp = array_namespace(token_kl_NT, log_prob_NT)
    _check_shapes({"token_kl": token_kl_NT, "log_prob": log_prob_NT, "mask": mask_NT})
    if mask_NT is not None:
        token_kl_NT, log_prob_NT = (
            xp.where(mask_NT, values, xp.zeros_like(values)) for values in (token_kl_NT, log_prob_NT)
        )
    fixed_NT = stop_gradient(token_kl_NT)
    here_and_after_NT = xp.flip(xp.cumulative_sum(xp.flip(fixed_NT, axis=1), axis=1), axis=1)
    after_NT = xp.concat([here_and_after_NT[:, 1:], xp.zeros_like(fixed_NT[:, :1])], axis=1)
    after_NT = xp.where(xp.isfinite(after_NT), after_NT, xp.zeros_like(after_NT))  # the sum is infinite anyway
    score_NT = log_prob_NT - stop_gradient(log_prob_NT)  # 0, with the gradient of log p
    return xp.sum(token_kl_NT + after_NT * score_NT, axis=1)


def _check_shapes(arrays: Mapping[str, Array | None]) -> None:
    """All of one shape [N, T]; None is left out."""
    shapes = {name: tuple(values.shape) for name, values in arrays.items() if values is not None}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        found = " and ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise DistributionError(f"found {found}; wanted one shape, sequences by tokens")


def _check_tokens(token_kl: list[Floats], token_log_ratio: list[Floats]) -> None:
    """Both are numbers for each token of each sequence, and no KL is negative."""
    shapes, others = ([row.shape for row in rows] for rows in (token_kl, token_log_ratio))
    if shapes != others or any(len(shape) != 1 for shape in shapes):
        raise DistributionError(
            "token_kl and token_log_ratio differ in shape, or are no rows of tokens; give both for each token of each "
            "sequence"
        )
    for at, (kl_T, log_ratio_T) in enumerate(zip(token_kl, token_log_ratio, strict=True)):
        if np.isnan(kl_T).any() or (kl_T < -ROUNDING).any():
            raise DistributionError(
                f"sequence {at} has a token KL of {kl_T.min():g}; a KL is a number and not negative"
            )
        if np.isnan(log_ratio_T).any() or (log_ratio_T == -np.inf).any():
            raise DistributionError(
                f"sequence {at} has a log-ratio of {log_ratio_T.min():g}; a token that p drew has p > 0, so log p - "
                "log q is a number, or inf where q = 0"
            )
