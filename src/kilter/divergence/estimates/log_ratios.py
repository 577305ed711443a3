"""KL(p, q) by Monte Carlo from log-ratios log p(x) - log q(x) of samples x of p, in nats.

Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), has three terms whose mean over samples
is KL(p, q), exactly (k1, k3) or nearly (k2). As values and as losses they are different things, for a loss takes the
gradient of the term at samples that were drawn already, and leaves out that other samples would have been drawn:

| term | | as value | its gradient, in the mean over samples of p |
|---|---|---|---|
| k1 | `l` | unbiased, may be negative | 0 |
| k2 | `l^2 / 2` | biased, near KL for small `l` | that of KL(p, q) |
| k3 | `exp(-l) - 1 + l` | unbiased, never negative | that of KL(q, p), the other direction |

where p depends on the parameters, q does not, and `l` is the log-ratio. So k3 is for measuring, k2 for training, and
`kl_loss` is both at once: the value of one and the gradient of the other.

NumPy, PyTorch and JAX arrays alike, with gradients where the array has them. Axes: N samples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from kilter.divergence.estimates.gradients import stop_gradient
from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats, mean_estimate
from kilter.divergence.exact.power import power_terms
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

HEAVY = 0.1  # of all weight on one sample


def k1(log_ratio: Array) -> Array:
    """The log-ratio itself: unbiased for KL(p, q) over samples of p. As a loss it trains nothing: E grad log p = 0.

    >>> float(k1(np.array(-0.5)))
    -0.5
    """
    return log_ratio


def k2(log_ratio: Array) -> Array:
    """Half the squared log-ratio: as a loss on samples of p its mean gradient is that of KL(p, q).

    For grad l^2 / 2 = l grad log p, which is the score-function gradient of KL(p, q). As a value it is biased.

    >>> float(k2(np.array(-0.5)))
    0.125
    """
    return log_ratio * log_ratio / 2


def k3(log_ratio: Array) -> Array:
    """exp(-l) - 1 + l: unbiased for KL(p, q) over samples of p, and never negative.

    Not a loss for KL(p, q): grad k3 = (1 - q/p) grad log p, and over samples of p that is the gradient of KL(q, p).
    Computed without cancellation where l is small. Unbiased only if q gives nothing to outcomes that p never draws
    (top-p sampling, a masked vocabulary): the mean of q/p over samples is then q's mass on p's outcomes, not 1.

    >>> float(k3(np.array(-0.5))), float(k3(np.array(1e-9)))
    (0.1487212707001282, 4.999999998333333e-19)
    """
    xp = array_namespace(log_ratio)
    ones, zeros = xp.ones_like(log_ratio), xp.zeros_like(log_ratio)
    return power_terms(ones, zeros, xp.expm1(-log_ratio), -log_ratio, 0.0)


class Term(NamedTuple):
    """A function of the log-ratio, and what it is as a value and as a loss over samples of p."""

    function: Callable[[Array], Array]
    bias: str
    gradient: str


TERMS = {
    "k1": Term(k1, "unbiased, may be negative", "0"),
    "k2": Term(k2, "k2: biased, near KL only where log-ratios are small", "KL(p, q)"),
    "k3": Term(k3, "unbiased if q has no mass where p has none", "KL(q, p)"),
}


def kl_from_log_ratios(log_ratio_N: Array, *, term: str = "k3", clusters: Sequence[Hashable] | None = None) -> Estimate:
    """KL(p, q) as the mean of a term over the log-ratios log p - log q of independent samples of p.

    `clusters` as in `mean_estimate`. k3 has the smaller error where p and q are close; where they are far apart a few
    samples with large exp(-l) rule it, its standard error is too small, which is warned of, and k1 is the safer. For
    samples whose log-ratio is a sum over
    tokens see `kl_from_sequences`. Raises DistributionError for an unknown term, and for a log-ratio that is NaN, or
    -inf, which no sample of p can have.

    >>> log_ratio = np.log([0.2, 0.8, 0.8, 0.8, 0.8]) - np.log([0.8, 0.2, 0.2, 0.2, 0.2])  # each as often as p has it
    >>> round(kl_from_log_ratios(log_ratio, term="k1").value, 6), round(kl_from_log_ratios(log_ratio).value, 6)
    (0.831777, 0.831777)
    """
    if term not in TERMS:
        raise DistributionError(f"no term is called {term!r}; there are {', '.join(TERMS)}")
    checked_N = floats(log_ratio_N).reshape(-1)
    impossible = np.isnan(checked_N) | (checked_N == -np.inf)
    if impossible.any():
        at = int(np.argmax(impossible))
        raise DistributionError(
            f"the log-ratio of sample {at} is {checked_N[at]}; samples of p have p > 0, so log p - log q is a number, "
            "or inf where q = 0"
        )
    with np.errstate(over="ignore"):
        terms_N = TERMS[term].function(checked_N)
    bias = TERMS[term].bias + (_heavy_sample_note(checked_N) if term == "k3" else "")
    return mean_estimate(terms_N, clusters=clusters, bias=bias)


def _heavy_sample_note(log_ratio_N: Floats) -> str:
    """What is to be said where the mean of q/p, which is 1, rests on one sample: then others as rare are missing."""
    if not len(log_ratio_N) or not math.isfinite(log_ratio_N.min()):
        return ""
    share = 1 / float(np.exp(log_ratio_N.min() - log_ratio_N).sum())
    if share <= max(HEAVY, 5 / len(log_ratio_N)):
        return ""
    note = f"one sample holds {share:.0%} of the weight: the standard error is too small; see term='k1'"
    warnings.warn(note, stacklevel=3)
    return f"; {note}"


def kl_loss(log_ratio: Array) -> Array:
    """A loss for each sample of p whose value is k3 and whose gradient is that of k2.

    So its mean is an unbiased, nonnegative measure of KL(p, q), and the mean of its gradient with respect to p's
    parameters is that of KL(p, q), for on-policy samples: drawn from p as it now is. For others weigh the loss by
    p / (the distribution drawn from). The log-ratio is log p - log q with the graph of log p; where it is infinite, the
    loss is, and has no gradient.

    >>> float(kl_loss(np.array(-0.5))) == float(k3(np.array(-0.5)))
    True
    """
    xp = array_namespace(log_ratio)
    # k2 is not even formed where it is infinite: its slope would be, too, and times 0 is NaN.
    loss = k2(xp.where(xp.isfinite(k2(stop_gradient(log_ratio))), log_ratio, xp.zeros_like(log_ratio)))
    return k3(stop_gradient(log_ratio)) + (loss - stop_gradient(loss))
