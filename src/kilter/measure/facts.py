"""All that `kilter check` finds out, as plain values, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from kilter.data.records import Origin
from kilter.measure.duplicates import Duplicates, Leaks
from kilter.measure.languages import Languages
from kilter.measure.lengths import LengthBias, Spread
from kilter.measure.scripts import Script
from kilter.measure.statistics import Interval

if TYPE_CHECKING:
    from kilter.measure.estimate import Estimate
    from kilter.measure.examples import Example
    from kilter.measure.templates import TemplateFacts, Turns
    from kilter.measure.token_facts import TokenFacts

LISTED = 5  # rows that are named of each thing found


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file: what it holds, which keys were read, its first rows that cannot be used, and how it was found."""

    name: str
    sha256: str
    format: str
    title: str
    rows: int
    bad_rows: int
    listed_bad_rows: tuple[str, ...]
    read: tuple[str, ...]
    ignored: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Balance:
    """Answers labelled good and bad; `share` of good ones."""

    good: int
    bad: int
    share: Interval


@dataclass(frozen=True, slots=True)
class Limit:
    """The most tokens that a row may have, and what says so: max_length, positions or node_budget."""

    tokens: int
    by: str

    def __str__(self) -> str:
        by = {"max_length": "--max-length", "positions": "the model's positions", "node_budget": "--node-budget"}
        return f"{self.tokens:,} tokens ({by[self.by]})"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out; what takes a tokenizer or a model is None without one. Examples come last, being long."""

    files: tuple[FileFacts, ...]
    eval_files: tuple[FileFacts, ...]
    kinds: Mapping[str, int]  # rows of each kind
    ties: int
    graded: int  # pairs whose preference is between a tie and certainty
    balance: Balance | None
    ranked: Spread | None  # answers of a ranking
    turns: Turns
    characters: Mapping[str, Spread]
    bias: LengthBias | None  # by characters
    duplicates: Duplicates
    leaks: Leaks | None
    scripts: tuple[Script, ...]
    languages: Languages
    limit: Limit | None
    template: TemplateFacts | None
    tokens: TokenFacts | None
    estimate: Estimate | None
    examples: tuple[Example, ...]

    @property
    def rows(self) -> int:
        return sum(self.kinds.values())


def as_json(value: Any, non_finite: Callable[[float], Any] = lambda number: None) -> Any:
    """Facts as what JSON holds: a place in a file as "file:line", NaN and infinity as `non_finite` has them (null)."""
    if isinstance(value, Origin):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name), non_finite) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict(), non_finite)
    if isinstance(value, Mapping):
        return {str(key): as_json(item, non_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, non_finite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return non_finite(value)
    return value
