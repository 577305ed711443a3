"""Objectives on pairs against a reference: pure functions of the pairs' scores, one loss for each pair, in nats.

Written for r_w and r_l, the log-ratios of chosen and rejected, and their gap r_w - r_l. Axis: P pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from kilter.objectives.options import FlipChance, NotNegative, Positive, PositiveFlipChance
from kilter.objectives.scores import PairScores


def dpo(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: FlipChance = 0.0) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7): (P,).

    `label_smoothing` is the chance that a label is flipped: conservative DPO (Mitchell 2023, eq. 3), whose best margin
    is where sigmoid(margin) is 1 less that chance. `robust` corrects for flipped labels instead.

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> dpo(PairScores.of_log_ratios(torch.tensor([0.0, 10.0]), torch.tensor([0.0, -10.0])), beta=0.1)
    tensor([0.6931, 0.1269])
    """
    return _cross_entropy(beta * pairs.gap_P, 1 - label_smoothing)


def soft_dpo(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Cross-entropy of the modelled preference against the one that the data give: (P,).

    `dpo` with a label smoothing of each pair's own, as conservative DPO is generalised to soft labels by Furuta et al.
    2024 (arXiv 2409.06691), who propose another loss for them. Raises KeyError for pairs without preferences.
    """
    return _cross_entropy(beta * pairs.gap_P, _given(pairs.preference_P, "preference"))


def robust(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: FlipChance = 0.1) -> Tensor:
    """Robust DPO: an unbiased estimate, from labels flipped that often, of dpo's loss on the right labels: (P,).

    Chowdhury, Kini and Natarajan 2024 (arXiv 2403.00409). Not bounded below: where `dpo` with label smoothing has a
    best margin, this one falls without end as a margin grows.
    """
    margin_P = beta * pairs.gap_P
    right_P, flipped_P = -logsigmoid(margin_P), -logsigmoid(-margin_P)
    return ((1 - label_smoothing) * right_P - label_smoothing * flipped_P) / (1 - 2 * label_smoothing)


def margin_dpo(pairs: PairScores, *, beta: Positive = 0.1, scale: NotNegative = 1.0) -> Tensor:
    """DPO whose margin must exceed `scale` times that of the raters: (P,).

    The offset of ODPO (Amini, Vieira and Cotterell 2024, arXiv 2402.10571), which takes a growing function of the
    difference of scores, usually its log; and the margin of Llama 2's reward model (Touvron et al. 2023, arXiv
    2307.09288, eq. 2). Raises KeyError for pairs without margins.
    """
    return -logsigmoid(beta * pairs.gap_P - scale * _given(pairs.margin_P, "margin"))


def dpo_norm(pairs: PairScores, *, beta: Positive = 5.0) -> Tensor:
    """DPO on log-ratios averaged over an answer's tokens: (P,).

    Tülu 3's (Lambert et al. 2024, arXiv 2411.15124), after an ablation in SimPO's appendix (Meng et al. 2024, arXiv
    2405.14734). Averages are smaller than sums by an answer's length, and `beta` is larger for it: theirs is 5.
    """
    return -logsigmoid(beta * _mean_gap(pairs))


def ipo(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17), `beta` being its tau: (P,).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> ipo(PairScores.of_log_ratios(torch.tensor([0.0, 5.0]), torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([25.,  0.])
    """
    return (pairs.gap_P - 1 / (2 * beta)) ** 2


