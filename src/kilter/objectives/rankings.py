"""Objectives on ranked answers.

Axes: R rankings, K places in a ranking, A answers, G groups of answers of one rank, T answers of a group, S sets of
those.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from kilter.objectives.options import Positive
from kilter.objectives.scores import RankingScores

# The log of a weight of 0, as a number whose gradient is one too.
LOG_OF_NOTHING = -1e30


def plackett_luce(rankings: RankingScores, *, beta: Positive = 0.1) -> Tensor:
    """DPO under the Plackett-Luce model (Rafailov et al. 2023, arXiv 2305.18290, appendix A.3): (R,).

    An order's probability is the product over its places of exp(reward) over its sum with those of all that come
    after; rewards are `beta` times log-ratios. Tied answers may have come in any order, so what is known has the summed
    probability of all orders that agree with the ranks. Two answers that are not tied have the loss of `dpo`; answers
    that are all tied have none. The work doubles with every answer that is tied, but for those tied last.

    >>> from kilter.objectives import RankingScores, Scores
    >>> three = Scores(log_prob=torch.tensor([1.0, 1.0, 1.0]), reference_log_prob=torch.tensor([1.0, 1.0, 1.0]))
    >>> plackett_luce(RankingScores(three, torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3]))).exp()
    tensor([6.])
    >>> plackett_luce(RankingScores(three, torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2]))).exp()
    tensor([3.])
    """
    reward_A = beta * rankings.answers.log_ratio_A
    groups = _Groups(rankings)
    reward_A = reward_A[groups.order_A]
    behind_A = _log_weight_behind(reward_A, groups.ranking_A)
    # Answers that are all tied have no loss, but are in the graph.
    loss_R = reward_A.new_zeros(groups.count).index_add(0, groups.ranking_A, 0 * reward_A)
    for size in groups.size_G[groups.followed_G].unique().tolist():
        place_G = (groups.followed_G & (groups.size_G == size)).nonzero()[:, 0]
        place_GT = groups.start_G[place_G, None] + torch.arange(size, device=place_G.device)
        log_chance_G = _log_chance_of_coming_first(reward_A[place_GT], behind_A[place_GT[:, -1]])
        loss_R = loss_R.index_add(0, groups.ranking_A[place_GT[:, 0]], -log_chance_G)
    return loss_R


def log_orders_per_agreeing(rankings: RankingScores) -> Tensor:
    """log of how many orders of the answers there are to each that agrees with the ranks: (R,).

    It is the loss where policy and reference agree: all orders are equally likely then.
    """
    groups = _Groups(rankings)
    log_orders_R = torch.lgamma(groups.ranking_A.bincount().double() + 1)
    return log_orders_R.index_add(0, groups.ranking_A[groups.start_G], -torch.lgamma(groups.size_G.double() + 1))


class _Groups:
    """Answers in the order of ranking and rank, and where those of one rank begin.

    `followed_G` says that worse ones come after in the same ranking.
    """

    def __init__(self, rankings: RankingScores) -> None:
        rank_A = rankings.rank_A.unique(return_inverse=True)[1]
        key_A = rankings.ranking_A * (len(rank_A) + 1) + rank_A
        self.order_A = key_A.argsort(stable=True)
        self.ranking_A = rankings.ranking_A[self.order_A]
        self.count = int(self.ranking_A[-1]) + 1 if len(self.ranking_A) else 0
        self.size_G = key_A[self.order_A].unique_consecutive(return_counts=True)[1]
        self.start_G = self.size_G.cumsum(0) - self.size_G
        ranking_G = self.ranking_A[self.start_G]
        self.followed_G = torch.zeros_like(ranking_G, dtype=torch.bool)
        self.followed_G[:-1] = ranking_G[1:] == ranking_G[:-1]


def _log_weight_behind(reward_A: Tensor, ranking_A: Tensor) -> Tensor:
    """log of the summed weights exp(reward) of all answers after each of its ranking: (A,), of sorted answers."""
    size_R = ranking_A.bincount()
    start_R = size_R.cumsum(0) - size_R
    at_A = torch.arange(len(ranking_A), device=ranking_A.device) - start_R[ranking_A]
    places = int(size_R.max()) if len(size_R) else 0
    reward_RK = reward_A.new_full((len(size_R), places), LOG_OF_NOTHING).index_put((ranking_A, at_A), reward_A)
    after_KK = torch.ones(places, places, dtype=torch.bool, device=reward_A.device).triu(1)
    return reward_RK[:, None].masked_fill(~after_KK, LOG_OF_NOTHING).logsumexp(-1)[ranking_A, at_A]


def _log_chance_of_coming_first(reward_GT: Tensor, behind_G: Tensor) -> Tensor:
    """log of the probability that all answers of a group come, in whatever order, before all behind it: (G,).

    For a set of them that is the sum over which comes first, of its weight over that of the set and all behind, times
    the same of the others: from single answers up to the whole group.
    """
    log_chance_GS = reward_GT.new_zeros(len(reward_GT), 1)
    for size in range(1, reward_GT.shape[1] + 1):
        member_ST, others_ST = (table.to(reward_GT.device) for table in _subsets(reward_GT.shape[1], size))
        reward_GST = reward_GT[:, member_ST]
        total_GS = torch.logaddexp(reward_GST.logsumexp(-1), behind_G[:, None])
        log_chance_GS = (reward_GST + log_chance_GS[:, others_ST]).logsumexp(-1) - total_GS
    return log_chance_GS[:, 0]


@lru_cache
def _subsets(count: int, size: int) -> tuple[Tensor, Tensor]:
    """The sets of so many of `count` answers: their members, and the place of each without that member among the sets
    of one less: both (S, size)."""
    smaller = {members: place for place, members in enumerate(combinations(range(count), size - 1))}
    sets = list(combinations(range(count), size))
    others = [[smaller[members[:i] + members[i + 1 :]] for i in range(size)] for members in sets]
    return torch.tensor(sets), torch.tensor(others)
