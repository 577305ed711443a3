"""Entropy and divergences of discrete distributions, exact and without cancellation.

Each function takes distributions whose wrapper says what their numbers are (`Probs`, `LogProbs`, `Logits`, `Counts`)
and the keywords of `Options`; the order is always (p, q). One formula serves NumPy, PyTorch, JAX and CuPy arrays
(array-api-compat), with gradients where the array has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
from array_api_compat import device, is_torch_array

from kilter.divergence.exact.distributions import Distribution, Logits, detached, on_host, required
from kilter.divergence.exact.forms import Form, Pair, form_of
from kilter.divergence.exact.jensen_shannon import mixture_sum
from kilter.divergence.exact.power import kl_sum, log_sum_exp, power_integral, power_sum
from kilter.divergence.exact.rows import Options, RowOptions, Unit
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any

# From this many PyTorch logits on, they are worked on in blocks.
LARGE = 1 << 16


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
    return of_two(p, q, options, unit, kl_sum)


def jeffreys(p: Distribution, q: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """Jeffreys' divergence KL(p, q) + KL(q, p) = sum (p - q) log(p / q), the sum and not its half (Jeffreys 1946).

    One value for each row: symmetric, and inf where one of p and q is 0 and the other is not.

    >>> from kilter.divergence import Probs
    >>> round(float(jeffreys(Probs([0.2, 0.8]), Probs([0.8, 0.2]))), 6)  # 1.2 log 4
    1.663553
    """
    return of_two(p, q, options, unit, lambda pair: kl_sum(pair) + kl_sum(pair.swapped))


def js(
    p: Distribution, q: Distribution, *, weight: float = 0.5, unit: Unit = "nats", **options: Unpack[Options]
) -> Array:
    """Jensen-Shannon divergence w KL(p, m) + (1 - w) KL(q, m), where m = w p + (1 - w) q and w = `weight` (Lin 1991).

    One value for each row, always finite: at most log 2 for the weight 1/2, at most the entropy of (w, 1 - w) for
    others. It vanishes as the weight goes to 0 or 1, so those weights raise; `generalised_js` has limits there.

    >>> from kilter.divergence import Probs
    >>> float(js(Probs([1.0, 0.0]), Probs([0.0, 1.0]), unit="bits"))
    1.0
    """
    if not 0 < weight < 1:
        advice = "at 0 and 1 this divergence is 0 for any p and q; generalised_js goes over into KL there"
        raise DistributionError(f"found weight {weight}; wanted one between 0 and 1: {advice}")
    return of_two(p, q, options, unit, lambda pair: mixture_sum(pair, weight))


def generalised_js(
    p: Distribution, q: Distribution, *, weight: float, unit: Unit = "nats", **options: Unpack[Options]
) -> Array:
    """Jensen-Shannon divergence of a weight, divided by weight (1 - weight): KL(p, q) at 0, and KL(q, p) at 1.

    (w KL(p, m) + (1 - w) KL(q, m)) / (w (1 - w)), where m = w p + (1 - w) q. At 1/2 it is four times `js`. One value
    for each row; at the weights 0 and 1 it is the limit. The normalisation is that of Nielsen 2010 (arXiv 1009.4004)
    for skewed Jensen divergences; that of Agarwal et al. 2024 (arXiv 2306.13649) is `js`, which is 0 at both ends.

    >>> from kilter.divergence import Probs
    >>> p, q = Probs([0.5, 0.5]), Probs([0.7, 0.3])
    >>> [round(float(generalised_js(p, q, weight=w)), 5) for w in (0, 1e-6, 1)]
    [0.08718, 0.08718, 0.08228]
    """
    if not 0 <= weight <= 1:
        raise DistributionError(f"found weight {weight}; wanted one from 0 to 1")
    if weight == 0:
        return kl(p, q, unit=unit, **options)
    if weight == 1:
        return kl(q, p, unit=unit, **options)
    return of_two(p, q, options, unit, lambda pair: mixture_sum(pair, weight) / (weight * (1 - weight)))


def renyi(p: Distribution, q: Distribution, *, order: float, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """Rényi divergence log(sum p^a q^(1-a)) / (a - 1) of order a >= 0 (Rényi 1961; van Erven, Harremoës 2014).

    One value for each row. At order 1 it is KL(p, q), at 0 -log q(p > 0), at inf the largest log(p / q); at 1/2 it is
    twice the Bhattacharyya distance. inf where p > 0 = q for orders from 1, and where p and q share no outcome.

    >>> from kilter.divergence import Probs
    >>> p, q = Probs([0.5, 0.5, 0.0]), Probs([0.25, 0.25, 0.5])
    >>> [round(float(renyi(p, q, order=a, unit="bits")), 6) for a in (0, 0.5, 1, 2, float("inf"))]
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    _nonnegative(order)
    return of_two(p, q, options, unit, lambda pair: _renyi(pair, order))


