"""Statistics of a stream of tokens that come document by document, in memory that does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.divergence.estimates import Estimate

Floats: TypeAlias = NDArray[np.float64]

# Bits of a float32's fraction that tell bins apart: 2^12 bins for each power of two, 8 MiB of counts in all.
FRACTION_BITS = 12
DROPPED = 23 - FRACTION_BITS


OVER_DOCUMENTS = "a mean over tokens, with its error over documents; its bias falls as 1 / documents"


class DocumentMeans:
    """Means over all tokens, with standard errors over documents, whose tokens may depend on each other.

    The mean over tokens is a ratio of two sums over the C documents, of values and of tokens. Its standard error is
    that of a ratio estimator (Cochran 1977, Sampling Techniques, eq. 6.13; in evaluations: Miller 2024, arXiv
    2411.00640): the root of C / (C - 1) sum (sum of values - mean x tokens)^2, divided by the number of tokens.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name: place for place, name in enumerate(names)}
        self.documents, self.tokens = 0, 0
        self._squared_tokens = 0.0
        self._sum, self._squares, self._products = (np.zeros(len(names)) for _ in range(3))

    def add(self, values: Mapping[str, NDArray[Any]]) -> None:
        """One document: as many values of each name as it has tokens; without any it counts nothing."""
        tokens = len(next(iter(values.values())))
        if not tokens:
            return
        with np.errstate(invalid="ignore"):
            total = np.array([values[name].sum(dtype=np.float64) for name in self._names])
            self._squares += total**2
        self._sum += total
        self._products += total * tokens
        self._squared_tokens += tokens**2
        self.documents += 1
        self.tokens += tokens

    def mean(self, name: str) -> Estimate:
        """The mean over tokens and its standard error: NaN for one document, and where a value is not finite."""
        place = self._names[name]
        mean = float(self._sum[place]) / self.tokens if self.tokens else math.nan
        if self.documents < 2 or not math.isfinite(mean):
            return Estimate(mean, math.nan, self.tokens, OVER_DOCUMENTS)
        squares = float(self._squares[place]) - 2 * mean * float(self._products[place]) + mean**2 * self._squared_tokens
        between = self.documents / (self.documents - 1) * max(squares, 0.0)
        return Estimate(mean, math.sqrt(between) / self.tokens, self.tokens, OVER_DOCUMENTS)


class Percentiles:
    """Percentiles of numbers that are not negative, by nearest rank, from counts in bins.

    A bin holds the float32 numbers that agree in their leading bits, so what is returned is off by at most 2^-13 of
    itself (0.012%); the largest and the smallest number are exact.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << (31 - DROPPED), np.int64)
        self.count = 0
        self.largest, self._smallest = -math.inf, math.inf

    def add(self, values: NDArray[Any]) -> None:
        """Raises ValueError for a number that is negative or NaN."""
        if not len(values):
            return
        if not (values >= 0).all():
            raise ValueError("percentiles are kept of numbers from 0 on")
        bits = np.asarray(values, np.float32).view(np.uint32) & np.uint32(0x7FFFFFFF)
        places, counts = np.unique(bits >> np.uint32(DROPPED), return_counts=True)
        self._counts[places] += counts
        self.count += len(values)
        self.largest = max(self.largest, float(values.max()))
        self._smallest = min(self._smallest, float(values.min()))

    def at(self, percent: float) -> float:
        """The smallest number that at least so many in a hundred do not exceed; NaN without numbers."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(round(percent / 100 * self.count, 9)))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        middle = np.array([(place << DROPPED) + (1 << (DROPPED - 1)) if place else 0], np.uint32).view(np.float32)[0]
        if not math.isfinite(middle):
            return self.largest
        return min(max(float(middle), self._smallest), self.largest)


class Correlation:
    """Pearson's correlation of two numbers of each token, from moments joined block by block.

    Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros(2)
        self._moments = np.zeros((2, 2))

    def add(self, one: NDArray[Any], other: NDArray[Any]) -> None:
        """Some more tokens."""
        if not len(one):
            return
        both = np.stack([one, other]).astype(np.float64)
        with np.errstate(invalid="ignore"):
            mean = both.mean(1)
            centred = both - mean[:, None]
            apart = mean - self._mean
            count = self._count + len(one)
            self._moments += centred @ centred.T + np.outer(apart, apart) * self._count * len(one) / count
            self._mean += apart * len(one) / count
        self._count = count

    @property
    def value(self) -> float:
        """NaN where one of the two never varies, or is not finite."""
        spread = math.sqrt(v) if (v := float(self._moments[0, 0] * self._moments[1, 1])) > 0 else math.nan
        return float(np.clip(self._moments[0, 1] / spread, -1, 1))
