"""Closed forms of KL between two distributions of one family, with their numbers put in, for `kilter kl --explain`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kilter.divergence.families import Exponential, Family, Laplace, Normal, Poisson, Uniform


class Term(NamedTuple):
    """A part of a closed form, with its numbers put in, and what it comes to."""

    text: str
    value: float


class ClosedForm(NamedTuple):
    """A closed form in the names of parameters, and its terms for two distributions."""

    formula: str
    terms: Callable[[Any, Any], list[Term] | None]


def _normal(p: Normal, q: Normal) -> list[Term]:
    return [
        _logarithm(q.sd, p.sd),
        Term(
            f"({p.sd:g}^2 + ({p.mean:g} - {q.mean:g})^2) / (2 * {q.sd:g}^2)",
            (p.sd**2 + (p.mean - q.mean) ** 2) / (2 * q.sd**2),
        ),
        Term("- 1/2", -0.5),
    ]


def _exponential(p: Exponential, q: Exponential) -> list[Term]:
    return [_logarithm(p.rate, q.rate), Term(f"{q.rate:g} / {p.rate:g}", q.rate / p.rate), Term("- 1", -1.0)]


def _poisson(p: Poisson, q: Poisson) -> list[Term]:
    log = _logarithm(p.rate, q.rate)
    return [Term(f"{p.rate:g} {log.text}", p.rate * log.value), Term(f"{q.rate:g} - {p.rate:g}", q.rate - p.rate)]


def _laplace(p: Laplace, q: Laplace) -> list[Term]:
    d = abs(p.location - q.location)
    return [
        _logarithm(q.scale, p.scale),
        Term(
            f"({p.scale:g} exp(-{d:g} / {p.scale:g}) + {d:g}) / {q.scale:g}",
            (p.scale * math.exp(-d / p.scale) + d) / q.scale,
        ),
        Term("- 1", -1.0),
    ]


def _uniform(p: Uniform, q: Uniform) -> list[Term] | None:
    if p.low < q.low or p.high > q.high:
        return None
    return [_logarithm(q.high - q.low, p.high - p.low)]


def _logarithm(above: float, below: float) -> Term:
    return Term(f"ln({above:g} / {below:g})", math.log(above / below))


# In the words of the families' parameters; each can be derived by integrating ln p - ln q under p.
CLOSED_FORMS: dict[type[Family], ClosedForm] = {
    Normal: ClosedForm("ln(sd_q / sd_p) + (sd_p^2 + (mean_p - mean_q)^2) / (2 sd_q^2) - 1/2", _normal),
    Exponential: ClosedForm("ln(rate_p / rate_q) + rate_q / rate_p - 1", _exponential),
    Poisson: ClosedForm("rate_p ln(rate_p / rate_q) + rate_q - rate_p", _poisson),
    Laplace: ClosedForm("ln(scale_q / scale_p) + (scale_p exp(-d / scale_p) + d) / scale_q - 1", _laplace),
    Uniform: ClosedForm("ln((high_q - low_q) / (high_p - low_p))", _uniform),
}


def closed_form(p: Family, q: Family) -> tuple[str, list[Term]] | None:
    """The closed form of KL(p, q) and its terms, where it is one of CLOSED_FORMS and finite."""
    known = CLOSED_FORMS.get(type(p))
    if known is None or type(p) is not type(q):
        return None
    try:
        terms = known.terms(p, q)
    except (ArithmeticError, ValueError):  # rates of 0
        return None
    return (known.formula, terms) if terms is not None else None
