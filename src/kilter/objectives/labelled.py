"""Objectives on answers that are labelled one by one. Axis: A answers."""

from __future__ import annotations

import torch
from torch import Tensor

from kilter.objectives.options import Positive
from kilter.objectives.scores import LabelledScores


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
