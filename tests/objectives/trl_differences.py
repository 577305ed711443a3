"""Where kilter's objectives differ on purpose from those of TRL 1.16 of the same name or paper, and why.

The list in the docs is made of this one; `test_against_trl.py` holds it true.
"""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """kilter: its objective, as text. trl: the settings that come closest. why: what differs. equal: what makes both
    the same, if anything does."""

    kilter: str
    trl: str
    why: str
    equal: str | None


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "ipo",
        'DPOTrainer, loss_type="ipo"',
        "the paper's equation has log-ratios summed over an answer's tokens; TRL averages them",
        "ipo_mean",
    ),
    Difference(
        "dpo(label_smoothing=0.1)",
        'DPOTrainer, loss_type="sigmoid", label_smoothing=0.1',
        "TRL's sigmoid loss takes label_smoothing and does not look at it: conservative DPO is not among its losses",
        None,
    ),
    Difference(
        "bco_pair",
        'DPOTrainer, loss_type="bco_pair"',
        "the paper shifts rewards by their mean; TRL leaves the shift out",
        None,
    ),
    Difference(
        "fdpo_alpha, fdpo_forward_kl",
        'DPOTrainer, f_divergence_type="alpha_divergence" or "forward_kl"',
        "where exp overflows kilter goes on along the tangent, so that an answer all but ruled out still has a "
        "gradient; TRL clamps the exponent at 80, which ends the gradient, or lets it overflow",
        "log-ratios below 60 nats in size",
    ),
    Difference(
        "discopop",
        'DPOTrainer, loss_type="discopop"',
        "kilter forms the exponential and its share as one; in TRL their product is 0 times inf, not a number, at "
        "margins below -88 in float32",
        "margins above -88",
    ),
    Difference(
        "wpo_clamped",
        "DPOTrainer, use_weighting=True",
        "the authors' code bounds a pair's weight by 1; their paper, TRL and kilter's wpo do not",
        "wpo",
    ),
    Difference(
        "ld_dpo_policy",
        "DPOTrainer, ld_alpha=0.5",
        "TRL before 1.0 weighted the policy's tokens alone; TRL 1.16 and kilter's ld_dpo weight the reference's too",
        "ld_dpo",
    ),
    Difference(
        "sppo_soft",
        'DPOTrainer, loss_type="sppo_hard"',
        "TRL takes every label for certain; the paper has probabilities",
        "sppo, or data whose preferences are all 1",
    ),
    Difference(
        "kto",
        "KTOTrainer",
        "mismatched answers are those of the next row of the batch that has another prompt; TRL takes the previous "
        "row's, whatever its prompt",
        "the same mismatched answers",
    ),
    Difference(
        "cpo",
        "CPOTrainer",
        "the paper sums the log-probs of a chosen answer; TRL averages them over the tokens of a batch",
        "cpo(nll_weight=0) + sft",
    ),
    Difference(
        "orpo",
        "ORPOTrainer",
        "the cross-entropy is of each chosen answer, per token; TRL's is of prompts too, over the tokens of a batch",
        "one pair, with a prompt of one token",
    ),
)
