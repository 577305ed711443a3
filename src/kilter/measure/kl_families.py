"""The numbers of `kilter kl` for named families: in closed form where there is one, else integrated."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kilter.divergence import closed_forms, quadrature
from kilter.divergence.families import Family
from kilter.errors import DistributionError
from kilter.measure.kl import QUANTITIES


def check_comparable(p: Family, q: Family) -> None:
    """Raise DistributionError where one is of whole numbers and the other is not."""
    if p.discrete != q.discrete:
        of = {True: "whole numbers", False: "real numbers"}
        raise DistributionError(
            f"p ({p.family_name()}) is a distribution of {of[p.discrete]} and q ({q.family_name()}) of "
            f"{of[q.discrete]}; expected two of one kind, for probabilities and densities cannot be compared"
        )


def values(p: Family, q: Family) -> tuple[dict[str, float], dict[str, float]]:
    """Each quantity in nats; and of those that were integrated or summed up, the bound on the error."""
    computed = {
        "entropy_p": _entropy(p),
        "entropy_q": _entropy(q),
        "cross_entropy_pq": _cross_entropy(p, q),
        "cross_entropy_qp": _cross_entropy(q, p),
        "kl_pq": _kl(p, q),
        "kl_qp": _kl(q, p),
        "js": quadrature.js(p, q),
        "tv": quadrature.total_variation(p, q),
    }
    found: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name, value in computed.items():
        if isinstance(value, quadrature.Quadrature):
            errors[name], value = value.error, value.value
        found[name] = float(value)
    return found, errors


def _entropy(p: Family) -> float | quadrature.Quadrature:
    known = closed_forms.entropy_formula(type(p))
    return quadrature.entropy(p) if known is None else float(closed_forms.entropy(p))


def _cross_entropy(p: Family, q: Family) -> float | quadrature.Quadrature:
    known = closed_forms.cross_entropy_formula(p, q)
    return quadrature.cross_entropy(p, q) if known is None else float(closed_forms.cross_entropy(p, q))


def _kl(p: Family, q: Family) -> float | quadrature.Quadrature:
    known = closed_forms.kl_formula(p, q)
    return quadrature.kl(p, q) if known is None else float(closed_forms.kl(p, q))


def remarks(p: Family, q: Family, found: dict[str, float], errors: dict[str, float]) -> Iterator[str]:
    """Why what is infinite is so, and what was not computed in closed form."""
    for name, one, other_name, other, value in (("p", p, "q", q, "kl_pq"), ("q", q, "p", p, "kl_qp")):
        if math.isinf(found[value]):
            yield f"KL({name}, {other_name}) is inf: {_why_infinite(name, one, other_name, other)}"
    if errors:
        symbols = ", ".join(quantity.symbol for quantity in QUANTITIES if quantity.name in errors)
        how = "Summed up" if p.discrete else "Integrated"
        others = "; the others are in closed form" if len(errors) < len(QUANTITIES) else ""
        yield f"{how}, to within {_power_above(max(errors.values())):.0e}: {symbols}{others}."


def _power_above(error: float) -> float:
    """A power of ten that bounds an error, 1e-10 at least: digits of a bound are noise."""
    power = 1e-10
    while power < error:
        power *= 10
    return power


def _why_infinite(name: str, one: Family, other_name: str, other: Family) -> str:
    (low, high), (other_low, other_high) = (tuple(map(float, family.support())) for family in (one, other))
    if low < other_low or high > other_high:
        where = f"below {other_low:g}" if low < other_low else f"above {other_high:g}"
        return f"{name} has outcomes {where}, which {other_name} rules out."
    return f"{name} has something where {other_name} has too little for the integral to exist."
