"""Objectives with the divergence from the reference written out: exact KL of each next token, summed along answers.

`kl_policy_reference_A` is the sum over an answer's tokens of KL(policy, reference) between the distributions of the
next token, from whole rows. Averaged over answers that the policy itself gave it would be KL of the answers' whole
distributions, by the chain rule; along answers of a data set it is that divergence where the data are.
Axes: P pairs, A answers.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.objectives.options import NotNegative
from kilter.objectives.scores import PairScores, Scores


def bt_kl(pairs: PairScores, *, beta: NotNegative = 0.1) -> Tensor:
    """Bradley-Terry on log-probs, plus `beta` times KL(policy, reference) averaged over both answers: (P,).

    At a `beta` of 0 it is the plain Bradley-Terry likelihood of texts. (Bradley and Terry 1952; the penalty is that of
    Ziegler et al. 2019, arXiv 1909.08593, here exact.)
    """
    kl_P = (pairs.chosen.kl_policy_reference_A + pairs.rejected.kl_policy_reference_A) / 2
    return _bradley_terry(pairs) + beta * kl_P


def bt_kl_reference(pairs: PairScores, *, beta: NotNegative = 0.1) -> Tensor:
    """The same with KL(reference, policy): (P,)."""
    kl_P = (pairs.chosen.kl_reference_policy_A + pairs.rejected.kl_reference_policy_A) / 2
    return _bradley_terry(pairs) + beta * kl_P


def kl(answers: Scores) -> Tensor:
    """KL(policy, reference) of each next token, summed along each answer, in nats: (A,)."""
    return answers.kl_policy_reference_A


def kl_reference(answers: Scores) -> Tensor:
    """KL(reference, policy) of each next token, summed along each answer, in nats: (A,)."""
    return answers.kl_reference_policy_A


def _bradley_terry(pairs: PairScores) -> Tensor:
    return -logsigmoid(pairs.chosen.log_prob_A - pairs.rejected.log_prob_A)
