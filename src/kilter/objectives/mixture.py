"""What a run minimises: one objective, or a weighted sum of several, written as "dpo(beta=0.3) + 0.2*sft"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

from kilter.errors import ConfigError
from kilter.objectives.options import Option
from kilter.objectives.table import Need, Objective, objective

Loss = TypeVar("Loss", float, Tensor)

EXPECTED = 'expected something like "dpo", "simpo(beta=2, gamma=1)" or "dpo(beta=0.3) + 0.2*sft"'

_TOKEN = re.compile(r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(?P<name>\w+)|(?P<sign>\S))")


class Term(NamedTuple):
    """One objective of a mixture, how much it weighs, and its options."""

    weight: float
    name: str
    objective: Objective
    options: dict[str, float]

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{_written(self.weight)}*"
        options = ", ".join(f"{name}={_written(value)}" for name, value in self.options.items())
        return f"{weight}{self.name}({options})" if options else f"{weight}{self.name}"


@dataclass(frozen=True)
class Mixture:
    """A weighted sum of objectives, each the mean over its own items."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset[Need]().union(*(term.objective.needs for term in self.terms))

    @property
    def needs_reference(self) -> bool:
        return any(term.objective.needs_reference for term in self.terms)

    @property
    def coupled(self) -> bool:
        """Whether items of a batch depend on each other."""
        return any(term.objective.unit == "batch" for term in self.terms)

    @property
    def takes(self) -> str:
        """What it learns from: the most that any of its terms asks for."""
        asked = {term.objective.takes for term in self.terms}
        return next(kind for kind in ("rankings", "pairs", "labelled", "answers", "all answers") if kind in asked)

    @property
    def beta(self) -> float:
        """What log-ratios are multiplied with to be rewards: the first beta that there is, or 1."""
        return next((term.options["beta"] for term in self.terms if "beta" in term.options), 1.0)

    def describe(self) -> str:
        """What each term is, and whose."""
        return "; ".join(f"{term}: {term.objective.summary} ({term.objective.paper})" for term in self.terms)

    @property
    def names(self) -> list[str]:
        return [term.name for term in self.terms]

    def weighing(self, name: str, weight: float) -> Mixture:
        """The same with another weight of a term; one that is not there is added. Raises ConfigError where there is no
        such objective, or it has options."""
        if name in self.names:
            return Mixture(tuple(term._replace(weight=weight) if term.name == name else term for term in self.terms))
        row = objective(name)
        if row.options:
            raise ConfigError(f"objective {name!r} has options ({', '.join(row.options)}); write it into the objective")
        return Mixture((*self.terms, Term(weight, name, row, {})))

    def total(self, losses: Mapping[str, Loss]) -> Loss:
        """The weighted sum of the terms' losses."""
        total = self.terms[0].weight * losses[self.terms[0].name]
        for term in self.terms[1:]:
            total = total + term.weight * losses[term.name]
        return total

    @property
    def state(self) -> dict[str, float]:
        """What the terms remember, by "term.name", as it is before the first batch."""
        return {f"{term.name}.{name}": value for term in self.terms for name, value in term.objective.state.items()}


def parse(text: str, given: Mapping[str, float | None] | None = None) -> Mixture:
    """The mixture that a text describes: terms joined by +, each `weight*name(option=value, ...)`.

    Options `given` besides (None: not given) go to every term that has them and does not set them itself. Raises
    ConfigError for what cannot be read, an unknown objective or option, an option that no term uses, a value out of
    range, an objective named twice, and terms that do not learn from the same data.

    >>> str(parse("dpo + 0.2*sft", {"beta": 0.3}))
    'dpo(beta=0.3, label_smoothing=0) + 0.2*sft'
    """
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    written = list(_Reader(text).terms())
    rows = [objective(name) for _, name, _ in written]
    unused = [name for name in chosen if not any(name in row.options for row in rows)]
    if unused:
        has = [name for row in rows for name in row.options]
        raise ConfigError(
            f"objective {text!r} does not use {', '.join(unused)} (it has: {', '.join(has) or 'no options'}); "
            "leave that out or choose another objective"
        )
    terms = []
    for (weight, name, own), row in zip(written, rows, strict=True):
        there_are = row.options
        if unknown := [option for option in own if option not in there_are]:
            raise ConfigError(
                f"objective {name!r} has no option {unknown[0]!r}; it has: {', '.join(there_are) or 'none'}"
            )
        values = {**row.defaults, **{n: v for n, v in chosen.items() if n in there_are}, **own}
        terms.append(Term(weight, name, row, _checked(name, there_are, values)))
    names = [name for _, name, _ in written]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"objective {text!r} has {twice[0]} twice; write it once, with one weight")
    kinds = {term.objective.takes for term in terms}
    if {"pairs", "rankings"} <= kinds or {"labelled", "rankings"} <= kinds:
        raise ConfigError(
            f"objective {text!r} mixes terms that learn from rankings with terms that do not; use one kind"
        )
    return Mixture(tuple(terms))


def _written(value: float) -> str:
    """A number that is read as that very one."""
    return repr(float(value)).removesuffix(".0")


def _checked(name: str, options: Mapping[str, Option], values: Mapping[str, float]) -> dict[str, float]:
    return {key: options[key].check(value, name) for key, value in values.items()}


class _Reader:
    """Reads the text of a mixture from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [
            (str(match.lastgroup), match[str(match.lastgroup)], match.start(str(match.lastgroup)))
            for match in _TOKEN.finditer(text.rstrip())
        ]
        self.tokens.append(("end", "", len(text)))
        self.at = 0

    def terms(self) -> Iterator[tuple[float, str, dict[str, float]]]:
        yield self._term()
        while self._next_is("+"):
            yield self._term()
        self._expect("end")

    def _term(self) -> tuple[float, str, dict[str, float]]:
        weight = 1.0
        if self.tokens[self.at][0] == "number":
            weight = self._number()
            if not 0 < weight < float("inf"):
                raise ConfigError(
                    f"objective {self.text!r} has a weight of {weight:g}; expected a number above 0, or leave that "
                    "term out"
                )
            if not self._next_is("*"):
                self._fail("*")
        name = self._expect("name")
        options: dict[str, float] = {}
        if self._next_is("("):
            while not self._next_is(")"):
                if options and not self._next_is(","):
                    self._fail(", or )")
                option = self._expect("name")
                if option in options:
                    raise ConfigError(f"objective {self.text!r} sets {option} of {name} twice; set it once")
                if not self._next_is("="):
                    self._fail("=")
                sign = -1 if self._next_is("-") else 1
                options[option] = sign * self._number()
        return weight, name, options

    def _number(self) -> float:
        return float(self._expect("number"))

    def _next_is(self, sign: str) -> bool:
        if self.tokens[self.at][:2] != ("sign", sign):
            return False
        self.at += 1
        return True

    def _expect(self, kind: str) -> str:
        found = self.tokens[self.at]
        if found[0] != kind:
            self._fail({"name": "a name", "number": "a number", "end": "+ or the end"}[kind])
        self.at += 1
        return found[1]

    def _fail(self, wanted: str) -> None:
        kind, found, place = self.tokens[self.at]
        what = "the end" if kind == "end" else repr(found)
        raise ConfigError(
            f"objective {self.text!r}: {what} at character {place + 1}, where {wanted} should be; {EXPECTED}"
        )
