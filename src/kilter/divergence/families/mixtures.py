"""Mixtures of normals: bounds on entropies and on the KL divergence between two, and a Monte Carlo estimate of it.

There is no closed form. With z_ij = log int p_i q_j, the bounds are made of

- H(p) <= sum_i w_i (H(p_i) - log sum_j w_j exp(-KL(p_i, p_j))), and >= the same with Bhattacharyya distances for KL
  (Kolchinsky and Tracey 2017, Estimating mixture entropy with pairwise distances);
- E_p[log q] >= sum_i w_i (log sum_j v_j exp(-KL(p_i, q_j)) - H(p_i)), and, by Jensen's inequality and since no KL is
  negative, <= sum_i w_i min(log sum_j v_j exp(z_ij), -H(p_i)) (Durrieu, Thiran and Kelly 2012, Lower and upper bounds
  for approximation of the Kullback-Leibler divergence between Gaussian mixture models);
- KL(p, q) <= sum_ij phi_ij (log(phi_ij / psi_ij) + KL(p_i, q_j)) for any splits phi of w and psi of v, improved in turn
  (Hershey and Olsen 2007, Approximating the Kullback Leibler divergence between Gaussian mixture models, section 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.divergence.estimates.standard_errors import Estimate, floats, mean_estimate
from kilter.divergence.families import closed_forms
from kilter.divergence.families.family import Family, fields_of, promote
from kilter.divergence.families.multivariate import (
    DiagonalNormal,
    LowRankNormal,
    MultivariateNormal,
    covariance,
    log_density_of_normal,
)
from kilter.divergence.families.univariate import Normal
from kilter.errors import DistributionError

Array = Any

_OF_NORMALS = (Normal, DiagonalNormal, MultivariateNormal, LowRankNormal)
_IMPROVEMENTS = 200
_BLOCK = 2**16


class Bounds(NamedTuple):
    """What a quantity lies between, in nats."""

    lower: Any
    upper: Any


@dataclass(frozen=True)
class Mixture:
    """A mixture of normals of one family: weights [K] that sum to 1, and components, the parameters of K in one record.

    >>> bimodal = Mixture([0.5, 0.5], Normal(mean=np.array([-2.0, 2.0]), sd=np.array([1.0, 1.0])))
    >>> float(bimodal.log_density(np.array(0.0))).__round__(6)
    -2.918939
    """

    weights: Array
    components: Family

    def __post_init__(self) -> None:
        if not isinstance(self.components, _OF_NORMALS):
            raise DistributionError(
                f"a mixture of {type(self.components).__name__}; its components must be normals, as in "
                "Mixture([0.5, 0.5], Normal(mean, sd)) with arrays of two means and deviations"
            )
        xp, (weights, *values) = promote(self.weights, *self.components.parameters())
        if weights.ndim != 1 or not bool(xp.all(weights >= 0)) or not abs(float(xp.sum(weights)) - 1) < 1e-6:
            raise DistributionError("the weights of a mixture must be a row of numbers, none negative, that sum to 1")
        for value, known in zip(values, fields_of(self.components), strict=True):
            batch = tuple(value.shape[: value.ndim - known.metadata["axes"]])
            if batch not in ((), (1,), (weights.shape[0],)):
                raise DistributionError(
                    f"a mixture has {weights.shape[0]} weights and {known.name} for {batch}; give one for each weight"
                )

    def log_density(self, x: Array) -> Array:
        """The log-density at x [...], or at vectors x [..., D]."""
        xp, weights, p = _aligned(self)
        _, (x, _) = promote(x, weights)
        with np.errstate(divide="ignore"):
            if isinstance(p, Normal):
                return _log_sum_exp(xp, xp.log(weights) + p.log_density(x[..., None]))
            return _log_sum_exp(xp, xp.log(weights) + log_density_of_normal(xp, p, x[..., None, :]))

    def sample(self, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Independent draws [count] or [count, D], as NumPy's."""
        _, weights, p = _aligned(_as_numpy(self))
        which = random.choice(len(weights), size=count, p=weights / weights.sum())
        values = [np.broadcast_to(v, (len(weights), *v.shape[1:]))[which] for v in p.parameters()]
        noise = random.standard_normal(values[0].shape)
        if isinstance(p, Normal | DiagonalNormal):
            return np.asarray(values[0] + values[1] * noise)
        if isinstance(p, LowRankNormal):
            inner = random.standard_normal(values[1].shape[:1] + values[1].shape[2:])
            return np.asarray(values[0] + np.einsum("ndk,nk->nd", values[1], inner) + np.sqrt(values[2]) * noise)
        return np.asarray(values[0] + np.einsum("nde,ne->nd", values[1], noise))


