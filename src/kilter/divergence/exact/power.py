"""The one-parameter family that KL both ways, Hellinger and chi-squared belong to, without cancellation.

For t = p / q the generator is f(t) = (t^a - a t + a - 1) / (a (a - 1)) (Cressie and Read 1984; Liese and Vajda 1987),
with its limits t log t - t + 1 at a = 1 and t - 1 - log t at a = 0. f(1) = f'(1) = 0 and f >= 0, so every outcome adds
something that is not negative; over a whole distribution the terms -a t + a - 1 add up to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilter.divergence.exact.forms import Pair
from kilter.divergence.namespaces import array_namespace

Array = Any

# At |x| < 0.5 the rest after this many terms is below the rounding of float64.
SERIES_TERMS = 17
SERIES_RADIUS = 0.5


def power_sum(pair: Pair, order: float) -> Array:
    """sum q f(p / q) along the last axis, for the f of this module with a = `order`.

    Gradients are right at zeros from the inside (one-sided), but 0 where the true one is infinite.
    """
    return _power_sum(pair, order, 1 - order)


def _power_sum(pair: Pair, order: float, rest: float, wanted: Array | None = None) -> Array:
    """`rest` is 1 - order; the smaller of the two is exact. Rows that are not `wanted` get no value, nor gradient."""
    if order < rest:
        return _power_sum(pair.swapped, rest, order, wanted)
    xp = array_namespace(pair.p.p)
    parts = (pair.difference, pair.log_ratio)
    if wanted is not None:
        parts = tuple(xp.where(wanted[..., None], part, xp.zeros_like(part)) for part in parts)
    inner = power_terms(pair.p.p, pair.p.log_p, *parts, rest)
    # f(0) = 1 / a and f'(0) = -1 / (a - 1); f grows at last as t f'(inf), which is 1 / (1 - a) below 1.
    zero = xp.zeros_like(inner)
    without_p = pair.q.p / order
    if rest < 0:
        without_p = without_p + xp.where(pair.q.possible, pair.p.p / rest, zero)
    infinite = xp.full_like(inner, float("inf"))
    without_q = pair.p.p / rest if rest > 0 else xp.where(pair.p.possible, infinite, zero)
    edge = xp.where(pair.p.possible, zero, without_p) + xp.where(pair.q.possible, zero, without_q)
    return xp.sum(xp.where(pair.both, inner, edge), axis=-1)


def power_terms(p: Array, log_p: Array, difference: Array, log_ratio: Array, b: float) -> Array:
    """p (expm1(d) - expm1(b d) / b) / (1 - b), where d = log_ratio = log(q / p), difference = q - p, and b <= 1/2.

    This is q f(p / q) with b = 1 - a; at b = 0 it is p (expm1(d) - d).
    """
    xp = array_namespace(p)
    near = abs(log_ratio) * max(1.0, abs(b)) < SERIES_RADIUS
    small = xp.where(near, log_ratio, xp.zeros_like(log_ratio))
    return xp.where(
        near, p * (small * small * _series(small, b)), (difference - _power(p, log_p, log_ratio, b)) / (1 - b)
    )


def _series(d: Array, b: float) -> Array:
    """(expm1(d) - expm1(b d) / b) / (1 - b) / d^2 = sum over k >= 2 of (1 + b + ... + b^(k-2)) d^(k-2) / k!"""
    k = np.arange(2, SERIES_TERMS + 2, dtype=np.float64)
    coefficients = np.cumsum(np.power(b, k - 2)) / np.cumprod(k)
    total = d * 0 + float(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * d + float(coefficient)
    return total


def _power(p: Array, log_p: Array, log_ratio: Array, b: float) -> Array:
    """p expm1(b d) / b, which is p d at b = 0."""
    if b == 0:
        return p * log_ratio
    xp = array_namespace(p)
    exponent = b * log_ratio
    near = abs(exponent) < 1
    small = xp.where(near, exponent, xp.zeros_like(exponent))
    with np.errstate(over="ignore"):
        return xp.where(near, p * xp.expm1(small), xp.exp(log_p + exponent) - p) / b


def kl_sum(pair: Pair) -> Array:
    """KL(p, q) along the last axis."""
    return power_sum(pair, 1.0)


def power_integral(pair: Pair, order: float) -> Array:
    """log sum p^a q^(1-a) along the last axis, for a = `order` above 0 and other than 1.

    Near 0 it is log1p(a (a - 1) power_sum), which keeps the digits of small divergences.
    """
    xp = array_namespace(pair.p.p)
    plain = log_sum_exp(pair.p.log_p + (1 - order) * pair.log_ratio, pair.both)
    if order > 1:
        missed = xp.any(pair.p.possible & ~pair.q.possible, axis=-1)
        plain = xp.where(missed, xp.full_like(plain, float("inf")), plain)
    near = abs(plain) < 0.4
    excess = order * (order - 1) * _power_sum(pair, order, 1 - order, near)
    return xp.where(near, xp.log1p(xp.where(near, excess, xp.zeros_like(excess))), plain)


def log_sum_exp(exponent: Array, counted: Array) -> Array:
    """Over the counted outcomes; -inf where there are none."""
    xp = array_namespace(exponent)
    zero, nothing = xp.zeros_like(exponent), xp.full_like(exponent, -float("inf"))
    some = xp.any(counted, axis=-1, keepdims=True)
    top = xp.where(some, xp.max(xp.where(counted, exponent, nothing), axis=-1, keepdims=True), zero[..., :1])
    total = xp.sum(xp.where(counted, xp.exp(xp.where(counted, exponent - top, zero)), zero), axis=-1, keepdims=True)
    result = xp.where(some, top + xp.log(xp.where(some, total, xp.ones_like(total))), nothing[..., :1])
    return result[..., 0]
