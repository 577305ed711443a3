"""What runs have in reward for their KL: which of them are best, as a picture and as rows of a table.

A run is Pareto-best where no other has as much reward at less KL, or more reward at no more KL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from kilter.data.svg import COLOURS, FAINT, INK, Panel, Point, picture, ticks, words
from kilter.measure.statistics import NORMAL_975, Interval


class Axis(NamedTuple):
    """A number of an evaluation's row of metrics, what it is, and where its interval or standard error lies."""

    key: str
    title: str
    short: str

    def interval(self, row: Mapping[str, Any]) -> Interval:
        """The number with its 95% interval, which has no width where none is known."""
        value = float(row[self.key])
        half = NORMAL_975 * float(row.get(f"{self.key}_se", 0.0))
        low, high = (
            float(row.get(f"{self.key}_{end}", value + side * half)) for end, side in (("low", -1), ("high", 1))
        )
        return Interval(value, low, high) if math.isfinite(high - low) else Interval(value, value, value)


Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom


# The best there is comes first. Each is called by what it was taken along.
KL_AXES = (
    Axis("answer_kl_policy_reference", "answer KL(policy, reference) of sampled answers, nats an answer", "answer KL"),
    Axis(
        "kl_policy_reference_along_policy_answers",
        "token KL(policy, reference) along sampled answers, nats a token",
        "token KL along samples",
    ),
    Axis(
        "kl_policy_reference_along_chosen",
        "token KL(policy, reference) along held-out chosen answers, nats a token",
        "token KL along chosen",
    ),
    Axis(
        "kl_policy_reference_along_good",
        "token KL(policy, reference) along held-out good answers, nats a token",
        "token KL along good",
    ),
)
REWARD_AXES = (
    Axis("accuracy", "held-out accuracy: chosen has the higher log-ratio", "accuracy"),
    Axis("auc", "held-out AUC: a good answer has the higher log-ratio", "AUC"),
)


class Spot(NamedTuple):
    """A run on the plane: its KL and its reward, each with an interval, what it is called, and its series' name."""

    kl: Interval
    reward: Interval
    label: str
    series: str

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.kl.value) and math.isfinite(self.reward.value)


@dataclass(frozen=True)
class Plane:
    """Runs, and what the axes are; `limit` is a curve of the most reward there is at a KL, where that is known."""

    spots: Sequence[Spot]
    across: str
    up: str
    title: str
    limit: Sequence[Point] = ()


def first_of_all(axes: Sequence[Axis], rows: Iterable[Mapping[str, Any]]) -> Axis | None:
    """The first axis that every row has."""
    rows = list(rows)
    return next((axis for axis in axes if rows and all(axis.key in row for row in rows)), None)


def pareto_best(points: Sequence[Point]) -> list[bool]:
    """Of points (KL, reward), whether each is Pareto-best. Points at the same place are so together.

    >>> pareto_best([(1.0, 0.6), (2.0, 0.7), (3.0, 0.65), (2.0, 0.7)])
    [True, True, False, True]
    """

    def beaten(kl: float, reward: float) -> bool:
        return any(x <= kl and y >= reward and (x, y) != (kl, reward) for x, y in points)

    return [not beaten(*point) for point in points]


def drawing(planes: Sequence[Plane], title: str, legend: Sequence[str] = ()) -> str:
    """Planes beside each other as SVG, with a legend: dots with intervals, rings about those that are Pareto-best.

    What is not finite has no place, and is left out.
    """
    planes = [replace(plane, spots=[spot for spot in plane.spots if spot.is_finite]) for plane in planes]
    series = list(dict.fromkeys(spot.series for plane in planes for spot in plane.spots))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(series)}
    parts = [part for i, plane in enumerate(planes) for part in _drawn(plane, 64 + i * (WIDTH + 76), colours)]
    left = 64 + len(planes) * (WIDTH + 76) - 50
    for row, name in enumerate(series):
        parts.append(f'<circle cx="{left}" cy="{70 + 22 * row}" r="4" fill="{colours[name]}"/>')
        parts.append(words(left + 12, 75 + 22 * row, name, f'style="fill: {colours[name]}"'))
    below = 75 + 22 * (len(series) + 1)
    said = [*legend, "ring: Pareto-best", "bars: 95% intervals"]
    said += ["line: the most there is"] if any(plane.limit for plane in planes) else []
    parts += [words(left - 4, below + 18 * i, line, 'class="small"') for i, line in enumerate(said)]
    longest = max([*map(len, said), *(len(name) + 2 for name in series)])
    return picture(left + 24 + 8 * longest, TOP + HEIGHT + 60, title, parts)


