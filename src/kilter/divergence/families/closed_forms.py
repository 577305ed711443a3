"""Entropies and divergences of parametric families in closed form, by a registry of pairs, in nats.

A pair is served by the first way that fits: a formula of its own (`same_family.KL`), perhaps as special cases of a
wider family (an exponential distribution is a gamma distribution) or after a change of variable; supports that never
fit; a finite sum; or expectations (`expectations.py`). For a pair that none fits the error says what there is instead.

Order is (p, q) throughout. Parameters may be arrays of any library, which broadcast; results are differentiable where
the library is. Distributions of `scipy.stats` (frozen) and `torch.distributions` are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import device

from kilter.divergence.families import multivariate
from kilter.divergence.families.expectations import CROSS_ENTROPIES, ENTROPIES, Expectations, knows
from kilter.divergence.families.family import WITHIN, Family, fields_of, promote
from kilter.divergence.families.same_family import (
    BHATTACHARYYA,
    KL,
    SAME_UP_TO_A_CHANGE_OF_VARIABLE,
    WASSERSTEIN2,
    Pair,
    made,
)
from kilter.divergence.families.special import root
from kilter.divergence.families.univariate import (
    Bernoulli,
    Binomial,
    Cauchy,
    ChiSquared,
    Exponential,
    Gamma,
    Geometric,
    NegativeBinomial,
    Rayleigh,
    StudentT,
    Weibull,
)
from kilter.errors import DistributionError

Array = Any
MANY_OUTCOMES = 2**22  # that are summed over at once
Formula = Callable[[Any, Any, Any], Array]
Widening = Callable[[Any, Any], Any]
Pairs = dict[tuple[type[Family], type[Family]], Pair]

KL_PAIRS: Pairs = {(family, family): pair for family, pair in KL.items()} | multivariate.KL
BHATTACHARYYA_PAIRS: Pairs = {(f, f): pair for f, pair in BHATTACHARYYA.items()} | multivariate.BHATTACHARYYA
WASSERSTEIN2_PAIRS: Pairs = {(f, f): pair for f, pair in WASSERSTEIN2.items()} | multivariate.WASSERSTEIN2
_ENTROPIES = ENTROPIES | multivariate.ENTROPIES

# Families that are special cases of others.
WIDER: dict[type[Family], dict[type[Family], Widening]] = {
    Exponential: {
        Gamma: lambda xp, p: made(Gamma, xp.ones_like(p.rate), p.rate),
        Weibull: lambda xp, p: made(Weibull, xp.ones_like(p.rate), 1 / p.rate),
    },
    ChiSquared: {Gamma: lambda xp, p: made(Gamma, p.df / 2, xp.full_like(p.df, 0.5))},
    Rayleigh: {Weibull: lambda xp, p: made(Weibull, xp.full_like(p.scale, 2.0), math.sqrt(2) * p.scale)},
    Cauchy: {StudentT: lambda xp, p: made(StudentT, xp.ones_like(p.scale), p.location, p.scale)},
    Bernoulli: {Binomial: lambda xp, p: made(Binomial, xp.ones_like(p.probability), p.probability)},
    Geometric: {NegativeBinomial: lambda xp, p: made(NegativeBinomial, xp.ones_like(p.probability), p.probability)},
}


def entropy(p: Any) -> Array:
    """Entropy H(p) = -E_p[log p], of densities the differential entropy, which may be negative.

    >>> from kilter.divergence.families import Bernoulli, Normal
    >>> float(entropy(Bernoulli(0.5)))
    0.6931471805599453
    >>> round(float(entropy(Normal(0, 1))), 6)
    1.418939
    """
    p = _family(p)
    found = entropy_formula(type(p))
    if found is None:
        raise _none("entropy", p)
    return _computed(found, p, p)


def cross_entropy(p: Any, q: Any) -> Array:
    """Cross-entropy H(p, q) = -E_p[log q] = H(p) + KL(p, q); inf where p has outcomes that q rules out.

    >>> from kilter.divergence.families import Normal
    >>> round(float(cross_entropy(Normal(0, 1), Normal(1, 1))), 6)
    1.918939
    """
    p, q = _families(p, q)
    found = cross_entropy_formula(p, q)
    if found is None:
        raise _none("cross_entropy", p, q)
    return _computed(found, p, q)


def kl(p: Any, q: Any) -> Array:
    """KL(p, q) = E_p[log p - log q], inf where p has outcomes that q rules out.

    >>> from kilter.divergence.families import Cauchy, Gamma, Logistic, Normal
    >>> float(kl(Normal(0, 1), Normal(1, 1)))
    0.5
    >>> kl(Normal(0, 1), Cauchy(0, 1))
    Traceback (most recent call last):
    kilter.errors.DistributionError: KL(normal, cauchy) has no closed form; integrate it with \
