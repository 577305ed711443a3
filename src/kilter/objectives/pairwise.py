"""Objectives on pairs: pure functions of the pairs' scores, one loss for each pair, in nats. Axis: P pairs."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from kilter.objectives.options import FlipChance, Positive
from kilter.objectives.scores import PairScores


def dpo(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: FlipChance = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7): (P,).

    `label_smoothing` is the chance that a label is flipped: conservative DPO (Mitchell 2023, eq. 3).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> dpo(PairScores.of_log_ratios(torch.tensor([0.0, 10.0]), torch.tensor([0.0, -10.0])), beta=0.1)
    tensor([0.6931, 0.1269])
    """
    margin_P = beta * pairs.gap_P
    return -(1 - label_smoothing) * logsigmoid(margin_P) - label_smoothing * logsigmoid(-margin_P)


def ipo(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17), `beta` being its tau: (P,).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> ipo(PairScores.of_log_ratios(torch.tensor([0.0, 5.0]), torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([25.,  0.])
    """
    return (pairs.gap_P - 1 / (2 * beta)) ** 2


def ipo_mean(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """The same on log-ratios averaged over an answer's tokens, where the paper has sums: (P,)."""
    gap_P = pairs.chosen.mean_log_ratio_A - pairs.rejected.mean_log_ratio_A
    return (gap_P - 1 / (2 * beta)) ** 2


def hinge(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Hinge loss on the margin, SLiC normalised by the reference (Liu et al. 2023, arXiv 2309.06657, eq. 11): (P,).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> hinge(PairScores.of_log_ratios(torch.tensor([0.0, 12.0]), torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([1., 0.])
    """
    return relu(1 - beta * pairs.gap_P)
