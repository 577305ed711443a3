"""A leaderboard: items from the strongest on, with ranks, strengths and intervals; as a table, CSV or JSON."""

# I items

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kilter.data.staging import staged_file
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.comparisons import Floats, Integers, Item
from kilter.ranking.fitted import Fitted, Kind, kind_of
from kilter.ranking.ranks import rank_intervals, ranks
from kilter.ranking.scales import scale_of
from kilter.ranking.uncertainty import quantile

if TYPE_CHECKING:
    from rich.table import Table

Intervals = Literal["wald", "sandwich", "profile", "bootstrap"]
UNITS = {"log": "log-strength", "elo": "Elo scale", "odds": "odds"}
FIELDS = ("rank", "rank_low", "rank_high", "item", "strength", "low", "high", "games", "win_rate", "group")


class Line(NamedTuple):
    """An item of a leaderboard; what is not known is None. Ranks count within the item's group."""

    rank: int
    rank_low: int
    rank_high: int
    item: Item
    strength: float | None
    low: float | None
    high: float | None
    games: int
    win_rate: float | None
    group: int


class Extra(NamedTuple):
    """A part of the model besides the strengths: the order effect, a covariate, the tie parameter."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Leaderboard:
    """Items from the strongest on, group by group where nothing compares the groups, and the model's other parts."""

    lines: tuple[Line, ...]
    extras: tuple[Extra, ...]
    scale: str
    level: float
    intervals: Intervals
    told: Floats
    """I3, in the order of the fit's items: strength, low and high on the scale."""
    warnings: tuple[str, ...] = ()
    """What to know of these intervals."""

    def table(self, top: int | None = None) -> Table:
        """As a table for a terminal, of the first `top` lines."""
        from rich.table import Table
        from rich.text import Text

        of_rankings = all(line.win_rate is None for line in self.lines)
        groups = any(line.group for line in self.lines)
        shown = Table(box=None, pad_edge=False, header_style="bold")
        if groups:
            shown.add_column("group", justify="right")
        for name in ("rank", "between"):
            shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column("item", overflow="fold")
        for name in (UNITS[self.scale], f"{self.level:.3g} interval", "rankings" if of_rankings else "games"):
            shown.add_column(name, justify="right", no_wrap=True)
        if not of_rankings:
            shown.add_column("wins", justify="right", no_wrap=True)
        for line in self.lines[:top]:
            cells = [str(line.group + 1)] * groups
            cells += [str(line.rank), _span(line.rank_low, line.rank_high), str(line.item)]
            cells += [
                "unknown" if line.strength is None else told(line.strength, self.scale),
                self._interval(line),
                f"{line.games:,}",
            ]
            cells += [] if line.win_rate is None else [f"{line.win_rate:.1%}"]
            shown.add_row(*map(Text, cells))
        return shown

    def _interval(self, line: Line) -> str:
        if line.low is None or line.high is None:
            return "unknown" if line.strength is not None else ""
        return f"{told(line.low, self.scale)} to {told(line.high, self.scale)}"

    def write_csv(self, path: Path) -> None:
        """Write every line under a header of FIELDS, whole or not at all; what is not known is empty."""
        with staged_file(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(FIELDS)
            writer.writerows(self.lines)

    def as_json(self, top: int | None = None) -> dict[str, Any]:
        """As what JSON can hold."""
        return {
            "scale": self.scale,
            "level": self.level,
            "intervals": self.intervals,
            "leaderboard": [line._asdict() for line in self.lines[:top]],
            "extras": [extra._asdict() for extra in self.extras],
        }


def leaderboard(
    fitted: Fitted,
    *,
    scale: str = "log",
    anchor: tuple[Item, float] | None = None,
    level: float = 0.95,
    intervals: Intervals = "wald",
    progress: Callable[[int], object] | None = None,
) -> Leaderboard:
    """The leaderboard of fitted strengths, on a scale of scales.py, with intervals of a kind.

    `progress` is told of the bootstrap's draws.
    Raises ConfigError for a scale, an anchor or a kind of interval that the fit does not have.
    """
    kind: Kind = "fisher" if intervals == "bootstrap" else kind_of(intervals)
    warnings: tuple[str, ...] = ()
    if intervals == "bootstrap":
        told_I3, warnings = _bootstrapped(fitted, scale, anchor, level, progress)
    else:
        told_I3 = fitted.told_on(scale, anchor, level, intervals)
    lines = _lines(fitted, told_I3, ranks(fitted), rank_intervals(fitted, level, kind))
    return Leaderboard(tuple(lines), tuple(_extras(fitted, level, kind)), scale, level, intervals, told_I3, warnings)


def _lines(fitted: Fitted, told_I3: Floats, places: Integers, between: Integers) -> Iterator[Line]:
    """From the strongest on; equal ones by name."""
    games, wins = fitted.games, fitted.wins if isinstance(fitted, Ranking) else None
    alone = np.bincount(fitted.component)[fitted.component] == 1
    for place in np.lexsort((np.arange(len(places)), places, fitted.component)).tolist():
        low, high = between[place].tolist()
        strength, *ends = (float(value) for value in told_I3[place])
        nothing = alone[place] and len(places) > 1
        known = all(map(math.isfinite, ends)) and not nothing
        yield Line(
            int(places[place]),
            low,
            high,
            fitted.items[place],
            None if nothing else strength,
            ends[0] if known else None,
            ends[1] if known else None,
            round(games[place]),
            None if wins is None or not games[place] else float(wins[place] / games[place]),
            int(fitted.component[place]),
        )


def _bootstrapped(
    fitted: Fitted,
    scale: str,
    anchor: tuple[Item, float] | None,
    level: float,
    progress: Callable[[int], object] | None,
) -> tuple[Floats, tuple[str, ...]]:
    """I3: strengths on a scale, with percentiles of the draws, each on the scale by itself; and warnings."""
    from kilter.ranking.resampling import bootstrap

    strengths = fitted.told_on(scale, anchor, level)[:, :1]
    on, found = scale_of(scale, anchor), bootstrap(fitted, progress=progress)
    drawn = [on.of(draw, on.origin(draw, fitted.items)) for draw in found.strengths]
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0).T
    return np.concatenate([strengths, ends], axis=1), (found.explanation(),) * bool(found.failed)


def _extras(fitted: Fitted, level: float, kind: Kind) -> Iterator[Extra]:
    half = quantile(level, fitted.clusters if kind == "sandwich" else None)
    for place, name in enumerate(fitted.extra_names, len(fitted.items)):
        contrast = np.zeros(len(fitted.parameters))
        contrast[place] = 1
        value, error = float(fitted.parameters[place]), math.sqrt(fitted.variance(contrast, kind))
        yield Extra(name, value, value - half * error, value + half * error)


def told(value: float, scale: str) -> str:
    """A strength as it is written on a scale."""
    return f"{value:.1f}" if scale == "elo" else f"{value:.3g}" if scale == "odds" else f"{value:.2f}"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
