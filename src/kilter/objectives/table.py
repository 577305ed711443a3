"""The table of objectives, from which the command line, the errors, the docs and the tests are made.

To add one: write its function, add its row.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from kilter.errors import ConfigError
from kilter.objectives.labelled import kto
from kilter.objectives.likelihood import sft
from kilter.objectives.options import Option, options_of
from kilter.objectives.pairwise import dpo, hinge, ipo, ipo_mean

# What an objective may look at besides the policy's log-probs: sums of `Scores`, facts of pairs, mismatched answers.
Need = Literal[
    "reference_log_prob",
    "tokens",
    "shared_log_prob",
    "shared_reference_log_prob",
    "kl_policy_reference",
    "kl_reference_policy",
    "log_collision",
    "margin",
    "preference",
    "mismatched",
]
OF_A_REFERENCE = frozenset({
    "reference_log_prob", "shared_reference_log_prob", "kl_policy_reference", "kl_reference_policy",
})  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs to be summed, cut into micro-batches, and checked.

    `takes`: what one call of the loss is given. `unit`: what its value for one item depends on; "batch" is for losses
    whose items depend on each other, which are scored without gradient first. The sum of the losses is divided by the
    global batch's `denominator`. `needs`: what the scores must hold besides the policy's log-probs.
    `at_zero(scores, **options)`: the mean loss where policy and reference agree, from what else the scores say of the
    batch; None for losses without a reference. `state` is what the loss remembers from batch to batch, by name, as it
    is before the first; the loss takes it as keyword arguments, and `remember(scores, **options, **state)` gives it
    anew from a batch, before that batch's loss is formed. `equation` is the loss of one item in LaTeX, `summary` what
    it is in a few words, `when` in which case to take it.
    """

    loss: Callable[..., Tensor]
    takes: Literal["pairs", "labelled", "answers", "rankings"]
    unit: Literal["pair", "answer", "ranking", "batch"]
    denominator: Literal["pairs", "answers", "tokens", "rankings"]
    at_zero: Callable[..., float] | None
    equation: str
    summary: str
    paper: str
    when: str
    needs: frozenset[Need] = frozenset({"reference_log_prob"})
    state: Mapping[str, float] = field(default_factory=dict)
    remember: Callable[..., dict[str, float]] | None = None

    @property
    def needs_reference(self) -> bool:
        return bool(self.needs & OF_A_REFERENCE)

    @property
    def options(self) -> dict[str, Option]:
        """The options that the loss takes, by name."""
        return options_of(self.loss, besides=frozenset(self.state))

    @property
    def defaults(self) -> dict[str, float]:
        return {name: option.default for name, option in self.options.items()}


def _kto_at_zero(scores: Any, *, beta: float, desirable_weight: float, undesirable_weight: float) -> float:
    good, bad = len(scores.desirable), len(scores.undesirable)
    return (good * desirable_weight + bad * undesirable_weight) / (2 * (good + bad))


OBJECTIVES: dict[str, Objective] = {
    # Pairs, against a reference.
    "dpo": Objective(
        dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: math.log(2),
        equation=r"-(1 - \epsilon) \log \sigma(\beta \Delta) - \epsilon \log \sigma(-\beta \Delta)",
        summary="logistic loss on the margin; label_smoothing makes it conservative",
        when="the default",
        paper="arXiv 2305.18290, eq. 7",
    ),
    "ipo": Objective(
        ipo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        equation=r"(\Delta - 1 / (2 \beta))^2",
        summary="squared distance of the log-ratio gap from 1 / (2 beta)",
        when="labels are certain, and dpo drifts without end",
        paper="arXiv 2310.12036, eq. 17",
    ),
    "ipo_mean": Objective(
        ipo_mean,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        equation=r"(\bar\Delta - 1 / (2 \beta))^2",
        summary="ipo on log-ratios averaged over an answer's tokens",
        when="as ipo, where answers differ much in length",
        paper="arXiv 2310.12036, eq. 17, with averages",
        needs=frozenset({"reference_log_prob", "tokens"}),
    ),
    "hinge": Objective(
        hinge,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 1.0,
        equation=r"\max(0, 1 - \beta \Delta)",
        summary="no loss beyond a margin of 1",
        when="pairs that are already apart should be left alone",
        paper="arXiv 2309.06657, eq. 11",
    ),
    # Pairs, without a reference.
    # Labelled answers, or the answers of pairs one by one.
    "kto": Objective(
        kto,
        takes="labelled",
        unit="batch",
        denominator="answers",
        at_zero=_kto_at_zero,
        equation=r"\lambda_y (1 - \sigma(\pm \beta (r - z)))",
        summary="answers judged one by one against the batch's reference point",
        when="answers are labelled good or bad, and not compared",
        paper="arXiv 2402.01306, eq. 8",
        needs=frozenset({"reference_log_prob", "mismatched"}),
    ),
    # Rankings.
    # Answers to imitate.
    "sft": Objective(
        sft,
        takes="answers",
        unit="answer",
        denominator="tokens",
        at_zero=None,
        equation=r"-\log \pi(y \mid x)",
        summary="cross-entropy of the answer's tokens",
        when="there are good answers and no bad ones; in a mixture, to keep chosen answers likely",
        paper="maximum likelihood",
        needs=frozenset(),
    ),
}


def objective(name: str, takes: Collection[str] = ("pairs", "labelled", "answers", "rankings")) -> Objective:
    """The row of that name; a ConfigError names those there are among rows that take such examples."""
    if name not in OBJECTIVES:
        there_are = [other for other, row in OBJECTIVES.items() if row.takes in takes]
        near = difflib.get_close_matches(name, there_are, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"there is no objective {name!r}; {meant}choose one of: {', '.join(there_are)}")
    return OBJECTIVES[name]
