"""Which distribution an objective on pairs ends in, given all the comparisons there could be.

Of two answers, drawn apart, a judge prefers one with the probability sigmoid(reward difference) of Bradley and Terry.
The population optimum is the distribution with the least expected loss of all that there are: no model, no steps.
"""

# S what may be answered to one prompt, R the rewards that occur

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.demo.frontier import f_tilt, tilt
from kilter.divergence import FDivergence, f_divergence_named

Floats: TypeAlias = NDArray[np.float64]
Optimum: TypeAlias = Callable[[Floats, Floats, Floats], Floats]


def population_optimum(objective: str, options: Mapping[str, float]) -> Optimum | None:
    """The optimum of an objective with its options, as a function of the reference's log-probs, the rewards and the
    probabilities of what is drawn for comparison, each (S,); None where there is none that is known in closed form.

    >>> optimum = population_optimum("dpo", {"beta": 1.0, "label_smoothing": 0.0})
    >>> coin, rewards = np.log([0.5, 0.5]), np.log([3.0, 1.0])
    >>> np.exp(optimum(coin, rewards, np.exp(coin))).round(6)
    array([0.75, 0.25])
    """
    penalty = penalty_of(objective, options)
    if penalty is not None:
        beta = options["beta"]
        return lambda log_reference_S, reward_S, _: f_tilt(log_reference_S, reward_S, beta, penalty)
    if objective == "ipo":
        return lambda log_reference_S, reward_S, drawn_S: by_preference(
            log_reference_S, reward_S, drawn_S, options["beta"]
        )
    return None


def penalty_of(objective: str, options: Mapping[str, float]) -> FDivergence | None:
    """The f-divergence whose penalty an objective stands for; None if it stands for none.

    Rafailov 2023 (arXiv 2305.18290), eq. 3, and Wang et al. 2023 (arXiv 2309.16240), theorem 1. By those the margin of
    two answers is beta times a difference of f'; where that is the judge's log-odds, the loss has its least value.
    Whatever is drawn for comparison then makes no difference. With smoothed labels, the judge's odds are out of reach.
    """
    match objective:
        case "dpo" if not options.get("label_smoothing"):
            return f_divergence_named("forward_kl")
        case "soft_dpo":
            return f_divergence_named("forward_kl")
        case "fdpo_forward_kl":  # KL(reference, policy), where f_divergence(policy, reference) is meant
            return f_divergence_named("reverse_kl")
        case "fdpo_js":
            return _twice(f_divergence_named("js"))
        case "fdpo_alpha":
            return f_divergence_named("alpha", order=options["alpha"])
    return None


def nats_per_reward(log_p_S: Floats, log_reference_S: Floats, beta: float, f: FDivergence) -> float:
    """How far an answer's log-prob moves at the optimum where its reward is mistaken by 1: 1 / (beta t f''(t)).

    Root mean square over the optimum, `log_p_S`. It is 1 / beta for KL. Where f' has a limit, and t comes near it, a
    small mistake about the reward is a large one about the optimum.
    """
    possible_S = log_p_S > -np.inf
    log_ratio_S, step = log_p_S[possible_S] - log_reference_S[possible_S], 1e-4
    slope_S = (f.derivative_at(log_ratio_S + step) - f.derivative_at(log_ratio_S - step)) / (2 * step)
    return float(np.sqrt(np.exp(log_p_S[possible_S]) @ (beta * slope_S) ** -2.0))


def by_preference(log_reference_S: Floats, reward_S: Floats, drawn_S: Floats, beta: float) -> Floats:
    """IPO's: the reference tilted by the chance to be preferred to what is drawn (Azar et al. 2023, arXiv 2310.12036,
    eq. 7)."""
    reward_R, row_S = np.unique(reward_S, return_inverse=True)
    drawn_R = np.bincount(row_S, drawn_S)
    preferred_R = 0.5 + 0.5 * np.tanh((reward_R[:, None] - reward_R) / 2) @ drawn_R
    return tilt(log_reference_S, preferred_R[row_S], beta)


def _twice(f: FDivergence) -> FDivergence:
    """The paper's JS penalty is twice the usual divergence."""
    return replace(
        f,
        name=f"2 {f.name}",
        formula=f"2 ({f.formula})",
        row_sum=lambda pair: 2 * f.row_sum(pair),
        at_zero=2 * f.at_zero,
        slope_at_infinity=2 * f.slope_at_infinity,
        slope=lambda log_ratio: 2 * f.derivative_at(log_ratio),
        inner_conjugate=None,
    )
