"""Why a fit did not come to an end: a direction in which the likelihood never falls, by linear programming.

Albert and Anderson 1984, for Bradley-Terry with order effect, covariates and ties. Axes: G rows, p parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kilter.errors import DataError, KilterError, NonFiniteError
from kilter.ranking.comparisons import Comparisons, Floats, Integers
from kilter.ranking.information import Information, solver
from kilter.ranking.likelihood import OfComparisons, Totals
from kilter.ranking.newton import Maximum, not_converged

# Of the variance of a parameter by the others; rounding alone makes 1e14 of what is infinite.
MOST_INFLATION = 1e9
ALMOST_FLAT = 1e12
# Beyond it the programme would take longer than a person waits.
MOST_ROWS = 30_000


class SeparatedError(DataError):
    """Comparisons that an extra part of the model tells apart without exception; `parts` says which parts."""

    def __init__(self, message: str, parts: tuple[str, ...]) -> None:
        super().__init__(message)
        self.parts = parts


def explained(
    error: KilterError,
    likelihood: OfComparisons,
    comparisons: Comparisons,
    order_effect: bool,
    prior_variance: float | None,
) -> KilterError:
    """The error to raise for a fit without an end: which parts of the model run away, if a direction is found."""
    totals, has_ties = likelihood.totals, likelihood.model.has_ties
    names = ("order",) * order_effect + comparisons.covariate_names + ("ties",) * has_ties
    if not names or totals.observed.shape[1] > MOST_ROWS:
        return error
    items, held = totals.items, np.zeros(totals.items + len(names), bool)
    held[:items] = prior_variance is not None
    direction = runaway(totals, has_ties, held)
    if not direction[items:].any():
        return error
    # What does not have to move is not named: the strengths, then each part in turn.
    for part in (slice(items), *range(items, len(held))):
        before = held.copy()
        held[part] = True
        found = runaway(totals, has_ties, held)
        direction, held = (found, held) if found[items:].any() else (direction, before)
    moving = tuple(name for name, move in zip(names, direction[items:], strict=True) if move)
    said = {"order": "the order effect", "ties": "the model of ties"}
    parts = " and ".join(said.get(name, f"the covariate {name}") for name in moving)
    whom = " together with the items' strengths" if direction[:items].any() else ""
    instead = "; or count ties as half a win each (ties='half')" if "ties" in moving else ""
    return SeparatedError(
        f"{parts}{whom} can explain these outcomes ever better without end: no comparison speaks against it, so there "
        f"is no finite estimate. Leave that part out, or compare more{instead}",
        moving,
    )


def check_determined(
    likelihood: OfComparisons,
    component: Integers,
    covariate_names: tuple[str, ...],
    order_effect: bool,
    prior_variance: float | None,
) -> None:
    """Raises DataError where what shifts the advantage is a combination of the rest, or of who is compared.

    Then the fit has many maxima, and rounding would choose one. Told by variance inflation (Marquardt 1970).
    """
    names = ("the order effect",) * order_effect + tuple(f"the covariate {name}" for name in covariate_names)
    if not names:
        return
    start, precision = likelihood.start, 0.0 if prior_variance is None else 1 / prior_variance
    information = likelihood.derivatives(start, precision)[1]
    alone = np.diag(information.corner)[: len(names)]
    lost = alone == 0
    if not lost.any():
        lost = inflation(information, likelihood, component)[: len(names)] > MOST_INFLATION
    if lost.any():
        named = " and ".join(name for name, one in zip(names, lost, strict=True) if one)
        raise DataError(
            f"{named} cannot be told from the other parts of the model or from who is compared, as what always has one "
            "value, or a property of the items themselves, cannot; leave it out"
        )


def check_finite(best: Maximum, likelihood: OfComparisons, component: Integers) -> None:
    """Raises NotConvergedError where the slope is zero because of rounding, at what stands for infinity."""
    if len(best.parameters) == likelihood.items:
        return
    # The likelihood falls off from infinity as exp(-distance), which is lost among ones at 1e-16.
    if np.any(inflation(best.information, likelihood, component) > ALMOST_FLAT):
        raise not_converged(best.steps, 1.0, best.parameters)


def inflation(information: Information, likelihood: OfComparisons, component: Integers) -> Floats:
    """E: the variance of each extra, over what it would be if the others were known and nobody was ahead."""
    start = likelihood.start
    extras = np.arange(likelihood.items, len(start))
    units = np.zeros((len(start), len(extras)))
    units[extras, extras - likelihood.items] = 1
    try:
        variances = np.diag(solver(information, component, likelihood.plan, tolerance=1e-6)(units)[extras])
    except NonFiniteError:
        return np.full(len(extras), np.inf)
    known: Floats = likelihood.derivatives(start)[1].diagonal[extras]
    return np.where(variances > 0, variances, np.inf) * known


def runaway(totals: Totals, ties: bool, held: NDArray[np.bool_]) -> Floats:
    """p: a direction along which no observed outcome becomes less probable and some more; zeros if there is none.

    Parameters that are `held` do not move.
    """
    from scipy.optimize import linprog  # a tenth of a second to load, for failures alone

    rows, items = len(totals.left), totals.items
    index = np.arange(rows)
    ahead = sparse.coo_array(
        (np.repeat([1.0, -1.0], rows), (np.tile(index, 2), np.concatenate([totals.left, totals.right]))),
        shape=(rows, items),
    ).tocsr()
    ahead = sparse.hstack([ahead, sparse.csr_array(totals.shifts)], format="csr")
    won, tied, lost = (totals.observed > 0).astype(bool)
    if ties:
        # Scores of win, tie and loss move by d/2, t, -d/2: the observed one must not fall behind either other.
        half, one = ahead / 2, np.ones((rows, 1))
        of_tie = sparse.csr_array(one)
        win, tie, loss = (
            sparse.hstack([half, 0 * of_tie], format="csr"),
            sparse.hstack([0 * half, of_tie], format="csr"),
            sparse.hstack([-half, 0 * of_tie], format="csr"),
        )
        gains = [
            (win - loss)[won],
            (win - tie)[won],
            (tie - win)[tied],
            (tie - loss)[tied],
            (loss - win)[lost],
            (loss - tie)[lost],
        ]
    else:
        gains = [ahead[won], -ahead[lost]]
    gain = sparse.vstack(gains, format="csr")
    scale = np.maximum(np.abs(gain).max(axis=0).toarray().ravel(), 1e-300)
    most = np.where(held, 0, 1 / scale)
    found = linprog(
        -np.asarray(gain.sum(axis=0)).ravel(),
        A_ub=-gain,
        b_ub=np.zeros(gain.shape[0]),
        bounds=np.column_stack([-most, most]),
    )
    if found.status != 0 or -found.fun < 1e-6:
        return np.zeros(gain.shape[1])
    direction: Floats = found.x * scale
    return np.where(np.abs(direction) > 1e-6, direction, 0)