def alpha(p: Distribution, q: Distribution, *, order: float, **options: Unpack[Options]) -> Array:
    """Alpha-divergence (sum p^a q^(1-a) - 1) / (a (a - 1)) for any real a = `order` (Cichocki, Amari 2010).

    One value for each row. KL(p, q) at order 1 and KL(q, p) at 0, in nats; 4 squared Hellinger distances at 1/2; half
    of chi2(p, q) at 2. Amari's own parameter is 1 - 2 a (or its negative).

    >>> from kilter.divergence import Probs
    >>> round(float(alpha(Probs([0.5, 0.5]), Probs([0.25, 0.75]), order=2)), 6)
    0.166667
    """
    if not math.isfinite(order):
        raise DistributionError(f"found order {order}; wanted a finite one")
    return of_two(p, q, options, "nats", lambda pair: power_sum(pair, order))


def tsallis(p: Distribution, q: Distribution, *, order: float, **options: Unpack[Options]) -> Array:
    """Tsallis divergence (sum p^a q^(1-a) - 1) / (a - 1) of order a >= 0 (Tsallis 1998); KL(p, q) in nats at order 1.

    One value for each row; at order 0 it is q(p = 0).

    >>> from kilter.divergence import Probs
    >>> round(float(tsallis(Probs([0.5, 0.5]), Probs([0.25, 0.75]), order=2)), 6)
    0.333333
    """
    _nonnegative(order)
    if not math.isfinite(order):
        raise DistributionError(f"found order {order}; wanted a finite one")
    return of_two(p, q, options, "nats", lambda pair: _tsallis(pair, order))


def total_variation(p: Distribution, q: Distribution, **options: Unpack[Options]) -> Array:
    """Total variation distance `sum |p - q| / 2`: the most by which p and q disagree on an event. From 0 to 1.

    One value for each row.

    >>> from kilter.divergence import Probs
    >>> round(float(total_variation(Probs([0.2, 0.8]), Probs([0.8, 0.2]))), 12)
    0.6
    """
    return of_two(p, q, options, "nats", absolute_sum)


def hellinger(p: Distribution, q: Distribution, **options: Unpack[Options]) -> Array:
    """Hellinger distance sqrt(sum (sqrt p - sqrt q)^2 / 2), from 0 to 1 (Hellinger 1909).

    One value for each row. Its gradient is taken as 0 where p = q, where it has a corner.

    >>> from kilter.divergence import Probs
    >>> float(hellinger(Probs([1.0, 0.0]), Probs([0.0, 1.0])))
    1.0
    """
    return of_two(p, q, options, "nats", lambda pair: _root(power_sum(pair, 0.5) / 4))


def chi2(p: Distribution, q: Distribution, **options: Unpack[Options]) -> Array:
    """Pearson's chi-squared divergence sum (p - q)^2 / q: the variance of p / q under q (Pearson 1900).

    One value for each row: inf where p > 0 = q. Neyman's is `chi2(q, p)`.

    >>> from kilter.divergence import Probs
    >>> round(float(chi2(Probs([0.5, 0.5]), Probs([0.25, 0.75]))), 6)
    0.333333
    """
    return of_two(p, q, options, "nats", lambda pair: 2 * power_sum(pair, 2.0))


