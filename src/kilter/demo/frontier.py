"""The most reward that any model can have at a given KL from its reference, exactly.

Rafailov 2023 (arXiv 2305.18290), eq. 4: of all p, E_p[r] - beta KL(p, pi_ref) is greatest at

    pi*  proportional to  pi_ref exp(r / beta)

because it equals beta log Z - beta KL(p, pi*), Z being what normalises pi*. So a p no further from the
reference than pi* has no more reward. With several prompts it is their average KL that is bounded: one
Lagrange multiplier, hence one beta for all prompts.

Here beta runs from 0 (all mass on the best of what the reference can say) to inf (the reference itself).

With any other f-divergence D_f(p, q) = E_q[f(p / q)] for the KL (Wang et al. 2023, arXiv 2309.16240, theorem 1), the
conditions of Karush, Kuhn and Tucker are, t being pi* / pi_ref and lambda the same number for all answers of a prompt,

    beta f'(t) = r - lambda where t > 0,    beta f'(0) >= r - lambda where t = 0

and KL is the case f'(t) = log t.
"""

# S what may be answered to one prompt: its sentences and, last, everything off the grammar as one outcome

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.divergence import FDivergence
from kilter.errors import ConfigError, ModelError

Floats: TypeAlias = NDArray[np.float64]

EXCESS = 1e-3  # how far above 1 float32 scores of all sentences may sum
FRONTIER = np.geomspace(0.12, 20, 60)  # betas at which a curve of optima is drawn
LEAST_LOG_RATIO = -1e9  # what has lost more than this, in nats, has no probability


class Optimum(NamedTuple):
    """The end of a search for the best model at some KL: `tilt` by `beta` is that model."""

    beta: float
    expected_reward: float


def with_off_grammar(log_sentence: Floats) -> Floats:
    """Append to the log-probs of all sentences, shape (S - 1,), that of saying anything else.

    Raises ModelError where the sentences' probabilities sum to more than 1.
    """
    total = float(np.exp(log_sentence).sum())
    if not total <= 1 + EXCESS:
        raise ModelError(f"the sentences' probabilities sum to {total:.6g}, not 1 or less; score them in float32")
    log_sentence = log_sentence - np.log(max(total, 1.0))
    return np.append(log_sentence, np.log1p(-total) if total < 1 else -np.inf)


def tilt(log_reference_S: Floats, reward_S: Floats, beta: float) -> Floats:
    """The log-probs of pi*, proportional to pi_ref exp(reward / beta): shapes (S,), beta in reward per nat.

    Raises ConfigError unless 0 <= beta <= inf.
    """
    return normalised(log_reference_S + _shortfall_in_nats(log_reference_S, reward_S, beta))


def f_tilt(log_reference_S: Floats, reward_S: Floats, beta: float, f: FDivergence) -> Floats:
    """The log-probs of the p with the most E_p[reward] - beta E_ref[f(p / ref)]: shapes (S,), beta in units of reward.

    Of those p that the reference can say; where f(t) stays finite at t = 0, some of it may have no probability left.
    The best answer's t lies between 1 (no other may exceed it, and their mean is 1) and 1 / its probability, where
    their sum is searched for 1; each other t follows from f'(t) = f'(best t) + (r - best r) / beta.
    Raises ConfigError unless 0 <= beta <= inf.
    """
    possible_S = log_reference_S > -np.inf
    gain_S = _shortfall_in_nats(log_reference_S, reward_S, beta)[possible_S]
    gain_R, row_S = np.unique(gain_S, return_inverse=True)  # answers of the same reward share their t
    log_mass_R = np.array([np.logaddexp.reduce(log_reference_S[possible_S][row_S == r]) for r in range(len(gain_R))])

    def log_ratios(best: float) -> Floats:
        return _log_ratio_where(f, f.derivative_at(np.float64(best)) + gain_R, best)

    def sums_below_one(best: float) -> bool:
        return bool(np.logaddexp.reduce(log_mass_R + log_ratios(best)) < 0)

    lower, upper = 0.0, max(-float(log_mass_R[-1]), 0.0)
    while lower < (middle := (lower + upper) / 2) < upper:
        lower, upper = (middle, upper) if sums_below_one(middle) else (lower, middle)
    log_p_S = np.full_like(log_reference_S, -np.inf)
    log_p_S[possible_S] = log_reference_S[possible_S] + log_ratios(upper)[row_S]
    return normalised(log_p_S)


def normalised(log_weight_S: Floats) -> Floats:
    """Log-probs proportional to weights."""
    log_p_S: Floats = log_weight_S - np.logaddexp.reduce(log_weight_S)
    return log_p_S


