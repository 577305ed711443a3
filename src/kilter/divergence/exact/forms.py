"""A distribution as formulas need it, and two side by side: their difference and log-ratio without cancellation.

Everything here is differentiable where the array is, with finite gradients also at probabilities of 0 and at logits of
-inf: no function is evaluated where it or its slope is infinite, not even in a branch that is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from array_api_compat import device

from kilter.divergence.exact.distributions import Counts, Distribution, Logits, LogProbs
from kilter.divergence.namespaces import array_namespace

Array = Any


@dataclass(frozen=True, eq=False)
class Form:
    """One distribution, outcomes along the last axis.

    possible: where the probability is not 0. A possible outcome's probability may still be too small for a number;
    its log-probability is then right. log_p: 0 where impossible (`log` has -inf there).
    """

    p: Array
    log_p: Array
    possible: Array
    # Of logits: themselves (0 where impossible), their largest, exp(logits - largest), and the sum of these.
    logits: tuple[Array, Array, Array, Array] | None = None
    linear: bool = False

    @property
    def log(self) -> Array:
        xp = array_namespace(self.p)
        return xp.where(self.possible, self.log_p, xp.full_like(self.log_p, -float("inf")))


def form_of(distribution: Distribution, rows: Array, smoothing: float = 0.0) -> Form:
    """The form of rows of numbers, mixed with the uniform distribution by `smoothing`."""
    xp = array_namespace(rows)
    if isinstance(distribution, Logits):
        form = _of_logits(rows)
    elif isinstance(distribution, LogProbs):
        possible = rows > -float("inf")
        log_p = xp.where(possible, rows, xp.zeros_like(rows))
        form = Form(xp.where(possible, xp.exp(log_p), xp.zeros_like(rows)), log_p, possible)
    else:
        form = from_probabilities(
            rows / xp.sum(rows, axis=-1, keepdims=True) if isinstance(distribution, Counts) else rows
        )
    return from_probabilities((1 - smoothing) * form.p + smoothing / rows.shape[-1]) if smoothing else form


def from_probabilities(p: Array) -> Form:
    """The form of probabilities; they need not sum to 1."""
    xp = array_namespace(p)
    possible = p > 0
    return Form(p, xp.log(xp.where(possible, p, xp.ones_like(p))), possible, linear=True)


def _of_logits(z: Array) -> Form:
    """The largest logit is left out of the sum whose logarithm is taken, so that a log-prob near 0 keeps its digits."""
    xp = array_namespace(z)
    possible, zero = z > -float("inf"), xp.zeros_like(z)
    z_safe = xp.where(possible, z, zero)
    places = xp.arange(z.shape[-1], device=device(z))
    is_top = places == xp.argmax(z, axis=-1, keepdims=True)
    top = xp.sum(xp.where(is_top, z_safe, zero), axis=-1, keepdims=True)
    below = xp.where(possible, z_safe - top, zero)
    share = xp.where(possible, xp.exp(below), zero)
    rest = xp.sum(xp.where(is_top, zero, share), axis=-1, keepdims=True)
    log_p = xp.where(possible, below - xp.log1p(rest), zero)
    return Form(share / (1 + rest), log_p, possible, logits=(z_safe, top, share, 1 + rest))


@dataclass(frozen=True, eq=False)
class Pair:
    """Two distributions over the same outcomes, p and q."""

    p: Form
    q: Form

    @property
    def swapped(self) -> Pair:
        return Pair(self.q, self.p)

    @cached_property
    def both(self) -> Array:
        """Where the outcome is possible under p and under q."""
        return self.p.possible & self.q.possible

    @cached_property
    def log_ratio(self) -> Array:
        """log q - log p where both are possible, else 0."""
        xp, p, q = array_namespace(self.p.p), self.p, self.q
        zero = xp.zeros_like(p.p)
        if p.linear and q.linear:
            p_safe = xp.where(self.both, p.p, xp.ones_like(p.p))
            change = xp.where(self.both, (q.p - p.p) / p_safe, zero)
            near = abs(change) < 0.5
            ratio = xp.where(near, xp.log1p(xp.where(near, change, zero)), q.log_p - p.log_p)
        elif p.logits is not None and q.logits is not None:
            ratio = self._log_ratio_of_logits(p.logits, q.logits)
        else:
            ratio = q.log_p - p.log_p
        return xp.where(self.both, ratio, zero)

    def _log_ratio_of_logits(self, p: tuple[Array, ...], q: tuple[Array, ...]) -> Array:
        """(zq - zp) - log(Zq / Zp); the sum's excess over 1 is summed, so that small differences keep their digits."""
        xp = array_namespace(self.p.p)
        (zp, top_p, share_p, sum_p), (zq, top_q, share_q, _) = p, q
        difference = (zq - zp) - (top_q - top_p)
        near = self.both & (abs(difference) < 1)
        small = xp.where(near, difference, xp.zeros_like(difference))
        growth = xp.where(near, share_p * xp.expm1(small), share_q - share_p)
        return difference - xp.log1p(xp.sum(growth, axis=-1, keepdims=True) / sum_p)

    @cached_property
    def difference(self) -> Array:
        """q - p."""
        xp, p, q = array_namespace(self.p.p), self.p.p, self.q.p
        if self.p.linear and self.q.linear:
            return q - p
        near = self.both & (abs(self.log_ratio) < 1)
        small = xp.where(near, self.log_ratio, xp.zeros_like(p))
        return xp.where(near, p * xp.expm1(small), q - p)
