"""DPO under a penalty other than KL(policy, reference): f-DPO (Wang et al. 2023, arXiv 2309.16240). Axis: P pairs.

Where the reward is penalised by beta D_f(policy, reference) = beta E_reference f(policy / reference), an answer's
implied reward is beta f'(policy / reference), up to a constant of its prompt: the margin is beta times the difference
of f' between chosen and rejected. That needs f' to be -inf at 0, so that the optimum rules nothing out. For
KL(policy, reference), f' is the log-ratio and the objective is `dpo`.

What the paper calls forward KL is KL(reference, policy). Its f, and that of `kilter.divergence`, are functions of
policy / reference; there KL(reference, policy), with the policy as first argument, has the name "reverse_kl".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.divergence import f_divergence_named
from kilter.objectives.options import Positive, Share
from kilter.objectives.scores import PairScores

# How much of a dtype's largest exponent f' may use: the rest is for what it is multiplied with.
PART_OF_EXPONENTS = 0.75


def fdpo_forward_kl(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """DPO under a penalty of beta KL(reference, policy): (P,). f'(t) = 1 - 1 / t.

    `fdpo_alpha` with an alpha of 0. A chosen answer that has lost much counts exponentially.
    """
    return fdpo_alpha(pairs, beta=beta, alpha=0.0)


def fdpo_js(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """DPO under a penalty of beta (KL(policy, m) + KL(reference, m)), m being the mean of both: (P,).

    f'(t) = log(2 t / (1 + t)). The penalty is *twice* the Jensen-Shannon divergence in its usual scale, which is at
    most log 2: the paper's, and TRL's. `kilter.divergence.js` has the usual one.
    """
    divergence = f_divergence_named("js")
    chosen_P, rejected_P = (2 * divergence.derivative_at(answers.log_ratio_A) for answers in pairs[:2])
    return -logsigmoid(beta * (chosen_P - rejected_P))


def fdpo_alpha(pairs: PairScores, *, beta: Positive = 0.1, alpha: Share = 0.5) -> Tensor:
    """DPO under a penalty of beta times the alpha-divergence: (P,). f'(t) = (t^(alpha - 1) - 1) / (alpha - 1).

    That is (sum policy^alpha reference^(1 - alpha) - 1) / (alpha (alpha - 1)): KL(policy, reference) at an alpha of 1,
    where this is `dpo`, and KL(reference, policy) at 0. TRL counts alpha likewise; the paper's alpha is 1 less this
    one.
    """
    chosen_P, rejected_P = (_alpha_slope(alpha, answers.log_ratio_A) for answers in pairs[:2])
    return -logsigmoid(beta * (chosen_P - rejected_P))


def _alpha_slope(alpha: float, log_ratio_P: Tensor) -> Tensor:
    """f'(t) = (1 - exp(-rate log t)) / rate, rate = 1 - alpha, continued along its tangent where exp would overflow.

    So all is finite, and gradients keep their sign, where f' is beyond any number of the dtype.
    """
    rate = 1 - alpha
    most = PART_OF_EXPONENTS * math.log(torch.finfo(log_ratio_P.dtype).max)
    inside_P = log_ratio_P.clamp(min=-most / rate) if rate else log_ratio_P
    slope_P: Tensor = f_divergence_named("alpha", order=alpha).derivative_at(inside_P)
    steepness_P = (1 - rate * slope_P).detach()  # d f'(t) / d log t = exp(-rate log t)
    return slope_P + steepness_P * (log_ratio_P - inside_P)