kilter.divergence.quadrature.kl, or estimate it from samples
    """
    p, q = _families(p, q)
    found = kl_formula(p, q)
    if found is None:
        raise _none("kl", p, q, equal=way_of_kl(type(p), type(q))[1])
    return _computed(found, p, q)


def bhattacharyya(p: Any, q: Any) -> Array:
    """Bhattacharyya distance -log int sqrt(p q), symmetric; inf where p and q have no outcome in common.

    >>> from kilter.divergence.families import Poisson
    >>> float(bhattacharyya(Poisson(1.0), Poisson(4.0)))  # (sqrt 4 - sqrt 1)^2 / 2
    0.5
    """
    return _bhattacharyya("bhattacharyya", p, q)


def _bhattacharyya(name: str, p: Any, q: Any) -> Array:
    p, q = _families(p, q)
    found = _pair_formula(BHATTACHARYYA_PAIRS, p, q)
    if found is None:
        known = within_family(BHATTACHARYYA_PAIRS, type(p)) if type(p) is type(q) else None
        raise _none(name, p, q, equal=known.equal if known else ())
    xp, (distance,) = promote(_computed(found, p, q))
    return xp.where(distance < 0, xp.zeros_like(distance), distance)  # there is nothing but rounding below 0


def hellinger(p: Any, q: Any) -> Array:
    """Hellinger distance sqrt(1 - int sqrt(p q)), between 0 and 1, symmetric.

    >>> from kilter.divergence.families import Exponential
    >>> float(hellinger(Exponential(1.0), Exponential(1.0)))
    0.0
    """
    xp, (distance,) = promote(_bhattacharyya("hellinger", p, q))
    return root(-xp.expm1(-distance))


def wasserstein2(p: Any, q: Any) -> Array:
    """2-Wasserstein distance between normals, in the unit of the outcomes (Dowson and Landau 1982).

    >>> from kilter.divergence.families import Normal
    >>> float(wasserstein2(Normal(0, 1), Normal(3, 5)))
    5.0
    """
    p, q = _families(p, q)
    found = _pair_formula(WASSERSTEIN2_PAIRS, p, q)
    if found is None:
        raise DistributionError(
            f"W2({type(p).family_name()}, {type(q).family_name()}) has no closed form here; it is known for normals"
        )
    return _computed(found, p, q)


def has_closed_form(name: str, p: Any, q: Any = None) -> bool:
    """Whether `entropy`, `cross_entropy`, `kl`, `bhattacharyya`, `hellinger` or `wasserstein2` has one here.

    >>> from kilter.divergence.families import Cauchy, Normal
    >>> has_closed_form("kl", Cauchy(0, 1), Cauchy(2, 1)), has_closed_form("kl", Normal(0, 1), Cauchy(0, 1))
    (True, False)
    """
    if name != "entropy" and name not in _FORMULAS:
        raise DistributionError(f"there is no {name!r} in closed form; there are entropy, {', '.join(_FORMULAS)}")
    if name != "entropy" and q is None:
        raise DistributionError(f"{name} is of two distributions; give q")
    try:
        p, q = _family(p), p if q is None else _family(q)
    except DistributionError:
        return False
    return entropy_formula(type(p)) is not None if name == "entropy" else _FORMULAS[name](p, q) is not None


def entropy_formula(family: type[Family]) -> Formula | None:
    """The formula of a family's entropy, if there is one."""
    for wide, widen in _wider(family):
        if wide in _ENTROPIES:
            return _after(_ENTROPIES[wide], widen)
    if family.kind == "finite":
        return lambda xp, p, q: -_sum_over_outcomes(xp, p, p)
    return None


def cross_entropy_formula(p: Family, q: Family) -> Formula | None:
    """The formula of H(p, q), if there is one."""
    if (found := _by_expectations(type(p), type(q))) is not None:
        return found
    divergence, own = kl_formula(p, q), entropy_formula(type(p))
    if divergence is None or own is None:
        return None
    return lambda xp, p, q: own(xp, p, p) + divergence(xp, p, q)


