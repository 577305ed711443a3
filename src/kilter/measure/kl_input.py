"""Distributions as they are typed for `kilter kl`: lists of numbers, families, and columns of a file.

    0.2,0.8   1/3,2/3   20%,80%          probabilities
    counts:3,5   logits:0,1.5   log_probs:-0.7,-0.69    lists of another kind
    normal:0,1   normal(0,1)             a family: the first needs no quotes in a shell
    before   counts:after                columns, where a file is given

Both ways of writing arguments, with a colon and in parentheses, mean the same.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.divergence import Counts, Distribution, Logits, LogProbs, Probs
from kilter.divergence.exact.forms import form_of
from kilter.errors import DistributionError

if TYPE_CHECKING:
    from kilter.divergence.families import Family

# Kinds of lists, by what is written before their numbers; without a word they are probabilities.
KINDS: dict[str, type[Distribution]] = {"probs": Probs, "log_probs": LogProbs, "logits": Logits, "counts": Counts}
EXPECTED = "expected numbers with commas between (0.2,0.8), counts:3,5 or a family as in normal:0,1"

_CALL = re.compile(r"\s*([A-Za-z_][\w-]*)\s*(?:\((.*)\)|:(.*))\s*", re.DOTALL)


@dataclass(frozen=True)
class Listed:
    """A distribution given outcome by outcome: as it was typed, its numbers, and what the outcomes are called."""

    text: str
    numbers: Distribution
    outcomes: tuple[str, ...]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability of each outcome."""
        probabilities: NDArray[np.float64] = form_of(self.numbers, self.numbers.values).p
        return probabilities


@dataclass(frozen=True)
class Named:
    """A distribution of a named family, with its parameters."""

    text: str
    family: Family


Given: TypeAlias = Listed | Named


def read_distribution(text: str, name: str) -> Given:
    """The distribution called `name` (p or q); DistributionError says what is wrong with it."""
    kind, inside = split_kind(text)
    if kind in KINDS:
        numbers = [_number(word, place, name) for place, word in enumerate(_words(inside, name), 1)]
        return Listed(text.strip(), checked(numbers, kind, name), tuple(str(i + 1) for i in range(len(numbers))))
    from kilter.divergence.families.notation import parse_distribution

    try:
        return Named(text.strip(), parse_distribution(f"{kind}({inside})"))
    except DistributionError as error:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        meant = f" (or did you mean {near[0]}:{inside}?)" if near else ""
        raise DistributionError(f"{name}: {error}{meant}") from None


def split_kind(text: str) -> tuple[str, str]:
    """`counts:3,5` as its kind or family and what it is given; bare numbers are probabilities."""
    if called := _CALL.fullmatch(text):
        name, in_parentheses, after_colon = called.groups()
        inside: str = after_colon if in_parentheses is None else in_parentheses
        return name.lower().replace("-", "_"), inside
    return "probs", text


def checked(numbers: Sequence[float], kind: str, name: str, column: str = "") -> Distribution:
    """The numbers, of a column where they are of one, as a distribution of their kind.

    DistributionError names the one that is wrong.
    """
    if len(numbers) < 2:
        coin = f"bernoulli:{numbers[0]:g}" if numbers and 0 <= numbers[0] <= 1 else "bernoulli:0.2"
        raise DistributionError(f"{name} has one outcome only; expected two or more (0.2,0.8); a coin is {coin}")
    for place, number in enumerate(numbers, 1):
        if problem := _problem(number, kind):
            raise DistributionError(f"{name}: number {place}, {number:g}, {problem}")
    distribution = KINDS[kind](np.asarray(numbers, dtype=np.float64))
    total = math.fsum(numbers)
    if kind == "probs" and abs(total - 1) > distribution.tolerance:
        raise DistributionError(
            f"{name} sums to {total:.9g}; probabilities sum to 1; {_remedy(numbers, total, column)}"
        )
    if kind == "log_probs" and abs((total := math.fsum(map(math.exp, numbers))) - 1) > distribution.tolerance:
        raise DistributionError(
            f"{name}: probabilities of these logarithms sum to {total:.9g} and not to 1; write more digits, or say "
            f"that they are logits: logits:{column or _shown(numbers)}"
        )
    distribution.validate(distribution.values, name)
    return distribution


def _problem(number: float, kind: str) -> str:
    if math.isnan(number) or number == math.inf or (number == -math.inf and kind in ("probs", "counts")):
        return "is not finite; expected a number"
    if kind == "probs" and number < 0:
        return "is negative; probabilities are from 0 to 1; others are written logits:... or log_probs:..."
    if kind == "counts" and (number < 0 or number != int(number)):
        return "is no count; expected whole numbers from 0 on"
    return ""


def _remedy(numbers: Sequence[float], total: float, column: str) -> str:
    if all(number == int(number) for number in numbers):
        return f"say that they are counts: counts:{column or _shown(numbers)}"
    if column:
        return "divide the column by its sum"
    if abs(total - 1) < 0.05:
        return "write more digits, or fractions, which are exact: 1/3,2/3"
    return f"mend a number, or divide by the sum: {_shown(numbers, f'/{total:.9g}')}"


def _shown(numbers: Sequence[float], after: str = "") -> str:
    shown = [f"{number:.9g}{after}" for number in numbers[:4]]
    return ",".join([*shown, "..."] if len(numbers) > 4 else shown)


def _words(text: str, name: str) -> list[str]:
    """What stands between commas; brackets around all of it, as Python prints them, are taken off."""
    bare = text.strip()
    bare = bare[1:-1].strip() if bare[:1] + bare[-1:] in ("[]", "()") else bare
    if not bare:
        raise DistributionError(f"{name} is empty; {EXPECTED}")
    return [word.strip() for word in bare.split(",")] if "," in bare else bare.split()


def _number(word: str, place: int, name: str) -> float:
    """`0.2`, `1/3` or `20%`."""
    if not word:
        raise DistributionError(f"{name}: there is nothing where number {place} should be; expected one between commas")
    number = as_number(word)
    if number is None:
        several = "; separate numbers with commas: 0.2,0.8" if ";" in word or " " in word else f"; {EXPECTED}"
        raise DistributionError(f"{name}: {word!r} is no number{several}")
    return number


def as_number(word: str) -> float | None:
    """A number as people write it, a fraction or a percentage too; None for anything else."""
    above, bar, below = word.partition("/")
    try:
        if bar:
            return float(above) / float(below)
        return float(word.removesuffix("%")) / 100 if word.endswith("%") else float(word)
    except (ValueError, ZeroDivisionError):
        return None
