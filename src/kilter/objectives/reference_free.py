"""Objectives on pairs that ask no reference: one loss for each pair, in nats. Axes: P pairs, A answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from kilter.objectives.options import NotNegative, Positive
from kilter.objectives.scores import PairScores


def simpo(pairs: PairScores, *, beta: Positive = 2.0, gamma: NotNegative = 1.0) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734, eq. 6): (P,).

    Rewards are `beta` times log-probs per token; `gamma` is the paper's target margin between two rewards, and so is
    TRL's `simpo_gamma`. The authors' program is given the ratio gamma / beta, a margin between log-probs, instead.
    """
    margin_P = beta * (pairs.chosen.mean_log_prob_A - pairs.rejected.mean_log_prob_A)
    return -logsigmoid(margin_P - gamma)


def orpo(pairs: PairScores, *, odds_weight: NotNegative = 0.1) -> Tensor:
    """Odds ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7): (P,).

    The cross-entropy of the chosen answer per token, and `odds_weight` (the paper's lambda) times -log sigmoid of the
    log of the ratio between the odds of both answers. An answer's probability is that of its tokens, on geometric
    average. Prompts are not learnt, as they are by TRL's ORPOTrainer.
    """
    log_odds_ratio_P = _log_odds(pairs.chosen.mean_log_prob_A) - _log_odds(pairs.rejected.mean_log_prob_A)
    return -pairs.chosen.mean_log_prob_A - odds_weight * logsigmoid(log_odds_ratio_P)


def cpo(pairs: PairScores, *, beta: Positive = 0.1, nll_weight: NotNegative = 1.0) -> Tensor:
    """Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417, eq. 3): (P,).

    DPO's loss with a uniform reference, and minus the log-prob of the chosen answer, summed over its tokens as in the
    paper. The authors' program and TRL average that over the tokens of a batch: `cpo(nll_weight=0) + sft`.
    """
    margin_P = beta * (pairs.chosen.log_prob_A - pairs.rejected.log_prob_A)
    return -logsigmoid(margin_P) - nll_weight * pairs.chosen.log_prob_A


def slic(pairs: PairScores, *, delta: Positive = 1.0, nll_weight: NotNegative = 0.5) -> Tensor:
    """Sequence likelihood calibration with human feedback (Zhao et al. 2023, arXiv 2305.10425): (P,).

    What the gap of log-probs lacks of `delta` nats, and `nll_weight` (the paper's lambda) times minus the log-prob of
    the answer that is to stay likely: here the chosen one, where the paper has the target of supervised fine-tuning.
    """
    gap_P = pairs.chosen.log_prob_A - pairs.rejected.log_prob_A
    return relu(delta - gap_P) - nll_weight * pairs.chosen.log_prob_A


def _log_odds(log_p_A: Tensor) -> Tensor:
    """log p - log(1 - p), of at most 1 / tiny for a p that rounds to 1.

    log(1 - p) keeps its digits as p nears 1. Where p is small it has an absolute error of one rounding, which is
    nothing beside log p.
    """
    log_p_A = log_p_A.clamp(max=-torch.finfo(log_p_A.dtype).tiny)
    return log_p_A - torch.log(-torch.expm1(log_p_A))
