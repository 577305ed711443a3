"""Draws the pictures of divergence.md beside this file, from the numbers themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kilter.data.svg import COLOURS, FAINT, Panel, Point, picture, words

HERE = Path(__file__).parent
P_COLOUR, Q_COLOUR = COLOURS[:2]

Curve = NDArray[np.float64]


# The code of a message: widths are how often a letter comes, heights how long its code is.

LETTERS = "abcd"
LETTERS_P = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
LETTERS_Q = (1 / 8, 1 / 8, 1 / 4, 1 / 2)
CODES_P = ("0", "10", "110", "111")
CODES_Q = ("110", "111", "10", "0")


def coding_length() -> str:
    """The mean length of a code as an area: by the code made for p, and by the one made for q."""
    own = sum(p * -math.log2(p) for p in LETTERS_P)
    other = sum(p * -math.log2(q) for p, q in zip(LETTERS_P, LETTERS_Q, strict=True))
    left = Panel(60, 62, 290, 200, (0, 1), (0, 3.2))
    right = Panel(420, 62, 290, 200, (0, 1), (0, 3.2))
    parts = [
        words(60, 28, "By the code made for p", 'class="head"'),
        words(420, 28, "By the code made for q", 'class="head"'),
    ]
    parts += [
        words(60, 47, f"mean length H(p) = {own:g} bits", 'class="small"'),
        words(420, 47, f"mean length H(p, q) = {other:g} bits, {other - own:g} more: KL(p, q)", 'class="small"'),
    ]
    for panel, made_for, codes, colour in (
        (left, LETTERS_P, CODES_P, P_COLOUR),
        (right, LETTERS_Q, CODES_Q, Q_COLOUR),
    ):
        start = 0.0
        for letter, often, believed, code in zip(LETTERS, LETTERS_P, made_for, codes, strict=True):
            end, length = start + often, -math.log2(believed)
            parts.append(panel.box((start, end), length, f'fill="{colour}" fill-opacity="0.25" stroke="{colour}"'))
            middle = (start + end) / 2
            parts.append(panel.words(middle, length, code, 'class="small" text-anchor="middle"', up=5))
            parts.append(panel.words(middle, 0, letter, 'text-anchor="middle"', up=-16))
            start = end
        parts.append(panel.axes([], [0, 1, 2, 3]))
        parts.append(words(panel.left, panel.top + panel.height + 36, "width: probability under p", 'class="small"'))
        parts.append(panel.words(0, 3.2, "bits", 'class="small" text-anchor="end"', right=-7))
    outline, start = [], 0.0
    for often in LETTERS_P:
        outline += [(start, -math.log2(often)), (start + often, -math.log2(often))]
        start += often
    parts.append(right.line(outline, f'stroke="{P_COLOUR}" stroke-width="2" stroke-dasharray="5 4"'))
    return picture(740, 312, "Mean code length as an area: entropy, cross-entropy, and KL between them", parts)


# Both directions between a fair coin and a bent one.

BENT = 0.7


def coin_kl(p: float, q: float) -> float:
    """KL between coins that show heads with probability p and q, in nats."""
    terms = [(p, q), (1 - p, 1 - q)]
    return sum(a * math.log(a / b) for a, b in terms if a > 0)


def asymmetry() -> str:
    """KL(fair, bent) and KL(bent, fair) over how bent the coin is."""
    panel = Panel(60, 30, 480, 250, (0, 1), (0, 1.25))
    to_bent: Callable[[float], float] = lambda x: coin_kl(0.5, x)  # noqa: E731
    to_fair: Callable[[float], float] = lambda x: coin_kl(x, 0.5)  # noqa: E731
    edge = (1 - math.sqrt(1 - math.exp(-2 * panel.y[1]))) / 2  # where KL(fair, bent) leaves the picture
    parts = [panel.axes([0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1, 1.25])]
    for curve, ends, colour in ((to_bent, (edge, 1 - edge), Q_COLOUR), (to_fair, (0.0, 1.0), P_COLOUR)):
        points = [(float(x), curve(float(x))) for x in np.linspace(*ends, 201)]
        parts.append(panel.line(points, f'stroke="{colour}" stroke-width="2.5"'))
    parts.append(panel.line([(BENT, 0), (BENT, 0.4)], f'stroke="{FAINT}" stroke-dasharray="3 3"'))
    for curve, colour, up in ((to_bent, Q_COLOUR, 21), (to_fair, P_COLOUR, 6)):
        parts.append(panel.dot(BENT, curve(BENT), colour))
        value = f"at {BENT}: {curve(BENT):.4f}"
        parts.append(panel.words(BENT, 0.4, value, f'class="small" style="fill: {colour}" text-anchor="middle"', up=up))
    parts.append(panel.words(1, 1.12, "KL(fair, bent): without bound", f'style="fill: {Q_COLOUR}"', right=14))
    parts.append(
        panel.words(1, math.log(2), "KL(bent, fair): at most ln 2", f'style="fill: {P_COLOUR}"', right=14, up=-5)
    )
    parts.append(
        panel.words(0.5, 0, "probability of heads of the bent coin", 'class="small" text-anchor="middle"', up=-36)
    )
    parts.append(panel.words(0, 1.25, "nats", 'class="small" text-anchor="end"', right=-7, up=12))
    return picture(760, 326, "KL between a fair and a bent coin, in both directions", parts)


# A normal fitted to two hills, in either direction.

GRID = np.linspace(-8, 8, 4001)
HILLS = ((0.6, -2.0, 0.6), (0.4, 2.0, 0.6))  # weight, mean, standard deviation


def normal(mean: float, sd: float) -> Curve:
    density: Curve = np.exp(-(((GRID - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
    return density


def two_hills() -> Curve:
    """The target's density."""
    return sum((weight * normal(mean, sd) for weight, mean, sd in HILLS), np.zeros_like(GRID))


