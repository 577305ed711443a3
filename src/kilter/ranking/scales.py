"""Scales on which strengths are told: log-strengths, odds, and ratings as in chess."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from kilter.errors import ConfigError
from kilter.ranking.comparisons import Floats, Item, index_of

# 400 points are odds of ten to one (Elo 1978).
ELO = 400 / math.log(10)
ELO_MEAN = 1000.0

SCALES = {
    "log": "log-strengths: a difference is the log-odds of winning; their mean is 0",
    "elo": "400 points are odds of 10 to 1; their mean is 1000",
    "odds": "strengths alpha: a beats b with odds alpha_a / alpha_b; they add up to 1",
}


class Scale(NamedTuple):
    """A scale by name, and where it is fixed: one item's value, or the mean (log, elo) or the sum (odds) of all."""

    name: str = "log"
    anchor: tuple[Item, float] | None = None

    def reference(self, log_strengths: Floats, items: tuple[Item, ...]) -> Floats:
        """I: what strengths are told relative to: weights of items, whose sum is one."""
        if self.anchor is not None:
            weights = np.zeros(len(items))
            weights[index_of(self.anchor[0], items)] = 1
            return weights
        if self.name == "odds":
            shares: Floats = np.exp(log_strengths - np.logaddexp.reduce(log_strengths))
            return shares
        return np.full(len(items), 1 / len(items))

    def of(self, log_strengths: Floats, origin: float) -> Floats:
        """Log-strengths on this scale; `origin` is the log-strength that the anchor, the mean or the sum has."""
        relative = log_strengths - origin
        if self.name == "odds":
            odds: Floats = np.exp(relative) * (1.0 if self.anchor is None else self.anchor[1])
            return odds
        factor = ELO if self.name == "elo" else 1.0
        at = (ELO_MEAN if self.name == "elo" else 0.0) if self.anchor is None else self.anchor[1]
        told: Floats = at + factor * relative
        return told

    def origin(self, log_strengths: Floats, items: tuple[Item, ...]) -> float:
        """The log-strength that stands for the scale's fixed value."""
        if self.anchor is not None:
            return float(log_strengths[index_of(self.anchor[0], items)])
        if self.name == "odds":
            return float(np.logaddexp.reduce(log_strengths))
        return float(log_strengths.mean())


def scale_of(name: str, anchor: tuple[Item, float] | None = None) -> Scale:
    """A scale, checked: raises ConfigError where there is none of that name, or the anchor cannot lie on it."""
    if name not in SCALES:
        raise ConfigError(f"there is no scale {name!r}; there are {', '.join(SCALES)}")
    if anchor is not None and not math.isfinite(anchor[1]):
        raise ConfigError(f"the anchor's value is {anchor[1]}; give a finite number")
    if name == "odds" and anchor is not None and anchor[1] <= 0:
        raise ConfigError(f"odds are positive, and the anchor {anchor[0]} is given {anchor[1]:g}")
    return Scale(name, anchor)
