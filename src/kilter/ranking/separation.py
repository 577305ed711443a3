"""Why a fit did not come to an end: a direction in which the likelihood never falls, by linear programming.

Albert and Anderson 1984, for Bradley-Terry with order effect, covariates and ties. Axes: G rows, p parameters.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from kilter.errors import DataError, KilterError
from kilter.ranking.comparisons import Comparisons, Floats
from kilter.ranking.likelihood import Totals
from kilter.ranking.outcomes import OutcomeModel

# Beyond it the programme would take longer than a person waits.
MOST_ROWS = 30_000


class SeparatedError(DataError):
    """Comparisons that an extra part of the model tells apart without exception; `parts` says which parts."""

    def __init__(self, message: str, parts: tuple[str, ...]) -> None:
        super().__init__(message)
        self.parts = parts


def explained(
    error: KilterError,
    totals: Totals,
    model: OutcomeModel,
    comparisons: Comparisons,
    order_effect: bool,
    prior_variance: float | None,
) -> KilterError:
    """The error to raise for a fit without an end: which parts of the model run away, if a direction is found."""
    names = ("order",) * order_effect + comparisons.covariate_names + ("ties",) * model.has_ties
    if not names or totals.observed.shape[1] > MOST_ROWS:
        return error
    direction = runaway(totals, model.has_ties, strengths_move=prior_variance is None)
    moving = tuple(name for name, move in zip(names, direction[totals.items :], strict=True) if abs(move) > 1e-6)
    if not moving:
        return error
    said = {"order": "the order effect", "ties": "the model of ties"}
    parts = " and ".join(said.get(name, f"the covariate {name}") for name in moving)
    whom = " together with the items' strengths" if np.abs(direction[: totals.items]).max() > 1e-6 else ""
    instead = "; or count ties as half a win each (ties='half')" if "ties" in moving else ""
    return SeparatedError(
        f"{parts}{whom} can explain these outcomes ever better without end: no comparison speaks against it, so there "
        f"is no finite estimate. Leave that part out, or compare more{instead}",
        moving,
    )


def runaway(totals: Totals, ties: bool, *, strengths_move: bool) -> Floats:
    """p: a direction along which no observed outcome becomes less probable and some more; zeros if there is none."""
    from scipy.optimize import linprog  # a tenth of a second to load, for failures alone

    rows, items = len(totals.left), totals.items
    index = np.arange(rows)
    ahead = sparse.coo_array(
        (np.repeat([1.0, -1.0], rows), (np.tile(index, 2), np.concatenate([totals.left, totals.right]))),
        shape=(rows, items),
    ).tocsr()
    if not strengths_move:
        ahead = ahead * 0
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
    bounded = [(-1 / unit, 1 / unit) for unit in scale]
    found = linprog(-np.asarray(gain.sum(axis=0)).ravel(), A_ub=-gain, b_ub=np.zeros(gain.shape[0]), bounds=bounded)
    if found.status != 0 or -found.fun < 1e-6:
        return np.zeros(gain.shape[1])
    direction: Floats = found.x * scale
    return direction
