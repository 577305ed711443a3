"""How sure strengths are: covariances by Fisher information and sandwich, Wald and profile intervals.

Axes: I items, p parameters (items, then extras), R rows of comparisons, J clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse, special

from kilter.errors import NonFiniteError
from kilter.ranking.comparisons import Comparisons, Floats, Integers
from kilter.ranking.information import Banded, Bordered, Information, Solve, centred, dense_factor
from kilter.ranking.likelihood import Totals, advantage
from kilter.ranking.newton import Likelihood, NotConvergedError, maximize
from kilter.ranking.outcomes import OutcomeModel

# Up to this many parameters covariances are whole matrices; beyond, variances come by random probes.
WHOLE = 5000
PROBES = 64
# A relative error of the probes' variances above which they are not worth having.
ROUGH = 0.1
CHUNK = 256


class Estimate(NamedTuple):
    """A number with its interval; the standard error is on the scale on which the interval is symmetric."""

    value: float
    low: float
    high: float
    standard_error: float


def quantile(level: float, clusters: int | None = None) -> float:
    """Half the width of an interval of that level, in standard errors: by t where clusters estimated them."""
    upper = (1 + level) / 2
    return float(special.ndtri(upper) if clusters is None else special.stdtrit(clusters - 1, upper))


def slopes(parameters: Floats, comparisons: Comparisons, rows: Totals, model: OutcomeModel) -> tuple[Floats, Floats]:
    """R and R: the derivative of one comparison's log-likelihood, weighted, by advantage and by tie parameter.

    `rows` are the comparisons' own rows, each with count 1.
    """
    by = model.derivatives(advantage(parameters, rows), parameters[-1], rows.observed)
    weight = comparisons.weight
    return (
        weight * np.sum(rows.observed * by.advantage, axis=0),
        weight * np.sum(rows.observed * by.tie, axis=0),
    )


class Meat(NamedTuple):
    """The middle of a sandwich: what scores vary by, as a product with pB vectors."""

    matrix: Bordered | sparse.csr_array
    factor: float

    def __matmul__(self, vectors: Floats) -> Floats:
        """pB."""
        if isinstance(self.matrix, Bordered):
            return self.factor * (self.matrix @ vectors)
        product: Floats = self.matrix.T @ (self.matrix @ vectors)
        return self.factor * product


def meat_of(
    parameters: Floats, comparisons: Comparisons, rows: Totals, model: OutcomeModel, cluster: Integers | None
) -> Meat:
    """The variance of the score, from the scores themselves: of comparisons, or of clusters summed (Liang, Zeger 1986).

    With the corrections for what was fitted: n / (n - parameters), or J / (J - 1) for J clusters.
    """
    slope, of_tie = slopes(parameters, comparisons, rows, model)
    if cluster is None:
        count = comparisons.count
        tie = (count * slope * of_tie, count * of_tie**2) if model.has_ties else None
        matrix = Bordered.of_pairs(rows.items, rows.left, rows.right, rows.shifts, count * slope**2, tie)
        free = len(parameters) - 1
        return Meat(matrix, comparisons.games / max(comparisons.games - free, 1))
    count_slope, items = comparisons.count * slope, rows.items
    columns = [rows.left, rows.right]
    values = [count_slope, -count_slope]
    for extra, shift in enumerate(rows.shifts.T):
        columns.append(np.full(len(shift), items + extra))
        values.append(count_slope * shift)
    if model.has_ties:
        columns.append(np.full(len(slope), len(parameters) - 1))
        values.append(comparisons.count * of_tie)
    clusters = int(cluster.max()) + 1
    scores = sparse.coo_array(
        (np.concatenate(values), (np.tile(cluster, len(values)), np.concatenate(columns))),
        shape=(clusters, len(parameters)),
    ).tocsr()
    return Meat(scores, clusters / max(clusters - 1, 1))


def covariance(information: Information, component: Integers, meat: Meat | None = None) -> Floats:
    """pp, of strengths of mean zero: the inverse information, or with `meat` the sandwich about it."""
    factor, lower = dense_factor(information, component)
    inverse, _ = linalg.lapack.dpotri(factor, lower=lower, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    inverse = centred(np.ascontiguousarray(centred(inverse, component).T), component)
    return inverse if meat is None else inverse @ (meat @ inverse)


def variances(solve: Solve, component: Integers, parameters: int, meat: Meat | None = None) -> Floats:
    """I: the covariance's diagonal where the whole matrix is too large, estimated with random signs.

    Bekas, Kokiopoulou and Saad 2007. The estimate of each is unbiased; its standard deviation is the norm of the rest
    of its row over sqrt(PROBES): some 3% of the variance, 1.5% of a standard error, for items that were compared with
    twenty others. Where the probes say that it would be more than ROUGH, every row is solved for.
    """
    items = len(component)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (parameters, PROBES))
    probed = (signs * rows_of_covariance(solve, component, centred(signs, component), meat))[:items]
    estimated: Floats = probed.mean(axis=1)
    error = probed.std(axis=1) / np.sqrt(PROBES)
    if np.median(error / np.maximum(np.abs(estimated), 1e-300)) <= ROUGH:
        return np.maximum(estimated, 0)
    for first in range(0, items, CHUNK):
        chosen = np.arange(first, min(first + CHUNK, items))
        units = np.zeros((parameters, len(chosen)))
        units[chosen, np.arange(len(chosen))] = 1
        solved = rows_of_covariance(solve, component, centred(units, component), meat)
        estimated[chosen] = solved[chosen, np.arange(len(chosen))]
    return estimated


def rows_of_covariance(solve: Solve, component: Integers, vectors: Floats, meat: Meat | None) -> Floats:
    """pB: the covariance times mean-zero vectors."""
    solved = centred(solve(vectors), component)
    return solved if meat is None else centred(solve(meat @ solved), component)


def banded_variances(banded: Banded, component: Integers) -> Floats:
    """I: the covariance's diagonal, exactly, from a banded factor; of several components without extras alone."""
    size = np.bincount(component)
    ones = np.concatenate([np.ones(len(component)), np.zeros(len(banded.schur))])
    sums = banded(ones[:, None])[: len(component), 0]
    totals = np.bincount(component, sums) / size**2
    return np.maximum(banded.inverse_diagonal() - 2 * sums / size[component] + totals[component], 0)


