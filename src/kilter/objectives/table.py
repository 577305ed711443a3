"""The table of objectives, from which the command line, the errors, the docs and the tests are made.

To add one: write its function, add its row.
"""

from __future__ import annotations

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
    anew from a batch, before that batch's loss is formed.
    """

    loss: Callable[..., Tensor]
    takes: Literal["pairs", "labelled", "answers", "rankings"]
    unit: Literal["pair", "answer", "ranking", "batch"]
    denominator: Literal["pairs", "answers", "tokens", "rankings"]
    at_zero: Callable[..., float] | None
    summary: str
    paper: str
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
    "dpo": Objective(
        dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: math.log(2),
        summary="logistic loss on the margin; label_smoothing makes it conservative",
        paper="arXiv 2305.18290, eq. 7",
    ),
    "ipo": Objective(
        ipo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        summary="squared distance of the log-ratio gap from 1 / (2 beta)",
        paper="arXiv 2310.12036, eq. 17",
    ),
    "ipo_mean": Objective(
        ipo_mean,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        summary="ipo on log-ratios averaged over an answer's tokens",
        paper="arXiv 2310.12036, eq. 17, with averages",
        needs=frozenset({"reference_log_prob", "tokens"}),
    ),
    "hinge": Objective(
        hinge,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 1.0,
        summary="no loss beyond a margin of 1",
        paper="arXiv 2309.06657, eq. 11",
    ),
    "kto": Objective(
        kto,
        takes="labelled",
        unit="batch",
        denominator="answers",
        at_zero=_kto_at_zero,
        summary="answers judged one by one against the batch's reference point",
        paper="arXiv 2402.01306, eq. 8",
        needs=frozenset({"reference_log_prob", "mismatched"}),
    ),
    "sft": Objective(
        sft,
        takes="answers",
        unit="answer",
        denominator="tokens",
        at_zero=None,
        summary="cross-entropy of the answer's tokens",
        paper="maximum likelihood",
        needs=frozenset(),
    ),
}


def objective(name: str, takes: Collection[str] = ("pairs", "labelled", "answers", "rankings")) -> Objective:
    """The row of that name; a ConfigError names those there are among rows that take such examples."""
    if name not in OBJECTIVES:
        there_are = [other for other, row in OBJECTIVES.items() if row.takes in takes]
        raise ConfigError(f"there is no objective {name!r}; choose one of: {', '.join(there_are)}")
    return OBJECTIVES[name]
