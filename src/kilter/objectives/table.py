"""The table of objectives, from which the command line, the errors, the docs and the tests are made.

To add one: write its function, add its row.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from kilter.errors import ConfigError
from kilter.objectives.coupled import aot, aot_unpaired, bco_pair, beta_dpo, remember_margins
from kilter.objectives.explicit import bt_kl, bt_kl_reference, kl, kl_reference
from kilter.objectives.f_dpo import fdpo_alpha, fdpo_forward_kl, fdpo_js
from kilter.objectives.labelled import bco, kto, remember_rewards
from kilter.objectives.likelihood import sft
from kilter.objectives.options import Option, options_of
from kilter.objectives.pairwise import (
    apo_down,
    apo_zero,
    discopop,
    dpo,
    dpo_norm,
    dpop,
    exo,
    hinge,
    ipo,
    ipo_mean,
    margin_dpo,
    nca,
    robust,
    soft_dpo,
    sppo,
    sppo_soft,
)
from kilter.objectives.rankings import log_orders_per_agreeing, plackett_luce
from kilter.objectives.reference_free import cpo, orpo, simpo, slic
from kilter.objectives.scores import LabelledScores, PairScores, RankingScores
from kilter.objectives.tokenwise import ld_dpo, ld_dpo_policy, on_policy_weight, tdpo1, tdpo2, wpo, wpo_clamped

# What an objective may look at besides the policy's log-probs: sums of `Scores`, facts of pairs, mismatched answers.
Need = Literal[
    "reference_log_prob",
    "tokens",
    "shared_log_prob",
    "shared_reference_log_prob",
    "kl_policy_reference",
    "kl_reference_policy",
    "log_collision",
    "margin",
    "preference",
    "mismatched",
]
OF_A_REFERENCE = frozenset({
    "reference_log_prob", "shared_reference_log_prob", "kl_policy_reference", "kl_reference_policy",
})  # fmt: skip
# Where whole rows of both models are at hand anyway, a run's metrics may as well have log-ratios.
WITH_KL_POLICY_REFERENCE: frozenset[Need] = frozenset({"reference_log_prob", "kl_policy_reference"})
WITH_KL_REFERENCE_POLICY: frozenset[Need] = frozenset({"reference_log_prob", "kl_reference_policy"})


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs to be summed, cut into micro-batches, and checked.

    `takes`: what one call of the loss is given; "answers" are those to imitate, of pairs the chosen ones, and "all
    answers" the others too. `unit`: what its value for one item depends on; "batch" is for losses
    whose items depend on each other, which are scored without gradient first. The sum of the losses is divided by the
    global batch's `denominator`. `needs`: what the scores must hold besides the policy's log-probs.
    `at_zero(scores, **options)`: the mean loss where policy and reference agree, from what else the scores say of the
    batch; None for losses without a reference. `state` is what the loss remembers from batch to batch, by name, as it
    is before the first; the loss takes it as keyword arguments, and `remember(scores, **options, **state)` gives it
    anew from a batch, before that batch's loss is formed. `equation` is the loss of one item in LaTeX, `summary` what
    it is in a few words, `when` in which case to take it.
    """

    loss: Callable[..., Tensor]
    takes: Literal["pairs", "labelled", "answers", "all answers", "rankings"]
    unit: Literal["pair", "answer", "ranking", "batch"]
    denominator: Literal["pairs", "answers", "tokens", "rankings"]
    at_zero: Callable[..., float] | None
    equation: str
    summary: str
    paper: str
    when: str
    needs: frozenset[Need] = frozenset({"reference_log_prob"})
    state: Mapping[str, float] = field(default_factory=dict)
    remember: Callable[..., dict[str, float]] | None = None

    @property
    def needs_reference(self) -> bool:
        return bool(self.needs & OF_A_REFERENCE)

    @property
    def options(self) -> dict[str, Option]:
        """The options that the loss takes, by name."""
        return options_of(self.loss, besides=frozenset(self.state))

    @property
    def defaults(self) -> dict[str, float]:
        return {name: option.default for name, option in self.options.items()}


