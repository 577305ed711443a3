"""Families of vectors: multivariate normals, von Mises-Fisher, Dirichlet, multinomial and Dirichlet-multinomial.

The last axis of a vector is its dimension D, of a matrix the last two; axes before them broadcast. No covariance is
ever inverted: quadratic forms go through triangular solves, and those of a diagonal plus a low rank K through a
least-squares problem in K unknowns, so that D may be large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array

from kilter.divergence.families.bessel import bessel_ratio, log_hyp0f1
from kilter.divergence.families.family import COUNT, NONNEGATIVE, PROBABILITIES, Family, condition, promote
from kilter.divergence.families.same_family import (
    Pair,
    bhattacharyya_of_directions,
    bhattacharyya_of_probabilities,
    gamma_gap,
    kl_normal,
    kl_of_directions,
    kl_of_probabilities,
    made,
    ratio_of_means,
    times,
)
from kilter.divergence.families.special import (
    LOG_2PI,
    gamma_entropy,
    gamma_excess,
    log_excess,
    log_gamma,
    log_ratio,
    root,
    xlogy,
)
from kilter.errors import DistributionError

Array = Any
MANY_TERMS = 2**24  # that are summed at once

VECTOR = condition("finite", lambda xp, x: xp.isfinite(x), shape="D")
POSITIVE_VECTOR = condition("finite and more than 0", lambda xp, x: xp.isfinite(x) & (x > 0), shape="D")
CONCENTRATIONS = POSITIVE_VECTOR | {"least": 2}
SQUARE = condition("finite", lambda xp, x: xp.isfinite(x), shape="DD")
FACTOR = condition("finite", lambda xp, x: xp.isfinite(x), shape="DK")


# Normals.


@dataclass(frozen=True)
class DiagonalNormal(Family):
    """Normal distribution of a vector of independent components: mean [..., D] and standard deviations [..., D]."""

    mean: Array = field(metadata=VECTOR)
    sd: Array = field(metadata=POSITIVE_VECTOR)
    kind: ClassVar[str] = "vector"


@dataclass(frozen=True)
class MultivariateNormal(Family):
    """Normal distribution of a vector: mean [..., D] and the lower Cholesky factor [..., D, D] of its covariance.

    `MultivariateNormal.of(mean, covariance)` factorises a covariance.
    """

    mean: Array = field(metadata=VECTOR)
    cholesky: Array = field(metadata=SQUARE)
    kind: ClassVar[str] = "vector"

    def check(self) -> None:
        xp, (cholesky,) = promote(self.cholesky)
        if not bool(xp.all(_diagonal(xp, cholesky) > 0)) or not bool(xp.all(xp.triu(cholesky, k=1) == 0)):
            raise DistributionError(
                "multivariatenormal: the Cholesky factor must be lower triangular with a diagonal above 0; from a "
                "covariance make it by MultivariateNormal.of(mean, covariance)"
            )

    @classmethod
    def of(cls, mean: Array, covariance: Array) -> MultivariateNormal:
        """From a mean and a covariance [..., D, D], which must be symmetric and positive definite."""
        xp, (mean, covariance) = promote(mean, covariance)
        if covariance.ndim < 2 or covariance.shape[-1] != covariance.shape[-2]:
            raise DistributionError(
                f"multivariatenormal: covariance has shape {list(covariance.shape)}; expected [..., D, D]"
            )
        scale = xp.max(xp.abs(covariance), axis=(-2, -1), keepdims=True)
        if not bool(xp.all(xp.abs(covariance - xp.matrix_transpose(covariance)) <= 1e-6 * scale)):
            raise DistributionError("multivariatenormal: the covariance is not symmetric")
        try:
            return cls(mean, xp.linalg.cholesky(covariance))
        except (np.linalg.LinAlgError, RuntimeError) as error:
            raise DistributionError(
                "multivariatenormal: the covariance is not positive definite; for one of low rank give "
                "LowRankNormal(mean, factor, diagonal)"
            ) from error


@dataclass(frozen=True)
class LowRankNormal(Family):
    """Normal distribution with covariance factor factor^T + diag(diagonal).

    Mean [..., D], factor [..., D, K] with K much less than D, diagonal [..., D] of variances.
    """

    mean: Array = field(metadata=VECTOR)
    factor: Array = field(metadata=FACTOR)
    diagonal: Array = field(metadata=POSITIVE_VECTOR)
    kind: ClassVar[str] = "vector"


NORMALS = (DiagonalNormal, MultivariateNormal, LowRankNormal)
LOW_RANK = (DiagonalNormal, LowRankNormal)


def _eye(xp: Any, size: int, like: Array) -> Array:
    return xp.eye(size, dtype=like.dtype, device=device(like))


def diagonal_matrix(xp: Any, values: Array) -> Array:
    """A matrix with these values [..., D] on its diagonal, which may be inf, and 0 elsewhere."""
    on = _eye(xp, values.shape[-1], values) > 0
    return xp.where(on, values[..., None, :], xp.zeros_like(values[..., None, :]))


def _diagonal(xp: Any, matrix: Array) -> Array:
    return xp.linalg.diagonal(matrix)


def _solve_lower(xp: Any, lower: Array, right: Array) -> Array:
    """lower^-1 right by substitution."""
    if is_torch_array(right):
        import torch

        return torch.linalg.solve_triangular(lower, right, upper=False)
    if not is_numpy_array(right):
        from importlib import import_module

        return import_module("jax.scipy.linalg").solve_triangular(lower, right, lower=True)
    if lower.ndim > 2 or right.ndim > 2:
        return np.linalg.solve(lower, right)  # which has batches, if not triangles
    from scipy.linalg import solve_triangular

    return solve_triangular(lower, right, lower=True, check_finite=False)


class _Whitening:
    """A normal's covariance as a linear map: log-determinant, and squared norms |C^-1/2 x|^2 summed over columns x."""

    def __init__(self, xp: Any, p: Any) -> None:
        self.xp, self.p = xp, p
        if isinstance(p, LowRankNormal):
            # With S = D^-1/2 W and (S over I) = Q R, x^T C^-1 x is the least |D^-1/2 x - S y|^2 + |y|^2 over all y, so
            # what Q leaves of (D^-1/2 x over 0); and log det C is log det D + 2 log det R.
            self.root = xp.sqrt(p.diagonal)
            scaled, rank = p.factor / self.root[..., None], p.factor.shape[-1]
            eye = xp.broadcast_to(_eye(xp, rank, scaled), (*scaled.shape[:-2], rank, rank))
            basis, triangle = xp.linalg.qr(xp.concat([scaled, eye], axis=-2))
            self.above, self.below = basis[..., :-rank, :], basis[..., -rank:, :]
            self.log_det_of_rank = 2 * xp.sum(xp.log(xp.abs(_diagonal(xp, triangle))), axis=-1)

    def log_det(self) -> Array:
        xp, p = self.xp, self.p
        if isinstance(p, DiagonalNormal):
            return 2 * xp.sum(xp.log(p.sd), axis=-1)
        if isinstance(p, MultivariateNormal):
            return 2 * xp.sum(xp.log(_diagonal(xp, p.cholesky)), axis=-1)
        return self.log_det_of_rank + xp.sum(xp.log(p.diagonal), axis=-1)

    def norm(self, columns: Array) -> Array:
        """Of columns [..., D, M]: the sum of x^T C^-1 x over them."""
        xp, p = self.xp, self.p
        if isinstance(p, DiagonalNormal):
            return _squares(xp, columns / p.sd[..., None])
        if isinstance(p, MultivariateNormal):
            return _squares(xp, _solve_lower(xp, p.cholesky, columns))
        white = columns / self.root[..., None]
        along = xp.matrix_transpose(self.above) @ white
        return _squares(xp, white - self.above @ along) + _squares(xp, self.below @ along)

    def norm_of_diagonal(self, sds: Array) -> Array:
        """trace(C^-1 diag(sds)^2)."""
        xp, p = self.xp, self.p
        if isinstance(p, DiagonalNormal):
            return xp.sum((sds / p.sd) ** 2, axis=-1)
        if isinstance(p, MultivariateNormal):
            inverse = _solve_lower(xp, p.cholesky, _eye(xp, p.mean.shape[-1], sds))
            return _squares(xp, inverse * sds[..., None, :])
        return xp.sum((sds / self.root) ** 2 * (1 - self.explained()), axis=-1)

    def explained(self) -> Array:
        """Of each component's variance the share that the factor explains."""
        return self.xp.sum(self.above * self.above, axis=-1)