def kl_formula(p: Family, q: Family) -> Formula | None:
    """The formula of KL(p, q), if there is one."""
    if (found := _pair_formula(KL_PAIRS, p, q)) is not None:
        return found
    if never_within(type(p), type(q)):
        return _inf_unless_always_0 if p.discrete else lambda xp, p, q: xp.full_like(_shape(p) + _shape(q), math.inf)
    if p.kind == "finite" and q.discrete:
        return lambda xp, p, q: _sum_over_outcomes(xp, p, p) - _sum_over_outcomes(xp, p, q)
    cross, own = _by_expectations(type(p), type(q)), entropy_formula(type(p))
    if cross is None or own is None:
        return None
    return lambda xp, p, q: _difference(xp, cross(xp, p, q), own(xp, p, p))


def _difference(xp: Any, cross: Array, own: Array) -> Array:
    """H(p, q) - H(p), which is never negative but by rounding; DistributionError where more than that was lost."""
    value = cross - own
    rounding = 100 * xp.finfo(value.dtype).eps * (1 + xp.abs(cross) + xp.abs(own))
    if bool(xp.any(value < -rounding)):
        raise DistributionError(
            "KL has lost all its digits: the parts of its closed form are too large for their difference; integrate it "
            "with kilter.divergence.quadrature.kl, or give the parameters in float64"
        )
    return xp.where(value < 0, xp.zeros_like(value), value)


_FORMULAS: dict[str, Callable[[Family, Family], Formula | None]] = {
    "cross_entropy": cross_entropy_formula,
    "kl": kl_formula,
    "bhattacharyya": lambda p, q: _pair_formula(BHATTACHARYYA_PAIRS, p, q),
    "hellinger": lambda p, q: _pair_formula(BHATTACHARYYA_PAIRS, p, q),
    "wasserstein2": lambda p, q: _pair_formula(WASSERSTEIN2_PAIRS, p, q),
}


def never_within(p: type[Family], q: type[Family]) -> bool:
    """Whether every distribution of family p has outcomes that every one of family q rules out.

    Those of counts that are always 0 have not; they are no more than that of their families.
    """
    if p.kind not in WITHIN or q.kind not in WITHIN or _comparable(p, q) is False:
        return False
    always, perhaps = WITHIN[q.kind]
    return p.kind not in always | perhaps


def _comparable(p: type[Family], q: type[Family]) -> bool:
    """Whether both have densities, or both probabilities, on numbers."""
    discrete = {"finite", "counts"}
    return (p.kind in discrete) == (q.kind in discrete)


def way_of_kl(p: type[Family], q: type[Family]) -> tuple[str, tuple[str, ...]]:
    """How KL(p, q) of two families is found, and the parameters that must be equal for it.

    "formula", "inf" (some outcomes of p are never outcomes of q), "sum", "expectations", or "" where there is no closed
    form.

    >>> from kilter.divergence.families import Gumbel, Logistic, Normal, Uniform
    >>> way_of_kl(Normal, Gumbel), way_of_kl(Logistic, Logistic), way_of_kl(Normal, Uniform)
    (('expectations', ()), ('formula', ('scale',)), ('inf', ()))
    """
    pairs = [_pair(KL_PAIRS, wide_p, wide_q) for wide_p, _ in _wider(p) for wide_q, _ in _wider(q)]
    found = [pair.equal for pair in pairs if pair is not None]
    if () in found:
        return "formula", ()
    if never_within(p, q):
        return "inf", ()
    if p.kind == "finite" and q.kind in ("finite", "counts"):
        return "sum", ()
    if _by_expectations(p, q) is not None and entropy_formula(p) is not None:
        return "expectations", ()
    return ("formula", found[0]) if found else ("", ())


def within_family(pairs: Pairs, family: type[Family]) -> Pair | None:
    """The formula of a table of pairs for two distributions of one family, perhaps as those of a wider one."""
    found = (_pair(pairs, wide, wide) for wide, _ in _wider(family))
    return next((pair for pair in found if pair is not None), None)


def _pair(pairs: Pairs, p: type[Family], q: type[Family]) -> Pair | None:
    """A pair's own formula, after a change of variable too where that changes nothing."""
    pair = pairs.get((p, q))
    if pair or pairs is WASSERSTEIN2_PAIRS or p is not q or p not in SAME_UP_TO_A_CHANGE_OF_VARIABLE:
        return pair
    return _changed(pairs, p)


