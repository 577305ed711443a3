"""Damped Newton steps to the maximum of the log-likelihood, or to an error."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from kilter.errors import KilterError
from kilter.ranking.comparisons import Floats, Integers
from kilter.ranking.information import Information, centred, solver

# The last step moves no log-strength by more than this; those after it would move it by about its square.
SMALL_STEP = 1e-8
MOST_STEPS = 100


class NotConvergedError(KilterError, ArithmeticError):
    """A fit that did not come to an end; `parameters` is where it stopped."""

    def __init__(self, message: str, parameters: Floats) -> None:
        super().__init__(message)
        self.parameters = parameters


class Likelihood(Protocol):
    """A concave log-likelihood of parameters: I log-strengths, of which differences count, and then the extras."""

    @property
    def items(self) -> int: ...

    @property
    def start(self) -> Floats:
        """p: where steps begin."""

    @property
    def plan(self) -> Integers | None:
        """What makes banded factors of the information (`plan_of`), where it has many parameters and they are cheap."""

    def allows(self, parameters: Floats) -> bool:
        """Whether parameters are within their bounds."""

    def log_likelihood(self, parameters: Floats) -> float:
        """In nats."""

    def derivatives(self, parameters: Floats, precision: float = 0.0) -> tuple[Floats, Information]:
        """p: the gradient; and the information, with a prior's precision on the items."""

    def rounding(self, parameters: Floats) -> float:
        """What rounding within its terms may add to the log-likelihood, which can be small where they are large."""


class Maximum(NamedTuple):
    """Where the log-likelihood, less the prior's penalty, is greatest."""

    parameters: Floats
    objective: float
    """The log-likelihood less the penalty."""
    gradient_norm: float
    steps: int
    information: Information


def maximize(
    likelihood: Likelihood,
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
    items, plan = likelihood.items, likelihood.plan
    parameters = likelihood.start if start is None else start.copy()
    precision = 0.0 if prior_variance is None else 1 / prior_variance

    def objective(parameters: Floats) -> float:
        return likelihood.log_likelihood(parameters) - precision * float(parameters[:items] @ parameters[:items]) / 2

    def derivatives(parameters: Floats) -> tuple[Floats, Information]:
        slope, information = likelihood.derivatives(parameters, precision)
        slope[:items] -= precision * parameters[:items]
        return slope, information

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
        noise = 1e-13 * abs(value) + likelihood.rounding(parameters)
        while (
            not likelihood.allows(parameters + length * step)
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
            norm = float(np.abs(slope[:items]).max())
            return Maximum(parameters, value, norm, steps, information)
    raise not_converged(MOST_STEPS, largest, parameters)


def scale_of(information: Information) -> Floats:
    """p: what makes a parameter's step comparable with a log-strength's, whatever the covariate's unit."""
    items, diagonal = information.items, information.diagonal
    of_strengths = float(np.sum(diagonal[:items] - information.precision)) / 2
    return np.concatenate([np.ones(items), np.sqrt(diagonal[items:] / max(of_strengths, 1e-300))])


def not_converged(steps: int, largest: float, parameters: Floats) -> NotConvergedError:
    """What to say where the steps do not come to an end."""
    return NotConvergedError(
        f"no maximum after {steps} Newton steps (the last would move a log-strength by {largest:.1g}): an estimate "
        "probably lies at infinity, because a covariate, the order effect or ties tell winners from losers without "
        "exception; leave that part out, or give a prior (prior_variance) on the strengths",
        parameters,
    )
