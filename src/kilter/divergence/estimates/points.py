"""Samples of continuous distributions as they are given: points by dimensions, checked."""

from __future__ import annotations

import numpy as np

from kilter.divergence.estimates.standard_errors import Array, Floats, floats
from kilter.errors import DistributionError


def points(values: Array, name: str, *, least: int) -> Floats:
    """Points [N, D] in float64; [N] is one dimension. DistributionError where they are not finite, or too few."""
    found = floats(values)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or not found.shape[1]:
        raise DistributionError(f"{name} has shape {found.shape}; give samples by dimensions")
    if len(found) < least:
        raise DistributionError(f"{name} has {len(found)} samples; give at least {least}")
    if not np.isfinite(found).all():
        row = int(np.argwhere(~np.isfinite(found))[0, 0])
        raise DistributionError(f"sample {row} of {name} is {found[row]}; give finite numbers")
    return found


def point_pair(x: Array, y: Array, *, least: int) -> tuple[Floats, Floats]:
    """Points of p and of q, called x and y, in the same dimensions."""
    x_ND, y_MD = points(x, "x", least=least), points(y, "y", least=least)
    if x_ND.shape[1] != y_MD.shape[1]:
        raise DistributionError(f"x has {x_ND.shape[1]} dimensions and y has {y_MD.shape[1]}; they must have the same")
    return x_ND, y_MD
