"""f-divergences sum q f(p / q): one table of their generators f, with derivatives, conjugates and domains.

Generators are written so that f(1) = f'(1) = 0 (adding c (t - 1) to f changes no divergence). Then f >= 0, the
conjugate f*(u) = sup over t >= 0 of u t - f(t) has f*(0) = 0 and f*'(0) = 1, and the variational bound of Nguyen,
Wainwright and Jordan 2010 (arXiv 0809.0853) reads D(p, q) >= E_p[T] - E_q[f*(T)], with equality at T = f'(p / q).
f* is finite up to f'(inf), the slope of f at infinity: a critic's output must stay below it (Nowozin et al. 2016,
arXiv 1606.00709).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from array_api_compat import is_array_api_obj

from kilter.divergence.exact.distributions import Distribution
from kilter.divergence.exact.divergences import absolute_sum, of_two
from kilter.divergence.exact.forms import Pair, from_probabilities
from kilter.divergence.exact.jensen_shannon import mixture_sum
from kilter.divergence.exact.power import kl_sum, power_sum
from kilter.divergence.exact.rows import Options
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any
Function = Callable[[Array], Array]


@dataclass(frozen=True)
class FDivergence:
    """One f-divergence, by its generator f on t = p / q >= 0.

    formula: f(t) as text. row_sum: sum q f(p / q) over the last axis of a pair. slope: f'(exp(s)) of a log-ratio s.
    inner_conjugate: f*(u) within its domain, u < `slope_at_infinity` (or equal to it where `attained`). at_zero: f(0).
    The functions take and return arrays of any library, or plain numbers.
    """

    name: str
    formula: str
    row_sum: Callable[[Pair], Array]
    at_zero: float
    slope_at_infinity: float
    slope: Function | None = None
    inner_conjugate: Function | None = None
    attained: bool = False

    @classmethod
    def of(
        cls,
        f: Function,
        *,
        at_zero: float,
        slope_at_infinity: float,
        name: str = "custom",
        derivative: Function | None = None,
        conjugate: Function | None = None,
    ) -> FDivergence:
        """The divergence of a convex f with f(1) = 0, which is called for t > 0.

        at_zero: f(0), which may be inf. slope_at_infinity: the limit of f(t) / t, which may be inf.

        >>> from kilter.divergence import Probs
        >>> triangular = FDivergence.of(lambda t: (t - 1) ** 2 / (t + 1), at_zero=1.0, slope_at_infinity=1.0)
        >>> float(f_divergence(Probs([1.0, 0.0]), Probs([0.0, 1.0]), triangular))
        2.0
        """

        def slope(s: Array) -> Array:
            assert derivative is not None
            return derivative(array_namespace(s).exp(s))

        row_sum = _row_sum_of(f, at_zero, slope_at_infinity)
        return cls(name, name, row_sum, at_zero, slope_at_infinity, None if derivative is None else slope, conjugate)

    def generator(self, t: Array) -> Array:
        """f(t) for t >= 0, without cancellation near t = 1."""
        t = _array(t)
        ones = array_namespace(t).ones_like(t)
        return self.row_sum(Pair(from_probabilities(t[..., None]), from_probabilities(ones[..., None])))

    def derivative(self, t: Array) -> Array:
        """f'(t) for t > 0."""
        t = _array(t)
        return self.derivative_at(array_namespace(t).log(t))

    def derivative_at(self, log_ratio: Array) -> Array:
        """f'(t) for t = exp(log_ratio), which need not be formed: log-ratios of whole texts are far beyond it."""
        if self.slope is None:
            raise DistributionError(f"the divergence {self.name!r} was made without a derivative; give it one")
        return self.slope(_array(log_ratio))

    def conjugate(self, u: Array) -> Array:
        """f*(u) = sup over t >= 0 of u t - f(t); inf beyond its domain, where no gradient flows."""
        if self.inner_conjugate is None:
            raise DistributionError(f"the divergence {self.name!r} was made without a conjugate; give it one")
        u = _array(u)
        xp = array_namespace(u)
        inside = self.in_domain(u)
        value = self.inner_conjugate(xp.where(inside, u, xp.zeros_like(u)))
        return xp.where(inside, value, xp.full_like(value, float("inf")))

    def in_domain(self, u: Array) -> Array:
        """Where f*(u) is finite."""
        u = _array(u)
        return u <= self.slope_at_infinity if self.attained else u < self.slope_at_infinity


