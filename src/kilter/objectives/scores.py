"""What objectives are functions of. Axes: P pairs, A answers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Scores:
    """Sums over the scored tokens of some answers: one number each, (A,), in nats.

    Whoever calls an objective gives the sums that it needs, by name; one that was not given raises KeyError.

    >>> import torch
    >>> Scores(log_prob=torch.tensor([-3.0]), reference_log_prob=torch.tensor([-5.0])).log_ratio_A
    tensor([2.])
    """

    def __init__(self, **sums_A: Tensor) -> None:
        self.sums_A = sums_A

    def _sum(self, name: str) -> Tensor:
        if name not in self.sums_A:
            raise KeyError(f"{name}: this objective needs it; there are {', '.join(self.sums_A)}")
        return self.sums_A[name]

    def __len__(self) -> int:
        return len(self.log_prob_A)

    def __add__(self, other: Scores) -> Scores:
        """These answers, and the others after them."""
        return Scores(**{name: torch.cat([sum_A, other.sums_A[name]]) for name, sum_A in self.sums_A.items()})

    @property
    def log_prob_A(self) -> Tensor:
        """log pi(y given x)."""
        return self._sum("log_prob")

    @property
    def reference_log_prob_A(self) -> Tensor:
        """log pi_ref(y given x)."""
        return self._sum("reference_log_prob")

    @property
    def tokens_A(self) -> Tensor:
        """How many tokens were summed over."""
        return self._sum("tokens")

    @property
    def shared_log_prob_A(self) -> Tensor:
        """log pi of an answer's first tokens, as many as the shorter answer of its pair has."""
        return self._sum("shared_log_prob")

    @property
    def shared_reference_log_prob_A(self) -> Tensor:
        """The same under the reference."""
        return self._sum("shared_reference_log_prob")

    @property
    def kl_policy_reference_A(self) -> Tensor:
        """The exact KL(policy, reference) of each next token."""
        return self._sum("kl_policy_reference")

    @property
    def kl_reference_policy_A(self) -> Tensor:
        """The exact KL(reference, policy) of each next token."""
        return self._sum("kl_reference_policy")

    @property
    def log_collision_A(self) -> Tensor:
        """log sum_v pi(v)^2 of each next token: the log of the chance that two draws of it agree. Has no gradient."""
        return self._sum("log_collision")

    @property
    def log_ratio_A(self) -> Tensor:
        """log pi(y given x) - log pi_ref(y given x)."""
        return self.log_prob_A - self.reference_log_prob_A

    @property
    def mean_log_prob_A(self) -> Tensor:
        """log pi(y given x) per token."""
        return self.log_prob_A / self.tokens_A

    @property
    def mean_log_ratio_A(self) -> Tensor:
        """The log-ratio per token."""
        return self.log_ratio_A / self.tokens_A


class PairScores(NamedTuple):
    """Both answers of each pair; by how much the chosen one is better on its raters' scale, and the probability that it
    is better at all, where the data say so.

    >>> import torch
    >>> PairScores.of_log_ratios(torch.tensor([2.0]), torch.tensor([-1.0])).gap_P
    tensor([3.])
    """

    chosen: Scores
    rejected: Scores
    margin_P: Tensor | None = None
    preference_P: Tensor | None = None

    @classmethod
    def of_log_ratios(cls, chosen_P: Tensor, rejected_P: Tensor) -> PairScores:
        """Pairs of which nothing but the log-ratios is known."""
        return cls(_of_log_ratio(chosen_P), _of_log_ratio(rejected_P))

    @property
    def gap_P(self) -> Tensor:
        """Log-ratio of chosen minus that of rejected."""
        return self.chosen.log_ratio_A - self.rejected.log_ratio_A


class LabelledScores(NamedTuple):
    """Desirable and undesirable answers, and answers to some other prompt.

    `mismatched` are answers under prompts they were not given to: a method's estimate of how far the policy has moved
    as a whole.
    """

    desirable: Scores
    undesirable: Scores
    mismatched: Scores

    @classmethod
    def of_log_ratios(cls, desirable_A: Tensor, undesirable_A: Tensor, mismatched_A: Tensor) -> LabelledScores:
        """Answers of which nothing but the log-ratios is known."""
        return cls(*map(_of_log_ratio, (desirable_A, undesirable_A, mismatched_A)))


class RankingScores(NamedTuple):
    """Answers of rankings, one ranking after the other: which one each belongs to, and its rank there (lower is
    better, equal is tied)."""

    answers: Scores
    ranking_A: Tensor
    rank_A: Tensor


def _of_log_ratio(log_ratio_A: Tensor) -> Scores:
    return Scores(log_prob=log_ratio_A, reference_log_prob=torch.zeros_like(log_ratio_A))
