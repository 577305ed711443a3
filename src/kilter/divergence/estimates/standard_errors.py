"""What an estimate from samples is: a value, how far chance may have moved it, and what it is biased by."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from kilter.errors import DistributionError

Array = Any
Floats = NDArray[np.float64]

UNBIASED = "unbiased"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate, its standard error (NaN where the samples cannot tell it), how many samples it rests on, and one
    line on its bias. The standard error is about chance alone: bias comes on top of it.

    >>> print(Estimate(0.51, 0.02, 1000, UNBIASED))
    0.51 ± 0.02 (1000 samples; unbiased)
    """

    value: float
    standard_error: float
    samples: int
    bias: str

    def in_bits(self) -> Estimate:
        """An estimate in nats, in bits."""
        return replace(self, value=self.value / math.log(2), standard_error=self.standard_error / math.log(2))

    def __str__(self) -> str:
        counted = f"{self.samples} sample{'' if self.samples == 1 else 's'}"
        return f"{self.value:.4g} ± {self.standard_error:.2g} ({counted}; {self.bias})"


def mean_estimate(values: Array, *, clusters: Sequence[Hashable] | None = None, bias: str = UNBIASED) -> Estimate:
    """The mean of independent values, with its standard error (ddof 1).

    Values of one cluster (samples of one prompt) may depend on each other; clusters may not. With `clusters`, a name
    for each value, it is the mean of the clusters' means, with its standard error over clusters; within the cluster,
    where there is but one. NaN without values. Raises DistributionError for values that are no row of numbers, and
    where there are not as many clusters.

    >>> print(mean_estimate([1.0, 2.0, 3.0]))
    2 ± 0.58 (3 samples; unbiased)
    >>> print(mean_estimate([1.0, 3.0, 5.0], clusters=["a", "a", "b"]))
    3.5 ± 1.5 (3 samples; unbiased)
    """
    values = floats(values)
    if values.ndim != 1:
        raise DistributionError(f"found values of shape {values.shape}; give one row of them, one for each sample")
    if clusters is not None and len(clusters) != len(values):
        raise DistributionError(f"found {len(clusters)} clusters for {len(values)} values; name the cluster of each")
    means = values if clusters is None else _cluster_means(values, clusters)
    value, error = math.nan, math.nan
    with np.errstate(invalid="ignore"):  # a value may be infinite
        if len(means):
            value = float(means.mean())
        if len(means) > 1:
            error = float(means.std(ddof=1)) / math.sqrt(len(means))
    return Estimate(value, error, len(values), bias)


def _cluster_means(values: Floats, clusters: Sequence[Hashable]) -> Floats:
    """One mean for each cluster; the values themselves where there is but one cluster."""
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    if len(names) < 2:
        return values
    place_of = np.array([names[name] for name in clusters], dtype=np.int64)
    sizes = np.bincount(place_of, minlength=len(names))
    return np.bincount(place_of, weights=values, minlength=len(names)) / sizes


def floats(values: Array) -> Floats:
    """Numbers of any array library as float64 of NumPy, off their device and their graph."""
    if is_torch_array(values):
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)
