"""What an objective's options may be: their types, as annotations of its keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from torch import Tensor

from kilter.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, with or without those themselves."""

    low: float = float("-inf")
    high: float = float("inf")
    with_low: bool = False
    with_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        return above and below

    def __str__(self) -> str:
        ends = []
        if self.low != float("-inf"):
            ends.append(f"at least {self.low:g}" if self.with_low else f"above {self.low:g}")
        if self.high != float("inf"):
            ends.append(f"at most {self.high:g}" if self.with_high else f"below {self.high:g}")
        return " and ".join(ends) or "any number"


Number = Annotated[float, Range()]
Positive = Annotated[float, Range(0.0)]
NotNegative = Annotated[float, Range(0.0, with_low=True)]
Share = Annotated[float, Range(0.0, 1.0, with_low=True, with_high=True)]
PositiveShare = Annotated[float, Range(0.0, 1.0, with_high=True)]
# How much of a running mean stays when a batch is added.
Momentum = Annotated[float, Range(0.0, 1.0, with_low=True)]
# A chance that labels are wrong: at 1/2 they say nothing.
FlipChance = Annotated[float, Range(0.0, 0.5, with_low=True)]
PositiveFlipChance = Annotated[float, Range(0.0, 0.5)]


@dataclass(frozen=True)
class Option:
    """One option of an objective: its name, its default and what it may be."""

    name: str
    default: float
    range: Range

    def check(self, value: float, objective: str) -> float:
        """The value; raises ConfigError where it is out of range."""
        if value not in self.range:
            raise ConfigError(f"{self.name} of {objective} is {value:g}; expected a number {self.range}")
        return value


def options_of(loss: Callable[..., Tensor], *, besides: frozenset[str] = frozenset()) -> dict[str, Option]:
    """A loss's options by name: its keyword arguments with a default, each annotated with a range."""
    hints: dict[str, Any] = get_type_hints(loss, include_extras=True)
    return {
        p.name: Option(p.name, p.default, hints[p.name].__metadata__[0])
        for p in inspect.signature(loss).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in besides
    }
