"""Losses worked out by hand, for every objective: what `test_points.py` holds it to and each mutant of it breaks.

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


def pairs(chosen: list[float], rejected: list[float]) -> PairScores:
    """Pairs with these log-ratios, in float64. The reference's log-probs are not 0, so that to forget them shows."""
    return PairScores(_against_a_reference(chosen, -7.0), _against_a_reference(rejected, -4.5))


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


COMPARED_WITH_KL = PairScores(
    answers(log_prob=[-3], kl_policy_reference=[0.5], kl_reference_policy=[0.25]),
    answers(log_prob=[-4.5], kl_policy_reference=[1.5], kl_reference_policy=[0.75]),
)
KL_ALONG = answers(log_prob=[-3, -4.5], kl_policy_reference=[0.5, 1.5], kl_reference_policy=[0.25, 0.75])

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
    "bco": [
        # Rewards are 2, then 1.5 and 0.5 of desirable answers, -1, then 2.5 of undesirable ones; running means of 0.625
        # and 0.4375, and a shift of 0.53125 between them.
        Point(
            labelled([3, 1], [5], []),
            {"beta": 0.5, "momentum": 0.75},
            [softplus(-0.96875), softplus(0.03125), softplus(1.96875)],
            before=(labelled([4], [-2], []),),
        ),
        # Without undesirable answers their mean stays at 0; that of the others is 0.1 times 2, and the shift 0.1.
        Point(labelled([8], [], []), {"beta": 0.25}, [softplus(-1.9)]),
    ],
    "bco_pair": [
        # The mean of the rewards 1.5, 0.5, -0.5 and 1 is 0.625.
        Point(
            pairs([3, 1], [-1, 2]),
            {"beta": 0.5},
            [softplus(-0.875) + softplus(-1.125), softplus(0.125) + softplus(0.375)],
        ),
        # Rewards of 0.5 and -1.5 are each a whole nat from their mean.
        Point(pairs([2], [-6]), {"beta": 0.25}, [2 * softplus(-1)]),
    ],
    "aot": [
        # The policy's gaps are 2 and -2, the reference's 0 and 1: in rising order apart by -2 and 1.
        Point(
            PairScores(
                answers(log_prob=[-1, -4], reference_log_prob=[-2, -5]),
                answers(log_prob=[-3, -2], reference_log_prob=[-2, -6]),
            ),
            {"beta": 0.5},
            [softplus(1), softplus(-0.5)],
        ),
        # 3 and 1 against 2 and -4: apart by 5 and 1.
        Point(
            PairScores(
                answers(log_prob=[-1, -4], reference_log_prob=[-2, -9]),
                answers(log_prob=[-4, -5], reference_log_prob=[-4, -5]),
            ),
            {"beta": 0.2, "label_smoothing": 0.25},
            [0.75 * softplus(-1) + 0.25 * softplus(1), 0.75 * softplus(-0.2) + 0.25 * softplus(0.2)],
        ),
    ],
    "aot_unpaired": [
        # Log-ratios of -1 and 2 against -3 and 1, in rising order: apart by 2 and 1.
        Point(pairs([2, -1], [-3, 1]), {"beta": 0.5}, [softplus(-1), softplus(-0.5)]),
        # 1 and 5 against 0 and 10.
        Point(
            pairs([5, 1], [0, 10]),
            {"beta": 0.2, "label_smoothing": 0.25},
            [0.75 * softplus(-0.2) + 0.25 * softplus(0.2), 0.75 * softplus(1) + 0.25 * softplus(-1)],
        ),
    ],
    "beta_dpo": [
        # Margins are 1 and 0.5, then 2 and -1; their running mean is 0.375, then 0.4375. The last batch's is 0.5, so
        # beta is 1 + 2 (0.5 - 0.4375) times 0.25: 0.28125.
        Point(
            pairs([5, -1], [-3, 3]),
            {"beta": 0.25, "alpha": 2, "keep": 1, "momentum": 0.5},
            [softplus(-2.25), softplus(1.125)],
            before=(pairs([3, 2], [-1, 0]),),
        ),
        # Of five pairs three are drawn, and two have margins 14 deviations off. The running mean is 0.1 times 0.6, that
        # of the drawn 1, and beta 1 + 0.5 (1 - 0.06) times 0.5: 0.735.
        Point(
            pairs([1, 1000, 2, 3, 0], [0, 0, 0, 0, 1000]),
            {"beta": 0.5, "alpha": 0.5, "keep": 0.6},
            [5 / 3 * softplus(-0.735), 0, 5 / 3 * softplus(-1.47), 5 / 3 * softplus(-2.205), 0],
        ),
    ],
    "bt_kl": [
        # A gap of 1.5 in log-probs, and a mean of 1 nat along the answers.
        Point(COMPARED_WITH_KL, {"beta": 0.5}, [softplus(-1.5) + 0.5]),
        Point(COMPARED_WITH_KL, {"beta": 2}, [softplus(-1.5) + 2]),
        Point(COMPARED_WITH_KL, {"beta": 0}, [softplus(-1.5)]),
    ],
    "bt_kl_reference": [
        Point(COMPARED_WITH_KL, {"beta": 0.5}, [softplus(-1.5) + 0.25]),
        Point(COMPARED_WITH_KL, {"beta": 2}, [softplus(-1.5) + 1]),
        Point(COMPARED_WITH_KL, {"beta": 0}, [softplus(-1.5)]),
    ],
    "simpo": [
        # -2 a token against -3, times 2.5; then -3 against -1, times 0.5.
        Point(
            PairScores(answers(log_prob=[-4], tokens=[2]), answers(log_prob=[-12], tokens=[4])),
            {"beta": 2.5, "gamma": 0.5},
            [softplus(-2)],
        ),
        Point(
            PairScores(answers(log_prob=[-9], tokens=[3]), answers(log_prob=[-4], tokens=[4])),
            {"beta": 0.5, "gamma": 0.25},
            [softplus(1.25)],
        ),
    ],
    "orpo": [
        # Tokens have a half and a fifth: odds of 1 and 1/4, a ratio of 4.
        Point(
            PairScores(
                answers(log_prob=[2 * math.log(0.5)], tokens=[2]), answers(log_prob=[3 * math.log(0.2)], tokens=[3])
            ),
            {"odds_weight": 0.5},
            [math.log(2) + 0.5 * math.log(5 / 4)],
        ),
        # A fifth and four fifths: odds of 1/4 and 4, a ratio of 1/16.
        Point(
            PairScores(answers(log_prob=[-math.log(5)], tokens=[1]), answers(log_prob=[4 * math.log(0.8)], tokens=[4])),
            {"odds_weight": 0.25},
            [math.log(5) + 0.25 * math.log(17)],
        ),
    ],
    "cpo": [
        Point(
            PairScores(answers(log_prob=[-3, -6]), answers(log_prob=[-5, -2])),
            {"beta": 0.5},
            [softplus(-1) + 3, softplus(2) + 6],
        ),
        Point(
            PairScores(answers(log_prob=[-3]), answers(log_prob=[-5])),
            {"beta": 0.25, "nll_weight": 0.5},
            [softplus(-0.5) + 1.5],
        ),
    ],
    "slic": [
        # Gaps of 2 and -1, and one of 6 that is beyond 5.
        Point(
            PairScores(answers(log_prob=[-3, -4, -2]), answers(log_prob=[-5, -3, -8])),
            {"delta": 5, "nll_weight": 0.25},
            [3.75, 7, 0.5],
        ),
        Point(PairScores(answers(log_prob=[-4]), answers(log_prob=[-3])), {"delta": 0.25}, [3.25]),
    ],
    "plackett_luce": [
        # At a beta of log 2 log-ratios of 1, 0 and 2 weigh 2, 1 and 4: 4/7 2/3 for the order 4, 2, 1; then two answers.
        Point(
            rankings(([1, 0, 2], [2, 3, 1]), ([3, 1], [7, 5])),
            {"beta": math.log(2)},
            [math.log(21 / 8), math.log(5)],
        ),
        # Where 4 and 2 are tied, 4/7 2/3 + 2/7 4/5; where 2 and 1 are tied behind 4, 4/7.
        Point(
            rankings(([1, 0, 2], [0, 9, 0]), ([1, 0, 2], [1, 1, 0])),
            {"beta": math.log(2)},
            [math.log(105 / 64), math.log(7 / 4)],
        ),
    ],
    "sft": [
        Point(answers(log_prob=[-2.5, -0.25]), {}, [2.5, 0.25]),
        Point(answers(log_prob=[-12]), {}, [12]),
    ],
    "kl": [
        Point(KL_ALONG, {}, [0.5, 1.5]),
        Point(answers(log_prob=[-2], kl_policy_reference=[3], kl_reference_policy=[1]), {}, [3]),
    ],
    "kl_reference": [
        Point(KL_ALONG, {}, [0.25, 0.75]),
        Point(answers(log_prob=[-2], kl_policy_reference=[3], kl_reference_policy=[1]), {}, [1]),
    ],
}
