"""Entropy and KL of continuous distributions from samples, by the distances to nearest neighbours, in nats.

Where points lie close together the density is high, so distances stand for densities. Nothing is fitted, and any
density will do; but the number of samples that this takes grows exponentially with the dimension.

Coordinates are first divided by their standard deviations, so that units do not matter. Axes: N samples of p, M of q,
D dimensions; one-dimensional samples may be given as [N].
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilter.divergence.estimates.points import point_pair, points
from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats
from kilter.errors import DistributionError

WIDE = 0.25  # of the spread: where neighbourhoods reach further, the density is not constant within them


def entropy_from_neighbours(x_ND: Array, *, k: int = 3, resolution: Array | None = None, seed: int = 0) -> Estimate:
    """Differential entropy h(p) = -E log p from samples of p (Kozachenko and Leonenko 1987; with k neighbours, Singh
    et al. 2003). It may be negative.

    Values that were rounded coincide, and a density of coinciding points has no entropy. `resolution` says what they
    were rounded to (a number, or one for each dimension): they are spread out evenly within it, by `seed`. Raises
    DistributionError for points with k others at the very same place, and warns where there are copies at all, or where
    the dimension is high.

    >>> x = np.random.default_rng(0).normal(size=2000)
    >>> print(round(entropy_from_neighbours(x).value, 2), round(0.5 * np.log(2 * np.pi * np.e), 2))
    1.44 1.42
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma, gammaln

    x_ND = points(x_ND, "x", least=_checked(k) + 1)
    x_ND = _spread_out(x_ND, resolution, np.random.default_rng(seed))
    scale_D = _scale(x_ND)
    count, dimension = x_ND.shape
    tree = cKDTree(x_ND / scale_D)
    distance_Nk, neighbour_Nk = tree.query(tree.data, k + 1)
    distance_N = distance_Nk[:, k]
    if tied := int((distance_N == 0).sum()):
        raise DistributionError(
            f"{tied} of {count} points have {k} others at the very same place, where no density is; say what the "
            "values were rounded to (resolution=...), or count them (entropy_from_counts)"
        )
    log_ball = dimension / 2 * math.log(math.pi) - gammaln(dimension / 2 + 1)  # the unit ball's volume
    constant = float(digamma(count) - digamma(k) + log_ball + np.log(scale_D).sum())
    surprise_N = dimension * np.log(distance_N) + constant
    # A point adds its own distance, and shortens that of the points which have it for a neighbour.
    shortened_N = np.bincount(neighbour_Nk[:, 1:].ravel(), minlength=count) / k
    error = float((surprise_N - shortened_N).std(ddof=1)) / math.sqrt(count)
    bias = f"{k} nearest neighbours: biased where the density bends within their reach"
    bias += _copies_note(int((distance_Nk[:, 1] == 0).sum()), count) + _dimension_note(count, dimension, k)
    return Estimate(float(surprise_N.mean()), error, count, bias)


def kl_from_neighbours(
    x_ND: Array, y_MD: Array, *, k: int = 3, resolution: Array | None = None, seed: int = 0
) -> Estimate:
    """KL(p, q) from samples x of p and y of q (Wang, Kulkarni and Verdu 2009, "Divergence estimation for
    multidimensional densities via k-nearest-neighbor distances"). It may be negative.

    It is never infinite, and too low where p has mass in the tails of q: a neighbour that is far off stands for a
    density that is lower still. The standard error adds the spread over x and that over y, where a point of y weighs
    as many points of x have it for a neighbour. Where points coincide, or are equally far, what is compared is how many
    points of either sample lie in a ball that holds k of each; for samples that all lie on a few points this is close
    to the plug-in estimate from counts. With `resolution`, values that were rounded are spread out instead, as for
    entropy. Copies count as draws of their own, so where they are none the standard error is too small; where they
    stand in both samples, KL is too low. Raises DistributionError where the samples have different dimensions, or one
    that does not vary, and warns where there are many.

    >>> rng = np.random.default_rng(0)
    >>> found = kl_from_neighbours(rng.normal(0, 1, 2000), rng.normal(1, 1, 2000))  # KL(N(0, 1), N(1, 1)) = 1/2
    >>> bool(abs(found.value - 0.5) < 2 * found.standard_error)
    True
    """
    from scipy.spatial import cKDTree

    x_ND, y_MD = point_pair(x_ND, y_MD, least=_checked(k) + 1)
    random = np.random.default_rng(seed)
    x_ND, y_MD = (_spread_out(values_ND, resolution, random) for values_ND in (x_ND, y_MD))
    scale_D = _scale(np.concatenate([x_ND, y_MD]))
    (n, dimension), m = x_ND.shape, len(y_MD)
    tree_x, tree_y = cKDTree(x_ND / scale_D), cKDTree(y_MD / scale_D)
    to_x_Nk = tree_x.query(tree_x.data, k + 1)[0][:, 1:]
    to_y_Nk, neighbour_Nk = (found.reshape(n, k) for found in tree_y.query(tree_x.data, k))
    to_x_N, to_y_N = to_x_Nk[:, -1], to_y_Nk[:, -1]
    tied_N, shared_N = _has_ties(to_x_Nk) | _has_ties(to_y_Nk), to_y_Nk[:, 0] == 0
    log_ratio_N = np.zeros(n)
    log_ratio_N[~tied_N] = dimension * np.log(to_y_N[~tied_N] / to_x_N[~tied_N])
    log_ratio_N[tied_N] = _log_ratio_of_counts(tree_x, tree_y, tree_x.data[tied_N], to_x_N[tied_N], to_y_N[tied_N])
    log_ratio_N += math.log(m / (n - 1))
    weight_M = _even_over_copies(tree_y.data, np.bincount(neighbour_Nk.ravel(), minlength=m) * m / (n * k))
    error = math.hypot(log_ratio_N.std(ddof=1) / math.sqrt(n), weight_M.std() / math.sqrt(m))
    bias = f"{k} nearest neighbours: mostly too low, where p/q changes within their reach"
    if tied_N.any():
        bias += f"; {int(tied_N.sum())} of {n} points of x have copies or ties nearby: counted, as draws of their own"
    if shared_N.any():
        bias += f"; {int(shared_N.sum())} of them lie on points of y: too low, if one sample was copied into the other"
    return Estimate(float(log_ratio_N.mean()), error, n + m, bias + _dimension_note(min(n, m), dimension, k))


