"""An objective on rankings of the tests' own: the mean logistic loss of all pairs that a ranking tells apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.objectives import Objective, RankingScores
from kilter.objectives.options import Positive

NAME = "ranked"


def ranked(rankings: RankingScores, *, beta: Positive = 0.1) -> Tensor:
    """(R,): each ranking by itself; of a ranking of two it is dpo."""
    losses = []
    for ranking in rankings.ranking_A.unique():
        here = rankings.ranking_A == ranking
        log_ratio, rank = rankings.answers.log_ratio_A[here], rankings.rank_A[here]
        better, worse = (rank[:, None] < rank).nonzero().T
        losses.append(-logsigmoid(beta * (log_ratio[better] - log_ratio[worse])).mean())
    return torch.stack(losses) if losses else rankings.answers.log_ratio_A.new_zeros(0)


OBJECTIVE = Objective(
    ranked,
    takes="rankings",
    unit="ranking",
    denominator="rankings",
    at_zero=lambda _, **options: math.log(2),
    equation=r"-\operatorname{mean}_{i \succ j} \log \sigma(\beta (r_i - r_j))",
    summary="logistic loss of all pairs",
    paper="none",
    when="in tests",
)
