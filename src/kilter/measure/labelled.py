"""Scoring answers that are labelled one by one: the good and the bad, and how well they are told apart.

Axis: A answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilter.measure.answers import AnswerScores, Floats, score_answers
from kilter.measure.statistics import Interval, auc
from kilter.model.scorer import Reference, Scorer
from kilter.model.workers import ALONE, Workers
from kilter.tokens.encoding import EncodedLabelled


@dataclass(frozen=True, eq=False)
class ScoredLabelled:
    """Answers, scored, and which of them are good."""

    answers: AnswerScores
    good_A: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.answers)

    def arrays(self) -> dict[str, Floats]:
        """All numbers by name, such as answers.log_prob_A; `from_arrays` takes them back."""
        return self.answers.arrays("answers.") | {"good_A": self.good_A.astype(np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> ScoredLabelled:
        return cls(AnswerScores.from_arrays(arrays, "answers."), arrays["good_A"] > 0)

    @property
    def good(self) -> AnswerScores:
        return self.answers[self.good_A]

    @property
    def bad(self) -> AnswerScores:
        return self.answers[~self.good_A]

    @property
    def auc(self) -> Interval:
        """The chance that a good answer has a larger log-ratio than a bad one, ties counting half."""
        return auc(self.good.log_ratio_A, self.bad.log_ratio_A)

    @property
    def likelier(self) -> Interval:
        """The same for the policy's own log-probs, without a reference."""
        return auc(self.good.log_prob_A, self.bad.log_prob_A)


def score_labelled(
    policy: Scorer,
    labelled: Sequence[EncodedLabelled],
    *,
    reference: Reference | None = None,
    exact_kl: bool = False,
    node_budget: int = 2048,
    on_progress: Callable[[int], None] = lambda answers: None,
    workers: Workers = ALONE,
) -> ScoredLabelled:
    """Score labelled answers as `score_answers` does; `on_progress` is told how many answers more are scored."""
    scores = score_answers(
        policy,
        [(row.sequence,) for row in labelled],
        reference=reference,
        exact_kl=exact_kl,
        node_budget=node_budget,
        on_progress=lambda places: on_progress(len(places)),
        workers=workers,
    )
    return ScoredLabelled(scores, np.array([row.good for row in labelled], dtype=bool))


def summary(scored: ScoredLabelled) -> dict[str, Any]:
    """What a metrics row shows of scored answers: means over the good and over the bad, and KL in nats per token."""
    return {
        "answers": len(scored),
        "good": len(scored.good),
        **scored.auc.named("auc"),
        "likelier": scored.likelier.value,
        **scored.good.summary("good"),
        **scored.bad.summary("bad"),
    }
