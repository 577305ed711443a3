"""Intervals for the proportions and differences that evaluations report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

NORMAL_975 = 1.959963984540054  # the standard normal's 97.5% quantile


class Interval(NamedTuple):
    """An estimate and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """The three as entries of a flat row for metrics."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def times(self, factor: float) -> Interval:
        """Of the estimate times a positive number."""
        return Interval(*(factor * end for end in self))


def wilson(successes: float, trials: int) -> Interval:
    """A proportion with its Wilson score interval (Wilson 1927); ties may count half. NaN without trials."""
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    p, z = successes / trials, NORMAL_975
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(values: NDArray[Any]) -> Interval:
    """The mean of independent values, with a 95% interval by the normal approximation; NaN where there are none."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()) if len(values) else math.nan, math.nan, math.nan)
    mean = float(values.mean())
    half = NORMAL_975 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_difference(after: NDArray[Any], before: NDArray[Any]) -> Interval:
    """The mean of after - before over the same items, with a 95% interval by the normal approximation."""
    return mean_interval(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class RatioMean:
    """A mean whose weight differs from unit to unit (a loss per token, of answers), and what moves it.

    The influence of a unit is how far the mean would be from itself were all units like this one, to first order;
    so sums and differences of such means over the same units have intervals, too (the delta method).
    Axis: U units that are independent of each other.
    """

    value: float
    influence_U: NDArray[np.float64]

    @classmethod
    def of(cls, total_U: NDArray[Any], size_U: NDArray[Any]) -> Self:
        """The sum of all totals over that of all sizes; 0 where there is nothing."""
        value = float(total_U.sum() / (size_U.sum() or 1.0))
        return cls(value, (total_U - value * size_U) / (size_U.mean() or 1.0))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.value + other.value, self.influence_U + other.influence_U)

    def __mul__(self, weight: float) -> Self:
        return type(self)(weight * self.value, weight * self.influence_U)

    def __sub__(self, other: Self) -> Self:
        return self + other * -1.0

    @property
    def interval(self) -> Interval:
        """95%, by the normal approximation."""
        spread = mean_interval(self.influence_U)
        return Interval(self.value, self.value + spread.low, self.value + spread.high)


class Sides(NamedTuple):
    """One number for each good and for each bad item; or each one's placement among those of the other side."""

    good: NDArray[Any]
    bad: NDArray[Any]


def placements(sides: Sides) -> Sides:
    """For each good item the share of bad ones below it, for each bad item the share of good ones above it; ties
    count half. The mean of either is the area under the ROC curve."""
    good, bad = (np.asarray(side, dtype=np.float64) for side in sides)

    def share_below(values: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
        ordered = np.sort(others)
        counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
        return counts / (2 * len(others))

    return Sides(share_below(good, bad), 1 - share_below(bad, good))


def auc(good: NDArray[Any], bad: NDArray[Any]) -> Interval:
    """The chance that a good item has a larger number than a bad one: the area under the ROC curve, ties counting half.

    The interval is that of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44, 837), which takes items as
    independent. Where all tie, or the sides are wholly apart, it has no width, and Wilson's stands in, for as many
    separate couples of a good and a bad item as there are. NaN where a side has none; no interval where it has one.
    """
    if not len(good) or not len(bad):
        return Interval(math.nan, math.nan, math.nan)
    placed = placements(Sides(good, bad))
    value = float(placed.good.mean())
    error = _error_of_placements(placed)
    if error == 0:
        couples = min(len(good), len(bad))
        return wilson(value * couples, couples)
    low, high = np.clip([value - NORMAL_975 * error, value + NORMAL_975 * error], 0, 1).tolist()
    return Interval(value, low, high)


def auc_difference(after: Sides, before: Sides) -> Interval:
    """How much the `auc` of the same items changed, with DeLong's 95% interval for correlated curves."""
    if not len(after.good) or not len(after.bad):
        return Interval(math.nan, math.nan, math.nan)
    changed = Sides(*(end - start for end, start in zip(placements(after), placements(before), strict=True)))
    value, half = float(changed.good.mean()), NORMAL_975 * _error_of_placements(changed)
    return Interval(value, value - half, value + half)


def _error_of_placements(placed: Sides) -> float:
    """The standard error of their mean: DeLong's variance, one part from each side."""
    if min(map(len, placed)) < 2:
        return math.nan
    return math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in placed))
