"""What the runs of a sweep found, side by side: as lines, tables and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple, Protocol, TypeAlias

from rich.console import Console
from rich.table import Table

from kilter.data.run_directory import RunDirectory
from kilter.data.svg import Point
from kilter.measure.frontier import (
    KL_AXES,
    REWARD_AXES,
    Axis,
    Plane,
    Spot,
    drawing,
    first_of_all,
    markdown,
    pareto_best,
    shown,
)
from kilter.measure.statistics import Interval
from kilter.train.grid import as_text, described

# What sweep.json says of a run: its settings that vary, its state, and how long it took.
Record: TypeAlias = dict[str, Any]
# What is counted of tokens whose reference scores a run asks for (ReferenceScores).
COUNTS = {
    "hits": "found",
    "misses": "not found",
    "computed": "computed, kept",
    "computed_unkept": "computed, not kept",
}
NOT_KEPT = "computed, not kept: for sampled answers, and for exact KL without --cache hidden."
TITLE = "Reward and KL of the runs of a sweep"


class Exact(NamedTuple):
    """What is known of a model in a world where the true reward is: expected reward, answer KL from the start in
    nats, and the most reward that there is at that KL."""

    reward: float
    kl: float
    most: float


class Oracle(Protocol):
    """Knows true rewards: of the model that runs begin with, of others, and the most there is, as (KL, reward)."""

    @property
    def start_reward(self) -> float: ...

    @property
    def limit(self) -> Sequence[Point]: ...

    def __call__(self, model: Path) -> Exact: ...


@dataclass(frozen=True)
class Row:
    """A run of a sweep: what is varied in it, what became of it, and, where it is finished, the evaluation of its
    result, and how many tokens' reference scores were found and computed."""

    varied: Mapping[str, Any]
    record: Record
    found: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return described(self.varied)

    @property
    def exact(self) -> Exact | None:
        said = self.record.get("exact") if self.found else None
        return None if said is None else Exact(**{name: float(value) for name, value in said.items()})

    @property
    def has_kl(self) -> bool:
        """Whether it was measured against a reference."""
        return any(axis.key in self.found for axis in KL_AXES)

    @property
    def series(self) -> str:
        """The first thing that varies, with its value where there is more."""
        first, *more = self.varied
        return described({first: self.varied[first]}) if more or first == "objective" else first

    @property
    def label(self) -> str:
        """What tells it from others of its series."""
        first, *more = self.varied
        return ", ".join(as_text(self.varied[name]) for name in more or [first] if name != "objective")

    def line(self) -> str:
        """What became of it, for when it has ended."""
        if not self.found:
            return f"{self}: {self.record['state']}: {self.record.get('error', '')}"
        axes = [first_of_all(axes, [self.found]) for axes in (REWARD_AXES, KL_AXES)]
        numbers = [f"{axis.short} {shown(axis.interval(self.found), '.3g', '.2g')}" for axis in filter(None, axes)]
        return f"{self}: {', '.join([*numbers, took(self.record['seconds'])])}"


