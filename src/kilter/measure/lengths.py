"""How long prompts and answers are, and whether length is what was preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilter.measure.statistics import Interval, wilson


@dataclass(frozen=True, slots=True)
class Spread:
    """Some whole numbers by nearest rank: half of them are at most `p50`, and so on."""

    count: int
    total: int
    p50: int
    p90: int
    p99: int
    longest: int


def spread(lengths: Sequence[int]) -> Spread:
    """At least one length."""
    values = np.asarray(lengths, dtype=np.int64)
    p50, p90, p99 = np.percentile(values, (50, 90, 99), method="inverted_cdf").tolist()
    return Spread(len(values), int(values.sum()), int(p50), int(p90), int(p99), int(values.max()))


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How often the better of two answers is the longer one, of those that differ in length.

    Of a ranking the best answer stands against the worst.
    """

    longer: Interval
    pairs: int
    equal: int


def length_bias(better_and_worse: Sequence[tuple[int, int]]) -> LengthBias | None:
    """None without a pair of different lengths."""
    lengths = np.asarray(better_and_worse, dtype=np.int64).reshape(-1, 2)
    longer = int((lengths[:, 0] > lengths[:, 1]).sum())
    equal = int((lengths[:, 0] == lengths[:, 1]).sum())
    pairs = len(lengths) - equal
    return LengthBias(wilson(longer, pairs), pairs, equal) if pairs else None