def _wider(family: type[Family]) -> Iterator[tuple[type[Family], Widening]]:
    """The family itself, and those that it is a special case of."""
    yield family, lambda xp, p: p
    yield from WIDER.get(family, {}).items()


def _pair_formula(pairs: Pairs, p: Family, q: Family) -> Formula | None:
    """A pair's own formula, as distributions of wider families too, or after a change of variable.

    A change of variable leaves divergences as they are, but not the Wasserstein distance.
    """
    for wide_p, widen_p in _wider(type(p)):
        for wide_q, widen_q in _wider(type(q)):
            if (pair := pairs.get((wide_p, wide_q))) and _equal(pair.equal, widen_p, widen_q, p, q):
                return _between(pair.formula, widen_p, widen_q)
            change = None if pairs is WASSERSTEIN2_PAIRS else SAME_UP_TO_A_CHANGE_OF_VARIABLE.get(wide_p)
            if wide_p is wide_q and change is not None and (pair := _changed(pairs, wide_p)):
                changed_p, changed_q = _then(widen_p, change), _then(widen_q, change)
                if _equal(pair.equal, changed_p, changed_q, p, q):
                    return _between(pair.formula, changed_p, changed_q)
    return None


def _changed(pairs: Pairs, family: type[Family]) -> Pair | None:
    """The pair's formula after the change of variable of a family."""
    to = type(SAME_UP_TO_A_CHANGE_OF_VARIABLE[family](*_example(family)))
    return pairs.get((to, to))


def _after(formula: Callable[[Any, Any], Array], widen: Widening) -> Formula:
    return lambda xp, p, q: formula(xp, widen(xp, p))


def _between(formula: Formula, widen_p: Widening, widen_q: Widening) -> Formula:
    return lambda xp, p, q: formula(xp, widen_p(xp, p), widen_q(xp, q))


def _then(first: Widening, second: Widening) -> Widening:
    return lambda xp, p: second(xp, first(xp, p))


def _example(family: type[Family]) -> tuple[Any, Any]:
    """A distribution of a family whose parameters are all 1."""
    xp, ones = promote(*(1.0 for _ in family.parameter_names()))
    return xp, made(family, *ones)


def _equal(names: tuple[str, ...], widen_p: Widening, widen_q: Widening, p: Family, q: Family) -> bool:
    """Whether two distributions agree in the parameters named."""
    if not names:
        return True
    xp, p, q = _promoted(p, q)
    p, q = widen_p(xp, p), widen_q(xp, q)
    return all(bool(xp.all(getattr(p, name) == getattr(q, name))) for name in names)


def _by_expectations(p: type[Family], q: type[Family]) -> Formula | None:
    """The formula of H(p, q) from expectations under p."""
    if not _comparable(p, q) or never_within(p, q):
        return None
    for wide_q, widen_q in _wider(q):
        for wide_p, widen_p in _wider(p):
            if wide_q in CROSS_ENTROPIES and all(knows(wide_p, name) for name in CROSS_ENTROPIES[wide_q].takes):
                return _cross_entropy(widen_p, widen_q, CROSS_ENTROPIES[wide_q].formula)
    return None


def _cross_entropy(widen_p: Widening, widen_q: Widening, formula: Any) -> Formula:
    def of(xp: Any, p: Any, q: Any) -> Array:
        zeros = _shape(p) + _shape(q)
        value = formula(xp, Expectations(xp, widen_p(xp, p), 1 + zeros), widen_q(xp, q)) + zeros
        (low_p, high_p), (low_q, high_q) = p.support(), q.support()
        inside = (low_p >= low_q) & (high_p <= high_q)
        return xp.where(xp.asarray(inside), value, xp.full_like(value, math.inf))

    return of


def _sum_over_outcomes(xp: Any, p: Family, q: Family) -> Array:
    """sum p log q over the outcomes of p, of which there are finitely many."""
    x = _outcomes(xp, p)
    log_p, log_q = _spread(p).log_density(x), _spread(q).log_density(x)
    nothing = log_p == -math.inf
    safe = xp.where(nothing, xp.zeros_like(log_p + log_q), log_q + 0 * xp.where(nothing, 0 * log_p, log_p))
    return xp.sum(xp.exp(log_p) * safe, axis=-1)