def entropy_bounds(p: Mixture) -> Bounds:
    """What the entropy of a mixture lies between."""
    xp, weights, components = _aligned(p)
    own = closed_forms.entropy(components) + 0 * weights
    each = _pairwise(xp, components, components)
    with np.errstate(divide="ignore"):
        near, far = (
            _log_sum_exp(xp, xp.log(weights) - distance(*each))
            for distance in (closed_forms.kl, closed_forms.bhattacharyya)
        )
    return Bounds(xp.sum(weights * (own - far)), xp.sum(weights * (own - near)))


def kl_bounds(p: Any, q: Any) -> Bounds:
    """What KL(p, q) lies between, of mixtures of normals (or single ones) of like families.

    >>> p = Mixture([0.5, 0.5], Normal(np.array([-2.0, 2.0]), np.array([1.0, 1.0])))
    >>> bounds = kl_bounds(p, Normal(0.0, 2.0))
    >>> bool(0 <= bounds.lower < bounds.upper < 1)
    True
    >>> float(kl_bounds(p, p).upper)
    0.0
    """
    p, q = _mixture(p), _mixture(q)
    xp, w, p_i = _aligned(p, q)
    _, v, q_j = _aligned(q, p)
    kl = closed_forms.kl(*_pairwise(xp, p_i, q_j))
    entropies_p, own = entropy_bounds(p), closed_forms.entropy(p_i) + 0 * w
    with np.errstate(divide="ignore"):
        log_v = xp.log(v)
        least = _log_sum_exp(xp, log_v - kl) - own
        overlap = _log_sum_exp(xp, log_v + _log_overlap(xp, *_pairwise(xp, p_i, q_j)))
    most = xp.where(overlap < -own, overlap, -own)
    lower = -entropies_p.upper - xp.sum(w * most)
    upper = _least(xp, -entropies_p.lower - xp.sum(w * least), _variational_bound(xp, w, v, kl))
    if w.shape == v.shape:
        upper = _least(xp, upper, xp.sum(_xlog_ratio(xp, w, v) + w * xp.linalg.diagonal(kl)))
    zero = xp.zeros_like(upper)
    upper = xp.where(upper > 0, upper, zero)
    lower = xp.where(lower > 0, lower, zero)
    return Bounds(_least(xp, lower, upper), upper)


def kl_by_sampling(p: Any, q: Any, *, samples: int, random: np.random.Generator) -> Estimate:
    """A Monte Carlo estimate of KL(p, q): the mean log-ratio of independent draws from p, with its standard error.

    >>> p = Mixture([0.5, 0.5], Normal(np.array([-2.0, 2.0]), np.array([1.0, 1.0])))
    >>> found = kl_by_sampling(p, Normal(0.0, 2.0), samples=10_000, random=np.random.default_rng(0))
    >>> abs(found.value - 0.18) < 0.03, found.standard_error < 0.01
    (True, True)
    """
    if samples < 1:
        raise DistributionError(f"found samples={samples}; wanted how many to draw from p, at least 1")
    p, q = _as_numpy(_mixture(p)), _as_numpy(_mixture(q))
    log_ratios = []
    for start in range(0, samples, _BLOCK):
        x = p.sample(min(_BLOCK, samples - start), random)
        log_ratios.append(p.log_density(x) - q.log_density(x))
    return mean_estimate(np.concatenate(log_ratios))