def _shortfall_in_nats(log_reference_S: Floats, reward_S: Floats, beta: float) -> Floats:
    """By how much each reward falls short of the best that the reference can say, over beta: <= 0 where it can."""
    if not beta >= 0:
        raise ConfigError(f"beta is {beta}; it must be zero, positive or inf")
    shortfall_S = reward_S - reward_S[log_reference_S > -np.inf].max()
    with np.errstate(divide="ignore", over="ignore"):  # a shortfall over beta = 0 is -inf, and means it
        gain_S: Floats = np.divide(shortfall_S, beta, out=np.zeros_like(shortfall_S), where=shortfall_S < 0)
    return gain_S


def _log_ratio_where(f: FDivergence, slope_R: Floats, most: float) -> Floats:
    """The log t <= most at which f'(t) is each slope, to the last digit; -inf where it is greater at every t."""

    def is_below(log_ratio_R: Floats) -> NDArray[np.bool_]:
        with np.errstate(over="ignore"):  # a slope of -inf is one
            below_R: NDArray[np.bool_] = f.derivative_at(log_ratio_R) <= slope_R
        return below_R

    lower_R, upper_R = np.full_like(slope_R, LEAST_LOG_RATIO), np.full_like(slope_R, most)
    somewhere_R = is_below(lower_R)
    while True:
        middle_R = (lower_R + upper_R) / 2
        if not ((lower_R < middle_R) & (middle_R < upper_R)).any():
            return np.where(somewhere_R, upper_R, -np.inf)
        below_R = is_below(middle_R)
        lower_R, upper_R = np.where(below_R, middle_R, lower_R), np.where(below_R, upper_R, middle_R)


def expected_reward(log_p_S: Floats, reward_S: Floats) -> float:
    """E_p[reward]."""
    return float(np.exp(log_p_S) @ reward_S)


def answer_kl(log_p_S: Floats, log_q_S: Floats) -> float:
    """KL(p, q) over whole answers, in nats: 0 log 0 is 0, and inf where p > 0 = q."""
    possible_S = log_p_S > -np.inf
    log_p, log_q = log_p_S[possible_S], log_q_S[possible_S]
    if np.isneginf(log_q).any():
        return np.inf
    return max(float(np.exp(log_p) @ (log_p - log_q)), 0.0)  # rounding can put it a hair below zero


def over_prompts(values: Sequence[float], prompt_probability: Floats) -> float:
    """The average over prompts; one that is never asked does not count, even if its value is inf."""
    shares = prompt_probability.tolist()
    return float(sum(share * value for share, value in zip(shares, values, strict=True) if share > 0))


def optimum_at_kl(
    log_references: Sequence[Floats],
    rewards: Sequence[Floats],
    prompt_probability: Floats,
    kl: float,
) -> Optimum:
    """The beta at which pi* is `kl` nats from the reference, averaged over prompts, and its expected reward.

    There is one array for each prompt, shape (S,). At kl = 0 the answer is the reference itself, beta inf.
    From the largest KL that a pi* has, it is the limit, beta 0: the best reward possible, which no KL can
    better.
    Raises ConfigError for a negative kl.
    """
    if not kl >= 0:
        raise ConfigError(f"kl is {kl}; it must be zero or positive")

    def optima(beta: float) -> list[Floats]:
        return [tilt(log_q_S, reward_S, beta) for log_q_S, reward_S in zip(log_references, rewards, strict=True)]

    references = optima(np.inf)

    def kl_at(beta: float) -> float:
        return over_prompts(list(map(answer_kl, optima(beta), references)), prompt_probability)

    beta = _where_falling(kl_at, kl)
    return Optimum(beta, over_prompts(list(map(expected_reward, optima(beta), rewards)), prompt_probability))


def frontier(
    log_references: Sequence[Floats], rewards: Sequence[Floats], prompt_probability: Floats
) -> list[tuple[float, float]]:
    """KL from the reference and the most reward there is at it, both averaged over prompts, for betas of FRONTIER."""
    points = []
    for beta in FRONTIER:
        optima = [tilt(log_q_S, reward_S, beta) for log_q_S, reward_S in zip(log_references, rewards, strict=True)]
        kl = over_prompts(list(map(answer_kl, optima, log_references)), prompt_probability)
        points.append((kl, over_prompts(list(map(expected_reward, optima, rewards)), prompt_probability)))
    return points


def _where_falling(function: Callable[[float], float], level: float) -> float:
    """Where on [0, inf] a function falling to 0 reaches a level, to the last digit; 0 if it starts below."""
    if level == 0:
        return np.inf
    if function(0.0) <= level:
        return 0.0
    lower, upper = 0.0, 1.0
    while function(upper) > level:
        lower, upper = upper, 2 * upper
    while lower < (middle := (lower + upper) / 2) < upper:
        lower, upper = (middle, upper) if function(middle) > level else (lower, middle)
    return upper