def ipo_mean(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """The same on log-ratios averaged over an answer's tokens, where the paper writes sums: (P,).

    TRL's `ipo`, whose authors were told by the paper's that its results were had with averages.
    """
    return (_mean_gap(pairs) - 1 / (2 * beta)) ** 2


def hinge(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Hinge loss on the margin, SLiC normalised by the reference (Liu et al. 2023, arXiv 2309.06657, eq. 11): (P,).

    >>> import torch
    >>> from kilter.objectives import PairScores
    >>> hinge(PairScores.of_log_ratios(torch.tensor([0.0, 12.0]), torch.tensor([0.0, 0.0])), beta=0.1)
    tensor([1., 0.])
    """
    return relu(1 - beta * pairs.gap_P)


def exo(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: PositiveFlipChance = 1e-3) -> Tensor:
    """Efficient exact optimisation on pairs, EXO-pref (Ji et al. 2024, arXiv 2402.00856, eq. 16): (P,).

    KL from the modelled preference (sigma(m), sigma(-m)), at the margin m = beta (r_w - r_l), to the labels, smoothed
    so that it is finite: (1 - label_smoothing, label_smoothing). DPO's is the other direction. Beyond the best margin,
    log(1 / label_smoothing - 1), the loss rises again; where a label is badly contradicted its gradient vanishes.
    In the authors' code labels are (1, exp(-10)): within 5e-5 a `label_smoothing` of 4.54e-5.
    """
    margin_P = beta * pairs.gap_P
    chosen_P = logsigmoid(margin_P) - math.log1p(-label_smoothing)
    rejected_P = logsigmoid(-margin_P) - math.log(label_smoothing)
    return torch.sigmoid(margin_P) * chosen_P + torch.sigmoid(-margin_P) * rejected_P


def discopop(pairs: PairScores, *, beta: Positive = 0.05, tau: Positive = 0.05) -> Tensor:
    """The log-ratio modulated loss that a language model found (Lu et al. 2024, arXiv 2406.08414, eq. 5): (P,).

    At a margin m, log(1 + exp(-m)) and exp(-m) in shares of sigma(-m / tau) and sigma(m / tau). Not monotone: with a
    tau of 0.05 the loss *rises* with m between -0.12 and 0.07, 0 among them; the paper speaks of the local minimum.
    With a tau above 1 it grows exponentially as m falls.
    """
    margin_P = beta * pairs.gap_P
    logistic_P = -logsigmoid(margin_P) * torch.sigmoid(-margin_P / tau)
    # As one exponential: exp(-m) overflows where its share has long vanished.
    return logistic_P + (logsigmoid(margin_P / tau) - margin_P).exp()


def nca(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Noise contrastive alignment on pairs (Chen et al. 2024, arXiv 2402.05369): (P,).

    Each answer against noise, so that a log-ratio counts by itself: the best one of chosen is log(2) / beta, whatever
    that of rejected, and the loss rises again beyond. As in the authors' code, for K = 2 answers of which the chosen
    one has all of the reward.
    """
    chosen_P, rejected_P = beta * pairs.chosen.log_ratio_A, beta * pairs.rejected.log_ratio_A
    return -logsigmoid(chosen_P) - (logsigmoid(-chosen_P) + logsigmoid(-rejected_P)) / 2


def sppo(pairs: PairScores, *, beta: Positive = 0.001) -> Tensor:
    """Self-play preference optimisation with hard labels (Wu et al. 2024, arXiv 2405.00675, eq. 4.7): (P,).

    The squared distances of the log-ratios of chosen and rejected from 1 / (2 beta) and -1 / (2 beta), `beta` being
    the inverse of the paper's eta (1e3). Their sum, as in TRL; the authors' code has half of it.
    """
    return _distances(pairs, 1 / (2 * beta))


def sppo_soft(pairs: PairScores, *, beta: Positive = 0.001) -> Tensor:
    """The same with the preference that the data give, as in the paper and its authors' code: (P,).

    Log-ratios are drawn to (p - 1/2) / beta and its negative, where chosen is preferred with probability p. The paper
    estimates the chance that an answer beats the policy's own ones; of a pair only that it beats the other is known.
    Raises KeyError for pairs without preferences.
    """
    return _distances(pairs, (_given(pairs.preference_P, "preference") - 0.5) / beta)


def apo_zero(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Anchored preference optimisation, chosen up and rejected down (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq.
    7): (P,).

    The anchor is a log-ratio of 0, where gradients are largest. A constant of 1 keeps the loss from being negative.
    """
    return torch.sigmoid(-beta * pairs.chosen.log_ratio_A) + torch.sigmoid(beta * pairs.rejected.log_ratio_A)


def apo_down(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Anchored preference optimisation, both down but rejected further (D'Oosterlinck et al. 2024, arXiv 2408.06266,
    eq. 8): (P,).

    The loss falls as chosen is *lowered*, wherever its log-ratio is smaller in size than the gap. A constant of 1 keeps
    the loss from being negative.
    """
    return torch.sigmoid(beta * pairs.chosen.log_ratio_A) + torch.sigmoid(-beta * pairs.gap_P)


def dpop(pairs: PairScores, *, beta: Positive = 0.3, penalty: NotNegative = 50.0) -> Tensor:
    """DPO-positive: `penalty` nats off the gap for each nat that chosen has lost against the reference: (P,).

    Pal et al. 2024 (arXiv 2402.13228), with beta times the penalty too, as in the paper.
    """
    lost_P = relu(-pairs.chosen.log_ratio_A)
    return -logsigmoid(beta * (pairs.gap_P - penalty * lost_P))


def _cross_entropy(margin_P: Tensor, preference_P: Tensor | float) -> Tensor:
    """Of sigma(margin) against the probability that chosen is preferred."""
    return -preference_P * logsigmoid(margin_P) - (1 - preference_P) * logsigmoid(-margin_P)


def _mean_gap(pairs: PairScores) -> Tensor:
    """The gap of log-ratios per token."""
    return pairs.chosen.mean_log_ratio_A - pairs.rejected.mean_log_ratio_A


def _distances(pairs: PairScores, target_P: Tensor | float) -> Tensor:
    """Squared distances of chosen from the target, and of rejected from its negative."""
    return (pairs.chosen.log_ratio_A - target_P) ** 2 + (pairs.rejected.log_ratio_A + target_P) ** 2


def _given(fact_P: Tensor | None, name: str) -> Tensor:
    if fact_P is None:
        raise KeyError(f"{name}: this objective needs it of every pair; the data do not give it")
    return fact_P
