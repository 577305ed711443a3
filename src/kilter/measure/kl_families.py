"""The numbers of `kilter kl` for named families: in closed form where there is one, else integrated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from kilter.divergence.families import Family
from kilter.divergence.families.describe import quantity
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


class Values(NamedTuple):
    """Each quantity in nats, NaN where it was not computed; bounds on errors; and why, where it was not."""

    found: dict[str, float]
    errors: dict[str, float]
    failures: dict[str, str]


def values(p: Family, q: Family) -> Values:
    """Every quantity that can be computed, whatever becomes of the others."""
    wanted: dict[str, tuple[str, tuple[Family, ...]]] = {
        "entropy_p": ("entropy", (p,)),
        "entropy_q": ("entropy", (q,)),
        "cross_entropy_pq": ("cross_entropy", (p, q)),
        "cross_entropy_qp": ("cross_entropy", (q, p)),
        "kl_pq": ("kl", (p, q)),
        "kl_qp": ("kl", (q, p)),
        "js": ("js", (p, q)),
        "tv": ("total_variation", (p, q)),
    }
    made = Values({}, {}, {})
    for name, (function, of) in wanted.items():
        try:
            made.found[name], error = quantity(function, *of)
        except DistributionError as failure:
            made.found[name] = math.nan
            made.failures[name] = _reason(str(failure), exchanged=of[0] is not p)
        else:
            if error is not None:
                made.errors[name] = error
    return made


def _reason(message: str, *, exchanged: bool) -> str:
    """What went wrong, without the advice on how to call a function, which calls its first argument p."""
    reason = message.partition(";")[0]
    return re.sub(r"\b[pq]\b", lambda name: "q" if name[0] == "p" else "p", reason) if exchanged else reason


def remarks(p: Family, q: Family, of: Values) -> Iterator[str]:
    """Why what is infinite is so, what was not computed in closed form, and what not at all."""
    found, errors, failures = of
    for name, one, other_name, other, value in (("p", p, "q", q, "kl_pq"), ("q", q, "p", p, "kl_qp")):
        if math.isinf(found[value]):
            yield f"KL({name}, {other_name}) is inf: {_why_infinite(name, one, other_name, other)}"
    if errors:
        symbols = ", ".join(quantity.symbol for quantity in QUANTITIES if quantity.name in errors)
        how = "Summed up" if p.discrete else "Integrated"
        others = "; the others are in closed form" if len(errors) + len(failures) < len(QUANTITIES) else ""
        yield f"{how}, to within {_power_above(max(errors.values())):.0e}: {symbols}{others}."
    for reason in dict.fromkeys(failures.values()):
        symbols = ", ".join(quantity.symbol for quantity in QUANTITIES if failures.get(quantity.name) == reason)
        yield f"Not computed: {symbols}: {reason}."


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
