"""Objectives on answers to be imitated. Axis: A answers."""

from __future__ import annotations

from torch import Tensor


def sft(log_prob_A: Tensor) -> Tensor:
    """Cross-entropy of supervised fine-tuning: minus the summed log-prob of each answer's tokens, in nats: (A,)."""
    return -log_prob_A
