"""Intervals for the proportions and differences that evaluations report."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_975 = 1.959963984540054  # the standard normal's 97.5% quantile


class Interval(NamedTuple):
    """An estimate and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int) -> Interval:
    """A proportion with its Wilson score interval (Wilson 1927); ties may count half. NaN without trials."""
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    p, z = successes / trials, NORMAL_975
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(after: NDArray[Any], before: NDArray[Any]) -> Interval:
    """The mean of after - before over the same items, with a 95% interval by the normal approximation."""
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if len(difference) < 2:
        return Interval(float(difference.mean()) if len(difference) else math.nan, math.nan, math.nan)
    mean = float(difference.mean())
    half = NORMAL_975 * float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return Interval(mean, mean - half, mean + half)
