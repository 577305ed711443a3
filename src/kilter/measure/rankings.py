"""Scoring rankings: all answers to a prompt in one tree, read as all pairs that the ranks tell apart, and by which
answer comes first. Axes: R rankings, A answers, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilter.measure import pairs
from kilter.measure.answers import AnswerScores, Floats, score_answers
from kilter.measure.pairs import ScoredPairs
from kilter.measure.statistics import Interval, wilson
from kilter.model.scorer import Reference, Scorer
from kilter.model.workers import ALONE, Workers
from kilter.tokens.encoding import EncodedRanking
from kilter.tokens.tree import Ints


@dataclass(frozen=True, eq=False)
class ScoredRankings:
    """The answers of rankings, scored, one ranking after the other: which it is, and the answer's rank there."""

    answers: AnswerScores
    ranking_A: Ints
    rank_A: Floats

    def __len__(self) -> int:
        return int(self.ranking_A[-1]) + 1 if len(self.ranking_A) else 0

    def arrays(self) -> dict[str, Floats]:
        """All numbers by name, such as answers.log_prob_A; `from_arrays` takes them back."""
        facts = {"ranking_A": self.ranking_A.astype(np.float64), "rank_A": self.rank_A}
        return self.answers.arrays("answers.") | facts

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> ScoredRankings:
        answers = AnswerScores.from_arrays({k: v for k, v in arrays.items() if "." in k}, "answers.")
        return cls(answers, arrays["ranking_A"].astype(np.int64), arrays["rank_A"])

    @property
    def pairs(self) -> ScoredPairs:
        """Every two answers of a ranking whose ranks differ, the better one as chosen."""
        better_P, worse_P = told_apart(self.ranking_A, self.rank_A)
        return ScoredPairs(self.answers[better_P], self.answers[worse_P])

    @property
    def best_A(self) -> NDArray[np.bool_]:
        """Which answers are the best of their ranking, or tied with it."""
        lowest_R = np.array([self.rank_A[places].min() for places in rankings_of(self.ranking_A)])
        best: NDArray[np.bool_] = self.rank_A == lowest_R[self.ranking_A]
        return best

    @property
    def first_R(self) -> Floats:
        """1 where the answer of the largest log-ratio is one of the best, 0 where it is not; among several such, the
        share of them that is."""
        return self._best_among(self.answers.log_ratio_A)

    @property
    def likeliest_R(self) -> Floats:
        """The same for the policy's own log-probs, without a reference."""
        return self._best_among(self.answers.log_prob_A)

    @property
    def accuracy_of_first(self) -> Interval:
        return wilson(float(self.first_R.sum()), len(self))

    def _best_among(self, value_A: Floats) -> Floats:
        shares = []
        for places in rankings_of(self.ranking_A):
            value = value_A[places]
            shares.append(self.best_A[places][value == value.max()].mean())
        return np.array(shares)


def rankings_of(ranking_A: Ints) -> list[Ints]:
    """The places of each ranking's answers."""
    starts = np.flatnonzero(np.diff(ranking_A)) + 1
    return np.split(np.arange(len(ranking_A)), starts) if len(ranking_A) else []


def told_apart(ranking_A: NDArray[Any], rank_A: NDArray[Any]) -> tuple[Ints, Ints]:
    """Places of the better and of the worse answer of every two of a ranking whose ranks differ: each (P,).

    >>> told_apart(np.array([0, 0, 0, 1, 1]), np.array([2, 1, 2, 1, 1]))
    (array([1, 1]), array([0, 2]))
    """
    better, worse = [np.arange(0)], [np.arange(0)]
    for places in rankings_of(ranking_A):
        ahead, behind = np.nonzero(rank_A[places][:, None] < rank_A[places])
        better.append(places[ahead])
        worse.append(places[behind])
    return np.concatenate(better), np.concatenate(worse)


def score_rankings(
    policy: Scorer,
    rankings: Sequence[EncodedRanking],
    *,
    reference: Reference | None = None,
    exact_kl: bool = False,
    node_budget: int = 2048,
    on_progress: Callable[[int], None] = lambda answers: None,
    workers: Workers = ALONE,
) -> ScoredRankings:
    """Score the answers of rankings as `score_answers` does; `on_progress` is told how many answers more are scored."""
    scores = score_answers(
        policy,
        [ranking.sequences for ranking in rankings],
        reference=reference,
        exact_kl=exact_kl,
        node_budget=node_budget,
        on_progress=lambda places: on_progress(len(places)),
        workers=workers,
    )
    ranking_A = np.repeat(np.arange(len(rankings)), [len(ranking.ranks) for ranking in rankings])
    return ScoredRankings(scores, ranking_A, np.array([rank for ranking in rankings for rank in ranking.ranks]))


def summary(scored: ScoredRankings) -> dict[str, Any]:
    """What a metrics row shows of scored rankings: that of their pairs, and how often one of the best comes first."""
    return {
        "rankings": len(scored),
        **scored.accuracy_of_first.named("first"),
        "likeliest": float(scored.likeliest_R.mean()),
        **pairs.summary(scored.pairs),
    }
