"""What the advantage of the left item says about a comparison's outcome: win, tie or loss.

Axes: O the outcomes (left wins, tie, right wins), G comparisons.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit, log_expit

from kilter.ranking.comparisons import Floats


class Derivatives(NamedTuple):
    """What outcomes do to the log-likelihood, by advantage and tie parameter.

    `advantage` and `tie` are OG: the derivative of each outcome's log-probability. The rest are G: minus the second
    derivatives, summed over the outcomes that were observed.
    """

    advantage: Floats
    tie: Floats
    advantage_advantage: Floats
    advantage_tie: Floats
    tie_tie: Floats


class OutcomeModel(Protocol):
    """Probabilities of a comparison's outcomes; concave in advantage and tie parameter together."""

    has_ties: bool
    start: float

    def log_probabilities(self, advantage: Floats, tie: float | Floats) -> Floats:
        """OG; or OBG for BG advantages and B1 tie parameters, as for the rest."""

    def derivatives(self, advantage: Floats, tie: float | Floats, observed: Floats) -> Derivatives:
        """By advantage and tie parameter; `observed`, OG, is how often each outcome was."""

    def allows(self, tie: float) -> bool:
        """Whether the tie parameter is one."""


class Logistic:
    """Left wins with probability 1 / (1 + exp(-advantage)); a tie is half a win each (Bradley and Terry 1952)."""

    has_ties = False
    start = 0.0

    def log_probabilities(self, advantage: Floats, tie: float | Floats) -> Floats:
        wins, losses = log_expit(advantage), log_expit(-advantage)
        return np.stack([wins, (wins + losses) / 2, losses])

    def derivatives(self, advantage: Floats, tie: float | Floats, observed: Floats) -> Derivatives:
        wins, losses = expit(advantage), expit(-advantage)
        nothing = np.zeros_like(advantage)
        slopes = np.stack([losses, (losses - wins) / 2, -wins])
        return Derivatives(slopes, np.zeros_like(slopes), observed.sum(axis=0) * wins * losses, nothing, nothing)

    def allows(self, tie: float) -> bool:
        return True


class Davidson:
    """Win, tie and loss as exp(advantage/2), exp(tie) and exp(-advantage/2) (Davidson 1970): tie = log nu."""

    has_ties = True
    start = -1.0

    def log_probabilities(self, advantage: Floats, tie: float | Floats) -> Floats:
        scores = np.stack([advantage / 2, np.full_like(advantage, tie), -advantage / 2])
        total: Floats = np.logaddexp.reduce(scores, axis=0)
        return scores - total

    def derivatives(self, advantage: Floats, tie: float | Floats, observed: Floats) -> Derivatives:
        wins, ties, losses = np.exp(self.log_probabilities(advantage, tie))
        mean = (wins - losses) / 2
        games = observed.sum(axis=0)
        return Derivatives(
            np.stack([0.5 - mean, -mean, -0.5 - mean]),
            np.stack([-ties, 1 - ties, -ties]),
            games * ((wins + losses) / 4 - mean**2),
            -games * mean * ties,
            games * ties * (1 - ties),
        )

    def allows(self, tie: float) -> bool:
        return True


class RaoKupper:
    """Left wins where its logistic lead exceeds a threshold `tie` > 0 (Rao and Kupper 1967): theta = exp(tie).

    P(left) = expit(advantage - tie), P(right) = expit(-advantage - tie), and what is left,
    expm1(2 tie) P(left) P(right), is a tie.
    """

    has_ties = True
    start = 0.5

    def log_probabilities(self, advantage: Floats, tie: float | Floats) -> Floats:
        wins, losses = log_expit(advantage - tie), log_expit(-advantage - tie)
        # log(exp(2 tie) - 1), without overflow.
        threshold = 2 * tie + np.log(-np.expm1(-2 * tie))
        return np.stack([wins, threshold + wins + losses, losses])

    def derivatives(self, advantage: Floats, tie: float | Floats, observed: Floats) -> Derivatives:
        not_win, not_loss = expit(tie - advantage), expit(tie + advantage)
        nothing = np.zeros_like(advantage)
        # Only these two logistic terms are in the log-likelihood, and log expm1(2 tie) once for each tie.
        of_win = (observed[0] + observed[1]) * not_win * (1 - not_win)
        of_loss = (observed[2] + observed[1]) * not_loss * (1 - not_loss)
        return Derivatives(
            np.stack([not_win, not_win - not_loss, -not_loss]),
            np.stack([-not_win, -not_win - not_loss - 2 / np.expm1(-2 * tie), -not_loss]) + nothing,
            of_win + of_loss,
            of_loss - of_win,
            of_win + of_loss + observed[1] * 4 * np.exp(-2 * tie) / np.expm1(-2 * tie) ** 2,
        )

    def allows(self, tie: float) -> bool:
        return tie > 0


OUTCOMES: dict[str, OutcomeModel] = {
    "none": Logistic(),
    "half": Logistic(),
    "davidson": Davidson(),
    "rao-kupper": RaoKupper(),
}