def _at_least_0(xp: Any, value: Array) -> Array:
    """The value of what is never negative: below 0 there is nothing but rounding. What is NaN stays NaN."""
    return xp.where(value < 0, xp.zeros_like(value), value)


def _squares(xp: Any, matrix: Array) -> Array:
    return xp.sum(matrix * matrix, axis=(-2, -1))


def kl_diagonal_normal(xp: Any, p: DiagonalNormal, q: DiagonalNormal) -> Array:
    return xp.sum(kl_normal(xp, p, q), axis=-1)  # type: ignore[arg-type]


def kl_full_normal(xp: Any, p: MultivariateNormal, q: MultivariateNormal) -> Array:
    # L_q^-1 L_p = I + M is triangular, so trace - D - log det is a sum over its diagonal, and squares off it.
    m = _solve_lower(xp, q.cholesky, p.cholesky - q.cholesky)
    away = _solve_lower(xp, q.cholesky, (p.mean - q.mean)[..., None])
    logarithms = xp.sum(log_excess(_diagonal(xp, q.cholesky), _diagonal(xp, p.cholesky)), axis=-1)
    return logarithms + 0.5 * (_squares(xp, m) + _squares(xp, away))


def kl_of_normals(xp: Any, p: Any, q: Any) -> Array:
    """Of normals with covariances of any forms: (trace(C_q^-1 C_p) - D + log det C_q - log det C_p + |mean|^2) / 2.

    D and the trace cancel, so that about D eps of it is rounding.
    """
    to, of = _Whitening(xp, q), _Whitening(xp, p)
    if isinstance(p, MultivariateNormal):
        trace = to.norm(p.cholesky)
    elif isinstance(p, LowRankNormal):
        trace = to.norm(p.factor) + to.norm_of_diagonal(xp.sqrt(p.diagonal))
    else:
        trace = to.norm_of_diagonal(p.sd)
    value = 0.5 * (trace - p.mean.shape[-1] + to.log_det() - of.log_det() + to.norm((p.mean - q.mean)[..., None]))
    return _at_least_0(xp, value)