def profile_interval(
    contrast: Floats,
    along: Floats,
    level: float,
    *,
    likelihood: Likelihood,
    best: Floats,
    highest: float,
    component: Integers,
    prior_variance: float | None,
) -> tuple[float, float]:
    """Where the log-likelihood, maximised over all else, falls by half the square of the normal quantile.

    `contrast`, p, says of which combination of parameters, and `along` is the covariance times it. `best` is the
    maximum, where the objective is `highest`. An end that does not exist is infinite.
    """
    most, variance = quantile(level), float(contrast @ along)

    def end(side: int) -> float:
        distance, before, start = most * float(np.sqrt(variance)), (0.0, 0.0), best
        reached = 0.0
        for _ in range(40):
            moved = start + along * (side * (distance - reached) / variance)
            if not likelihood.allows(moved):
                moved[-1] = start[-1]
            try:
                found = maximize(
                    likelihood, component=component, prior_variance=prior_variance, start=moved, fixed=contrast
                )
            except (NotConvergedError, NonFiniteError):
                break
            # The root of twice the fall is nearly a straight line, so a secant finds where it is the quantile.
            root = float(np.sqrt(2 * max(highest - found.objective, 0)))
            if abs(root - most) < 1e-7:
                return side * distance
            start, reached = found.parameters, distance
            slope = (root - before[1]) / (distance - before[0])
            before = (distance, root)
            further = distance + (most - root) / slope if slope > 0 else 2 * distance
            distance = float(np.clip(further, 0.3 * distance, 3 * distance))
        return side * float("inf")

    value = float(contrast @ best)
    return value + end(-1), value + end(1)
