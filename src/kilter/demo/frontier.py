"""The most reward that any model can have at a given KL from its reference, exactly.

Rafailov 2023 (arXiv 2305.18290), eq. 4: of all p, E_p[r] - beta KL(p, pi_ref) is greatest at

    pi*  proportional to  pi_ref exp(r / beta)

because it equals beta log Z - beta KL(p, pi*), Z being what normalises pi*. So a p no further from the
reference than pi* has no more reward. With several prompts it is their average KL that is bounded: one
Lagrange multiplier, hence one beta for all prompts.

Here beta runs from 0 (all mass on the best of what the reference can say) to inf (the reference itself).
"""

# S what may be answered to one prompt: its sentences and, last, everything off the grammar as one outcome

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.errors import ConfigError, ModelError

Floats: TypeAlias = NDArray[np.float64]

EXCESS = 1e-3  # how far above 1 float32 scores of all sentences may sum


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
    if not beta >= 0:
        raise ConfigError(f"beta is {beta}; it must be zero, positive or inf")
    shortfall_S = reward_S - reward_S[log_reference_S > -np.inf].max()
    with np.errstate(divide="ignore", over="ignore"):  # a shortfall over beta = 0 is -inf, and means it
        gain_S = np.divide(shortfall_S, beta, out=np.zeros_like(shortfall_S), where=shortfall_S < 0)
    log_weight_S = log_reference_S + gain_S
    log_p_S: Floats = log_weight_S - np.logaddexp.reduce(log_weight_S)
    return log_p_S


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
