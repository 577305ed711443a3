"""Losses worked out by hand, for every objective: what `test_points.py` holds it to and each mutant of it breaks.

A point is worth something only if it tells mutants apart: log-ratios that are not 0 and do not cancel, options that are
not the defaults, answers of different lengths where lengths matter. Axes: P pairs, A answers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kilter.objectives import LabelledScores, PairScores, Scores


class Point(NamedTuple):
    """What an objective is given; its options, and what it remembers; the losses, one for each item."""

    scores: Any
    options: dict[str, float]
    losses: list[float]


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def answers(**sums: list[float]) -> Scores:
    """Answers of which these sums over tokens are known, in float64."""
    return Scores(**{name: numbers(*values) for name, values in sums.items()})


def pairs(chosen: list[float], rejected: list[float]) -> PairScores:
    """Pairs with these log-ratios, in float64. The reference's log-probs are not 0, so that to forget them shows."""
    return PairScores(_against_a_reference(chosen, -7.0), _against_a_reference(rejected, -4.5))


def labelled(desirable: list[float], undesirable: list[float], mismatched: list[float]) -> LabelledScores:
    """Labelled answers with these log-ratios, in float64."""
    sides = zip((desirable, undesirable, mismatched), (-7.0, -4.5, -6.0), strict=True)
    return LabelledScores(*(_against_a_reference(log_ratio, reference) for log_ratio, reference in sides))


def _against_a_reference(log_ratio: list[float], reference: float) -> Scores:
    return answers(log_prob=[x + reference for x in log_ratio], reference_log_prob=[reference] * len(log_ratio))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


POINTS: dict[str, list[Point]] = {
    "dpo": [
        # Gaps of 3 and -1: margins of 1.5 and -0.5.
        Point(pairs([2, 0.5], [-1, 1.5]), {"beta": 0.5}, [softplus(-1.5), softplus(0.5)]),
        # A margin of 1, and a label in four flipped.
        Point(pairs([4], [-1]), {"beta": 0.2, "label_smoothing": 0.25}, [0.75 * softplus(-1) + 0.25 * softplus(1)]),
    ],
    "ipo": [
        # The gaps 3 and -1 against 1 / (2 beta) = 2.
        Point(pairs([2, 0.5], [-1, 1.5]), {"beta": 0.25}, [1, 9]),
        Point(pairs([4], [-1]), {"beta": 0.5}, [16]),
    ],
    "ipo_mean": [
        # 6 nats over 2 tokens less 4 over 8: a gap of 2.5 against 2.
        Point(
            PairScores(
                answers(log_prob=[-1], reference_log_prob=[-7], tokens=[2]),
                answers(log_prob=[-2], reference_log_prob=[-6], tokens=[8]),
            ),
            {"beta": 0.25},
            [0.25],
        ),
        # -3 over 4 less 1 over 2: -1.25 against 1.
        Point(
            PairScores(
                answers(log_prob=[-9], reference_log_prob=[-6], tokens=[4]),
                answers(log_prob=[-2], reference_log_prob=[-3], tokens=[2]),
            ),
            {"beta": 0.5},
            [5.0625],
        ),
    ],
    "hinge": [
        # Margins of 0.75 and -0.25, and one beyond 1.
        Point(pairs([2, 0.5, 6], [-1, 1.5, 1]), {"beta": 0.25}, [0.25, 1.25, 0]),
        Point(pairs([1], [0.5]), {"beta": 0.5}, [0.75]),
    ],
    "kto": [
        # The reference point is 3, the mean of 1 and 5; its distance from desirable 2 and 5 and undesirable 1 counts.
        Point(
            labelled([2, 5], [1], [1, 5]),
            {"beta": 0.5, "desirable_weight": 3, "undesirable_weight": 0.25},
            [3 * sigmoid(0.5), 3 * sigmoid(-1), 0.25 * sigmoid(-1)],
        ),
        # The mean of -9 and 3 is below 0: the reference point is 0.
        Point(labelled([2], [1], [-9, 3]), {"beta": 0.5}, [sigmoid(-1), sigmoid(0.5)]),
    ],
    "sft": [
        Point(answers(log_prob=[-2.5, -0.25]), {}, [2.5, 0.25]),
        Point(answers(log_prob=[-12]), {}, [12]),
    ],
}
