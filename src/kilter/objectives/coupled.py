"""Objectives on pairs whose losses depend on the other pairs of the batch, or on batches before. Axis: P pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kilter.objectives.options import FlipChance, Momentum, NotNegative, Positive, PositiveShare
from kilter.objectives.pairwise import dpo
from kilter.objectives.scores import PairScores

# What beta_dpo's beta is at least, as in the authors' program: the formula alone may go below 0.
LOWEST_BETA = 1e-3


def bco_pair(pairs: PairScores, *, beta: Positive = 0.1) -> Tensor:
    """Binary classifier optimisation of pairs (Jung et al. 2024, arXiv 2404.04656): (P,).

    Both answers' binary cross-entropies at rewards less their mean over the batch, through which no gradient flows. In
    TRL 1.16 this shift is left out.
    """
    chosen_P, rejected_P = beta * pairs.chosen.log_ratio_A, beta * pairs.rejected.log_ratio_A
    shift = torch.cat([chosen_P, rejected_P]).detach().mean()
    return -logsigmoid(chosen_P - shift) - logsigmoid(shift - rejected_P)


def aot(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: FlipChance = 0.0) -> Tensor:
    """Alignment by optimal transport, paired (Melnyk et al. 2024, arXiv 2406.05882): (P,).

    The policy's gaps, chosen less rejected, are to be larger than the reference's, as a distribution: the loss of each
    quantile, in rising order and not in the order of the pairs. `label_smoothing` is TRL's addition.
    """
    policy_P = pairs.chosen.log_prob_A - pairs.rejected.log_prob_A
    reference_P = pairs.chosen.reference_log_prob_A - pairs.rejected.reference_log_prob_A
    return _of_quantiles(policy_P, reference_P, beta=beta, label_smoothing=label_smoothing)


def aot_unpaired(pairs: PairScores, *, beta: Positive = 0.1, label_smoothing: FlipChance = 0.0) -> Tensor:
    """Alignment by optimal transport, unpaired (Melnyk et al. 2024, arXiv 2406.05882): (P,).

    The log-ratios of chosen answers are to be larger than those of rejected ones, as a distribution. It does not look
    at which answers belong together, only that there are as many of both.
    """
    chosen_P, rejected_P = pairs.chosen.log_ratio_A, pairs.rejected.log_ratio_A
    return _of_quantiles(chosen_P, rejected_P, beta=beta, label_smoothing=label_smoothing)


def _of_quantiles(upper_P: Tensor, lower_P: Tensor, **options: float) -> Tensor:
    return dpo(PairScores.of_log_ratios(upper_P.sort().values, lower_P.sort().values), **options)


def beta_dpo(
    pairs: PairScores,
    *,
    beta: Positive = 0.1,
    alpha: NotNegative = 0.6,
    keep: PositiveShare = 0.8,
    momentum: Momentum = 0.9,
    mean: float,
    deviation: float,
    batches: float,
) -> Tensor:
    """DPO with a beta for each batch and pairs left out (Wu et al. 2024, arXiv 2407.08639, section 4): (P,).

    Of the batch a share `keep` of pairs is drawn without replacement, with chances that fall like a normal density as
    margins (`beta` times the gap) leave the running `mean`, at the running `deviation`; the others' loss is 0, and the
    batch's mean is that of the drawn. Their loss is DPO's at beta (1 + alpha (their mean margin - `mean`)), without
    gradient. What is drawn depends on margins and the number of `batches` so far alone. A `keep` of 1 leaves none out;
    an `alpha` of 0 leaves beta as it is. The authors' program multiplies gaps, not margins, with alpha: it is `beta`
    times the alpha here.
    """
    margin_P = beta * pairs.gap_P
    drawn = _drawn(margin_P.detach(), keep, mean, deviation, seed=int(batches))
    here = beta * (1 + alpha * (margin_P[drawn].detach().mean() - mean))
    share_P = torch.zeros_like(margin_P).index_fill(0, drawn, len(margin_P) / len(drawn))
    return -share_P * logsigmoid(here.clamp(min=LOWEST_BETA) * pairs.gap_P)


def remember_margins(
    pairs: PairScores,
    *,
    beta: float,
    momentum: float,
    mean: float,
    deviation: float,
    batches: float,
    **_: float,
) -> dict[str, float]:
    """The running mean and deviation of margins, both from 0, as in the authors' program; one more batch."""
    margin_P = beta * pairs.gap_P
    spread = float(margin_P.std()) if len(margin_P) > 1 else 0.0
    return {
        "mean": momentum * mean + (1 - momentum) * float(margin_P.mean()),
        "deviation": momentum * deviation + (1 - momentum) * spread,
        "batches": batches + 1,
    }


def _drawn(margin_P: Tensor, keep: float, mean: float, deviation: float, *, seed: int) -> Tensor:
    """Places of a share of the pairs, drawn without replacement by the density of their margins."""
    count = max(1, int(len(margin_P) * keep + 1e-9))
    if count == len(margin_P):
        return torch.arange(count, device=margin_P.device)
    distance_P = (margin_P.double().cpu() - mean) / max(deviation, 1e-12)
    # The largest of log-weights plus Gumbel noise are such a draw (Kool et al. 2019, arXiv 1903.06059).
    uniform_P = torch.rand(len(margin_P), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gumbel_P = -torch.log(-torch.log(uniform_P.clamp(min=1e-300)))
    return (gumbel_P - distance_P**2 / 2).topk(count).indices.to(margin_P.device)
