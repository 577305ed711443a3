"""How often a policy's answer is preferred to the reference's answer to the same prompt.

A judge is asked twice, with either answer first, and the two verdicts are averaged: what it has for a place cancels.
What it has for length does not. So the length-controlled win rate is that of answers of equal length, by a logistic
regression of the preference on the difference of lengths, d:

    log-odds = theta + phi tanh(d / standard deviation of d),    at equal length: sigmoid(theta)

(Dubois et al. 2024, arXiv 2404.04475; of their terms, that of the prompt's difficulty takes many models to tell, and is
left out). A standard normal prior on phi keeps it finite where length tells all wins from all losses.

Axes: N comparisons, P prompts, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kilter.errors import ConfigError
from kilter.measure.judges import Judge
from kilter.measure.statistics import Interval, mean_interval, wilson

Floats = NDArray[np.float64]

RESAMPLES = 1000
STEPS, LONGEST_STEP, TOLERANCE = 200, 1.0, 1e-10  # of Newton's method, in log-odds


@dataclass(frozen=True)
class WinRate:
    """Of a policy against its reference: the mean preference, 1/2 where they are level. Intervals are 95%.

    `length_controlled` is that at equal length; `first_preferred` is the judge's preference for whatever is shown
    first, 1/2 without a bias, and `flipped` the share of comparisons where the verdict went with the place. (Answers
    that are the same are a tie without asking; both are NaN where all are.) `longer` is by how many characters the
    policy's answers are longer.
    """

    win_rate: Interval
    length_controlled: Interval
    wins: int
    ties: int
    losses: int
    first_preferred: Interval
    flipped: float
    longer: float

    def summary(self) -> dict[str, float]:
        """One flat row for metrics."""
        return {
            **self.win_rate.named("win_rate"),
            **self.length_controlled.named("win_rate_length_controlled"),
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            **self.first_preferred.named("judge_first_preferred"),
            "judge_flipped": self.flipped,
        }

    def describe(self) -> str:
        """In one line."""
        rate, equal, first = (
            f"{value:.3f} ({low:.3f}, {high:.3f})"
            for value, low, high in (self.win_rate, self.length_controlled, self.first_preferred)
        )
        return (
            f"Win rate {rate}, at equal length {equal}: {self.wins:,} wins, {self.ties:,} ties, {self.losses:,} "
            f"losses; answers {abs(self.longer):.1f} characters {'shorter' if self.longer < 0 else 'longer'}. "
            f"What is shown first has a preference of {first}, and {self.flipped:.0%} of verdicts turned with the order"
        )


def win_rate(
    prompts: Sequence[str],
    policy: Sequence[str],
    reference: Sequence[str],
    judge: Judge,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> WinRate:
    """Ask a judge of a policy's and a reference's answers to prompts, one of each for every prompt given.

    `judge(prompt, first, second)` says from 0 to 1 how much the first is preferred (`judge_by_reward` makes one of a
    reward); it is asked in both orders, unless the answers are the same. A prompt given K times counts once, by the
    mean of its K. Intervals are percentiles of a bootstrap over prompts, each of which keeps both its answers together;
    where all prompts say the same, Wilson's stands in.
    Raises ConfigError where the lists differ in length or are empty, and for a verdict that is not within 0 and 1.

    >>> prompts, policy, reference = ["how?", "why?", "who?"], ["so", "thus", "me"], ["like this", "thus", "I"]
    >>> found = win_rate(prompts, policy, reference, lambda prompt, first, second: float(len(first) < len(second)))
    >>> found.win_rate.value, (found.wins, found.ties, found.losses)
    (0.5, (1, 1, 1))
    """
    if not len(prompts) == len(policy) == len(reference) > 0:
        raise ConfigError(
            f"found {len(prompts)} prompts, {len(policy)} answers of the policy and {len(reference)} of the reference; "
            "give one of each for every prompt, and at least one"
        )
    verdict_N2 = np.array([_verdicts(judge, *row) for row in zip(prompts, policy, reference, strict=True)])
    preference_N = verdict_N2.mean(axis=1)
    longer_N = np.array([len(a) - len(b) for a, b in zip(policy, reference, strict=True)], np.float64)
    names, prompt_N = np.unique(np.array([*prompts], dtype=object), return_inverse=True)
    share_N = 1 / np.bincount(prompt_N)[prompt_N]

    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    count_BP = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    weight_BN = np.concatenate([share_N[None], count_BP[:, prompt_N] * share_N])  # the prompts as they are come first
    asked_N = np.array([a != b for a, b in zip(policy, reference, strict=True)])
    first_N = (verdict_N2[:, 0] + 1 - verdict_N2[:, 1])[asked_N] / 2
    turned_N = (verdict_N2[asked_N] - 0.5).prod(axis=1) < 0
    return WinRate(
        _interval(weight_BN @ preference_N / weight_BN.sum(axis=1), len(names)),
        _interval(at_equal_length(preference_N, longer_N, weight_BN), len(names)),
        wins=int((preference_N > 0.5).sum()),
        ties=int((preference_N == 0.5).sum()),
        losses=int((preference_N < 0.5).sum()),
        first_preferred=mean_interval(first_N),
        flipped=float(turned_N.mean()) if len(turned_N) else math.nan,
        longer=float(longer_N.mean()),
    )


def at_equal_length(preference_N: Floats, longer_N: Floats, weight_BN: Floats) -> Floats:
    """The win rate at equal length by this module's regression, for each weighting of the comparisons: (B,).

    Where no comparison is of another length, or all are lost or all are won, it is the win rate itself.
    """
    spread = float(longer_N.std(ddof=1)) if len(longer_N) > 1 else 0.0
    length_N = np.tanh(longer_N / spread) if spread else np.zeros_like(longer_N)
    rate_B: Floats = weight_BN @ preference_N / weight_BN.sum(axis=1)
    open_B = (rate_B > 0) & (rate_B < 1)
    weight_BN, rate = weight_BN[open_B], rate_B[open_B]
    theta_B, phi_B = np.log(rate) - np.log1p(-rate), np.zeros_like(rate)
    for _ in range(STEPS):
        p_BN = _sigmoid(theta_B[:, None] + phi_B[:, None] * length_N)
        error_BN, curvature_BN = weight_BN * (preference_N - p_BN), weight_BN * p_BN * (1 - p_BN)
        slope_theta, slope_phi = error_BN.sum(axis=1), error_BN @ length_N - phi_B
        a, b, c = curvature_BN.sum(axis=1), curvature_BN @ length_N, curvature_BN @ length_N**2 + 1
        determinant = a * c - b * b
        step_2B = np.stack([c * slope_theta - b * slope_phi, a * slope_phi - b * slope_theta]) / determinant
        step_2B /= np.maximum(1, np.abs(step_2B).max(axis=0) / LONGEST_STEP)
        theta_B, phi_B = theta_B + step_2B[0], phi_B + step_2B[1]
        if np.abs(step_2B).max(initial=0) < TOLERANCE:
            break
    rate_B[open_B] = _sigmoid(theta_B)
    return rate_B


def _verdicts(judge: Judge, prompt: str, policy: str, reference: str) -> tuple[float, float]:
    """The preference for the policy's answer, shown first and shown second."""
    if policy == reference:
        return 0.5, 0.5
    first, second = judge(prompt, policy, reference), judge(prompt, reference, policy)
    for said in (first, second):
        if not isinstance(said, (int, float, np.floating, np.bool_)) or not 0 <= said <= 1:
            raise ConfigError(
                f"the judge said {said!r} of two answers to {prompt[-60:]!r}; it should say how much the first is "
                "preferred, from 0 to 1"
            )
    return float(first), 1 - float(second)


def _interval(value_B: Floats, prompts: int) -> Interval:
    """The first value, of the prompts as they are, with percentiles of the others."""
    value, resampled = float(value_B[0]), value_B[1:]
    if not np.ptp(resampled):
        return wilson(value * prompts, prompts)
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return Interval(value, low, high)


def _sigmoid(x: Floats) -> Floats:
    value: Floats = 0.5 + 0.5 * np.tanh(x / 2)  # exp(-x) would overflow
    return value
