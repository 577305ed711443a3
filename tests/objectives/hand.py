"""Scores written down by hand, and points: what an objective makes of some.

A point is worth something only if it tells mutants apart: log-ratios that are not 0 and do not cancel, options that are
not the defaults, answers of different lengths where lengths matter. Axes: P pairs, A answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kilter.objectives import LabelledScores, Objective, PairScores, RankingScores, Scores


class Point(NamedTuple):
    """What an objective is given, its options, and the losses, one for each item; the batches that came `before`."""

    scores: Any
    options: dict[str, float]
    losses: list[float]
    before: tuple[Any, ...] = ()


def losses_at(
    point: Point, row: Objective, *, change: Callable[[Any], Any] = lambda scores: scores, **instead: float
) -> Tensor:
    """What the objective makes of a point, with what it remembers of the batches before and of this one.

    Its scores may be changed before it sees them, and options have other values than the point says.
    """
    options, state = row.defaults | point.options | instead, row.state
    for scores in (*point.before, point.scores) if row.remember is not None else ():
        state = row.remember(change(scores), **options, **state)
    return row.loss(change(point.scores), **options, **state)


def parts_of(scores: Any) -> tuple[Scores, ...]:
    """The answers that an objective is given, side by side."""
    match scores:
        case Scores():
            return (scores,)
        case PairScores(chosen, rejected):
            return chosen, rejected
        case LabelledScores():
            return tuple(scores)
        case RankingScores(answers):
            return (answers,)
    raise AssertionError(type(scores))


def with_parts(scores: Any, parts: Sequence[Scores]) -> Any:
    """The same arrangement of other answers."""
    match scores:
        case Scores():
            return parts[0]
        case PairScores():
            return scores._replace(chosen=parts[0], rejected=parts[1])
        case LabelledScores():
            return LabelledScores(*parts)
        case RankingScores():
            return scores._replace(answers=parts[0])
    raise AssertionError(type(scores))


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def answers(**sums: list[float]) -> Scores:
    """Answers of which these sums over tokens are known, in float64."""
    return Scores(**{name: numbers(*values) for name, values in sums.items()})


def pairs(chosen: list[float], rejected: list[float], **facts: list[float]) -> PairScores:
    """Pairs with these log-ratios and facts, in float64.

    The reference's log-probs are not 0, nor the same for both, so that to forget them shows.
    """
    margin_P, preference_P = (numbers(*facts[name]) if name in facts else None for name in ("margin", "preference"))
    sides = _against_a_reference(chosen, -7.0), _against_a_reference(rejected, -4.5)
    return PairScores(*sides, margin_P, preference_P)


def labelled(desirable: list[float], undesirable: list[float], mismatched: list[float]) -> LabelledScores:
    """Labelled answers with these log-ratios, in float64."""
    sides = zip((desirable, undesirable, mismatched), (-7.0, -4.5, -6.0), strict=True)
    return LabelledScores(*(_against_a_reference(log_ratio, reference) for log_ratio, reference in sides))


def rankings(*ranked: tuple[list[float], list[int]]) -> RankingScores:
    """Rankings, each of the log-ratios and the ranks of its answers, in float64."""
    log_ratio = [x for log_ratios, _ in ranked for x in log_ratios]
    ranking = [i for i, (log_ratios, _) in enumerate(ranked) for _ in log_ratios]
    rank = [rank for _, ranks in ranked for rank in ranks]
    ranking_A, rank_A = (torch.tensor(x, dtype=torch.int64) for x in (ranking, rank))
    return RankingScores(_against_a_reference(log_ratio, -5.0), ranking_A, rank_A)


def _against_a_reference(log_ratio: list[float], reference: float) -> Scores:
    return answers(log_prob=[x + reference for x in log_ratio], reference_log_prob=[reference] * len(log_ratio))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))
