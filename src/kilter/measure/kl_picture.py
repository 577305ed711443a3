"""Where two distributions have their mass, as rows of a picture: outcomes, or places on a line with densities there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.data.svg import round_step
from kilter.measure.kl_input import Listed, Named

if TYPE_CHECKING:
    from kilter.divergence.families import Family
    from kilter.measure.kl_input import Given

ROWS, MOST_PLACES = 12, 16
LEAST = 0.02  # of its height at the median a density is drawn from
MOST_COUNTED = 100_000  # whole numbers that are looked at


class Bar(NamedTuple):
    """A row of the picture: an outcome or a place, and both probabilities or densities there."""

    label: str
    p: float
    q: float


def bars(p: Given, q: Given) -> tuple[list[Bar], str]:
    """The rows of the picture, and a remark on what they are, "" where there is nothing to say."""
    if isinstance(p, Listed) and isinstance(q, Listed):
        return _listed(p, q)
    assert isinstance(p, Named)
    assert isinstance(q, Named)
    return _families(p.family, q.family)


def most_different(p: Listed, q: Listed, most: int) -> list[int]:
    """The places of the outcomes that add most to KL(p, q) + KL(q, p), in their order; of few all."""
    a, b = p.probabilities, q.probabilities
    if len(a) <= most:
        return list(range(len(a)))
    with np.errstate(divide="ignore", invalid="ignore"):
        adds = np.where(a == b, 0.0, (a - b) * (np.log(a) - np.log(b)))
    return sorted(map(int, np.argsort(-adds, kind="stable")[:most]))


def _listed(p: Listed, q: Listed) -> tuple[list[Bar], str]:
    places = most_different(p, q, ROWS)
    rows = [Bar(p.outcomes[i], float(p.probabilities[i]), float(q.probabilities[i])) for i in places]
    left = len(p.outcomes) - len(rows)
    return rows, f"of {len(p.outcomes):,} outcomes, those that add most to the divergences" if left else ""


def _families(p: Family, q: Family) -> tuple[list[Bar], str]:
    places = places_of(p, q)
    heights = [density(family, places) for family in (p, q)]
    rows = [Bar(f"{x:g}", float(a), float(b)) for x, a, b in zip(places, *heights, strict=True)]
    if p.discrete and not any(height.any() for height in heights):
        return [], f"no picture: neither has much below {MOST_COUNTED:,}"
    return rows, "" if p.discrete else "densities at these places"


def places_of(p: Family, q: Family) -> list[float]:
    """Round places, evenly spaced, over all that is worth a look of either."""
    ends = [_bulk(family) for family in (p, q)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    step = round_step(high - low, MOST_PLACES - 1, least=1.0 if p.discrete else 1e-300)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 15) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def density(family: Family, places: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Densities, or probabilities, at some places."""
    with np.errstate(all="ignore"):
        found: NDArray[np.float64] = np.exp(log_density(family, places))
    return found


def log_density(family: Family, places: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Their logarithms, which do not underflow."""
    with np.errstate(all="ignore"):
        found: NDArray[np.float64] = family.log_density(np.asarray(places, dtype=np.float64))
    return np.where(np.isnan(found), -np.inf, found)


def _bulk(family: Family) -> tuple[float, float]:
    """Ends between which a density is worth a look: by a grid about its parameters, then by a finer one."""
    low, high = (float(end) for end in family.support())
    if family.discrete:
        return _high(np.arange(low, min(high, low + MOST_COUNTED) + 1), family)
    grid = grid_about(family, 2001)
    return _high(np.linspace(*_high(grid, family), 2001), family)


def grid_about(family: Family, points: int) -> NDArray[np.float64]:
    """Places of a family's support, dense about 0, each parameter and each end, whatever its scale is."""
    low, high = (float(end) for end in family.support())
    reach = np.concatenate([[0.0], np.geomspace(1e-9, 1e9, points)])
    centres = {0.0, *(float(value) for value in np.ravel(family.parameters()))}
    centres |= {end for end in (low, high) if math.isfinite(end)}
    near = np.concatenate([centre + side * reach for centre in centres for side in (-1, 1)])
    # A density may be infinite at 0, and have a good part of its mass where no other grid would look.
    near = np.append(near, np.geomspace(1e-300, 1e-9, points))
    return np.unique(np.clip(near, low, high))


def _high(grid: NDArray[np.float64], family: Family) -> tuple[float, float]:
    """The ends of where the density is at least LEAST of what it is at the median, to a grid point."""
    height = np.nan_to_num(density(family, grid), posinf=0.0)
    weight = height if family.discrete else height * np.gradient(grid)
    below = np.cumsum(weight)
    median = height[np.searchsorted(below, below[-1] / 2)]
    high = np.flatnonzero(height >= LEAST * median)
    farther = 0 if family.discrete else 1
    return float(grid[max(high[0] - farther, 0)]), float(grid[min(high[-1] + farther, len(grid) - 1)])