TOP, WIDTH, HEIGHT = 60, 440, 360


def _drawn(plane: Plane, left: float, colours: Mapping[str, str]) -> list[str]:
    points = [(spot.kl.value, spot.reward.value) for spot in plane.spots]
    panel = Panel(left, TOP, WIDTH, HEIGHT, *_edges(plane))
    parts = [
        words(left, 24, plane.title, 'class="head"'),
        words(left, 44, plane.up, 'class="small"'),
        panel.axes(ticks(*panel.x), ticks(*panel.y)),
        words(left + WIDTH, TOP + HEIGHT + 40, plane.across, 'class="small" text-anchor="end"'),
    ]
    if plane.limit:
        seen = [point for point in plane.limit if panel.x[0] <= point[0] <= panel.x[1] and point[1] >= panel.y[0]]
        parts.append(panel.line(seen, f'stroke="{INK}" stroke-width="2"'))
    best = pareto_best(points)
    steps = sorted(point for point, good in zip(points, best, strict=True) if good)
    parts.append(panel.line(_stairs(steps, panel.x[1]), f'stroke="{FAINT}" stroke-dasharray="4 3"'))
    for spot, good in zip(plane.spots, best, strict=True):
        colour = colours[spot.series]
        (kl, kl_low, kl_high), (reward, low, high) = spot.kl, spot.reward
        thin = f'stroke="{colour}" stroke-opacity="0.45"'
        parts += [panel.line([(kl, low), (kl, high)], thin)] if low < high else []
        parts += [panel.line([(max(kl_low, panel.x[0]), reward), (kl_high, reward)], thin)] if kl_low < kl_high else []
        parts.append(panel.dot(kl, reward, colour))
        parts += [panel.ring(kl, reward, colour)] if good else []
    for spot, (across, down) in zip(plane.spots, _free_places(plane.spots, panel), strict=True):
        parts.append(words(across, down, spot.label, f'class="small" style="fill: {colours[spot.series]}"'))
    return parts


def _free_places(spots: Sequence[Spot], panel: Panel) -> list[Point]:
    """A pixel for each label to begin at, near its dot, and where there is room clear of dots and of other labels."""
    dots = [panel.at(spot.kl.value, spot.reward.value) for spot in spots]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    places = []
    for spot, (x, y) in zip(spots, dots, strict=True):
        width = 7 * len(spot.label)
        near = [(x + right, y + down) for down in (-8, 18, -22, 32) for right in (8, -8 - width)]
        boxes = [(left, base - 10, left + width, base) for left, base in near]
        free = [not any(_overlap(box, other) for other in taken) for box in boxes]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        places.append(near[chosen])
    return places


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _stairs(steps: Sequence[Point], right: float) -> list[Point]:
    """From each point level to the KL of the next, then up; from the last to the edge."""
    kls = [kl for kl, _ in steps[1:]] + [right]
    return [corner for (kl, reward), then in zip(steps, kls, strict=True) for corner in ((kl, reward), (then, reward))]


def _edges(plane: Plane) -> tuple[Point, Point]:
    """What lies at the edges: no KL at the left, and all intervals within."""
    right = 1.08 * max([spot.kl.high for spot in plane.spots] + [1e-6])
    ends = [end for spot in plane.spots for end in (spot.reward.low, spot.reward.high)]
    ends += [reward for kl, reward in plane.limit if kl <= right]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or max(1e-6, 0.05 * abs(high))
    return (0.0, right), (low - room, high + room)


def shown(interval: Interval, form: str, form_of_ends: str) -> str:
    """A number with its interval; by itself where that has no width."""
    value, low, high = interval
    return f"{value:{form}} ({low:{form_of_ends}}, {high:{form_of_ends}})" if low < high else f"{value:{form}}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with its headings first; numbers to the right."""
    headings, *cells = rows
    rule = ["---", *["--:"] * (len(headings) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, rule, *cells))
