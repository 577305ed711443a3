"""Losses on pairs against a reference, worked out by hand: each objective's scores, options and losses.

All gaps, log-ratios and rewards named in comments are of chosen first, rejected second.
"""

from __future__ import annotations

import math
from typing import Any

from kilter.objectives import PairScores
from objectives.pairs import pairs_of

HandPoint = tuple[PairScores, dict[str, float], list[float]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


def pairs(chosen: list[float], rejected: list[float], **facts: list[float]) -> PairScores:
    """Pairs of these log-ratios. The reference's log-probs are not 0, nor the same for both, so that to forget them
    shows."""
    sides = (
        {"log_prob": [r + reference for r in side], "reference_log_prob": [reference] * len(side)}
        for side, reference in ((chosen, -7.0), (rejected, -4.5))
    )
    return pairs_of(*sides, facts)


def pair(chosen: dict[str, float], rejected: dict[str, float]) -> PairScores:
    """One pair from sums by name."""
    sides: Any = ({name: [value] for name, value in side.items()} for side in (chosen, rejected))
    return pairs_of(*sides, {})


def per_token(chosen: tuple[float, int], rejected: tuple[float, int]) -> PairScores:
    """One pair of log-ratios over so many tokens."""
    sides = (
        {"log_prob": ratio + reference, "reference_log_prob": reference, "tokens": tokens}
        for (ratio, tokens), reference in ((chosen, -7.0), (rejected, -4.5))
    )
    return pair(*sides)


def with_kl(gap: float, chosen: float, rejected: float) -> PairScores:
    """One pair of a gap, and of KL(reference, policy) along both answers; the other direction differs."""
    sides = (
        {"log_prob": log_prob, "reference_log_prob": -10.0, "kl_reference_policy": kl, "kl_policy_reference": other}
        for log_prob, kl, other in ((gap - 12.0, chosen, 0.5), (-12.0, rejected, 4.0))
    )
    return pair(*sides)


def of_tokens(policy: list[list[float]], reference: list[list[float]]) -> PairScores:
    """One pair from the log-probs of its answers' tokens."""
    shared = min(map(len, policy))
    sides = (
        {
            "log_prob": sum(own),
            "reference_log_prob": sum(other),
            "shared_log_prob": sum(own[:shared]),
            "shared_reference_log_prob": sum(other[:shared]),
        }
        for own, other in zip(policy, reference, strict=True)
    )
    return pair(*sides)


def of_distributions(chosen: list[list[float]], rejected: list[list[float]]) -> PairScores:
    """One pair from the next-token distributions along its answers, whose tokens are always the first outcome."""
    sides = (
        {
            "log_prob": sum(math.log(p[0]) for p in rows),
            "reference_log_prob": reference,
            "tokens": len(rows),
            "log_collision": sum(math.log(sum(x * x for x in p)) for p in rows),
        }
        for rows, reference in ((chosen, -3.0), (rejected, -2.0))
    )
    return pair(*sides)


def two_outcome_kl(chosen: float, label_smoothing: float) -> float:
    """KL from a modelled preference to a label smoothed that much."""
    modelled, labels = (chosen, 1 - chosen), (1 - label_smoothing, label_smoothing)
    return sum(p * math.log(p / q) for p, q in zip(modelled, labels, strict=True))


# Gaps of 6 and -4: margins of 3 and -2 at a beta of 0.5, of 1.5 and -1 at 0.25.
UNEQUAL = pairs([2, -1], [-4, 3])
# t is 2 and 1/2, and in the second pair 1/4 and 2.
HALVED = pairs([math.log(2), -2 * math.log(2)], [-math.log(2), math.log(2)])
# A longer answer of four tokens, two beyond the shorter one: -1 - 2 - (3 + 0.5) / 4 = -3.875 and
# -2 - 2 - (1 + 1) / 4 = -4.5, so a log-ratio of 0.625; against 2 of the shorter. Without the reference's weights the
# longer one has 6 - 3.875 = 2.125. With an alpha of 0.75 it is -5.625, and -5.5: -0.125, or 0.375.
LONGER = [-1.0, -2.0, -3.0, -0.5], [-2.0, -2.0, -1.0, -1.0]
SHORTER = [-0.5, -1.5], [-2.0, -2.0]
LONGER_CHOSEN = of_tokens([LONGER[0], SHORTER[0]], [LONGER[1], SHORTER[1]])
LONGER_REJECTED = of_tokens([SHORTER[0], LONGER[0]], [SHORTER[1], LONGER[1]])
# Chosen: 0.5 / 0.375 and 0.25 / 0.375, whose geometric mean is sqrt(8) / 3; rejected: 0.1 / 0.82. Their log-probs are
# log(1/8), against -3, and log(1/10), against -2.
LIKELY = of_distributions([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [[0.1, 0.9]])
LIKELY_WEIGHT = math.sqrt(8) / 3 * 0.1 / 0.82
LIKELY_GAP = (math.log(1 / 8) + 3) - (math.log(1 / 10) + 2)
# 0.9 / 0.82 for chosen, over one token, and 0.75 / 0.625 for rejected: together above 1.
LIKELIER = of_distributions([[0.9, 0.1]], [[0.75, 0.25]])
LIKELIER_WEIGHT = 0.9 / 0.82 * 0.75 / 0.625
LIKELIER_GAP = (math.log(0.9) + 3) - (math.log(0.75) + 2)

POINTS_WITH_REFERENCE: dict[str, list[HandPoint]] = {
    "dpo": [
        (UNEQUAL, {"beta": 0.5}, [softplus(-3), softplus(2)]),
        # A label in four flipped.
        (
            UNEQUAL,
            {"beta": 0.25, "label_smoothing": 0.25},
            [0.75 * softplus(-1.5) + 0.25 * softplus(1.5), 0.75 * softplus(1) + 0.25 * softplus(-1)],
        ),
    ],
    "soft_dpo": [
        # Certain, and three in four for the one whose log-ratio is lower.
        (
            pairs([2, -1], [-4, 3], preference=[1, 0.75]),
            {"beta": 0.5},
            [softplus(-3), 0.75 * softplus(2) + 0.25 * softplus(-2)],
        ),
        # A tie.
        (pairs([2], [-4], preference=[0.5]), {"beta": 0.25}, [0.5 * softplus(-1.5) + 0.5 * softplus(1.5)]),
    ],
    "robust": [
        # At a flip chance of 0.2: (0.8 L(m) - 0.2 L(-m)) / 0.6.
        (
            UNEQUAL,
            {"beta": 0.5, "label_smoothing": 0.2},
            [(0.8 * softplus(-3) - 0.2 * softplus(3)) / 0.6, (0.8 * softplus(2) - 0.2 * softplus(-2)) / 0.6],
        ),
        (UNEQUAL, {"beta": 0.25, "label_smoothing": 0.0}, [softplus(-1.5), softplus(1)]),
    ],
    "margin_dpo": [
        # Half of the raters' margins of 1 and 2 off 3 and -2.
        (
            pairs([2, -1], [-4, 3], margin=[1, 2]),
            {"beta": 0.5, "scale": 0.5},
            [softplus(-2.5), softplus(3)],
        ),
        (pairs([2], [-4], margin=[2]), {"beta": 0.25, "scale": 0.25}, [softplus(-1)]),
    ],
    "dpo_norm": [
        # 6 over 3 tokens and -3 over 2: a gap of 3.5.
        (per_token((6, 3), (-3, 2)), {"beta": 0.5}, [softplus(-1.75)]),
        # -2 over 4 and 3 over 2: a gap of -2.
        (per_token((-2, 4), (3, 2)), {"beta": 0.25}, [softplus(0.5)]),
    ],
    "ipo": [
        # The gaps 6 and -4 against 1 and 2.
        (UNEQUAL, {"beta": 0.5}, [25, 25]),
        (UNEQUAL, {"beta": 0.25}, [16, 36]),
    ],
    "ipo_mean": [
        (per_token((6, 3), (-3, 2)), {"beta": 0.5}, [6.25]),
        (per_token((-2, 4), (3, 2)), {"beta": 0.25}, [16]),
    ],
    "hinge": [
        (UNEQUAL, {"beta": 0.5}, [0, 3]),
        (pairs([1, 2], [-1, -6]), {"beta": 0.25}, [0.5, 0]),
    ],
    "exo": [
        (
            UNEQUAL,
            {"beta": 0.5, "label_smoothing": 0.1},
            [two_outcome_kl(sigmoid(3), 0.1), two_outcome_kl(sigmoid(-2), 0.1)],
        ),
        (
            UNEQUAL,
            {"beta": 0.25, "label_smoothing": 0.4},
            [two_outcome_kl(sigmoid(1.5), 0.4), two_outcome_kl(sigmoid(-1), 0.4)],
        ),
    ],
    "discopop": [
        # The margins 3 and -2 over a tau of 2.
        (
            UNEQUAL,
            {"beta": 0.5, "tau": 2.0},
            [
                sigmoid(-1.5) * softplus(-3) + sigmoid(1.5) * math.exp(-3),
                sigmoid(1) * softplus(2) + sigmoid(-1) * math.exp(2),
            ],
        ),
        # The margins 0.15 and -0.1 over 0.05.
        (
            UNEQUAL,
            {"beta": 0.025},
            [
                sigmoid(-3) * softplus(-0.15) + sigmoid(3) * math.exp(-0.15),
                sigmoid(2) * softplus(0.1) + sigmoid(-2) * math.exp(0.1),
            ],
        ),
    ],
    "nca": [
        # Rewards of 1 and -2, and of -0.5 and 1.5.
        (
            UNEQUAL,
            {"beta": 0.5},
            [
                softplus(-1) + 0.5 * softplus(1) + 0.5 * softplus(-2),
                softplus(0.5) + 0.5 * softplus(-0.5) + 0.5 * softplus(1.5),
            ],
        ),
        (pairs([2], [-4]), {"beta": 0.25}, [softplus(-0.5) + 0.5 * softplus(0.5) + 0.5 * softplus(-1)]),
    ],
    "sppo": [
        # Targets of 5 and -5: 2 and -4 miss them by 3 and 1, -1 and 3 by 6 and 8.
        (UNEQUAL, {"beta": 0.1}, [9 + 1, 36 + 64]),
        (pairs([2, 1], [-4, -1]), {"beta": 0.5}, [1 + 9, 0]),
    ],
    "sppo_soft": [
        # Targets of 3, 0 and 5.
        (
            pairs([2, 2, 2], [-4, -4, -4], preference=[0.8, 0.5, 1]),
            {"beta": 0.1},
            [1 + 1, 4 + 16, 9 + 1],
        ),
        (pairs([2], [-4], preference=[0.75]), {"beta": 0.5}, [2.25 + 12.25]),
    ],
    "apo_zero": [
        (UNEQUAL, {"beta": 0.5}, [1 - sigmoid(1) + sigmoid(-2), 1 - sigmoid(-0.5) + sigmoid(1.5)]),
        (UNEQUAL, {"beta": 0.25}, [1 - sigmoid(0.5) + sigmoid(-1), 1 - sigmoid(-0.25) + sigmoid(0.75)]),
    ],
    "apo_down": [
        (UNEQUAL, {"beta": 0.5}, [sigmoid(1) + 1 - sigmoid(3), sigmoid(-0.5) + 1 - sigmoid(-2)]),
        (UNEQUAL, {"beta": 0.25}, [sigmoid(0.5) + 1 - sigmoid(1.5), sigmoid(-0.25) + 1 - sigmoid(-1)]),
    ],
    "dpop": [
        # The second chosen lost 1 nat, 3 off its gap of -4.
        (UNEQUAL, {"beta": 0.5, "penalty": 3.0}, [softplus(-3), softplus(3.5)]),
        (UNEQUAL, {"beta": 0.25, "penalty": 0.0}, [softplus(-1.5), softplus(1)]),
    ],
    "fdpo_forward_kl": [
        # 1 - 1 / t is 1/2 and -1; -3 and 1/2.
        (HALVED, {"beta": 0.5}, [softplus(-0.75), softplus(1.75)]),
        (HALVED, {"beta": 0.25}, [softplus(-0.375), softplus(0.875)]),
    ],
    "fdpo_js": [
        # 2 t / (1 + t) is 4/3 and 2/3; 2/5 and 4/3.
        (HALVED, {"beta": 0.5}, [math.log1p(2**-0.5), math.log1p(math.sqrt(10 / 3))]),
        (HALVED, {"beta": 0.25}, [math.log1p(2**-0.25), math.log1p((10 / 3) ** 0.25)]),
    ],
    "fdpo_alpha": [
        # 2 (1 - 1 / sqrt t) is 2 - sqrt 2 and 2 - 2 sqrt 2; -2 and 2 - sqrt 2.
        (HALVED, {"beta": 0.5}, [softplus(-0.5 * math.sqrt(2)), softplus(0.5 * (4 - math.sqrt(2)))]),
        # 4/3 (1 - t^(-3/4)).
        (
            HALVED,
            {"beta": 0.25, "alpha": 0.25},
            [softplus((2**-0.75 - 2**0.75) / 3), softplus((4**0.75 - 2**-0.75) / 3)],
        ),
    ],
    "tdpo1": [
        # A gap of 6 less an excess of 3 - 1; then -4 less 2 - 5.
        (with_kl(6, 1, 3), {"beta": 0.5}, [softplus(-2)]),
        (with_kl(-4, 5, 2), {"beta": 0.25}, [softplus(0.25)]),
    ],
    "tdpo2": [
        # A quarter of the excess 2 off 6; twice the excess -3 off -4.
        (with_kl(6, 1, 3), {"beta": 0.5, "alpha": 0.25}, [softplus(-2.75)]),
        (with_kl(-4, 5, 2), {"beta": 0.25, "alpha": 2.0}, [softplus(-0.5)]),
    ],
    "ld_dpo": [
        (LONGER_CHOSEN, {"beta": 0.5, "alpha": 0.25}, [softplus(-0.5 * (0.625 - 2))]),
        (LONGER_REJECTED, {"beta": 0.25, "alpha": 0.75}, [softplus(-0.25 * (2 + 0.125))]),
    ],
    "ld_dpo_policy": [
        (LONGER_CHOSEN, {"beta": 0.5, "alpha": 0.25}, [softplus(-0.5 * (2.125 - 2))]),
        (LONGER_REJECTED, {"beta": 0.25, "alpha": 0.75}, [softplus(-0.25 * (2 - 0.375))]),
    ],
    "wpo": [
        (LIKELY, {"beta": 0.5}, [LIKELY_WEIGHT * softplus(-0.5 * LIKELY_GAP)]),
        (LIKELIER, {"beta": 0.25}, [LIKELIER_WEIGHT * softplus(-0.25 * LIKELIER_GAP)]),
    ],
    "wpo_clamped": [
        (LIKELY, {"beta": 0.5}, [LIKELY_WEIGHT * softplus(-0.5 * LIKELY_GAP)]),
        (LIKELIER, {"beta": 0.25}, [softplus(-0.25 * LIKELIER_GAP)]),
    ],
}
