"""Objectives on pairs: pure functions of the pairs' log-ratios, one loss for each pair.

A log-ratio is log pi(y given x) - log pi_ref(y given x), summed over the answer's tokens, in nats. Axis: P pairs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from kilter.objectives.scores import PairScores


def dpo(log_ratio: PairScores, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7): (P,).

    `label_smoothing` is the chance that a label is flipped: conservative DPO (Mitchell 2023, eq. 3).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> dpo(PairScores(chosen_P=torch.tensor([0.0, 10.0]), rejected_P=torch.tensor([0.0, -10.0])), beta=0.1)
    tensor([0.6931, 0.1269])
    """
    margin_P = beta * log_ratio.gap_P
    return -(1 - label_smoothing) * logsigmoid(margin_P) - label_smoothing * logsigmoid(-margin_P)


def ipo(log_ratio: PairScores, *, beta: float = 0.1) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17), `beta` being its tau: (P,).

    The paper's log-ratios are sums; the objective `ipo_mean` gives this function averages over tokens instead.

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> ipo(PairScores(chosen_P=torch.tensor([0.0, 5.0]), rejected_P=torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([25.,  0.])
    """
    return (log_ratio.gap_P - 1 / (2 * beta)) ** 2


def hinge(log_ratio: PairScores, *, beta: float = 0.1) -> Tensor:
    """Hinge loss on the margin, SLiC normalised by the reference (Liu et al. 2023, arXiv 2309.06657, eq. 11): (P,).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> hinge(PairScores(chosen_P=torch.tensor([0.0, 12.0]), rejected_P=torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([1., 0.])
    """
    return relu(1 - beta * log_ratio.gap_P)