def _mixture(p: Any) -> Mixture:
    if isinstance(p, Mixture):
        return p
    if isinstance(p, _OF_NORMALS):
        return Mixture(np.ones(1), p)
    raise DistributionError(f"found {type(p).__name__}; give a Mixture of normals, or a normal")


def _as_numpy(p: Mixture) -> Mixture:
    return Mixture(floats(p.weights), p.components.with_parameters([floats(v) for v in p.components.parameters()]))


def _aligned(p: Mixture, other: Mixture | None = None) -> tuple[Any, Array, Any]:
    """Weights and components of p as arrays of one library (of another mixture too), with an axis for components."""
    also = [other.weights, *other.components.parameters()] if other else []
    xp, (weights, *values) = promote(p.weights, *p.components.parameters(), *also)
    values = values[: len(p.components.parameters())]
    axes = [known.metadata["axes"] for known in fields_of(p.components)]
    each = [value if value.ndim > count else value[None, ...] for value, count in zip(values, axes, strict=True)]
    size = weights.shape[0]
    each = [xp.broadcast_to(value, (size, *value.shape[1:])) for value in each]
    return xp, weights, p.components.with_parameters(each)


def _pairwise(xp: Any, p: Family, q: Family) -> tuple[Family, Family]:
    """Both, so that they broadcast to a table of every component of p and every one of q."""
    return (
        p.with_parameters([value[:, None, ...] for value in p.parameters()]),
        q.with_parameters([value[None, :, ...] for value in q.parameters()]),
    )


def _log_overlap(xp: Any, p: Any, q: Any) -> Array:
    """log int p q of normals: the density of their means' difference under the sum of their covariances."""
    if isinstance(p, Normal) and isinstance(q, Normal):
        both = Normal(q.mean, xp.sqrt(p.sd**2 + q.sd**2))
        return both.log_density(p.mean)
    together = MultivariateNormal.of(q.mean, covariance(xp, p) + covariance(xp, q))
    return log_density_of_normal(xp, together, p.mean)


def _variational_bound(xp: Any, w: Array, v: Array, kl: Array) -> Array:
    """The bound by splits of both weights, after some improvements, each of which is a bound."""
    best = xp.exp(-(kl - xp.min(kl, axis=1, keepdims=True)))
    phi = w[:, None] * v * best
    phi = w[:, None] * phi / _positive(xp, xp.sum(phi, axis=1, keepdims=True))
    psi = phi
    for _ in range(_IMPROVEMENTS):
        psi = v * phi / _positive(xp, xp.sum(phi, axis=0, keepdims=True))
        phi = psi * best
        phi = w[:, None] * phi / _positive(xp, xp.sum(phi, axis=1, keepdims=True))
    return xp.sum(_xlog_ratio(xp, phi, psi) + xp.where(phi > 0, phi * kl, xp.zeros_like(kl)))


def _positive(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.ones_like(x))


def _xlog_ratio(xp: Any, x: Array, y: Array) -> Array:
    """x log(x / y), 0 where x is 0 and inf where only y is."""
    some = x > 0
    ratio = xp.where(y > 0, _positive(xp, x) / _positive(xp, y), xp.full_like(x, math.inf))
    return xp.where(some, x * xp.log(xp.where(some, ratio, xp.ones_like(x))), xp.zeros_like(x))


def _least(xp: Any, a: Array, b: Array) -> Array:
    return xp.where(a < b, a, b)


def _log_sum_exp(xp: Any, x: Array) -> Array:
    most = xp.max(x, axis=-1, keepdims=True)
    most = xp.where(xp.isfinite(most), most, xp.zeros_like(most))
    return xp.log(xp.sum(xp.exp(x - most), axis=-1)) + most[..., 0]
