"""Objectives on answers that are labelled one by one. Axis: A answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.objectives.options import Momentum, Positive
from kilter.objectives.scores import LabelledScores, Scores


def kto(
    answers: LabelledScores,
    *,
    beta: Positive = 0.1,
    desirable_weight: Positive = 1.0,
    undesirable_weight: Positive = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8): (A,), desirable answers first.

    The reference point is the mean log-ratio of mismatched answers, at least 0 (0 where there are none), through which
    no gradient flows: the paper's biased but stable estimate of KL(policy, reference) (section 4.1). Answers of one
    kind may be missing.
    """
    mismatched_A = answers.mismatched.log_ratio_A.detach()
    reference_point = mismatched_A.mean().clamp(min=0) if len(mismatched_A) else mismatched_A.new_zeros(())
    desirable_A = 1 - torch.sigmoid(beta * (answers.desirable.log_ratio_A - reference_point))
    undesirable_A = 1 - torch.sigmoid(beta * (reference_point - answers.undesirable.log_ratio_A))
    return torch.cat([desirable_weight * desirable_A, undesirable_weight * undesirable_A])


def bco(
    answers: LabelledScores,
    *,
    beta: Positive = 0.1,
    momentum: Momentum = 0.9,
    desirable_mean: float,
    undesirable_mean: float,
) -> Tensor:
    """Binary classifier optimisation (Jung et al. 2024, arXiv 2404.04656): (A,), desirable answers first.

    The binary cross-entropy of a classifier whose logit is the reward, `beta` times the log-ratio, less a shift: the
    middle between the running mean rewards of desirable and undesirable answers. Left out is the paper's weighting of
    undesirable answers by a classifier of prompts, for data whose good and bad answers are to different prompts. TRL,
    while it had this objective, shifted by the mean over all answers so far, whatever their labels.
    """
    shift = (desirable_mean + undesirable_mean) / 2
    desirable_A = -logsigmoid(beta * answers.desirable.log_ratio_A - shift)
    undesirable_A = -logsigmoid(shift - beta * answers.undesirable.log_ratio_A)
    return torch.cat([desirable_A, undesirable_A])


def remember_rewards(
    answers: LabelledScores, *, beta: float, momentum: float, desirable_mean: float, undesirable_mean: float
) -> dict[str, float]:
    """The running mean reward of answers of each kind, from 0; one that a batch lacks stays as it is."""

    def after(mean: float, kind: Scores) -> float:
        return momentum * mean + (1 - momentum) * beta * float(kind.log_ratio_A.mean()) if len(kind) else mean

    return {
        "desirable_mean": after(desirable_mean, answers.desirable),
        "undesirable_mean": after(undesirable_mean, answers.undesirable),
    }
