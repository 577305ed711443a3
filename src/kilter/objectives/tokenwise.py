"""Objectives on pairs against a reference that look at more of an answer than its log-ratio. Axes: P pairs, A answers.

Written for D, the exact KL(reference, policy) of each next token summed along an answer; and for the log-probs of an
answer's first tokens, as many as the shorter answer of its pair has.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.objectives.options import NotNegative, Positive, Share
from kilter.objectives.scores import PairScores, Scores


def tdpo1(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Token-level DPO, first form: (P,). Zeng et al. 2024 (arXiv 2404.11999).

    D of rejected is taken off the gap, and that of chosen added, with gradient.
    """
    excess_P = pairs.rejected.kl_reference_policy_A - pairs.chosen.kl_reference_policy_A
    return -logsigmoid(beta * (pairs.gap_P - excess_P))


def tdpo2(pairs: PairScores, *, beta: Positive = 0.1, alpha: NotNegative = 0.5) -> Tensor:
    """Token-level DPO, second form: (P,). Zeng et al. 2024 (arXiv 2404.11999).

    The excess of D counts `alpha` times, and no gradient flows through that of chosen: D is kept small along rejected,
    and is no reward along chosen.
    """
    excess_P = pairs.rejected.kl_reference_policy_A - pairs.chosen.kl_reference_policy_A.detach()
    return -logsigmoid(beta * (pairs.gap_P - alpha * excess_P))


def ld_dpo(pairs: PairScores, *, beta: Positive = 0.1, alpha: Share = 0.5) -> Tensor:
    """Length-desensitised DPO: tokens beyond the shorter answer's length count `alpha` times: (P,).

    Liu et al. 2024 (arXiv 2409.06411), on policy and reference, as in TRL from 1.0 on: `dpo` at an alpha of 1, and at
    any alpha log 2 where both agree.
    """
    chosen_P, rejected_P = (_shortened(answers, alpha) for answers in pairs[:2])
    reference_chosen_P, reference_rejected_P = (_shortened_reference(answers, alpha) for answers in pairs[:2])
    return -logsigmoid(beta * ((chosen_P - reference_chosen_P) - (rejected_P - reference_rejected_P)))


def ld_dpo_policy(pairs: PairScores, *, beta: Positive = 0.1, alpha: Share = 0.5) -> Tensor:
    """The same with the reference's tokens all counted in full: (P,).

    What TRL did before 1.0, and what is still derived from it. The longer answer starts with a log-ratio of
    (alpha - 1) times its tail's log-prob, so before any training a longer chosen answer is taken to be won already.
    """
    chosen_P, rejected_P = (_shortened(answers, alpha) - answers.reference_log_prob_A for answers in pairs[:2])
    return -logsigmoid(beta * (chosen_P - rejected_P))


def wpo(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Weighted preference optimisation: `dpo`, each pair weighted by how likely the policy is to write it: (P,).

    Zhou et al. 2024 (arXiv 2406.11827, eq. 2), with sampled alignment. No gradient flows through the weights.
    """
    return -on_policy_weight(pairs) * logsigmoid(beta * pairs.gap_P)


def wpo_clamped(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """The same with weights of at most 1, as in the authors' code: (P,)."""
    return -on_policy_weight(pairs).clamp(max=1) * logsigmoid(beta * pairs.gap_P)


def on_policy_weight(pairs: PairScores) -> Tensor:
    """The product of both answers' weights, without gradient: (P,).

    An answer's is the geometric mean of pi(y_t) / sum_v pi(v)^2 over its tokens: about 1 for what the policy samples.
    """
    chosen_P, rejected_P = ((a.log_prob_A - a.log_collision_A).detach() / a.tokens_A for a in pairs[:2])
    return (chosen_P + rejected_P).exp()


def _shortened(answers: Scores, alpha: float) -> Tensor:
    return alpha * answers.log_prob_A + (1 - alpha) * answers.shared_log_prob_A


def _shortened_reference(answers: Scores, alpha: float) -> Tensor:
    return alpha * answers.reference_log_prob_A + (1 - alpha) * answers.shared_reference_log_prob_A