def _has_ties(distance_Nk: Floats) -> NDArray[np.bool_]:
    """Where a neighbour is at the very same place, or two are equally far: then a distance stands for no density."""
    tied_N: NDArray[np.bool_] = (np.diff(distance_Nk, axis=1, prepend=0.0) == 0).any(axis=1)
    return tied_N


def _log_ratio_of_counts(tree_x: Any, tree_y: Any, centre_TD: Floats, to_x_T: Floats, to_y_T: Floats) -> Floats:
    """log of the number of x in a ball over the number of y, the point itself not counted.

    The ball ends at the farther of the two k-th neighbours. Of a sample that its end was chosen by, the mean log of the
    mass within is digamma(number); of another (a Poisson number, nearly) it is digamma(number + 1).
    """
    from scipy.special import digamma

    if not len(centre_TD):
        return np.zeros(0)
    reach_T = np.maximum(to_x_T, to_y_T)
    of_x_T, of_y_T = (
        tree.query_ball_point(centre_TD, reach_T * (1 + 1e-9), return_length=True) + (distance_T < reach_T)
        for tree, distance_T in ((tree_x, to_x_T), (tree_y, to_y_T))
    )
    at_one_place_T = reach_T == 0  # which nobody chose
    of_x_T, of_y_T = of_x_T - 1 + at_one_place_T, of_y_T + at_one_place_T
    found: Floats = digamma(of_x_T) - digamma(of_y_T)
    return found


def _even_over_copies(y_MD: Floats, weight_M: Floats) -> Floats:
    """Which of several points at one place is the neighbour is chance; they share what they weigh."""
    _, place_M = np.unique(y_MD, axis=0, return_inverse=True)
    place_M = place_M.reshape(-1)
    mean: Floats = np.bincount(place_M, weights=weight_M) / np.bincount(place_M)
    return mean[place_M]


def _spread_out(values_ND: Floats, resolution: Array | None, random: np.random.Generator) -> Floats:
    """Values that were rounded to multiples of `resolution`, anywhere that they may have been rounded from."""
    if resolution is None:
        return values_ND
    resolution = floats(resolution)
    dimension = values_ND.shape[1]
    if resolution.shape not in ((), (dimension,)) or not ((resolution >= 0) & np.isfinite(resolution)).all():
        raise DistributionError(
            f"found resolution={resolution.tolist()}; wanted what the values were rounded to, a number that is not "
            f"negative, or one for each of {dimension} dimensions"
        )
    return values_ND + random.uniform(-0.5, 0.5, values_ND.shape) * resolution


def _checked(k: int) -> int:
    if k != int(k) or k < 1:
        raise DistributionError(f"found k={k}; wanted a number of neighbours, at least 1")
    return int(k)


def _scale(values_ND: Floats) -> Floats:
    scale_D: Floats = values_ND.std(axis=0)
    if not (scale_D > 0).all():
        column = int(np.argmin(scale_D))
        raise DistributionError(f"dimension {column} is the same for all samples; leave it out: it has no density")
    return scale_D


def _copies_note(copies: int, count: int) -> str:
    if not copies:
        return ""
    note = f"{copies} of {count} points have a copy at the very same place: too low"
    warnings.warn(f"{note}; leave copies out, or say what was rounded to (resolution=...)", stacklevel=3)
    return f"; {note}"


def _dimension_note(count: int, dimension: int, k: int) -> str:
    reach = (k / count) ** (1 / dimension)
    if reach <= WIDE:
        return ""
    note = (
        f"in {dimension} dimensions the neighbours among {count} samples reach over {reach:.0%} of the spread, so the "
        "bias may exceed the standard error"
    )
    warnings.warn(f"{note}; take more samples, or fewer dimensions", stacklevel=3)
    return f"; {note}"
