"""The table of objectives, from which the command line, the errors, the docs and the tests are made.

To add one: write its function, add its row.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kilter.errors import ConfigError
from kilter.objectives.labelled import kto
from kilter.objectives.likelihood import sft
from kilter.objectives.pairwise import dpo, hinge, ipo


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs to be summed, cut into micro-batches, and checked.

    `takes`: what one call of the loss is given. `unit`: what its value for one item depends on; "batch" is for losses
    whose items depend on each other, which are scored without gradient first. The sum of the losses is divided by the
    global batch's `denominator`. `score`: whether log-ratios are sums over an answer's tokens or averages.
    `at_zero(**options)`: the loss where policy and reference agree; None for losses without a reference. Where the loss
    takes labelled answers it is also told `desirable`, the share of them that are.
    """

    loss: Callable[..., Tensor]
    takes: Literal["pairs", "labelled", "answers"]
    unit: Literal["pair", "answer", "batch"]
    denominator: Literal["pairs", "answers", "tokens"]
    at_zero: Callable[..., float] | None
    summary: str
    paper: str
    score: Literal["sum", "mean"] = "sum"

    @property
    def needs_reference(self) -> bool:
        return self.at_zero is not None

    @property
    def options(self) -> dict[str, float]:
        """The options that the loss takes, with their defaults."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


OBJECTIVES: dict[str, Objective] = {
    "dpo": Objective(
        dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda beta, label_smoothing: math.log(2),
        summary="logistic loss on the margin; label_smoothing makes it conservative",
        paper="arXiv 2305.18290, eq. 7",
    ),
    "ipo": Objective(
        ipo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda beta: 1 / (2 * beta) ** 2,
        summary="squared distance of the log-ratio gap from 1 / (2 beta)",
        paper="arXiv 2310.12036, eq. 17",
    ),
    "ipo_mean": Objective(
        ipo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda beta: 1 / (2 * beta) ** 2,
        summary="ipo on log-ratios averaged over an answer's tokens",
        paper="arXiv 2310.12036, eq. 17, with averages",
        score="mean",
    ),
    "hinge": Objective(
        hinge,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda beta: 1.0,
        summary="no loss beyond a margin of 1",
        paper="arXiv 2309.06657, eq. 11",
    ),
    "kto": Objective(
        kto,
        takes="labelled",
        unit="batch",
        denominator="answers",
        at_zero=lambda beta, desirable_weight, undesirable_weight, desirable=0.5: (
            (desirable * desirable_weight + (1 - desirable) * undesirable_weight) / 2
        ),
        summary="answers judged one by one against the batch's reference point",
        paper="arXiv 2402.01306, eq. 8",
    ),
    "sft": Objective(
        sft,
        takes="answers",
        unit="answer",
        denominator="tokens",
        at_zero=None,
        summary="cross-entropy of the answer's tokens",
        paper="maximum likelihood",
    ),
}


def objective(name: str, takes: Collection[str] = ("pairs", "labelled", "answers")) -> Objective:
    """The row of that name; a ConfigError names those there are among rows that take such examples."""
    if name not in OBJECTIVES:
        there_are = [other for other, row in OBJECTIVES.items() if row.takes in takes]
        raise ConfigError(f"there is no objective {name!r}; choose one of: {', '.join(there_are)}")
    return OBJECTIVES[name]


def resolve_options(name: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """An objective's options with what was given (None: not given); one that it does not use is an error.

    >>> resolve_options("dpo", {"beta": 0.3, "label_smoothing": None})
    {'beta': 0.3, 'label_smoothing': 0.0}
    """
    known = objective(name).options
    chosen = {key: value for key, value in given.items() if value is not None}
    unused = [key for key in chosen if key not in known]
    if unused:
        raise ConfigError(
            f"objective {name!r} does not use {', '.join(unused)} (it has: {', '.join(known) or 'no options'}); "
            "leave that out or choose another objective"
        )
    return known | chosen
