"""Damped Newton steps to the maximum of the log-likelihood, or to an error."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kilter.errors import KilterError
from kilter.ranking.comparisons import Floats, Integers
from kilter.ranking.information import DENSE, Bordered, centred, plan_of, solver
from kilter.ranking.likelihood import Totals, advantage, gradient_and_information, log_likelihood
from kilter.ranking.outcomes import OutcomeModel

# The last step moves no log-strength by more than this; those after it would move it by about its square.
SMALL_STEP = 1e-8
MOST_STEPS = 100


class NotConvergedError(KilterError, ArithmeticError):
    """A fit that did not come to an end; `parameters` is where it stopped."""

    def __init__(self, message: str, parameters: Floats) -> None:
        super().__init__(message)
        self.parameters = parameters


class Maximum(NamedTuple):
    """Where the log-likelihood, less the prior's penalty, is greatest."""

    parameters: Floats
    log_likelihood: float
    gradient_norm: float
    steps: int
    information: Bordered


def maximize(
    totals: Totals,
    model: OutcomeModel,
    *,
    component: Integers,
    prior_variance: float | None = None,
    start: Floats | None = None,
    fixed: Floats | None = None,
) -> Maximum:
    """The maximum of the log-likelihood, and how sure it is: the largest slope that is left, in comparisons.

    With a prior on the log-strengths, Gaussian of mean 0 and `prior_variance`, the maximum of the posterior.
    `fixed`, p, is a combination of parameters that must stay as it is at `start`: for profiles.
    Raises NotConvergedError.
    """
    extras = totals.shifts.shape[1] + model.has_ties
    parameters = np.zeros(totals.items + extras) if start is None else start.copy()
    if start is None and model.has_ties:
        parameters[-1] = model.start
    precision = 0.0 if prior_variance is None else 1 / prior_variance
    plan = plan_of(totals.items, totals.left, totals.right) if len(parameters) > DENSE else None

    def objective(parameters: Floats) -> float:
        penalty = precision * float(parameters[: totals.items] @ parameters[: totals.items]) / 2
        return log_likelihood(parameters, totals, model) - penalty

    def derivatives(parameters: Floats) -> tuple[Floats, Bordered]:
        slope, information = gradient_and_information(parameters, totals, model)
        slope[: totals.items] -= precision * parameters[: totals.items]
        return slope, replace(information, precision=precision)

    value = objective(parameters)
    for steps in range(1, MOST_STEPS + 1):
        slope, information = derivatives(parameters)
        if fixed is None:
            step = solver(information, component, plan, tolerance=1e-6)(slope[:, None])[:, 0]
        else:
            step, along = solver(information, component, plan, tolerance=1e-9)(np.column_stack([slope, fixed])).T
            step = step - along * (fixed @ step) / (fixed @ along)
        rise = float(slope @ step)
        largest = float(np.max(np.abs(step) * scale_of(information)))
        length = 1.0
        # What rounding adds to a sum of this size is no fall.
        noise = 1e-13 * abs(value) + rounding(parameters, totals)
        while (
            not model.allows(parameters[-1] + length * step[-1])
            or not (risen := objective(parameters + length * step)) >= value + 1e-4 * length * rise - noise
        ):
            length /= 2
            if length < 1e-10:
                raise not_converged(steps, largest, parameters)
        parameters = parameters + length * step
        if not precision and fixed is None:
            parameters = centred(parameters[:, None], component)[:, 0]
        value = risen
        if length == 1 and largest <= SMALL_STEP:
            slope, information = derivatives(parameters)
            if fixed is not None:
                slope -= fixed * (fixed @ slope) / (fixed @ fixed)
            norm = float(np.abs(slope[: totals.items]).max())
            return Maximum(parameters, value, norm, steps, information)
    raise not_converged(MOST_STEPS, largest, parameters)


def rounding(parameters: Floats, totals: Totals) -> float:
    """What the advantages' rounding may add to the log-likelihood, which can be small where they are large."""
    return 1e-15 * float(totals.observed.sum(axis=0) @ np.abs(advantage(parameters, totals)))


def scale_of(information: Bordered) -> Floats:
    """p: what makes a parameter's step comparable with a log-strength's, whatever the covariate's unit."""
    scale = np.ones(len(information.diagonal))
    scale[information.items :] = np.sqrt(np.diag(information.corner) / max(information.degree.sum() / 2, 1e-300))
    return scale


def not_converged(steps: int, largest: float, parameters: Floats) -> NotConvergedError:
    """What to say where the steps do not come to an end."""
    return NotConvergedError(
        f"no maximum after {steps} Newton steps (the last would move a log-strength by {largest:.1g}): an estimate "
        "probably lies at infinity, because a covariate, the order effect or ties tell winners from losers without "
        "exception; leave that part out, or give a prior (prior_variance) on the strengths",
        parameters,
    )
