"""Losses worked out by hand, for every objective: what `test_points.py` holds it to and each mutant of it breaks."""

from __future__ import annotations

import math

from kilter.objectives import PairScores
from objectives.hand import Point, answers, labelled, pairs, rankings, sigmoid, softplus
from objectives.points_with_reference import POINTS_WITH_REFERENCE

COMPARED_WITH_KL = PairScores(
    answers(log_prob=[-3], kl_policy_reference=[0.5], kl_reference_policy=[0.25]),
    answers(log_prob=[-4.5], kl_policy_reference=[1.5], kl_reference_policy=[0.75]),
)
KL_ALONG = answers(log_prob=[-3, -4.5], kl_policy_reference=[0.5, 1.5], kl_reference_policy=[0.25, 0.75])

POINTS: dict[str, list[Point]] = POINTS_WITH_REFERENCE | {
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