def _outcomes(xp: Any, p: Family) -> Array:
    """The outcomes of p, of many the likely ones: those not farther than 40 standard deviations from a mean.

    What is beyond has less than exp(-700) of the mass.
    """
    _, high = p.support()
    first, last = 0, int(high if isinstance(high, float) else float(xp.max(high)))
    if isinstance(p, Binomial) and last > MANY_OUTCOMES // 1024:
        mean, sd = p.n * p.probability, xp.sqrt(p.n * p.probability * (1 - p.probability))
        first = max(first, math.floor(float(xp.min(mean - 40 * sd))) - 700)
        last = min(last, math.ceil(float(xp.max(mean + 40 * sd))) + 700)
    if last - first >= MANY_OUTCOMES:
        raise DistributionError(
            f"{p.family_name()} has {last - first + 1:,} outcomes to sum over; at most {MANY_OUTCOMES:,} are: give one "
            "distribution at a time, or estimate the divergence from samples"
        )
    like = p.parameters()[0]
    return first + xp.arange(last - first + 1, dtype=like.dtype, device=device(like))


def _spread(p: Family) -> Family:
    """The same distributions with an axis after them for outcomes."""
    return p.with_parameters(
        [
            value[..., None, :] if axes else value[..., None]
            for value, axes in zip(p.parameters(), (known.metadata["axes"] for known in fields_of(p)), strict=True)
        ]
    )


def _inf_unless_always_0(xp: Any, p: Family, q: Family) -> Array:
    """KL to what has a greatest outcome, from counts: these have none, unless they are always 0."""
    zeros = _shape(p) + _shape(q)
    return xp.where(p.log_density(zeros) == 0, -q.log_density(zeros), xp.full_like(zeros, math.inf))


def _shape(p: Family) -> Array:
    """Zeros of the shape that the distributions have together."""
    zeros: Array = 0.0
    for value, known in zip(p.parameters(), fields_of(p), strict=True):
        axes = known.metadata["axes"]
        zeros = zeros + 0 * value[(..., *(0,) * axes)]
    return zeros


def _promoted(p: Family, q: Family) -> tuple[Any, Any, Any]:
    """Two distributions with all their parameters arrays of one library."""
    xp, values = promote(*p.parameters(), *q.parameters())
    count = len(p.parameters())
    return xp, p.with_parameters(values[:count]), q.with_parameters(values[count:])


def _computed(formula: Formula, p: Family, q: Family) -> Array:
    xp, p, q = _promoted(p, q)
    with np.errstate(all="ignore"):
        return formula(xp, p, q)


def _family(p: Any) -> Family:
    from kilter.divergence.families.objects import family_of

    found = p if isinstance(p, Family) else family_of(p)
    if isinstance(found, Family):
        return found
    raise DistributionError(
        f"found {type(p).__name__}, which has no closed forms; kilter.divergence.quadrature takes densities of one "
        "number, and kilter.divergence.families.mixtures bounds and estimates mixtures of normals"
    )


def _families(p: Any, q: Any) -> tuple[Family, Family]:
    p, q = _family(p), _family(q)
    lengths = p.dimension(), q.dimension()
    if None not in lengths and lengths[0] != lengths[1]:
        raise DistributionError(
            f"{p.family_name()} has {lengths[0]} components and {q.family_name()} {lengths[1]}; they must have as many"
        )
    return p, q


# What quantities are called, and the functions of quadrature that integrate them.
_CALLED = {
    "entropy": ("entropy", "entropy"),
    "cross_entropy": ("cross-entropy", "cross_entropy"),
    "kl": ("KL", "kl"),
    "bhattacharyya": ("Bhattacharyya distance", "hellinger"),
    "hellinger": ("Hellinger distance", "hellinger"),
}


def _none(name: str, p: Family, *q: Family, equal: tuple[str, ...] = ()) -> DistributionError:
    called, function = _CALLED[name]
    what = f"{called}({', '.join(family.family_name() for family in (p, *q))})"
    if q and not _comparable(type(p), type(q[0])):
        return DistributionError(
            f"{what}: one has probabilities of whole numbers, the other a density: they cannot be compared"
        )
    instead = f"integrate it with kilter.divergence.quadrature.{function}, or " if p.kind in WITHIN else ""
    unless = f" unless {' and '.join(equal)} is equal" if equal else ""
    return DistributionError(f"{what} has no closed form{unless}; {instead}estimate it from samples")
