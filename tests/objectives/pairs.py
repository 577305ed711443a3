"""Pairs for the tests of objectives on pairs against a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kilter.objectives import OBJECTIVES, PairScores, Scores

MODULES = {f"kilter.objectives.{name}" for name in ("pairwise", "f_dpo", "tokenwise")}
# The rows of pairs against a reference, whose items do not depend on each other.
NAMES = [name for name, row in OBJECTIVES.items() if row.loss.__module__ in MODULES]

# Sums of three pairs' answers: any numbers that could be those of answers, and none at a kink of a loss.
CHOSEN = {
    "log_prob": [-9.0, -14.0, -6.5],
    "reference_log_prob": [-11.0, -11.0, -5.5],
    "tokens": [4.0, 7.0, 3.0],
    "shared_log_prob": [-9.0, -10.5, -6.5],
    "shared_reference_log_prob": [-11.0, -7.25, -5.5],
    "kl_policy_reference": [0.75, 1.5, 0.25],
    "kl_reference_policy": [0.5, 2.0, 0.75],
    "log_collision": [-6.0, -8.0, -7.0],
}
REJECTED = {
    "log_prob": [-16.0, -12.0, -15.5],
    "reference_log_prob": [-15.0, -13.0, -11.5],
    "tokens": [6.0, 5.0, 8.0],
    "shared_log_prob": [-10.0, -12.0, -7.5],
    "shared_reference_log_prob": [-12.5, -13.0, -6.25],
    "kl_policy_reference": [1.25, 0.5, 2.5],
    "kl_reference_policy": [1.0, 0.25, 3.0],
    "log_collision": [-9.0, -8.5, -11.0],
}
FACTS = {"margin": [0.5, 2.0, 1.25], "preference": [0.9, 0.75, 1.0]}


def float64(values: list[float] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def pairs_of(chosen: Mapping[str, Any], rejected: Mapping[str, Any], facts: Mapping[str, Any]) -> PairScores:
    """Pairs from sums and facts by name, in float64."""
    margin, preference = (float64(facts[name]) if name in facts else None for name in ("margin", "preference"))
    sides = (Scores(**{name: float64(value) for name, value in side.items()}) for side in (chosen, rejected))
    return PairScores(*sides, margin, preference)


def needed(name: str) -> list[str]:
    """The sums that a row says its loss looks at."""
    return ["log_prob", *(need for need in sorted(OBJECTIVES[name].needs) if need not in FACTS)]


def facts_needed(name: str) -> list[str]:
    return [fact for fact in FACTS if fact in OBJECTIVES[name].needs]