def forward_kl() -> FDivergence:
    """KL(p, q)."""
    return FDivergence(
        "forward_kl",
        "t log t - t + 1",
        kl_sum,
        at_zero=1.0,
        slope_at_infinity=math.inf,
        slope=lambda s: s,
        inner_conjugate=lambda u: array_namespace(u).expm1(u),
    )


def reverse_kl() -> FDivergence:
    """KL(q, p)."""
    return FDivergence(
        "reverse_kl",
        "t - 1 - log t",
        lambda pair: power_sum(pair, 0.0),
        at_zero=math.inf,
        slope_at_infinity=1.0,
        slope=lambda s: -array_namespace(s).expm1(-s),
        inner_conjugate=lambda u: -array_namespace(u).log1p(-u),
    )


def js(weight: float = 0.5) -> FDivergence:
    """Jensen-Shannon w KL(p, m) + (1 - w) KL(q, m), m = w p + (1 - w) q, for 0 < w < 1."""
    if not 0 < weight < 1:
        raise DistributionError(f"found weight {weight}; wanted one between 0 and 1, where this divergence is not 0")
    rest = 1 - weight

    def slope(s: Array) -> Array:
        """w (s - log(1 - w + w e^s)), by exponents that are never positive: one of the two terms is 0."""
        xp = array_namespace(s)
        zero = xp.zeros_like(s)
        above, below = xp.where(s > 0, s, zero), xp.where(s > 0, zero, s)
        return weight * (below - xp.log1p(weight * xp.expm1(below)) - xp.log1p(rest * xp.expm1(-above)))

    def conjugate(u: Array) -> Array:
        xp = array_namespace(u)
        return -rest * xp.log1p(-weight / rest * xp.expm1(u / weight))

    return FDivergence(
        "js",
        "w t log t - (w t + 1 - w) log(w t + 1 - w)",
        lambda pair: mixture_sum(pair, weight),
        at_zero=-rest * math.log1p(-weight),
        slope_at_infinity=-weight * math.log(weight),
        slope=slope,
        inner_conjugate=conjugate,
    )


def total_variation() -> FDivergence:
    """sum |p - q| / 2."""
    return FDivergence(
        "total_variation",
        "|t - 1| / 2",
        absolute_sum,
        at_zero=0.5,
        slope_at_infinity=0.5,
        slope=lambda s: array_namespace(s).sign(s) / 2,
        inner_conjugate=lambda u: _at_least(u, -0.5),
        attained=True,
    )


def squared_hellinger() -> FDivergence:
    """sum (sqrt p - sqrt q)^2 / 2."""
    return FDivergence(
        "squared_hellinger",
        "(sqrt t - 1)^2 / 2",
        lambda pair: power_sum(pair, 0.5) / 4,
        at_zero=0.5,
        slope_at_infinity=0.5,
        slope=lambda s: -array_namespace(s).expm1(-s / 2) / 2,
        inner_conjugate=lambda u: u / (1 - 2 * u),
    )


def chi2() -> FDivergence:
    """Pearson's sum (p - q)^2 / q."""

    def conjugate(u: Array) -> Array:
        u = _at_least(u, -2.0)
        return u + u * u / 4

    return FDivergence(
        "chi2",
        "(t - 1)^2",
        lambda pair: 2 * power_sum(pair, 2.0),
        at_zero=1.0,
        slope_at_infinity=math.inf,
        slope=lambda s: 2 * array_namespace(s).expm1(s),
        inner_conjugate=conjugate,
    )