def kl_low_rank_normals(xp: Any, p: Any, q: Any) -> Array:
    """The same where both are a diagonal plus a low rank: the diagonals' own KL, and what the factors change of it.

    Nothing of the size of D cancels: about K eps of it is rounding, and of equal distributions nothing.
    """
    p, q = _low_rank(xp, p), _low_rank(xp, q)
    to, of = _Whitening(xp, q), _Whitening(xp, p)
    diagonals = xp.sum(log_excess(q.diagonal, p.diagonal), axis=-1)
    change = xp.sum((p.diagonal - q.diagonal) / q.diagonal * to.explained(), axis=-1)
    factors = to.norm(p.factor) - to.norm(q.factor) + to.log_det_of_rank - of.log_det_of_rank
    return _at_least_0(xp, 0.5 * (diagonals - change + factors + to.norm((p.mean - q.mean)[..., None])))


def _low_rank(xp: Any, p: Any) -> Any:
    """A diagonal normal as one with a factor that is 0."""
    if isinstance(p, LowRankNormal):
        return p
    return made(LowRankNormal, p.mean, xp.zeros_like(p.sd)[..., None], p.sd**2)


def entropy_of_normal(xp: Any, p: Any) -> Array:
    return 0.5 * (p.mean.shape[-1] * (LOG_2PI + 1) + _Whitening(xp, p).log_det()) + 0 * p.mean[..., 0]


def log_density_of_normal(xp: Any, p: Any, x: Array) -> Array:
    """The log-density of a normal of any form at vectors x [..., D]."""
    white = _Whitening(xp, p)
    return -0.5 * (white.norm((x - p.mean)[..., None]) + white.log_det() + p.mean.shape[-1] * LOG_2PI)


def bhattacharyya_diagonal_normal(xp: Any, p: DiagonalNormal, q: DiagonalNormal) -> Array:
    spread = (p.sd - q.sd) ** 2 / (2 * p.sd * q.sd)
    away = 0.25 * (p.mean - q.mean) ** 2 / (p.sd**2 + q.sd**2)
    return xp.sum(away + 0.5 * xp.log1p(spread), axis=-1)


def bhattacharyya_normals(xp: Any, p: Any, q: Any) -> Array:
    middle = MultivariateNormal.of(p.mean, (covariance(xp, p) + covariance(xp, q)) / 2)
    between, of_p, of_q = (_Whitening(xp, normal) for normal in (middle, p, q))
    spread = 0.5 * (between.log_det() - (of_p.log_det() + of_q.log_det()) / 2)
    value = between.norm((p.mean - q.mean)[..., None]) / 8 + spread
    return _at_least_0(xp, value)


