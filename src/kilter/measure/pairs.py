"""Scoring preference pairs: both answers of each, their gap, and accuracy. Axes: P pairs, A answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilter.measure.answers import AnswerScores, Floats, score_answers
from kilter.measure.statistics import Interval, mean_interval, wilson
from kilter.model.scorer import Reference
from kilter.model.workers import ALONE, Workers
from kilter.tokens.encoding import EncodedPair


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Both answers of each pair, scored."""

    chosen: AnswerScores
    rejected: AnswerScores

    def __len__(self) -> int:
        return len(self.chosen)

    def arrays(self) -> dict[str, Floats]:
        """All numbers by name, such as chosen.log_prob_A; `from_arrays` takes them back."""
        return self.chosen.arrays("chosen.") | self.rejected.arrays("rejected.")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> ScoredPairs:
        return cls(*(AnswerScores.from_arrays(arrays, prefix) for prefix in ("chosen.", "rejected.")))

    @property
    def gap_P(self) -> Floats:
        """Chosen log-ratio minus rejected log-ratio."""
        return self.chosen.log_ratio_A - self.rejected.log_ratio_A

    @property
    def correct_P(self) -> Floats:
        """1 where the chosen answer has the larger log-ratio, 0 where the rejected has, 1/2 where they tie."""
        return 0.5 * (1 + np.sign(self.gap_P))

    @property
    def likelier_P(self) -> Floats:
        """The same for the policy's own log-probs, without a reference."""
        return 0.5 * (1 + np.sign(self.chosen.log_prob_A - self.rejected.log_prob_A))

    @property
    def accuracy(self) -> Interval:
        return wilson(float(self.correct_P.sum()), len(self))

    @property
    def gap(self) -> Interval:
        """The mean gap."""
        return mean_interval(self.gap_P)


def score_pairs(
    policy: Reference,
    pairs: Sequence[EncodedPair],
    *,
    reference: Reference | None = None,
    exact_kl: bool = False,
    node_budget: int = 2048,
    on_progress: Callable[[int], None] = lambda pairs: None,
    workers: Workers = ALONE,
) -> ScoredPairs:
    """Score pairs as `score_answers` does; `on_progress` is told how many pairs more are scored."""
    scores = score_answers(
        policy,
        [(pair.chosen, pair.rejected) for pair in pairs],
        reference=reference,
        exact_kl=exact_kl,
        node_budget=node_budget,
        on_progress=lambda places: on_progress(int(np.count_nonzero(places % 2))),
        workers=workers,
    )
    return ScoredPairs(scores[0::2], scores[1::2])


def summary(scored: ScoredPairs) -> dict[str, Any]:
    """What a metrics row or a table shows of scored pairs: means over pairs, and KL in nats per token."""
    return {
        "pairs": len(scored),
        **scored.accuracy.named("accuracy"),
        "likelier": float(scored.likelier_P.mean()),
        **scored.gap.named("gap"),
        **scored.chosen.summary("chosen"),
        **scored.rejected.summary("rejected"),
    }