def grid_kl(p: Curve, q: Curve) -> float:
    """KL(p, q) by the sum over the grid, on which both have died away at the ends."""
    there = p > 0
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], 1e-300))) * (GRID[1] - GRID[0]))


def forward_fit() -> Point:
    """Mean and standard deviation that minimise KL(target, normal): those of the target."""
    mean = sum(weight * mean for weight, mean, _ in HILLS)
    square = sum(weight * (sd**2 + mean**2) for weight, mean, sd in HILLS)
    return mean, math.sqrt(square - mean**2)


def reverse_fit() -> Point:
    """Mean and standard deviation that minimise KL(normal, target), by a grid that closes in on the best."""
    target = two_hills()
    best, reach, points = (0.0, 1.5), (3.0, 1.3), 31  # wide and fine at first: there is a valley at each hill
    while max(reach) > 1e-7:
        means = np.linspace(best[0] - reach[0], best[0] + reach[0], points)
        sds = np.linspace(max(best[1] - reach[1], 0.05), best[1] + reach[1], points)
        tried = [(float(mean), float(sd)) for mean in means for sd in sds]
        best = min(tried, key=lambda fit: grid_kl(normal(*fit), target))
        reach, points = (reach[0] / 4, reach[1] / 4), 9
    return best


def fitting() -> str:
    """The target, and the two normals nearest to it."""
    target, parts = two_hills(), []
    for left, fit, title, remark in (
        (50, forward_fit(), "Smallest KL(p, q)", "q covers all that p does"),
        (420, reverse_fit(), "Smallest KL(q, p)", "q keeps to what p has much of"),
    ):
        panel = Panel(left, 62, 300, 180, (-6, 6), (0, 0.72))
        fitted = normal(*fit)
        shown = [i for i in range(0, len(GRID), 20) if abs(GRID[i]) <= 6]
        parts += [
            words(left, 26, title, 'class="head"'),
            words(left, 46, f"{remark}: N({fit[0]:.2f}, {fit[1]:.2f})", 'class="small"'),
        ]
        parts.append(panel.axes([-4, -2, 0, 2, 4], []))
        hill = [(float(GRID[i]), float(target[i])) for i in shown]
        parts.append(
            panel.line(hill, f'stroke="{P_COLOUR}" stroke-width="2.5"').replace(
                'fill="none"', f'fill="{P_COLOUR}" fill-opacity="0.15"'
            )
        )
        parts.append(
            panel.line([(float(GRID[i]), float(fitted[i])) for i in shown], f'stroke="{Q_COLOUR}" stroke-width="2.5"')
        )
        numbers = f"KL(p, q) = {grid_kl(target, fitted):.2f}, KL(q, p) = {grid_kl(fitted, target):.2f} nats"
        parts.append(words(left, 282, numbers, 'class="small"'))
    parts.append(words(660, 100, "p", f'style="fill: {P_COLOUR}" class="head"'))
    parts.append(words(660, 120, "q", f'style="fill: {Q_COLOUR}" class="head"'))
    return picture(740, 300, "A normal fitted to a target of two hills, forward and in reverse", parts)


PICTURES: dict[str, Callable[[], str]] = {
    "coding-length.svg": coding_length,
    "asymmetry.svg": asymmetry,
    "fitting.svg": fitting,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
