"""Objectives on answers to be imitated. Axis: A answers."""

from __future__ import annotations

from torch import Tensor

from kilter.objectives.scores import Scores


def sft(answers: Scores) -> Tensor:
    """Cross-entropy of supervised fine-tuning: minus the summed log-prob of each answer's tokens, in nats: (A,)."""
    return -answers.log_prob_A