@dataclass(frozen=True)
class SweepAccount:
    """The runs of a sweep beside each other, and what knows their true rewards, where something does."""

    rows: Sequence[Row]
    oracle: Oracle | None = None

    @cached_property
    def measured(self) -> list[Row]:
        """The runs that have a place on the frontier."""
        return [row for row in self.rows if row.has_kl]

    @cached_property
    def axes(self) -> tuple[Axis, Axis] | None:
        """KL and reward as all of those have them; None where there is none."""
        found = [row.found for row in self.measured]
        kl, reward = first_of_all(KL_AXES, found), first_of_all(REWARD_AXES, found)
        return None if kl is None or reward is None else (kl, reward)

    @cached_property
    def best(self) -> set[str]:
        """The runs that are Pareto-best, by what they are called."""
        if self.axes is None:
            return set()
        places = [tuple(float(row.found[axis.key]) for axis in self.axes) for row in self.measured]
        good = pareto_best([(kl, reward) for kl, reward in places])
        return {str(row) for row, is_best in zip(self.measured, good, strict=True) if is_best}

    def table(self) -> list[list[str]]:
        """What was measured on held-out examples, with headings."""
        if self.axes is None:
            return [["run", "state", "time"], *([str(row), row.record["state"], _time(row)] for row in self.rows)]
        kl, reward = self.axes
        return [
            ["run", reward.short, "gap, nats", kl.short, "best", "time"],
            *(list(self._cells(row, kl, reward)) for row in self.rows),
        ]

    def _cells(self, row: Row, kl: Axis, reward: Axis) -> Iterator[str]:
        yield str(row)
        if row.has_kl:
            yield shown(reward.interval(row.found), ".3f", ".2f")
            yield f"{row.found['gap']:.2f}" if "gap" in row.found else "-"
            yield shown(kl.interval(row.found), ".3g", ".2g")
        else:
            yield from (row.record["state"] if not row.found else "no reference", "-", "-")
        yield "*" if str(row) in self.best else ""
        yield _time(row)

    def exact_table(self) -> list[list[str]]:
        """What the oracle says, with headings; empty without one."""
        if self.oracle is None:
            return []
        start = self.oracle.start_reward
        rows = [(row, row.exact) for row in self.rows]
        return [
            ["run", "true reward", "exact answer KL", "the most reward at that KL", "gain, of the most"],
            ["the start", f"{start:+.3f}", "0.000", f"{start:+.3f}", ""],
            *(
                [str(row), f"{e.reward:+.3f}", f"{e.kl:.3f}", f"{e.most:+.3f}", f"{_share(e, start):.1%}"]
                for row, e in rows
                if e is not None
            ),
        ]

    def reference_table(self) -> list[list[str]]:
        """Tokens whose reference scores runs found and computed, with headings; empty where none kept them."""
        rows = [[str(row), *(f"{row.scores[name]:,}" for name in COUNTS)] for row in self.rows if row.scores]
        return [["run", *COUNTS.values()], *rows] if rows else []

    def tables(self) -> dict[str, list[list[str]]]:
        """Those that there are, by their titles."""
        found = {
            "On held-out examples": self.table(),
            "Against the exact optimum": self.exact_table(),
            "Tokens of the reference's scores": self.reference_table(),
        }
        return {title: cells for title, cells in found.items() if cells}

    def notes(self) -> list[str]:
        """What the columns are, and what failed."""
        said = []
        if self.axes is not None:
            kl, reward = self.axes
            said += [f"{reward.short}: {reward.title}.", f"{kl.short}: {kl.title}."]
            if any(row.scores for row in self.rows):
                said.append(NOT_KEPT)
            said.append("In brackets: 95% intervals. best: no other has as much reward at less KL, or more at no more.")
        if any(row.found and not row.has_kl for row in self.rows):
            said.append("A run without a reference has no KL from it, and no place on the frontier.")
        return said + [f"{row}: failed: {row.record['error']}" for row in self.rows if "error" in row.record]

    def csv(self) -> str:
        """All numbers of all runs, with their names first."""
        rows = [self._numbers(row) for row in self.rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()

    def _numbers(self, row: Row) -> dict[str, Any]:
        exact = {} if row.exact is None else {f"exact_{name}": value for name, value in row.exact._asdict().items()}
        ran = {
            "state": row.record["state"],
            "seconds": round(row.record["seconds"], 1),
            "pareto": str(row) in self.best,
        }
        found = {name: value for name, value in row.found.items() if name != "split"}
        scores = {f"reference_{name}": row.scores[name] for name in COUNTS if row.scores}
        return {**row.varied, **ran, **exact, **found, **scores}

    def markdown(self) -> str:
        """The same as a page."""
        parts = [part for title, cells in self.tables().items() for part in (f"## {title}\n", markdown(cells))]
        return "\n".join([f"# {TITLE}\n", *parts, *(f"- {note}" for note in self.notes())]) + "\n"

    def picture(self) -> str:
        """The frontier as SVG; beside it, with an oracle, true rewards and the exact frontier."""
        planes = []
        if self.axes is not None:
            kl, reward = self.axes
            spots = [
                Spot(kl.interval(row.found), reward.interval(row.found), row.label, row.series) for row in self.measured
            ]
            planes.append(Plane(spots, kl.title, reward.title, "Measured on held-out examples"))
        known = [(row, row.exact) for row in self.rows if row.exact is not None]
        if self.oracle is not None and known:
            spots = [Spot(_point(e.kl), _point(e.reward), row.label, row.series) for row, e in known if e is not None]
            up, across = "expected true reward", "exact answer KL(policy, start), nats an answer"
            planes.append(Plane(spots, across, up, "True reward, and the most there is", self.oracle.limit))
        varied = list(self.rows[0].varied)
        labels = ", ".join(name for name in varied[1:] or varied if name != "objective")
        return drawing(planes, TITLE, [f"numbers: {labels}"] if labels else [])

    def show(self, console: Console) -> None:
        """Print the tables and what is to be said of them."""
        for title, cells in self.tables().items():
            table = Table(title=title, title_justify="left")
            headings, *rows = cells
            for i, heading in enumerate(headings):
                # On a narrow terminal headings and names take several lines, numbers one.
                narrow = "\n".join(wrap(heading, max(len(row[i]) for row in rows), break_long_words=False))
                table.add_column(narrow, justify="right" if i else "left", no_wrap=i > 0)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        for note in self.notes():
            console.print(note, highlight=False, soft_wrap=True)


def result_row(run: RunDirectory, *, keeps_best: bool) -> dict[str, Any]:
    """The row of metrics of the evaluation of a finished run's result: the last one, or that of the least loss."""
    rows: list[dict[str, Any]] = [row for row in run.read_metrics() if row.get("split") == "eval"]
    return min(rows, key=lambda row: float(row["loss"])) if keeps_best else rows[-1]


def took(seconds: float) -> str:
    """A time in words: `41 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _time(row: Row) -> str:
    return took(row.record["seconds"]) if row.record["seconds"] else ""


def _share(exact: Exact, start: float) -> float:
    return (exact.reward - start) / (exact.most - start) if exact.most > start else 1.0


def _point(value: float) -> Interval:
    return Interval(value, value, value)
