"""Distributions as they are typed: `normal(0,1)`, `gamma(shape=2, rate=0.5)`, `categorical(0.2,0.8)`."""

from __future__ import annotations

import re
from difflib import get_close_matches

from kilter.divergence.families.family import Family, fields_of
from kilter.divergence.families.univariate import FAMILIES
from kilter.errors import DistributionError

# What families are called elsewhere.
ALIASES = {
    "gaussian": "normal",
    "lognorm": "lognormal",
    "t": "studentt",
    "student": "studentt",
    "chi2": "chisquared",
    "chisquare": "chisquared",
    "wald": "inversegaussian",
    "invgauss": "inversegaussian",
    "invgamma": "inversegamma",
    "negbinomial": "negativebinomial",
    "exp": "exponential",
    "expon": "exponential",
    "weibullmin": "weibull",
}


def parse_distribution(text: str) -> Family:
    """The distribution that a text such as `normal(0,1)` names; parameters in their order, or by name.

    Case, blanks and hyphens do not matter. `DistributionError` says what was found, what the family's parameters are,
    and which families have a like name.

    >>> parse_distribution("normal(0, 1)")
    Normal(mean=0.0, sd=1.0)
    >>> parse_distribution("Student-t(3, location=0, scale=2)")
    StudentT(df=3.0, location=0.0, scale=2.0)
    >>> parse_distribution("normal(0)")
    Traceback (most recent call last):
    kilter.errors.DistributionError: normal(0): sd is missing; write normal(mean, sd)
    """
    found = re.fullmatch(r"\s*([A-Za-z][\w\s-]*?)\s*\((.*)\)\s*", text, flags=re.DOTALL)
    if found is None:
        raise DistributionError(
            f"found {text!r}; write a family with its parameters in brackets, as in normal(0,1)" + _near(text)
        )
    written, inside = found.groups()
    family = _family(written)
    arguments = [part.strip() for part in inside.split(",")] if inside.strip() else []
    if any(known.metadata["axes"] for known in fields_of(family)):
        return family([_number(part, text, family) for part in arguments])  # type: ignore[call-arg]
    return family(**_named(arguments, text, family))


def signature(family: type[Family]) -> str:
    """How a family is typed.

    >>> signature(FAMILIES["normal"])
    'normal(mean, sd)'
    """
    names = [f"{known.name}..." if known.metadata["axes"] else known.name for known in fields_of(family)]
    return f"{family.family_name()}({', '.join(names)})"


def _family(written: str) -> type[Family]:
    name = re.sub(r"[\s_-]", "", written).lower()
    name = ALIASES.get(name, name)
    if name not in FAMILIES:
        from kilter.divergence.families.multivariate import VECTOR_FAMILIES

        if name in {family.family_name() for family in VECTOR_FAMILIES}:
            raise DistributionError(f"{name} is a family of vectors, which cannot be typed; make it in Python")
        raise DistributionError(f"there is no family called {written!r}" + _near(name, everything=True))
    return FAMILIES[name]


def _near(text: str, *, everything: bool = False) -> str:
    name = re.sub(r"[\s_-]", "", text.partition("(")[0]).lower()
    if name in FAMILIES:
        return f"; here: {signature(FAMILIES[name])}"
    matches = get_close_matches(name, [*FAMILIES, *ALIASES], n=3, cutoff=0.6)
    near = list(dict.fromkeys(ALIASES.get(match, match) for match in matches))
    if near:
        return f"; did you mean {' or '.join(signature(FAMILIES[match]) for match in near)}?"
    return f"; the families are {', '.join(sorted(FAMILIES))}" if everything else ""


def _named(arguments: list[str], text: str, family: type[Family]) -> dict[str, float]:
    names, given = family.parameter_names(), dict[str, float]()
    for place, part in enumerate(arguments):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals:
            if any("=" in earlier for earlier in arguments[:place]):
                raise _wrong(text, f"{part!r} comes after a parameter that is named", family)
            if place >= len(names):
                raise _wrong(text, f"{len(arguments)} parameters found", family)
            name = names[place]
        if name not in names:
            raise _wrong(text, f"it has no parameter {name!r}", family)
        if name in given:
            raise _wrong(text, f"{name} is given twice", family)
        given[name] = _number(value, text, family)
    if missing := [name for name in names if name not in given]:
        are = "is" if len(missing) == 1 else "are"
        raise _wrong(text, f"{' and '.join(missing)} {are} missing", family)
    return given


def _number(written: str, text: str, family: type[Family]) -> float:
    try:
        return float(written)
    except ValueError:
        raise _wrong(text, f"{written!r} is no number", family) from None


def _wrong(text: str, what: str, family: type[Family]) -> DistributionError:
    return DistributionError(f"{text.strip()}: {what}; write {signature(family)}")