def alpha(order: float) -> FDivergence:
    """(sum p^a q^(1-a) - 1) / (a (a - 1)); KL(p, q) at a = 1 and KL(q, p) at a = 0."""
    if not math.isfinite(order):
        raise DistributionError(f"found order {order}; wanted a finite one")
    if order in (0, 1):
        return forward_kl() if order else reverse_kl()
    less = order - 1

    def slope(s: Array) -> Array:
        return array_namespace(s).expm1(less * s) / less

    def conjugate(u: Array) -> Array:
        """((1 + (a - 1) u)^(a / (a - 1)) - 1) / a, by logarithms; below f'(0), where a > 1, it is -f(0)."""
        xp = array_namespace(u)
        positive = 1 + less * u > 0
        log_t = xp.log1p(less * xp.where(positive, u, xp.zeros_like(u))) / less
        return xp.where(positive, xp.expm1(order * log_t), -xp.ones_like(u)) / order

    return FDivergence(
        "alpha",
        "(t^a - a t + a - 1) / (a (a - 1))",
        lambda pair: power_sum(pair, order),
        at_zero=1 / order if order > 0 else math.inf,
        slope_at_infinity=1 / (1 - order) if order < 1 else math.inf,
        slope=slope,
        inner_conjugate=conjugate,
        attained=order < 0,
    )


F_DIVERGENCES: dict[str, Callable[..., FDivergence]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "js": js,
    "total_variation": total_variation,
    "squared_hellinger": squared_hellinger,
    "chi2": chi2,
    "alpha": alpha,
}


def f_divergence_named(name: str, **parameters: float) -> FDivergence:
    """The f-divergence of a name of `F_DIVERGENCES`, with its parameters ("js": weight; "alpha": order).

    >>> f_divergence_named("alpha", order=2.0).slope_at_infinity
    inf
    """
    if name not in F_DIVERGENCES:
        raise DistributionError(f"found the f-divergence {name!r}; wanted one of {', '.join(F_DIVERGENCES)}")
    try:
        return F_DIVERGENCES[name](**parameters)
    except TypeError as error:
        raise DistributionError(f"the f-divergence {name!r} does not go with {parameters}: {error}") from error


def f_divergence(p: Distribution, q: Distribution, f: str | FDivergence, **options: Unpack[Options]) -> Array:
    """The f-divergence sum q f(p / q), for a name of `F_DIVERGENCES` or an `FDivergence` (Csiszár 1967).

    One value for each row, in nats for those that have a unit. Names that take parameters are made by
    `f_divergence_named`.

    >>> from kilter.divergence import Probs
    >>> p, q = Probs([0.5, 0.5]), Probs([0.7, 0.3])
    >>> round(float(f_divergence(p, q, "forward_kl")), 7), round(float(f_divergence(p, q, "reverse_kl")), 7)
    (0.0871767, 0.0822829)
    """
    divergence = f_divergence_named(f) if isinstance(f, str) else f
    return of_two(p, q, options, "nats", divergence.row_sum)


def _row_sum_of(f: Function, at_zero: float, slope_at_infinity: float) -> Callable[[Pair], Array]:
    def row_sum(pair: Pair) -> Array:
        xp = array_namespace(pair.p.p)
        zero = xp.zeros_like(pair.p.p)
        inner = pair.q.p * f(xp.exp(-pair.log_ratio))
        only_p = _weighted(pair.p.p, pair.p.possible, slope_at_infinity)
        only_q = _weighted(pair.q.p, pair.q.possible, at_zero)
        edge = xp.where(pair.q.possible, zero, only_p) + xp.where(pair.p.possible, zero, only_q)
        return xp.sum(xp.where(pair.both, inner, edge), axis=-1)

    return row_sum


def _weighted(p: Array, possible: Array, factor: float) -> Array:
    """p * factor, with 0 x inf = 0."""
    if math.isfinite(factor):
        return p * factor
    xp = array_namespace(p)
    return xp.where(possible, xp.full_like(p, factor), xp.zeros_like(p))


def _at_least(u: Array, least: float) -> Array:
    xp = array_namespace(u)
    return xp.where(u > least, u, xp.full_like(u, least))


def _array(value: Array) -> Array:
    return value if is_array_api_obj(value) else np.asarray(value, dtype=np.float64)
