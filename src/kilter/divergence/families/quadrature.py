"""Divergences of any two densities of one number by adaptive quadrature, of probabilities by summation, in nats.

This is the definition of each divergence as an integral. Densities are families, frozen distributions of SciPy,
one-dimensional ones of torch, or functions. The real line is mapped by double exponential functions (Takahasi and Mori
1974), under which tails and singular ends of any power become harmless, and cut into panels that are halved until their
Gauss-Kronrod errors are small. The densities are integrated along with the divergence, so a density that is not one, or
a peak that was missed, is an error and not a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.divergence.families.expectations import EXPECTATIONS
from kilter.divergence.families.family import Family, promote
from kilter.divergence.families.special import exp_excess
from kilter.divergence.families.univariate import Normal
from kilter.errors import DistributionError

Array = Any
Floats = NDArray[np.float64]

TOLERANCE = 1e-10
MOST_OUTCOMES = 2**22  # to sum over
_REACH = 6.7  # the mapped line ends here, about 1e275 scales away
_PANELS = 48
_MOST_PANELS = 6000  # besides those that it begins with
_GRADES = 2.0 ** -np.arange(3, 41, 2)  # panels shrink towards the places that were pointed out, to meet narrow peaks
_OVERFLOW_PLACES = 4096
_OUTCOMES_AT_ONCE = 2**18

# Gauss-Kronrod rule of 7 and 15 points (QUADPACK qk15); nodes at least 0.
_NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.000000000000000000000000000000000,
)  # fmt: skip
_KRONROD = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
_GAUSS = (
    0.129484966168869693270611432679082, 0.279705391489276667901467771423780,
    0.381830050505118944950369775488975, 0.417959183673469387755102040816327,
)  # fmt: skip
_X = np.array([-x for x in _NODES[:-1]] + list(_NODES[::-1]))
_K = np.array(list(_KRONROD[:-1]) + list(_KRONROD[::-1]))
_G = np.zeros(15)
_G[1::2] = list(_GAUSS[:-1]) + list(_GAUSS[::-1])


class Quadrature(NamedTuple):
    """An integral in nats, a bound on its error as the rule estimates it, and how many points it took.

    The bound cannot see what no point met. Of a function that is given to integrate to 1 within 1e-6, a missed spike of
    mass w costs w times the log-ratio there; a family that does not integrate to 1 within 1e-9 is refused. `value` is a
    number, or a differentiable scalar of the library that a family's parameters belong to.
    """

    value: Any
    error: float
    evaluations: int


@dataclass(frozen=True)
class Density:
    """A density given as a function of an array of points, or its logarithm (`is_log`), between low and high.

    The points come as one flat array. Of `points` near a narrow peak the quadrature finds the peak. A logarithm is
    better: densities underflow. Raises DistributionError for ends and points that are none.
    """

    function: Callable[[Floats], Array]
    low: float = -math.inf
    high: float = math.inf
    is_log: bool = False
    points: tuple[float, ...] = ()

    discrete = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise DistributionError(
                f"found a density from {self.low} to {self.high}; its low end must be below its high"
            )
        points = np.asarray(self.points)
        if points.ndim != 1 or points.dtype.kind not in "fiu" or not np.isfinite(points).all():
            raise DistributionError(
                f"found points={self.points!r}; wanted a tuple of finite numbers, as in points=(1.5,)"
            )

    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def log_density(self, x: Floats) -> Floats:
        values = _of_points(self.function, x)
        with np.errstate(all="ignore"):
            logs = values if self.is_log else np.log(values)
        if not self.is_log and bool(np.any(values < 0)):
            raise DistributionError(f"a density is {values.min():g} somewhere; densities are never negative")
        return np.where((x >= self.low) & (x <= self.high), logs, -math.inf)


@dataclass(frozen=True)
class LogProbabilities:
    """log P(x) of whole numbers from low on, given as a function of an array of them; -inf where there are none."""

    function: Callable[[Floats], Array]
    low: float = 0.0
    high: float = math.inf

    discrete = True

    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def log_density(self, x: Floats) -> Floats:
        return _of_points(self.function, x)


def _of_points(function: Callable[[Floats], Array], x: Floats) -> Floats:
    try:
        values = np.asarray(function(x), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DistributionError(
            f"a density was given {x.size} points at once, and failed: {error}; write it with NumPy (np.exp for "
            "math.exp, np.where for if), or wrap it in np.vectorize"
        ) from error
    if values.shape not in ((), x.shape):
        raise DistributionError(
            f"a density gave values of shape {values.shape} at points of shape {x.shape}; wanted one each"
        )
    return np.broadcast_to(values, x.shape)


def kl(p: Any, q: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """KL(p, q) = int p log(p / q), inf where p has outcomes that q rules out or where the integral diverges.

    >>> from kilter.divergence.families import Cauchy, Normal
    >>> found = kl(Normal(0, 1), Cauchy(0, 1))
    >>> round(found.value, 9), found.error < 1e-9
    (0.259244532, True)
    >>> kl(lambda x: np.exp(-x), lambda x: 2 * np.exp(-2 * x))
    Traceback (most recent call last):
    kilter.errors.DistributionError: a density is inf or not a number at -2.98586e+276; give the ends between which it \