def _log_2(_: Any, **options: float) -> float:
    """What losses of the kind -log sigmoid(margin) are at a margin of 0."""
    return math.log(2)


def _exo_at_zero(_: Any, *, beta: float, label_smoothing: float) -> float:
    return -math.log(2) - math.log(label_smoothing * (1 - label_smoothing)) / 2


def _ld_dpo_policy_at_zero(scores: Any, *, beta: float, alpha: float) -> float:
    chosen_P, rejected_P = (answers.reference_log_prob_A - answers.shared_log_prob_A for answers in scores[:2])
    return float(softplus(beta * (1 - alpha) * (chosen_P - rejected_P)).mean())


def _kto_at_zero(scores: LabelledScores, *, beta: float, desirable_weight: float, undesirable_weight: float) -> float:
    good, bad = len(scores.desirable), len(scores.undesirable)
    return (good * desirable_weight + bad * undesirable_weight) / (2 * (good + bad))


def _bradley_terry_at_zero(pairs: PairScores, *, beta: float) -> float:
    """No divergence is left of it."""
    return float(-logsigmoid(pairs.chosen.log_prob_A - pairs.rejected.log_prob_A).mean())


def _plackett_luce_at_zero(rankings: RankingScores, *, beta: float) -> float:
    return float(log_orders_per_agreeing(rankings).mean())