def bhattacharyya(p: Distribution, q: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Array:
    """Bhattacharyya distance -log sum sqrt(p q) (Bhattacharyya 1943): inf where p and q share no outcome.

    One value for each row.

    >>> from kilter.divergence import Probs
    >>> round(float(bhattacharyya(Probs([1.0, 0.0]), Probs([0.25, 0.75]), unit="bits")), 6)
    1.0
    """
    return of_two(p, q, options, unit, lambda pair: _renyi(pair, 0.5) / 2)


def wasserstein1(
    p: Distribution, q: Distribution, *, positions: Array | None = None, **options: Unpack[Options]
) -> Array:
    """Wasserstein-1 distance on an ordered support: the least mean distance over which p must be moved to become q.

    In the unit of `positions` (n,), where the outcomes lie, ascending; 0, 1, ..., n - 1 by default. It is the sum of
    `|P - Q|` over the gaps, P and Q the cumulative distributions (Vallender 1974). One value for each row.

    >>> from kilter.divergence import Probs
    >>> float(wasserstein1(Probs([1.0, 0.0, 0.0]), Probs([0.0, 0.0, 1.0]), positions=[0.0, 1.0, 5.0]))
    5.0
    """
    return of_two(p, q, options, "nats", lambda pair: _wasserstein1(pair, positions))


def of_one(p: Distribution, options: Options, unit: str, value: Callable[[Form], Array]) -> Array:
    """A function of one distribution, for each row; reduced as asked for."""
    settings = RowOptions.of(options)
    (rows,) = settings.read({"p": required(p, "p")})
    values = value(form_of(p, rows, settings.smoothing))
    return settings.reduce(values, settings.kept(rows), unit, lambda index: "the numbers are too large")


def of_two(p: Distribution, q: Distribution, options: Options, unit: str, value: Callable[[Pair], Array]) -> Array:
    """A function of two distributions, for each row; reduced as asked for."""
    settings = RowOptions.of(options)
    given = {"p": required(p, "p"), "q": required(q, "q")}
    if _large_logits(p, q, settings):
        rows_p, rows_q, values = _by_blocks(given, settings, value)
    else:
        rows_p, rows_q = settings.read(given)
        values = value(Pair(form_of(p, rows_p, settings.smoothing), form_of(q, rows_q, settings.smoothing)))

    def explain(index: tuple[int, ...]) -> str:
        return _mismatch(form_of(p, rows_p[index], settings.smoothing), form_of(q, rows_q[index], settings.smoothing))

    return settings.reduce(values, settings.kept(rows_p), unit, explain)


def _large_logits(p: Distribution, q: Distribution, settings: RowOptions) -> bool:
    """Whether both are PyTorch logits, too many to be worked on at once."""
    alike = isinstance(p, Logits) and isinstance(q, Logits) and is_torch_array(p.values) and is_torch_array(q.values)
    if not alike or settings.smoothing or p.values.dtype != q.values.dtype or p.values.shape != q.values.shape:
        return False
    return bool(p.values.numel() >= LARGE and p.values.is_floating_point() and p.values.device == q.values.device)


def _by_blocks(
    given: dict[str, Distribution], settings: RowOptions, value: Callable[[Pair], Array]
) -> tuple[Array, Array, Array]:
    from kilter.divergence.exact import fused

    rows_p, rows_q = settings.read(given, as_they_are=True)
    values = fused.sum_rows(rows_p, rows_q, value, settings.kept(rows_p))
    # The value of logits that are no distribution is no number; then they are looked at.
    if settings.validate and bool(array_namespace(values).any(array_namespace(values).isnan(detached(values)))):
        settings.read(given)
    return rows_p, rows_q, values


def _cross_entropy(pair: Pair) -> Array:
    xp = array_namespace(pair.p.p)
    # Filled with 0 for outcomes that q rules out, log q is finite, and so is the slope of p log q at p = 0.
    values = -xp.sum(pair.p.p * pair.q.log_p, axis=-1)
    missed = xp.any(pair.p.possible & ~pair.q.possible, axis=-1)
    return xp.where(missed, xp.full_like(values, float("inf")), values)


def _mismatch(p: Form, q: Form) -> str:
    """Which outcome makes a row's value infinite."""
    for one, other, names in ((p, q, "pq"), (q, p, "qp")):
        outcomes = np.flatnonzero(on_host(one.possible & ~other.possible))
        if len(outcomes):
            found = f"{float(on_host(one.p)[outcomes[0]]):.6g} to outcome {outcomes[0]}"
            return f"{names[0]} gives probability {found}, and {names[1]} gives it 0"
    return "the value is too large for its type"


def absolute_sum(pair: Pair) -> Array:
    """sum |p - q| / 2 along the last axis."""
    return array_namespace(pair.p.p).sum(abs(pair.difference), axis=-1) / 2


def _nonnegative(order: float) -> None:
    if not order >= 0:
        raise DistributionError(f"found order {order}; wanted one from 0 on (alpha takes any)")


def _unseen(pair: Pair) -> Array:
    """q(p = 0)."""
    xp = array_namespace(pair.p.p)
    return xp.sum(xp.where(pair.p.possible, xp.zeros_like(pair.q.p), pair.q.p), axis=-1)


def _renyi(pair: Pair, order: float) -> Array:
    xp = array_namespace(pair.p.p)
    if order == 0:
        unseen = _unseen(pair)
        few = unseen < 0.5
        near = -xp.log1p(-xp.where(few, unseen, xp.zeros_like(unseen)))
        return xp.where(few, near, -log_sum_exp(pair.q.log_p, pair.both))
    if order == 1:
        return kl_sum(pair)
    if math.isinf(order):
        largest = xp.max(xp.where(pair.both, -pair.log_ratio, xp.zeros_like(pair.log_ratio)), axis=-1)
        missed = xp.any(pair.p.possible & ~pair.q.possible, axis=-1)
        return xp.where(missed, xp.full_like(largest, float("inf")), largest)
    return power_integral(pair, order) / (order - 1)


def _tsallis(pair: Pair, order: float) -> Array:
    return _unseen(pair) if order == 0 else order * power_sum(pair, order)


def _root(square: Array) -> Array:
    xp = array_namespace(square)
    positive = square > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, square, xp.ones_like(square))), xp.zeros_like(square))


def _wasserstein1(pair: Pair, positions: Array | None) -> Array:
    xp, difference = array_namespace(pair.p.p), pair.difference
    moved = abs(xp.cumulative_sum(difference, axis=-1)[..., :-1])
    if positions is None:
        return xp.sum(moved, axis=-1)
    places = xp.asarray(positions, dtype=difference.dtype, device=device(difference))
    if tuple(places.shape) != (difference.shape[-1],):
        found = f"positions of shape {tuple(places.shape)}"
        raise DistributionError(f"found {found}; wanted one for each outcome, ({difference.shape[-1]},)")
    gaps = places[1:] - places[:-1]
    if not bool(xp.all(xp.isfinite(detached(places)))) or not bool(xp.all(detached(gaps) >= 0)):
        raise DistributionError("found positions that do not ascend; wanted finite ones, in the order of the outcomes")
    return xp.sum(moved * gaps, axis=-1)