is one, as Density(function, low, high)
    >>> exponential, faster = Density(lambda x: np.exp(-x), low=0), Density(lambda x: 2 * np.exp(-2 * x), low=0)
    >>> round(kl(exponential, faster).value, 9)  # 1 - log 2
    0.306852819
    """
    return _one(p, q, "kl", tolerance)


def js(p: Any, q: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """Jensen-Shannon divergence, (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2; at most log 2."""
    return _one(p, q, "js", tolerance)


def total_variation(p: Any, q: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """Total variation distance, half the integral of the absolute p - q; between 0 and 1."""
    return _one(p, q, "total_variation", tolerance)


def hellinger(p: Any, q: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """Hellinger distance sqrt(int (sqrt p - sqrt q)^2 / 2), between 0 and 1."""
    value, error, evaluations = _one(p, q, "squared_hellinger", tolerance)
    root = value**0.5
    return Quadrature(root, error / max(2 * float(root), math.sqrt(error), 1e-300), evaluations)


def entropy(p: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """Differential entropy -int p log p; of probabilities of counts, the entropy."""
    return _one(p, p, "entropy", tolerance)


def cross_entropy(p: Any, q: Any, *, tolerance: float = TOLERANCE) -> Quadrature:
    """Cross-entropy -int p log q, inf where p has outcomes that q rules out."""
    return _one(p, q, "cross_entropy", tolerance)


def _kl_terms(xp: Any, log_p: Array, log_q: Array, log_slope: Array) -> Array:
    """p log(p / q) - p + q, never negative, whose integral is KL(p, q) as those of p and q are equal."""
    p, q = xp.exp(log_p + log_slope), xp.exp(log_q + log_slope)
    both = (log_p > -math.inf) & (log_q > -math.inf)
    zero = xp.zeros_like(p)
    d = xp.where(both, log_q, zero) - xp.where(both, log_p, zero)
    near = xp.abs(d) < 0.5
    terms = xp.where(near, p * exp_excess(xp.where(near, d, zero)), q - p - p * d)
    ruled_out = xp.where(p > 0, xp.full_like(p, math.inf), zero)
    return xp.where(both, terms, xp.where(log_p > -math.inf, ruled_out, q))


def _js_terms(xp: Any, log_p: Array, log_q: Array, log_slope: Array) -> Array:
    most = xp.maximum(log_p, log_q)
    least = xp.where(most > -math.inf, most, xp.zeros_like(most))
    log_m = least + xp.log((xp.exp(log_p - least) + xp.exp(log_q - least)) / 2)
    return (_kl_terms(xp, log_p, log_m, log_slope) + _kl_terms(xp, log_q, log_m, log_slope)) / 2


def _total_variation_terms(xp: Any, log_p: Array, log_q: Array, log_slope: Array) -> Array:
    return xp.abs(_mass(xp, log_p, log_slope) - _mass(xp, log_q, log_slope)) / 2


def _squared_hellinger_terms(xp: Any, log_p: Array, log_q: Array, log_slope: Array) -> Array:
    return (xp.exp((log_p + log_slope) / 2) - xp.exp((log_q + log_slope) / 2)) ** 2 / 2


def _cross_entropy_terms(xp: Any, log_p: Array, log_q: Array, log_slope: Array) -> Array:
    p = _mass(xp, log_p, log_slope)
    return xp.where(p > 0, -p * xp.where(p > 0, log_q, xp.zeros_like(p)), xp.zeros_like(p))


def _mass(xp: Any, log_p: Array, log_slope: Array) -> Array:
    return xp.exp(log_p + log_slope)


# Of the array library, both log-densities and log dx / dt, with which nothing under- or overflows.
Terms = Callable[[Any, Array, Array, Array], Array]


class Integrand(NamedTuple):
    """What is integrated; and of both log-densities, what a missed share of p would have added, over that share.

    None where that is at most 1.
    """

    terms: Terms
    weight: Callable[[Floats, Floats], Floats] | None


INTEGRANDS: dict[str, Integrand] = {
    "kl": Integrand(_kl_terms, lambda log_p, log_q: log_p - log_q),
    "js": Integrand(_js_terms, None),
    "total_variation": Integrand(_total_variation_terms, None),
    "squared_hellinger": Integrand(_squared_hellinger_terms, None),
    "entropy": Integrand(
        lambda xp, log_p, log_q, log_slope: _cross_entropy_terms(xp, log_p, log_p, log_slope),
        lambda log_p, log_q: log_p,
    ),
    "cross_entropy": Integrand(_cross_entropy_terms, lambda log_p, log_q: log_q),
}


def _largest_weight(of: Integrand, log_p: Floats, log_q: Floats, mass_p: Floats) -> Floats:
    """The greatest weight, up to its sign, along the last axis, among places that p has something at; 1 is added."""
    if of.weight is None:
        return np.ones(log_p.shape[:-1])
    some = (log_p > -math.inf) & (log_q > -math.inf) & (mass_p > 1e-20)
    weight = of.weight(np.where(some, log_p, 0.0), np.where(some, log_q, 0.0))
    largest: Floats = 1 + np.abs(weight).max(axis=-1)
    return largest


def _one(p: Any, q: Any, name: str, tolerance: float) -> Quadrature:
    p, q = _density(p, "p"), _density(q, "q")
    if p.discrete != q.discrete:
        raise DistributionError(
            f"{name}: one has probabilities of whole numbers, the other a density: they cannot be compared"
        )
    numbers = _plain(p), _plain(q)
    of = INTEGRANDS[name]
    if of.weight is not None and _reaches_beyond(*numbers):
        return Quadrature(math.inf, 0.0, 0)
    with np.errstate(all="ignore"):
        found = (_summed if p.discrete else _integrated)(*numbers, of, tolerance)
        if math.isinf(found.value):
            return Quadrature(math.inf, 0.0, found.x.size)
        parameters = [*_parameters(p), *_parameters(q)]
        if promote(*parameters)[0] is promote(0.0)[0]:
            return Quadrature(found.value, found.error, found.x.size)
        return Quadrature(_differentiable(p, q, of.terms, found, numbers), found.error, found.x.size)


def _differentiable(p: Any, q: Any, terms: Terms, found: _Found, numbers: tuple[Any, Any]) -> Array:
    """The same sum over the same points by the library that the parameters belong to, where there is any mass."""
    some = sum(np.exp(_at(of, found.x, found.rest) + found.log_weight) for of in numbers) > 1e-30
    arrays = (found.x[some], found.rest[some], found.log_weight[some], *_parameters(p), *_parameters(q))
    xp, (x, rest, log_weight, *_) = promote(*arrays)
    return xp.sum(terms(xp, _at(p, x, rest), _at(q, x, rest), log_weight))


def _reaches_beyond(p: Any, q: Any) -> bool:
    """Whether p, a family of densities, has outcomes beyond the ends of q."""
    if not isinstance(p, Family) or p.discrete:
        return False
    (low, high), (q_low, q_high) = (tuple(map(float, of.support())) for of in (p, q))
    return low < q_low or high > q_high


class _Found(NamedTuple):
    """A sum, a bound on its error, and its points: x, 1 - x near 1 (else NaN), and the logarithm of the weight."""

    value: float
    error: float
    x: Floats
    rest: Floats
    log_weight: Floats


def _infinite(count: int) -> _Found:
    return _Found(math.inf, 0.0, np.zeros(count), np.zeros(count), np.zeros(count))


def _at(p: Any, x: Array, rest: Array) -> Array:
    """The log-density at x; near 1, where 1 - x has no digits left, of families between 0 and 1 from 1 - x itself."""
    if not isinstance(p, Family) or p.kind != "unit":
        return p.log_density(x)
    xp, (x, rest) = promote(x, rest)
    low = (x < 0.5) | (rest != rest)
    half = xp.full_like(x, 0.5)
    return xp.where(low, p.log_density(xp.where(low, x, half)), p.log_density_below_1(xp.where(low, half, rest)))


def _density(p: Any, called: str) -> Any:
    from kilter.divergence.families.mixtures import Mixture
    from kilter.divergence.families.objects import family_of

    of_library = type(p).__module__.startswith(("scipy.stats", "torch.distributions"))
    known = Density(p) if callable(p) and not of_library else family_of(p)
    if isinstance(known, Mixture) and isinstance(known.components, Normal):
        means = np.unique(np.asarray(known.components.mean, dtype=np.float64))
        return Density(known.log_density, is_log=True, points=tuple(means.tolist()))
    if isinstance(known, Mixture) or (isinstance(known, Family) and known.kind not in _OF_NUMBERS):
        raise DistributionError(
            f"{called} is {type(known).__name__}, which is not of one number; there is no quadrature"
        )
    return known


_OF_NUMBERS = {"line", "half-line", "tail", "unit", "interval", "circle", "counts", "finite"}


def _parameters(p: Any) -> list[Array]:
    return p.parameters() if isinstance(p, Family) else []


def _plain(p: Any) -> Any:
    """A family with parameters that are NumPy's, whatever library they belong to."""
    if not isinstance(p, Family):
        return p
    values = [np.asarray(v.detach() if hasattr(v, "detach") else v, dtype=np.float64) for v in p.parameters()]
    if any(value.ndim > (1 if p.family_name() == "categorical" else 0) for value in values):
        raise DistributionError(
            f"{p.family_name()}: parameters are arrays; quadrature takes one distribution at a time"
        )
    return p.with_parameters(values)


# Quadrature.


class _Map(NamedTuple):
    """A place x for each t between -_REACH and _REACH, 1 - x where 1 is an end, log dx / dt, and t for a given x."""

    x: Callable[[Floats], Floats]
    rest: Callable[[Floats], Floats]
    log_slope: Callable[[Floats], Floats]
    t: Callable[[float], float]


def _map(low: float, high: float, centre: float, scale: float) -> _Map:
    half_pi = math.pi / 2
    if math.isinf(low) and math.isinf(high):
        return _Map(
            lambda t: centre + scale * np.sinh(half_pi * np.sinh(t)),
            lambda t: np.full_like(t, math.nan),
            lambda t: math.log(scale * half_pi) + np.log(np.cosh(t)) + np.log(np.cosh(half_pi * np.sinh(t))),
            lambda x: math.asinh(math.asinh((x - centre) / scale) / half_pi),
        )
    if math.isinf(high) or math.isinf(low):
        end, sign = (low, 1.0) if math.isinf(high) else (high, -1.0)
        inside = sorted((np.nextafter(end, sign * math.inf), sign * math.inf))
        return _Map(
            lambda t: np.clip(end + sign * scale * np.exp(half_pi * np.sinh(t)), *inside),
            lambda t: np.full_like(t, math.nan),
            lambda t: math.log(scale * half_pi) + np.log(np.cosh(t)) + half_pi * np.sinh(t),
            lambda x: math.asinh(math.log(max(abs(x - end) / scale, 1e-200)) / half_pi),
        )
    width, inner = high - low, (np.nextafter(low, high), np.nextafter(high, low))

    def log_part(t: Floats) -> Floats:
        """The logarithm of the share of the interval that lies left of t."""
        return -np.logaddexp(0.0, -math.pi * np.sinh(t))

    def x(t: Floats) -> Floats:
        from_low, from_high = low + width * np.exp(log_part(t)), high - width * np.exp(log_part(-t))
        return np.clip(np.where(t < 0, from_low, from_high), *inner)

    return _Map(
        x,
        lambda t: np.maximum(width * np.exp(log_part(-t)), 1e-300) if high == 1 else np.full_like(t, math.nan),
        lambda t: math.log(width * math.pi) + np.log(np.cosh(t)) + log_part(t) + log_part(-t),
        lambda x: math.asinh(math.log(max(x - low, 1e-200) / max(high - x, 1e-200)) / math.pi),
    )


class _Panels(NamedTuple):
    """Panels of the mapped line: integrals of the terms, p and q over each, their errors, and the points they took."""

    left: Floats
    right: Floats
    integrals: Floats
    errors: Floats
    rounding: Floats
    x: Floats
    rest: Floats
    log_weight: Floats
    lacking_weight: Floats


def _evaluated(p: Any, q: Any, of: Integrand, line: _Map, left: Floats, right: Floats) -> _Panels:
    half = (right - left)[:, None] / 2
    t = (left + right)[:, None] / 2 + half * _X
    x, rest, log_slope = line.x(t), line.rest(t), line.log_slope(t)
    log_p, log_q = (_at(density, x.ravel(), rest.ravel()).reshape(t.shape) for density in (p, q))
    mass_p, mass_q = _mass(np, log_p, log_slope), _mass(np, log_q, log_slope)
    if isinstance(q, Density) and not q.is_log:  # q may be 0 because it underflows, where p all but does
        log_p = np.where((log_q == -math.inf) & (mass_p < 1e-18), -math.inf, log_p)
    values = np.stack([of.terms(np, log_p, log_q, log_slope), mass_p, mass_q], axis=1) * half[:, None]
    if (nowhere := np.isnan(values).any(axis=1)).any():
        raise DistributionError(
            f"a density is inf or not a number at {x[nowhere][0]:g}; give the ends between which it is one, as "
            "Density(function, low, high)"
        )
    kronrod, gauss = values @ _K, values @ _G
    # The estimate of QUADPACK: the two rules' difference, in view of how far the integrand is from constant.
    spread = np.maximum(np.abs(values - kronrod[..., None] / 2) @ _K, 1e-300)
    error = spread * np.minimum(1.0, (200 * np.abs(kronrod - gauss) / spread) ** 1.5)
    rounding = 50 * np.finfo(np.float64).eps * (np.abs(values) @ _K)
    weight = _largest_weight(of, log_p, log_q, mass_p)
    return _Panels(left, right, kronrod, error, rounding, x, rest, log_slope + np.log(half * _K), weight)


def _integrated(p: Any, q: Any, of: Integrand, tolerance: float) -> _Found:
    """The integral over each piece of the line between ends of the two supports, where densities may be singular."""
    ends = sorted({float(np.asarray(end)) for density in (p, q) for end in density.support()})
    pieces = [_piece(p, q, of, low, high, tolerance) for low, high in pairwise(ends)]
    return _trusted(p, q, of, pieces, ends, tolerance)


def _piece(p: Any, q: Any, of: Integrand, low: float, high: float, tolerance: float) -> _Panels:
    """Panels between two ends, halved until their errors are small; from left to right."""
    places = [x for x in (*_places(p), *_places(q)) if low < x < high]
    line = _map(low, high, *_middle(p, places, low, high))
    first, last = (-_REACH, _REACH) if of.weight is None else _before_overflow(p, q, line)
    cuts = [line.t(x) for x in places]
    graded = [cut + side * step for cut in cuts for side in (-1, 1) for step in _GRADES]
    inner = [t for t in (*cuts, *graded) if first < t < last]
    edges = np.unique(np.array([*np.linspace(first, last, _PANELS + 1), *inner]))
    left, right = edges[:-1], edges[1:]
    done: list[_Panels] = []
    count = 0
    while left.size:
        panels = _evaluated(p, q, of, line, left, right)
        count += left.size
        wanted = tolerance / 256 * np.maximum(1.0, np.abs(panels.integrals).sum(axis=0))
        bad = (panels.errors > np.maximum(wanted, panels.rounding)).any(axis=1)
        bad &= (right - left > 1e-12) & (count < edges.size + _MOST_PANELS)
        done.append(_Panels(*(part[~bad] for part in panels)))
        middle = (left[bad] + right[bad]) / 2
        left, right = np.concatenate([left[bad], middle]), np.concatenate([middle, right[bad]])
    everything = _joined(done)
    order = np.argsort(everything.left)
    return _Panels(*(part[order] for part in everything))


def _before_overflow(p: Any, q: Any, line: _Map) -> tuple[float, float]:
    """The part of the mapped line where the log-density of q is a number.

    Beyond 1e154 squares overflow, and log q is -inf where it is but very small; p has next to nothing there, though
    what is integrated may. Where p has some mass, q rules it out.
    """
    if isinstance(q, Density) and not q.is_log:
        return -_REACH, _REACH
    t = np.linspace(-_REACH, _REACH, _OVERFLOW_PLACES + 1)
    x, rest = line.x(t), line.rest(t)
    log_p, log_q = _at(p, x, rest), _at(q, x, rest)
    overflows = (log_q == -math.inf) & (log_p > -math.inf)
    mass = _mass(np, log_p[overflows], line.log_slope(t[overflows])).sum() * (t[1] - t[0])
    if mass > 1e-9 or overflows.all():
        return -_REACH, _REACH
    return float(t[~overflows][0]), float(t[~overflows][-1])


def _joined(panels: Sequence[_Panels]) -> _Panels:
    return _Panels(*(np.concatenate(parts) for parts in zip(*panels, strict=True)))


def _trusted(
    p: Any, q: Any, of: Integrand, pieces: Sequence[_Panels], ends: Sequence[float], tolerance: float
) -> _Found:
    """The sum over all pieces, refused where the densities are none or errors are large."""
    panels = _joined(pieces)
    value, *masses = panels.integrals.sum(axis=0)
    for called, density, mass in zip("pq", (p, q), masses, strict=True):
        # A family is a density, so what is missing was not reached; a function may be given to a few digits.
        exact = isinstance(density, Family) and of.weight is not None
        if not abs(mass - 1) < min(1e-3, max(1e-9 if exact else 1e-6, 100 * tolerance)):
            instead = "give its ends, and points near its peaks, as Density(function, low, high, points=...)"
            if isinstance(density, Family):
                instead = "more of it lies closer to an end than numbers reach, so take its closed form, or samples"
            raise DistributionError(
                f"{called} integrates to {mass:.9g} between {ends[0]:g} and {ends[-1]:g}; it must integrate to 1: "
                f"{instead}"
            )
    if of.weight is not None and (math.isinf(value) or any(map(_diverges, pieces))):
        return _infinite(panels.x.size)
    # What is beyond the last panels is less than what they hold; what a density lacks weighs as the terms do there.
    last = _joined([_outermost(piece) for piece in pieces])
    lacking = last.lacking_weight.max() * sum(abs(mass - 1) for mass in masses)
    error = float(np.maximum(panels.errors, panels.rounding)[:, 0].sum() + np.abs(last.integrals[:, 0]).sum() + lacking)
    if error > max(1e-5, 1e3 * tolerance) * max(1.0, abs(value)):
        raise DistributionError(
            f"the quadrature does not settle: {value:g} with an error of {error:g} after {panels.x.size} points; give "
            "points near the peaks, as Density(function, low, high, points=...), or a greater tolerance"
        )
    return _Found(float(value), error, panels.x.ravel(), panels.rest.ravel(), panels.log_weight.ravel())


def _outermost(panels: _Panels) -> _Panels:
    """What became of the first and of the last of the panels that a piece began with."""
    width = 1.001 * (panels.right[-1] - panels.left[0]) / _PANELS
    outer = (panels.right < panels.left[0] + width) | (panels.left > panels.right[-1] - width)
    return _Panels(*(part[outer] for part in panels))


def _diverges(panels: _Panels) -> bool:
    """Whether the integrand, over the logarithm of the distance from an end, does not fall where the line ends."""
    size = np.abs(panels.integrals[:, 0])
    share, density = size / (panels.right - panels.left), size / (np.sinh(panels.right) - np.sinh(panels.left))
    some = share > 1e-3 * share.mean()
    return any(
        some[at] and density[at] > 0.999 * density[at + step] > 0.998 * density[at + 2 * step]
        for at, step in ((0, 1), (-1, -1))
    )


def _middle(p: Any, places: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """A place and a scale of p, to map a line by."""
    if math.isinf(low) and math.isinf(high):
        return _centre(p) if isinstance(p, Family) else (p.points[0] if len(p.points) else 0.0, 1.0)
    end = low if math.isfinite(low) else high
    return end, float(np.median([abs(x - end) for x in places])) if places else 1.0


def _centre(p: Family) -> tuple[float, float]:
    """Location and scale of a family on the line."""
    named = dict(zip(p.parameter_names(), (float(value) for value in p.parameters()), strict=True))
    return named.get("mean", named.get("location", 0.0)), named.get("sd", named.get("scale", 1.0))


def _log_centre(p: Family) -> tuple[float, float] | None:
    """Mean and standard deviation of log x under p, where they are known."""
    known = EXPECTATIONS.get(type(p), {})
    if p.kind not in ("half-line", "tail") or "mean_log" not in known:
        return None
    xp, values = promote(*p.parameters())
    at = p.with_parameters(values)
    spread = float(known["variance_log"](xp, at)) if "variance_log" in known else 1.0
    return float(known["mean_log"](xp, at)), math.sqrt(max(spread, 0.0))


def _places(p: Any) -> list[float]:
    """Places where panels should end: kinks, peaks and what lies around them."""
    if not isinstance(p, Family):
        return [*p.points]
    steps = (-30.0, -8.0, -3.0, -1.0, 0.0, 1.0, 3.0, 8.0, 30.0)
    if p.kind == "line":
        centre, scale = _centre(p)
        return [centre + step * scale for step in steps]
    if (typical := _log_centre(p)) is not None:
        return [math.exp(at) for step in steps if abs(at := typical[0] + step * typical[1]) < 300]
    return [float(p.parameters()[0])] if p.kind == "circle" else []


# Summation.


def _summed(p: Any, q: Any, of: Integrand, tolerance: float) -> _Found:
    """The sum over whole numbers, upwards, until both probabilities are used up and nothing is added any more."""
    lows, highs = zip(*(map(float, density.support()) for density in (p, q)), strict=True)
    first, high = min(lows), max(highs)
    if math.isinf(first):
        raise DistributionError("one has outcomes without a least one; sums begin there: take samples")
    total, size, weight, start, count = np.zeros(3), np.zeros(3), 1.0, int(first), 1024
    while True:
        end = int(min(start + count, high + 1))
        x = np.arange(start, end, dtype=np.float64)
        log_p, log_q, one = p.log_density(x), q.log_density(x), np.zeros_like(x)
        mass_p, mass_q = _mass(np, log_p, one), _mass(np, log_q, one)
        added = np.stack([of.terms(np, log_p, log_q, one), mass_p, mass_q])
        if np.isinf(added[0]).any():
            return _infinite(end - int(first))
        step = np.array([math.fsum(row) for row in added])
        total, size, start = total + step, size + np.abs(added).sum(axis=1), end
        weight = max(weight, float(_largest_weight(of, log_p, log_q, mass_p)))
        complete = np.all(np.abs(total[1:] - 1) < 1e-9) and abs(step[0]) <= 1e-3 * tolerance * max(1.0, abs(total[0]))
        if start > high or (complete and np.all(np.abs(added[:, -1]) <= 1e-16)):
            break
        if start - first >= MOST_OUTCOMES:
            raise DistributionError(
                f"p adds up to {total[1]:g} and q to {total[2]:g} over {first:g} to {start - 1:,}, and sums end there; "
                "take a closed form, or for outcomes so large the density that these probabilities are near to"
            )
        count = int(min(2 * count, _OUTCOMES_AT_ONCE, first + MOST_OUTCOMES - start))
    # Probabilities that do not add up to 1 are rounded, each by as much of itself.
    error = float(np.finfo(np.float64).eps * 8 * (size[0] + 1) + np.abs(total[1:] - 1).sum() * weight)
    x = np.arange(int(first), start, dtype=np.float64)
    return _Found(float(total[0]), error, x, np.zeros_like(x), np.zeros_like(x))