OBJECTIVES: dict[str, Objective] = {
    # Pairs, against a reference.
    "dpo": Objective(
        dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-(1 - \epsilon) \log \sigma(\beta \Delta) - \epsilon \log \sigma(-\beta \Delta)",
        summary="logistic loss on the margin; label_smoothing makes it conservative",
        when="the default",
        paper="arXiv 2305.18290, eq. 7",
    ),
    "soft_dpo": Objective(
        soft_dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-p \log \sigma(\beta \Delta) - (1 - p) \log \sigma(-\beta \Delta)",
        summary="cross-entropy against the preference that the data give",
        when="the data say how sure raters were: votes, grades, ties",
        paper="arXiv 2305.18290, eq. 7, with soft labels",
        needs=frozenset({"reference_log_prob", "preference"}),
    ),
    "robust": Objective(
        robust,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"\frac{-(1 - \epsilon) \log \sigma(\beta \Delta) + \epsilon \log \sigma(-\beta \Delta)}"
        r"{1 - 2 \epsilon}",
        summary="dpo's loss on the right labels, estimated from flipped ones without bias",
        when="labels are flipped by chance, and how often is known",
        paper="arXiv 2403.00409",
    ),
    "margin_dpo": Objective(
        margin_dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda scores, beta, scale: float(softplus(scale * scores.margin_P).mean()),
        equation=r"-\log \sigma(\beta \Delta - \gamma m)",
        summary="dpo whose margin must exceed the raters' own",
        when="the data say by how much chosen is better",
        paper="arXiv 2402.10571; for reward models arXiv 2307.09288, eq. 2",
        needs=frozenset({"reference_log_prob", "margin"}),
    ),
    "dpo_norm": Objective(
        dpo_norm,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta \bar\Delta)",
        summary="dpo on log-ratios averaged over an answer's tokens",
        when="answers differ much in length, and longer ones must not win by that",
        paper="arXiv 2411.15124; arXiv 2405.14734, appendix",
        needs=frozenset({"reference_log_prob", "tokens"}),
    ),
    "ipo": Objective(
        ipo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        equation=r"(\Delta - 1 / (2 \beta))^2",
        summary="squared distance of the log-ratio gap from 1 / (2 beta)",
        when="labels are certain, and dpo drifts without end",
        paper="arXiv 2310.12036, eq. 17",
    ),
    "ipo_mean": Objective(
        ipo_mean,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta) ** 2,
        equation=r"(\bar\Delta - 1 / (2 \beta))^2",
        summary="ipo on log-ratios averaged over an answer's tokens",
        when="as ipo, where answers differ much in length",
        paper="arXiv 2310.12036, eq. 17, with averages",
        needs=frozenset({"reference_log_prob", "tokens"}),
    ),
    "hinge": Objective(
        hinge,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 1.0,
        equation=r"\max(0, 1 - \beta \Delta)",
        summary="no loss beyond a margin of 1",
        when="pairs that are already apart should be left alone",
        paper="arXiv 2309.06657, eq. 11",
    ),
    "exo": Objective(
        exo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_exo_at_zero,
        equation=r"\sigma(\beta \Delta) \log \frac{\sigma(\beta \Delta)}{1 - \epsilon} "
        r"+ \sigma(-\beta \Delta) \log \frac{\sigma(-\beta \Delta)}{\epsilon}",
        summary="KL from the modelled preference to the label: mode-seeking where dpo covers",
        when="the policy should settle on the best answers, not spread over all good ones",
        paper="arXiv 2402.00856, eq. 16",
    ),
    "discopop": Objective(
        discopop,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: (math.log(2) + 1) / 2,
        equation=r"-\sigma(-\beta \Delta / \tau) \log \sigma(\beta \Delta) "
        r"+ \sigma(\beta \Delta / \tau) e^{-\beta \Delta}",
        summary="logistic loss on pairs that are wrong, exponential on those that are right",
        when="to compare with; margins near 0 are drawn to -0.12 at first",
        paper="arXiv 2406.08414, eq. 5",
    ),
    "nca": Objective(
        nca,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 2 * math.log(2),
        equation=r"-\log \sigma(\beta r_w) - \tfrac{1}{2} \log \sigma(-\beta r_w) "
        r"- \tfrac{1}{2} \log \sigma(-\beta r_l)",
        summary="each answer told from noise by its own log-ratio",
        when="chosen answers must not become less likely",
        paper="arXiv 2402.05369",
    ),
    "sppo": Objective(
        sppo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, beta: 1 / (2 * beta**2),
        equation=r"(r_w - 1 / (2 \beta))^2 + (r_l + 1 / (2 \beta))^2",
        summary="log-ratios drawn to 1 / (2 beta) and its negative",
        when="answers are the policy's own, sampled anew each round",
        paper="arXiv 2405.00675, eq. 4.7",
    ),
    "sppo_soft": Objective(
        sppo_soft,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda scores, beta: 2 * float(((scores.preference_P - 0.5) / beta).square().mean()),
        equation=r"(r_w - (p - 1/2) / \beta)^2 + (r_l + (p - 1/2) / \beta)^2",
        summary="sppo with the preference that the data give",
        when="as sppo, where a model or several raters judged",
        paper="arXiv 2405.00675, eq. 4.7",
        needs=frozenset({"reference_log_prob", "preference"}),
    ),
    "apo_zero": Objective(
        apo_zero,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 1.0,
        equation=r"1 - \sigma(\beta r_w) + \sigma(\beta r_l)",
        summary="chosen up and rejected down, each from where it was",
        when="chosen answers are better than what the model writes",
        paper="arXiv 2408.06266, eq. 7",
    ),
    "apo_down": Objective(
        apo_down,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda _, **options: 1.0,
        equation=r"\sigma(\beta r_w) + 1 - \sigma(\beta \Delta)",
        summary="both down, rejected further",
        when="the model writes better than the chosen answers",
        paper="arXiv 2408.06266, eq. 8",
    ),
    "dpop": Objective(
        dpop,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta (\Delta - \lambda \max(0, -r_w)))",
        summary="dpo with a penalty where chosen becomes less likely",
        when="answers of a pair differ by little, and dpo lowers both",
        paper="arXiv 2402.13228",
    ),
    "fdpo_forward_kl": Objective(
        fdpo_forward_kl,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta (e^{-r_l} - e^{-r_w}))",
        summary="dpo under KL(reference, policy)",
        when="all that the reference writes should stay possible",
        paper="arXiv 2309.16240",
    ),
    "fdpo_js": Objective(
        fdpo_js,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma\left(\beta \log \frac{1 + e^{-r_l}}{1 + e^{-r_w}}\right)",
        summary="dpo under twice the Jensen-Shannon divergence",
        when="between dpo and fdpo_forward_kl; gains beyond the reference's probability count little",
        paper="arXiv 2309.16240",
    ),
    "fdpo_alpha": Objective(
        fdpo_alpha,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma\left(\beta \frac{e^{-(1 - \alpha) r_l} - e^{-(1 - \alpha) r_w}}{1 - \alpha}\right)",
        summary="dpo under an alpha-divergence: dpo at 1, fdpo_forward_kl at 0",
        when="to choose how far probability is spread",
        paper="arXiv 2309.16240",
    ),
    "tdpo1": Objective(
        tdpo1,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta (\Delta - (D_l - D_w)))",
        summary="dpo with the exact KL(reference, policy) along both answers in the margin",
        when="to compare with tdpo2",
        paper="arXiv 2404.11999",
        needs=frozenset({"reference_log_prob", "kl_reference_policy"}),
    ),
    "tdpo2": Objective(
        tdpo2,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta (\Delta - \alpha (D_l - \operatorname{sg} D_w)))",
        summary="dpo that keeps the exact KL(reference, policy) along rejected small",
        when="rejected answers run away under dpo",
        paper="arXiv 2404.11999",
        needs=frozenset({"reference_log_prob", "kl_reference_policy"}),
    ),
    "ld_dpo": Objective(
        ld_dpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_log_2,
        equation=r"-\log \sigma(\beta \Delta^{(\alpha)}),\quad "
        r"r^{(\alpha)} = \alpha r + (1 - \alpha) r_{\le \min(|y_w|, |y_l|)}",
        summary="dpo where tokens beyond the shorter answer's length count less",
        when="dpo makes answers longer",
        paper="arXiv 2409.06411",
        needs=frozenset({"reference_log_prob", "shared_log_prob", "shared_reference_log_prob"}),
    ),
    "ld_dpo_policy": Objective(
        ld_dpo_policy,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_ld_dpo_policy_at_zero,
        equation=r"-\log \sigma(\beta (\ell_w^{(\alpha)} - \ell_l^{(\alpha)} - \log \pi_\mathrm{ref}(y_w) "
        r"+ \log \pi_\mathrm{ref}(y_l)))",
        summary="ld_dpo with the reference's tokens in full",
        when="to repeat runs of TRL before 1.0",
        paper="arXiv 2409.06411, on the policy only",
        needs=frozenset({"reference_log_prob", "shared_log_prob"}),
    ),
    "wpo": Objective(
        wpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda scores, **options: math.log(2) * float(on_policy_weight(scores).mean()),
        equation=r"-w_w w_l \log \sigma(\beta \Delta),\quad "
        r"w = \operatorname{sg} \exp \tfrac{1}{|y|} \sum_t \log \tfrac{\pi(y_t)}{\sum_v \pi(v)^2}",
        summary="dpo weighted by how likely the policy is to write the pair",
        when="answers are other models' work",
        paper="arXiv 2406.11827, eq. 2",
        needs=frozenset({"reference_log_prob", "tokens", "log_collision"}),
    ),
    "wpo_clamped": Objective(
        wpo_clamped,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=lambda scores, **options: math.log(2) * float(on_policy_weight(scores).clamp(max=1).mean()),
        equation=r"-\min(1, w_w w_l) \log \sigma(\beta \Delta)",
        summary="wpo with weights of at most 1",
        when="as wpo, where a few likely pairs would rule",
        paper="arXiv 2406.11827, eq. 2, as its code has it",
        needs=frozenset({"reference_log_prob", "tokens", "log_collision"}),
    ),
    # Pairs, against a reference, each judged by the others of its batch.
    "bco_pair": Objective(
        bco_pair,
        takes="pairs",
        unit="batch",
        denominator="pairs",
        at_zero=lambda _, **options: 2 * math.log(2),
        equation=r"-\log \sigma(\beta r_w - \delta) - \log \sigma(\delta - \beta r_l)",
        summary="both answers' binary cross-entropies, at rewards less their mean over the batch, delta",
        when="chosen answers should become likelier in themselves, and not only than the rejected",
        paper="arXiv 2404.04656",
    ),
    "aot": Objective(
        aot,
        takes="pairs",
        unit="batch",
        denominator="pairs",
        at_zero=lambda _, **options: math.log(2),
        equation=r"-(1 - \epsilon) \log \sigma(\beta \Delta_{(i)}) - \epsilon \log \sigma(-\beta \Delta_{(i)}),"
        r"\quad \Delta_{(i)} = (\ell_w - \ell_l)_{(i)} - (\ell^{ref}_w - \ell^{ref}_l)_{(i)}",
        summary="dpo's loss between quantiles of the policy's gaps and of the reference's",
        when="the batch is large, and single labels are noisy",
        paper="arXiv 2406.05882, paired",
    ),
    "aot_unpaired": Objective(
        aot_unpaired,
        takes="pairs",
        unit="batch",
        denominator="pairs",
        at_zero=lambda _, **options: math.log(2),
        equation=r"-(1 - \epsilon) \log \sigma(\beta \Delta_{(i)}) - \epsilon \log \sigma(-\beta \Delta_{(i)}),"
        r"\quad \Delta_{(i)} = r_{w(i)} - r_{l(i)}",
        summary="dpo's loss between quantiles of chosen answers' log-ratios and of rejected ones'",
        when="as aot, where the two answers of a pair have little to do with each other",
        paper="arXiv 2406.05882, unpaired",
    ),
    "beta_dpo": Objective(
        beta_dpo,
        takes="pairs",
        unit="batch",
        denominator="pairs",
        at_zero=lambda _, **options: math.log(2),
        equation=r"-\log \sigma(\beta (1 + \alpha (\mathrm{mean}(\beta \Delta) - M)) \Delta)",
        summary="dpo at a beta that grows with the batch's mean margin, on pairs whose margin is not unusual",
        when="pairs differ much in how far apart their answers are, and some are outliers",
        paper="arXiv 2407.08639",
        state={"mean": 0.0, "deviation": 0.0, "batches": 0.0},
        remember=remember_margins,
    ),
    # Pairs, with the divergence from the reference written out.
    "bt_kl": Objective(
        bt_kl,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_bradley_terry_at_zero,
        equation=r"-\log \sigma(\ell_w - \ell_l) + \beta (D_w + D_l) / 2,\quad D = \mathrm{KL}(\pi, \pi_{ref})",
        summary="Bradley-Terry on log-probs, and exact token KL(policy, reference), averaged over both answers",
        when="the price of a nat is to be said outright; beta 0 is the likelihood of the comparisons alone",
        paper="arXiv 1909.08593 (the penalty); Bradley and Terry 1952",
        needs=WITH_KL_POLICY_REFERENCE,
    ),
    "bt_kl_reference": Objective(
        bt_kl_reference,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=_bradley_terry_at_zero,
        equation=r"-\log \sigma(\ell_w - \ell_l) + \beta (D_w + D_l) / 2,\quad D = \mathrm{KL}(\pi_{ref}, \pi)",
        summary="the same with KL(reference, policy), which keeps all that the reference says",
        when="as bt_kl, where the policy must not forget what its reference can say",
        paper="arXiv 1909.08593 (the penalty); Bradley and Terry 1952",
        needs=WITH_KL_REFERENCE_POLICY,
    ),
    # Pairs, without a reference.
    "simpo": Objective(
        simpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=None,
        equation=r"-\log \sigma(\beta (\bar\ell_w - \bar\ell_l) - \gamma)",
        summary="logistic loss on log-probs per token, beyond a margin of gamma",
        when="no memory for a reference, and answers of many lengths; with a small learning rate",
        paper="arXiv 2405.14734, eq. 6",
        needs=frozenset({"tokens"}),
    ),
    "orpo": Objective(
        orpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=None,
        equation=r"-\bar\ell_w - \lambda \log \sigma(o_w - o_l),\quad o = \bar\ell - \log(1 - e^{\bar\ell})",
        summary="cross-entropy of the chosen answer per token, and the odds of both answers",
        when="a model without fine-tuning is to learn the answers and the preference at once",
        paper="arXiv 2403.07691, eq. 6",
        needs=frozenset({"tokens"}),
    ),
    "cpo": Objective(
        cpo,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=None,
        equation=r"-\log \sigma(\beta (\ell_w - \ell_l)) - \lambda \ell_w",
        summary="dpo with a uniform reference, and the cross-entropy of the chosen answer",
        when="no memory for a reference, and chosen answers are good enough to imitate",
        paper="arXiv 2401.08417, eq. 3",
        needs=frozenset(),
    ),
    "slic": Objective(
        slic,
        takes="pairs",
        unit="pair",
        denominator="pairs",
        at_zero=None,
        equation=r"\max(0, \delta - (\ell_w - \ell_l)) - \lambda \ell_w",
        summary="no loss beyond a gap of delta nats, and the cross-entropy of the chosen answer",
        when="as cpo, where pairs that are apart should be left alone",
        paper="arXiv 2305.10425",
        needs=frozenset(),
    ),
    # Labelled answers, or the answers of pairs one by one.
    "kto": Objective(
        kto,
        takes="labelled",
        unit="batch",
        denominator="answers",
        at_zero=_kto_at_zero,
        equation=r"\lambda_y (1 - \sigma(\pm \beta (r - z)))",
        summary="answers judged one by one against the batch's reference point",
        when="answers are labelled good or bad, and not compared",
        paper="arXiv 2402.01306, eq. 8",
        needs=frozenset({"reference_log_prob", "mismatched"}),
    ),
    "bco": Objective(
        bco,
        takes="labelled",
        unit="batch",
        denominator="answers",
        at_zero=lambda _, **options: math.log(2),
        equation=r"-\log \sigma(\pm (\beta r - \delta))",
        summary="binary cross-entropy at rewards less delta, the middle between good and bad answers so far",
        when="as kto, where labels are reliable",
        paper="arXiv 2404.04656",
        state={"desirable_mean": 0.0, "undesirable_mean": 0.0},
        remember=remember_rewards,
    ),
    # Rankings.
    "plackett_luce": Objective(
        plackett_luce,
        takes="rankings",
        unit="ranking",
        denominator="rankings",
        at_zero=_plackett_luce_at_zero,
        equation=r"-\sum_k \log \frac{e^{\beta r_k}}{\sum_{j \ge k} e^{\beta r_j}}",
        summary="the likelihood of the whole order; of tied answers, of all orders that they may have had",
        when="more than two answers to a prompt are ranked",
        paper="arXiv 2305.18290, appendix A.3",
    ),
    # Answers to imitate.
    "sft": Objective(
        sft,
        takes="answers",
        unit="answer",
        denominator="tokens",
        at_zero=None,
        equation=r"-\log \pi(y \mid x)",
        summary="cross-entropy of the answer's tokens",
        when="there are good answers and no bad ones; in a mixture, to keep chosen answers likely",
        paper="maximum likelihood",
        needs=frozenset(),
    ),
    # All answers, as terms of a mixture.
    "kl": Objective(
        kl,
        takes="all answers",
        unit="answer",
        denominator="answers",
        at_zero=lambda _: 0.0,
        equation=r"D,\quad D = \mathrm{KL}(\pi, \pi_{ref})",
        summary="exact token KL(policy, reference) along every answer",
        when="in a mixture, at so many losses a nat: dpo + 0.1*kl",
        paper="arXiv 1909.08593",
        needs=WITH_KL_POLICY_REFERENCE,
    ),
    "kl_reference": Objective(
        kl_reference,
        takes="all answers",
        unit="answer",
        denominator="answers",
        at_zero=lambda _: 0.0,
        equation=r"D,\quad D = \mathrm{KL}(\pi_{ref}, \pi)",
        summary="exact token KL(reference, policy) along every answer",
        when="as kl, where the policy must not forget what its reference can say",
        paper="arXiv 1909.08593",
        needs=WITH_KL_REFERENCE_POLICY,
    ),
}


def objective(name: str) -> Objective:
    """The row of that name; a ConfigError names those there are."""
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"there is no objective {name!r}; {meant}choose one of: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
