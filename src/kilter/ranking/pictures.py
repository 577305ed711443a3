"""A ranking as a picture: strengths with intervals, who would beat whom, and whether the probabilities hold.

Axes: I items, N items that are shown, B bins of predicted probabilities.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kilter.data.staging import staged_file
from kilter.data.svg import COLOURS, FAINT, INK, Panel, picture, ticks, words
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.comparisons import Floats, Integers, Item, printable
from kilter.ranking.fitted import Fitted, Method

ROW, CELL = 18, 23  # pixels: a row of the forest plot, a cell of the heat map
MOST_ROWS, MOST_CELLS = 60, 20
FOREST_WIDTH, CALIBRATION_SIDE = 380, 320
LONGEST_NAME = 250  # pixels
HEAD = 46  # pixels above a part, for what it is called
MARGIN = 28
UNITS = {"log": "log-strength", "elo": "Elo points", "odds": "odds"}
BETTER, WORSE = COLOURS[0], COLOURS[1]
SMALL = 'class="small"'


class Bins(Protocol):
    """Predicted probabilities in bins, and how often what was predicted came about, with an interval."""

    @property
    def predicted(self) -> Floats: ...  # B
    @property
    def observed(self) -> Floats: ...  # B
    @property
    def low(self) -> Floats: ...  # B
    @property
    def high(self) -> Floats: ...  # B
    @property
    def games(self) -> Floats: ...  # B


class Part(NamedTuple):
    """SVG elements, and the room that they take."""

    elements: list[str]
    width: float
    height: float


def best_first(strengths_I: Floats, component_I: Integers | None = None) -> NDArray[np.intp]:
    """Items from the strongest to the weakest, one component after the other."""
    group_I = np.zeros(len(strengths_I)) if component_I is None else component_I
    return np.lexsort((-strengths_I, group_I))


def forest(
    items: Sequence[Item],
    strengths_I: Floats,
    intervals_I2: Floats,
    component_I: Integers | None = None,
    *,
    unit: str = "log-strength",
    level: float = 0.95,
    most: int = MOST_ROWS,
    left: float = MARGIN,
    top: float = MARGIN,
) -> Part:
    """Strengths with intervals, the strongest item first; of more than `most` items, the first ones and a line.

    An interval that would push all others together, or has no end, is cut where the picture ends, with an arrow; one
    that is not a number, as that of an item alone in its component, is not drawn.
    Components that cannot be compared stand apart, with a line between them.
    """
    order = best_first(strengths_I, component_I)
    shown = order[:most]
    names = [f"{place}  {short(printable(items[item]))}" for place, item in enumerate(shown, 1)]
    room = max(map(text_width, names)) + 12
    height = ROW * len(shown)
    panel = Panel(
        left + room,
        top + HEAD + 18,
        FOREST_WIDTH,
        height,
        _edges(strengths_I[shown], intervals_I2[shown]),
        (len(shown), 0),
    )
    elements = [
        words(left, top + 14, "Strengths", 'class="head"'),
        words(left, top + 33, f"{unit}, {level:.0%} intervals", SMALL),
        *_vertical_grid(panel),
    ]
    for row, (item, name) in enumerate(zip(shown, names, strict=True)):
        if row and component_I is not None and component_I[item] != component_I[shown[row - 1]]:
            ends = [(panel.x[0], row), (panel.x[1], row)]
            elements.append(panel.line(ends, f'stroke="{INK}" stroke-dasharray="2 3"'))
        elements.append(_named(panel.left - 8, panel.top + ROW * row + 13, name, printable(items[item])))
        elements += _strength(panel, row + 0.5, float(strengths_I[item]), intervals_I2[item])
    below = height + HEAD + 40
    if len(order) > most:
        rest = f"{len(order) - most:,} more of {len(order):,} items are not shown"
        elements.append(words(left, top + below + 4, rest, SMALL))
        below += 20
    return Part(elements, room + FOREST_WIDTH, below)


def heat_map(
    items: Sequence[Item], wins_II: Floats, note: str = "", *, left: float = MARGIN, top: float = MARGIN
) -> Part:
    """How probable it is, in percent, that the item of a row beats that of a column; NaN where that has no answer."""
    names = [f"{place}  {short(printable(item))}" for place, item in enumerate(items, 1)]
    room = max(map(text_width, names)) + 12
    side = CELL * len(items)
    corner = (left + room, top + HEAD + 20)
    title = "How probable it is that the row beats the column, %"
    elements = [words(left, top + 14, title, 'class="head"')]
    elements += [words(left, top + 33, note, SMALL)] if note else []
    for row, (item, name) in enumerate(zip(items, names, strict=True)):
        middle = CELL * (row + 0.5)
        elements.append(_named(corner[0] - 8, corner[1] + middle + 4, name, printable(item)))
        elements.append(words(corner[0] + middle, corner[1] - 6, str(row + 1), f'{SMALL} text-anchor="middle"'))
        elements += [
            _cell(corner[0] + CELL * column, corner[1] + CELL * row, float(wins_II[row, column]))
            for column in range(len(items))
            if column != row
        ]
    return Part(elements, room + max(side, text_width(title) * 1.25 - room), side + HEAD + 30)


def calibration(bins: Bins, *, left: float = MARGIN, top: float = MARGIN) -> Part:
    """The share of games that was won, over how probable that was; dots are larger where there are more games."""
    shown = (bins.games > 0) & np.isfinite(bins.predicted + bins.observed)
    columns = (bins.predicted, bins.observed, bins.low, bins.high, bins.games)
    dots = np.column_stack([column[shown] for column in columns])
    # Of favourites alone all probabilities are above a half.
    least = float(np.floor(10 * np.nanmin(dots[:, :3], initial=1) + 1e-9) / 10) if len(dots) else 0.0
    edges = (0.0 if least < 0.3 else least, 1.0)
    room = 44
    panel = Panel(left + room, top + HEAD + 10, CALIBRATION_SIDE, CALIBRATION_SIDE, edges, edges)
    elements = [
        words(left, top + 14, "Do the probabilities hold?", 'class="head"'),
        words(left, top + 33, "share that was won, with its interval; on the line they hold", SMALL),
        panel.axes(ticks(*edges), ticks(*edges)),
        panel.line([(edge, edge) for edge in edges], f'stroke="{FAINT}" stroke-dasharray="4 3"'),
    ]
    most = float(np.max(dots[:, 4], initial=1))
    for predicted, observed, low, high, games in dots.tolist():
        across, down = panel.at(predicted, observed)
        if np.isfinite(low + high):
            elements.append(panel.line([(predicted, low), (predicted, high)], f'stroke="{BETTER}"'))
        elements.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{2 + 4 * (games / most) ** 0.5:.1f}" fill="{BETTER}">'
            f"<title>{games:,.0f} games</title></circle>"
        )
    elements.append(panel.words(1, edges[0], "predicted", f'{SMALL} text-anchor="end"', up=-36))
    return Part(elements, room + CALIBRATION_SIDE + 20, CALIBRATION_SIDE + HEAD + 50)


def win_probabilities(ranking: Fitted, shown_N: NDArray[np.intp]) -> Floats:
    """How probable it is that one item beats another, in no order and with no covariates; a tie is half a win each.

    N x N, row beats column; NaN between components, which cannot be compared.
    """
    model, tie = ranking.of_pairs
    gap_NN = np.subtract.outer(ranking.strengths[shown_N], ranking.strengths[shown_N])
    wins_ONN = np.exp(model.log_probabilities(gap_NN, tie))
    wins_NN = wins_ONN[0] + (wins_ONN[1] / 2 if model.has_ties else 0)
    component_N = ranking.component[shown_N]
    return np.where(np.equal.outer(component_N, component_N), wins_NN, np.nan)


def has_ties(ranking: Fitted) -> bool:
    """Whether two items may tie."""
    return ranking.of_pairs[0].has_ties or (isinstance(ranking, Ranking) and ranking.ties == "half")


def drawing(
    ranking: Fitted,
    bins: Bins | None = None,
    *,
    scale: str = "log",
    anchor: tuple[Item, float] | None = None,
    level: float = 0.95,
    method: Method = "wald",
    told: Floats | None = None,
) -> str:
    """A ranking as SVG: strengths, who beats whom, and the calibration if there is one, where there is room."""
    told_I3 = ranking.told_on(scale, anchor, level, method) if told is None else told
    shown = best_first(ranking.strengths, ranking.component)[:MOST_CELLS]
    left = forest(ranking.items, told_I3[:, 0], told_I3[:, 1:], ranking.component, unit=UNITS[scale], level=level)
    across = MARGIN + left.width + 2 * MARGIN
    notes = [f"the first {len(shown)} of {len(ranking.items):,} items"] if len(shown) < len(ranking.items) else []
    notes += ["a tie is half a win"] if has_ties(ranking) else []
    notes += ["on neutral ground"] if isinstance(ranking, Ranking) and ranking.order_effect else []
    items = [ranking.items[item] for item in shown]
    parts = [left, heat_map(items, win_probabilities(ranking, shown), "; ".join(notes), left=across)]
    bottoms = [MARGIN + part.height for part in parts]
    if bins is not None:
        shorter = bottoms.index(min(bottoms))
        parts.append(calibration(bins, left=(MARGIN, across)[shorter], top=bottoms[shorter] + MARGIN))
        bottoms[shorter] += MARGIN + parts[2].height
    width = across + max(part.width for part in parts[1:]) + MARGIN
    height = max(bottoms) + MARGIN
    title = f"Ranking of {len(ranking.items):,} items"
    return picture(round(width), round(height), title, [element for part in parts for element in part.elements])


def draw(
    ranking: Fitted,
    path: str | PathLike[str],
    bins: Bins | None = None,
    *,
    scale: str = "log",
    anchor: tuple[Item, float] | None = None,
    level: float = 0.95,
    method: Method = "wald",
    told: Floats | None = None,
) -> None:
    """Write a ranking as an SVG picture, whole or not at all.

    `bins` are those of `kilter.ranking.checks.calibration`, `scale` and `anchor` those of `Ranking.told_on`. `told`,
    I3, are strengths with their intervals on that scale, if they are not to be the method's. Raises RunError where the
    file cannot be written.
    """
    text = drawing(ranking, bins, scale=scale, anchor=anchor, level=level, method=method, told=told)
    with staged_file(Path(path)) as staging:
        staging.write_text(text, encoding="utf-8")


def text_width(text: str) -> float:
    """About how many pixels small text takes; East Asian letters are twice as wide."""
    return sum(12.0 if unicodedata.east_asian_width(letter) in "WF" else 6.7 for letter in text)


def short(name: str, most: float = LONGEST_NAME) -> str:
    """A name, without its middle where it is too long: what tells names apart is often their end."""
    if text_width(name) <= most:
        return name
    keep = len(name) - 1
    while text_width(cut := f"{name[: (keep + 1) // 2]}…{name[len(name) - keep // 2 :]}") > most:
        keep -= 1
    return cut


def _edges(strengths_N: Floats, intervals_N2: Floats) -> tuple[float, float]:
    """What lies at the ends of the axis: all strengths, and as much of the intervals as leaves them room."""
    low, high = float(strengths_N.min()), float(strengths_N.max())
    widths_N = intervals_N2[:, 1] - intervals_N2[:, 0]
    usual = float(np.median(widths_N[np.isfinite(widths_N)])) if np.isfinite(widths_N).any() else 1.0
    most = max(0.5 * (high - low), 2 * usual)
    ends_N2 = np.clip(np.where(np.isnan(intervals_N2), strengths_N[:, None], intervals_N2), low - most, high + most)
    low, high = min(low, float(ends_N2[:, 0].min())), max(high, float(ends_N2[:, 1].max()))
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room


def _vertical_grid(panel: Panel) -> list[str]:
    drawn = []
    for tick in ticks(*panel.x):
        drawn.append(panel.line([(tick, panel.y[0]), (tick, panel.y[1])], f'stroke="{INK}" stroke-opacity="0.12"'))
        number = f"{tick:g}"
        drawn.append(panel.words(tick, panel.y[1], number, f'{SMALL} text-anchor="middle"', up=6))
        drawn.append(panel.words(tick, panel.y[0], number, f'{SMALL} text-anchor="middle"', up=-16))
    return drawn


def _strength(panel: Panel, down: float, strength: float, interval: Floats) -> list[str]:
    low, high = (float(end) for end in interval)
    if np.isnan(low) or np.isnan(high):
        return [panel.dot(strength, down, BETTER)]
    ends = (max(low, panel.x[0]), min(high, panel.x[1]))
    drawn = [panel.line([(ends[0], down), (ends[1], down)], f'stroke="{BETTER}" stroke-width="2" stroke-opacity="0.6"')]
    for cut, end, letter in ((low < panel.x[0], ends[0], "◂"), (high > panel.x[1], ends[1], "▸")):
        if cut:
            drawn.append(panel.words(end, down, letter, f'text-anchor="middle" style="fill: {BETTER}"', up=-5))
    return [*drawn, panel.dot(strength, down, BETTER)]


def _named(right: float, base: float, text: str, whole: str) -> str:
    """Text that ends at a pixel, and shows the whole name where the pointer rests on it."""
    shown = words(right, base, text, f'{SMALL} text-anchor="end"')
    return f"<g><title>{html.escape(whole, quote=False)}</title>{shown}</g>"


def _cell(left: float, top: float, probability: float) -> str:
    """A square coloured by a probability, which stands in it in percent."""
    box = f'<rect x="{left:.1f}" y="{top:.1f}" width="{CELL - 1}" height="{CELL - 1}"'
    if not np.isfinite(probability):
        return f'{box} fill="{FAINT}" fill-opacity="0.15"/>'
    sure = abs(2 * probability - 1)
    colour = BETTER if probability > 0.5 else WORSE
    ink = "#ffffff" if sure > 0.6 else INK
    number = words(
        left + (CELL - 1) / 2,
        top + 15,
        _percent(probability),
        f'text-anchor="middle" style="font-size: 10px; fill: {ink}"',
    )
    return f'{box} fill="{colour}" fill-opacity="{0.04 + 0.96 * sure:.2f}"/>{number}'


def _percent(probability: float) -> str:
    """Whole percent, and never a certainty."""
    return ">99" if probability > 0.99 else "<1" if probability < 0.01 else f"{100 * probability:.0f}"
