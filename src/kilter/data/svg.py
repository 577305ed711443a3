"""Pictures as SVG: panels with axes, lines, dots and words, as text that needs nothing to be drawn."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INK, FAINT = "#222222", "#9a9a9a"
COLOURS = ("#2563a8", "#c2571a", "#2f8f4e", "#8b3fa8", "#b8860b", "#c0266b", "#0f8b8d", "#6b6b6b", "#7a4a1e", "#4f46c8")

Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A part of a picture with axes of its own: its place in pixels, and what lies at its edges."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        """The pixel of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def box(self, x: tuple[float, float], top: float, style: str) -> str:
        """A rectangle that stands on the axis."""
        (x0, y0), (x1, y1) = self.at(x[0], top), self.at(x[1], self.y[0])
        return f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" {style}/>'

    def line(self, points: Iterable[Point], style: str) -> str:
        """A line through points."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        return f'<polyline points="{drawn}" fill="none" {style}/>'

    def dot(self, x: float, y: float, colour: str) -> str:
        """A filled circle at a point."""
        across, down = self.at(x, y)
        return f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>'

    def ring(self, x: float, y: float, colour: str) -> str:
        """A circle about a point."""
        across, down = self.at(x, y)
        return f'<circle cx="{across:.1f}" cy="{down:.1f}" r="8" fill="none" stroke="{colour}"/>'

    def words(self, x: float, y: float, text: str, style: str = "", *, up: float = 0, right: float = 0) -> str:
        """Text at a point, moved by pixels."""
        across, down = self.at(x, y)
        return words(across + right, down - up, text, style)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        """Both axes, with numbers at the ticks."""
        drawn = [self.line([(self.x[0], self.y[1]), (self.x[0], self.y[0]), (self.x[1], self.y[0])], f'stroke="{INK}"')]
        for tick in x_ticks:
            drawn.append(self.words(tick, self.y[0], f"{tick:g}", 'class="small" text-anchor="middle"', up=-17))
        for tick in y_ticks:
            drawn.append(self.words(self.x[0], tick, f"{tick:g}", 'class="small" text-anchor="end"', up=-4, right=-7))
            drawn.append(self.line([(self.x[0], tick), (self.x[1], tick)], f'stroke="{INK}" stroke-opacity="0.1"'))
        return "\n".join(drawn)


def words(x: float, y: float, text: str, style: str = "") -> str:
    """Text at a pixel."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(text, quote=False)}</text>'


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A whole file; its ground is white, also on a dark page."""
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{html.escape(title, quote=False)}</title>
<style>text {{ font: 14px sans-serif; fill: {INK} }} .small {{ font-size: 12px }} .head {{ font-weight: bold }}</style>
<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>
{chr(10).join(parts)}
</svg>
"""


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers from `low` to `high`, evenly spaced, no more than `most`."""
    step = round_step(high - low, most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 15) for i in range(first, last + 1)]


def round_step(length: float, most: int, *, least: float = 1e-300) -> float:
    """The smallest 1, 2 or 5, times a power of ten, that is `least` or more and goes into a length `most` times."""
    wanted = max(length / most, least)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * part for part in (1, 2, 5, 10) if power * part >= wanted * (1 - 1e-9))