def bhattacharyya_low_rank_normals(xp: Any, p: Any, q: Any) -> Array:
    # The mean of both covariances is a diagonal plus a rank of K_p + K_q.
    p, q = _low_rank(xp, p), _low_rank(xp, q)
    factor = xp.concat([p.factor + 0 * q.factor[..., :1], q.factor + 0 * p.factor[..., :1]], axis=-1) / math.sqrt(2)
    middle = p.with_parameters([p.mean, factor, (p.diagonal + q.diagonal) / 2])
    between, of_p, of_q = (_Whitening(xp, normal) for normal in (middle, p, q))
    factors = between.log_det_of_rank - (of_p.log_det_of_rank + of_q.log_det_of_rank) / 2
    spread = 0.5 * (xp.sum(ratio_of_means(xp, p.diagonal, q.diagonal), axis=-1) + factors)
    value = between.norm((p.mean - q.mean)[..., None]) / 8 + spread
    return _at_least_0(xp, value)


def wasserstein2_diagonal_normal(xp: Any, p: DiagonalNormal, q: DiagonalNormal) -> Array:
    return root(xp.sum((p.mean - q.mean) ** 2 + (p.sd - q.sd) ** 2, axis=-1))


def wasserstein2_normals(xp: Any, p: Any, q: Any) -> Array:
    # trace (C_q^1/2 C_p C_q^1/2)^1/2 is the sum of the singular values of R_q^T R_p, for any roots R R^T = C.
    root_p, root_q = covariance_root(xp, p), covariance_root(xp, q)
    common = xp.sum(xp.linalg.svdvals(xp.matrix_transpose(root_q) @ root_p), axis=-1)
    spread = _squares(xp, root_p) + _squares(xp, root_q) - 2 * common
    return root(xp.sum((p.mean - q.mean) ** 2, axis=-1) + _at_least_0(xp, spread))


def covariance_root(xp: Any, p: Any) -> Array:
    """A matrix R with R R^T the covariance of a normal."""
    if isinstance(p, MultivariateNormal):
        return p.cholesky
    if isinstance(p, DiagonalNormal):
        return diagonal_matrix(xp, p.sd)
    return xp.linalg.cholesky(covariance(xp, p))


def covariance(xp: Any, p: Any) -> Array:
    """The covariance of a normal as a matrix."""
    if isinstance(p, LowRankNormal):
        return p.factor @ xp.matrix_transpose(p.factor) + diagonal_matrix(xp, p.diagonal)
    return covariance_root(xp, p) @ xp.matrix_transpose(covariance_root(xp, p))


# Directions.


@dataclass(frozen=True)
class VonMisesFisher(Family):
    """Von Mises-Fisher distribution of unit vectors: density proportional to exp(concentration direction . x).

    Direction [..., D] is a unit vector; concentration [...] is at least 0.
    """

    direction: Array = field(metadata=VECTOR)
    concentration: Array = field(metadata=NONNEGATIVE)
    kind: ClassVar[str] = "direction"

    def check(self) -> None:
        xp, (direction,) = promote(self.direction)
        length = xp.sum(direction * direction, axis=-1)
        if direction.ndim == 0 or direction.shape[-1] < 2 or not bool(xp.all(xp.abs(length - 1) < 1e-5)):
            raise DistributionError(
                "vonmisesfisher: the direction must be a unit vector of at least 2 components; divide it by its length"
            )


def _order(p: VonMisesFisher) -> float:
    return int(p.direction.shape[-1]) / 2 - 1


def kl_von_mises_fisher(xp: Any, p: VonMisesFisher, q: VonMisesFisher) -> Array:
    turn = xp.sum((p.direction - q.direction) ** 2, axis=-1) / 2  # 1 - cosine
    return kl_of_directions(_order(p), p.concentration, q.concentration, turn)


def bhattacharyya_von_mises_fisher(xp: Any, p: VonMisesFisher, q: VonMisesFisher) -> Array:
    sine, cosine = (xp.sum((p.direction + sign * q.direction) ** 2, axis=-1) / 4 for sign in (-1, 1))
    return bhattacharyya_of_directions(_order(p), p.concentration, q.concentration, sine, cosine)


def entropy_of_von_mises_fisher(xp: Any, p: VonMisesFisher) -> Array:
    half = p.direction.shape[-1] / 2
    log_area = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    order = _order(p)
    return log_area + log_hyp0f1(order, p.concentration) - p.concentration * bessel_ratio(order, p.concentration)


# The simplex, and counts of several kinds.


@dataclass(frozen=True)
class Dirichlet(Family):
    """Dirichlet distribution of probability vectors, with concentrations [..., D]."""

    concentration: Array = field(metadata=CONCENTRATIONS)
    kind: ClassVar[str] = "simplex"


def kl_dirichlet(xp: Any, p: Dirichlet, q: Dirichlet) -> Array:
    total_p, total_q = (xp.sum(of.concentration, axis=-1) for of in (p, q))
    return xp.sum(gamma_excess(p.concentration, q.concentration), axis=-1) - gamma_excess(total_p, total_q)


def entropy_of_dirichlet(xp: Any, p: Dirichlet) -> Array:
    a, count = p.concentration, int(p.concentration.shape[-1])
    total = xp.sum(a, axis=-1)
    return xp.sum(gamma_entropy(a, 1), axis=-1) - gamma_entropy(total, count) - (count - 1) * xp.log(total)


def bhattacharyya_dirichlet(xp: Any, p: Dirichlet, q: Dirichlet) -> Array:
    total_p, total_q = (xp.sum(of.concentration, axis=-1) for of in (p, q))
    return xp.sum(gamma_gap(p.concentration, q.concentration), axis=-1) - gamma_gap(total_p, total_q)


@dataclass(frozen=True)
class Multinomial(Family):
    """Multinomial distribution: how often each outcome comes in n draws, with probabilities [..., D] that sum to 1."""

    n: Array = field(metadata=COUNT)
    probabilities: Array = field(metadata=PROBABILITIES)
    kind: ClassVar[str] = "counts of several"

    def check(self) -> None:
        xp, (values,) = promote(self.probabilities)
        total = xp.sum(values, axis=-1)
        if not bool(xp.all(xp.abs(total - 1) < 1e-6)):
            raise DistributionError("multinomial: the probabilities must sum to 1; divide them by their sum")


def kl_multinomial(xp: Any, p: Multinomial, q: Multinomial) -> Array:
    each = xp.sum(kl_of_probabilities(xp, p.probabilities, q.probabilities), axis=-1)
    return _of_equal_totals(xp, p.n, q.n, times(xp, p.n, each))


def bhattacharyya_multinomial(xp: Any, p: Multinomial, q: Multinomial) -> Array:
    each = bhattacharyya_of_probabilities(xp, p.probabilities, q.probabilities)
    return _of_equal_totals(xp, p.n, q.n, times(xp, p.n, each))


def _of_equal_totals(xp: Any, of_p: Array, of_q: Array, value: Array) -> Array:
    """The value where both count as many draws; elsewhere they have no outcome in common."""
    return xp.where(of_p == of_q, value, xp.full_like(value, math.inf))


def entropy_of_multinomial(xp: Any, p: Multinomial) -> Array:
    # E[log x_k!] is sum_j log j P(X_k >= j), a finite sum over the binomial margins.
    x = _outcomes(xp, p.n, p.probabilities)
    n, chance = p.n[..., None, None], p.probabilities[..., None]
    ways = log_gamma(n + 1 + 0 * x) - log_gamma(x + 1) - log_gamma(xp.where(x <= n, n - x, 0 * x) + 1)
    log_margin = ways + xlogy(x, chance) + xlogy(xp.where(x <= n, n - x, 0 * x), 1 - chance)
    margin = xp.where(x <= n, xp.exp(log_margin), 0 * log_margin)
    factorials = xp.sum(margin * log_gamma(x + 1), axis=(-2, -1))
    return factorials - log_gamma(p.n + 1) - p.n * xp.sum(xlogy(p.probabilities, p.probabilities), axis=-1)


@dataclass(frozen=True)
class DirichletMultinomial(Family):
    """Dirichlet-multinomial (Polya) distribution: n draws with probabilities that are drawn once, of a Dirichlet."""

    n: Array = field(metadata=COUNT)
    concentration: Array = field(metadata=CONCENTRATIONS)
    kind: ClassVar[str] = "counts of several"


def _outcomes(xp: Any, n: Array, like: Array) -> Array:
    """0, 1, ..., n for each component, of all distributions the greatest n."""
    terms = (int(xp.max(n)) + 1) * math.prod(like.shape)
    if terms > MANY_TERMS:
        raise DistributionError(
            f"n and the number of components make {terms:,} terms to sum; at most {MANY_TERMS:,} are: give fewer at a "
            "time, or estimate from samples"
        )
    return xp.arange(int(xp.max(n)) + 1, dtype=like.dtype, device=device(like)) + 0 * like[..., None]


def kl_dirichlet_multinomial(xp: Any, p: DirichletMultinomial, q: DirichletMultinomial) -> Array:
    """A finite sum: log of the ratio is one of rising factorials, whose expectation takes P(X_k > j) of each margin.

    X_k is beta-binomial with a_k and the sum of the others; Gamma(a + x) / Gamma(a) = a (a + 1) ... (a + x - 1).
    """
    a, b = p.concentration, q.concentration
    total = xp.sum(a, axis=-1)
    x = _outcomes(xp, p.n, a + 0 * b)
    n, own = p.n[..., None, None], a[..., None] + 0 * x
    rest = total[..., None, None] - own
    left = xp.where(x <= n, n - x, 0 * x)
    ways = log_gamma(n + 1 + 0 * x) - log_gamma(x + 1) - log_gamma(left + 1)
    safe = xp.where(rest > 0, rest, xp.ones_like(rest))
    log_margin = ways + log_gamma(own + x) - log_gamma(own) + log_gamma(safe + left) - log_gamma(safe)
    log_margin = log_margin + log_gamma(own + rest) - log_gamma(own + rest + n)
    margin = xp.where(x <= n, xp.exp(log_margin), 0 * log_margin)
    j = x[..., :-1]
    more = xp.flip(xp.cumulative_sum(xp.flip(margin, axis=-1), axis=-1), axis=-1)[..., 1:]  # P(X_k > j)
    each = xp.sum(more * log_ratio(b[..., None] + j, a[..., None] + j), axis=(-2, -1))
    j = j[..., 0, :]
    totals = log_ratio(xp.sum(b, axis=-1)[..., None] + j, total[..., None] + j)
    value = each - xp.sum(xp.where(j < p.n[..., None], totals, 0 * totals), axis=-1)
    return _of_equal_totals(xp, p.n, q.n, value)


KL: dict[tuple[type[Family], type[Family]], Pair] = {
    **{(p, q): Pair(kl_of_normals) for p in NORMALS for q in NORMALS},
    **{(p, q): Pair(kl_low_rank_normals) for p in LOW_RANK for q in LOW_RANK},
    (DiagonalNormal, DiagonalNormal): Pair(kl_diagonal_normal),
    (MultivariateNormal, MultivariateNormal): Pair(kl_full_normal),
    (VonMisesFisher, VonMisesFisher): Pair(kl_von_mises_fisher),
    (Dirichlet, Dirichlet): Pair(kl_dirichlet),
    (Multinomial, Multinomial): Pair(kl_multinomial),
    (DirichletMultinomial, DirichletMultinomial): Pair(kl_dirichlet_multinomial),
}
BHATTACHARYYA: dict[tuple[type[Family], type[Family]], Pair] = {
    **{(p, q): Pair(bhattacharyya_normals) for p in NORMALS for q in NORMALS},
    **{(p, q): Pair(bhattacharyya_low_rank_normals) for p in LOW_RANK for q in LOW_RANK},
    (DiagonalNormal, DiagonalNormal): Pair(bhattacharyya_diagonal_normal),
    (VonMisesFisher, VonMisesFisher): Pair(bhattacharyya_von_mises_fisher),
    (Dirichlet, Dirichlet): Pair(bhattacharyya_dirichlet),
    (Multinomial, Multinomial): Pair(bhattacharyya_multinomial),
}
WASSERSTEIN2: dict[tuple[type[Family], type[Family]], Pair] = {
    **{(p, q): Pair(wasserstein2_normals) for p in NORMALS for q in NORMALS},
    (DiagonalNormal, DiagonalNormal): Pair(wasserstein2_diagonal_normal),
}
ENTROPIES: dict[type[Family], Callable[[Any, Any], Array]] = {
    **dict.fromkeys(NORMALS, entropy_of_normal),
    VonMisesFisher: entropy_of_von_mises_fisher,
    Dirichlet: entropy_of_dirichlet,
    Multinomial: entropy_of_multinomial,
}
VECTOR_FAMILIES: tuple[type[Family], ...] = (
    *NORMALS,
    VonMisesFisher,
    Dirichlet,
    Multinomial,
    DirichletMultinomial,
)
